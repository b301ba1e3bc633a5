"""Remotes at which nothing happens: a connection that opens and never answers, and analysers that nobody asks for."""

from __future__ import annotations

import asyncio

from agent.flow.letters import AstmCall, AstmCallEvents, LineEvents, Served
from agent.spec import RemoteSpec


def no_call(spec: RemoteSpec, events: AstmCallEvents) -> AstmCall:
    raise AssertionError("an analyser was called")


def no_channel(spec: RemoteSpec) -> Served | None:
    return None


class MutedLine:
    noise = b""
    begun = 0

    def __init__(self, events: LineEvents) -> None:
        self.sent: list[bytes] = []
        self._events = events
        self._loop = asyncio.get_running_loop()
        self._loop.call_soon(events.opened, self)

    def send(self, message: bytes) -> None:
        self.sent.append(message)

    def close(self) -> None:
        self._loop.call_soon(self._events.closed, self, None)

    abort = close
