"""Cut frames out of what an analyser sends.

Secret: how a frame of ASTM E1381-95 §6.3 (CLSI LIS1-A2 §8.3) is built, and how one is recognised that was damaged on
the way.
Promise: however the line cut the bytes, the same frames come out; each transmission of a frame gives one token and no
second one, for an answer too many would be taken for that to the next frame. No bytes at all raise anything, and no
more than one frame is held.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

STX, ETX, EOT, ENQ, ACK, NAK, ETB = 0x02, 0x03, 0x04, 0x05, 0x06, 0x15, 0x17
MAX_FRAME_BYTES: Final = 65_536

_ENDS: Final = re.compile(rb"[\x03\x17]")
_HEADLESS_ENDS: Final = re.compile(rb"[\x02-\x05\x17]")
_BEGINS: Final = re.compile(rb"[\x02\x04\x05\x20-\x7e\x80-\xfe]")  # between frames; a text has lost its STX
_AFTER_TAIL: Final = re.compile(rb"[\x02\x04\x05\x0a]")


def checksum(covered: bytes) -> bytes:
    """Two digits over everything behind STX, up to and with ETX or ETB (§6.3.3)."""
    return b"%02X" % (sum(covered) & 0xFF)


def frames(records: Iterable[bytes], text_bytes: int) -> list[bytes]:
    """Records as they are sent: one in a frame, or in several if it is longer than `text_bytes` (§6.3.1)."""
    whole: list[bytes] = []
    for record in records:
        text = record + b"\r"
        for at in range(0, len(text), text_bytes):
            end = b"\x17" if at + text_bytes < len(text) else b"\x03"
            covered = b"%d%b%b" % ((len(whole) + 1) % 8, text[at : at + text_bytes], end)
            whole.append(b"\x02%b%b\r\n" % (covered, checksum(covered)))
    return whole


@dataclass(frozen=True, slots=True)
class Frame:
    """One good frame. `number`: 0 to 7; `content`: its text, with the ETX or ETB behind it."""

    number: int
    content: bytes


class Signal(StrEnum):
    """What a sender says outside of frames."""

    ENQ = "ENQ"
    EOT = "EOT"


class Fault(StrEnum):
    """What is odd about the far end."""

    CHECKSUM = "checksum"
    NUMBER = "number"  # of a frame: neither the next one's nor the last one's
    MALFORMED = "malformed"  # a frame without its beginning, or without its end
    TOO_LONG = "too-long"  # a frame
    TOO_BIG = "too-big"  # a message
    UNFINISHED = "unfinished"
    STRANGE = "strange"  # it speaks, and asks nobody for the line


Token = Frame | Signal | Fault


class FrameReader:
    """What the far end says while it has the line. `skipped`: bytes that belong to nothing.

    Control characters in the text of a frame are text, though they may not be there: one that was damaged on the way
    would otherwise end what it stands in. CR LF behind a frame may be missing; text without STX before it is a frame
    that has lost it.
    """

    def __init__(self) -> None:
        self.skipped = 0
        self._frame: bytearray | None = None  # from its number to ETX or ETB
        self._digits: bytes | None = None  # behind that
        self._headless = self._overlong = False
        self._tail = False  # the rest of a frame that is judged already may follow

    @property
    def begun(self) -> bool:
        """Whether a frame has begun and not ended."""
        return self._frame is not None

    @property
    def buffered(self) -> int:
        return len(self._frame or b"")

    def drop(self) -> None:
        """Let go of the frame that has begun. What follows of it is nothing."""
        self._frame = self._digits = None
        self._headless = self._overlong = False
        self._tail = True

    def reset(self) -> None:
        """A session begins."""
        self.drop()
        self._tail = False

    def read(self, data: bytes, at: int) -> tuple[int, Token | None]:
        """Go on reading at `at`; give where to go on after that, and what was found."""
        if self._frame is None:
            return self._between(data, at)
        return self._collect(self._frame, data, at)

    def _between(self, data: bytes, at: int) -> tuple[int, Token | None]:
        found = (_AFTER_TAIL if self._tail else _BEGINS).search(data, at)
        if found is None:
            self.skipped += len(data) - at
            return len(data), None
        self.skipped += found.start() - at
        match data[found.start()]:
            case 0x0A:
                self._tail = False
            case 0x04:
                return found.end(), Signal.EOT
            case 0x05:
                return found.end(), Signal.ENQ
            case 0x02:
                self._frame, self._headless = bytearray(), False
            case _:
                self._frame, self._headless = bytearray(), True
                return found.start(), None
        return found.end(), None

    def _collect(self, frame: bytearray, data: bytes, at: int) -> tuple[int, Token | None]:
        if self._digits is not None:
            more = data[at : at + 2 - len(self._digits)]
            self._digits += more
            judged = self._judge(bytes(frame), self._digits) if len(self._digits) == 2 else None
            return at + len(more), judged
        found = (_HEADLESS_ENDS if self._headless else _ENDS).search(data, at)
        if self._headless and found is not None and data[found.start()] in (STX, EOT, ENQ):
            self.skipped += len(frame) + found.start() - at
            self.reset()
            return found.start(), None
        stop = len(data) if found is None else found.end()
        if len(frame) + stop - at > MAX_FRAME_BYTES:
            self._overlong = True
            frame.clear()
        else:
            frame += data[at:stop]
        if found is not None:
            self._digits = b""
        return stop, None

    def _judge(self, frame: bytes, digits: bytes) -> Token:
        headless, overlong = self._headless, self._overlong
        self.drop()
        if overlong:
            return Fault.TOO_LONG
        if headless or len(frame) < 2 or frame[0] not in b"01234567":
            return Fault.MALFORMED
        if checksum(frame) != digits.upper():
            return Fault.CHECKSUM
        return Frame(frame[0] - 0x30, frame[1:])
