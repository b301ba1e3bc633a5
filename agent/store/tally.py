"""How many messages are in which state, known at any time without asking the disk.

Secret: counting by the difference. What was there at the start is counted once, in a thread, from a snapshot taken before the
first commit.
Promise: after `base` has been counted, the numbers equal what a SELECT would find after the last commit.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from agent.store.row import Row, State
from agent.store.sqlite import connect_reader, fetch


class Tally:
    """`by_state`: all messages. `open_of`: undelivered ones by channel."""

    def __init__(self, path: Path, vfs: str | None) -> None:
        self.by_state: Counter[State] = Counter()
        self.open_of: Counter[str] = Counter()
        self._snapshot = connect_reader(path, vfs=vfs)
        self._snapshot.execute("BEGIN")
        for channel, state, number in fetch(
            self._snapshot,
            "SELECT m.channel, d.state, count(*) FROM delivery d JOIN message m ON m.id=d.id WHERE d.state<10 GROUP BY 1, 2",
        ):
            self.open_of[channel] += number
            self.by_state[State(state)] += number

    def count_finished(self) -> Counter[State]:
        """What was finished before this process began. Runs in a thread; ends the snapshot."""
        try:
            found = fetch(self._snapshot, "SELECT state, count(*) FROM delivery WHERE state>=10 GROUP BY 1")
        finally:
            self._snapshot.close()
        return Counter({State(state): number for state, number in found})

    def close(self) -> None:
        self._snapshot.close()

    def stored(self, rows: list[Row], states: list[State]) -> None:
        for row, state in zip(rows, states, strict=True):
            self.by_state[state] += 1
            self.open_of[row.channel] += 1
            row.kept = state

    def moved(self, rows: list[Row], states: list[State]) -> None:
        for row, state in zip(rows, states, strict=True):
            if row.kept is state:
                continue
            self.by_state[row.kept] -= 1
            self.by_state[state] += 1
            if state.finished and not row.kept.finished:
                self.open_of[row.channel] -= 1
            row.kept = state

    def deleted(self, state: State, number: int) -> None:
        self.by_state[state] -= number
