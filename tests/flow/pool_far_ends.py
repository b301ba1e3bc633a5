"""The far ends of the pool's tests: a remote that does what the test says, owners of letters, and a loop whose time
passes only when nothing is left to do."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import math
import selectors
from collections import Counter
from collections.abc import Callable, Coroutine
from enum import Enum, auto
from typing import Any, ParamSpec

from agent.failures import Failure, Kind
from agent.flow.letters import Answered, Letter, LineEvents, NotSent, Outcome, Unanswered
from agent.flow.pool import Pool
from agent.metrics import RemoteMetrics
from agent.spec import RemoteSpec, ReturnAck

P = ParamSpec("P")

SPEC = RemoteSpec(
    "mllp://lab.example:2575", "lab.example", 2575, max_clients=1, ack_timeout_s=30.0, return_ack=ReturnAck.APPLICATION
)
REFUSED = Failure(Kind.REFUSED, "cannot connect to lab.example:2575: connection refused (ECONNREFUSED)")
RESET = Failure(Kind.RESET, "lab.example:2575 reset the connection")
GIVEN_UP = Failure(Kind.UNREACHABLE, "nobody wanted the connection any more")
A_MOMENT_S = 0.000_1


class _Impatient(selectors.DefaultSelector):
    """Where others would wait, the clock jumps."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "the test waits for something that will never happen"
        self.now += max(timeout, 0.0)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose seconds take no time. `failures`: what its callbacks raised."""

    def __init__(self) -> None:
        self._impatient = _Impatient()
        self.failures: list[BaseException] = []
        super().__init__(self._impatient)
        self.set_exception_handler(lambda loop, context: self.failures.append(context["exception"]))

    def time(self) -> float:
        return self._impatient.now

    def hold_up(self, seconds: float) -> None:
        self._impatient.now += seconds

    @property
    def timers(self) -> int:
        """How many are set and neither over nor cancelled."""
        return sum(not timer.cancelled() for timer in self._scheduled)  # type: ignore[attr-defined]


def in_virtual_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a test in a loop whose seconds take no time; what a callback raised, and the test did not take, fails it."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(test(*args, **kwargs))
            loop = runner.get_loop()
            assert isinstance(loop, VirtualLoop)
            assert loop.failures == []

    return run


async def all_is_done() -> None:
    """Everything that can happen now has happened."""
    await asyncio.sleep(A_MOMENT_S)


def hold_up(seconds: float) -> None:
    """Something keeps the loop busy for so long."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    loop.hold_up(seconds)


