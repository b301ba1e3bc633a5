"""The line that tells how far the work is."""

from __future__ import annotations

import io

from agent.cli.progress import ProgressLine


class Terminal(io.StringIO):
    """A terminal that shows what a person would see: carriage returns go back and write over."""

    def isatty(self) -> bool:
        return True

    def lines(self) -> list[str]:
        seen = []
        for written in self.getvalue().split("\n"):
            cells: list[str] = []
            column = 0
            for char in written:
                if char == "\r":
                    column = 0
                else:
                    cells[column : column + 1] = [char]
                    column += 1
            seen.append("".join(cells).rstrip())
        return seen


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_line_is_redrawn_at_most_five_times_a_second() -> None:
    terminal, clock = Terminal(), Clock()
    progress = ProgressLine(terminal, clock=clock)
    for step in range(100):  # one second
        progress.show(f"step {step}")
        clock.now += 0.01
    assert terminal.getvalue().count("\r") == 5
    assert terminal.lines() == ["step 80"]


def test_a_shorter_line_leaves_nothing_of_the_longer_one() -> None:
    terminal, clock = Terminal(), Clock()
    progress = ProgressLine(terminal, clock=clock)
    progress.show("a long line")
    clock.now += 1
    progress.show("short")
    assert terminal.lines() == ["short"]


def test_the_line_is_gone_at_the_end() -> None:
    terminal = Terminal()
    with ProgressLine(terminal) as progress:
        progress.show("working")
        assert terminal.lines() == ["working"]
    assert terminal.lines() == [""]


def test_a_note_stays_above_the_line() -> None:
    terminal = Terminal()
    progress = ProgressLine(terminal)
    progress.show("working hard on it")
    progress.note("trouble")
    assert terminal.lines() == ["trouble", "working hard on it"]


def test_a_line_too_long_for_the_terminal_is_cut() -> None:
    terminal = Terminal()
    ProgressLine(terminal).show("x" * 5000)
    assert 0 < len(terminal.lines()[0]) < 5000


def test_only_notes_are_written_to_what_is_no_terminal() -> None:
    stream = io.StringIO()
    with ProgressLine(stream) as progress:
        assert not progress.live
        progress.show("working")
        progress.note("trouble")
    assert stream.getvalue() == "trouble\n"
