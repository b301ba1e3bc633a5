"""The table of channels on the status screen.

Secret: which columns there are, what gives way in a narrow window, and which channels are worth a line in a low one.
Promise: a channel with something to tell is shown before a quiet one, and how many are left out is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from agent.cli.lines import Line, Span, Tone, cells_of, clean
from agent.cli.status_table import (
    Column,
    give_way,
    heading_of,
    left_out_line,
    line_of,
    number,
    round_trips,
    since,
    state,
)
from agent.status import ChannelState, ChannelStatus

NAME_CELLS = 16  # a channel's name gets at least so many before its address may stand beside it
ADDRESS_CELLS = 22
LEAST_NAME_CELLS = 8


def channel_table(channels: Sequence[ChannelStatus], *, spool_only: bool, width: int, room: int) -> list[Line]:
    """A heading and a line for each of the channels, at least one, in `room` lines where that is possible.

    `spool_only`: nothing is known but what the spool holds.
    """
    shown, left_out = list(channels), []
    if len(shown) + 1 > room:
        ranked = sorted(channels, key=_is_quiet)
        rows = max(room - 2, 1)
        shown, left_out = ranked[:rows], ranked[rows:]
    columns = _columns(shown, width, spool_only=spool_only)
    lines = [heading_of(columns), *(line_of(columns, channel) for channel in shown)]
    if left_out:
        kind = "quiet ones" if all(map(_is_quiet, left_out)) else "channels"
        lines.append(left_out_line(f"{len(left_out)} more {kind}"))
    return lines


def _columns(channels: list[ChannelStatus], width: int, *, spool_only: bool) -> list[Column[ChannelStatus]]:
    longest = max(cells_of(clean(channel.name)) for channel in channels)
    waiting: list[Column[ChannelStatus]] = [
        number("queue", lambda c: c.queued, 5, tone=Tone.WARNING),
        since("oldest", lambda c: c.oldest_queued_seconds),
    ]
    if spool_only:
        return [_name(min(longest, width - 13)), *waiting]
    columns: list[Column[ChannelStatus]] = [
        state(_state, channels),
        number("conn", lambda c: c.connections),
        number("in", lambda c: c.received),
        number("ack", lambda c: c.acknowledged),
        number("nak", lambda c: c.rejected, tone=Tone.WARNING),
        *waiting,
        *round_trips(lambda c: c.rtt),
    ]
    room = give_way(columns, width, LEAST_NAME_CELLS + 6)
    wanted = max(cells_of(clean(channel.address)) for channel in channels)
    if room < NAME_CELLS + 1 + ADDRESS_CELLS:
        port: Column[ChannelStatus] = Column("port", lambda c: (_port(c.address), Tone.QUIET), 5)
        return [_name(min(longest, room - 6)), port, *columns]
    name = min(longest, max(NAME_CELLS, room - 1 - wanted))
    address: Column[ChannelStatus] = Column(
        "address", lambda c: (c.address, Tone.QUIET), min(wanted, room - 1 - name), left=True
    )
    return [_name(name), address, *columns]


def _name(cells: int) -> Column[ChannelStatus]:
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


def _is_quiet(channel: ChannelStatus) -> bool:
    well = channel.state in (ChannelState.LISTENING, ChannelState.CONNECTED, ChannelState.OFF)
    return well and not channel.queued and not channel.last_error


def _port(address: str) -> str:
    try:
        return str(urlsplit(address).port or "-")
    except ValueError:
        return "-"
