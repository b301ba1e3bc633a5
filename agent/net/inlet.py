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
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, Protocol

from agent.net.tlswire import TlsWire
from agent.protocol.forensics import Evidence, Oddity
from agent.protocol.mllp import BrokenFrame
from agent.spec import LineSpec, Mllp, Wire

if TYPE_CHECKING:
    from agent.net.tls import Identity


MLLP: Final = Mllp()


class Conversation(Protocol):
    """One connection of an inlet, whatever it speaks. `remote`: ip:port, or the serial device; `peer`: its address
    alone. `frames`: messages that came; `unanswered`: those whose answer is still owed. `failure`: why there was no
    TLS, in a sentence; `oddity`: what was odd about it last."""

    remote: str
    peer: str
    frames: int
    unanswered: int
    failure: str
    oddity: Oddity | None

    @property
    def gone(self) -> bool:
        """Nothing written to it will arrive."""

    @property
    def ready(self) -> bool:
        """Whether messages can come and answers can go."""

    @property
    def established(self) -> bool:
        """Whether the handshake is through, if there has to be one."""

    @property
    def first_shape(self) -> str:
        """How its first bytes looked, without what they said."""

    def evidence(self, now: float, over: bool) -> Evidence:
        """What it has done so far. `now` is of `time.monotonic`."""

    def reply(self, message: bytes) -> None:
        """Write one message, the answer to one of its frames."""

    def tell(self, message: bytes) -> bool:
        """Write one message that answers no frame; False if it does not read what it is told."""

    def waive(self) -> None:
        """One of its frames gets no answer."""

    def expect(self, more: int) -> None:
        """One of its frames gets so many further answers."""

    def odd(self, oddity: Oddity) -> None:
        """Something is odd about it. Told once."""

    def close_after_reply(self) -> None:
        """Take no further frame, and close once everything owed is written."""

    def finish(self) -> None:
        """Read no more, and close once everything owed is written."""

    def close(self) -> None:
        """Write what there is, and close."""

    def abort(self) -> None:
        """Close at once, whatever is not yet written."""

    def flush(self) -> None:
        """Write what has gathered."""

    def heed(self, line: LineSpec) -> None:
        """The terms of its channel have changed: `line`, or the inlet's `wire`."""

    def ungate(self) -> None:
        """The disk has caught up: read again."""

    def sweep(self, now: float) -> None:
        """Some time has passed: has it been silent, or busy with one message, for too long?"""


@dataclass(frozen=True, slots=True)
class ReceivedObject:
    """One DICOM object, whole and on the platter as a file of the DICOM format (PS3.10), in the folder of objects.

    `dataset`: its DICOM JSON (PS3.18 annex F) with the file meta information and without bulk data, UTF-8. `remote`:
    ip:port.
    """

    path: Path
    size_bytes: int
    remote: str
    calling_ae_title: str
    called_ae_title: str
    sop_class_uid: str
    sop_instance_uid: str
    dataset: bytes


def _no_pieces(conversation: Conversation, piece: bytes, kept: Callable[[bool], None]) -> None:
    raise NotImplementedError("this channel takes messages whole")


def _no_remains(conversation: Conversation, message: bytes) -> None:
    raise NotImplementedError("this channel takes messages whole")


def _no_objects(received: ReceivedObject, kept: Callable[[str], None]) -> None:
    raise NotImplementedError("this channel takes no objects")


