"""Connect to a sender that is a server, and receive there.

Secret: when a connection that was lost, or never came about, is tried again.
Promise: until it is told to stop there is one connection or one try under way, never a storm of them; `trouble` says in
one sentence why there is no connection.
"""

from __future__ import annotations

import asyncio
from typing import Final

from agent.backoff import Backoff, pause
from agent.errors import LinkError
from agent.net.conversing import converse
from agent.net.inlet import MLLP, Conversation, Inlet, Room
from agent.net.proxy import dial
from agent.net.tls import Identity
from agent.net.tlswire import TlsWire
from agent.protocol.forensics import Oddity
from agent.spec import LineSpec, Wire

CONNECT_WITHIN_S: Final = 15.0
FIRST_WAIT_S: Final = 1.0
LONGEST_WAIT_S: Final = 60.0
PROVEN_AFTER_S: Final = 10.0  # a connection that lasted so long, or brought a message, was a good one


class Dialer(Inlet):
    """The connection to one sender. `run` belongs in a TaskGroup; cancelled, it leaves the connection to `close`."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        line: LineSpec,
        identity: Identity | None,
        room: Room,
        wire: Wire = MLLP,
        unanswered: int = 64,
        backoff: Backoff | None = None,
    ) -> None:
        super().__init__(line=line, identity=identity, room=room, wire=wire, unanswered=unanswered)
        self._host = host
        self._port = port
        self._backoff = backoff or Backoff(FIRST_WAIT_S, LONGEST_WAIT_S)
        self._leaving = asyncio.Event()
        self._deadline: asyncio.Timeout | None = None
        self._trouble = f"the first connection to {self._where} is not made yet"

    @property
    def port(self) -> int:
        return self._port

    @property
    def listening(self) -> bool:
        return any(connection.ready for connection in self.connections)

    @property
    def trouble(self) -> str:
        """Why there is no connection; empty while there is one."""
        return "" if self.listening else self._trouble

    @property
    def _where(self) -> str:
        return f"[{self._host}]:{self._port}" if ":" in self._host else f"{self._host}:{self._port}"

    async def run(self) -> None:
        """Connect, and connect again, until `stop_accepting`."""
        while not self._leaving.is_set():
            connection = await self._connect()
            if connection is not None:
                begun = self._loop.time()
                while connection in self.connections:
                    self._one_less.clear()
                    await self._one_less.wait()
                if connection.frames or (connection.established and self._loop.time() - begun >= PROVEN_AFTER_S):
                    self._backoff.reset()
                self._trouble = (
                    f"no TLS with {self._where}: {connection.failure}"
                    if connection.failure
                    else f"{self._where} has closed the connection"
                )
            if not self._leaving.is_set():
                await pause(self._leaving, self._backoff.next())

    async def _connect(self) -> Conversation | None:
        """One try. None: it failed, and `trouble` says why."""
        connection = converse(self)
        try:
            async with asyncio.timeout(CONNECT_WITHIN_S) as self._deadline:
                await self._loop.create_connection(lambda: connection, sock=await dial(self._host, self._port))
        except TimeoutError:
            self._trouble = f"cannot connect to {self._where}: no answer"
        except LinkError as error:
            self._trouble = str(error)
        except OSError as error:
            self._trouble = f"cannot connect to {self._where}: {error.strerror or 'connection lost'}"
        else:
            return connection
        finally:
            self._deadline = None
        return None

    def stop_accepting(self) -> None:
        """Connect no more. A connection that is there stays."""
        self._leaving.set()
        if self._deadline is not None and not self._deadline.expired():
            self._deadline.reschedule(self._loop.time())

    def secure(self) -> TlsWire | None:
        if self.identity is None:
            return None
        return TlsWire(self.identity.context, server_side=False, server_hostname=self._host)

    def admits(self, host: str) -> Oddity | None:
        return None
