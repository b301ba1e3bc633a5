"""What the tables on the status screen are made of.

Secret: how a cell, a row and a heading are laid out, and how numbers, times and states look in them.
Promise: each row of a table is as wide as its heading, whatever its cells hold; columns go from the right where a
window is too narrow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from agent.cli.amounts import age, count, milliseconds
from agent.cli.lines import Line, Span, Tone, clean, fitted
from agent.status import Rtt

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Column(Generic[Row]):
    """One column of a table; a left-aligned one may be cut in the middle."""

    title: str
    cell: Callable[[Row], Span]
    cells: int
    left: bool = False


def heading_of(columns: Sequence[Column[Row]]) -> Line:
    return ((" ".join(fitted(column.title, column.cells, left=column.left) for column in columns), Tone.STRONG),)


def line_of(columns: Sequence[Column[Row]], row: Row) -> Line:
    spans: list[Span] = []
    for column in columns:
        text, tone = column.cell(row)
        spans += [(fitted(clean(text), column.cells, left=column.left), tone), (" ", Tone.PLAIN)]
    return tuple(spans[:-1])


def left_out_line(what: str) -> Line:
    """The last line of a table that does not hold everything; `what` as in "3 more channels"."""
    return ((f"and {what}: agent status | more", Tone.QUIET),)


def number(title: str, value: Callable[[Row], int], cells: int = 4, *, tone: Tone = Tone.PLAIN) -> Column[Row]:
    """A count; 0 is quiet."""
    return Column(title, lambda row: (count(value(row)), tone if value(row) else Tone.QUIET), cells)


def since(title: str, seconds: Callable[[Row], float | None]) -> Column[Row]:
    """How old the oldest of what waits is; None: nothing waits."""

    def cell(row: Row) -> Span:
        age_s = seconds(row)
        return ("-", Tone.QUIET) if age_s is None else (age(age_s, short=True), Tone.WARNING)

    return Column(title, cell, 6)


def round_trips(rtt: Callable[[Row], Rtt]) -> list[Column[Row]]:
    """The median, and what 95 and 99 per cent do not exceed."""

    def percentile(title: str, value: Callable[[Rtt], float]) -> Column[Row]:
        return Column(title, lambda row: (milliseconds(value(rtt(row))) if rtt(row).count else "-", Tone.PLAIN), 5)

    return [
        percentile("p50", lambda trips: trips.p50),
        percentile("p95", lambda trips: trips.p95),
        percentile("p99", lambda trips: trips.p99),
    ]


def state(word: Callable[[Row], Span], rows: Iterable[Row]) -> Column[Row]:
    """As wide as its longest word."""
    title = "state"
    return Column(title, word, max(len(title), *(len(word(row)[0]) for row in rows)), left=True)


def give_way(columns: list[Column[Row]], width: int, least: int) -> int:
    """How many cells the columns leave for a name, after the last ones have gone that would leave less than `least`."""
    while (room := width - sum(column.cells + 1 for column in columns)) < least and len(columns) > 1:
        columns.pop()
    return room