@dataclass(frozen=True, slots=True)
class InletEvents:
    """Whom an inlet tells. All calls on the loop.

    `broken`: a message began and will not be taken whole; one reply is owed for it, and then `close_after_reply`.
    `crowded`: whether what was taken lately waits for the disk: read no more until `relieve`. `odd`: at most once a
    connection and oddity. `turned_away`: a peer, ip:port, that never became a connection, and why.

    Wires that acknowledge pieces of a message: `keep` has one put on the platter, and `kept` hears on the loop, never
    from inside the call, whether it is there. `take` gets the whole message after its pieces, `remains` what was kept
    of one whose end will not come. Wires that bring files: `store` has one taken over, and `kept` hears on the loop
    whether it is safe: an empty text, or why not.
    """

    take: Callable[[Conversation, list[bytes]], None]
    broken: Callable[[Conversation, BrokenFrame], None]
    opened: Callable[[Conversation], None]
    closed: Callable[[Conversation], None]
    crowded: Callable[[], bool]
    odd: Callable[[Conversation, Oddity], None]
    turned_away: Callable[[str, Oddity], None]
    keep: Callable[[Conversation, bytes, Callable[[bool], None]], None] = _no_pieces
    remains: Callable[[Conversation, bytes], None] = _no_remains
    store: Callable[[ReceivedObject, Callable[[str], None]], None] = _no_objects


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
    set before the first. `wire`: what is spoken; new settings of the same kind hold from the next message on.

    `linger_s`: how long the rest of a frame that was refused is read and thrown away. `half_closed_s`: how long a
    sender that has closed its side, or both, may still want its answers.
    """

    events: InletEvents
    visited: ClassVar[bool] = True  # by whoever knows where it is; a cable of our own is not

    def __init__(
        self,
        *,
        line: LineSpec,
        identity: Identity | None,
        room: Room,
        wire: Wire = MLLP,
        unanswered: int = 64,
        linger_s: float = 2.0,
        half_closed_s: float = 60.0,
    ) -> None:
        self.identity = identity
        self.room = room
        self.unanswered_limit = unanswered
        self.linger_s = linger_s
        self.half_closed_s = half_closed_s
        self.connections: set[Conversation] = set()
        self._line = line
        self._wire = wire
        self._loop = asyncio.get_running_loop()
        self._dirty: list[Conversation] = []
        self._gated: list[Conversation] = []
        self._one_less = asyncio.Event()

    @property
    @abstractmethod
    def port(self) -> int:
        """Where senders connect to, or we to them."""

    @property
    @abstractmethod
    def listening(self) -> bool:
        """Whether messages can come: the address is open to senders, or the sender is connected."""

    @property
    def trouble(self) -> str:
        """Why there is no connection, of an inlet that makes its connections itself; empty while there is one."""
        return ""

    async def start(self) -> None:  # noqa: B027 - nothing to do where we make the connections
        """Accept connections from here on, if others make them."""

    async def run(self) -> None:  # noqa: B027 - nothing to do where others make them
        """All that has to be done for as long as it is open; ends after `stop_accepting`. Cancelled, it leaves its
        connections to `close`."""

    @abstractmethod
    def stop_accepting(self) -> None:
        """No further connections. Those that are there stay."""

    def ends(self, transport: asyncio.BaseTransport) -> tuple[str, str]:
        """`remote` and `peer` of a connection: ip:port of the other end, and its address alone."""
        name = transport.get_extra_info("peername")
        return (f"{name[0]}:{name[1]}", str(as_ip(name[0]) or name[0])) if name else ("?", "?")

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

    @property
    def wire(self) -> Wire:
        return self._wire

    @wire.setter
    def wire(self, wire: Wire) -> None:
        self._wire = wire
        for connection in self.connections:
            connection.heed(self._line)

    async def close(self, *, drain_s: float = 0.0) -> None:
        """Stop accepting; give connections `drain_s` to have their last frames answered; close them."""
        self.stop_accepting()
        await self.dismiss(self.connections, drain_s=drain_s)

    def cut(self) -> None:
        """Stop accepting, and end every connection as it stands."""
        self.stop_accepting()
        for connection in list(self.connections):
            connection.abort()

    async def dismiss(self, connections: Iterable[Conversation], *, drain_s: float) -> None:
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

    async def _gone(self, leaving: set[Conversation], within_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while leaving & self.connections:
                    self._one_less.clear()
                    await self._one_less.wait()

    def forget(self, connection: Conversation) -> None:
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

    def gate(self, connection: Conversation) -> None:
        self._gated.append(connection)

    def mark_dirty(self, connection: Conversation) -> None:
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
