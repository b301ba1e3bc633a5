"""What is durable stays on disk until its remote has answered: over a real spool, with remotes that a test plays."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from flow_remotes import no_call, no_channel
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import ConfigError, Finding, Severity
from agent.failures import Failure, Kind
from agent.flow.letters import Answered, Line, LineEvents, Outcome
from agent.flow.outbox import Outbox
from agent.flow.remotequeue import PAGE_ROWS, Message, Parcel
from agent.flow.remotes import Remotes
from agent.protocol.hl7 import Header
from agent.spec import RemoteSpec, RetryMode, RetryPolicy
from agent.store.row import AckState, Direction, Row, State
from agent.store.spool import Spool, SpoolEvents, Timing

URL = "mllp://lab:2575?durable=true"
WITHIN_S = 20.0


def content(control_id: str) -> bytes:
    return b"MSH|^~\\&|ADT|W7|LAB|H|20260131030000||ADT^A01|%b|P|2.5.1\r" % control_id.encode()


def ack(code: str, control_id: bytes) -> bytes:
    return b"MSH|^~\\&|LAB|H|ADT|W7|20260131030001||ACK^A01|A1|P|2.5.1\rMSA|%b|%b\r" % (code.encode(), control_id)


class PlayedLine:
    """A connection to a system that answers as the test says."""

    noise = b""
    begun = 0

    def __init__(self, lab: Lab, events: LineEvents) -> None:
        self._lab = lab
        self._events = events
        self._loop = asyncio.get_running_loop()
        self._gone = False
        self._loop.call_soon(self._open)

    def _open(self) -> None:
        if self._lab.away is not None:
            self._gone = True
            self._events.failed(self, self._lab.away)
        else:
            self._events.opened(self)

    def send(self, message: bytes) -> None:
        control_id = Header.of(message).control_id
        self._lab.heard.append(control_id.decode())
        self._lab.happened.set()
        code = self._lab.answers(control_id.decode())
        if code == "loss":
            self._loop.call_soon(self._lose)
        elif code:
            self._loop.call_soon(self._say, ack(code, control_id))

    def _say(self, frame: bytes) -> None:
        if not self._gone:
            self._events.heard(self, [frame])

    def _lose(self) -> None:
        if not self._gone:
            self._gone = True
            self._events.closed(self, None)

    def close(self) -> None:
        self._loop.call_soon(self._lose)

    abort = close


class Lab:
    """The system behind every remote here. `answers(control id)`: MSA-1, `loss`, or nothing for silence."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.away: Failure | None = None
        self.answers: Callable[[str], str] = lambda control_id: "AA"
        self.happened = asyncio.Event()

    def dial(self, spec: RemoteSpec, events: LineEvents) -> Line:
        return PlayedLine(self, events)

    def goes(self) -> None:
        self.away = Failure(Kind.REFUSED, "cannot connect to lab:2575")

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(WITHIN_S):
            while not true():
                self.happened.clear()
                await self.happened.wait()


class Desk:
    """An outbox at work on a spool file, and everybody whom it tells something."""

    def __init__(self, lab: Lab, policy: RetryPolicy) -> None:
        self.lab = lab
        self.policy = policy
        self.allowed = True
        self.readable = True
        self.told: dict[str, Outcome] = {}
        self.stored: list[str] = []
        self.refused: dict[str, Failure] = {}
        self.health: list[Failure | None] = []
        self.spool: Spool
        self.remotes = Remotes(
            self._read,
            dial=lab.dial,
            call=no_call,
            serving=no_channel,
            waiting_limit=lambda: 1_000,
            on_health=lambda _, failure: self.health.append(failure),
            now=time.monotonic,
        )
        self.outbox = Outbox(
            self.remotes, tell=self._tell, allowed=lambda: self.allowed, now_ms=lambda: time.time_ns() // 1_000_000
        )

    def _read(self, text: str) -> tuple[RemoteSpec, tuple[Finding, ...]]:
        if not self.readable:
            raise ConfigError([Finding("remote.tls-unknown", Severity.ERROR, "there is no [tls.lab]", "add it", "lab")])
        return RemoteSpec(URL, "lab", 2575, durable=True, retry=self.policy, ack_timeout_s=0.1), ()

    def _tell(self, row: Row, remote: str, outcome: Outcome) -> bool:
        self.told[row.control_id.decode()] = outcome
        self.lab.happened.set()
        return True

    def push(self, *control_ids: str, callback: str = "cb") -> None:
        for control_id in control_ids:

            def stored(_: int, control_id: str = control_id) -> None:
                self.stored.append(control_id)
                self.lab.happened.set()

            def refused(failure: Failure, control_id: str = control_id) -> None:
                self.refused[control_id] = failure
                self.lab.happened.set()

            message = Message(content(control_id), control_id.encode(), b"ADT^A01")
            self.outbox.accept(self.remotes.find(URL), Parcel(URL, callback, message, None, stored, refused))

    def rows(self) -> dict[str, Row]:
        """Everything in the file that is not settled, by control id."""
        found = self.spool.shelf.open_range(0, 1 << 62)
        return {row.control_id.decode(): row for row in found}

    async def settled(self, control_id: str) -> Row:
        """The row of a message that has come to its end, once the file says so."""
        async with asyncio.timeout(WITHIN_S):
            while True:
                ids = range(1, self.spool.last_id + 1)
                for row_id in ids:
                    row = self.spool.shelf.get(row_id, Direction.OUT)
                    if row is not None and row.control_id.decode() == control_id and row.kept.finished:
                        return row
                await asyncio.sleep(0.01)


