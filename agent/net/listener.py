"""Listen for senders: accept, cut frames out of bytes, write frames back, and push back on whoever is too fast.

Secret: sockets, transports and their buffers.
Promise: `take` gets whole frames in order; `reply` reaches its connection framed, many in one write; a sender with too many
unanswered frames, or one that does not read its answers, is not read from, and nobody else notices.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, cast

from agent.errors import ConfigError, Finding, Severity
from agent.protocol.mllp import Framer, FrameTooLong, wrap

_BACKLOG: Final = 1_024


@dataclass(frozen=True, slots=True)
class ListenerEvents:
    """Whom a listener tells. All calls on the loop."""

    take: Callable[[Connection, list[bytes]], None]
    too_long: Callable[[Connection, FrameTooLong], None]
    opened: Callable[[Connection], None]
    closed: Callable[[Connection], None]
    crowded: Callable[[], bool]  # whether what was taken lately waits for the disk: read no more until `relieve`


class Listener:
    """One bound address and its connections. `events` may change while it runs; it must be there before `start`."""

    events: ListenerEvents

    def __init__(self, sockets: list[socket.socket], *, max_message_bytes: int, unanswered: int = 64) -> None:
        self.max_message_bytes = max_message_bytes
        self.unanswered_limit = unanswered
        self.connections: set[Connection] = set()
        self._sockets = sockets
        self._servers: list[asyncio.Server] = []
        self._loop = asyncio.get_running_loop()
        self._dirty: list[Connection] = []
        self._gated: list[Connection] = []
        self._empty = asyncio.Event()

    @property
    def port(self) -> int:
        return int(self._sockets[0].getsockname()[1])

    @property
    def listening(self) -> bool:
        return any(server.is_serving() for server in self._servers)

    async def start(self) -> None:
        """Accept connections from here on."""
        for listening in self._sockets:
            self._servers.append(
                await self._loop.create_server(lambda: Connection(self), sock=listening, backlog=_BACKLOG)
            )

    def stop_accepting(self) -> None:
        for server in self._servers:
            server.close()

    async def close(self, *, drain_s: float = 0.0) -> None:
        """Stop accepting; give connections `drain_s` to have their last frames answered; close them."""
        self.stop_accepting()
        for listening in self._sockets:
            listening.close()
        for connection in list(self.connections):
            connection.close_after_reply()
        await self._emptied(drain_s)
        self.flush()
        self.drop_connections()
        await self._emptied(1.0)
        for connection in list(self.connections):
            connection.abort()

    async def _emptied(self, within_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while self.connections:
                    self._empty.clear()
                    await self._empty.wait()

    def drop_connections(self) -> None:
        for connection in list(self.connections):
            connection.close()

    def forget(self, connection: Connection) -> None:
        self.connections.discard(connection)
        if not self.connections:
            self._empty.set()

    def relieve(self) -> None:
        """The disk has caught up: read again from those who had to wait for it."""
        gated, self._gated = self._gated, []
        for connection in gated:
            connection.ungate()

    def gate(self, connection: Connection) -> None:
        self._gated.append(connection)

    def mark_dirty(self, connection: Connection) -> None:
        if not self._dirty:
            self._loop.call_soon(self.flush)
        self._dirty.append(connection)

    def flush(self) -> None:
        """Write what has gathered since the last turn of the loop, one write a connection."""
        dirty, self._dirty = self._dirty, []
        for connection in dirty:
            connection.flush()


class Connection(asyncio.Protocol):
    """One sender. `unanswered`: frames taken whose answer is still owed."""

    __slots__ = (
        "_closing",
        "_eof",
        "_framer",
        "_gated",
        "_listener",
        "_out",
        "_paused",
        "_transport",
        "_unread",
        "gone",
        "remote",
        "since_ms",
        "unanswered",
    )

    def __init__(self, listener: Listener) -> None:
        self.remote = ""
        self.since_ms = 0
        self.gone = False
        self.unanswered = 0
        self._listener = listener
        self._framer = Framer(listener.max_message_bytes)
        self._out: list[bytes] = []
        self._paused = False  # we do not read from it
        self._gated = False  # … because of the disk
        self._unread = False  # it does not read from us
        self._eof = False
        self._closing = False
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one by conduct, not by descent
        peer = transport.get_extra_info("peername")
        self.remote = f"{peer[0]}:{peer[1]}" if peer else "?"
        self.since_ms = time.time_ns() // 1_000_000
        peer_socket = transport.get_extra_info("socket")
        if peer_socket is not None:
            with contextlib.suppress(OSError):
                peer_socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._listener.connections.add(self)
        self._listener.events.opened(self)

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        framer = self._framer
        frames = framer.feed(data)
        listener = self._listener
        if frames:
            self.unanswered += len(frames)
            listener.events.take(self, frames)
            if self.unanswered >= listener.unanswered_limit:
                self._regulate()
            if listener.events.crowded() and not self._gated:
                self._gated = True
                listener.gate(self)
                self._regulate()
        if framer.oversized is not None:
            self.unanswered += 1
            listener.events.too_long(self, framer.oversized)

    def eof_received(self) -> bool:
        self._eof = True
        return self.unanswered > 0  # a sender that only half-closed still wants its answers

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone = True
        self._out.clear()
        self._listener.forget(self)
        self._listener.events.closed(self)

    def pause_writing(self) -> None:
        self._unread = True
        self._regulate()

    def resume_writing(self) -> None:
        self._unread = False
        self._regulate()

    def reply(self, message: bytes, frames: int = 1) -> None:
        """Write one framed message, at the end of this turn of the loop; it answers `frames` of the unanswered ones."""
        out = self._out
        out.append(wrap(message))
        if len(out) == 1:
            self._listener.mark_dirty(self)
        if frames:
            self.unanswered -= frames
            if self._paused and self.unanswered < self._listener.unanswered_limit // 2:
                self._regulate()

    def close_after_reply(self) -> None:
        """Take no further byte, and close once everything owed is written."""
        self._closing = True
        self._regulate()
        if not self._out and not self.unanswered:
            self.close()

    def flush(self) -> None:
        out = self._out
        if not out or self.gone:
            return
        self._transport.write(out[0] if len(out) == 1 else b"".join(out))
        out.clear()
        if (self._eof or self._closing) and self.unanswered <= 0:
            self._transport.close()

    def ungate(self) -> None:
        self._gated = False
        self._regulate()

    def close(self) -> None:
        if not self.gone:
            self._transport.close()

    def abort(self) -> None:
        if not self.gone:
            self._transport.abort()

    def _regulate(self) -> None:
        """Read from the sender, or not."""
        listener = self._listener
        limit = listener.unanswered_limit // 2 if self._paused else listener.unanswered_limit
        wanted = not (self._gated or self._unread or self._closing or self.unanswered >= limit)
        if self.gone or wanted is not self._paused or self._transport.is_closing():
            return
        self._paused = not wanted
        if wanted:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()


def bind(host: str, port: int, where: str) -> list[socket.socket]:
    """Listening sockets for an address: `0.0.0.0` all of IPv4, `::` both families, a name all its addresses.

    Raises ConfigError that says who could hold the port or what is wrong with the address.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise _unbindable(
            where, host, port, f"the address cannot be resolved ({error.strerror})", "correct the host"
        ) from error
    sockets: list[socket.socket] = []
    try:
        for family, kind, _, _, address in dict.fromkeys(found):
            # the protocol is named because asyncio sets TCP_NODELAY only then: 447 against 7,230 answers a second
            listening = socket.socket(family, kind, socket.IPPROTO_TCP)
            sockets.append(listening)
            if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
            else:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, host != "::")
            listening.bind(address)
            listening.listen(_BACKLOG)
            listening.setblocking(False)
    except OSError as error:
        for listening in sockets:
            listening.close()
        match error.errno:
            case errno.EADDRINUSE:
                text, remedy = (
                    "the port is taken by another program",
                    "stop that program or give the channel another port",
                )
            case errno.EACCES:
                text, remedy = "ports below 1024 need a privilege", "choose a higher port or grant CAP_NET_BIND_SERVICE"
            case errno.EADDRNOTAVAIL:
                text, remedy = (
                    "this address is not one of this machine's",
                    "use 0.0.0.0, ::, or an address of this machine",
                )
            case _:
                text, remedy = f"cannot listen ({error.strerror or error})", "check the address"
        raise _unbindable(where, host, port, text, remedy) from error
    return sockets


def _unbindable(where: str, host: str, port: int, text: str, remedy: str) -> ConfigError:
    finding = Finding("channel.cannot-listen", Severity.ERROR, f"{host}:{port}: {text}", remedy, where)
    return ConfigError([finding])
