"""Listen for senders.

Secret: how the two event loops accept, and who is let in.
Promise: the address is open from `start` to `stop_accepting`; a sender outside the allow-list, or one too many, is sent
away at once and changes nothing for the others.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Final

from agent.net.binding import BACKLOG
from agent.net.conversing import converse
from agent.net.inlet import MLLP, Inlet, Room, as_ip
from agent.net.tls import Identity
from agent.net.tlswire import TlsWire
from agent.protocol.forensics import Oddity
from agent.spec import LineSpec, Wire

_MORE_HANDLES: Final = 15


class Listener(Inlet):
    """One bound address and its connections."""

    def __init__(
        self,
        sockets: list[socket.socket],
        *,
        line: LineSpec,
        identity: Identity | None,
        room: Room,
        wire: Wire = MLLP,
        unanswered: int = 64,
        linger_s: float = 2.0,
        half_closed_s: float = 60.0,
    ) -> None:
        super().__init__(
            line=line,
            identity=identity,
            room=room,
            wire=wire,
            unanswered=unanswered,
            linger_s=linger_s,
            half_closed_s=half_closed_s,
        )
        self._sockets = list(sockets)
        self._servers: list[asyncio.Server] = []

    @property
    def port(self) -> int:
        return int(self._sockets[0].getsockname()[1])

    @property
    def listening(self) -> bool:
        return any(server.is_serving() for server in self._servers)

    async def start(self) -> None:
        """Accept connections from here on."""
        # uvloop accepts one connection for each handle in a turn of the loop; under load, when a turn is long, a
        # thousand senders that come back at once would wait for seconds
        again = 0 if isinstance(self._loop, asyncio.BaseEventLoop) else _MORE_HANDLES
        self._sockets += [listening.dup() for listening in self._sockets for _ in range(again)]
        for listening in self._sockets:
            self._servers.append(
                await self._loop.create_server(lambda: converse(self), sock=listening, backlog=BACKLOG)
            )

    def stop_accepting(self) -> None:
        """Give the address free. Connections stay."""
        for server in self._servers:
            server.close()
        for listening in self._sockets:
            listening.close()

    async def restart(self, sockets: list[socket.socket]) -> None:
        """Accept connections again, on new sockets; the ones that are there stay."""
        self.stop_accepting()
        self._sockets, self._servers = list(sockets), []
        await self.start()

    def secure(self) -> TlsWire | None:
        return TlsWire(self.identity.context, server_side=True) if self.identity is not None else None

    def admits(self, host: str) -> Oddity | None:
        if self.line.allow:
            address = as_ip(host)
            if address is None or not any(address in network for network in self.line.allow):
                return Oddity.NOT_ALLOWED
        if 0 < self.line.max_connections <= len(self.connections):
            return Oddity.TOO_MANY
        return None