FAST = RetryPolicy(base_ms=1, max_ms=5)


@asynccontextmanager
async def desk_at(path: Path, lab: Lab, policy: RetryPolicy = FAST, *, readable: bool = True) -> AsyncIterator[Desk]:
    desk = Desk(lab, policy)
    desk.readable = readable
    outbox = desk.outbox

    others = SpoolEvents(
        on_durable=nobody,
        on_claimed=nobody,
        on_refused=nobody,
        on_unclaimed=nobody,
        on_health=lambda trouble: outbox.pump() if trouble is None else None,
    )
    events = outbox.ahead_of(others)
    async with Spool.open(path, events, min_free_bytes=0, timing=Timing(probe_every_s=0.02)) as spool:
        desk.spool = spool
        outbox.connect(spool)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(spool.run())
            outbox.pump()
            try:
                yield desk
            finally:
                outbox.stop()
                desk.remotes.abort()
                running.cancel()


def nobody(*rows: object) -> None:
    raise AssertionError("a row of the outbox was told to somebody else")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool.db"


async def test_a_message_is_on_disk_before_anybody_is_told_and_before_it_is_sent(path: Path) -> None:
    lab = Lab()
    async with desk_at(path, lab) as desk:
        seen: list[State] = []

        def look(control_id: str) -> str:
            (row,) = desk.rows().values()
            seen.append(row.kept)
            return "AA"

        lab.answers = look
        desk.push("P-1")
        assert not desk.stored
        await lab.until(lambda: "P-1" in desk.told)
        assert (seen, desk.stored) == ([State.INFLIGHT], ["P-1"])
        row = await desk.settled("P-1")
        assert (row.kept, row.ack, row.ack_code, row.attempts) == (State.PROCESSED, AckState.DELIVERED, "AA", 1)
        assert (row.direction, row.callback, row.channel) == (Direction.OUT, "cb", URL)
        assert row.answer == ack("AA", b"P-1")


async def test_messages_go_one_at_a_time_in_the_order_in_which_they_came(path: Path) -> None:
    lab = Lab()
    names = [f"P-{number}" for number in range(50)]
    async with desk_at(path, lab) as desk:
        desk.push(*names)
        await lab.until(lambda: len(desk.told) == 50)
    assert lab.heard == names


async def test_a_long_queue_is_held_on_disk_and_keeps_its_order(path: Path) -> None:
    lab = Lab()
    lab.goes()
    names = [f"P-{number}" for number in range(3 * PAGE_ROWS)]
    async with desk_at(path, lab) as desk:
        desk.push(*names)
        await lab.until(lambda: len(desk.stored) == len(names))
        assert desk.outbox.stored(URL)[0] == len(names)
        assert len(desk.outbox._lanes[URL].rows) == PAGE_ROWS
        lab.away = None
        # more come while the first ones go
        more = [f"Q-{number}" for number in range(PAGE_ROWS)]
        desk.push(*more)
        await lab.until(lambda: len(desk.told) == len(names) + len(more))
        assert lab.heard == names + more
        assert desk.outbox.urls() == []


