"""A connection to a remote that opens and never answers."""

from __future__ import annotations

import asyncio

from agent.flow.letters import LineEvents


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
