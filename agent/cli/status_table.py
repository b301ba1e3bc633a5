"""The table of channels on the status screen.

Secret: which columns there are, what gives way in a narrow window, and which channels are worth a line in a low one.
Promise: a channel with something to tell is shown before a quiet one, and how many are left out is said.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from agent.cli.amounts import age, count, milliseconds
from agent.cli.lines import Line, Span, Tone, cells_of, clean, fitted
from agent.status import ChannelState, ChannelStatus

NAME_CELLS = 16  # a channel's name gets at least so many before its address may stand beside it
ADDRESS_CELLS = 22
LEAST_NAME_CELLS = 8
LEAST_ROWS = 3


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the channel table; a left-aligned one may be cut in the middle."""

    title: str
    cell: Callable[[ChannelStatus], Span]
    cells: int
    left: bool = False


def channel_table(channels: Sequence[ChannelStatus], *, spool_only: bool, width: int, room: int) -> list[Line]:
    """A heading and a line for each of the channels, at least one, in `room` lines where that is possible.

    `spool_only`: nothing is known but what the spool holds.
    """
    shown, left_out = list(channels), []
    if len(shown) + 1 > room:
        ranked = sorted(channels, key=_is_quiet)
        rows = max(room - 2, LEAST_ROWS)
        shown, left_out = ranked[:rows], ranked[rows:]
    columns = _columns(shown, width, spool_only=spool_only)
    heading = " ".join(fitted(column.title, column.cells, left=column.left) for column in columns)
    lines: list[Line] = [((heading, Tone.STRONG),)]
    for channel in shown:
        spans: list[Span] = []
        for column in columns:
            text, tone = column.cell(channel)
            spans += [(fitted(clean(text), column.cells, left=column.left), tone), (" ", Tone.PLAIN)]
        lines.append(tuple(spans[:-1]))
    if left_out:
        kind = "quiet ones" if all(map(_is_quiet, left_out)) else "channels"
        lines.append(((f"and {len(left_out)} more {kind}: agent status | more", Tone.QUIET),))
    return lines


def _columns(channels: list[ChannelStatus], width: int, *, spool_only: bool) -> list[Column]:
    def number(title: str, value: Callable[[ChannelStatus], int], cells: int = 4, tone: Tone = Tone.PLAIN) -> Column:
        return Column(title, lambda c: (count(value(c)), tone if value(c) else Tone.QUIET), cells)

    def trip(title: str, value: Callable[[ChannelStatus], float]) -> Column:
        return Column(title, lambda c: (milliseconds(value(c)) if c.rtt.count else "-", Tone.PLAIN), 5)

    longest = max(cells_of(clean(channel.name)) for channel in channels)
    waiting = [number("queue", lambda c: c.queued, 5, Tone.WARNING), Column("oldest", _oldest, 6)]
    if spool_only:
        return [_name(min(longest, width - 13)), *waiting]
    columns = [
        Column("state", _state, max(len("state"), *(len(_state(channel)[0]) for channel in channels)), left=True),
        number("conn", lambda c: c.connections),
        number("in", lambda c: c.received),
        number("ack", lambda c: c.acknowledged),
        number("nak", lambda c: c.rejected, tone=Tone.WARNING),
        *waiting,
        trip("p50", lambda c: c.rtt.p50),
        trip("p95", lambda c: c.rtt.p95),
        trip("p99", lambda c: c.rtt.p99),
    ]
    while (room := width - sum(column.cells + 1 for column in columns)) < LEAST_NAME_CELLS + 6 and len(columns) > 1:
        columns.pop()
    wanted = max(cells_of(clean(channel.address)) for channel in channels)
    if room < NAME_CELLS + 1 + ADDRESS_CELLS:
        port = Column("port", lambda c: (_port(c.address), Tone.QUIET), 5)
        return [_name(min(longest, room - 6)), port, *columns]
    name = min(longest, max(NAME_CELLS, room - 1 - wanted))
    address = Column("address", lambda c: (c.address, Tone.QUIET), min(wanted, room - 1 - name), left=True)
    return [_name(name), address, *columns]


def _name(cells: int) -> Column:
    return Column("channel", lambda c: (c.name, Tone.STRONG), max(cells, len("channel")), left=True)


def _state(channel: ChannelStatus) -> Span:
    match channel.state:
        case ChannelState.LISTENING | ChannelState.CONNECTED:
            return "ok", Tone.GOOD
        case ChannelState.FAILED:
            return "FAILED", Tone.BAD
        case ChannelState.OFF:
            return "off", Tone.QUIET
        case other:
            return other, Tone.WARNING


def _oldest(channel: ChannelStatus) -> Span:
    if channel.oldest_queued_seconds is None:
        return "-", Tone.QUIET
    return age(channel.oldest_queued_seconds, short=True), Tone.WARNING


def _is_quiet(channel: ChannelStatus) -> bool:
    well = channel.state in (ChannelState.LISTENING, ChannelState.CONNECTED, ChannelState.OFF)
    return well and not channel.queued and not channel.last_error


def _port(address: str) -> str:
    try:
        return str(urlsplit(address).port or "-")
    except ValueError:
        return "-"