async def test_a_remote_that_is_away_costs_tries_and_no_doubt(path: Path) -> None:
    lab = Lab()
    lab.goes()
    async with desk_at(path, lab) as desk:
        desk.push("P-1", "P-2")
        await lab.until(lambda: len(desk.stored) == 2)
        async with asyncio.timeout(WITHIN_S):
            while desk.remotes.by_url[URL].metrics.failed.get("refused", 0) < 4:
                await asyncio.sleep(0.005)
        lab.away = None
        await lab.until(lambda: len(desk.told) == 2)
        row = await desk.settled("P-1")
        assert (lab.heard, row.ambiguous) == (["P-1", "P-2"], False)
        assert row.attempts > 3
        assert [failure is None for failure in desk.health] == [False, True]


@pytest.mark.parametrize("mishap", ["loss", ""])
async def test_an_unknown_end_is_tried_again_and_marked_where_delivery_is_guaranteed(path: Path, mishap: str) -> None:
    lab = Lab()
    lab.answers = lambda control_id: "AA" if lab.heard.count(control_id) > 1 else mishap
    async with desk_at(path, lab) as desk:
        desk.push("P-1")
        await lab.until(lambda: "P-1" in desk.told)
        row = await desk.settled("P-1")
        assert (lab.heard, row.ambiguous, row.kept, row.attempts) == (["P-1", "P-1"], True, State.PROCESSED, 2)


@pytest.mark.parametrize("mode", [RetryMode.NONE, RetryMode.NORMAL])
async def test_an_unknown_end_is_left_to_a_person_elsewhere(path: Path, mode: RetryMode) -> None:
    lab = Lab()
    lab.answers = lambda control_id: "loss" if control_id == "P-1" else "AA"
    async with desk_at(path, lab, RetryPolicy(mode, base_ms=1, max_ms=5)) as desk:
        desk.push("P-1", "P-2")
        await lab.until(lambda: len(desk.told) == 2)
        row = await desk.settled("P-1")
        assert (row.kept, row.ambiguous, lab.heard) == (State.HELD, True, ["P-1", "P-2"])
        assert "a person decides" in row.reason


async def test_the_tries_of_a_policy_end(path: Path) -> None:
    lab = Lab()
    lab.goes()
    async with desk_at(path, lab, RetryPolicy(RetryMode.NORMAL, base_ms=1, max_ms=5, max_attempts=3)) as desk:
        desk.push("P-1")
        await lab.until(lambda: "P-1" in desk.told)
        row = await desk.settled("P-1")
        assert (row.kept, row.attempts) == (State.FAILED, 3)
        assert row.reason.startswith("given up after 3 tries: cannot connect")


@pytest.mark.parametrize(("code", "state"), [("CA", State.PROCESSED), ("AE", State.REJECTED), ("CR", State.REJECTED)])
async def test_an_answer_is_the_end(path: Path, code: str, state: State) -> None:
    lab = Lab()
    lab.answers = lambda control_id: code
    policy = RetryPolicy(base_ms=1, max_ms=5)
    async with desk_at(path, lab, policy) as desk:
        desk.push("P-1")
        await lab.until(lambda: "P-1" in desk.told)
        row = await desk.settled("P-1")
        assert (row.kept, row.ack_code) == (state, code)
        assert lab.heard == ["P-1"]


async def test_who_cannot_commit_is_asked_again(path: Path) -> None:
    lab = Lab()
    lab.answers = lambda control_id: "CE" if lab.heard.count(control_id) < 3 else "AA"
    async with desk_at(path, lab) as desk:
        desk.push("P-1")
        await lab.until(lambda: "P-1" in desk.told)
        assert isinstance(desk.told["P-1"], Answered)
        row = await desk.settled("P-1")
        assert (row.attempts, row.ambiguous, row.kept) == (3, False, State.PROCESSED)


async def test_a_restart_takes_up_what_was_left_the_interrupted_one_first(path: Path) -> None:
    lab = Lab()
    lab.answers = lambda control_id: ""
    names = [f"P-{number}" for number in range(5)]
    async with desk_at(path, lab) as desk:
        desk.policy = FAST
        desk.push(*names)
        await lab.until(lambda: lab.heard == ["P-0"] and len(desk.stored) == 5)
        assert desk.rows()["P-0"].kept is State.INFLIGHT
        crashed = path.read_bytes(), path.with_name(path.name + "-wal").read_bytes()
    # given the file as it was while the first message was under way
    path.write_bytes(crashed[0])
    path.with_name(path.name + "-wal").write_bytes(crashed[1])
    lab.answers = lambda control_id: "AA"
    lab.heard.clear()
    async with desk_at(path, lab) as desk:
        await lab.until(lambda: len(desk.told) == 5)
        assert lab.heard == names
        assert [(await desk.settled(name)).ambiguous for name in names] == [True, False, False, False, False]


