"""Was this message here before? The duplicates' memory.

Secret: three places are asked, the cheapest first: the rows in memory, a filter that says no to nearly every new id,
and the file. The filter is filled from the file in the background, and anew when it holds too much that was let go.
Promise: the newest message with this id is found wherever it is, except while the disk cannot be read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from agent.store.row import Row
from agent.store.seen import Seen
from agent.store.shelf import Shelf
from agent.store.sqlite import SpoolTrouble

_PAGE: Final = 500  # ids read at a time: a millisecond of the loop
_PAUSE_S: Final = 0.002


class Known:
    """`hot`: rows in memory by (channel, MSH-10), the newest of each; put there by who puts them into the spool.
    `seen`: says of most other ids that they are not in the file either."""

    __slots__ = ("_crowded", "_filling", "hot", "seen")

    def __init__(self) -> None:
        self.hot: dict[tuple[str, bytes], Row] = {}
        self.seen = Seen()
        self._filling: Seen | None = None
        self._crowded = asyncio.Event()

    def stored(self, rows: list[Row]) -> None:
        """These rows are on disk now."""
        add = self.seen.add
        for row in rows:
            if row.control_id:
                add(row.channel, row.control_id)
        self.seen.added += len(rows)
        if self._filling is not None:
            for row in rows:
                self._filling.add(row.channel, row.control_id)
            self._filling.added += len(rows)
        elif self.seen.crowded:
            self._crowded.set()

    def read(self, rows: list[Row]) -> None:
        """These rows were read from the file, and are in memory's hands from here on."""
        for row in rows:
            if row.control_id:
                self.hot.setdefault((row.channel, row.control_id), row)

    def forget(self, row: Row) -> None:
        key = (row.channel, row.control_id)
        if self.hot.get(key) is row:
            del self.hot[key]

    def undelivered(self) -> list[Row]:
        """Rows in memory that a file should hold."""
        return [row for row in self.hot.values() if row.durable and not row.kept.finished]

    async def learn(
        self, shelf: Callable[[], Shelf], on_trouble: Callable[[SpoolTrouble], None], retry_s: float
    ) -> None:
        """Fill the filter from the file; for ever, since it ages."""
        while True:
            self._filling = fresh = Seen()  # it hears of what is stored from now on: only what is older must be read
            after = ("", b"")
            while True:
                try:
                    found = shelf().control_ids(after, _PAGE)
                except SpoolTrouble as trouble:
                    on_trouble(trouble)
                    await asyncio.sleep(retry_s)
                    continue
                if not found:
                    break
                for channel, control_id in found:
                    fresh.add(channel, control_id)
                fresh.added += len(found)
                after = found[-1]
                await asyncio.sleep(_PAUSE_S)
            fresh.filled()
            self.seen, self._filling = fresh, None
            await self._crowded.wait()
            self._crowded.clear()
