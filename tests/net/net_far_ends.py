"""The far ends of the net room's tests: a proxy that does as it is told, whoever an inlet tells, and senders."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Protocol

import pytest
from aiohttp import web

from agent.net.binding import bind
from agent.net.connection import Connection
from agent.net.inlet import Inlet, InletEvents, Room
from agent.net.listener import Listener
from agent.net.tls import Identity
from agent.protocol.forensics import Oddity
from agent.protocol.mllp import BrokenFrame, wrap
from agent.spec import LineSpec

WITHIN_S = 10.0

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
with contextlib.suppress(ImportError):
    import uvloop

    LOOPS["uvloop"] = uvloop.new_event_loop


def on_both_loops(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """The test once on each event loop that is installed."""

    def run(new_loop: Callable[[], asyncio.AbstractEventLoop], **fixtures: object) -> None:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(test(**fixtures))

    given = inspect.signature(test)
    loop = inspect.Parameter("new_loop", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    run.__name__, run.__doc__, run.__module__ = test.__name__, test.__doc__, test.__module__
    run.__signature__ = given.replace(parameters=[loop, *given.parameters.values()])  # type: ignore[attr-defined]
    run.pytestmark = list(getattr(test, "pytestmark", ()))  # type: ignore[attr-defined]
    return pytest.mark.parametrize("new_loop", LOOPS.values(), ids=LOOPS.keys())(run)


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class StartHttp(Protocol):
    """Serve every request by one handler; answers the base URL."""

    async def __call__(self, handler: Handler, tls: ssl.SSLContext | None = None) -> str: ...


class ConnectProxy:
    """An HTTP proxy that knows CONNECT. `heads`: what it was asked; `answer`: None to open the tunnel."""

    def __init__(self) -> None:
        self.heads: list[str] = []
        self.answer: bytes | None = None
        self.port = 0
        self._streams: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> ConnectProxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        for stream in self._streams:
            stream.transport.abort()
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._streams.append(writer)
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.heads.append(head)
        if self.answer is not None:
            writer.write(self.answer)
            await writer.drain()
            writer.close()
            return
        host, _, port = head.split(" ")[1].rpartition(":")
        far_reader, far_writer = await asyncio.open_connection(host.strip("[]"), int(port))
        self._streams.append(far_writer)
        writer.write(b"HTTP/1.1 200 Connection established\r\nVia: 1.1 test\r\n\r\n")
        async with asyncio.TaskGroup() as pipes:
            pipes.create_task(_pipe(reader, far_writer))
            pipes.create_task(_pipe(far_reader, writer))


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
        writer.write_eof()
    except OSError:
        writer.transport.abort()


class Ward:
    """Whoever an inlet tells. Answers nothing by itself unless `answers` says how; a broken frame gets AR."""

    def __init__(self) -> None:
        self.taken: list[tuple[Connection, bytes]] = []
        self.connections: list[Connection] = []
        self.closed: list[Connection] = []
        self.broken: list[BrokenFrame] = []
        self.oddities: list[Oddity] = []
        self.turned_away: list[tuple[str, Oddity]] = []
        self.answers: Callable[[bytes], bytes] | None = None
        self.crowded = False
        self.inlet: Inlet
        self._rung = asyncio.Event()

    @property
    def events(self) -> InletEvents:
        return InletEvents(
            self._take, self._broken, self._opened, self._closed, lambda: self.crowded, self._odd, self._turned_away
        )

    async def until(self, so: Callable[[], object]) -> None:
        """Wait until `so` holds, looked at whenever something was heard and a hundred times a second besides."""
        async with asyncio.timeout(WITHIN_S):
            while not so():
                self._rung.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.01):
                        await self._rung.wait()

    def sweep(self, after_s: float = 0.0) -> None:
        """As if this much time had passed."""
        self.inlet.sweep(time.monotonic() + after_s)

    def _take(self, connection: Connection, frames: list[bytes]) -> None:
        self.taken += [(connection, frame) for frame in frames]
        if self.answers is not None:
            for frame in frames:
                connection.reply(self.answers(frame))
        self._rung.set()

    def _broken(self, connection: Connection, error: BrokenFrame) -> None:
        self.broken.append(error)
        connection.reply(b"AR")
        connection.close_after_reply()
        self._rung.set()

    def _opened(self, connection: Connection) -> None:
        self.connections.append(connection)
        self._rung.set()

    def _closed(self, connection: Connection) -> None:
        self.closed.append(connection)
        self._rung.set()

    def _odd(self, connection: Connection, oddity: Oddity) -> None:
        assert connection in self.connections, "nobody has heard of it before"
        assert connection not in self.closed, "it is forgotten already"
        self.oddities.append(oddity)
        self._rung.set()

    def _turned_away(self, peer: str, oddity: Oddity) -> None:
        self.turned_away.append((peer, oddity))
        self._rung.set()

    @property
    def frames(self) -> list[bytes]:
        return [frame for _, frame in self.taken]


@asynccontextmanager
async def listening(
    *,
    line: LineSpec | None = None,
    identity: Identity | None = None,
    room: Room | None = None,
    unanswered: int = 64,
    patience_s: float = 30.0,
    host: str = "127.0.0.1",
) -> AsyncIterator[Ward]:
    """A listener on a free port; the ward's `inlet`."""
    ward = Ward()
    ward.inlet = listener = Listener(
        await bind(host, 0, "adt"),
        line=line or LineSpec(),
        identity=identity,
        room=room or Room(1 << 28),
        unanswered=unanswered,
        linger_s=patience_s,
        half_closed_s=patience_s,
    )
    listener.events = ward.events
    await listener.start()
    try:
        yield ward
    finally:
        await listener.close()


class Sender:
    """A device with an ordinary TCP client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, *messages: bytes) -> None:
        self.writer.write(b"".join(map(wrap, messages)))

    async def hears(self) -> bytes:
        async with asyncio.timeout(WITHIN_S):
            return (await self.reader.readuntil(b"\x1c\r"))[1:-2]

    async def hears_the_end(self) -> bytes:
        """What comes until the connection ends, politely."""
        async with asyncio.timeout(WITHIN_S):
            return await self.reader.read()

    def reset(self) -> None:
        """As a host does that has crashed and come back: RST instead of FIN (SO_LINGER of 0)."""
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.writer.transport.abort()


@asynccontextmanager
async def sender(
    ward: Ward, tls: ssl.SSLContext | None = None, *, name: str = "localhost", host: str = "127.0.0.1"
) -> AsyncIterator[Sender]:
    """One that is connected; with `tls`, after its side of the handshake."""
    reader, writer = await asyncio.open_connection(
        host, ward.inlet.port, ssl=tls, server_hostname=name if tls else None, limit=1 << 25
    )
    number = len(ward.connections) + 1
    await ward.until(lambda: len(ward.connections) >= number or ward.connections)
    try:
        yield Sender(reader, writer)
    finally:
        writer.transport.abort()


async def connected(ward: Ward, number: int = 1) -> Connection:
    await ward.until(lambda: len(ward.connections) >= number)
    return ward.connections[number - 1]
