"""One line on a terminal that tells how far the work is.

Secret: how such a line is redrawn. Promise: it never draws more than five times a second, never on anything but a
terminal, and never leaves half of itself behind other output.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TextIO

REDRAW_S = 0.2


class ProgressLine:
    """A line on `stream`, taken away again when the context ends. On anything but a terminal `show` does nothing."""

    def __init__(self, stream: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._drawn_at: float | None = None
        self._shown = ""
        self.live = stream.isatty()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._erase()

    def show(self, text: str) -> None:
        """Draw the line anew, unless that was done a moment ago; what does not fit into the terminal is cut off."""
        now = self._clock()
        if not self.live or (self._drawn_at is not None and now - self._drawn_at < REDRAW_S):
            return
        # A line as wide as the terminal would wrap on some of them.
        fitting = text[: shutil.get_terminal_size().columns - 1]
        self._stream.write(f"\r{fitting:<{len(self._shown)}}")
        self._stream.flush()
        self._shown = fitting
        self._drawn_at = now

    def note(self, text: str) -> None:
        """Print a line that stays, on any stream; the progress line is drawn again below it."""
        shown = self._shown
        self._erase()
        self._stream.write(f"{text}\n")
        if shown:
            self._stream.write(shown)
            self._shown = shown
        self._stream.flush()

    def _erase(self) -> None:
        if self._shown:
            self._stream.write(f"\r{'':<{len(self._shown)}}\r")
            self._stream.flush()
            self._shown = ""
