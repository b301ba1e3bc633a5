"""Was this message here before? The duplicates' memory, and what else of the spool is in memory.

Secret: three places are asked, the cheapest first: the rows in memory, a filter that says no to nearly every new id,
and the file. The filter is filled from the file in the background, and anew when it holds too much that was let go.
Promise: the newest inbound message with this id is found wherever it is, except while the disk cannot be read; one that
goes out to a remote is nobody's duplicate.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import chain
from typing import Final

from agent.store.row import Direction, Row
from agent.store.seen import Seen
from agent.store.shelf import Shelf
from agent.store.sqlite import SpoolTrouble

_PAGE: Final = 500  # ids read at a time: a millisecond of the loop
_PAUSE_S: Final = 0.002
_OUT: Final = Direction.OUT


class Known:
    """Rows in memory: `hot` by (channel, MSH-10), those that this process put, of which the last one is the newest;
    `reread` likewise, those that it read from the file, which may hold a newer one; `outbound` by id, for the server
    may push one MSH-10 twice and mean both. `hot` and `outbound` are filled by who puts rows into the spool.

    `seen` says of most other ids that they are not in the file either; it may have met some of outbound messages there.
    """

    __slots__ = ("_crowded", "_filling", "hot", "outbound", "reread", "seen")

    def __init__(self) -> None:
        self.hot: dict[tuple[str, bytes], Row] = {}
        self.reread: dict[tuple[str, bytes], Row] = {}
        self.outbound: dict[int, Row] = {}
        self.seen = Seen()
        self._filling: Seen | None = None
        self._crowded = asyncio.Event()

    def stored(self, rows: list[Row]) -> None:
        """These rows are on disk now."""
        inbound = [row for row in rows if row.control_id and row.direction is not _OUT]
        for seen in (self.seen, self._filling):
            if seen is not None:
                add = seen.add
                for row in inbound:
                    add(row.channel, row.control_id)
                seen.added += len(inbound)
        if self._filling is None and self.seen.crowded:
            self._crowded.set()

    def read(self, rows: list[Row]) -> None:
        """These rows were read from the file, and are in memory's hands from here on."""
        for row in rows:
            if row.direction is _OUT:
                self.outbound.setdefault(row.id, row)
            elif row.control_id:
                held = self.reread.setdefault((row.channel, row.control_id), row)
                if held.id < row.id:
                    self.reread[row.channel, row.control_id] = row

    def forget(self, row: Row) -> None:
        if row.direction is _OUT:
            self.outbound.pop(row.id, None)
            return
        key = (row.channel, row.control_id)
        for table in (self.hot, self.reread):
            held = table.get(key)
            if held is not None and held.id == row.id:
                del table[key]

    def undelivered(self) -> list[Row]:
        """Rows in memory that a file should hold."""
        held = chain(self.hot.values(), self.reread.values(), self.outbound.values())
        return [row for row in held if row.durable and not row.kept.finished]

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
