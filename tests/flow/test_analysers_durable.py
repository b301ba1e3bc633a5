"""What is durable stays on disk until the analyser has it: over a real spool, with an analyser that a test plays."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from analyser_far_ends import BROKEN_OFF, BUSY, BY_CHANNEL, CALLED, Analyser, FarLine

from agent.errors import Finding
from agent.flow.letters import TAKEN, Answered, Outcome
from agent.flow.outbox import Outbox
from agent.flow.pusher import TAKEN_IN_WORDS, Pusher, PushLimits
from agent.flow.remotes import Remotes
from agent.protocol.envelope import Push, PushResponse
from agent.spec import RemoteSpec, RetryMode, RetryPolicy
from agent.store.row import AckState, Content, Direction, Row, State
from agent.store.spool import Spool, SpoolEvents, Timing

WITHIN_S = 20.0
FAST = RetryPolicy(base_ms=1, max_ms=5)
ORDER = "H|\\^&|||LIS\nP|1\nO|1|S{}||^^^GLU\nL|1|N\n"


def nobody(*rows: object) -> None:
    raise AssertionError("a row of the outbox was told to somebody else")


class Desk:
    """A pusher and an outbox at work on a spool file. `told`: what durable messages came to, by callback."""

    def __init__(self, analyser: Analyser, spec: RemoteSpec) -> None:
        self.analyser = analyser
        self.spec = spec
        self.told: dict[str, Outcome] = {}
        self.said: list[PushResponse] = []
        self.spool: Spool
        self.remotes = Remotes(
            self._read,
            dial=lambda spec, events: pytest.fail("an analyser was taken for a remote that speaks HL7"),
            call=analyser.call,
            serving=analyser.serving,
            waiting_limit=lambda: 100,
            on_health=lambda spec, failure: None,
            now=time.monotonic,
        )
        self.outbox = Outbox(
            self.remotes, tell=self._tell, allowed=lambda: True, now_ms=lambda: time.time_ns() // 1_000_000
        )
        self.pusher = Pusher(self.remotes, self.outbox, limits=PushLimits)

    def _read(self, text: str) -> tuple[RemoteSpec, tuple[Finding, ...]]:
        return self.spec, ()

    def _tell(self, row: Row, remote: str, outcome: Outcome) -> bool:
        self.told[row.callback] = outcome
        return True

    def push(self, *numbers: int) -> None:
        for number in numbers:
            self.pusher.take(Push(self.spec.url, "text/plain", ORDER.format(number), f"cb-{number}"), self.said.append)

    async def session(self) -> FarLine:
        """The connection on which a session is under way, as soon as there is one."""
        async with asyncio.timeout(WITHIN_S):
            while not self.analyser.under_way:
                await asyncio.sleep(0.002)
        (line,) = self.analyser.under_way
        return line

    async def settled(self, row_id: int) -> Row:
        """A row that has come to its end, once the file says so."""
        async with asyncio.timeout(WITHIN_S):
            while True:
                row = self.spool.shelf.get(row_id, Direction.OUT)
                if row is not None and row.kept.finished:
                    return row
                await asyncio.sleep(0.002)


@asynccontextmanager
async def desk_at(
    path: Path, analyser: Analyser, *, policy: RetryPolicy = FAST, by_channel: bool = False
) -> AsyncIterator[Desk]:
    where = BY_CHANNEL if by_channel else CALLED
    spec = RemoteSpec(
        f"{where.url}?durable=true",
        where.host,
        where.port,
        wire=where.wire,
        line=where.line,
        durable=True,
        retry=policy,
    )
    desk = Desk(analyser, spec)
    events = desk.outbox.ahead_of(SpoolEvents(nobody, nobody, nobody, nobody, lambda trouble: None))
    async with Spool.open(path, events, min_free_bytes=0, timing=Timing(probe_every_s=0.02)) as spool:
        desk.spool = spool
        desk.outbox.connect(spool)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(spool.run())
            desk.outbox.pump()
            try:
                yield desk
            finally:
                desk.outbox.stop()
                desk.remotes.abort()
                running.cancel()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool.db"


async def test_records_are_on_disk_before_the_analyser_gets_them_and_are_known_for_what_they_are(path: Path) -> None:
    analyser = Analyser()
    async with desk_at(path, analyser) as desk:
        desk.push(1)
        line = await desk.session()
        (row,) = desk.spool.shelf.open_range(0, 1 << 62)
        assert (row.kept, row.content, row.body) == (
            State.INFLIGHT,
            Content.ASTM,
            b"H|\\^&|||LIS\rP|1\rO|1|S1||^^^GLU\rL|1|N\r",
        )
        line.ends()
        row = await desk.settled(row.id)
        assert (row.state, row.ack, row.ack_code, row.answer) == (State.PROCESSED, AckState.DELIVERED, TAKEN, None)
        assert (row.content, row.control_id, row.message_type, row.attempts) == (Content.ASTM, b"", b"", 1)
        assert desk.told == {"cb-1": Answered(b"", TAKEN)}


async def test_who_does_not_wait_hears_at_once_that_it_is_stored(path: Path) -> None:
    analyser = Analyser()
    async with desk_at(path, analyser) as desk:
        push = Push(desk.spec.url, "text/plain", ORDER.format(1), "cb-1", wait_for_response=False)
        desk.pusher.take(push, desk.said.append)
        await desk.session()
        assert [(said.status_code, said.callback) for said in desk.said] == [(202, "cb-1")]


async def test_an_analyser_that_is_busy_is_tried_again_and_the_order_stays(path: Path) -> None:
    analyser = Analyser()
    async with desk_at(path, analyser) as desk:
        desk.push(1, 2)
        for _ in range(3):
            (await desk.session()).ends(BUSY)
        (await desk.session()).ends()
        (await desk.session()).ends()
        first, second = await desk.settled(1), await desk.settled(2)
        assert (first.attempts, first.ambiguous, second.attempts) == (4, False, 1)
        assert [body.split(b"|S")[1][:1] for body in analyser.got] == [b"1", b"1", b"1", b"1", b"2"]


async def test_what_may_be_there_is_sent_again_and_marked_where_delivery_is_guaranteed(path: Path) -> None:
    analyser = Analyser()
    async with desk_at(path, analyser) as desk:
        desk.push(1)
        (await desk.session()).ends(BROKEN_OFF)
        (await desk.session()).ends()
        row = await desk.settled(1)
        assert (row.state, row.ambiguous, row.attempts) == (State.PROCESSED, True, 2)


async def test_what_may_be_there_is_left_to_a_person_elsewhere(path: Path) -> None:
    analyser = Analyser()
    async with desk_at(path, analyser, policy=RetryPolicy(RetryMode.NORMAL, 1, 5)) as desk:
        desk.push(1)
        (await desk.session()).ends(BROKEN_OFF)
        row = await desk.settled(1)
        assert (row.state, row.ambiguous, len(analyser.got)) == (State.HELD, True, 1)


async def test_a_channel_without_a_connection_is_waited_for(path: Path) -> None:
    analyser = Analyser()
    analyser.channel = "HAEM"
    async with desk_at(path, analyser, by_channel=True) as desk:
        desk.push(1)
        async with asyncio.timeout(WITHIN_S):
            while not desk.remotes.by_url or desk.remotes.find(desk.spec.url).metrics.failed.get("unreachable", 0) < 3:
                await asyncio.sleep(0.002)
        analyser.is_connected_to("HAEM")
        (await desk.session()).ends()
        row = await desk.settled(1)
        assert (row.state, row.ambiguous, analyser.calls) == (State.PROCESSED, False, [])


async def test_what_is_not_durable_is_answered_in_words(path: Path) -> None:
    analyser = Analyser(takes_at_once=True)
    async with desk_at(path, analyser) as desk:
        desk.spec = CALLED
        desk.push(1)
        async with asyncio.timeout(WITHIN_S):
            while not desk.said:
                await asyncio.sleep(0.002)
        (said,) = desk.said
        assert (said.status_code, said.content_type, said.body) == (200, "text/plain", TAKEN_IN_WORDS)


async def test_what_is_no_message_for_an_analyser_is_refused_with_the_reason(path: Path) -> None:
    analyser = Analyser()
    async with desk_at(path, analyser) as desk:
        desk.pusher.take(Push(desk.spec.url, "text/plain", "MSH|^~\\&|LIS", "cb"), desk.said.append)
        (said,) = desk.said
        assert (said.status_code, analyser.got) == (400, [])
        assert "does not begin with a header record" in str(said.body)
