"""Text that means something, as wide as a terminal shows it.

Secret: how wide a character is, how a paragraph breaks and how a cell is cut.
Promise: nothing that came from outside can move the cursor or change a colour, and what is fitted has exactly the
width asked for. Only ASCII of our own, so that a log, a mail and an old console show it too.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from enum import StrEnum
from unicodedata import combining, east_asian_width

LABEL_CELLS = 8  # before the text of a paragraph


class Tone(StrEnum):
    """What a piece of text means; whoever draws chooses the colour."""

    PLAIN = "plain"
    QUIET = "quiet"
    STRONG = "strong"
    GOOD = "good"
    WARNING = "warning"
    BAD = "bad"


Span = tuple[str, Tone]
Line = tuple[Span, ...]


def plain(lines: Iterable[Line]) -> str:
    """The lines without colours, for a file or a pipe."""
    return "\n".join("".join(text for text, _ in line).rstrip() for line in lines)


def paragraph(label: str, parts: Iterable[Span], width: int, *, label_tone: Tone = Tone.STRONG) -> list[Line]:
    """A label and its parts side by side, or one below the other where they do not fit; long ones are wrapped."""
    lines: list[list[Span]] = []
    used = width
    for text, tone in parts:
        for wrapped in textwrap.wrap(clean(text), max(width - LABEL_CELLS, 20)) or [""]:
            if lines and used + 2 + cells_of(wrapped) <= width:
                lines[-1] += [("  ", Tone.PLAIN), (wrapped, tone)]
                used += 2 + cells_of(wrapped)
            else:
                lines.append([(f"{'' if lines else label:<{LABEL_CELLS}}", label_tone), (wrapped, tone)])
                used = LABEL_CELLS + cells_of(wrapped)
    return [tuple(line) for line in lines]


def fitted(text: str, cells: int, *, left: bool) -> str:
    """The text in exactly `cells`. What is too long loses its middle: names of wards differ at their ends."""
    wide = cells_of(text)
    if wide > cells:
        keep = max(cells - 2, 0)
        head = _first(text, (keep + 1) // 2)
        tail = _first(text[::-1], keep - cells_of(head))[::-1]
        text = f"{head}..{tail}"[: max(cells, 0)]
        wide = cells_of(text)
    gap = " " * (cells - wide)
    return text + gap if left else gap + text


def _first(text: str, cells: int) -> str:
    end = len(text)
    while cells_of(text[:end]) > cells:
        end -= 1
    return text[:end]


def cells_of(text: str) -> int:
    """How wide a terminal shows it (Unicode Standard Annex 11)."""
    return sum(0 if combining(char) else 2 if east_asian_width(char) in "WF" else 1 for char in text)


def clean(text: str) -> str:
    """A name is given by whoever configures the server: no escape sequence of theirs reaches the terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)
