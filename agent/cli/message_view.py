"""A stored message, laid out for people and for scripts.

Secret: which columns a list has and what gives way in a narrow window; how a message that was taken apart is laid out.
Promise: nothing is wider than the window, in a file nothing is cut but documents, and what came from outside cannot
steer the terminal. A list names no patient.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final, assert_never

from agent.cli.amounts import size
from agent.cli.lines import Line, Span, Tone, cells_of, clean, fitted
from agent.cli.message_parts import Segment, Value
from agent.store.ledger import Entry
from agent.store.row import AckState, Content, Direction, Repeat, State

LONG_CHARS: Final = 1_000  # a value beyond it is a document: its beginning and its length are shown
_BEGINNING_CHARS: Final = 160
_LEAST_VALUE_CELLS: Final = 32
_MOST_NAME_CELLS: Final = 48


# ---- layout


def segment_lines(segments: list[Segment], width: int | None) -> list[Line]:
    """Each segment with its values below it: place, name, value. `width` None: as wide as it takes, one line each."""
    values = [value for segment in segments for value in segment.fields]
    place_cells = max((len(value.path) for value in values), default=0)
    name_cells = min(max((cells_of(value.name) for value in values), default=0), _MOST_NAME_CELLS)
    if width is not None:
        name_cells = min(name_cells, max(width - place_cells - 6 - _LEAST_VALUE_CELLS, 16))
    lines: list[Line] = []
    for segment in segments:
        title = f"  {segment.title}" if segment.title else ""
        lines.append(((clean(segment.name) or "?", Tone.STRONG), (title, Tone.QUIET)))
        for value in segment.fields:
            lines += _value_lines(value, place_cells, name_cells, width)
    return lines


def _value_lines(value: Value, place_cells: int, name_cells: int, width: int | None) -> Iterator[Line]:
    name = clean(value.name)
    if width is not None or cells_of(name) < name_cells:
        name = _name_fitted(name, name_cells)
    text, rest = clean(value.value), ""
    if len(text) > LONG_CHARS:
        text, rest = text[:_BEGINNING_CHARS], f"... {len(text):,} characters"
    room = None if width is None else max(width - place_cells - name_cells - 6, 8)
    place = f"  {clean(value.path):<{place_cells}}  "
    for piece in wrapped(text, room):
        yield (place, Tone.PLAIN), (f"{name}  ", Tone.QUIET), (piece, Tone.PLAIN)
        place, name = " " * (place_cells + 4), " " * cells_of(name)
    if rest:
        yield (place, Tone.PLAIN), (f"{name}  ", Tone.QUIET), (rest, Tone.WARNING)


def _name_fitted(name: str, cells: int) -> str:
    """Of a long name it is the field's that is cut: its parts differ by what stands behind."""
    field, slash, part = name.partition(" / ")
    room = cells - cells_of(slash + part)
    if slash and room >= min(8, cells_of(field)) and cells_of(name) > cells:
        return fitted(field, room, left=True) + slash + part
    return fitted(name, cells, left=True)


def wrapped(text: str, room: int | None) -> list[str]:
    """The text in pieces of at most `room` cells, none of its characters lost; broken after a blank where there is
    one."""
    pieces = []
    while room is not None and cells_of(text) > room:
        end = used = 0
        while (used := used + cells_of(text[end])) <= room:
            end += 1
        end = max(end, 1)
        end = text.rfind(" ", 0, end) + 1 or end
        pieces.append(text[:end])
        text = text[end:]
    return [*pieces, text]


# ---- the list


TWICE: Final = "*"  # behind the state of a message that may have arrived twice
_PLACES: Final = {Direction.IN: "channel", Direction.OUT: "remote"}
_TITLES: Final = ("id", "received", "way", "channel", "type", "control id", "state", "tries", "ack", "size")
_RIGHT: Final = (0, 7, 9)
_KIND: Final = re.compile(r"\w+[^\w\s]\w+")
_CHANNEL, _TYPE, _CONTROL_ID, _SIZE = 3, 4, 5, 9
# column and the least it keeps, in this order; nothing at all: it is left out
_GIVES_WAY: Final = (
    (_CHANNEL, 16), (_CONTROL_ID, 14), (_SIZE, 0), (_CHANNEL, 11), (_CONTROL_ID, 10), (_CHANNEL, 8), (_CONTROL_ID, 8),
    (_CHANNEL, 4), (_TYPE, 7), (_CONTROL_ID, 6),
)  # fmt: skip
# codes of other worlds than HL7: a frame of ASTM E1381, a C-STORE (PS3.7 annex C)
_POSITIVE: Final = ("ACK", "0000")
# what senders are told where the line itself acknowledges, before the server has said anything
_BY_THE_LINE: Final = {
    Content.BYTES: ("-", Tone.QUIET),
    Content.ASTM: ("ACK", Tone.PLAIN),
    Content.DICOM: ("0000", Tone.PLAIN),
}
STATE_TONES: Final = {
    State.REJECTED: Tone.BAD,
    State.FAILED: Tone.BAD,
    State.HELD: Tone.WARNING,
    State.PROCESSED: Tone.GOOD,
}


