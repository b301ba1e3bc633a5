"""How many messages are in which state, known at any time without asking the disk.

Secret: counting by the difference. What is undelivered is counted at the start, by an index; what is finished is
counted once, in a thread, from a snapshot taken before the first commit.
Promise: after `include`, the numbers equal what a SELECT would find after the last commit.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from pathlib import Path
from typing import Final

import apsw

from agent.store.row import Direction, Row, State
from agent.store.sqlite import connect_reader, fetch

_OUT: Final = Direction.OUT


class Tally:
    """`by_state`: all messages. `open_of`: undelivered ones by channel; `open_to`: those that go out, by the remote's
    URL. Raises apsw.Error and ValueError."""

    def __init__(self, path: Path, vfs: str | None) -> None:
        self.by_state: Counter[State] = Counter()
        self.open_of: Counter[str] = Counter()
        self.open_to: Counter[str] = Counter()
        self._snapshot = connect_reader(path, vfs=vfs)
        try:
            self._snapshot.execute("BEGIN")
            for direction, channel, state, number in fetch(
                self._snapshot,
                "SELECT direction, channel, state, count(*) FROM delivery WHERE state<10 GROUP BY 1, 2, 3",
            ):
                self._open(Direction(direction))[channel] += number
                self.by_state[State(state)] += number
        except (apsw.Error, ValueError):
            self._snapshot.close()
            raise

    def count_finished(self) -> Counter[State]:
        """What was finished before this process began. For a thread; ends the snapshot."""
        try:
            found = fetch(self._snapshot, "SELECT state, count(*) FROM delivery WHERE state>=10 GROUP BY 1")
        finally:
            self._snapshot.close()
        return Counter({State(state): number for state, number in found})

    def include(self, finished: Counter[State]) -> None:
        """Add what `count_finished` found."""
        self.by_state.update(finished)  # not +=, which would drop what a sweep has already brought below zero

    def close(self) -> None:
        """End the snapshot, and a count that is still going on."""
        with contextlib.suppress(apsw.Error):
            self._snapshot.interrupt()
            self._snapshot.close()

    def stored(self, rows: list[Row], states: list[State]) -> None:
        for row, state in zip(rows, states, strict=True):
            self.by_state[state] += 1
            self._open(row.direction)[row.channel] += 1
            row.kept = state

    def moved(self, rows: list[Row], states: list[State]) -> None:
        for row, state in zip(rows, states, strict=True):
            if row.kept is state:
                continue
            self.by_state[row.kept] -= 1
            self.by_state[state] += 1
            if state.finished and not row.kept.finished:
                self._open(row.direction)[row.channel] -= 1
            row.kept = state

    def _open(self, direction: Direction) -> Counter[str]:
        return self.open_to if direction is _OUT else self.open_of

    def deleted(self, state: State, number: int) -> None:
        self.by_state[state] -= number
