"""What the spool holds, read by somebody who is not the daemon.

Secret: reading a live or abandoned file without disturbing its owner.
Promise: read-only, and true of the last commit; a file that cannot be read says why.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from pathlib import Path
from typing import Any

import apsw

from agent.errors import StoreError
from agent.store.row import State
from agent.store.sqlite import connect_reader, fetch, trouble_of


def counts(reader: apsw.Connection) -> dict[str, dict[State, int]]:
    """How many messages of each channel are in each state."""
    result: dict[str, dict[State, int]] = {}
    for channel, state, number in fetch(
        reader, "SELECT m.channel, d.state, count(*) FROM delivery d JOIN message m ON m.id=d.id GROUP BY 1, 2"
    ):
        result.setdefault(channel, {})[State(state)] = number
    return result


def read_status(path: Path) -> dict[str, Any]:
    """The spool's part of a status: {path, sizeBytes, diskFreeBytes, countsByState, channels: {name: {queued, oldestQueuedSeconds}}}."""
    if not path.exists():
        raise StoreError(f"there is no spool at {path}", hint="start the agent once, or name its --data-dir")
    try:
        reader = connect_reader(path)
    except apsw.Error as error:
        raise trouble_of(error, path) from error
    try:
        by_channel = counts(reader)
        oldest = dict(
            fetch(
                reader,
                "SELECT m.channel, min(m.received_ms) FROM delivery d JOIN message m ON m.id=d.id WHERE d.state<10 GROUP BY 1",
            )
        )
    except apsw.Error as error:
        raise trouble_of(error, path) from error
    finally:
        reader.close()
    now_ms = time.time_ns() // 1_000_000
    totals = {state.name.lower(): 0 for state in State}
    for states in by_channel.values():
        for state, number in states.items():
            totals[state.name.lower()] += number
    size = 0
    for suffix in ("", "-wal"):
        with contextlib.suppress(OSError):
            size += path.with_name(path.name + suffix).stat().st_size
    return {
        "path": str(path),
        "sizeBytes": size,
        "diskFreeBytes": shutil.disk_usage(path.parent).free,
        "countsByState": totals,
        "channels": {
            name: {
                "queued": sum(number for state, number in states.items() if not state.finished),
                "oldestQueuedSeconds": max(0, (now_ms - oldest[name]) // 1000) if name in oldest else None,
            }
            for name, states in by_channel.items()
        },
    }
