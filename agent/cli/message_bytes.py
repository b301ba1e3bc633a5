"""Bytes of which nobody knows what they mean, as people can look at them.

Secret: when bytes are text, and how text and bytes stand side by side.
Promise: what is shown of the bytes is shown in two ways, by number and by character, and what is left out is counted.
Masked text keeps its length and its punctuation; of anything else nothing is shown.
"""

from __future__ import annotations

import re
from typing import Final

from agent.cli.lines import Line, Tone
from agent.cli.message_parts import masked
from agent.cli.message_view import wrapped

SHOWN_BYTES: Final = 16_384
_ROWS: Final = ((16, 78), (8, 43), (4, 0))  # bytes of a row, and the cells that it takes
# the controls with which devices delimit and transmit (ISO 646); others are found in binary data only
_CONTROLS: Final = {
    0x01: "SOH", 0x02: "STX", 0x03: "ETX", 0x04: "EOT", 0x05: "ENQ", 0x06: "ACK", 0x09: "HT", 0x0A: "LF", 0x0B: "VT",
    0x0C: "FF", 0x0D: "CR", 0x15: "NAK", 0x17: "ETB", 0x1C: "FS", 0x1D: "GS", 0x1E: "RS", 0x1F: "US",
}  # fmt: skip
_LINE: Final = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")


def reading_of(body: bytes) -> tuple[str, str] | None:
    """The text, and what it was read as; None where these bytes are no text."""
    if not body or any(byte < 0x20 and byte not in _CONTROLS for byte in body) or 0x7F in body:
        return None
    for codec, name in (("ascii", "ASCII"), ("utf-8", "UTF-8"), ("latin-1", "ISO-8859-1, for it is no UTF-8")):
        try:
            text = body.decode(codec)
        except UnicodeDecodeError:
            continue
        printable = all(char.isprintable() or ord(char) in _CONTROLS for char in text)
        return (text, name) if printable else None
    return None


def masked_bytes(body: bytes) -> bytes | None:
    """The same number of bytes without what they say; None: they are no text, and every one of them may say it."""
    if body and reading_of(body) is None:
        return None
    return masked(body.decode("latin-1").translate(_HIGH)).encode("latin-1")


_HIGH: Final = dict.fromkeys(range(0x80, 0x100), "x")


def byte_lines(body: bytes, width: int | None) -> list[Line]:
    """The text, if it is one, and all bytes by number and character. `width` None: as wide as it takes."""
    shown = body[:SHOWN_BYTES]
    lines: list[Line] = []
    if (found := reading_of(shown)) is not None:
        for line in _LINE.findall(found[0]):
            pieces = wrapped(_spelled(line), None if width is None else max(width - 2, 8))
            lines += [(("  ", Tone.PLAIN), (piece, Tone.PLAIN)) for piece in pieces]
        lines.append(())
    row = next(count for count, cells in _ROWS if width is None or width >= cells)
    for at in range(0, len(shown), row):
        lines.append(_dumped(at, shown[at : at + row], row))
    if len(body) > len(shown):
        lines.append(((f"  ... {len(body) - len(shown):,} more bytes: --raw gives all", Tone.WARNING),))
    return lines


def _spelled(text: str) -> str:
    """Controls by their names, so that a person sees them and no terminal obeys them."""
    return "".join(f"<{_CONTROLS[ord(char)]}>" if ord(char) in _CONTROLS else char for char in text)


def _dumped(at: int, row: bytes, width: int) -> Line:
    numbers = [f"{byte:02x}" for byte in row] + ["  "] * (width - len(row))
    halves = "  ".join(" ".join(numbers[start : start + 8]) for start in range(0, width, 8))
    side = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
    return ((f"  {at:06x}  ", Tone.QUIET), (f"{halves}  ", Tone.PLAIN), (side, Tone.QUIET))
