"""Look after one connection to a remote, from the dialling to the end.

Secret: when a connection is no longer fit for another letter: after silence, after an answer that belongs to nobody,
after bytes in no frame; and how long one is kept that nobody needs.
Promise: a letter that was written ends exactly once, whatever the remote does; where a late answer might be taken for
the next letter's, there is no next letter.

States: CONNECTING → OPEN (takes letters) → RETIRING (finishes what is under way) → LEAVING (told to close) → gone. A
remote may end it in any of them.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from enum import Enum, auto
from typing import Final, Protocol, assert_never

from agent.failures import Failure
from agent.flow import mishaps
from agent.flow.letters import Answered, Dial, Letter, Line, Outcome, Unanswered
from agent.flow.underway import Late, Noted, Sent, Settled, Stray, UnderWay
from agent.metrics import RemoteMetrics
from agent.spec import RemoteSpec

IDLE_S: Final = 10.0
NOISE_S: Final = 1.0  # bytes in no frame, and nothing behind them for so long: there is no frame to come

_GRACE_S: Final = 0.001  # timers of some systems go off a little early


class Stage(Enum):
    """How far a connection has come."""

    CONNECTING = auto()
    OPEN = auto()
    RETIRING = auto()
    LEAVING = auto()


class Keeper(Protocol):
    """Who hands out letters to connections, and hears what became of both. `spec`: the settings in force. `clock`:
    seconds, for round trips: the loop's own may tick in milliseconds (uvloop), which is a whole round trip."""

    spec: RemoteSpec
    metrics: RemoteMetrics
    clock: Callable[[], float]

    def settle(self, letter: Letter, outcome: Outcome) -> None:
        """A letter that was written has come to its end."""

    def refill(self, now: float) -> None:
        """A connection may have got room, or must be replaced."""

    def opened(self, exchange: Exchange) -> None:
        """It takes letters from now on."""

    def unreachable(self, exchange: Exchange, failure: Failure) -> None:
        """It could not be made."""

    def gone(self, exchange: Exchange) -> None:
        """It has ended."""


