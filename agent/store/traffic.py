"""The HL7 messages that came in, in the order in which they came, for somebody who studies them and is not the daemon.

Secret: that a search is many short reads, since one long read keeps the writer's log from being moved into the file;
and that of a large message no more is read from the disk than its beginning.
Promise: read-only, and true of what was committed; memory does not grow with the number of messages.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import apsw

from agent.errors import StoreError
from agent.store.row import Content, Direction
from agent.store.sqlite import check_version, connect_reader, fetch, for_schema, trouble_of

HEAD_BYTES: Final = 16_384
_WINDOW: Final = 5_000  # ids that one statement looks at
_SQL: Final = (
    "SELECT m.id, m.channel, m.received_ms, length(m.body),"
    # length() is known from the row's head, so that a large body stays on the disk
    f" CASE WHEN length(m.body) <= {HEAD_BYTES} THEN m.body END"
    f" FROM message m WHERE m.id BETWEEN ? AND ? AND m.direction={int(Direction.IN)} AND m.content={int(Content.HL7)}"
    " AND m.received_ms >= ?"
)


@dataclass(frozen=True, slots=True)
class Passed:
    """A message that came in: at most its first `HEAD_BYTES`, and how long it is."""

    id: int
    channel: str
    received_ms: int
    head: bytes
    size_bytes: int

    @property
    def whole(self) -> bool:
        return len(self.head) == self.size_bytes


class Traffic:
    """An open spool. `instance` is its name, a random one."""

    def __init__(self, reader: apsw.Connection, schema: int, instance: str) -> None:
        self.instance = instance
        self._reader = reader
        self._schema = schema

    def messages(self, channel: str | None, after_id: int, since_ms: int) -> Iterator[Passed]:
        """Oldest first, those of `channel` or all, that came at `since_ms` or later. `after_id` spares a search."""
        sql = for_schema(_SQL + ("" if channel is None else " AND m.channel=?") + " ORDER BY m.id", self._schema)
        low = after_id + 1
        while (first := self._first_from(low)) is not None:
            last = first + _WINDOW - 1
            values = (first, last, since_ms, *(() if channel is None else (channel,)))
            for row_id, name, received_ms, size, body in self._reader.execute(sql, values):
                yield Passed(row_id, name, received_ms, body if body is not None else self._head(row_id), size)
            low = last + 1

    def body(self, row_id: int) -> bytes:
        """The whole message; empty if it has been let go meanwhile."""
        found = fetch(self._reader, "SELECT body FROM message WHERE id=?", (row_id,))
        return bytes(found[0][0]) if found else b""

    def _first_from(self, row_id: int) -> int | None:
        ((found,),) = fetch(self._reader, "SELECT min(id) FROM message WHERE id>=?", (row_id,))
        return None if found is None else int(found)

    def _head(self, row_id: int) -> bytes:
        blob = self._reader.blob_open("main", "message", "body", row_id, False)
        try:
            return blob.read(HEAD_BYTES)
        finally:
            blob.close()


@contextmanager
def open_traffic(path: Path) -> Iterator[Traffic]:
    """Raises StoreError, in its body too. A spool that was made and not yet filled in has no messages."""
    if not path.exists():
        raise StoreError(f"there is no spool at {path}", hint="start the agent once, or name its --data-dir")
    try:
        reader = connect_reader(path)
    except apsw.Error as error:
        raise trouble_of(error, path, doing="read") from error
    try:
        schema = check_version(reader, path)
        if not schema:
            raise StoreError(f"the spool at {path} is empty", hint="start the agent, and let messages come")
        found = fetch(reader, "SELECT value FROM meta WHERE name='instance'")
        yield Traffic(reader, schema, str(found[0][0]) if found else "")
    except (apsw.Error, OSError, ValueError, TypeError) as error:
        raise trouble_of(error, path, doing="read") from error
    finally:
        reader.close()
