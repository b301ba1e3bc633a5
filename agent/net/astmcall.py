"""Call analysers for what is pushed to them.

Secret: whose tasks the calls come about in, and how an analyser is put off that wants to send something on such a line.
Promise: a call begins at once and never raises. Whoever called is told `opened` and later `closed`, or else `failed`;
each once, and never from inside a call of his own. What was posted hears of its end before `closed`. When `run` is
over, no connection and no try is left.

A call: CONNECTING → OPEN → OVER, or from the first to the last at once.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from enum import Enum, auto
from typing import Final, Protocol, cast

from agent.failures import Failure
from agent.net import reach
from agent.net.astmline import failure_of
from agent.net.outbound import CONNECT_WITHIN_S
from agent.net.reach import Stage
from agent.protocol.astm import Link
from agent.protocol.astmevents import Event, NotSent, Say, Sent, State
from agent.protocol.astmframe import ENQ, NAK
from agent.spec import Astm, RemoteSpec

CLOSE_WITHIN_S: Final = 2.0  # for what is written to reach an analyser that does not read


class AstmCallEvents(Protocol):
    """Who is told about a call. Every word comes on the loop, never from inside a method of the call."""

    def opened(self, call: AstmCall, /) -> None:
        """Sessions can be posted."""

    def failed(self, call: AstmCall, failure: Failure, /) -> None:
        """It never opened. Nothing more is told about it."""

    def rang(self, call: AstmCall, /) -> None:
        """The analyser wants to send something."""

    def closed(self, call: AstmCall, /) -> None:
        """It was open."""


class _State(Enum):
    CONNECTING = auto()
    OPEN = auto()
    OVER = auto()


class AstmCall(asyncio.Protocol):
    """One connection to an analyser, on which we are the computer system of E1381. It takes one session at a time."""

    def __init__(self, spec: RemoteSpec, events: AstmCallEvents) -> None:
        assert isinstance(spec.wire, Astm)
        self._spec = spec
        self._events = events
        self._loop = asyncio.get_running_loop()
        self._state = _State.CONNECTING
        self._living: asyncio.Task[Failure | None] | None = None
        self._transport: asyncio.Transport | None = None
        self._gone = asyncio.Event()
        self._link = Link(max_bytes=0, frame_bytes=spec.wire.frame_bytes)
        self._done: Callable[[Failure | None], None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._cut: asyncio.TimerHandle | None = None

    # ---- what whoever called says

    def post(self, message: bytes, done: Callable[[Failure | None], None]) -> None:
        """Send records as a session, on a call that has opened. `done` hears later and once: None when every frame was
        acknowledged."""
        assert self._done is None, "a session was posted before the last one had ended"
        self._done = done
        self._perform(self._link.send(message, self._loop.time()))

    def close(self) -> None:
        """Close politely; an analyser that does not read what is written is cut off after CLOSE_WITHIN_S."""
        if self._transport is None:
            self.abort()
        elif not self._transport.is_closing():
            self._transport.close()
            if self._transport.get_write_buffer_size():
                self._cut = self._loop.call_later(CLOSE_WITHIN_S, self._transport.abort)

    def abort(self) -> None:
        """Close at once, or connect no further."""
        if self._transport is not None:
            self._transport.abort()
        elif self._living is not None:
            self._living.cancel()
        else:
            self._loop.call_soon(self.settle, None)

    # ---- how it comes about

    def begin(self, living: asyncio.Task[Failure | None]) -> None:
        """This task is `live`."""
        self._living = living
        living.add_done_callback(self._lived)
        if self._state is not _State.CONNECTING:
            living.cancel()

    async def live(self, within_s: float) -> Failure | None:
        """Connect, and be there until the connection is gone; or say why there is none. Cancelled, it is cut."""
        try:
            failure = await self._connect(within_s)
            if failure is None:
                await self._gone.wait()
            return failure
        finally:
            if self._transport is not None:
                self._transport.abort()
                await self._gone.wait()

    async def _connect(self, within_s: float) -> Failure | None:
        spec, stage, addresses = self._spec, Stage.NAME, list[str]()
        deadline = asyncio.timeout(within_s)
        try:
            async with deadline:
                addresses = await reach.resolve(spec.host, spec.port)
                stage = Stage.ADDRESS
                knock = await reach.race(addresses, spec.port)
        except (OSError, UnicodeError) as error:
            if deadline.expired():
                return reach.late(stage, spec, within_s)
            return reach.not_connected(spec, error, addresses)
        knock.hand_over(self)
        return None

    def settle(self, failure: Failure | None) -> None:
        """Nobody connects it any more: if it is not open by now, it never will be."""
        if self._state is _State.CONNECTING:
            self._state = _State.OVER
            self._events.failed(self, failure or reach.given_up(self._spec))

    def _lived(self, living: asyncio.Task[Failure | None]) -> None:
        unknown = living.cancelled() or living.exception() is not None
        self.settle(None if unknown else living.result())

    # ---- what the transport tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one by conduct, not by descent
        self._state = _State.OPEN
        self._events.opened(self)

    def data_received(self, data: bytes) -> None:
        link = self._link
        if ENQ in data and link.state is not State.SENDING:
            self._events.rang(self)
            if link.state is State.NEUTRAL:
                self._write(bytes((NAK,)))  # E1381 §6.2.3: busy; the link would take what it has to send
        if link.state is not State.NEUTRAL:
            self._perform(link.received(data, self._loop.time()))

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport, self._state = None, _State.OVER
        for timer in (self._timer, self._cut):
            if timer is not None:
                timer.cancel()
        for event in self._link.close(self._loop.time()):
            if isinstance(event, NotSent):
                self._end(_failure(self._spec, event, exc))
        self._loop.call_soon(self._events.closed, self)
        self._gone.set()

    # ---- what the link wants

    def _perform(self, events: list[Event]) -> None:
        for event in events:
            match event:
                case Say(data=data):
                    self._write(data)
                case Sent():
                    self._end(None)
                case NotSent():
                    self._end(_failure(self._spec, event))
                case _:
                    pass  # what comes is taken by nobody
        if self._timer is not None:
            self._timer.cancel()
        due = self._link.deadline
        self._timer = None if due is None else self._loop.call_at(due, self._tick, due)

    def _tick(self, due: float) -> None:
        self._timer = None
        self._perform(self._link.tick(max(due, self._loop.time())))  # timers of some systems go off a little early

    def _end(self, failure: Failure | None) -> None:
        if self._done is not None:
            self._loop.call_soon(self._done, failure)
            self._done = None

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)


class AstmCalls:
    """All calls, from the beginning of `run` to its end: what is asked for before begins then, what is asked for
    afterwards fails."""

    def __init__(self, *, connect_within_s: float = CONNECT_WITHIN_S) -> None:
        self._connect_within_s = connect_within_s
        self._early: list[AstmCall] = []
        self._tasks: asyncio.TaskGroup | None = None
        self._over = False

    async def run(self) -> None:
        """Until cancelled, which cuts every call. Raises what nobody expected, as a TaskGroup does."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            try:
                for call in self._early:
                    self._begin(tasks, call)
                await asyncio.get_running_loop().create_future()
            finally:
                self._over = True

    def call(self, spec: RemoteSpec, events: AstmCallEvents) -> AstmCall:
        """Begin to connect."""
        call = AstmCall(spec, events)
        if self._over:
            call.abort()
        elif self._tasks is None:
            self._early.append(call)
        else:
            self._begin(self._tasks, call)
        return call

    def _begin(self, tasks: asyncio.TaskGroup, call: AstmCall) -> None:
        living = tasks.create_task(call.live(self._connect_within_s), name="call:analyser")
        living.add_done_callback(self._look)
        call.begin(living)

    def _look(self, living: asyncio.Task[Failure | None]) -> None:
        if not living.cancelled() and living.exception() is not None:
            self._over = True  # the group is coming down and takes no further task


def _failure(spec: RemoteSpec, event: NotSent, error: Exception | None = None) -> Failure:
    """Why a session did not come to its end. `error`: that of the connection, if it has ended so."""
    if error is not None and event.in_doubt:
        return dataclasses.replace(reach.lost(spec, error), in_doubt=True)
    return failure_of(event.reason, spec.where, event.in_doubt)
