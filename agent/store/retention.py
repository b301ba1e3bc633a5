"""How long finished messages stay, and how their space goes back to the disk.

Secret: the order in which history is let go: by age first (errors and what waits for a person much later), then by
size, oldest first, processed before errored. It is looked up in a thread, and let go in small commits with a breath
between them, so that no sender waits behind a sweep.
Promise: a message that is not finished is never deleted, whatever the limits say; ids are never used twice.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import Final

import apsw

from agent.errors import StoreError
from agent.store.row import State
from agent.store.spool import Spool
from agent.store.sqlite import fetch

_LOOK: Final = 5_000  # rows looked up at a time
_CHUNK: Final = 100  # rows let go in one commit
_PAGES: Final = 128  # pages given back in one commit
_BREATH_S: Final = 0.01
_SPARE_PAGES: Final = 64  # left in the file for what comes next
_DAY_MS: Final = 86_400_000
_PROCESSED: Final = (int(State.PROCESSED),)
_ERRORED: Final = (int(State.REJECTED), int(State.FAILED), int(State.HELD))

_Found = list[tuple[int, int]]  # (id, state), oldest first


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
    limit_bytes = int(policy.max_mb * 1_048_576)
    deleted = 0
    try:
        for states, keep_days in ((_PROCESSED, policy.days), (_ERRORED, policy.errored_days)):
            before_ms = now_ms - int(keep_days * _DAY_MS)
            after_id = 0
            while found := await spool.survey(partial(_older, states, before_ms, after_id)):
                deleted += await _let_go(spool, found)
                after_id = found[-1][0]
        for states in (_PROCESSED, _ERRORED):
            after_id = 0
            while found := await spool.survey(partial(_surplus, states, limit_bytes, after_id)):
                deleted += await _let_go(spool, found)
                after_id = found[-1][0]
        while (pages := await spool.survey(_free_pages)) > _SPARE_PAGES:
            await spool.perform(_give_back)
            if await spool.survey(_free_pages) >= pages:
                break
            await asyncio.sleep(_BREATH_S)
    except StoreError as error:
        return Swept(time.time(), deleted, str(error))
    return Swept(time.time(), deleted)


async def _let_go(spool: Spool, found: _Found) -> int:
    for start in range(0, len(found), _CHUNK):
        chunk = found[start : start + _CHUNK]
        await spool.perform(partial(_delete, [row_id for row_id, _ in chunk]))
        for state, number in Counter(state for _, state in chunk).items():
            spool.tally.deleted(State(state), number)
        await asyncio.sleep(_BREATH_S)
    return len(found)


def _older(states: tuple[int, ...], before_ms: int, after_id: int, reader: apsw.Connection) -> _Found:
    """What was settled before."""
    marks = ",".join("?" * len(states))
    sql = f"SELECT id, state FROM delivery WHERE id>? AND state IN ({marks}) AND settled_ms<? ORDER BY id LIMIT ?"
    return [(row_id, state) for row_id, state in fetch(reader, sql, (after_id, *states, before_ms, _LOOK))]


def _surplus(states: tuple[int, ...], limit_bytes: int, after_id: int, reader: apsw.Connection) -> _Found:
    """The oldest of these states, as many as make up for what the file holds beyond the limit, by the size of each."""
    surplus = _used_bytes(reader) - limit_bytes
    if surplus <= 0:
        return []
    marks = ",".join("?" * len(states))
    sql = (
        "SELECT d.id, d.state, length(m.body) + coalesce(length(d.answer), 0) FROM delivery d"
        f" JOIN message m ON m.id=d.id WHERE d.id>? AND d.state IN ({marks}) ORDER BY d.id LIMIT ?"
    )
    found: _Found = []
    for row_id, state, size in reader.execute(sql, (after_id, *states, _LOOK)):
        found.append((row_id, state))
        surplus -= size
        if surplus <= 0:
            break
    return found


def _delete(ids: list[int], connection: apsw.Connection) -> None:
    top = fetch(connection, "SELECT max(id) FROM message")[0][0] or 0
    connection.execute(
        "INSERT INTO meta VALUES('last_id', ?) ON CONFLICT(name) DO UPDATE SET value=max(value, excluded.value)", (top,)
    )
    keys = [(row_id,) for row_id in ids]
    connection.executemany("DELETE FROM message WHERE id=?", keys)
    connection.executemany("DELETE FROM delivery WHERE id=?", keys)


def _give_back(connection: apsw.Connection) -> None:
    connection.execute(f"PRAGMA incremental_vacuum({_PAGES})").fetchall()


def _pragma(reader: apsw.Connection, name: str) -> int:
    return int(fetch(reader, f"PRAGMA {name}")[0][0])


def _free_pages(reader: apsw.Connection) -> int:
    return _pragma(reader, "freelist_count")


def _used_bytes(reader: apsw.Connection) -> int:
    return (_pragma(reader, "page_count") - _free_pages(reader)) * _pragma(reader, "page_size")
