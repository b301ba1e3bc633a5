"""In which order the messages of one channel go to the server.

Secret: order keys. Rows with one key go one after the other, the next only when the server has answered for the last;
rows with different keys do not wait for each other. A link or merge message of a content-keyed channel is a barrier:
everything before it first, then it alone, then everything after (its two patients may have had two keys).
Promise: first in, first out per key, across retries and reconnects; a row that waits for its next try holds back its
own key only, and a barrier.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from typing import Final

from agent.metrics import ChannelMetrics
from agent.protocol.hl7 import Header, NotHl7, is_link_or_merge
from agent.protocol.text import legible
from agent.spec import AckMode, ChannelSpec
from agent.store.row import Content, Row

_NEVER: Final = math.inf


class Lane:
    """The rows of one channel that are on their way. `spec` None: the channel is no longer configured, its rows wait.

    A row enters, wakes when it may go, is taken, and comes back (at once, or at a time) or is done. A key is busy
    while its first row is taken, asleep while that waits for its next try, else ready once that row is durable and no
    barrier is before it.

    The second group of attributes is the backlog's (see there): what of this channel waits in the file.
    """

    __slots__ = (
        "_epoch",
        "_held",
        "_offered",
        "_open",
        "_ready",
        "_sleepers",
        "_tail_epoch",
        "asleep",
        "barred",
        "busy",
        "bytes",
        "bytes_taken",
        "deferred",
        "dozing",
        "keys",
        "last_id",
        "metrics",
        "name",
        "next_at",
        "recovered",
        "rows",
        "spec",
        "spilled",
        "unread",
        "unwritten",
    )

    def __init__(self, name: str, spec: ChannelSpec | None, metrics: ChannelMetrics) -> None:
        self.name = name
        self.spec = spec
        self.metrics = metrics
        self.keys: dict[bytes, deque[Row]] = {}
        self.busy: set[bytes] = set()
        self.asleep: dict[bytes, float] = {}  # key → loop time of the next try
        self.rows = 0
        self.bytes = 0
        self.bytes_taken = 0
        self.dozing = 0  # rows of sleeping keys
        self.next_at = 0.0  # messagesPerMin: not before this loop time
        self._ready: deque[bytes] = deque()
        self._offered: set[bytes] = set()  # the keys in `_ready`
        self._held: dict[bytes, None] = {}  # ready but for a barrier before them, in order
        self._sleepers: list[tuple[float, bytes]] = []
        self._epoch = 0
        self._tail_epoch = 0
        self._open: dict[int, int] = {}  # epoch → rows in memory

        self.spilled = True  # newcomers go to the file, behind the ones that wait there
        self.recovered = False  # what the last process left in flight was taken up
        self.unread = True  # the file may hold rows after `last_id`
        self.barred = False  # the next of them is a barrier, and some before it were passed over
        self.unwritten = 0  # rows on their way to the file
        self.last_id = 0  # the newest row that memory has or has deferred
        self.deferred: dict[bytes, int] = {}  # keys whose next rows were passed over in the file → the first of them

    def key_of(self, header: Header, body: bytes, remote: str) -> bytes:
        """The order key of a message: the channel's key fields, one for all with one worker, else its sender."""
        spec = self.spec
        assert spec is not None
        if spec.order_key is not None:
            if header.transcoded:  # in such a charset a character may hold the byte of a delimiter
                body = legible(body, header.transcoded).encode()
            return spec.order_key.read(body)
        if spec.max_workers == 1:
            return b""
        if spec.ack_mode is AckMode.ORIGINAL:
            return remote.encode()
        return remote.rpartition(":")[0].encode()

    def respec(self, spec: ChannelSpec | None) -> None:
        """Take new parameters. If keys mean something else from now on, what came before goes first."""
        old, self.spec = self.spec, spec
        self.next_at = 0.0
        if old is None or spec is None or _keys_by(old) == _keys_by(spec):
            return
        self._tail_epoch += 1
        if self.deferred:
            self.last_id = min(self.last_id, *self.deferred.values()) - 1
            self.unread, self.barred = True, False
            self.deferred.clear()

    @property
    def restless(self) -> bool:
        """Whether anything may have to be done for this lane."""
        return bool(self._ready or self.asleep) or self.unread or not self.recovered

    def enter(self, row: Row) -> None:
        """Put `row` behind the others of its key."""
        row.lane = self
        self.rows += 1
        self.bytes += row.size
        if self.is_barrier(row):
            row.epoch = self._tail_epoch = self._tail_epoch + 1
            self._tail_epoch += 1
        else:
            row.epoch = self._tail_epoch
        opened = self._open
        opened[row.epoch] = opened.get(row.epoch, 0) + 1
        key = row.order_key
        waiting = self.keys.get(key)
        if waiting is None:
            self.keys[key] = deque((row,))
        else:
            waiting.append(row)
            if key in self.asleep:
                self.dozing += 1

    def is_barrier(self, row: Row) -> bool:
        """Whether the row ties keys together, so that none of them may overtake it."""
        spec = self.spec
        if spec is None or spec.order_key is None or row.content is not Content.HL7:
            return False
        try:
            return is_link_or_merge(row.header or Header.of(row.body))
        except NotHl7:
            return False

    def wake(self, row: Row) -> None:
        """`row` is durable: it may go if it is the first of its key."""
        if self.keys[row.order_key][0] is row:
            self._offer(row.order_key)

    def may_go_at_once(self, row: Row) -> bool:
        """Whether `row`, just entered, could be taken now: nothing before it, a worker free, no gap to keep."""
        spec = self.spec
        if (
            spec is None
            or spec.messages_per_min is not None
            or self._ready
            or len(self.keys[row.order_key]) > 1
            or (spec.max_workers is not None and len(self.busy) >= spec.max_workers)
        ):
            return False
        if row.epoch > self._epoch:
            self._advance()
        return row.epoch <= self._epoch

    def next(self, now: float) -> Row | None:
        """The next row that may go to the server, or None; the caller takes it."""
        sleepers, asleep = self._sleepers, self.asleep
        while sleepers and sleepers[0][0] <= now:
            due, key = heapq.heappop(sleepers)
            if asleep.get(key) == due:
                self._rouse(key)
                self._offer(key)
        spec = self.spec
        if spec is None or now < self.next_at or (spec.max_workers is not None and len(self.busy) >= spec.max_workers):
            return None
        ready = self._ready
        while ready:
            key = ready.popleft()
            self._offered.discard(key)
            waiting = self.keys.get(key)
            if waiting is None or key in self.busy or key in asleep:
                continue
            head = waiting[0]  # perhaps not the one that was offered: a late answer may have settled that
            if head.durable and head.epoch <= self._epoch:
                return head
            self._offer(key)
        return None

    def take(self, row: Row) -> None:
        """`row`, the first of its key, is on its way: nothing else of its key goes until `back` or `done`."""
        self.busy.add(row.order_key)
        self.metrics.pending += 1
        self.bytes_taken += row.size
        spec = self.spec
        if spec is not None and spec.messages_per_min is not None:
            self.next_at = _NEVER  # until it is known when it went

    def went(self, now: float) -> None:
        """A row that was taken was handed over now, or will not be: the gap to the next one begins."""
        spec = self.spec
        if spec is not None and spec.messages_per_min is not None:
            self.next_at = now + 60.0 / spec.messages_per_min

    def forgo(self) -> None:
        """A row that was taken does not go now: no gap begins."""
        self.next_at = 0.0

    def release(self, row: Row) -> None:
        """`row` is no longer on its way."""
        self.metrics.pending -= 1
        self.bytes_taken -= row.size

    def next_due(self, now: float) -> float | None:
        """The next loop time after `now` at which a sleeping row or the gap ends, if anything waits for that."""
        times = [self._sleepers[0][0]] if self._sleepers else []
        if self._ready and self.next_at != _NEVER:
            times.append(self.next_at)
        return min((due for due in times if due > now), default=None)

    def back(self, row: Row, due: float | None = None) -> None:
        """`row` was not settled: it stays first of its key, and goes again at `due` (loop time) or when it may."""
        key = row.order_key
        self.busy.discard(key)
        if due is None:
            self._offer(key)
        else:
            self.sleep(row, due)

    def sleep(self, row: Row, due: float) -> None:
        """`row`, if it is the first of its key, waits until `due`."""
        key = row.order_key
        waiting = self.keys[key]
        if waiting[0] is row and key not in self.asleep:
            self.asleep[key] = due
            self.dozing += len(waiting)
            heapq.heappush(self._sleepers, (due, key))

    def done(self, row: Row) -> None:
        """`row` is settled: the next of its key may go."""
        key = row.order_key
        waiting = self.keys[key]
        if waiting[0] is row:
            if key in self.asleep:
                self._rouse(key)
            waiting.popleft()
            self.busy.discard(key)
        else:
            waiting.remove(row)
            if key in self.asleep:
                self.dozing -= 1
        if not waiting:
            del self.keys[key]
            passed_over = self.deferred.pop(key, None) if self.deferred else None
            if passed_over is not None:
                self.last_id = min(self.last_id, passed_over - 1)
                self.unread, self.barred = True, False
        self.rows -= 1
        self.bytes -= row.size
        left = self._open[row.epoch] - 1
        if left:
            self._open[row.epoch] = left
        else:
            del self._open[row.epoch]
            if self._tail_epoch > self._epoch:
                self._advance()
        if waiting:
            self._offer(key)

    def _rouse(self, key: bytes) -> None:
        del self.asleep[key]
        self.dozing -= len(self.keys[key])

    def _offer(self, key: bytes) -> None:
        head = self.keys[key][0]
        if key in self.busy or key in self.asleep or key in self._offered or not head.durable:
            return
        if head.epoch > self._epoch:
            self._advance()
            if head.epoch > self._epoch:
                self._held[key] = None
                return
            if key in self._offered:  # the barrier was lifted just now
                return
        self._ready.append(key)
        self._offered.add(key)

    def _advance(self) -> None:
        """Lift the barriers that nothing is before any more."""
        before = self._epoch
        while self._epoch < self._tail_epoch and not self._open.get(self._epoch):
            self._epoch += 1
        if self._epoch != before and self._held:
            held, self._held = self._held, {}
            for key in held:
                if key in self.keys:
                    self._offer(key)


def _keys_by(spec: ChannelSpec) -> tuple[object, ...]:
    return spec.order_key, spec.max_workers == 1, spec.ack_mode
