"""A peer that does exactly what the test says, on a real socket."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agent.protocol.hl7 import Header, build_ack
from agent.protocol.mllp import Framer, wrap
from agent.ward.destination import Destination


def message(control_id: str) -> bytes:
    return f"MSH|^~\\&|A|B|C|D|20260105060000||ADT^A08^ADT_A01|{control_id}|P|2.5.1\rEVN||20260105060000\r".encode()


def ack(body: bytes, code: str = "AA", *, named: bool = True) -> bytes:
    """A framed acknowledgement; without an MSA-2 if not `named`."""
    header = Header.of(body if named else message(""))
    return wrap(build_ack(header, code, control_id=b"1", when="20260105060000"))


class Connection(asyncio.Protocol):
    """One connection to the peer. `heard`: the messages as they come, b"" at the end; `gone`: set when it is closed."""

    transport: asyncio.Transport

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._framer = Framer()
        self.heard: asyncio.Queue[bytes] = asyncio.Queue()
        self.gone = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._peer.connections.put_nowait(self)
        self._peer.all_connections.append(self)

    def data_received(self, data: bytes) -> None:
        for body in self._framer.feed(data):
            self.heard.put_nowait(body)

    def connection_lost(self, exc: Exception | None) -> None:
        self.heard.put_nowait(b"")
        self.gone.set()

    def say(self, *frames: bytes) -> None:
        self.transport.write(b"".join(frames))

    async def hears(self) -> bytes:
        async with asyncio.timeout(5):
            return await self.heard.get()


class Peer:
    """The far end. `connections`: those that were opened and not yet looked at."""

    def __init__(self) -> None:
        self.connections: asyncio.Queue[Connection] = asyncio.Queue()
        self.all_connections: list[Connection] = []
        self.to = Destination("127.0.0.1", 0)

    async def connection(self) -> Connection:
        async with asyncio.timeout(5):
            return await self.connections.get()


@asynccontextmanager
async def open_peer(tls: ssl.SSLContext | None = None) -> AsyncIterator[Peer]:
    peer = Peer()
    server = await asyncio.get_running_loop().create_server(lambda: Connection(peer), "127.0.0.1", 0, ssl=tls)
    peer.to = Destination("127.0.0.1", server.sockets[0].getsockname()[1], tls=tls is not None)
    try:
        yield peer
    finally:
        server.close()
        for connection in peer.all_connections:
            connection.transport.abort()
            await connection.gone.wait()
