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
from agent.store.row import State
from agent.store.shelf import survey
from agent.store.sqlite import check_version, fetch, size_bytes, trouble_of


def counts(reader: apsw.Connection) -> dict[str, dict[State, int]]:
    """How many messages of each channel are in each state."""
    result: dict[str, dict[State, int]] = {}
    for channel, state, number in fetch(reader, "SELECT channel, state, count(*) FROM delivery GROUP BY 1, 2"):
        result.setdefault(channel, {})[State(state)] = number
    return result


def read_status(path: Path) -> dict[str, Any]:
    """The spool's part of a status: {path, sizeBytes, diskFreeBytes, countsByState, channels}.

    `channels` is {name: {queued, oldestQueuedSeconds}}. Raises StoreError.
    """
    try:
        if not path.exists():
            raise StoreError(f"there is no spool at {path}", hint="start the agent once, or name its --data-dir")
        by_channel, oldest_ms = survey(path, None, lambda reader: _read(reader, path))
        free = shutil.disk_usage(path.parent).free
    except (apsw.Error, OSError, ValueError) as error:
        raise trouble_of(error, path, doing="read") from error
    now_ms = time.time_ns() // 1_000_000
    totals = {state.name.lower(): 0 for state in State}
    for states in by_channel.values():
        for state, number in states.items():
            totals[state.name.lower()] += number
    return {
        "path": str(path),
        "sizeBytes": size_bytes(path),
        "diskFreeBytes": free,
        "countsByState": totals,
        "channels": {
            name: {
                "queued": sum(number for state, number in states.items() if not state.finished),
                "oldestQueuedSeconds": max(0, (now_ms - oldest_ms[name]) // 1000) if name in oldest_ms else None,
            }
            for name, states in by_channel.items()
        },
    }


def _read(reader: apsw.Connection, path: Path) -> tuple[dict[str, dict[State, int]], dict[str, int]]:
    if not check_version(reader, path):
        return {}, {}  # created, and not yet filled in
    oldest = fetch(
        reader,
        "SELECT o.channel, m.received_ms FROM message m JOIN"
        " (SELECT channel, min(id) AS id FROM delivery WHERE state<10 GROUP BY 1) o ON o.id = m.id",
    )
    return counts(reader), dict(oldest)
