"""Carry texts over one WebSocket.

Secret: how RFC 6455 frames, handshakes and closes meet an asyncio transport; the protocol itself is the websockets
library's core without its I/O layer, and never compresses: deflating a message costs more than all the rest.
Promise: the texts of one socket read come in one call, those of one send leave in one write; the end comes once.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from ssl import SSLCertVerificationError, SSLContext, SSLError
from typing import Final, cast

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

from agent.errors import LinkError

try:
    from websockets.speedups import apply_mask
except ImportError:  # a platform without the compiled part
    from websockets.utils import apply_mask

MAX_TEXT_BYTES = 64 * 1024 * 1024
HIGH_WATER_BYTES = 4 * 1024 * 1024
LOW_WATER_BYTES = 1024 * 1024
CLOSE_WITHIN_S = 2.0
NO_CLOSE_FRAME = 1006  # RFC 6455 §7.1.5
TEXT_FRAME: Final = 0x81  # FIN and opcode 1
MASKED: Final = 0x80
_SHORT: Final = struct.Struct("!BB").pack
_MEDIUM: Final = struct.Struct("!BBH").pack
_LONG: Final = struct.Struct("!BBQ").pack

Dial = Callable[[str, int], Awaitable[socket.socket]]

# The library's debug lines repeat every frame, patient data and tokens included: a logger that nobody can turn on.
_silent = logging.Logger("websocket", level=sys.maxsize)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a WebSocket ended. `code`, `reason`: what the far end closed with, of its own accord; 1006: it said nothing.

    `bug`: an unexpected exception of our own that ended it.
    """

    code: int
    reason: str
    bug: BaseException | None = None


