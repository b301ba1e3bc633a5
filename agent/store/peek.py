"""What the spool holds, read by somebody who is not the daemon.

Secret: reading a live or abandoned file without disturbing its owner.
Promise: read-only, and true of the last commit; a file that cannot be read says why.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import apsw

from agent.errors import StoreError
from agent.store.row import Direction, State
from agent.store.shelf import survey
from agent.store.sqlite import check_version, fetch, for_schema, schema_of, size_bytes, trouble_of

Counts = dict[str, dict[State, int]]  # by channel, or by the URL of a remote


def counts_by_direction(reader: apsw.Connection) -> dict[Direction, Counts]:
    """How many messages are in each state. The file may be of an older schema. Raises apsw.Error, ValueError."""
    sql = for_schema(
        "SELECT d.direction, d.channel, d.state, count(*) FROM delivery d GROUP BY 1, 2, 3",
        schema_of(reader),
    )
    result: dict[Direction, Counts] = {direction: {} for direction in Direction}
    for direction, channel, state, number in fetch(reader, sql):
        result[Direction(direction)].setdefault(channel, {})[State(state)] = number
    return result


def read_status(path: Path) -> dict[str, Any]:
    """The spool's part of a status: {path, sizeBytes, diskFreeBytes, countsByState, channels, remotes}.

    `channels` is {name: {queued, oldestQueuedSeconds}}, `remotes` the same by URL. Raises StoreError.
    """
    try:
        if not path.exists():
            raise StoreError(f"there is no spool at {path}", hint="start the agent once, or name its --data-dir")
        counted, oldest = survey(path, None, lambda reader: _read(reader, path))
        free = shutil.disk_usage(path.parent).free
    except (apsw.Error, OSError, ValueError) as error:
        raise trouble_of(error, path, doing="read") from error
    now_ms = time.time_ns() // 1_000_000
    totals = {state.name.lower(): 0 for state in State}
    for by_name in counted.values():
        for states in by_name.values():
            for state, number in states.items():
                totals[state.name.lower()] += number

    def facts(direction: Direction) -> dict[str, Any]:
        facts_of = {}
        for name, states in counted[direction].items():
            oldest_ms = oldest.get((direction, name))
            facts_of[name] = {
                "queued": sum(number for state, number in states.items() if not state.finished),
                "oldestQueuedSeconds": None if oldest_ms is None else max(0, (now_ms - oldest_ms) // 1000),
            }
        return facts_of

    return {
        "path": str(path),
        "sizeBytes": size_bytes(path),
        "diskFreeBytes": free,
        "countsByState": totals,
        "channels": facts(Direction.IN),
        "remotes": facts(Direction.OUT),
    }


def _read(reader: apsw.Connection, path: Path) -> tuple[dict[Direction, Counts], dict[tuple[int, str], int]]:
    """The counts, and when the oldest undelivered message of each direction and name came."""
    version = check_version(reader, path)
    if not version:
        return {direction: {} for direction in Direction}, {}  # created, and not yet filled in
    sql = for_schema(
        "SELECT o.direction, o.channel, m.received_ms FROM message m JOIN (SELECT d.direction AS direction,"
        " d.channel AS channel, min(d.id) AS id FROM delivery d WHERE d.state<10 GROUP BY 1, 2) o ON o.id = m.id",
        version,
    )
    return counts_by_direction(reader), {(way, name): came_ms for way, name, came_ms in fetch(reader, sql)}
