"""The far ends of the flow room's tests: a server, devices, a disk, and a clock that stands still until it is moved."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import apsw

from agent.flow.answers import Answers
from agent.flow.astmintake import AstmIntake
from agent.flow.byteintake import ByteIntake
from agent.flow.dispatcher import Dispatcher, Window
from agent.flow.intake import Intake
from agent.flow.lanes import Lane
from agent.flow.objectintake import ObjectIntake
from agent.flow.reception import Limits, Means, Reception
from agent.flow.replies import Replies
from agent.flow.voice import Voice
from agent.metrics import ChannelMetrics
from agent.protocol.envelope import TransmitRequest, TransmitResponse, decode_from_agent
from agent.protocol.forensics import Oddity
from agent.protocol.hl7 import Acknowledgement, Header, build_ack, read_ack
from agent.spec import Astm, ByteStream, ChannelSpec, Dicom
from agent.store.drafts import Drafts
from agent.store.objects import Objects
from agent.store.row import Row
from agent.store.spool import Spool, SpoolEvents
from agent.store.sqlite import SpoolTrouble

WITHIN_S = 10.0
SPEC = ChannelSpec("adt", "mllp://127.0.0.1:2575", "127.0.0.1", 2575)


def adt(control_id: str = "M1", *, patient: str = "P1", event: str = "A01", extra: str = "") -> bytes:
    """A small ADT message of a patient that does not exist."""
    return (
        f"MSH|^~\\&|ADT1|GHH|LAB|GHH|20261122101500||ADT^{event}^ADT_{event}|{control_id}|P|2.5.1\r"
        f"EVN||20261122101500\rPID|1||{patient}^^^GHH||EVERYMAN^ADAM{extra}\r"
    ).encode()


def ack_for(body: str, code: str = "AA", text: str = "") -> str:
    """The acknowledgement that a server's bot writes for a message."""
    header = Header.of(body.encode())
    return build_ack(header, code, text=text, control_id=b"S1", when="20261122101501").decode()


class Bell:
    """Rings whenever a far end has heard something."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def ring(self) -> None:
        self._rung.set()

    async def until(self, so: Callable[[], object]) -> None:
        """Wait until `so` holds; fails after WITHIN_S."""
        async with asyncio.timeout(WITHIN_S):
            while not so():
                self._rung.clear()
                await self._rung.wait()


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.s = 1_000.0

    def now(self) -> float:
        return self.s

    def now_ms(self) -> int:
        return 1_795_000_000_000 + int(self.s * 1000)


class Server:
    """A Medplum-compatible server as the dispatcher's link. `heard`: every frame, in order."""

    def __init__(self, bell: Bell) -> None:
        self.live = True
        self.writable = True
        self.heard: list[TransmitRequest] = []
        self.answers_at_once = False
        self._bell = bell
        self.dispatcher: Dispatcher

    def send(self, frames: list[bytes]) -> None:
        assert self.live, "a frame was sent on a socket that is not live"
        new = [frame for frame in map(decode_from_agent, frames) if isinstance(frame, TransmitRequest)]
        self.heard += new
        self._bell.ring()
        if self.answers_at_once:
            for frame in new:
                asyncio.get_running_loop().call_soon(self.answer, frame)

    def answer(self, frame: TransmitRequest, status: int = 200, body: Any = None, **fields: Any) -> None:
        """Answer a request, with AA unless told otherwise."""
        assert frame.body is not None
        said = {"channel": frame.channel, "remote": frame.remote, "callback": frame.callback, **fields}
        if body is None and status == 200:
            body = ack_for(frame.body)
        self.dispatcher.answered([TransmitResponse(status_code=status, body=body, **said)])
        self._bell.ring()

    @property
    def ids(self) -> list[str]:
        """MSH-10 of what was heard, in order."""
        return [control_id_of(frame) for frame in self.heard]

    def lose(self, *, too_large: bool = False) -> None:
        """The socket breaks."""
        self.live = self.writable = False
        self.dispatcher.link_lost(too_large=too_large)

    def back(self) -> None:
        """The socket is live again."""
        self.live = self.writable = True
        self.dispatcher.pump()


def control_id_of(frame: TransmitRequest) -> str:
    assert frame.body is not None
    return Header.of(frame.body.encode()).control_id.decode()


class Device:
    """A connected sender. `heard`: answers to its frames; `told`: what else it was told; `owed`: frames unanswered."""

    def __init__(self, bell: Bell, remote: str = "10.0.0.1:40001") -> None:
        self.remote = remote
        self.gone = False
        self.reads = True
        self.closing = False
        self.heard: list[bytes] = []
        self.told: list[bytes] = []
        self.owed = 0
        self.oddities: list[Oddity] = []
        self._bell = bell

    def reply(self, message: bytes) -> None:
        assert not self.gone, "written to a connection that has gone"
        assert self.owed > 0, "answered more frames than it sent"
        self.owed -= 1
        self.heard.append(message)
        self._bell.ring()

    def tell(self, message: bytes) -> bool:
        if self.reads:
            self.told.append(message)
            self._bell.ring()
        return self.reads

    def waive(self) -> None:
        self.owed -= 1

    def expect(self, more: int) -> None:
        self.owed += more

    def odd(self, oddity: Oddity) -> None:
        self.oddities.append(oddity)

    def close_after_reply(self) -> None:
        self.closing = True
        self._bell.ring()

    @property
    def acks(self) -> list[Acknowledgement]:
        found = [read_ack(message) for message in self.heard]
        assert None not in found, "an answer was no acknowledgement"
        return [ack for ack in found if ack is not None]

    @property
    def codes(self) -> list[str]:
        return [ack.code for ack in self.acks]