def timers() -> int:
    """How many timers are set, by whomever."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop.timers


def message(control_id: str, patient: str = "P1") -> bytes:
    """A small ADT message of a patient that does not exist."""
    msh = f"MSH|^~\\&|ADT1|GHH|LAB|GHH|20261122101500||ADT^A01|{control_id}|P|2.5.1"
    return f"{msh}\rPID|1||{patient}||EVERYMAN\r".encode()


def ack(control_id: str, code: str = "AA", text: str = "") -> bytes:
    """An acknowledgement."""
    return f"MSH|^~\\&|LAB|GHH|ADT1|GHH|20261122101501||ACK|R1|P|2.5.1\rMSA|{code}|{control_id}|{text}\r".encode()


def control_id_of(sent: bytes) -> str:
    return sent.split(b"|")[9].decode()


class Phase(Enum):
    CONNECTING = auto()
    OPEN = auto()
    LEAVING = auto()  # the pool has said so, and has not heard that it is done
    GONE = auto()


class FarLine:
    """One connection, from both ends. `sent`: control ids of what the remote got, in order."""

    def __init__(self, remote: Remote, spec: RemoteSpec, events: LineEvents) -> None:
        self.remote = remote
        self.spec = spec
        self.phase = Phase.CONNECTING
        self.noise = b""
        self.begun = 0
        self.frames = 0
        self.sent: list[str] = []
        self.aborted = False
        self._events = events
        self.has_opened = False
        self._loop = asyncio.get_running_loop()

    # ---- the near end: what the pool asks for

    def send(self, message: bytes) -> None:
        assert self.phase is Phase.OPEN, f"a message was written to a line that is {self.phase.name}"
        self.noise = b""
        self.sent.append(control_id_of(message))
        self.remote.receives(self, message)

    def close(self) -> None:
        assert self.phase is Phase.OPEN, f"a line was closed that is {self.phase.name}"
        self.phase = Phase.LEAVING
        if self.remote.closes_when_told:
            self._loop.call_soon(self.goes)

    def abort(self) -> None:
        self.aborted = True
        if self.phase in (Phase.CONNECTING, Phase.OPEN, Phase.LEAVING):
            self.phase = Phase.LEAVING
            self._loop.call_soon(self.goes)

    # ---- the far end: what the remote does

    def opens(self) -> None:
        if self.phase is Phase.CONNECTING:
            self.phase = Phase.OPEN
            self.has_opened = True
            self._events.opened(self)

    def fails(self, failure: Failure = REFUSED) -> None:
        if self.phase is Phase.CONNECTING:
            self.phase = Phase.GONE
            self._events.failed(self, failure)

    def says(self, *frames: bytes) -> None:
        """All of them in one packet."""
        if self.phase is Phase.OPEN:
            self.begun = 0
            self.frames += len(frames)
            self._events.heard(self, list(frames))

    def answers(self, control_id: str, code: str = "AA") -> None:
        self.says(ack(control_id, code))

    def murmurs(self, noise: bytes) -> None:
        """Bytes that stand in no frame."""
        if self.phase is Phase.OPEN:
            told = bool(self.noise)
            self.noise = (self.noise + noise)[:16]
            if not told:
                self._events.noisy(self)

    def begins_an_answer(self, size: int) -> None:
        self.begun = size

    def hangs_up(self, failure: Failure | None = None) -> None:
        if self.phase is Phase.OPEN:
            self.goes(failure)

    def goes(self, failure: Failure | None = None) -> None:
        """It is gone, and the pool hears so."""
        if self.phase is Phase.GONE:
            return
        self.phase = Phase.GONE
        if self.has_opened or self.remote.closes_what_never_opened:
            self._events.closed(self, failure)
        else:
            self._events.failed(self, GIVEN_UP)


class Remote:
    """The system at the far end. `got`: control ids of what it has received, in order; `lines`: all ever dialled."""

    def __init__(self, *, opens_at_once: bool = True, answers_at_once: bool = False) -> None:
        self.opens_at_once = opens_at_once
        self.answers_at_once = answers_at_once
        self.closes_when_told = True
        self.closes_what_never_opened = False
        self.refuses: Failure | None = None
        self.lines: list[FarLine] = []
        self.got: list[str] = []

    def dial(self, spec: RemoteSpec, events: LineEvents) -> FarLine:
        line = FarLine(self, spec, events)
        self.lines.append(line)
        loop = asyncio.get_running_loop()
        if self.refuses is not None:
            loop.call_soon(line.fails, self.refuses)
        elif self.opens_at_once:
            loop.call_soon(line.opens)
        return line

    def receives(self, line: FarLine, message: bytes) -> None:
        control_id = control_id_of(message)
        self.got.append(control_id)
        if self.answers_at_once:
            asyncio.get_running_loop().call_soon(line.says, ack(control_id))

    def lines_that_are(self, *phases: Phase) -> list[FarLine]:
        return [line for line in self.lines if line.phase in phases]

    @property
    def open_lines(self) -> list[FarLine]:
        return self.lines_that_are(Phase.OPEN)


class Sender:
    """Pushes letters into a pool and keeps what becomes of each. `then`: what it does when it has heard of one."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.outcomes: dict[str, Outcome] = {}
        self.told: Counter[str] = Counter()
        self.order: list[str] = []
        self.then: Callable[[str], None] = lambda control_id: None
        self._pushing = False

    def push(self, *control_ids: str, return_ack: ReturnAck | None = None, within_s: float = math.inf) -> None:
        begin_by = asyncio.get_running_loop().time() + within_s
        for control_id in control_ids:
            letter = Letter(
                message(control_id),
                control_id.encode(),
                return_ack,
                functools.partial(self._done, control_id),
                begin_by,
            )
            self._pushing = True
            try:
                self.pool.push(letter)
            finally:
                self._pushing = False

    def _done(self, control_id: str, outcome: Outcome) -> None:
        assert not self._pushing, "the owner heard of its letter from inside push"
        self.told[control_id] += 1
        self.order.append(control_id)
        self.outcomes[control_id] = outcome
        self.then(control_id)

    def code(self, control_id: str) -> str:
        """MSA-1 of the acknowledgement that answered."""
        outcome = self.outcomes[control_id]
        assert isinstance(outcome, Answered), outcome
        return outcome.code

    def not_sent(self, control_id: str) -> Failure:
        outcome = self.outcomes[control_id]
        assert isinstance(outcome, NotSent), outcome
        return outcome.failure

    def unanswered(self, control_id: str, *, committed: bool = False) -> Failure:
        outcome = self.outcomes[control_id]
        assert isinstance(outcome, Unanswered), outcome
        assert outcome.committed is committed
        return outcome.failure


def pool_for(remote: Remote, *, waiting_limit: int = 1_000, **changes: object) -> tuple[Pool, Sender]:
    """A pool for SPEC with these changes, and somebody who pushes into it."""
    spec = dataclasses.replace(SPEC, **changes)  # type: ignore[arg-type]
    clock = asyncio.get_running_loop().time
    pool = Pool(spec, dial=remote.dial, metrics=RemoteMetrics(), waiting_limit=waiting_limit, clock=clock)
    return pool, Sender(pool)
