"""Look through what the spool holds, newest first, as somebody who is not the daemon.

Secret: which index, if any, leads to the messages that were asked for; and that a search is many short reads, for one
long read keeps the writer's log from being moved into the file.
Promise: read-only, and true of what was committed; a page of the newest messages costs the same whatever the spool
holds; a file that cannot be read says why. What no index knows (a type, a state that is final) is searched for from the
newest on, at millions of messages in seconds.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import apsw

from agent.errors import StoreError
from agent.store.row import AckState, Content, Direction, Repeat, State
from agent.store.shelf import names_in, open_names, survey
from agent.store.sqlite import check_version, fetch, for_schema, schema_of, trouble_of

_WINDOW: Final = 20_000  # ids that one statement looks at
_IDS: Final = 500  # ids that one statement names
_RARE: Final = 200_000  # what begins with a control id oftener than this is sooner met by walking from the newest on
# Ids grow with received_ms except where the clock was set back: by an hour, where summer time was taken for winter's.
_CLOCK_STEP_MS: Final = 2 * 3_600_000

_COLUMNS: Final = (
    "m.id, m.channel, m.remote, m.order_key, m.control_id, m.message_type, m.received_ms, m.seq, m.repeat,"
    " length(m.body), d.state, d.ack, d.attempts, d.ambiguous, d.due_ms, d.settled_ms, d.status, d.ack_code, d.reason,"
    " length(d.answer), m.direction, m.callback, m.content"
)
# `delivery` first: its rows are small, so a message that is not wanted costs tens of bytes
_FROM: Final = "FROM delivery d CROSS JOIN message m ON m.id = d.id"

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Filter:
    """What to look for; what is left open holds for every message.

    `channel`: its name, or the URL of a remote. `since_ms` is included, `until_ms` is not. `control_id`: exact, or with
    `*` at its end what begins so. `message_type`: `ADT` or `ADT^A01`, by its first components. `before_id`: only
    smaller ids, for the next page.
    """

    channel: str | None = None
    states: frozenset[State] | None = None
    direction: Direction | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    control_id: str = ""
    message_type: str = ""
    content: Content | None = None
    before_id: int | None = None
    limit: int = 50


@dataclass(frozen=True, slots=True)
class Entry:
    """All that is known of a message, but not what it and its answer say: each as in Row. Times in milliseconds since
    the epoch.

    `answer_bytes` is None while there is no answer. `order_key` and `reason` may name a patient.
    """

    id: int
    channel: str
    remote: str
    order_key: bytes
    control_id: bytes
    message_type: bytes
    received_ms: int
    seq: int | None
    repeat: Repeat
    size_bytes: int
    state: State
    ack: AckState
    attempts: int
    ambiguous: bool
    due_ms: int
    settled_ms: int | None
    status: int | None
    ack_code: str
    reason: str
    answer_bytes: int | None
    direction: Direction
    callback: str
    content: Content


@dataclass(frozen=True, slots=True)
class Stored:
    """A message with its bytes, as they came or go out, and its acknowledgement, both unframed."""

    entry: Entry
    body: bytes
    answer: bytes | None


def entries(path: Path, wanted: Filter) -> list[Entry]:
    """The newest messages that the filter lets through, newest first, at most `limit`. Raises StoreError."""

    def read(reader: apsw.Connection) -> list[Entry]:
        found: list[Entry] = []
        for entry in _search(reader, wanted):
            found.append(entry)
            if len(found) >= wanted.limit:
                break
        return found

    return _reading(path, read, [])


def message(path: Path, row_id: int) -> Stored | None:
    """One message whole; None if the spool does not hold it. Raises StoreError."""

    def read(reader: apsw.Connection) -> Stored | None:
        sql = f"SELECT {_COLUMNS}, m.body, d.answer {_FROM} WHERE d.id=?"
        found = fetch(reader, for_schema(sql, schema_of(reader)), (row_id,))
        return Stored(_entry_of(found[0][:-2]), *found[0][-2:]) if found else None

    return _reading(path, read, None)


def channels(path: Path) -> list[str]:
    """The channels, and the URLs of the remotes, whose messages the spool holds, by name; one may be missing whose
    messages are all finished and have no control id, as those of a byte stream.

    Raises StoreError.
    """

    def read(reader: apsw.Connection) -> list[str]:
        schema = schema_of(reader)
        found = set(names_in(reader, "message", "control_id<>x''"))
        return sorted(found.union(*(open_names(reader, direction, schema) for direction in Direction)))

    return _reading(path, read, [])


def id_span(path: Path) -> tuple[int, int] | None:
    """The oldest and the newest id that the spool holds; None if it is empty. Raises StoreError."""
    return _reading(path, _id_span, None)


def _reading(path: Path, read: Callable[[apsw.Connection], _T], empty: _T) -> _T:
    try:
        if not path.exists():
            raise StoreError(f"there is no spool at {path}", hint="start the agent once, or name its --data-dir")
        if not os.access(path, os.R_OK):
            raise PermissionError
        # a file that was created and not yet filled in is empty
        return survey(path, None, lambda reader: read(reader) if check_version(reader, path) else empty)
    except PermissionError as error:
        text = f"this user may not read the spool at {path}"
        raise StoreError(text, hint="give the command again as the agent's user or as an administrator") from error
    except (apsw.Error, OSError, ValueError, TypeError) as error:
        raise trouble_of(error, path, doing="read") from error


# ---- the search


def _search(reader: apsw.Connection, wanted: Filter) -> Iterator[Entry]:
    span = _window(reader, wanted)
    if span is None:
        return
    low, high = span
    conditions, values = _conditions(wanted)
    schema = schema_of(reader)
    select = f"SELECT {_COLUMNS} {_FROM} WHERE d.id"
    for ids in _ids(reader, wanted, low, high):
        among: tuple[int, ...] = (ids[0], ids[-1]) if isinstance(ids, range) else tuple(ids)
        where = "BETWEEN ? AND ?" if isinstance(ids, range) else f"IN ({','.join('?' * len(ids))})"
        sql = for_schema(f"{select} {where} {conditions} ORDER BY d.id DESC", schema)
        for found in reader.execute(sql, (*among, *values)):
            entry = _entry_of(found)
            if not wanted.message_type or _is_of_type(entry.message_type, wanted.message_type):
                yield entry


def _conditions(wanted: Filter) -> tuple[str, tuple[Any, ...]]:
    """What is asked of each message, as SQL; only its type is left to be looked at once more."""
    clauses: list[str] = []
    values: list[Any] = []

    def ask(clause: str, *given: Any) -> None:
        clauses.append(f" AND {clause}")
        values.extend(given)

    if wanted.states is not None:
        ask(f"d.state IN ({','.join(str(int(state)) for state in wanted.states) or 'NULL'})")
    if wanted.direction is not None:
        ask("d.direction=?", wanted.direction)
    if wanted.channel is not None:
        ask("d.channel=?", wanted.channel)
    if wanted.content is not None:
        ask("m.content=?", wanted.content)
    if wanted.since_ms is not None:
        ask("m.received_ms>=?", wanted.since_ms)
    if wanted.until_ms is not None:
        ask("m.received_ms<?", wanted.until_ms)
    if wanted.control_id:
        low, high = _control_range(wanted.control_id)
        ask("m.control_id<>x'' AND m.control_id>=? AND m.control_id<=?", low, high)
    if wanted.message_type:
        code = _components(wanted.message_type)[0]
        ask("upper(CAST(substr(m.message_type, 1, ?) AS TEXT))=?", len(code), code)
    return "".join(clauses), tuple(values)


def _components(message_type: str) -> list[str]:
    """The words of MSH-9. Whatever divides them: a message chooses its delimiters, and a person may write ADT-A01."""
    return re.findall(r"[A-Z0-9]+", message_type.upper(), re.ASCII) or [message_type.upper()]


def _is_of_type(found: bytes, wanted: str) -> bool:
    parts = _components(wanted)
    return _components(found.decode("ascii", "replace"))[: len(parts)] == parts


def _control_range(control_id: str) -> tuple[bytes, bytes]:
    """The smallest and the largest MSH-10 that fits."""
    text = control_id.encode("utf-8", "surrogateescape")
    return (text[:-1], text[:-1] + b"\xff" * 200) if text.endswith(b"*") else (text, text)


# ---- where to look


def _ids(reader: apsw.Connection, wanted: Filter, low: int, high: int) -> Iterator[range | list[int]]:
    """Ids among which all that is wanted can be found, descending: by an index where one leads there."""
    if wanted.control_id and (named := _with_control_id(reader, wanted, low, high)) is not None:
        for start in range(0, len(named), _IDS):
            yield named[start : start + _IDS]
    elif wanted.states is not None and not any(state.finished for state in wanted.states):
        yield from _open_ids(reader, wanted, low, high)
    else:
        yield from _all_ids(reader, low, high)


def _all_ids(reader: apsw.Connection, low: int, high: int) -> Iterator[range]:
    """Windows of ids from `high` down to `low`; where retention has left nothing, none."""
    while True:
        (found,) = fetch(reader, "SELECT max(id) FROM delivery WHERE id BETWEEN ? AND ?", (low, high))[0]
        if found is None:
            return
        bottom = max(low, found - _WINDOW + 1)
        yield range(bottom, found + 1)
        high = bottom - 1


def _open_ids(reader: apsw.Connection, wanted: Filter, low: int, high: int) -> Iterator[list[int]]:
    """Undelivered messages by the index of them, which is by direction, channel and state."""
    schema = schema_of(reader)
    lists = [
        (way, name, int(state))
        for way in (Direction if wanted.direction is None else (wanted.direction,))
        for name in (open_names(reader, way, schema) if wanted.channel is None else (wanted.channel,))
        for state in wanted.states or ()
    ]
    sql = for_schema(
        "SELECT id FROM delivery d WHERE state<10 AND d.direction=? AND channel=? AND state=? AND id BETWEEN ? AND ?"
        " ORDER BY id DESC LIMIT ?",
        schema,
    )
    while lists and high >= low:
        found: list[int] = []
        bottom = low
        for way, name, state in lists:
            ids = [row_id for (row_id,) in fetch(reader, sql, (way, name, state, low, high, _IDS))]
            found += ids
            if len(ids) == _IDS:  # below its last there may be more, so this round ends there for all
                bottom = max(bottom, ids[-1])
        ordered = sorted((row_id for row_id in found if row_id >= bottom), reverse=True)
        for start in range(0, len(ordered), _IDS):
            yield ordered[start : start + _IDS]
        high = bottom - 1


def _with_control_id(reader: apsw.Connection, wanted: Filter, low: int, high: int) -> list[int] | None:
    """By the index of control ids, which is by channel; None where it would find too many to be of use."""
    least, most = _control_range(wanted.control_id)
    sql = (
        "SELECT id FROM message WHERE control_id<>x'' AND channel=? AND control_id BETWEEN ? AND ?"
        " AND id BETWEEN ? AND ? LIMIT ?"
    )
    found: list[int] = []
    for name in names_in(reader, "message", "control_id<>x''") if wanted.channel is None else [wanted.channel]:
        found += [row_id for (row_id,) in fetch(reader, sql, (name, least, most, low, high, _RARE + 1 - len(found)))]
        if len(found) > _RARE:
            return None
    return sorted(found, reverse=True)


def _window(reader: apsw.Connection, wanted: Filter) -> tuple[int, int] | None:
    """The ids that can be meant. A time has no index: ids grow with it, so its place is found by halving.

    The edges lie a step of the clock further out than asked, so that no message is missed where it was set back; the
    search itself asks each message for its exact time.
    """
    span = _id_span(reader)
    if span is None:
        return None
    low, high = span
    if wanted.before_id is not None:
        high = min(high, wanted.before_id - 1)
    if wanted.since_ms is not None:
        low = _edge(reader, wanted.since_ms - _CLOCK_STEP_MS, low, high)
    if wanted.until_ms is not None:
        high = _edge(reader, wanted.until_ms + _CLOCK_STEP_MS, low, high) - 1
    return (low, high) if low <= high else None


def _edge(reader: apsw.Connection, moment_ms: int, low: int, high: int) -> int:
    """An id that came at `moment_ms` or later, where the one before came earlier; high + 1 if none came so late."""
    sql = "SELECT id, received_ms FROM message WHERE id BETWEEN ? AND ? ORDER BY id LIMIT 1"
    end = high + 1
    while low < end:
        middle = (low + end) // 2
        found = fetch(reader, sql, (middle, end - 1))
        if not found or found[0][1] >= moment_ms:
            end = middle
        else:
            low = found[0][0] + 1
    return end


def _id_span(reader: apsw.Connection) -> tuple[int, int] | None:
    # two statements: SQLite answers min and max from the ends of the tree only when it is asked for one of them
    ((low,),) = fetch(reader, "SELECT min(id) FROM message")
    ((high,),) = fetch(reader, "SELECT max(id) FROM message")
    return None if low is None or high is None else (low, high)


def _entry_of(values: tuple[Any, ...]) -> Entry:
    repeat, size_bytes, state, ack, attempts, ambiguous = values[8:14]
    kinds = (Repeat(repeat), size_bytes, State(state), AckState(ack), attempts, bool(ambiguous))
    direction, callback, content = values[20:]
    return Entry(*(*values[:8], *kinds, *values[14:20], Direction(direction), callback, Content(content)))
