"""Where the connections of a channel come from, and what they share.

Secret: how connections of one door are kept, limited, gathered for writing and ended together.
Promise: whoever may not come in is sent away before a byte of it is read; answers of one turn of the loop leave in one
write a connection; `dismiss` loses no answer that is owed while there is time for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.net.tlswire import TlsWire
from agent.protocol.forensics import Oddity
from agent.protocol.mllp import BrokenFrame
from agent.spec import LineSpec

if TYPE_CHECKING:
    from agent.net.connection import Connection
    from agent.net.tls import Identity


@dataclass(frozen=True, slots=True)
class InletEvents:
    """Whom an inlet tells. All calls on the loop.

    `broken`: a message began and will not be taken whole; one reply is owed for it, and then `close_after_reply`.
    `crowded`: whether what was taken lately waits for the disk: read no more until `relieve`. `odd`: at most once a
    connection and oddity. `turned_away`: a peer, ip:port, that never became a connection, and why.
    """

    take: Callable[[Connection, list[bytes]], None]
    broken: Callable[[Connection, BrokenFrame], None]
    opened: Callable[[Connection], None]
    closed: Callable[[Connection], None]
    crowded: Callable[[], bool]
    odd: Callable[[Connection, Oddity], None]
    turned_away: Callable[[str, Oddity], None]


class Room:
    """Memory for the unfinished messages of all connections together; one for the process. 0: without limit."""

    __slots__ = ("limit_bytes", "taken_bytes")

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.taken_bytes = 0

    @property
    def full(self) -> bool:
        return 0 < self.limit_bytes < self.taken_bytes


class Inlet(ABC):
    """One door and its connections. `events` and `identity` hold for connections made from then on; `events` has to be
    set before the first.

    `linger_s`: how long the rest of a frame that was refused is read and thrown away. `half_closed_s`: how long a
    sender that has closed its side, or both, may still want its answers.
    """

    events: InletEvents

    def __init__(
        self,
        *,
        line: LineSpec,
        identity: Identity | None,
        room: Room,
        unanswered: int = 64,
        linger_s: float = 2.0,
        half_closed_s: float = 60.0,
    ) -> None:
        self.identity = identity
        self.room = room
        self.unanswered_limit = unanswered
        self.linger_s = linger_s
        self.half_closed_s = half_closed_s
        self.connections: set[Connection] = set()
        self._line = line
        self._loop = asyncio.get_running_loop()
        self._dirty: list[Connection] = []
        self._gated: list[Connection] = []
        self._one_less = asyncio.Event()

    @property
    @abstractmethod
    def port(self) -> int:
        """Where senders connect to, or we to them."""

    @property
    @abstractmethod
    def listening(self) -> bool:
        """Whether messages can come: the address is open to senders, or the sender is connected."""

    @abstractmethod
    def stop_accepting(self) -> None:
        """No further connections. Those that are there stay."""

    @abstractmethod
    def secure(self) -> TlsWire | None:
        """TLS for one more connection; None: it speaks in plain text."""

    @abstractmethod
    def admits(self, host: str) -> Oddity | None:
        """Why one more connection with this host is not wanted; None: it is."""

    @property
    def line(self) -> LineSpec:
        """What connections may do. Who may connect is asked of later ones; all else holds for those that are there."""
        return self._line

    @line.setter
    def line(self, line: LineSpec) -> None:
        self._line = line
        for connection in self.connections:
            connection.heed(line)

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

    def sweep(self, now: float) -> None:
        """Let each connection judge how long it has been silent. `now` is of `time.monotonic`."""
        for connection in tuple(self.connections):
            connection.sweep(now)

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


def as_ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address behind a peer's name; IPv4 also where it is written as IPv6 (RFC 4291 §2.5.5.2)."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
