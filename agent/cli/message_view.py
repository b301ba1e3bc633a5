"""A stored message, laid out for people and for scripts.

Secret: which columns a list has and what gives way in a narrow window; in which words the fate of a message is told,
on its way to the server and on its way to a remote.
Promise: nothing is wider than the window, in a file nothing is cut but documents, and what came from outside cannot
steer the terminal. A list names no patient, nor does a masked head.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Final, assert_never

from agent.cli.amounts import milliseconds, size
from agent.cli.lines import Line, Span, Tone, cells_of, clean, fitted, paragraph
from agent.cli.message_parts import Segment, Value, masked
from agent.store.ledger import Entry
from agent.store.row import AckState, Direction, Repeat, State

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
_STATE_TONES: Final = {
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
    came = _local(entry.received_ms)
    day = "" if came.date() == now.date() else f"{came:%d %b} " if came.year == now.year else f"{came:%d %b %Y} "
    return (
        (str(entry.id), Tone.PLAIN),
        (f"{day}{came:%H:%M:%S}", Tone.PLAIN),
        (entry.direction.name.lower(), Tone.PLAIN),
        (clean(entry.channel if entry.direction is Direction.IN else entry.remote), Tone.PLAIN),
        (clean(_kind(entry.message_type)), Tone.PLAIN),
        (clean(_decoded(entry.control_id)), Tone.PLAIN),
        (f"{entry.state.name.lower()}{TWICE * entry.ambiguous}", _STATE_TONES.get(entry.state, Tone.PLAIN)),
        (str(entry.attempts), Tone.WARNING if entry.attempts > 1 else Tone.PLAIN),
        _ack_cell(entry),
        (size(entry.size_bytes), Tone.PLAIN),
    )


def _kind(message_type: bytes) -> str:
    """MSH-9.1 and MSH-9.2, whatever divides them; MSH-9.3 follows from these two."""
    text = _decoded(message_type)
    found = _KIND.match(text)
    return found[0] if found else text


def _ack_cell(entry: Entry) -> Span:
    """Inbound: what the sender was told. Outbound: what the remote said, and whether the server was told."""
    code = clean(entry.ack_code)
    outbound = entry.direction is Direction.OUT
    tone = Tone.PLAIN if code[1:] in ("A", "") else Tone.WARNING
    match _owed(entry):
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


def _owed(entry: Entry) -> AckState:
    """A server that gave no callback is owed nothing from the beginning."""
    unasked = entry.direction is Direction.OUT and entry.ack is AckState.PENDING and not entry.callback
    return AckState.NOT_OWED if unasked else entry.ack


def facts_of(entry: Entry) -> dict[str, Any]:
    """What a script may know of a message: transport facts, and nothing of what it says."""
    return {
        "id": entry.id,
        "direction": entry.direction.name.lower(),
        "channel": entry.channel,
        "remote": entry.remote,
        "received": _utc(entry.received_ms),
        "type": _decoded(entry.message_type),
        "controlId": _decoded(entry.control_id),
        "state": entry.state.name.lower(),
        "status": entry.status,
        "settled": None if entry.settled_ms is None else _utc(entry.settled_ms),
        "attempts": entry.attempts,
        "ambiguous": entry.ambiguous,
        "repeat": None if entry.repeat is Repeat.NO else entry.repeat.name.lower(),
        "sequenceNumber": entry.seq,
        "ack": {"code": entry.ack_code or None, "state": _owed(entry).name.lower().replace("_", "-")},
        "callback": entry.callback or None,
        "sizeBytes": entry.size_bytes,
        "answerBytes": entry.answer_bytes,
    }


# ---- the head of one message


_ENDLESS: Final = 1 << 20  # cells of a line in a file
_STATES: Final = {
    State.QUEUED: "queued: it waits for the server",
    State.INFLIGHT: "in flight: handed to the server's connection, and no receipt so far",
    State.PROCESSED: "processed: the server took it",
    State.REJECTED: "rejected: the server refused it for good",
    State.FAILED: "failed: tried as often as the channel's policy allows",
    State.HELD: "held: a person decides whether it is sent again",
}
_STATES_OUT: Final = {
    State.QUEUED: "queued: it waits for the remote",
    State.INFLIGHT: "in flight: written to the remote, or about to be, and not answered so far",
    State.PROCESSED: "processed: the remote accepted it",
    State.REJECTED: "rejected: the remote refused it",
    State.FAILED: "failed: tried as often as the remote's policy allows",
    State.HELD: "held: the remote may have it or not; a person decides whether it is sent again",
}
_ACKS: Final = {
    AckState.PENDING: ("owed to the sender, not sent so far", Tone.PLAIN),
    AckState.DELIVERED: ("delivered to the sender", Tone.PLAIN),
    AckState.UNDELIVERED: ("not delivered: the sender's connection had gone", Tone.WARNING),
    AckState.NOT_OWED: ("none is owed to the sender", Tone.PLAIN),
}
_ACKS_OUT: Final = {
    AckState.PENDING: ("the server waits, and was not told so far", Tone.PLAIN),
    AckState.DELIVERED: ("the server was told", Tone.PLAIN),
    AckState.UNDELIVERED: ("the server was not told: the connection to it was away", Tone.WARNING),
    AckState.NOT_OWED: ("the server does not wait to be told", Tone.PLAIN),
}
_CODES: Final = {"A": "accepted", "E": "error", "R": "rejected"}
_REPEATS: Final = {
    Repeat.CONFLICT: "its control id was used before, by a message of other bytes",
    Repeat.RETRIED: "the same bytes came before, and were answered negatively",
}


def head_lines(entry: Entry, read_as: str, *, mask: bool, width: int | None) -> list[Line]:
    """Where a message came from, or goes to, and what became of it."""
    veil = masked if mask else str
    inbound = entry.direction is Direction.IN
    tone = _STATE_TONES.get(entry.state, Tone.PLAIN)
    tries = f"{entry.attempts} attempt{'' if entry.attempts == 1 else 's'}"
    fate = [((_STATES if inbound else _STATES_OUT)[entry.state], tone), (f"{tries}{_next_try(entry)}", Tone.PLAIN)]
    if entry.status:
        fate.insert(1, (f"server status {entry.status}", Tone.PLAIN))
    if entry.settled_ms is not None:
        took = milliseconds(entry.settled_ms - entry.received_ms)
        fate.append((f"settled {_local(entry.settled_ms):%d %b %H:%M:%S}, {took} after it came", Tone.PLAIN))
    marks = [] if entry.repeat is Repeat.NO else [(_REPEATS[entry.repeat], Tone.WARNING)]
    if entry.ambiguous:
        marks.insert(0, (_ambiguity(entry), Tone.WARNING))
    came = f"{_local(entry.received_ms):%d %b %Y %H:%M:%S.%f}"[:-3]
    blocks: list[tuple[str, list[Span]]] = [
        (
            "message",
            [
                (str(entry.id), Tone.STRONG),
                (_decoded(entry.message_type), Tone.STRONG),
                (_decoded(entry.control_id), Tone.STRONG),
            ],
        ),
        (
            "from" if inbound else "to",
            [
                (f"{entry.remote} on channel {entry.channel}" if inbound else entry.channel, Tone.PLAIN),
                (f"received {came}" if inbound else f"pushed by the server {came}", Tone.PLAIN),
            ],
        ),
        ("state", fate),
        ("reason", [(veil(entry.reason), tone)] if entry.reason else []),
        ("mark", marks),
        *(_answers_in(entry) if inbound else _answers_out(entry)),
        ("order", _order(entry, veil) if inbound else []),
        ("text", [(f"{entry.size_bytes:,} bytes", Tone.PLAIN), (f"read as {read_as}", Tone.PLAIN)]),
    ]
    return [line for label, parts in blocks if parts for line in paragraph(label, parts, width or _ENDLESS)]


def _ambiguity(entry: Entry) -> str:
    if entry.direction is Direction.IN:
        return "ambiguous: it was sent when the connection broke, so the server may have it twice"
    if entry.state is State.HELD:
        return "ambiguous: it was sent, and no answer came"
    return "ambiguous: a try was not answered, so the remote may have it twice"


def _answers_in(entry: Entry) -> list[tuple[str, list[Span]]]:
    words, tone = _ACKS[entry.ack]
    code, code_tone = _code(entry)
    return [("ack", [(f"{code}, {words}" if code else words, tone if code_tone is Tone.PLAIN else code_tone)])]


def _answers_out(entry: Entry) -> list[tuple[str, list[Span]]]:
    code, tone = _code(entry)
    said = f"{code}, from the remote" if code else "none came" if entry.state.finished else "none so far"
    return [("ack", [(said, tone)]), ("server", [_ACKS_OUT[_owed(entry)]])]


def _code(entry: Entry) -> Span:
    """MSA-1 with its meaning; empty if there is none."""
    if not entry.ack_code:
        return "", Tone.PLAIN
    meaning = _CODES.get(entry.ack_code[1:], "no code of table 0008")
    return f"{entry.ack_code} ({meaning})", Tone.PLAIN if meaning == "accepted" else Tone.WARNING


def _order(entry: Entry, veil: Callable[[str], str]) -> list[Span]:
    key = veil(_decoded(entry.order_key).replace("\x1f", " + "))
    number = [] if entry.seq is None else [(f"MSH-13 given: {entry.seq}", Tone.PLAIN)]
    return [(f"key {key}" if key else "no key", Tone.PLAIN), *number]


def _next_try(entry: Entry) -> str:
    waits = entry.state is State.QUEUED and entry.attempts and entry.due_ms
    return f", the next is due {_local(entry.due_ms):%d %b %H:%M:%S}" if waits else ""


def _decoded(content: bytes) -> str:
    return content.decode("utf-8", "backslashreplace")


def _local(moment_ms: int) -> datetime:
    return datetime.fromtimestamp(moment_ms / 1_000, tz=UTC).astimezone()


def _utc(moment_ms: int) -> str:
    moment = datetime.fromtimestamp(moment_ms / 1_000, tz=UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment_ms % 1_000:03d}Z"
