"""Find messages in bytes of which only two characters are known, and what the server reads of them.

Secret: where a message begins and ends when its channel names an end character and perhaps a start character, and how
any bytes travel to the server and back as text.
Promise: however the line cut the stream, the same messages come out whole and in order, in time linear in the bytes and
in memory bounded by the limit plus one read; no byte of a body is replaced silently.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from agent.protocol.charset import name_of
from agent.protocol.mllp import HEAD_BYTES, FrameTooLong
from agent.protocol.text import InvalidBytes

_BLANK: Final = b"\0\t\n\r "
_BLANK_BYTES: Final = 4_096
_CONTROLS: Final = frozenset(range(0x20))


class StreamFramer:
    """The receiving end of one connection: feed it what arrives, take the messages that are complete.

    A message is all from `start` to `end` (byte values), both included; `start` None: all since the last `end`. `start`
    inside a message begins it anew: the piece before is dropped and counted in `truncated`. Bytes outside of messages
    are ignored and counted in `skipped`. A message longer than `max_bytes` sets `oversized`; everything after it is
    ignored. `begun`: a message has begun and not ended; without a start character, a few line ends and blanks begin
    none, for many a device writes them behind its end character.
    """

    __slots__ = ("_begun", "_buffer", "_end", "_later", "_start", "max_bytes", "oversized", "skipped", "truncated")

    def __init__(self, start: int | None, end: int, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.skipped = 0
        self.truncated = 0
        self.oversized: FrameTooLong | None = None
        self._start = start
        self._end = end
        self._later: tuple[int | None, int] | None = None  # what holds from the next message on
        self._buffer: bytearray | None = None  # what has come of a message, searched; None between messages
        self._begun = False

    @property
    def buffered(self) -> int:
        """Bytes held of a message that is not yet complete."""
        return 0 if self._buffer is None else len(self._buffer)

    @property
    def begun(self) -> bool:
        return self._begun

    def head(self, size: int) -> bytes:
        """The first bytes of the message that has begun."""
        return b"" if self._buffer is None else bytes(self._buffer[:size])

    def tail(self, size: int) -> bytes:
        """The last bytes of the message that has begun."""
        return b"" if self._buffer is None else bytes(self._buffer[-size:])

    def drop(self) -> None:
        """Let go of the message that has begun."""
        self._buffer = None
        self._begun = False

    def delimit(self, start: int | None, end: int) -> None:
        """Other characters, from the next message on; one that has begun still ends as it would have."""
        self._later = (start, end)
        if not self._begun:
            self._adopt()

    def feed(self, data: bytes) -> list[bytes]:
        """Take one read; give the messages it completes, in order, with the characters that delimit them."""
        if self.oversized is not None:
            return []
        messages: list[bytes] = []
        at = 0
        while at < len(data):
            if self._buffer is None:
                if self._start is not None:
                    begin = data.find(self._start, at)
                    self.skipped += (len(data) if begin < 0 else begin) - at
                    if begin < 0:
                        break
                    at = begin
                self._buffer = bytearray()
            end = data.find(self._end, at)
            stop = len(data) if end < 0 else end + 1
            if (again := self._next_by_later(data, at, stop)) >= 0:
                at = again
                continue
            at = self._begin_anew(data, at, stop)
            if self.buffered + stop - at > self.max_bytes:
                self._overflow(data, at)
                break
            self._buffer += data[at:stop]
            if end >= 0:
                messages.append(bytes(self._buffer))
                self.drop()
                self._adopt()
            elif not self._begun:
                said = self._start is not None or data[at:stop].strip(_BLANK)
                self._begun = bool(said) or len(self._buffer) > _BLANK_BYTES
            at = stop
        return messages

    def _next_by_later(self, data: bytes, at: int, stop: int) -> int:
        """Where a message begins that ends by other characters, inside of one that ends by the old ones; else -1."""
        if self._later is None or self._start is None or self._later[0] != self._start:
            return -1
        again = data.find(self._start, at, stop)
        if again >= 0:
            self.truncated += 1
            self.drop()
            self._adopt()
        return again

    def _begin_anew(self, data: bytes, at: int, stop: int) -> int:
        """Where the message that ends before `stop` begins, or goes on: at the last start character in it."""
        start, buffer = self._start, self._buffer
        assert buffer is not None
        if start is None:
            return at
        again = data.find(start, at if buffer else at + 1, stop)
        while again >= 0 and len(buffer) + again - at <= self.max_bytes:
            self.truncated += 1
            buffer.clear()
            at = again
            again = data.find(start, at + 1, stop)
        return at

    def _overflow(self, data: bytes, at: int) -> None:
        """The message is too long before whatever may end it."""
        head = self.head(HEAD_BYTES) + data[at : at + HEAD_BYTES]
        self.oversized = FrameTooLong(head[: min(HEAD_BYTES, self.max_bytes + 1)], self.max_bytes)
        self._buffer = bytearray()
        self._begun = True

    def _adopt(self) -> None:
        if self._later is not None:
            if self._later != (self._start, self._end):
                self.skipped += self.buffered  # blanks
                self._buffer = None
            (self._start, self._end), self._later = self._later, None


class Responder:
    """What is written back as soon as certain bytes have come, promising nothing.

    `responses`: pairs of what has to come, one byte or more, and what is written for it. `answered_bytes`: how much of
    what came has got an answer.
    """

    __slots__ = ("_kept", "_recent", "_responses", "answered_bytes")

    def __init__(self, responses: Iterable[tuple[bytes, bytes]]) -> None:
        self.answered_bytes = 0
        self._recent = b""
        self.learn(responses)

    def learn(self, responses: Iterable[tuple[bytes, bytes]]) -> None:
        """Respond in this way from now on."""
        self._responses = tuple((pattern, answer) for pattern, answer in responses if pattern)
        self._kept = max((len(pattern) for pattern, _ in self._responses), default=1) - 1

    def answers(self, data: bytes) -> bytes:
        """Take one read; give what is to be written for the byte sequences that end in it, in the order of their ends,
        those that end together in the order of the pairs. Sequences may overlap."""
        if not self._responses:
            return b""
        view, before = self._recent + data, len(self._recent)
        self._recent = view[-self._kept :] if self._kept else b""
        found: list[tuple[int, int, bytes]] = []
        for order, (pattern, answer) in enumerate(self._responses):
            at = view.find(pattern, max(0, before - len(pattern) + 1))
            while at >= 0:
                found.append((at + len(pattern), order, answer))
                self.answered_bytes += len(pattern)
                at = view.find(pattern, at + 1)
        return b"".join(answer for _, _, answer in sorted(found))


def body_of(
    message: bytes,
    *,
    strip: tuple[bytes, ...] = (),
    strip_controls: bool = False,
    keep_controls: frozenset[int] = frozenset(),
    codec: str | None = None,
) -> str:
    """A message as text for the server: in hexadecimal, or read by a Python codec. Raises InvalidBytes.

    The sequences in `strip` are left out, the longest that fits at each place; then, with `strip_controls`, the bytes
    below 0x20 but `keep_controls`.
    """
    if strip:
        message = _any_of(strip).sub(b"", message)
    if strip_controls:
        message = message.translate(None, bytes(_CONTROLS - keep_controls))
    if codec is None:
        return message.hex()
    try:
        return message.decode(codec)
    except UnicodeDecodeError as error:
        verdict = f"is not valid {name_of(codec)}"
        place = f"byte {error.start + 1} of the body"
        raise InvalidBytes(
            f"{place} (0x{message[error.start : error.start + 1].hex()}) {verdict}",
            position=error.start + 1,
            charset=name_of(codec),
            hint="set bodyEncoding of this channel to what the device writes; hex takes any bytes",
            loggable=f"{place} {verdict}",
        ) from None


def bytes_of(text: str, codec: str | None) -> bytes:
    """The server's answer as bytes for the device: the reverse of `body_of`. ValueError where it is none.

    Hexadecimal in either case and with white space anywhere (PROTOCOL §3).
    """
    return bytes.fromhex("".join(text.split())) if codec is None else text.encode(codec)


@lru_cache(maxsize=64)
def _any_of(sequences: tuple[bytes, ...]) -> re.Pattern[bytes]:
    return re.compile(b"|".join(re.escape(sequence) for sequence in sorted(sequences, key=len, reverse=True)))