async def test_what_a_restart_finds_interrupted_is_held_where_delivery_is_not_guaranteed(path: Path) -> None:
    lab = Lab()
    lab.answers = lambda control_id: ""
    policy = RetryPolicy(RetryMode.NORMAL, base_ms=1, max_ms=5, max_attempts=10)
    async with desk_at(path, lab, policy) as desk:
        desk.push("P-1", "P-2")
        await lab.until(lambda: lab.heard == ["P-1"] and len(desk.stored) == 2)
        crashed = path.read_bytes(), path.with_name(path.name + "-wal").read_bytes()
    path.write_bytes(crashed[0])
    path.with_name(path.name + "-wal").write_bytes(crashed[1])
    lab.answers = lambda control_id: "AA"
    lab.heard.clear()
    async with desk_at(path, lab, policy) as desk:
        await lab.until(lambda: "P-2" in desk.told)
        assert lab.heard == ["P-2"]
        row = await desk.settled("P-1")
        assert (row.kept, row.ambiguous, row.ack) == (State.HELD, True, AckState.UNDELIVERED)


async def test_nothing_is_sent_while_the_agent_is_off(path: Path) -> None:
    lab = Lab()
    async with desk_at(path, lab) as desk:
        desk.allowed = False
        desk.push("P-1")
        await lab.until(lambda: desk.stored == ["P-1"])
        assert not lab.heard
        assert desk.rows()["P-1"].kept is State.QUEUED
        desk.allowed = True
        desk.outbox.pump()
        await lab.until(lambda: "P-1" in desk.told)


async def test_an_address_that_cannot_be_used_any_more_keeps_its_messages_and_says_why(path: Path) -> None:
    lab = Lab()
    lab.goes()
    async with desk_at(path, lab) as desk:
        desk.push("P-1")
        await lab.until(lambda: desk.stored == ["P-1"])
    lab.away = None
    async with desk_at(path, lab, readable=False) as desk:
        assert [finding.code for finding in desk.outbox.findings()] == ["remote.tls-unknown"]
        assert desk.outbox.urls() == [URL]
        # when its certificate is there again, then it goes
        desk.readable = True
        desk.outbox.pump()
        assert list(desk.outbox.findings()) == []
        await lab.until(lambda: "P-1" in desk.told)


async def test_a_stop_makes_nothing_ambiguous_and_takes_nothing_more(path: Path) -> None:
    lab = Lab()
    lab.goes()
    async with desk_at(path, lab) as desk:
        desk.push("P-1", "P-2")
        await lab.until(lambda: len(desk.stored) == 2)
        desk.outbox.stop()
        desk.remotes.stop()
        desk.push("P-3")
        assert desk.refused["P-3"].kind is Kind.STOPPING
    lab.away = None
    async with desk_at(path, lab) as desk:
        await lab.until(lambda: len(desk.told) == 2)
        assert lab.heard == ["P-1", "P-2"]
        assert not (await desk.settled("P-1")).ambiguous


codes = st.sampled_from(["AA", "AA", "AA", "AE", "CE", "loss"])


@settings(max_examples=25, deadline=None)
@given(script=st.lists(st.lists(codes, max_size=4), min_size=1, max_size=12), data=st.data())
def test_whatever_the_remote_does_each_message_ends_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, script: list[list[str]], data: Any
) -> None:
    async def play() -> None:
        lab = Lab()
        tries: Counter[str] = Counter()

        def answers(control_id: str) -> str:
            planned = script[int(control_id[2:])]
            tries[control_id] += 1
            return planned[tries[control_id] - 1] if tries[control_id] <= len(planned) else "AA"

        lab.answers = answers
        names = [f"P-{number}" for number in range(len(script))]
        path = tmp_path_factory.mktemp("outbox") / "spool.db"
        async with desk_at(path, lab) as desk:
            desk.push(*names)
            await lab.until(lambda: len(desk.told) == len(names))
            assert list(desk.told) == names
            # the order of first arrivals, and of all of them, is the order of the pushes
            assert lab.heard == sorted(lab.heard, key=lambda control_id: int(control_id[2:]))
            for number, name in enumerate(names):
                row = await desk.settled(name)
                played = [*script[number], "AA"][: row.attempts]
                assert row.ambiguous == ("loss" in played)
                assert lab.heard.count(name) == row.attempts
                assert row.kept is (State.REJECTED if played[-1] == "AE" else State.PROCESSED)

    asyncio.run(play())
