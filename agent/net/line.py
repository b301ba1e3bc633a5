"""Hold one connection to a remote: we write messages, it writes answers.

Secret: where TLS begins and ends on it, what of a read is an answer and what stands outside of any, and how it ends.
Promise: whoever dialled is told `opened` and later `closed`, or else `failed`; each once, and never from inside a call
of his own. Nothing that comes after `close` or `abort` is told, and a remote that does not read holds nobody up.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from enum import Enum, auto
from time import perf_counter
from typing import Final, Protocol, cast

from agent.failures import Failure
from agent.net import reach
from agent.net.reach import Stage
from agent.net.tlswire import TlsFailure, TlsWire
from agent.protocol.mllp import START, Framer, wrap
from agent.spec import RemoteSpec

CLOSE_WITHIN_S: Final = 2.0  # for what is written to reach a remote that does not read
MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024
NOISE_BYTES: Final = 16
_BLANK: Final = b"\0\t\n\r "  # some send a line end after each frame, some keep a line up with NULs
_TRAILER: Final = b"\x1c\r"


class LineEvents(Protocol):
    """Who is told about a line. Every call comes on the loop, never from inside a call to the line or to `dial`."""

    def opened(self, line: Line, /) -> None:
        """TCP, and TLS where it is asked for, are through."""

    def failed(self, line: Line, failure: Failure, /) -> None:
        """It never opened. Nothing more is told about it."""

    def heard(self, line: Line, frames: list[bytes], /) -> None:
        """Whole answers, unframed: all that one read completed."""

    def noisy(self, line: Line, /) -> None:
        """Bytes that stand in no frame have come; told once for each message sent. `noise` has the first of them."""

    def closed(self, line: Line, failure: Failure | None, /) -> None:
        """It was open. None: we closed it, or the remote did so politely."""


class _State(Enum):
    CONNECTING = auto()  # nothing is told yet
    FAILING = auto()  # `failed` will be told, and nothing else
    OPEN = auto()  # `opened` is told
    ENDING = auto()  # `closed` will be told, and nothing else
    OVER = auto()  # all is told


class Line(asyncio.Protocol):
    """One connection. `noise`: the first bytes, 16 at most, since the last `send` that stood in no frame, without the
    blanks before them. `begun`: bytes of an answer that has begun and not ended, 0x0B included. `frames`: answers that
    have come. `connect_s`: how long TCP and TLS took, without what resolving the name took; 0 until it is open.
    """

    __slots__ = (
        "_begun_at", "_closing", "_connecting", "_events", "_failure", "_forget", "_framer", "_noise_told", "_settled",
        "_spec", "_state", "_transport", "_wire", "begun", "connect_s", "frames", "noise",
    )  # fmt: skip

    def __init__(self, spec: RemoteSpec, events: LineEvents, forget: Callable[[Line], None]) -> None:
        self.noise = b""
        self.begun = 0
        self.frames = 0
        self.connect_s = 0.0
        self._spec = spec
        self._events = events
        self._forget = forget  # called when it has neither task nor socket any more
        self._state = _State.CONNECTING
        self._failure: Failure | None = None
        self._connecting: asyncio.Task[Failure | None] | None = None
        self._settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()  # open, or failing
        self._transport: asyncio.Transport | None = None
        self._wire: TlsWire | None = None
        self._framer = Framer(MAX_ANSWER_BYTES)
        self._noise_told = True  # before the first message there is nobody to tell
        self._closing: asyncio.TimerHandle | None = None
        self._begun_at = 0.0

    # ---- what whoever dialled says

    def send(self, message: bytes) -> None:
        """Frame one message and write it, now. On a line whose end is about to be told it goes nowhere."""
        assert self._state is not _State.CONNECTING, "a message was sent before its line was open"
        self.noise = b""
        self._noise_told = False
        data = wrap(message)
        if self._wire is not None and self._is_open:
            try:
                data = self._wire.wrap(data)
            except TlsFailure as failure:
                self._break(reach.no_tls(self._spec, failure))
        if self._is_open:
            self._write(data)

    def close(self) -> None:
        """Close politely; a remote that does not read what is written is cut off after CLOSE_WITHIN_S."""
        if self._is_open:
            self._leave()
        elif self._state is _State.CONNECTING:
            self.abort()

    def abort(self) -> None:
        """Close at once, whatever is not yet written; or connect no further."""
        if self._state is _State.CONNECTING:
            self._state = _State.FAILING
            if self._connecting is not None:
                self._connecting.cancel()
            else:
                asyncio.get_running_loop().call_soon(self.settle, None)
            return
        if self._is_open:
            self._state = _State.ENDING
        if self._transport is not None:
            self._transport.abort()

    # ---- how it comes about

    def begin(self, connecting: asyncio.Task[Failure | None]) -> None:
        """This task connects it, by `connect`."""
        self._connecting = connecting
        connecting.add_done_callback(self._connected)
        if self._state is not _State.CONNECTING:
            connecting.cancel()

    async def connect(self, context: ssl.SSLContext | None, within_s: float) -> Failure | None:
        """Until it is open, or why it is not; None also when that is known to the line itself."""
        spec, stage, addresses = self._spec, Stage.NAME, list[str]()
        deadline = asyncio.timeout(within_s)
        try:
            async with deadline:
                addresses = await reach.resolve(spec.host, spec.port)
                stage = Stage.ADDRESS
                if context is not None:
                    self._wire = TlsWire(context, server_side=False, server_hostname=_certified_name(spec.host))
                self._begun_at = perf_counter()
                knock = await reach.race(addresses, spec.port)
        except (OSError, UnicodeError) as error:
            if deadline.expired():
                return reach.late(stage, spec, within_s)
            return reach.not_connected(spec, error, addresses)
        knock.hand_over(self)
        try:
            async with asyncio.timeout_at(deadline.when()):
                await self._settled
        except TimeoutError:
            return reach.late(Stage.HANDSHAKE, spec, within_s)
        return None

    def settle(self, failure: Failure | None) -> None:
        """Nobody connects it any more: if it is not open by now, it never will be."""
        if self._state not in (_State.CONNECTING, _State.FAILING):
            return
        self._state = _State.OVER
        if self._transport is None:
            self._forget(self)
        elif not self._transport.is_closing():
            self._transport.abort()
        self._events.failed(self, self._failure or failure or reach.given_up(self._spec))

    def _connected(self, connecting: asyncio.Task[Failure | None]) -> None:
        unknown = connecting.cancelled() or connecting.exception() is not None
        self.settle(None if unknown else connecting.result())

    # ---- what the transport tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one by conduct, not by descent
        if self._wire is None:
            self._open()
        else:
            self._unseal(self._wire, b"")

    def data_received(self, data: bytes) -> None:
        wire = self._wire
        try:
            if wire is not None:
                data = self._unseal(wire, data)
            if data and self._is_open:
                self._take(data)
        except OSError as error:
            # of whoever was told; the transport would take it for the network's, and keep it to itself
            raise RuntimeError("what came from a remote could not be handed on") from error
        if wire is not None and wire.ended and self._is_open:
            self._leave()

    def eof_received(self) -> None:
        if self._is_open:
            self._leave()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._closing is not None:
            self._closing.cancel()
        match self._state:
            case _State.CONNECTING:
                self._fail(reach.lost_in_handshake(self._spec, exc))
            case _State.FAILING:
                pass  # `settle` is still to come
            case _State.OPEN | _State.ENDING:
                failure = reach.lost(self._spec, exc) if self._is_open and exc is not None else self._failure
                self._state = _State.OVER
                self._forget(self)
                self._events.closed(self, failure)
            case _State.OVER:
                self._forget(self)

    # ---- what comes

    @property
    def _is_open(self) -> bool:
        return self._state is _State.OPEN

    def _unseal(self, wire: TlsWire, data: bytes) -> bytes:
        """The plaintext of a read. What TLS itself has to say is said at once."""
        if self._state not in (_State.CONNECTING, _State.OPEN):
            return b""
        try:
            plaintext = wire.feed(data)
        except TlsFailure as failure:
            self._write(wire.outgoing())  # the alert that tells the remote why
            self._break(reach.no_tls(self._spec, failure))
            return b""
        if wire.established and not self._is_open:
            # before our side of the handshake leaves: it and the first message go in one write. A remote that refuses
            # our certificate (RFC 8446 §4.4.2.4) may have reset the connection by a second one, its reason unread.
            self._open()
        self._write(wire.outgoing())
        return plaintext

    def _open(self) -> None:
        self._state = _State.OPEN
        self.connect_s = perf_counter() - self._begun_at
        self._wake()
        self._events.opened(self)

    def _take(self, data: bytes) -> None:
        framer = self._framer
        skipped, last = framer.skipped, framer.tail(1) if framer.begun else None
        frames = framer.feed(data)
        self.begun = framer.buffered + 1 if framer.begun else 0
        self.frames += len(frames)
        if framer.skipped != skipped:
            self._gather(_outside(data, last))
        if frames and self._is_open:
            self._events.heard(self, frames)
        if framer.oversized is not None and self._is_open:
            self._break(reach.too_long(self._spec, MAX_ANSWER_BYTES))
            self.abort()

    def _gather(self, outside: bytes) -> None:
        self.noise = (self.noise + outside)[:NOISE_BYTES] if self.noise else outside.lstrip(_BLANK)[:NOISE_BYTES]
        if self.noise and not self._noise_told:
            self._noise_told = True
            self._events.noisy(self)

    # ---- the end

    def _fail(self, failure: Failure) -> None:
        self._state = _State.FAILING
        self._failure = failure
        self._wake()

    def _wake(self) -> None:
        if not self._settled.done():  # the time may be up in this very turn of the loop, and the wait cancelled
            self._settled.set_result(None)

    def _break(self, failure: Failure) -> None:
        """End for this reason, once what is written has left."""
        if self._state is _State.CONNECTING:
            self._fail(failure)
        else:
            self._state = _State.ENDING
            self._failure = failure
        self._hang_up()

    def _leave(self) -> None:
        self._state = _State.ENDING
        if self._wire is not None:
            self._write(self._wire.close_notify())
        self._hang_up()

    def _hang_up(self) -> None:
        transport = self._transport
        assert transport is not None
        transport.close()
        if transport.get_write_buffer_size():
            self._closing = asyncio.get_running_loop().call_later(CLOSE_WITHIN_S, transport.abort)

    def _write(self, data: bytes) -> None:
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)


def _certified_name(host: str) -> str:
    """What a certificate calls this host: without a zone (RFC 4007 §11) and without the dot of the root."""
    return host.partition("%")[0].rstrip(".")


def _outside(data: bytes, last: bytes | None) -> bytes:
    """What of a read stands in no frame. `last`: the last byte of the frame that was open before, if it has any; None
    between frames."""
    pieces: list[bytes] = []
    begin = 0
    if last is not None:
        begin = 1 if last + data[:1] == _TRAILER else data.find(_TRAILER) + 2
    while True:
        start = data.find(START, begin)
        pieces.append(data[begin:start] if start >= 0 else data[begin:])
        end = data.find(_TRAILER, start + 1) if start >= 0 else -1
        if end < 0:
            return b"".join(pieces)
        begin = end + len(_TRAILER)