class Exchange:
    """A connection that begins to be made at once. It hears its line as LineEvents says.

    `way`: where it leads and how; a spec that says otherwise needs another connection. `used_at`: loop time at which
    it last wrote or heard something. `was_open`: it has been made. `lost`: its end is not, or will not be, our wish.
    """

    __slots__ = (
        "_expiry", "_expiry_at", "_idle", "_idle_since", "_keeper", "_line", "_loop", "_noise", "_turns", "_under_way",
        "_where", "lost", "stage", "used_at", "was_open", "way",
    )  # fmt: skip

    def __init__(self, keeper: Keeper, dial: Dial) -> None:
        self._keeper = keeper
        self._loop = asyncio.get_running_loop()
        self._where = keeper.spec.where
        self._under_way = UnderWay(self._where)
        self._turns = 0  # how often something was written, heard or given up
        self._expiry: asyncio.TimerHandle | None = None
        self._expiry_at = math.inf
        self._idle: asyncio.TimerHandle | None = None
        self._noise: asyncio.TimerHandle | None = None
        self.way = way_of(keeper.spec)
        self.stage = Stage.CONNECTING
        self.was_open = False
        self.lost = True
        self.used_at = self._idle_since = self._loop.time()
        self._line: Line = dial(keeper.spec, self)

    # ---- what the keeper asks for

    @property
    def in_flight(self) -> int:
        """How many letters are under way."""
        return len(self._under_way)

    def takes(self, control_id: bytes, limit: int) -> bool:
        """Whether a letter of this id may be written, with `limit` under way at most."""
        return self.stage is Stage.OPEN and self._under_way.takes(control_id, limit)

    def owes(self, control_id: bytes) -> bool:
        """Whether nothing is under way, and an answer may come all the same that names this id."""
        return self.stage is Stage.OPEN and not self._under_way and self._under_way.owes(control_id)

    def write(self, letter: Letter, now: float) -> None:
        """Send a letter that this exchange takes."""
        deadline = self._under_way.add(letter, self._keeper.spec, now, self._keeper.clock()).deadline
        self._turns += 1
        self.used_at = now
        self._line.send(letter.message)
        if deadline < self._expiry_at:
            self._watch(deadline)

    def rest(self) -> None:
        """Begin to count the time in which nothing is under way, if such a connection is not to be kept."""
        if self.stage is Stage.OPEN and not self._under_way and not self._keeper.spec.keep_alive:
            self._idle_since = self._loop.time()
            if self._idle is None:
                self._idle = self._loop.call_at(self._idle_since + IDLE_S, self._look_idle)

    def dismiss(self) -> None:
        """Take no more letters, and close as soon as none is under way."""
        self.lost = False
        match self.stage:
            case Stage.CONNECTING:
                self._abort()
            case Stage.OPEN:
                self.stage = Stage.RETIRING
                self._close_when_done()
            case Stage.RETIRING | Stage.LEAVING:
                pass
            case _ as never:
                assert_never(never)

    def abandon(self) -> None:
        """Close at once; what is under way ends."""
        self.lost = False
        self._end_all(lambda _: mishaps.stopped(self._where))
        self._abort()

    # ---- what the line tells

    def opened(self, line: Line) -> None:
        self.stage = Stage.OPEN
        self.was_open = True
        self._keeper.opened(self)
        self.rest()

    def failed(self, line: Line, failure: Failure) -> None:
        self._stop_timers()
        self._keeper.unreachable(self, failure)

    def heard(self, line: Line, frames: list[bytes]) -> None:
        self.used_at = now = self._loop.time()
        self._turns += 1
        for frame in frames:
            if self.stage is Stage.LEAVING:
                return
            self._hear(frame, now)
        self._close_when_done()
        self._keeper.refill(now)
        self.rest()

    def noisy(self, line: Line) -> None:
        if self._noise is not None:
            self._noise.cancel()
        self._noise = self._loop.call_later(NOISE_S, self._look_noise, self._turns)

    def closed(self, line: Line, failure: Failure | None) -> None:
        self._stop_timers()
        self._end_all(lambda sent: mishaps.lost(self._where, failure, self._traces(sent)))
        self._keeper.gone(self)

    def _hear(self, frame: bytes, now: float) -> None:
        match self._under_way.hear(frame):
            case Settled(sent=sent, outcome=outcome):
                if isinstance(outcome, Answered):
                    self._keeper.metrics.rtt.record(self._keeper.clock() - sent.at)
                self._keeper.settle(sent.letter, outcome)
            case Noted():
                pass
            case Late():
                self._keeper.metrics.late += 1
            case Stray(why=why):
                self._distrust(why)
            case _ as never:
                assert_never(never)

    # ---- how it ends

    def _distrust(self, why: Callable[[Sent], Failure]) -> None:
        """What was heard belongs to nobody: nothing that follows could be trusted."""
        if self._under_way:
            self._end_all(why)
            self._abort()
        else:
            self._keeper.metrics.late += 1
            self._close()

    def _end_all(self, why: Callable[[Sent], Failure]) -> None:
        for sent in self._under_way.clear():
            self._keeper.settle(sent.letter, Unanswered(why(sent), bool(sent.committed_by)))

    def _traces(self, sent: Sent) -> mishaps.Traces:
        return mishaps.Traces(sent.committed_by, self._line.begun, self._line.noise)

    def _close_when_done(self) -> None:
        if self.stage is Stage.RETIRING and not self._under_way:
            self._close()

    def _close(self) -> None:
        self.stage = Stage.LEAVING
        self._stop_timers()
        self._line.close()

    def _abort(self) -> None:
        self.stage = Stage.LEAVING
        self._stop_timers()
        self._line.abort()

    # ---- the clock

    def _watch(self, deadline: float) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        self._expiry_at = deadline
        self._expiry = self._loop.call_at(deadline, self._look_overdue)

    def _look_overdue(self) -> None:
        """Give up what is overdue, and look again when the next one would be: an answer moves no timer."""
        self._expiry, self._expiry_at = None, math.inf
        overdue = self._under_way.give_up(self._loop.time() + _GRACE_S)
        for sent in overdue:
            failure = mishaps.silent(self._where, sent.timeout_s, self._traces(sent))
            self._keeper.settle(sent.letter, Unanswered(failure, bool(sent.committed_by)))
        if overdue:
            self._turns += 1
            if self._under_way:
                self.stage = Stage.RETIRING
            else:
                self._abort()  # a late answer would answer the next letter
        deadline = self._under_way.next_due()
        if deadline < math.inf:
            self._watch(deadline)

    def _look_idle(self) -> None:
        self._idle = None
        if self.stage is Stage.OPEN and not self._under_way and not self._keeper.spec.keep_alive:
            due = self._idle_since + IDLE_S
            if due <= self._loop.time() + _GRACE_S:
                self.dismiss()
            else:
                self._idle = self._loop.call_at(due, self._look_idle)

    def _look_noise(self, turns: int) -> None:
        self._noise = None
        noise = self._line.noise
        if self._under_way and turns == self._turns and noise and not self._line.begun:
            self._end_all(lambda _: mishaps.unframed(self._where, noise))
            self._abort()

    def _stop_timers(self) -> None:
        for timer in (self._expiry, self._idle, self._noise):
            if timer is not None:
                timer.cancel()
        self._expiry = self._idle = self._noise = None
        self._expiry_at = math.inf


def way_of(spec: RemoteSpec) -> tuple[object, ...]:
    """Where a connection leads and how, host and port first: made by other values, it is of no use to new letters."""
    return spec.host, spec.port, spec.secure, spec.tls, spec.encoding
