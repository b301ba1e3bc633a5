"""The way in: what devices send, from their connections to the server's answer.

Secret: how channels, intakes, dispatcher, drafts and objects are wired to each other and to this host's settings.
Promise: what was acknowledged is on the disk, as a row, a draft or an object, and finds its way from there to the
server whatever happens in between; a stop answers what was taken.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final, assert_never

import structlog

from agent.channels import Channels
from agent.errors import Finding, Severity
from agent.flow.answers import Answers
from agent.flow.astmintake import AstmIntake
from agent.flow.byteintake import ByteIntake
from agent.flow.dispatcher import Dispatcher, Link, Window
from agent.flow.intake import Intake
from agent.flow.lanes import Lane
from agent.flow.letters import Served
from agent.flow.objectintake import ObjectIntake
from agent.flow.reception import Limits, Means, Reception
from agent.flow.replies import Replies
from agent.flow.uploads import Uploads
from agent.flow.voice import Voice
from agent.inlets import Openings
from agent.logbook import ContentLog, Repeated
from agent.metrics import ChannelMetrics
from agent.net.astmline import AstmConnection
from agent.net.inlet import Room
from agent.settings import Settings
from agent.spec import Astm, ByteStream, ChannelSpec, Dicom, Mllp, RemoteSpec
from agent.store.drafts import Drafts, LeftDraft
from agent.store.objects import Objects, undelivered_objects
from agent.store.row import Content, Row
from agent.store.salvage import left_aside
from agent.store.spool import Spool
from agent.store.sqlite import SpoolTrouble

log = structlog.get_logger("main")

CROWDED_BYTES: Final = 32 << 20  # taken but not yet on the platter: beyond it senders wait
SWEEP_OBJECTS_S: Final = 3_600.0
CLOSE_DRAFTS_S: Final = 1.0  # of the 10 s that a supervisor grants, as little as the spool takes


class Receiving:
    """`settings` is asked each time where a change takes hold without a restart. `token`: the current access token;
    `upload` brings a file to the server, as Uploads has it."""

    def __init__(
        self,
        *,
        settings: Callable[[], Settings],
        token: Callable[[], str],
        upload: Callable[[Path], Awaitable[str]],
        content_log: ContentLog | None,
        now_ms: Callable[[], int],
    ) -> None:
        told = settings()
        self._settings = settings
        self._now_ms = now_ms
        self._content_log = content_log.note if content_log is not None else None
        self._repeated = Repeated()
        # not the loop's clock: uvloop's has a resolution of a millisecond, which is a whole round trip
        self.replies = Replies(self._late, time.monotonic)
        self._answers = Answers(self.replies, Voice(), self._content_log)
        self._drafts = Drafts(told.paths.data_dir / "drafts", close_within_s=CLOSE_DRAFTS_S)
        self._left: list[LeftDraft] | None = None
        self._unnamed = 0
        self.objects = Objects(told.paths.data_dir / "objects")
        self._uploads = Uploads(self.objects, upload)
        self.dispatcher = Dispatcher(
            answers=self._answers,
            token=token,
            agent_id=told.server.agent_id,
            window=Window(told.limits.window_frames, told.limits.window_bytes, told.server.response_timeout_s),
            now=time.monotonic,
            now_ms=now_ms,
            uploads=self._uploads,
        )
        self.channels = Channels(
            dispatcher=self.dispatcher,
            replies=self.replies,
            make_intake=self._make_intake,
            crowded=lambda: self._spool.uncommitted_bytes > CROWDED_BYTES,
            openings=Openings(
                Room(told.limits.unfinished_bytes),
                told.limits.unanswered_per_connection,
                self.objects.folder,
                lambda: self._settings().spool.min_free_mb << 20,
            ),
        )
        self._spool: Spool

    def connect(self, spool: Spool, link: Link) -> None:
        """Complete the circle."""
        self._spool = spool
        self.dispatcher.connect(spool, link)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.replies.run(), name="receiving:replies")
            tasks.create_task(self.dispatcher.run(), name="receiving:dispatcher")
            tasks.create_task(self.channels.run(), name="receiving:channels")
            tasks.create_task(self._uploads.run(), name="receiving:uploads")
            tasks.create_task(self._sweep_objects(), name="receiving:objects")

    async def drain(self, within_s: float) -> None:
        """Answer what was taken, and take no more."""
        async with asyncio.TaskGroup() as ends:
            ends.create_task(self.channels.close(drain_s=within_s), name="drain:senders")
            ends.create_task(self.dispatcher.drain(), name="drain:server")

    async def close(self) -> None:
        """Let go of everything, at once."""
        self.channels.cut()
        await asyncio.gather(self._drafts.close(), self.objects.close())

    def park_the_rest(self) -> None:
        """Channels that nobody configures any more, but whose messages are still here."""
        try:
            stored = self._spool.shelf.open_channels()
        except SpoolTrouble as trouble:
            log.error("spool.unread", reason=str(trouble), remedy=trouble.hint)
            stored = []
        for name in stored:
            if name not in self.dispatcher.lanes:
                self.dispatcher.configure(name, None, self.channels.metrics.setdefault(name, ChannelMetrics()))

    def serving(self, spec: RemoteSpec) -> Served | None:
        """As Serving has it."""
        now = time.monotonic()
        for channel in self.channels.by_name.values():
            ours = channel.spec
            same_place = ours.dials and (ours.host, ours.port) == (spec.host, spec.port)
            if isinstance(ours.wire, Astm) and (ours.name == spec.line if spec.line else same_place):
                found = channel.inlet.connections if channel.inlet is not None else ()
                ready = [line for line in found if isinstance(line, AstmConnection) and line.ready]
                ready.sort(key=lambda line: line.evidence(now, over=False).age_s)
                return Served(ours.name, tuple(ready))
        return None

    def findings(self) -> Iterator[Finding]:
        """What analysers were told is safe, and does not go on its way."""
        for name, count in Counter(left.channel for left in self._leftovers()).items():
            text = f"{count} sessions of analysers that broke off wait for a channel that is not configured any more"
            remedy = "add the channel again, under the same name, to have them delivered"
            yield Finding("draft.not-configured", Severity.WARNING, text, remedy, name)
        if self._unnamed:
            text = f"{self._unnamed} DICOM objects are named by no message, perhaps since the spool was damaged"
            remedy = "look through them, bring what is missing to the server, and then move the damaged spool away"
            yield Finding("objects.unnamed", Severity.ERROR, text, remedy, str(self.objects.folder))
        for unread in self._drafts.unread:
            text = f"what an analyser has sent cannot be read any more: {unread.reason}"
            remedy = "ask the laboratory to send its last results again, and keep the file for a closer look"
            yield Finding("draft.unread", Severity.ERROR, text, remedy, str(unread.path))

    # ---- what the spool tells

    def durable(self, rows: list[Row]) -> None:
        self.dispatcher.durable(rows)
        self.channels.durable(rows)

    def refused(self, rows: list[Row], trouble: SpoolTrouble) -> None:
        self.dispatcher.refused(rows)
        self.channels.refused(rows, trouble)

    def mended(self, trouble: SpoolTrouble | None) -> None:
        """The disk does what it should again; LOW: but for what is new."""
        if trouble is None:
            for channel in self.channels.by_name.values():
                channel.intake.mended()
        self.dispatcher.pump()

    # ---- intakes

    def _make_intake(self, lane: Lane, spec: ChannelSpec) -> Reception:
        means = Means(
            spool=self._spool,
            dispatcher=self.dispatcher,
            answers=self._answers,
            limits=Limits(self._settings().server.max_frame_bytes),
            now_ms=self._now_ms,
            on_refusal=self._refusal,
            content_log=self._content_log,
        )
        match spec.wire:
            case Mllp():
                return Intake(lane, means)
            case ByteStream():
                return ByteIntake(lane, means)
            case Astm():
                intake = AstmIntake(lane, means, self._drafts)
                # not from here: the lane is not the channel's yet
                asyncio.get_running_loop().call_soon(partial(self._recover, intake, spec.name))
                return intake
            case Dicom():
                return ObjectIntake(lane, means, self.objects)
            case _ as never:
                assert_never(never)

    def _recover(self, intake: AstmIntake, channel: str) -> None:
        """What an earlier process acknowledged to this channel's analysers and did not finish."""
        left = self._leftovers()
        self._left = [each for each in left if each.channel != channel]
        intake.recover(each for each in left if each.channel == channel)

    def _leftovers(self) -> list[LeftDraft]:
        """What earlier processes have left, and no channel has taken up yet."""
        if self._left is None:
            self._left = self._drafts.leftovers()
            for unread in self._drafts.unread:
                log.error("draft.unread", path=str(unread.path), reason=unread.reason)
        return self._left

    def _refusal(self, channel: str, reference: str, reason: str) -> None:
        if self._spool.trouble is not None:
            self._repeated.warning("message.refused", channel, reason)  # not a line a message, on the disk that is full
        else:
            log.warning("message.refused", channel=channel, ref=reference, reason=reason)

    def _late(self, row: Row) -> bytes | None:
        channel = self.channels.by_name.get(row.channel)
        if channel is not None:
            return channel.intake.late(row)
        if row.content is not Content.HL7:
            return None
        return self._answers.voice.answer(row, "AE", "this channel was switched off", None)

    # ---- objects

    async def _sweep_objects(self) -> None:
        """Delete the files that no message names any more: retention took it, or it was never stored."""
        while True:
            try:
                await self._sweep()
            except SpoolTrouble as trouble:
                log.warning("objects.not-swept", reason=str(trouble), remedy=trouble.hint)
            await asyncio.sleep(SWEEP_OBJECTS_S)

    async def _sweep(self) -> None:
        """While a damaged spool lies beside, its messages may be those that are missing: then nothing is deleted."""
        damaged = await asyncio.to_thread(left_aside, self._settings().paths.spool)
        unnamed = 0

        async def wanted(numbers: list[int]) -> set[int]:
            nonlocal unnamed
            named = await self._spool.survey(partial(undelivered_objects, numbers=numbers))
            unnamed += len(numbers) - len(named)
            return set(numbers) if damaged else named

        await self.objects.sweep(wanted)
        self._unnamed = unnamed if damaged else 0
