"""Put lines on a terminal.

Secret: which colour a tone has, and the library that knows terminals; it is imported only when one is drawn on.
Promise: what is no terminal gets plain text. A line is never broken by the drawing, and NO_COLOR is respected.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from agent.cli.lines import Line, Tone, plain

if TYPE_CHECKING:
    from rich.text import Text

_STYLES: Final[Mapping[Tone, str]] = {
    Tone.PLAIN: "",
    Tone.QUIET: "dim",
    Tone.STRONG: "bold",
    Tone.GOOD: "green",
    Tone.WARNING: "yellow",
    Tone.BAD: "bold red",
}


def draw(lines: Iterable[Line]) -> None:
    """Print the lines on stdout."""
    print(drawn(lines))


def drawn(lines: Iterable[Line]) -> str:
    """The lines as stdout shows them: with colours if it is a terminal."""
    if not sys.stdout.isatty():
        return plain(lines)
    from rich.console import Console

    console = Console(highlight=False)
    with console.capture() as captured:
        console.print(as_text(lines), soft_wrap=True)
    return captured.get().removesuffix("\n")


def as_text(lines: Iterable[Line]) -> Text:
    """The lines for a display that is refreshed in place."""
    from rich.text import Text

    text = Text(no_wrap=True, overflow="crop", end="")
    for line in lines:
        for part, tone in line:
            text.append(part, _STYLES[tone])
        text.append("\n")
    text.rstrip()
    return text
