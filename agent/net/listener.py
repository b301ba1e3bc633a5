"""Listen for senders: accept, cut frames out of bytes, write frames back, and push back on whoever is too fast.

Secret: sockets, transports and their buffers.
Promise: `take` gets whole frames in order; `reply` reaches its connection framed, many in one write; a sender with
too many unanswered frames, or one that does not read its answers, is not read from, and nobody else notices.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, cast

from agent.net.binding import BACKLOG
from agent.protocol.mllp import Framer, FrameTooLong, wrap

_MORE_HANDLES: Final = 15
_UNTOLD_BYTES: Final = 1 << 20  # a sender that leaves so much unread is told nothing more that it did not wait for


@dataclass(frozen=True, slots=True)
class ListenerEvents:
    """Whom a listener tells. All calls on the loop."""

    take: Callable[[Connection, list[bytes]], None]
    too_long: Callable[[Connection, FrameTooLong], None]
    opened: Callable[[Connection], None]
    closed: Callable[[Connection], None]
    crowded: Callable[[], bool]  # whether what was taken lately waits for the disk: read no more until `relieve`


class Listener:
    """One bound address and its connections. `events` hold for connections made from then on; set before `start`.

    `linger_s`: how long the rest of a frame that was refused for its size is read and thrown away. `half_closed_s`: how
    long a sender that has closed its side, or both, may still want its answers.
    """

    events: ListenerEvents

    def __init__(
        self,
        sockets: list[socket.socket],
        *,
        max_message_bytes: int,
        unanswered: int = 64,
        linger_s: float = 2.0,
        half_closed_s: float = 60.0,
    ) -> None:
        self.unanswered_limit = unanswered
        self.linger_s = linger_s
        self.half_closed_s = half_closed_s
        self.connections: set[Connection] = set()
        self._max_message_bytes = max_message_bytes
        self._sockets = list(sockets)
        self._servers: list[asyncio.Server] = []
        self._loop = asyncio.get_running_loop()
        self._dirty: list[Connection] = []
        self._gated: list[Connection] = []
        self._one_less = asyncio.Event()

    @property
    def port(self) -> int:
        return int(self._sockets[0].getsockname()[1])

    @property
    def listening(self) -> bool:
        return any(server.is_serving() for server in self._servers)

    @property
    def max_message_bytes(self) -> int:
        return self._max_message_bytes

    @max_message_bytes.setter
    def max_message_bytes(self, limit: int) -> None:
        self._max_message_bytes = limit
        for connection in self.connections:
            connection.limit(limit)

    async def start(self) -> None:
        """Accept connections from here on."""
        # uvloop accepts one connection for each handle in a turn of the loop; under load, when a turn is long, a
        # thousand senders that come back at once would wait for seconds
        again = 0 if isinstance(self._loop, asyncio.BaseEventLoop) else _MORE_HANDLES
        self._sockets += [listening.dup() for listening in self._sockets for _ in range(again)]
        for listening in self._sockets:
            self._servers.append(
                await self._loop.create_server(lambda: Connection(self), sock=listening, backlog=BACKLOG)
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

    async def close(self, *, drain_s: float = 0.0) -> None:
        """Stop accepting; give connections `drain_s` to have their last frames answered; close them."""
        self.stop_accepting()
        await self.dismiss(self.connections, drain_s=drain_s)

    def cut(self) -> None:
        """Stop accepting, and end every connection as it stands."""
        self.stop_accepting()
        for connection in list(self.connections):
            connection.abort()

    async def dismiss(self, connections: Iterable[Connection], *, drain_s: float) -> None:
        """Read no more from these connections and close each once it is answered, all of them after `drain_s`."""
        leaving = set(connections)
        for connection in leaving:
            connection.finish()
        await self._gone(leaving, drain_s)
        for connection in leaving & self.connections:
            connection.close()
        await self._gone(leaving, 1.0)
        for connection in leaving & self.connections:
            connection.abort()
        await self._gone(leaving, 1.0)

    async def _gone(self, leaving: set[Connection], within_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while leaving & self.connections:
                    self._one_less.clear()
                    await self._one_less.wait()

    def forget(self, connection: Connection) -> None:
        self.connections.discard(connection)
        self._one_less.set()

    def relieve(self) -> None:
        """The disk has caught up: read again from those who had to wait for it."""
        if self._gated:
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
    """One sender. `unanswered`: frames taken whose answer is still owed. `gone`: nothing written will arrive."""

    __slots__ = (
        "_closing",
        "_eof",
        "_events",
        "_framer",
        "_gated",
        "_linger",
        "_lingering",
        "_listener",
        "_out",
        "_paused",
        "_transport",
        "_unread",
        "gone",
        "remote",
        "unanswered",
    )

    def __init__(self, listener: Listener) -> None:
        self.remote = ""
        self.gone = False
        self.unanswered = 0
        self._listener = listener
        self._events = listener.events  # whoever takes over the listener takes over no connection with it
        self._framer = Framer(listener.max_message_bytes)
        self._out: list[bytes] = []
        self._paused = False  # we do not read from it
        self._gated = False  # … because of the disk
        self._unread = False  # it does not read from us
        self._eof = False
        self._closing = False
        self._lingering = False
        self._linger: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one by conduct, not by descent
        peer = transport.get_extra_info("peername")
        self.remote = f"{peer[0]}:{peer[1]}" if peer else "?"
        peer_socket = transport.get_extra_info("socket")
        if peer_socket is not None:
            with contextlib.suppress(OSError):
                peer_socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._listener.connections.add(self)
        self._events.opened(self)

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        framer = self._framer
        frames = framer.feed(data)
        if frames:
            self.unanswered += len(frames)
            events = self._events
            events.take(self, frames)
            if self.unanswered >= self._listener.unanswered_limit:
                self._regulate()
            if events.crowded() and not self._gated:
                self._gated = True
                self._listener.gate(self)
                self._regulate()
        if framer.oversized is not None:
            self.unanswered += 1
            self._events.too_long(self, framer.oversized)

    def eof_received(self) -> bool:
        self._eof = True
        if self.gone or (self.unanswered <= 0 and not self._out):
            return False
        if self._linger is None:
            self._linger = asyncio.get_running_loop().call_later(self._listener.half_closed_s, self.close)
        return True  # a sender that only half-closed still wants its answers

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone = True
        self._out.clear()
        if self._linger is not None:
            self._linger.cancel()
        self._listener.forget(self)
        self._events.closed(self)

    def pause_writing(self) -> None:
        self._unread = True
        self._regulate()

    def resume_writing(self) -> None:
        self._unread = False
        self._regulate()

    def reply(self, message: bytes) -> None:
        """Write one framed message, at the end of this turn of the loop: the answer to one of its frames."""
        self.unanswered -= 1
        self._put(message)
        if self._paused:
            self._regulate()

    def tell(self, message: bytes) -> bool:
        """Write one framed message that answers no frame; False to a sender that does not read what it is told."""
        if self.gone or (self._unread and self._transport.get_write_buffer_size() > _UNTOLD_BYTES):
            return False
        self._put(message)
        return True

    def waive(self) -> None:
        """One of its frames gets no answer."""
        self.unanswered -= 1
        self._end_if_settled()
        self._regulate()

    def close_after_reply(self) -> None:
        """Take no further frame, and close once everything owed is written and what the sender still sends has ended.

        Closing on unread bytes would reset the connection, and with it the answer that is on its way (RFC 9112 §9.6).
        """
        self._closing = self._lingering = True
        self._linger = asyncio.get_running_loop().call_later(self._listener.linger_s, self.abort)
        self._regulate()
        self._end_if_settled()

    def finish(self) -> None:
        """Read no more, and close once everything owed is written."""
        self._closing = True
        self._regulate()
        self._end_if_settled()

    def flush(self) -> None:
        out = self._out
        if not out or self.gone:
            return
        if not self._transport.is_closing():
            self._transport.write(out[0] if len(out) == 1 else b"".join(out))
        out.clear()
        if self._eof or self._closing:
            self._end_if_settled()

    def limit(self, max_message_bytes: int) -> None:
        """Take messages up to this size from now on."""
        self._framer.max_bytes = max_message_bytes

    def ungate(self) -> None:
        self._gated = False
        self._regulate()

    def close(self) -> None:
        """Write what there is, and close."""
        self.flush()
        self.gone = True
        self._transport.close()

    def abort(self) -> None:
        """Close at once, whatever is not yet written."""
        self.gone = True
        self._transport.abort()

    def _put(self, message: bytes) -> None:
        out = self._out
        out.append(wrap(message))
        if len(out) == 1:
            self._listener.mark_dirty(self)

    def _end_if_settled(self) -> None:
        if not (self._eof or self._closing) or self._out or self.unanswered > 0 or self.gone:
            return
        self.gone = True
        if self._lingering and not self._eof and self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    def _regulate(self) -> None:
        """Read from the sender, or not."""
        listener = self._listener
        limit = max(1, listener.unanswered_limit // 2) if self._paused else listener.unanswered_limit
        held = self._gated or self._unread or self._closing or self.unanswered >= limit
        wanted = self._lingering or not held
        if wanted is not self._paused or self._transport.is_closing():
            return
        self._paused = not wanted
        if wanted:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()
