"""The far ends of an AnalyserPool: an analyser that does what the test says, over calls or over a channel's lines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum, auto

from agent.failures import Failure, Kind
from agent.flow.analysers import AnalyserPool
from agent.flow.letters import AstmCallEvents, Served
from agent.metrics import RemoteMetrics
from agent.spec import Astm, RemoteSpec

CALLED = RemoteSpec("astm://sysmex:4000", "sysmex", 4000, wire=Astm())
BY_CHANNEL = RemoteSpec("astm://HAEM", "", 0, wire=Astm(), line="HAEM")
REFUSED = Failure(Kind.REFUSED, "cannot connect to sysmex:4000: connection refused (ECONNREFUSED)")
BUSY = Failure(Kind.BUSY, "sysmex:4000 is busy")
BROKEN_OFF = Failure(Kind.CLOSED, "sysmex:4000 closed the connection", in_doubt=True)


class Phase(Enum):
    CALLING = auto()
    OPEN = auto()
    LEAVING = auto()  # the pool has said so, and has not heard that it is done
    GONE = auto()


class FarLine:
    """A connection of a channel. `sessions`: what was posted and has not ended, in order."""

    def __init__(self, analyser: Analyser) -> None:
        self.analyser = analyser
        self.sessions: list[tuple[bytes, Callable[[Failure | None], None]]] = []
        self._loop = asyncio.get_running_loop()

    def post(self, message: bytes, done: Callable[[Failure | None], None]) -> None:
        assert not self.analyser.under_way, "two sessions at a time"
        self.analyser.got.append(message)
        self.sessions.append((message, done))
        if self.analyser.takes_at_once:
            self._loop.call_soon(self.ends)

    def ends(self, failure: Failure | None = None) -> None:
        """The session that is under way comes to its end."""
        if self.sessions:
            _, done = self.sessions.pop(0)
            done(failure)


class FarCall(FarLine):
    """A connection that the pool has asked for."""

    def __init__(self, analyser: Analyser, spec: RemoteSpec, events: AstmCallEvents) -> None:
        super().__init__(analyser)
        self.spec = spec
        self.phase = Phase.CALLING
        self._events = events

    # ---- the near end: what the pool asks for

    def post(self, message: bytes, done: Callable[[Failure | None], None]) -> None:
        assert self.phase is Phase.OPEN, f"a session was posted on a call that is {self.phase.name}"
        super().post(message, done)

    def close(self) -> None:
        assert self.phase in (Phase.OPEN, Phase.GONE), f"a call was closed that is {self.phase.name}"
        if self.phase is Phase.GONE:
            return  # the pool has yet to hear so
        self.phase = Phase.LEAVING
        self._loop.call_soon(self.goes)

    def abort(self) -> None:
        if self.phase is Phase.CALLING:
            self.phase = Phase.LEAVING
            self._loop.call_soon(self._gives_up)
        elif self.phase in (Phase.OPEN, Phase.LEAVING):
            self.phase = Phase.LEAVING
            self._loop.call_soon(self.goes)

    # ---- the far end: what the analyser does

    def opens(self) -> None:
        if self.phase is Phase.CALLING:
            self.phase = Phase.OPEN
            self._events.opened(self)

    def fails(self, failure: Failure = REFUSED) -> None:
        if self.phase is Phase.CALLING:
            self.phase = Phase.GONE
            self._events.failed(self, failure)

    def rings(self) -> None:
        if self.phase is Phase.OPEN:
            self._events.rang(self)

    def goes(self) -> None:
        """It is gone, and whoever posted hears so first."""
        if self.phase in (Phase.OPEN, Phase.LEAVING):
            self.phase = Phase.GONE
            self.ends(BROKEN_OFF)
            self._events.closed(self)

    def _gives_up(self) -> None:
        if self.phase is Phase.LEAVING:
            self.phase = Phase.GONE
            self._events.failed(self, Failure(Kind.STOPPING, "nobody wanted the connection any more"))


class Analyser:
    """The system at the far end. `got`: every message that was begun; `calls`: all that were ever made; `served`: the
    channel that serves it, if one does."""

    def __init__(self, *, opens_at_once: bool = True, takes_at_once: bool = False) -> None:
        self.opens_at_once = opens_at_once
        self.takes_at_once = takes_at_once
        self.refuses: Failure | None = None
        self.calls: list[FarCall] = []
        self.lines: list[FarLine] = []
        self.channel = ""
        self.got: list[bytes] = []

    def call(self, spec: RemoteSpec, events: AstmCallEvents) -> FarCall:
        assert not self.alive, "two calls at a time"
        assert not self.channel, "an analyser was called that a channel serves"
        call = FarCall(self, spec, events)
        self.calls.append(call)
        loop = asyncio.get_running_loop()
        if self.refuses is not None:
            loop.call_soon(call.fails, self.refuses)
        elif self.opens_at_once:
            loop.call_soon(call.opens)
        return call

    def serving(self, spec: RemoteSpec) -> Served | None:
        return Served(self.channel, tuple(reversed(self.lines))) if self.channel else None

    def is_connected_to(self, channel: str, connections: int = 1) -> None:
        """A channel serves it from now on, with so many connections that nothing is under way on."""
        self.channel = channel
        self.lines = [FarLine(self) for _ in range(connections)]

    @property
    def under_way(self) -> list[FarLine]:
        return [line for line in (*self.calls, *self.lines) if line.sessions]

    @property
    def alive(self) -> list[FarCall]:
        """Calls that are not known to be on their way out."""
        return [call for call in self.calls if call.phase in (Phase.CALLING, Phase.OPEN)]


def pool_for(analyser: Analyser, spec: RemoteSpec = CALLED, *, waiting_limit: int = 100) -> AnalyserPool:
    clock = asyncio.get_running_loop().time
    return AnalyserPool(
        spec,
        serving=analyser.serving,
        call=analyser.call,
        metrics=RemoteMetrics(),
        waiting_limit=waiting_limit,
        clock=clock,
    )
