"""In which order the messages of one channel go to the server.

Secret: order keys. Rows with one key go one after the other, the next only when the server has answered for the last; rows with
different keys do not wait for each other. A link or merge message of a content-keyed channel is a barrier: everything before it
first, then it alone, then everything after (its two patients may have had two keys).
Promise: first in, first out per key, across retries, reconnects and restarts; a row that waits for its next try holds back its
own key only. Memory is bounded: beyond a page of rows a lane reads on from the file.
"""

from __future__ import annotations

import heapq
from collections import deque
from typing import Final

from agent.metrics import ChannelMetrics
from agent.protocol.hl7 import Header, NotHl7, is_link_or_merge
from agent.spec import AckMode, ChannelSpec
from agent.store.row import Row

PAGE_ROWS: Final = 500
PAGE_BYTES: Final = 4 << 20


class Lane:
    """The rows of one channel that are on their way. `spec` None: the channel is no longer configured, its rows wait.

    `spilled`: there are rows in the file behind the ones in memory; `last_id` is the newest id that memory knows.
    """

    __slots__ = (
        "_barrier_next",
        "_epoch",
        "_held",
        "_open",
        "_sleeping",
        "_tail_epoch",
        "busy",
        "bytes",
        "keys",
        "last_id",
        "metrics",
        "name",
        "next_at",
        "pending_spilled",
        "ready",
        "rows",
        "spec",
        "spilled",
    )

    def __init__(self, name: str, spec: ChannelSpec | None, metrics: ChannelMetrics) -> None:
        self.name = name
        self.spec = spec
        self.metrics = metrics
        self.keys: dict[bytes, deque[Row]] = {}
        self.busy: set[bytes] = set()  # keys whose first row is claimed or in flight
        self.ready: deque[bytes] = deque()
        self.rows = 0
        self.bytes = 0
        self.spilled = False
        self.pending_spilled = 0
        self.last_id = 0
        self.next_at = 0.0  # messagesPerMin: not before this loop time
        self._sleeping: list[tuple[float, int, bytes]] = []
        self._epoch = 0
        self._tail_epoch = 0
        self._open: dict[int, int] = {}
        self._held: list[bytes] = []

    def key_of(self, header: Header, body: bytes, remote: str) -> bytes:
        """The order key of a message: the channel's key fields, one for all with one worker, else its sender."""
        spec = self.spec
        assert spec is not None
        if spec.order_key is not None:
            return spec.order_key.read(body)
        if spec.max_workers == 1:
            return b""
        if spec.ack_mode is AckMode.ORIGINAL:
            return remote.encode()
        return remote.rpartition(":")[0].encode()

    def respec(self, spec: ChannelSpec | None) -> None:
        """Take new parameters. If keys mean something else from now on, what came before goes first."""
        old, self.spec = self.spec, spec
        if (
            old is None
            or spec is None
            or (old.order_key, old.max_workers == 1, old.ack_mode)
            == (
                spec.order_key,
                spec.max_workers == 1,
                spec.ack_mode,
            )
        ):
            return
        self._tail_epoch += 1

    def enter(self, row: Row) -> None:
        """Put `row` behind the others of its key."""
        row.lane = self
        self.rows += 1
        self.bytes += row.size
        if self.spec is not None and self.spec.order_key is not None and _joins_keys(row):
            row.epoch = self._tail_epoch = self._tail_epoch + 1
            self._tail_epoch += 1
        else:
            row.epoch = self._tail_epoch
        self._open[row.epoch] = self._open.get(row.epoch, 0) + 1
        waiting = self.keys.get(row.order_key)
        if waiting is None:
            self.keys[row.order_key] = deque((row,))
        else:
            waiting.append(row)

    def wake(self, row: Row) -> None:
        """`row` is durable (or free again): its key is ready if it is the first of it."""
        if self.keys[row.order_key][0] is row and row.order_key not in self.busy:
            self._offer(row.order_key, row)

    def _offer(self, key: bytes, head: Row) -> None:
        if head.epoch > self._epoch:
            self._advance()
        if head.epoch > self._epoch:
            self._held.append(key)
        else:
            self.ready.append(key)

    def may_go_at_once(self, row: Row) -> bool:
        """Whether `row`, just entered, could be handed over now: nothing before it, a worker free, no gap to keep."""
        spec = self.spec
        if (
            spec is None
            or spec.messages_per_min is not None
            or self.ready
            or len(self.keys[row.order_key]) > 1
            or (spec.max_workers is not None and len(self.busy) >= spec.max_workers)
        ):
            return False
        if row.epoch > self._epoch:
            self._advance()
        return row.epoch <= self._epoch

    def take(self, row: Row) -> None:
        """`row` is claimed: its key is busy until `done` or `back`."""
        self.busy.add(row.order_key)

    def next(self, now: float) -> Row | None:
        """The next row that may go to the server, or None; the caller takes it."""
        spec = self.spec
        if spec is None or now < self.next_at:
            return None
        sleeping = self._sleeping
        while sleeping and sleeping[0][0] <= now:
            key = heapq.heappop(sleeping)[2]
            if key in self.keys and key not in self.busy:
                self._offer(key, self.keys[key][0])
        if spec.max_workers is not None and len(self.busy) >= spec.max_workers:
            return None
        while self.ready:
            key = self.ready.popleft()
            waiting = self.keys.get(key)
            if waiting is None or key in self.busy or not waiting[0].durable:
                continue
            if spec.messages_per_min:
                self.next_at = now + 60.0 / spec.messages_per_min
            return waiting[0]
        return None

    def next_due(self) -> float | None:
        """Loop time at which a sleeping row or the gap ends, if anything waits for that."""
        times = [self._sleeping[0][0]] if self._sleeping else []
        if self.ready:
            times.append(self.next_at)
        return min(times, default=None)

    def back(self, row: Row, due: float | None = None) -> None:
        """`row` was not settled: it stays first of its key, and goes again at `due` (loop time) or as soon as it may."""
        self.busy.discard(row.order_key)
        if due is None:
            self._offer(row.order_key, row)
        else:
            heapq.heappush(self._sleeping, (due, row.id, row.order_key))

    def done(self, row: Row) -> None:
        """`row` is settled: the next of its key may go."""
        key = row.order_key
        waiting = self.keys[key]
        if waiting[0] is row:
            waiting.popleft()
            self.busy.discard(key)
        else:
            waiting.remove(row)
        self.rows -= 1
        self.bytes -= row.size
        left = self._open[row.epoch] - 1
        if left:
            self._open[row.epoch] = left
        else:
            del self._open[row.epoch]
            if self._tail_epoch > self._epoch:
                self._advance()
        if not waiting:
            del self.keys[key]
        elif key not in self.busy and waiting[0].durable:
            self._offer(key, waiting[0])

    def _advance(self) -> None:
        before = self._epoch
        while self._epoch < self._tail_epoch and not self._open.get(self._epoch):
            self._epoch += 1
        if self._epoch != before and self._held:
            held, self._held = self._held, []
            for key in held:
                waiting = self.keys.get(key)
                if waiting is not None and key not in self.busy:
                    (self.ready if waiting[0].epoch <= self._epoch else self._held).append(key)


def _joins_keys(row: Row) -> bool:
    try:
        return is_link_or_merge(row.header or Header.of(row.body))
    except NotHl7:
        return False
