"""Which stored messages are in memory, and how the others come back from the file.

Secret: paging. A channel with more than a page of rows waiting lets newcomers go to the file only, and reads them
when there is room, oldest first. Rows of a key that sleeps are passed over, so that one refused message does not fill
the page; when the key has moved on, reading goes back to where they were.
Promise: memory is bounded, however long the server is away; per key the order of arrival stays; a disk that does not
answer means later, never that there was nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from agent.flow.lanes import Lane
from agent.flow.voice import header_of
from agent.store.row import Content, Row
from agent.store.spool import Spool
from agent.store.sqlite import SpoolTrouble

PAGE_ROWS: Final = 500
PAGE_BYTES: Final = 4 << 20
WAITING_ROWS: Final = 2 * PAGE_ROWS  # beyond this many, newcomers of a channel go to the file only
DOZING_ROWS: Final = 5_000  # of sleeping keys, which do not count as waiting
MEMORY_BYTES: Final = 48 << 20  # bodies in memory, all channels together


class Backlog:
    """The rows of all lanes that are in memory, by id, and the way to the others."""

    __slots__ = ("_fading", "_lanes", "_now", "_now_ms", "_spool", "rows")

    def __init__(
        self, spool: Spool, lanes: Mapping[str, Lane], *, now: Callable[[], float], now_ms: Callable[[], int]
    ) -> None:
        self.rows: dict[int, Row] = {}
        self._fading: dict[int, Row] = {}
        self._spool = spool
        self._lanes = lanes
        self._now = now
        self._now_ms = now_ms

    def full_for(self, lane: Lane) -> bool:
        """Whether a newcomer of `lane` has to go to the file."""
        return lane.rows - lane.metrics.pending >= WAITING_ROWS or (lane.bytes > PAGE_BYTES and self._memory_full())

    def enter(self, lane: Lane, row: Row) -> None:
        self.rows[row.id] = row
        lane.enter(row)

    def leave(self, row: Row) -> None:
        """`row` is settled, or was never stored."""
        del self.rows[row.id]
        lane: Lane = row.lane
        if lane.spilled and row.durable and not row.kept.finished:
            self._fading[row.id] = row  # the file does not know yet, and may be read again
        lane.done(row)

    def set_aside(self, lane: Lane, row: Row) -> None:
        """`row`, on its way to the disk, is to wait there."""
        lane.spilled = True
        lane.unwritten += 1
        row.text = None

    def written(self, row: Row) -> None:
        """`row`, which was set aside, is in the file."""
        lane = self._lanes[row.channel]
        lane.unwritten -= 1
        lane.unread = True
        self._spool.forget(row)
        row.body = b""

    def unwritable(self, row: Row) -> None:
        """`row`, which was set aside, did not get there and is not ours."""
        self._lanes[row.channel].unwritten -= 1

    def interrupted(self, lane: Lane) -> list[Row]:
        """What the last process left in flight, once; it goes before anything that came after it."""
        try:
            rows = self._spool.shelf.interrupted(lane.name)
        except SpoolTrouble:
            return []  # the spool's own watch finds the same, and the next pump asks again
        lane.recovered = True
        return rows

    def wants_more(self, lane: Lane) -> bool:
        """Whether the file may hold rows that memory has room for."""
        return (
            lane.unread
            and not lane.barred
            and lane.spec is not None
            and lane.recovered
            and lane.rows - lane.metrics.pending - lane.dozing < PAGE_ROWS // 2
            and lane.dozing < DOZING_ROWS
            and (lane.bytes <= PAGE_BYTES or not self._memory_full())
        )

    def refill(self, lane: Lane) -> None:
        """Read the next page of a lane whose rows wait in the file."""
        if self._fading:
            self._fading = {row_id: row for row_id, row in self._fading.items() if not row.kept.finished}
        spool = self._spool
        rows = spool.queued(lane.name, lane.last_id, limit=PAGE_ROWS, limit_bytes=PAGE_BYTES)
        if not rows:
            if not spool.stuck:
                lane.unread = False
                lane.spilled = bool(lane.unwritten or lane.deferred)
            return
        for row in rows:
            if row.id not in self.rows and row.id not in self._fading and not self._take_up(lane, row):
                lane.barred = True
                return
            lane.last_id = row.id

    def key_anew(self, lane: Lane, row: Row) -> None:
        """Give a row from the file the key that the channel's present parameters give it."""
        assert lane.spec is not None
        if row.content is not Content.HL7:
            return  # its key does not depend on parameters
        row.header = header_of(row, lane.spec.encoding)[0]
        if row.header is not None:
            row.order_key = lane.key_of(row.header, row.body, row.remote)

    def _take_up(self, lane: Lane, row: Row) -> bool:
        """Have `row` in memory, or pass it over. False for what can be neither: a barrier behind such a row."""
        assert lane.spec is not None
        self.key_anew(lane, row)
        key, deferred = row.order_key, lane.deferred
        if deferred and lane.is_barrier(row):
            self._spool.forget(row)
            return False
        if key in deferred or key in lane.asleep:
            deferred.setdefault(key, row.id)
            self._spool.forget(row)
            return True
        self.enter(lane, row)
        wait_ms = row.due_ms - self._now_ms()
        if wait_ms > 0:
            longest_ms = max(lane.spec.retry.max_ms, 900_000)  # a due time beyond it was written under another clock
            lane.sleep(row, self._now() + min(wait_ms, longest_ms) / 1000)
        lane.wake(row)
        return True

    def _memory_full(self) -> bool:
        return sum(lane.bytes for lane in self._lanes.values()) > MEMORY_BYTES
