"""Tell a silent far end from one that has gone.

Secret: when silence, or one message that does not end, begins to mean something; how each operating system names the
options of TCP keepalive (RFC 9293 §3.8.4).
Promise: whoever is judged too slow was given at least the time that was allowed, and none of it was time in which we
did not read; a peer that has vanished without a word is noticed about a minute after the silence that was allowed.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Final

INTERVAL_S: Final = 10
PROBES: Final = 6
_IDLE: Final = ("TCP_KEEPIDLE", "TCP_KEEPALIVE")  # the second is macOS's name for the first


def keep_alive(connection: socket.socket, silence_s: int) -> None:
    """Probe after so many seconds without a byte; 0: never."""
    # the far end may have reset the connection meanwhile, and then there is nothing to set
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, int(silence_s > 0))
        if silence_s > 0:
            idle = next((name for name in _IDLE if hasattr(socket, name)), "")
            for name, value in ((idle, silence_s), ("TCP_KEEPINTVL", INTERVAL_S), ("TCP_KEEPCNT", PROBES)):
                if hasattr(socket, name):
                    connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class Silence:
    """How long one connection has said nothing, and how long one message has been under way. Seconds of one clock.

    Nothing is noted when bytes arrive, for that would cost a look at the clock: `note` compares counts now and then,
    so that all times are short by the time between two notes at most.
    """

    __slots__ = ("_asked_at", "_born", "_heard_at", "_heard_bytes", "_message", "_message_at")

    def __init__(self, now: float) -> None:
        self._born = self._heard_at = self._message_at = now
        self._heard_bytes = 0
        self._message: int | None = None
        self._asked_at = -1

    def note(self, now: float, heard_bytes: int, message: int | None, *, reading: bool) -> None:
        """So much has come by now. `message`: which one is under way. `reading`: whether more could have come."""
        if heard_bytes != self._heard_bytes or not reading:
            self._heard_bytes = heard_bytes
            self._heard_at = now
        if message != self._message or not reading:
            self._message = message
            self._message_at = now

    def age_s(self, now: float) -> float:
        return max(0.0, now - self._born)

    def silent_s(self, now: float, heard_bytes: int) -> float:
        """Since its last byte; 0 if something has come since the last note."""
        return max(0.0, now - self._heard_at) if heard_bytes == self._heard_bytes else 0.0

    def message_s(self, now: float) -> float:
        """Since the message under way began."""
        return max(0.0, now - self._message_at)

    def first_of_its_kind(self) -> bool:
        """True once for each silence."""
        fresh = self._asked_at != self._heard_bytes
        self._asked_at = self._heard_bytes
        return fresh
