"""Carry the letters for one remote: as many connections as it may have, and who waits for them.

Secret: which letter goes on which connection, when another one is dialled, and when dialling is no use.
Promise: first in, first out; every letter ends exactly once and its owner hears so from a clean stack; never more
connections, nor more letters under way on one, than the remote takes; a remote that is away costs one round of
connects, however many letters wait for it.

Everything here is in memory: power loss forgets it, and who must not lose a letter keeps it on disk until it is done.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from typing import Final, assert_never

from agent.failures import Failure
from agent.flow import mishaps
from agent.flow.exchange import Exchange, Stage, way_of
from agent.flow.letters import Answered, Dial, Letter, NotSent, Outcome, Unanswered
from agent.flow.waiting import WaitingRoom
from agent.metrics import RemoteMetrics
from agent.spec import RemoteSpec

__all__ = ["Answered", "Dial", "Letter", "NotSent", "Outcome", "Pool", "Unanswered"]

_POSITIVE: Final = ("AA", "CA")


class Pool:
    """One remote. `waiting_limit`: letters that wait for a connection at most, those for one being dialled included.
    `clock`: seconds, for round trips.

    `settle`, `refill`, `opened`, `unreachable` and `gone` are for its own connections.
    """

    def __init__(
        self,
        spec: RemoteSpec,
        *,
        dial: Dial,
        metrics: RemoteMetrics,
        waiting_limit: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.spec = spec
        self.metrics = metrics
        self.clock = clock
        self._dial = dial
        self._waiting_limit = waiting_limit
        self._loop = asyncio.get_running_loop()
        self._waiting = WaitingRoom()
        self._exchanges: list[Exchange] = []  # to where the remote is
        self._elsewhere: list[Exchange] = []  # to where it was before a reload: another limit, and no new letters
        self._unanswered = 0
        self._away: Failure | None = None  # why the last connection could not be made: dial no more for those who wait
        self._lost = 0  # connections that were lost and not made again
        self._stopping = False
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = math.inf
        self._told: deque[tuple[Letter, Outcome]] = deque()
        self._telling: asyncio.Handle | None = None

    @property
    def busy(self) -> bool:
        """Whether a letter waits, is unanswered, or has yet to be told its outcome."""
        return bool(self._waiting or self._unanswered or self._told)

    @property
    def idle(self) -> bool:
        """Whether there is nothing at all: no letter, and no connection either."""
        return not (self.busy or self._exchanges or self._elsewhere)

    def push(self, letter: Letter) -> None:
        """Deliver a letter: at once, or when its turn comes."""
        if self._stopping:
            self._fail(letter, NotSent(mishaps.stopping(self.spec.where)))
            return
        now = self._loop.time()
        if letter.begin_by < now:
            self.metrics.pushed += 1
            self._fail(letter, NotSent(self._too_late(0.0, len(self._waiting))))
            return
        if not self._waiting:
            exchange = self._room_for(letter)
            if exchange is not None:
                self.metrics.pushed += 1
                self._write(letter, exchange, now)
                return
        if len(self._waiting) >= self._waiting_limit:
            self._fail(letter, NotSent(mishaps.queue_full(self.spec.where, len(self._waiting))))
            return
        self.metrics.pushed += 1
        self._waiting.add(letter, now)
        self.metrics.waiting = len(self._waiting)
        if letter.begin_by < self._alarm_at:
            self._set_alarm(letter.begin_by)
        if not any(exchange.stage is Stage.CONNECTING for exchange in self._exchanges):
            self._away = None
        self._dial_missing()

    def respec(self, spec: RemoteSpec) -> None:
        """Take new settings. Letters under way are not disturbed; those that wait go by the new ones."""
        old, self.spec = self.spec, spec
        if spec == old:
            return
        way = way_of(spec)
        for exchange in self._exchanges:
            if exchange.way != way:
                exchange.dismiss()
        everything = self._exchanges + self._elsewhere
        self._exchanges = [exchange for exchange in everything if exchange.way[:2] == way[:2]]
        self._elsewhere = [exchange for exchange in everything if exchange.way[:2] != way[:2]]
        serving = sorted(self._serving(), key=_usefulness)
        for exchange in serving[: max(0, len(serving) - self._limit)]:
            exchange.dismiss()
        if old.keep_alive:
            for exchange in self._exchanges:
                exchange.rest()
        self._away = None
        self.refill(self._loop.time())

    def stop(self) -> None:
        """Begin nothing more: what waits ends, what is written may yet be answered, idle connections close."""
        self._stopping = True
        self._fail_waiting(mishaps.stopping(self.spec.where))
        for exchange in self._exchanges:
            exchange.dismiss()

    def abort(self) -> None:
        """End everything now; every owner has heard so when this returns."""
        self.stop()
        for exchange in self._exchanges + self._elsewhere:
            exchange.abandon()
        self._tell()

    # ---- what connections tell

    def settle(self, letter: Letter, outcome: Outcome) -> None:
        """A letter that was written has come to its end."""
        self._unanswered -= 1
        self.metrics.pending -= 1
        match outcome:
            case Answered(code=code):
                if code in _POSITIVE:
                    self.metrics.acknowledged += 1
                else:
                    self.metrics.refused += 1
                self.metrics.last_error = ""
                self._post(letter, outcome)
            case NotSent() | Unanswered():
                self._fail(letter, outcome)
            case _ as never:
                assert_never(never)

    def refill(self, now: float) -> None:
        """Write what may be written, and dial what is missing."""
        waiting = self._waiting
        if not waiting:
            return
        if self._alarm_at <= now:
            self._end_overdue(now)
        while waiting and (exchange := self._room_for(waiting.first())) is not None:
            self._write(waiting.take(), exchange, now)
        self.metrics.waiting = len(waiting)
        self._dial_missing()

    def opened(self, exchange: Exchange) -> None:
        """A connection has been made."""
        metrics = self.metrics
        metrics.connections += 1
        metrics.connections_total += 1
        if self._lost:
            self._lost -= 1
            metrics.reconnects += 1
        self.refill(self._loop.time())

    def unreachable(self, exchange: Exchange, failure: Failure) -> None:
        """A connection could not be made. If that was the last hope, all who wait hear so: each would hear the same."""
        self._forget(exchange)
        if exchange.lost:
            self._away = failure
            if not self._serving():
                self._fail_waiting(failure)
        self._dial_missing()

    def gone(self, exchange: Exchange) -> None:
        """A connection has ended."""
        self._forget(exchange)
        self.metrics.connections -= exchange.was_open
        if exchange.lost:
            self._lost += 1
        elif not self._exchanges:
            self._lost = 0  # the others were not missed: what comes next is a new beginning
        self.refill(self._loop.time())

    def _forget(self, exchange: Exchange) -> None:
        (self._exchanges if exchange in self._exchanges else self._elsewhere).remove(exchange)

    # ---- letters and connections

    @property
    def _limit(self) -> int:
        return 1 if self.spec.serialize else self.spec.max_clients

    def _serving(self) -> list[Exchange]:
        """The connections that take letters, now or when they open."""
        return [exchange for exchange in self._exchanges if exchange.stage in (Stage.CONNECTING, Stage.OPEN)]

    def _room_for(self, letter: Letter) -> Exchange | None:
        """The connection used last of those that can take the letter now.

        If there is none because an idle one may yet hear of an earlier letter of the same id, that one is closed.
        """
        spec = self.spec
        if spec.serialize and self._unanswered:
            return None
        control_id = letter.control_id
        best = owing = None
        for exchange in self._exchanges:
            if exchange.takes(control_id, spec.in_flight):
                if best is None or exchange.used_at >= best.used_at:
                    best = exchange
            elif exchange.owes(control_id):
                owing = exchange
        if best is None and owing is not None:
            owing.dismiss()
        return best

    def _write(self, letter: Letter, exchange: Exchange, now: float) -> None:
        self._unanswered += 1
        self.metrics.pending += 1
        exchange.write(letter, now)

    def _dial_missing(self) -> None:
        """A connection for each letter that waits and has none, as far as the remote takes more."""
        room = self._limit - len(self._exchanges)  # one that closes counts, too: the remote still has it
        if room <= 0 or not self._waiting:
            return
        connecting = sum(exchange.stage is Stage.CONNECTING for exchange in self._exchanges)
        missing = min(len(self._waiting) - connecting, room)
        if self._away is not None:
            missing = min(missing, 1 - len(self._serving()))
        for _ in range(missing):
            self._exchanges.append(Exchange(self, self._dial))

    # ---- the clock

    def _set_alarm(self, due: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm, self._alarm_at = None, due
        if due < math.inf:
            self._alarm = self._loop.call_at(due, self._ring)

    def _ring(self) -> None:
        now = max(self._alarm_at, self._loop.time())  # timers of some systems go off a little early
        self._end_overdue(now)
        self.refill(now)

    def _end_overdue(self, now: float) -> None:
        """End the letters that could not be begun in time."""
        for waiter in self._waiting.overdue(now):
            self._fail(waiter.letter, NotSent(self._too_late(now - waiter.since, waiter.before)))
        self.metrics.waiting = len(self._waiting)
        self._set_alarm(self._waiting.next_due())

    def _too_late(self, waited_s: float, before: int) -> Failure:
        if self._away is not None and not any(exchange.stage is Stage.OPEN for exchange in self._exchanges):
            return self._away  # tells more than that nothing was free
        return mishaps.waited(self.spec.where, waited_s, before=before, in_flight=self._unanswered)

    # ---- how letters end

    def _fail_waiting(self, failure: Failure) -> None:
        for letter in self._waiting.clear():
            self._fail(letter, NotSent(failure))
        self.metrics.waiting = 0
        self._set_alarm(math.inf)

    def _fail(self, letter: Letter, outcome: NotSent | Unanswered) -> None:
        self.metrics.fail(outcome.failure.kind, outcome.failure.for_log)
        self._post(letter, outcome)

    def _post(self, letter: Letter, outcome: Outcome) -> None:
        self._told.append((letter, outcome))
        if self._telling is None:
            self._telling = self._loop.call_soon(self._tell)

    def _tell(self) -> None:
        """Let the owners hear. One that raises is for the loop's exception handler, and holds up no other."""
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
        told = self._told
        try:
            for _ in range(len(told)):  # an owner that pushes again at once, and is refused at once, hears so later
                if not told:
                    break
                letter, outcome = told.popleft()
                letter.done(outcome)
        finally:
            if told and self._telling is None:
                self._telling = self._loop.call_soon(self._tell)


def _usefulness(exchange: Exchange) -> tuple[bool, float]:
    """Which may go first: the one that was not used for longest, those with letters under way after all others."""
    return exchange.in_flight > 0, exchange.used_at