class WebSocket(asyncio.Protocol):
    """One client connection. `on_open` is called when the upgrade is through; `closed` is set at the end, and then
    `ended` says how it went.
    """

    def __init__(
        self,
        url: str,
        *,
        user_agent: str,
        on_open: Callable[[], None],
        on_texts: Callable[[list[bytes]], None],
        on_writable: Callable[[], None],
    ) -> None:
        self._core = ClientProtocol(parse_uri(url), max_size=MAX_TEXT_BYTES, logger=_silent)
        self._user_agent = user_agent
        self._on_open = on_open
        self._on_texts = on_texts
        self._on_writable = on_writable
        self._transport: asyncio.Transport | None = None
        self._fragments: list[bytes] = []
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.closed = asyncio.Event()
        self.ended = Ended(NO_CLOSE_FRAME, "")
        self.writable = True
        self._closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports are no subclasses
        self._transport.set_write_buffer_limits(high=HIGH_WATER_BYTES, low=LOW_WATER_BYTES)
        request = self._core.connect()
        request.headers["User-Agent"] = self._user_agent
        self._core.send_request(request)
        self._flush()

    def data_received(self, data: bytes) -> None:
        core = self._core
        core.receive_data(data)
        texts: list[bytes] = []
        for event in core.events_received():
            if isinstance(event, Frame):
                self._take(event, texts)
        if not self.opened.done():
            self._settle()
        self._flush()  # pongs and close replies first: what the texts lead to may take a moment
        if texts:
            self._on_texts(texts)

    def _take(self, frame: Frame, texts: list[bytes]) -> None:
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY) and frame.fin:
            texts.append(bytes(frame.data))
        elif frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            self._fragments.append(bytes(frame.data))
            if frame.fin:
                texts.append(b"".join(self._fragments))
                self._fragments.clear()

    def _settle(self) -> None:
        if self._core.handshake_exc is not None:
            self.opened.set_exception(_refused(self._core.handshake_exc))
            self.opened.exception()  # read, so that a caller who has given up leaves no complaint behind
        elif self._core.state is State.OPEN:
            self.opened.set_result(None)
            self._on_open()  # at once: the first texts may stand in the same read as the upgrade

    def eof_received(self) -> None:
        self._core.receive_eof()
        if not self.opened.done():
            self._settle()

    def connection_lost(self, exc: Exception | None) -> None:
        self._core.receive_eof()
        if not self.opened.done():
            self._settle()
        self._transport = None
        self.writable = False
        close = self._core.close_rcvd if self._core.close_rcvd_then_sent is not False else None
        bug = None if exc is None or isinstance(exc, OSError) else exc
        self.ended = Ended(NO_CLOSE_FRAME, "", bug) if close is None else Ended(close.code, close.reason, bug)
        self.closed.set()

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        self._on_writable()

    @property
    def queued_bytes(self) -> int:
        """Bytes handed over and not yet taken by the network."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def send(self, texts: list[bytes]) -> None:
        """Send each as one text message, all in one write. A socket that is closing swallows them."""
        if self._core.state is State.OPEN and self._transport is not None:
            self._flush()  # what the core has to say comes first: frames keep their order
            if not self._transport.is_closing():
                self._transport.write(_text_frames(texts))

    def close(self, code: int, reason: str) -> None:
        """Begin the close handshake; without an answer in time the connection is cut."""
        if self._core.state is State.OPEN:
            self._core.send_close(code, reason)
            self._flush()
        else:
            self.abort()

    def abort(self) -> None:
        """Cut the connection now."""
        if self._transport is not None:
            self._transport.abort()

    async def wait_closed(self) -> None:
        """Until it has ended: by itself if a close handshake is under way, by force if that takes too long."""
        if self._transport is None:
            return
        if self._core.state is not State.CLOSING:
            self.abort()
        try:
            async with asyncio.timeout(2 * CLOSE_WITHIN_S):
                await self.closed.wait()
        except TimeoutError:
            self.abort()

    def _flush(self) -> None:
        transport = self._transport
        if transport is None:  # uvloop raises on a write after the end
            return
        pieces = self._core.data_to_send()
        if pieces and not transport.is_closing():
            transport.write(b"".join(pieces))
        if self._core.close_expected() and not self._closing:
            self._closing = True
            asyncio.get_running_loop().call_later(CLOSE_WITHIN_S, self.abort)


def _text_frames(texts: list[bytes]) -> bytes:
    """Masked client frames, one a text (RFC 6455 §5.2), with randomness drawn once for all of them.

    The core would draw it for each frame with a system call of its own: 2 µs a message.
    """
    masks = os.urandom(4 * len(texts))
    pieces: list[bytes] = []
    for position, text in enumerate(texts):
        size = len(text)
        if size < 126:
            head = _SHORT(TEXT_FRAME, MASKED | size)
        elif size < 65_536:
            head = _MEDIUM(TEXT_FRAME, MASKED | 126, size)
        else:
            head = _LONG(TEXT_FRAME, MASKED | 127, size)
        mask = masks[4 * position : 4 * position + 4]
        pieces += (head, mask, apply_mask(text, mask))
    return b"".join(pieces)


def _refused(error: Exception) -> LinkError:
    """Why the upgrade failed, in our own words."""
    if isinstance(error, InvalidStatus):
        status = error.response.status_code
        if status in (401, 403, 404):
            hint = "check the base URL; the socket is expected at /ws/agent below it"
        else:
            hint = "the server or a proxy before it is not ready, or does not pass WebSockets on"
        return LinkError(f"the socket upgrade was answered with {status}", hint=hint)
    if isinstance(error, InvalidHandshake) and isinstance(error.__cause__, EOFError):
        return LinkError("the connection was closed during the socket upgrade")
    hint = "check the base URL and the port"
    return LinkError("the socket upgrade was not answered by a WebSocket server", hint=hint)


async def open_websocket(url: str, socket_: WebSocket, dial: Dial, tls: SSLContext | None) -> None:
    """Connect, secure and upgrade. Raises LinkError; the deadline is the caller's, and the abort if it passes."""
    uri = parse_uri(url)
    connection = await dial(uri.host, uri.port)
    try:
        await asyncio.get_running_loop().create_connection(
            lambda: socket_,
            sock=connection,
            ssl=tls if uri.secure else None,
            server_hostname=uri.host if uri.secure else None,
        )
    except SSLCertVerificationError as error:
        hint = "name the hospital's authority in server.ca_file, or check the clock of this host"
        raise LinkError(f"the certificate of {uri.host} is not trusted: {error.verify_message}", hint=hint) from error
    except SSLError as error:
        hint = "check that the server speaks TLS 1.2 or newer on this port"
        raise LinkError(f"no TLS connection to {uri.host}:{uri.port}", hint=hint) from error
    except OSError as error:
        raise LinkError(f"the connection to {uri.host}:{uri.port} broke ({error.strerror or 'reset'})") from error
    await socket_.opened
