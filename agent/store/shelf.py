"""Read what the spool holds, without ever waiting for who writes it.

Secret: the second connection, and how a row is put together from its two tables.
Promise: what is returned was committed; a read that the disk refuses raises SpoolTrouble.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import apsw

from agent.store.row import AckState, Repeat, Row, State
from agent.store.sqlite import connect_reader, fetch, trouble_of

_ROW: Final = (
    "SELECT m.id, m.channel, m.remote, m.order_key, m.control_id, m.message_type, m.received_ms, m.body, m.seq,"
    " m.repeat, d.state, d.ack, d.attempts, d.ambiguous, d.due_ms, d.status, d.ack_code, d.reason, d.answer"
    " FROM message m JOIN delivery d ON d.id = m.id "
)


class Shelf:
    """Queries of one spool file. Fast from the page cache; a sick disk makes them slow, so ask little."""

    def __init__(self, path: Path, vfs: str | None = None) -> None:
        self._path = path
        try:
            self.connection = connect_reader(path, vfs=vfs)
        except apsw.Error as error:
            raise trouble_of(error, path) from error

    def close(self) -> None:
        with contextlib.suppress(apsw.Error):
            self.connection.close()

    def meta(self) -> dict[str, Any]:
        return dict(self._fetch("SELECT name, value FROM meta"))

    def last_id(self) -> int:
        return int(self._fetch("SELECT max(id) FROM message")[0][0] or 0)

    def newest(self, channel: str, control_id: bytes) -> Row | None:
        """The newest message of a channel with this MSH-10."""
        where = "WHERE m.channel=? AND m.control_id=? AND m.control_id<>x'' ORDER BY m.id DESC LIMIT 1"
        return next(self._rows(where, (channel, control_id)), None)

    def get(self, row_id: int) -> Row | None:
        return next(self._rows("WHERE m.id=?", (row_id,)), None)

    def queued(self, channel: str, after_id: int, *, limit: int, limit_bytes: int) -> list[Row]:
        """The next rows of a channel that wait in the file, oldest first; at least one, if there is one."""
        rows: list[Row] = []
        total = 0
        for row in self._rows(
            "WHERE d.state=0 AND d.id>? AND m.channel=? ORDER BY d.id LIMIT ?", (after_id, channel, limit)
        ):
            rows.append(row)
            total += row.size
            if total >= limit_bytes:
                break
        return rows

    def interrupted(self, channel: str) -> list[Row]:
        """Rows of a channel that are INFLIGHT in the file, oldest first: after a start, the ambiguous ones."""
        return list(self._rows("WHERE d.state=1 AND m.channel=? ORDER BY d.id", (channel,)))

    def open_channels(self) -> list[str]:
        """Channels that have undelivered messages."""
        sql = "SELECT DISTINCT m.channel FROM delivery d JOIN message m ON m.id=d.id WHERE d.state<10"
        return [channel for (channel,) in self._fetch(sql)]

    def control_ids(self, after_id: int, up_to_id: int, limit: int) -> list[tuple[int, str, bytes]]:
        """(id, channel, MSH-10) of the next messages."""
        sql = "SELECT id, channel, control_id FROM message WHERE id>? AND id<=? ORDER BY id LIMIT ?"
        return [
            (row_id, channel, control_id)
            for row_id, channel, control_id in self._fetch(sql, (after_id, up_to_id, limit))
        ]

    def _fetch(self, sql: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        try:
            return fetch(self.connection, sql, values)
        except apsw.Error as error:
            raise trouble_of(error, self._path) from error

    def _rows(self, where: str, values: tuple[Any, ...]) -> Iterator[Row]:
        try:
            for found in self.connection.execute(_ROW + where, values):
                yield _row_of(found)
        except apsw.Error as error:
            raise trouble_of(error, self._path) from error


def _row_of(values: tuple[Any, ...]) -> Row:
    row_id, channel, remote, order_key, control_id, message_type, received_ms, body, seq, repeat = values[:10]
    row = Row(row_id, channel, remote, order_key, control_id, message_type, received_ms, body, seq, Repeat(repeat))
    row.state = row.kept = State(values[10])
    row.ack = AckState(values[11])
    row.attempts, row.ambiguous, row.due_ms = values[12], bool(values[13]), values[14]
    row.status, row.ack_code, row.reason, row.answer = values[15:]
    row.durable = True
    return row