def message_table(entries: list[Entry], now: datetime, width: int | None) -> list[Line]:
    """A heading, and a line for each; where the window is narrow, names lose their middle, control ids last."""
    ways = [_PLACES[way] for way in Direction if any(entry.direction is way for entry in entries)]
    titles = [("/".join(ways) if title == "channel" else title, Tone.STRONG) for title in _TITLES]
    rows = [titles, *(_row(entry, now) for entry in entries)]
    widths = [max(cells_of(text) for text, _ in column) for column in zip(*rows, strict=True)]
    gap = 2 if width is None or sum(widths) + 2 * len(widths) - 2 <= width else 1
    if width is not None:
        _narrow(widths, gap, width)
    lines: list[Line] = []
    for row in rows:
        spans: list[Span] = []
        for number, (text, tone) in enumerate(row):
            if widths[number]:
                spans += [(fitted(text, widths[number], left=number not in _RIGHT), tone), (" " * gap, Tone.PLAIN)]
        lines.append(tuple(spans[:-1]))
    return lines


def _narrow(widths: list[int], gap: int, width: int) -> None:
    for column, least in _GIVES_WAY:
        surplus = sum(cells + gap for cells in widths if cells) - gap - width
        if surplus <= 0:
            return
        if least:
            widths[column] -= min(surplus, max(widths[column] - least, 0))
        else:
            widths[column] = 0


def _row(entry: Entry, now: datetime) -> tuple[Span, ...]:
    came = local_time(entry.received_ms)
    day = "" if came.date() == now.date() else f"{came:%d %b} " if came.year == now.year else f"{came:%d %b %Y} "
    return (
        (str(entry.id), Tone.PLAIN),
        (f"{day}{came:%H:%M:%S}", Tone.PLAIN),
        (entry.direction.name.lower(), Tone.PLAIN),
        (clean(entry.channel if entry.direction is Direction.IN else entry.remote), Tone.PLAIN),
        _kind_cell(entry),
        (clean(decoded(entry.control_id)), Tone.PLAIN),
        (f"{entry.state.name.lower()}{TWICE * entry.ambiguous}", STATE_TONES.get(entry.state, Tone.PLAIN)),
        (str(entry.attempts), Tone.WARNING if entry.attempts > 1 else Tone.PLAIN),
        _ack_cell(entry),
        (size(entry.size_bytes), Tone.PLAIN),
    )


def _kind_cell(entry: Entry) -> Span:
    """MSH-9.1 and MSH-9.2, whatever divides them; MSH-9.3 follows from these two. Where there is no MSH: what it is."""
    if entry.content is not Content.HL7:
        return entry.content.name.lower(), Tone.QUIET
    text = decoded(entry.message_type)
    found = _KIND.match(text)
    return clean(found[0] if found else text), Tone.PLAIN


def _ack_cell(entry: Entry) -> Span:
    """Inbound: what the sender was told. Outbound: what the remote said, and whether the server was told."""
    code = clean(entry.ack_code)
    outbound = entry.direction is Direction.OUT
    tone = Tone.PLAIN if code[1:] in ("A", "") or code in _POSITIVE else Tone.WARNING
    if entry.content is not Content.HL7 and not outbound and owed(entry) in (AckState.PENDING, AckState.NOT_OWED):
        return _BY_THE_LINE[entry.content]
    match owed(entry):
        case AckState.DELIVERED:
            return (code or "sent", tone) if code or not outbound else ("-", Tone.QUIET)
        case AckState.UNDELIVERED:
            return f"{code} {'untold' if outbound else 'unsent'}".strip(), Tone.WARNING
        case AckState.PENDING:
            return "owed", Tone.PLAIN
        case AckState.NOT_OWED:
            return (code, tone) if outbound and code else ("-", Tone.QUIET)
        case _ as never:
            assert_never(never)


def owed(entry: Entry) -> AckState:
    """A server that gave no callback is owed nothing from the beginning."""
    unasked = entry.direction is Direction.OUT and entry.ack is AckState.PENDING and not entry.callback
    return AckState.NOT_OWED if unasked else entry.ack


def facts_of(entry: Entry) -> dict[str, Any]:
    """What a script may know of a message: transport facts, and nothing of what it says."""
    return {
        "id": entry.id,
        "direction": entry.direction.name.lower(),
        "content": entry.content.name.lower(),
        "channel": entry.channel,
        "remote": entry.remote,
        "received": _utc(entry.received_ms),
        "type": decoded(entry.message_type),
        "controlId": decoded(entry.control_id),
        "state": entry.state.name.lower(),
        "status": entry.status,
        "settled": None if entry.settled_ms is None else _utc(entry.settled_ms),
        "attempts": entry.attempts,
        "ambiguous": entry.ambiguous,
        "repeat": None if entry.repeat is Repeat.NO else entry.repeat.name.lower(),
        "sequenceNumber": entry.seq,
        "ack": {"code": entry.ack_code or None, "state": owed(entry).name.lower().replace("_", "-")},
        "callback": entry.callback or None,
        "sizeBytes": entry.size_bytes,
        "answerBytes": entry.answer_bytes,
    }


def decoded(content: bytes) -> str:
    return content.decode("utf-8", "backslashreplace")


def local_time(moment_ms: int) -> datetime:
    return datetime.fromtimestamp(moment_ms / 1_000, tz=UTC).astimezone()


def _utc(moment_ms: int) -> str:
    moment = datetime.fromtimestamp(moment_ms / 1_000, tz=UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment_ms % 1_000:03d}Z"
