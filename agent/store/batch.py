"""What one commit carries, and the SQL that writes it.

Secret: which statements put, claim and settle a row, and in which order, so that a row that does all three in one batch
ends as it should. States are read when the batch is written: a row that went on meanwhile is written as it is now.
Promise: a batch leaves on disk exactly `put_states`, INFLIGHT for its claims, then `settle_states`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Final

import apsw

from agent.store.row import Row, State

_INSERT_MESSAGE: Final = "INSERT INTO message VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?)"
_INSERT_DELIVERY: Final = "INSERT INTO delivery VALUES(?,?,0,?,0,0,NULL,NULL,'','',NULL,?,?)"
_RESTORE_MESSAGE: Final = "INSERT OR IGNORE INTO message VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?)"
_RESTORE_DELIVERY: Final = "INSERT OR IGNORE INTO delivery VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?)"
_CLAIM: Final = "UPDATE delivery SET state=1, attempts=?, ambiguous=? WHERE id=?"
_SETTLE: Final = (
    "UPDATE delivery SET state=?, ack=?, attempts=?, ambiguous=?, due_ms=?, settled_ms=?, status=?, ack_code=?,"
    " reason=?, answer=? WHERE id=?"
)
# attrgetter: a row becomes its values without a line of Python
_MESSAGE: Final = attrgetter(
    "id", "channel", "remote", "order_key", "control_id", "message_type", "received_ms", "seq", "repeat", "body",
    "direction", "callback", "content",
)  # fmt: skip
_BEGINNING: Final = attrgetter("id", "state", "attempts", "channel", "direction")
_CLAIMED: Final = attrgetter("attempts", "ambiguous", "id")
SEQUENCE: Final = "sequence:"

Job = tuple[Callable[[apsw.Connection], None], asyncio.Future[None]]


@dataclass(slots=True)
class Batch:
    """`restored`: rows that the file had lost, and that were put back from memory when their turn came."""

    puts: list[Row] = field(default_factory=list)
    claims: list[Row] = field(default_factory=list)
    settles: list[Row] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)
    put_states: list[State] = field(default_factory=list)
    settle_states: list[State] = field(default_factory=list)
    restored: list[Row] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.puts or self.claims or self.settles or self.jobs)

    def write(self, connection: apsw.Connection, *, patchy: bool) -> None:
        """All but the jobs, inside a transaction. `patchy`: the file may lack rows that memory has."""
        update = self._update_each if patchy else _update
        if puts := self.puts:
            connection.executemany(_INSERT_MESSAGE, map(_MESSAGE, puts))
            self.put_states = [r.state for r in puts]
            connection.executemany(_INSERT_DELIVERY, map(_BEGINNING, puts))
        if claims := self.claims:
            update(connection, _CLAIM, claims, list(map(_CLAIMED, claims)))
        if settles := self.settles:
            now_ms = time.time_ns() // 1_000_000
            self.settle_states = [r.state for r in settles]
            update(
                connection,
                _SETTLE,
                settles,
                [
                    (r.state, r.ack, r.attempts, r.ambiguous, r.due_ms, now_ms if r.state >= 10 else None, r.status,
                     r.ack_code, r.reason, r.answer, r.id)
                    for r in settles
                ],
            )  # fmt: skip

    def merge(self, earlier: Batch) -> None:
        """Put what `earlier` carried, and did not get to the disk, before what is here."""
        self.puts[:0] = earlier.puts
        self.claims[:0] = earlier.claims
        self.settles[:0] = earlier.settles
        self.jobs[:0] = earlier.jobs

    def _update_each(
        self, connection: apsw.Connection, sql: str, rows: list[Row], values: list[tuple[Any, ...]]
    ) -> None:
        for row, value in zip(rows, values, strict=True):
            connection.execute(sql, value)
            if not connection.changes() and row.body:
                restore(connection, [row])
                connection.execute(sql, value)
                self.restored.append(row)


def _update(connection: apsw.Connection, sql: str, rows: list[Row], values: list[tuple[Any, ...]]) -> None:
    connection.executemany(sql, values)


def commit(connection: apsw.Connection, jobs: list[Job]) -> None:
    """Do the jobs of a batch that was written, and COMMIT. For a thread that may hang."""
    for work, _ in jobs:
        work(connection)
    connection.execute("COMMIT")


def restore(connection: apsw.Connection, rows: Iterable[Row]) -> int:
    """Write whole rows in the state that the file had (`kept`), where it lacks them; how many it did."""
    now_ms = time.time_ns() // 1_000_000
    restored = 0
    for r in rows:
        connection.execute(_RESTORE_MESSAGE, _MESSAGE(r))
        restored += connection.changes()
        settled_ms = now_ms if r.kept.finished else None
        connection.execute(
            _RESTORE_DELIVERY,
            (r.id, r.kept, r.ack, r.attempts, r.ambiguous, r.due_ms, settled_ms, r.status, r.ack_code, r.reason,
             r.answer, r.channel, r.direction),
        )  # fmt: skip
    return restored


def put_meta(connection: apsw.Connection, values: Iterable[tuple[str, Any]]) -> None:
    """Set values of the `meta` table."""
    connection.executemany("INSERT OR REPLACE INTO meta VALUES(?,?)", values)
