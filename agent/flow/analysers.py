"""Carry the letters for one analyser: one session after the other, over a channel's connection or one of our own.

Secret: which connection a session goes over, when the analyser is called for it, and what the end of a session means
for its letter.
Promise: first in, first out, one session at a time; every letter ends exactly once and its owner hears so from a clean
stack. An analyser that a channel of ours serves is never called beside it: most take one connection. An analyser that
cannot be called costs one try, however many letters wait for it.

A call: none → CALLING → OPEN (carries sessions, one after the other) → LEAVING (told to close) → none. Everything is in
memory: power loss forgets it, and who must not lose a letter keeps it on disk until it is done.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from enum import Enum, auto
from functools import partial
from typing import Final

from agent.errors import Finding, Severity
from agent.failures import Failure, Kind
from agent.flow import mishaps
from agent.flow.exchange import IDLE_S
from agent.flow.letters import (
    TAKEN,
    Answered,
    AstmCall,
    AstmLine,
    Call,
    Letter,
    NotSent,
    Outcome,
    Served,
    Serving,
    Unanswered,
)
from agent.flow.waiting import WaitingRoom
from agent.metrics import RemoteMetrics
from agent.spec import RemoteSpec

RANG_S: Final = 3_600.0  # for so long a person is told that the analyser wanted to send something


class _Stage(Enum):
    NONE = auto()
    CALLING = auto()
    OPEN = auto()
    LEAVING = auto()


class AnalyserPool:
    """One analyser; what a Pool is for a remote that speaks HL7. `waiting_limit`: letters that wait for their session
    at most. `clock`: seconds, for round trips.

    `opened`, `failed`, `rang` and `closed` are for its own calls.
    """

    def __init__(
        self,
        spec: RemoteSpec,
        *,
        serving: Serving,
        call: Call,
        metrics: RemoteMetrics,
        waiting_limit: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.spec = spec
        self.metrics = metrics
        self._serving = serving
        self._call = call
        self._waiting_limit = waiting_limit
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._waiting = WaitingRoom()
        self._under_way: Letter | None = None
        self._own: AstmCall | None = None
        self._own_spec = spec  # by which it was made
        self._stage = _Stage.NONE
        self._lost = False  # the last call was of no use any more, or is gone against our wish
        self._stopping = False
        self._rang_at = -math.inf
        self._alarm: asyncio.TimerHandle | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._untold: deque[tuple[Letter, Outcome]] = deque()

    @property
    def busy(self) -> bool:
        """Whether a letter waits, is under way, or has yet to be told its outcome."""
        return bool(self._waiting or self._under_way is not None or self._untold)

    @property
    def idle(self) -> bool:
        """Whether there is nothing at all: no letter, and no call either."""
        return not self.busy and self._own is None

    def push(self, letter: Letter) -> None:
        """Deliver a letter when its turn comes."""
        waiting, now = self._waiting, self._loop.time()
        if self._stopping:
            self._fail(letter, NotSent(mishaps.stopping(self.spec.where)))
        elif letter.begin_by < now:
            self.metrics.pushed += 1
            self._fail(letter, NotSent(_waited(self.spec.where, 0.0, len(waiting))))
        elif len(waiting) >= self._waiting_limit:
            self._fail(letter, NotSent(_queue_full(self.spec.where, len(waiting))))
        else:
            self.metrics.pushed += 1
            waiting.add(letter, now)
            self._go_on()
            self._set_alarm()

    def respec(self, spec: RemoteSpec) -> None:
        """Take new settings. A session that is under way is not disturbed; those that wait go by the new ones."""
        self.spec = spec
        self._rest()
        self._go_on()

    def stop(self) -> None:
        """Begin nothing more: what waits ends, a session that is under way may yet come to its end."""
        self._stopping = True
        self._fail_waiting(mishaps.stopping(self.spec.where))
        self._set_alarm()
        self._rest()

    def abort(self) -> None:
        """End everything now; every owner has heard so when this returns."""
        self.stop()
        if self._under_way is not None:
            letter, self._under_way = self._under_way, None
            self.metrics.pending = 0
            self._fail(letter, Unanswered(mishaps.stopped(self.spec.where)))
        if self._own is not None:
            self._stage = _Stage.LEAVING
            self._own.abort()
        for _ in range(len(self._untold)):
            self._tell()

    def findings(self) -> Iterator[Finding]:
        """What a person should know about it, beside what went wrong."""
        if self._loop.time() - self._rang_at < RANG_S and self._serving(self.spec) is None:
            yield Finding(
                "remote.analyser-sends",
                Severity.WARNING,
                "the analyser wants to send something over the connection that was made for a push, and is refused",
                f"add a channel astm://{self.spec.where}?mode=client: it receives, and pushes go over its connection",
                self.spec.where,
            )

    # ---- what a call of our own tells

    def opened(self, call: AstmCall) -> None:
        metrics = self.metrics
        metrics.connections += 1
        metrics.connections_total += 1
        metrics.reconnects += self._lost
        self._lost = False
        self._stage = _Stage.OPEN
        self._go_on()
        self._rest()

    def failed(self, call: AstmCall, failure: Failure) -> None:
        wanted = self._stage is _Stage.CALLING
        self._forget()
        if wanted:
            self._fail_waiting(failure)
        self._go_on()

    def rang(self, call: AstmCall) -> None:
        self._rang_at = self._loop.time()

    def closed(self, call: AstmCall) -> None:
        self._lost |= self._stage is _Stage.OPEN
        self.metrics.connections -= 1
        self._forget()
        self._go_on()

    def _forget(self) -> None:
        self._own, self._stage = None, _Stage.NONE
        self._stay_awake()

    # ---- letters and sessions

    def _go_on(self) -> None:
        """Begin the next session, if one waits and none is under way."""
        self._end_overdue()
        if not self._waiting or self._under_way is not None:
            return
        served = self._serving(self.spec)
        if served is not None:
            self._leave()
            if served.lines:
                self._begin(served.lines[0])
            else:
                self._fail_waiting(_not_connected(self.spec, served))
        elif self.spec.line:
            self._fail_waiting(_no_channel(self.spec))
        elif self._own is None:
            self._stage, self._own_spec = _Stage.CALLING, self.spec
            self._own = self._call(self.spec, self)
        elif self._stage is _Stage.OPEN:
            self._begin(self._own)

    def _begin(self, line: AstmLine) -> None:
        self._stay_awake()
        letter = self._under_way = self._waiting.take()
        self.metrics.waiting = len(self._waiting)
        self.metrics.pending = 1
        line.post(letter.message, partial(self._ended, letter, line, self._clock()))

    def _ended(self, letter: Letter, line: AstmLine, began: float, failure: Failure | None) -> None:
        """A session is over."""
        if self._under_way is not letter:
            return  # given up before
        self._under_way = None
        self.metrics.pending = 0
        if failure is None:
            self.metrics.acknowledged += 1
            self.metrics.last_error = ""
            self.metrics.rtt.record(self._clock() - began)
            self._end(letter, Answered(b"", TAKEN))
        else:
            self._fail(letter, Unanswered(failure) if failure.in_doubt else NotSent(failure))
            if line is self._own:
                self._lost = True
                self._leave()  # what still comes would be taken for an answer to the next session
        self._rest()
        self._go_on()

    # ---- our own call, between sessions

    def _rest(self) -> None:
        """Keep a call on which nothing is under way for as long as it may be kept."""
        if self._under_way is not None or self._stage not in (_Stage.CALLING, _Stage.OPEN):
            return
        if self._unwanted:
            self._leave()
        elif self.spec.keep_alive:
            self._stay_awake()
        elif self._stage is _Stage.OPEN and self._idle is None:
            self._idle = self._loop.call_later(IDLE_S, self._leave)

    @property
    def _unwanted(self) -> bool:
        return self._stopping or self._own_spec.wire != self.spec.wire or self._serving(self.spec) is not None

    def _leave(self) -> None:
        """Close our own call, if there is one."""
        self._stay_awake()
        if self._own is None or self._stage is _Stage.LEAVING:
            return
        end = self._own.abort if self._stage is _Stage.CALLING else self._own.close
        self._stage = _Stage.LEAVING
        end()

    def _stay_awake(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    # ---- the clock

    def _set_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        due = self._waiting.next_due()
        self._alarm = self._loop.call_at(due, self._ring, due) if due < math.inf else None

    def _ring(self, due: float) -> None:
        self._alarm = None
        self._end_overdue(due)  # timers of some systems go off a little early
        self._set_alarm()

    def _end_overdue(self, due: float = -math.inf) -> None:
        """End the letters that could not be begun in time."""
        now = max(due, self._loop.time())
        for waiter in self._waiting.overdue(now):
            self._fail(waiter.letter, NotSent(_waited(self.spec.where, now - waiter.since, waiter.before)))
        self.metrics.waiting = len(self._waiting)

    # ---- how letters end

    def _fail_waiting(self, failure: Failure) -> None:
        for letter in self._waiting.clear():
            self._fail(letter, NotSent(failure))
        self.metrics.waiting = 0

    def _fail(self, letter: Letter, outcome: NotSent | Unanswered) -> None:
        self.metrics.fail(outcome.failure.kind, outcome.failure.for_log)
        self._end(letter, outcome)

    def _end(self, letter: Letter, outcome: Outcome) -> None:
        self._untold.append((letter, outcome))
        self._loop.call_soon(self._tell)

    def _tell(self) -> None:
        """Let the next owner hear. One that raises is for the loop's exception handler, and holds up no other."""
        if self._untold:
            letter, outcome = self._untold.popleft()
            letter.done(outcome)


def _queue_full(where: str, waiting: int) -> Failure:
    return Failure(
        Kind.QUEUE_FULL,
        f"{waiting} already wait{'s' * (waiting == 1)} for the analyser at {where}, which takes one after the other",
        "push more slowly, or look why the analyser takes them slowly",
    )


def _waited(where: str, waited_s: float, before: int) -> Failure:
    return Failure(
        Kind.WAITED,
        f"the message waited {round(waited_s, 1):g} s for its turn at {where}, which takes one after the other: "
        f"{before} waited when it came",
        "push more slowly, or look why the analyser takes them slowly",
    )


def _not_connected(spec: RemoteSpec, served: Served) -> Failure:
    if spec.line:
        text = f"channel {served.channel} has no connection to its analyser now"
    else:
        text = f"channel {served.channel}, which connects to {spec.where}, has no connection now"
    return Failure(Kind.UNREACHABLE, text, "check that the analyser is on and that its interface is, too")


def _no_channel(spec: RemoteSpec) -> Failure:
    return Failure(
        Kind.UNREACHABLE,
        f"this agent has no channel named {spec.line} that speaks ASTM",
        "correct the name in the remote's address (astm://NAME), or add the channel",
    )