class Desk:
    """The flow room at work on a real spool, between a server and devices that the test plays."""

    def __init__(self, spool_path: Path, window: Window) -> None:
        self.bell = Bell()
        self.clock = Clock()
        self.server = Server(self.bell)
        self.refusals: list[tuple[str, str, str]] = []
        self.limits = Limits()
        self.replies = Replies(self._late, self.clock.now)
        self.answers = Answers(self.replies, Voice())
        self.dispatcher = Dispatcher(
            answers=self.answers,
            token=lambda: "token",
            agent_id="2f0f3ac2-8ad4-4b5a-9a4b-3d9d47a1f9b1",
            window=window,
            now=self.clock.now,
            now_ms=self.clock.now_ms,
        )
        self.server.dispatcher = self.dispatcher
        self.intakes: dict[str, Reception] = {}
        self.path = spool_path
        self.drafts = Drafts(spool_path.parent / "drafts")
        self.objects: Objects | None = None
        self.spool: Spool

    @property
    def events(self) -> SpoolEvents:
        return SpoolEvents(self._durable, self._claimed, self._refused, self._unclaimed, lambda _: self.bell.ring())

    def _late(self, row: Row) -> bytes | None:
        return self.intakes[row.channel].late(row)

    def _durable(self, rows: list[Row]) -> None:
        self.dispatcher.durable(rows)
        for name, intake in self.intakes.items():
            intake.durable([row for row in rows if row.channel == name])
        self.bell.ring()

    def _claimed(self, rows: list[Row]) -> None:
        self.dispatcher.claimed(rows)
        self.bell.ring()

    def _refused(self, rows: list[Row], trouble: SpoolTrouble) -> None:
        self.dispatcher.refused(rows)
        for name, intake in self.intakes.items():
            intake.refused([row for row in rows if row.channel == name], trouble)
        self.bell.ring()

    def _unclaimed(self, rows: list[Row]) -> None:
        self.dispatcher.unclaimed(rows)
        self.bell.ring()

    def open(self, spec: ChannelSpec = SPEC) -> Lane:
        """Carry a channel; again with other parameters to change it."""
        known = self.dispatcher.lanes.get(spec.name)
        lane = self.dispatcher.configure(spec.name, spec, known.metrics if known is not None else ChannelMetrics())
        if spec.name not in self.intakes:
            means = Means(
                spool=self.spool,
                dispatcher=self.dispatcher,
                answers=self.answers,
                limits=self.limits,
                now_ms=self.clock.now_ms,
                on_refusal=lambda *refusal: self.refusals.append(refusal),
            )
            self.intakes[spec.name] = self._reception(lane, spec, means)
        return lane

    def _reception(self, lane: Lane, spec: ChannelSpec, means: Means) -> Reception:
        match spec.wire:
            case ByteStream():
                return ByteIntake(lane, means)
            case Astm():
                return AstmIntake(lane, means, self.drafts)
            case Dicom():
                assert self.objects is not None
                return ObjectIntake(lane, means, self.objects)
            case _:
                return Intake(lane, means)

    def device(self, remote: str = "10.0.0.1:40001", channel: str = "adt") -> Device:
        """A device that has just connected."""
        device = Device(self.bell, remote)
        self.replies.opened(channel, device)
        return device

    def send(self, device: Device, *frames: bytes, channel: str = "adt") -> None:
        """The device sends frames in one packet."""
        device.owed += len(frames)
        self.intakes[channel].receive(device, list(frames))

    def hangs_up(self, device: Device, channel: str = "adt") -> None:
        device.gone = True
        self.replies.closed(channel, device)

    async def stored(self) -> None:
        """Everything that was handed to the spool is on the disk."""
        async with asyncio.timeout(WITHIN_S):
            await self.spool.perform(lambda _: None)

    async def hears(self, number: int) -> list[TransmitRequest]:
        """The server hears that many frames, and after the next commit no more."""
        await self.bell.until(lambda: len(self.server.heard) >= number)
        await self.stored()
        assert len(self.server.heard) == number, self.server.ids
        return self.server.heard

    async def row(self, control_id: str = "M1", channel: str = "adt") -> Row:
        """A message as the disk has it."""
        await self.stored()
        row = self.spool.shelf.newest(channel, control_id.encode())
        assert row is not None
        return row


@asynccontextmanager
async def at_the_desk(
    path: Path,
    *,
    window: Window = Window(),  # noqa: B008 - frozen
    vfs: str | None = None,
) -> AsyncIterator[Desk]:
    desk = Desk(path, window)
    async with Spool.open(path, desk.events, min_free_bytes=0, vfs=vfs) as desk.spool:
        desk.dispatcher.connect(desk.spool, desk.server)
        yield desk
        await desk.drafts.close()


class SickDisk(apsw.VFS):
    """A disk that can be full, or not answer reads."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.full = False
        self.unreadable = False
        super().__init__(name, "")

    def xOpen(self, name: Any, flags: list[int]) -> SickFile:
        return SickFile(self, name, flags)


class SickFile(apsw.VFSFile):
    def __init__(self, disk: SickDisk, name: Any, flags: list[int]) -> None:
        self._disk = disk
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        if self._disk.full:
            raise apsw.FullError("the disk is full")
        super().xWrite(data, offset)

    def xRead(self, amount: int, offset: int) -> bytes:
        if self._disk.unreadable:
            raise apsw.IOError("the disk does not answer")
        return super().xRead(amount, offset)
