"""How long finished messages stay, and how their space goes back to the disk.

Secret: the order in which history is let go: by age first (errors and what waits for a person much later), then by size, oldest
first, processed before errored. In small commits, so that no sender waits behind a sweep.
Promise: a message that is not finished is never deleted, whatever the limits say; ids are never used twice.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import Final

import apsw

from agent.errors import StoreError
from agent.store.row import State
from agent.store.spool import Spool
from agent.store.sqlite import fetch

_CHUNK: Final = 200
_SPARE_PAGES: Final = 64  # left in the file for what comes next
_DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """PROTOCOL names: queueRetentionDays, queueErroredRetentionDays, queueRetentionMaxMb, queueSweepIntervalSecs."""

    days: float = 7
    errored_days: float = 90
    max_mb: float = 512
    sweep_interval_s: float = 3600


@dataclass(frozen=True, slots=True)
class Swept:
    """What one sweep let go. `at` is seconds since the epoch."""

    at: float
    deleted: int
    error: str = ""


async def sweep(spool: Spool, policy: RetentionPolicy) -> Swept:
    """Let go of what is older or more than the policy keeps."""
    now_ms = time.time_ns() // 1_000_000
    deleted = 0
    try:
        for states, keep_days in ((_PROCESSED, policy.days), (_ERRORED, policy.errored_days)):
            while found := _older(spool.shelf.connection, states, now_ms - int(keep_days * _DAY_MS)):
                deleted += await _let_go(spool, found)
        for states in (_PROCESSED, _ERRORED):
            while _used_bytes(spool.shelf.connection) > policy.max_mb * 1_048_576:
                if not (found := _oldest(spool.shelf.connection, states)):
                    break
                deleted += await _let_go(spool, found)
        while (pages := _free_pages(spool.shelf.connection)) > _SPARE_PAGES:
            await spool.perform(_give_back)
            if _free_pages(spool.shelf.connection) >= pages:
                break
    except (apsw.Error, StoreError) as error:
        return Swept(time.time(), deleted, str(error))
    return Swept(time.time(), deleted)


async def _let_go(spool: Spool, found: list[tuple[int, int]]) -> int:
    await spool.perform(lambda connection: _delete(connection, [row_id for row_id, _ in found]))
    for state, number in Counter(state for _, state in found).items():
        spool.tally.deleted(State(state), number)
    return len(found)


_PROCESSED: Final = (int(State.PROCESSED),)
_ERRORED: Final = (int(State.REJECTED), int(State.FAILED), int(State.HELD))


def _older(reader: apsw.Connection, states: tuple[int, ...], before_ms: int) -> list[tuple[int, int]]:
    """(id, state) of the oldest that were settled before."""
    marks = ",".join("?" * len(states))
    sql = f"SELECT id, state FROM delivery WHERE state IN ({marks}) AND settled_ms < ? ORDER BY id LIMIT {_CHUNK}"
    return [(row_id, state) for row_id, state in fetch(reader, sql, (*states, before_ms))]


def _oldest(reader: apsw.Connection, states: tuple[int, ...]) -> list[tuple[int, int]]:
    marks = ",".join("?" * len(states))
    sql = f"SELECT id, state FROM delivery WHERE state IN ({marks}) ORDER BY id LIMIT {_CHUNK}"
    return [(row_id, state) for row_id, state in fetch(reader, sql, states)]


def _delete(connection: apsw.Connection, ids: list[int]) -> None:
    top = fetch(connection, "SELECT max(id) FROM message")[0][0] or 0
    connection.execute(
        "INSERT INTO meta VALUES('last_id', ?) ON CONFLICT(name) DO UPDATE SET value=max(value, excluded.value)", (top,)
    )
    keys = [(row_id,) for row_id in ids]
    connection.executemany("DELETE FROM message WHERE id=?", keys)
    connection.executemany("DELETE FROM delivery WHERE id=?", keys)


def _give_back(connection: apsw.Connection) -> None:
    connection.execute("PRAGMA incremental_vacuum(256)").fetchall()


def _pragma(reader: apsw.Connection, name: str) -> int:
    return int(fetch(reader, f"PRAGMA {name}")[0][0])


def _free_pages(reader: apsw.Connection) -> int:
    return _pragma(reader, "freelist_count")


def _used_bytes(reader: apsw.Connection) -> int:
    return (_pragma(reader, "page_count") - _free_pages(reader)) * _pragma(reader, "page_size")
