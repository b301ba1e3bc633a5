"""Read what the spool holds, without ever waiting for who writes it.

Secret: the second connection, and how a row is put together from its two tables.
Promise: what is returned was committed; a read that the disk refuses raises SpoolTrouble. Every query finds its rows by
an index: none looks at more than it returns, however long the backlog of the other channels and of the other direction.
A file of an older schema, which salvage may have to read, is read as what a migration would make of it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

import apsw

from agent.store.row import AckState, Content, Direction, Repeat, Row, State
from agent.store.sqlite import connect_reader, fetch, for_schema, schema_of, trouble_of

_MESSAGE: Final = (
    "m.id, m.channel, m.remote, m.order_key, m.control_id, m.message_type, m.received_ms, m.body, m.seq, m.repeat,"
    " m.direction, m.callback, m.content"
)
_DELIVERY: Final = "d.state, d.ack, d.attempts, d.ambiguous, d.due_ms, d.status, d.ack_code, d.reason, d.answer"
_ROW: Final = f"SELECT {_MESSAGE}, {_DELIVERY} FROM message m JOIN delivery d ON d.id = m.id "
# the table itself, not its index: when a file is damaged either may be the sound one, and the table holds the truth
_OPEN_RANGE: Final = (
    f"SELECT {_MESSAGE}, {_DELIVERY} FROM delivery d NOT INDEXED CROSS JOIN message m ON m.id = d.id"
    " WHERE d.id BETWEEN ? AND ? AND d.state < 10 ORDER BY d.id"
)
_ALONE: Final = f"SELECT {_MESSAGE}, 0, 0, 0, 0, 0, NULL, '', '', NULL FROM message m WHERE m.id=?"

_T = TypeVar("_T")


class Shelf:
    """Queries of one spool file. Fast from the page cache; a sick disk makes them slow, so ask little."""

    def __init__(self, path: Path, vfs: str | None = None) -> None:
        self._path = path
        try:
            self.connection = connect_reader(path, vfs=vfs)
            try:
                self._schema = schema_of(self.connection)
            except apsw.Error:
                self.connection.close()
                raise
        except apsw.Error as error:
            raise trouble_of(error, path, doing="read") from error

    def close(self) -> None:
        with contextlib.suppress(apsw.Error):
            self.connection.close()

    def meta(self) -> dict[str, Any]:
        return dict(self._fetch("SELECT name, value FROM meta"))

    def last_id(self) -> int:
        return int(self._fetch("SELECT max(id) FROM message")[0][0] or 0)

    def newest(self, channel: str, control_id: bytes, direction: Direction = Direction.IN) -> Row | None:
        """The newest message of a channel, or to a remote, with this MSH-10."""
        where = (
            "WHERE m.channel=? AND m.control_id=? AND m.control_id<>x'' AND m.direction=? ORDER BY m.id DESC LIMIT 1"
        )
        return next(self._rows(_ROW + where, (channel, control_id, direction)), None)

    def get(self, row_id: int, direction: Direction = Direction.IN) -> Row | None:
        return next(self._rows(_ROW + "WHERE m.id=? AND m.direction=?", (row_id, direction)), None)

    def queued(
        self, channel: str, after_id: int, *, limit: int, limit_bytes: int, direction: Direction = Direction.IN
    ) -> list[Row]:
        """The next rows of a channel, or to a remote, that wait in the file, oldest first; at least one, if there is
        one."""
        rows: list[Row] = []
        total = 0
        where = "WHERE d.state<10 AND d.channel=? AND d.state=0 AND d.id>? AND d.direction=? ORDER BY d.id LIMIT ?"
        for row in self._rows(_ROW + where, (channel, after_id, direction, limit)):
            rows.append(row)
            total += row.size
            if total >= limit_bytes:
                break
        return rows

    def interrupted(self, channel: str, direction: Direction = Direction.IN) -> list[Row]:
        """Rows of a channel, or to a remote, that are INFLIGHT in the file, oldest first: after a start, the ambiguous
        ones."""
        where = "WHERE d.state<10 AND d.channel=? AND d.state=1 AND d.direction=? ORDER BY d.id"
        return list(self._rows(_ROW + where, (channel, direction)))

    def open_range(self, low: int, high: int) -> Iterator[Row]:
        """Undelivered messages with low <= id <= high, by way of the tables alone."""
        return self._rows(_OPEN_RANGE, (low, high))

    def alone(self, row_id: int) -> Row | None:
        """A message as it came, whatever became of it."""
        return next(self._rows(_ALONE, (row_id,)), None)

    def open_channels(self, direction: Direction = Direction.IN) -> list[str]:
        """Channels, or URLs of remotes, that have undelivered messages; by name."""
        try:
            return list(open_names(self.connection, direction, self._schema))
        except (apsw.Error, ValueError, TypeError) as error:
            raise trouble_of(error, self._path, doing="read") from error

    def control_ids(self, after: tuple[str, bytes], limit: int) -> list[tuple[str, bytes]]:
        """The (channel, MSH-10) that come after this one, in order; a pair may come twice, an empty id never.

        Those of outbound messages are among them: their index does not tell, and a look at each of a million messages
        would cost more than a filter that errs once more.
        """
        sql = (
            "SELECT channel, control_id FROM message WHERE control_id<>x'' AND (channel, control_id)>(?,?)"
            " ORDER BY channel, control_id LIMIT ?"
        )
        return [(channel, control_id) for channel, control_id in self._fetch(sql, (*after, limit))]

    def _fetch(self, sql: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        try:
            return fetch(self.connection, for_schema(sql, self._schema), values)
        except (apsw.Error, ValueError, TypeError) as error:
            raise trouble_of(error, self._path, doing="read") from error

    def _rows(self, sql: str, values: tuple[Any, ...]) -> Iterator[Row]:
        try:
            for found in self.connection.execute(for_schema(sql, self._schema), values):
                yield _row_of(found)
        except (apsw.Error, ValueError, TypeError) as error:
            raise trouble_of(error, self._path, doing="read") from error


def _row_of(values: tuple[Any, ...]) -> Row:
    row_id, channel, remote, order_key, control_id, message_type, received_ms, body = values[:8]
    seq, repeat, direction, callback, content, state, ack, attempts, ambiguous, due_ms = values[8:18]
    row = Row(
        row_id, channel, remote, order_key, control_id, message_type, received_ms, body, seq, Repeat(repeat),
        direction=Direction(direction), callback=callback, content=Content(content),
    )  # fmt: skip
    row.state = row.kept = State(state)
    row.ack = AckState(ack)
    row.attempts, row.ambiguous, row.due_ms = attempts, bool(ambiguous), due_ms
    row.status, row.ack_code, row.reason, row.answer = values[18:]
    row.durable = True
    return row


def open_names(reader: apsw.Connection, direction: Direction, schema: int) -> Iterator[str]:
    """Channels, or URLs of remotes, that have undelivered messages, by name. Raises apsw.Error."""
    where = f"d.state<10 AND d.direction={direction:d}"
    return names_in(reader, "delivery d", for_schema(where, schema))


def names_in(reader: apsw.Connection, table: str, where: str) -> Iterator[str]:
    """The names of channels and remotes in an index that is ordered by them, a jump for each instead of a walk over all
    its rows. Raises apsw.Error."""
    found = fetch(reader, f"SELECT min(channel) FROM {table} WHERE {where}")
    while found and (name := found[0][0]) is not None:
        yield name
        found = fetch(
            reader, f"SELECT channel FROM {table} WHERE {where} AND channel>? ORDER BY channel LIMIT 1", (name,)
        )


def survey(path: Path, vfs: str | None, read: Callable[[apsw.Connection], _T]) -> _T:
    """Read by a connection that lives as long as the reading, so that it may be in any thread. Raises apsw.Error."""
    reader = connect_reader(path, vfs=vfs)
    try:
        return read(reader)
    finally:
        reader.close()
