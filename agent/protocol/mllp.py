"""Find messages in a byte stream.

Secret: MLLP's block structure (HL7 Version 3 Transport Specification: MLLP, release 1) and how to walk it fast.
Promise: every message comes out once, whole and in order, however the network cut the stream, in time linear in
the bytes and in memory bounded by the limit plus one read.
"""

from __future__ import annotations

from agent.errors import PeerError

START, END, CR = 0x0B, 0x1C, 0x0D
HEAD_BYTES = 4096

_TRAILER = b"\x1c\r"
_RESTART = b"\x0bMSH"
_HALVES = (b"\x1c", b"\x0bMS", b"\x0bM", b"\x0b")


def wrap(message: bytes) -> bytes:
    """The message as one frame: 0x0B, message, 0x1C 0x0D."""
    return b"\x0b%b\x1c\r" % message


class BrokenFrame(PeerError):
    """A message began and will not be taken whole: answer and close, for what follows is the rest of it.

    `head`: its first bytes, 4096 at most, enough to read MSH for the answer. `again`: it may do better another time.
    """

    again = False

    def __init__(self, text: str, head: bytes) -> None:
        super().__init__(text)
        self.head = head


class FrameTooLong(BrokenFrame):
    """A message is longer than its channel takes. `limit` in bytes."""

    hint = "raise maxMessageBytes of this channel, or let the sender split the message"

    def __init__(self, head: bytes, limit: int) -> None:
        super().__init__(f"a message is longer than the limit of {limit} bytes", head)
        self.limit = limit


class FrameUnfinished(BrokenFrame):
    """A message began and its end block did not come in time."""

    hint = "let the sender end each message with 0x1C 0x0D, or raise frameTimeoutSecs of this channel"
    again = True

    def __init__(self, head: bytes, after_s: float) -> None:
        super().__init__(f"the message was not complete {after_s:g} s after it began", head)


class NoRoom(BrokenFrame):
    """The memory for unfinished messages is taken by others."""

    hint = "let the sender send again; if it stays like this, raise limits.unfinished_bytes"
    again = True

    def __init__(self, head: bytes) -> None:
        super().__init__("too many long messages are under way at one time", head)


class PlainText(BrokenFrame):
    """A sender speaks unencrypted to a channel that takes TLS only."""

    hint = "switch TLS on in the sender, or give it an mllp:// channel"

    def __init__(self, head: bytes) -> None:
        super().__init__("this port takes TLS only", head)


class Framer:
    """The receiving end of one connection: feed it what arrives, take the messages that are complete.

    0x1C without 0x0D is content. Bytes outside frames are ignored and counted in `skipped`. 0x0B inside a
    message is content, unless MSH follows at once: then the sender gave up and began again, so the earlier piece
    is dropped and counted in `truncated`. A message longer than `max_bytes` sets `oversized`; everything after
    it is ignored. `begun`: a message has begun and not ended.
    """

    __slots__ = ("_buffer", "_scanned", "max_bytes", "oversized", "skipped", "truncated")

    def __init__(self, max_bytes: int = 16 * 1024 * 1024) -> None:
        self.max_bytes = max_bytes
        self.skipped = 0
        self.truncated = 0
        self.oversized: FrameTooLong | None = None
        # The message that has begun, without its 0x0B, of which `_scanned` bytes are searched; None between frames.
        self._buffer: bytearray | None = None
        self._scanned = 0

    @property
    def buffered(self) -> int:
        """Bytes held of a message that is not yet complete."""
        return 0 if self._buffer is None else len(self._buffer)

    @property
    def begun(self) -> bool:
        return self._buffer is not None

    def head(self, size: int) -> bytes:
        """The first bytes of the message that has begun."""
        return b"" if self._buffer is None else bytes(self._buffer[:size])

    def tail(self, size: int) -> bytes:
        """The last bytes of the message that has begun."""
        return b"" if self._buffer is None else bytes(self._buffer[-size:])

    def drop(self) -> None:
        """Let go of the message that has begun; what follows of it is outside of frames."""
        self._buffer = None
        self._scanned = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Take one read; give the messages it completes, in order, without their framing."""
        if self._buffer is None:
            size = len(data)
            # Nearly every read is one whole frame. One-byte searches are memchr, five times as fast as two-byte ones.
            if (
                data.find(END) == size - 2
                and data[:1] == b"\x0b"
                and data[-1] == CR
                and data.rfind(START) == 0
                and size - 3 <= self.max_bytes
            ):
                return [data[1:-2]]
            return self._cut(data, -1, 0)
        if self.oversized is not None:
            return []
        self._buffer += data
        return self._cut(self._buffer, 0, self._scanned)

    def _cut(self, view: bytes | bytearray, begin: int, scan: int) -> list[bytes]:
        """Cut the messages out of `view`; keep what is left.

        `begin`: where the open message begins, -1 between frames. `scan`: the first byte not yet searched.
        """
        messages: list[bytes] = []
        while True:
            if begin < 0:
                start = view.find(START, scan)
                if start < 0:
                    self.skipped += len(view) - scan
                    self._buffer = None
                    return messages
                self.skipped += start - scan
                begin = scan = start + 1
            end = _find_end(view, scan)
            stop = len(view) if end < 0 else end
            restart = _find_restart(view, scan, stop)
            while 0 <= restart <= begin + self.max_bytes:
                self.truncated += 1
                begin = restart + 1
                restart = _find_restart(view, begin, stop)
            if restart >= 0:
                content_end = restart
            elif end >= 0:
                content_end = end
            else:
                # What may yet turn out to be framing is not content: the packets must not sway the verdict.
                content_end = stop - _undecided(view, begin)
            if content_end - begin > self.max_bytes:
                head = bytes(view[begin : min(begin + HEAD_BYTES, content_end)])
                self.oversized = FrameTooLong(head, self.max_bytes)
                self._buffer = bytearray()
                return messages
            if end < 0:
                self._scanned = content_end - begin
                if isinstance(view, bytearray):
                    del view[:begin]
                else:
                    self._buffer = bytearray(view[begin:])
                return messages
            messages.append(bytes(view[begin:end]))
            begin, scan = -1, end + 2


def _find_end(view: bytes | bytearray, scan: int) -> int:
    """Where 0x1C 0x0D stands, -1 if it does not, also when its second half has yet to arrive."""
    end = view.find(END, scan)
    if end >= 0 and view[end + 1 : end + 2] != b"\r":
        return view.find(_TRAILER, end + 1)
    return end


def _find_restart(view: bytes | bytearray, scan: int, stop: int) -> int:
    """Where 0x0B MSH stands before `stop`, -1 if it does not."""
    start = view.find(START, scan, stop)
    return start if start < 0 else view.find(_RESTART, start, stop)


def _undecided(view: bytes | bytearray, begin: int) -> int:
    """How many bytes at the end may be the first half of an end block or of a new start."""
    for half in _HALVES:
        if view.endswith(half, begin):
            return len(half)
    return 0
