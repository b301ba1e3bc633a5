"""Keep durable messages for remotes until each remote has answered, and hand them over in order.

Secret: when a stored message goes to its remote, and what an outcome means for it.
Promise: `stored` is told only when the message is on the platter. For each remote: first in, first out, one at a time,
across failures, restarts and upgrades. Nothing is written to a connection before the disk knows that it will be. A
message ends PROCESSED, REJECTED, FAILED or HELD, and can be found; it is sent a second time only where nobody can know
whether the first one arrived, and is marked then.

A row of a remote waits (QUEUED), sleeps until its next try (QUEUED, with a due time), or is the one under way
(INFLIGHT, on disk before the pool gets it). Power loss leaves QUEUED rows certainly unsent and at most one INFLIGHT row
a remote, which is ambiguous: `guaranteed` sends it again, the other modes leave it to a person. A remote that refuses
to commit (CE) has not taken the message: it is tried again like one that cannot be reached.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from functools import partial
from math import inf
from typing import Final, assert_never

from agent.errors import ConfigError, Finding
from agent.failures import Failure, Kind
from agent.flow.letters import TAKEN, Answered, Letter, NotSent, Outcome, Unanswered
from agent.flow.policy import attempt_limit, backoff_s
from agent.flow.remotequeue import PAGE_BYTES, PAGE_ROWS, Parcel, RemoteQueue
from agent.flow.remotes import Remote, Remotes
from agent.spec import Astm, RetryMode
from agent.store.row import AckState, Content, Direction, Row, State
from agent.store.spool import Spool, SpoolEvents
from agent.store.sqlite import SpoolTrouble

RETRY_S: Final = 10.0  # when the disk, or an address that cannot be used, is looked at again
_ACCEPTED: Final = ("AA", "CA", TAKEN)


class Outbox:
    """One per process. `tell(row, remote, outcome)` answers the server, which calls the remote so; whether it could.
    `allowed`: whether anything may be sent at all. The spool tells of rows through `durable`, `claimed`, `refused` and
    `unclaimed`, each of which gives back the rows that are not the outbox's."""

    def __init__(
        self,
        remotes: Remotes,
        *,
        tell: Callable[[Row, str, Outcome], bool],
        allowed: Callable[[], bool],
        now_ms: Callable[[], int],
    ) -> None:
        self._remotes = remotes
        self._tell = tell
        self._allowed = allowed
        self._now_ms = now_ms
        self._lanes: dict[str, RemoteQueue] = {}
        self._random = random.Random()
        self._loop = asyncio.get_running_loop()
        self._awaited = 0  # rows of ours in commits that have not returned
        self._stopping = False
        self._spool: Spool
        remotes.kept = self._lanes.__contains__

    def connect(self, spool: Spool) -> None:
        """Learn for whom the file holds messages; `pump` begins to send them. Raises SpoolTrouble."""
        self._spool = spool
        for url in spool.shelf.open_channels(Direction.OUT):
            self._lane(url).unread = True

    def stop(self) -> None:
        """Begin nothing more; everything is on disk."""
        self._stopping = True
        for lane in self._lanes.values():
            if lane.timer is not None:
                lane.timer.cancel()
                lane.timer = None

    # ---- a message arrives

    def accept(self, remote: Remote, parcel: Parcel) -> None:
        """Store a message, and send it when its turn has come."""
        spool, spec, message = self._spool, remote.spec, parcel.message
        if (trouble := spool.trouble) is not None:
            parcel.refused(_not_stored(trouble))
            return
        if self._stopping:
            parcel.refused(Failure(Kind.STOPPING, "the message is not stored: the agent is stopping", "push it again"))
            return
        lane = self._lane(spec.url)
        lane.remote = remote
        row = Row(
            spool.next_id(),
            spec.url,
            spec.where,
            b"",
            message.control_id,
            message.message_type,
            self._now_ms(),
            message.content,
            direction=Direction.OUT,
            callback=parcel.callback,
            content=Content.ASTM if isinstance(spec.wire, Astm) else Content.HL7,
        )
        lane.parcels[row.id] = parcel
        if lane.full:
            row.lane = lane
            lane.aside.add(row.id)
        else:
            lane.enter(row)
            if lane.rows[0] is row and self._may_begin(lane):
                self._begin(lane, row)
        self._awaited += 1
        spool.put(row)

    # ---- what the spool tells

    def ahead_of(self, others: SpoolEvents) -> SpoolEvents:
        """What a spool is to tell: rows of ours come here, all others go on to `others`."""

        def durable(rows: list[Row]) -> None:
            if rest := self.durable(rows):
                others.on_durable(rest)

        def claimed(rows: list[Row]) -> None:
            if rest := self.claimed(rows):
                others.on_claimed(rest)

        def refused(rows: list[Row], trouble: SpoolTrouble) -> None:
            if rest := self.refused(rows, trouble):
                others.on_refused(rest, trouble)

        def unclaimed(rows: list[Row]) -> None:
            if rest := self.unclaimed(rows):
                others.on_unclaimed(rest)

        return SpoolEvents(durable, claimed, refused, unclaimed, others.on_health)

    def durable(self, rows: list[Row]) -> list[Row]:
        """These rows are on disk."""
        mine, others = self._sort(rows)
        for row in mine:
            lane: RemoteQueue = row.lane
            if (parcel := lane.parcels.get(row.id)) is not None:
                parcel.stored(row.id)
            if row.id in lane.aside:
                lane.aside.discard(row.id)
                if row.id > lane.last_id:  # else it was read from the file in between
                    lane.unread = True
                    self._spool.forget(row)
                    row.body = b""
            elif row is lane.current:
                self._hand_over(lane, row)
            self._pump(lane)
        return others

    def claimed(self, rows: list[Row]) -> list[Row]:
        """INFLIGHT is on disk for these rows."""
        mine, others = self._sort(rows)
        for row in mine:
            if row is row.lane.current:
                self._hand_over(row.lane, row)
        return others

    def refused(self, rows: list[Row], trouble: SpoolTrouble) -> list[Row]:
        """These rows were not stored."""
        mine, others = self._sort(rows)
        for row in mine:
            lane: RemoteQueue = row.lane
            parcel = lane.parcels.get(row.id)
            if row is lane.current:
                lane.current = None
            if row.id in lane.aside:
                lane.aside.discard(row.id)
                lane.parcels.pop(row.id, None)
            else:
                lane.leave(row)
            if parcel is not None:
                parcel.refused(_not_stored(trouble))
        return others

    def unclaimed(self, rows: list[Row]) -> list[Row]:
        """The disk did not take these claims: the rows wait for a disk that does."""
        mine, others = self._sort(rows)
        for row in mine:
            if row is row.lane.current:
                self._back(row.lane, row)
                self._sleep(row.lane, RETRY_S)
        return others

    def _sort(self, rows: list[Row]) -> tuple[list[Row], list[Row]]:
        """Ours, and the others; without a look at each as long as none of ours is awaited."""
        if not self._awaited:
            return [], rows
        mine = [row for row in rows if row.direction is Direction.OUT]
        if not mine:
            return [], rows
        self._awaited -= len(mine)
        return mine, [row for row in rows if row.direction is Direction.IN]

    # ---- whose turn it is

    def pump(self) -> None:
        """The disk is well again, the configuration is another, or sending is allowed: look at every remote anew."""
        for lane in list(self._lanes.values()):
            if lane.remote is None and lane.timer is not None:
                lane.timer.cancel()
                lane.timer = None
            self._pump(lane)

    def _pump(self, lane: RemoteQueue) -> None:
        if not self._may_begin(lane):
            return
        if lane.is_empty():
            self._lanes.pop(lane.url, None)
            return
        if not self._found(lane):
            return
        if not lane.rows and lane.unread:
            self._refill(lane)
            if lane.is_empty():
                self._lanes.pop(lane.url, None)
        if not lane.rows or not lane.rows[0].durable:
            return
        row = lane.rows[0]
        wait_s = (row.due_ms - self._now_ms()) / 1000
        if wait_s > 0:
            assert lane.remote is not None
            longest_s = max(lane.remote.spec.retry.max_ms / 1000, RETRY_S)  # due later: written under another clock
            self._sleep(lane, min(wait_s, longest_s))
            return
        self._begin(lane, row)
        self._awaited += 1
        self._spool.claim(row)

    def _may_begin(self, lane: RemoteQueue) -> bool:
        return (
            lane.current is None
            and lane.timer is None
            and not self._stopping
            and not self._spool.stuck
            and self._allowed()
        )

    def _found(self, lane: RemoteQueue) -> bool:
        """Have the lane's remote by the present configuration; an address that cannot be used is looked at again."""
        try:
            lane.remote = self._remotes.find(lane.url)
        except ConfigError as error:
            lane.remote = None
            lane.refused = error.findings
            self._sleep(lane, RETRY_S)
            return False
        lane.refused = ()
        return True

    def _refill(self, lane: RemoteQueue) -> None:
        """Read the next page; first of all what the last process left under way."""
        spool = self._spool
        if not lane.last_id:
            try:
                interrupted = spool.shelf.interrupted(lane.url, Direction.OUT)
            except SpoolTrouble:
                self._sleep(lane, RETRY_S)  # the spool's own watch finds the same
                return
            for row in interrupted:
                self._interrupted(lane, row)
        rows = spool.queued(lane.url, lane.last_id, limit=PAGE_ROWS, limit_bytes=PAGE_BYTES, direction=Direction.OUT)
        for row in rows:
            lane.enter(row)
        lane.unread = bool(rows) or spool.stuck

    def _interrupted(self, lane: RemoteQueue, row: Row) -> None:
        assert lane.remote is not None
        lane.enter(row)
        row.ambiguous = True
        if lane.remote.spec.retry.mode is RetryMode.GUARANTEED:
            row.state = State.QUEUED  # the file says INFLIGHT, which is what a crash now should find
            return
        row.reason = "the agent stopped between sending this message and the remote's answer"
        row.ack = AckState.UNDELIVERED if row.callback else AckState.NOT_OWED
        self._settle(lane, row, State.HELD)

    def _sleep(self, lane: RemoteQueue, seconds: float) -> None:
        lane.timer = self._loop.call_later(seconds, self._wake, lane)

    def _wake(self, lane: RemoteQueue) -> None:
        lane.timer = None
        self._pump(lane)

    # ---- on its way

    def _begin(self, lane: RemoteQueue, row: Row) -> None:
        lane.current = row
        row.state = State.INFLIGHT
        row.attempts += 1

    def _back(self, lane: RemoteQueue, row: Row) -> None:
        """Nothing was written: as if it had never been tried."""
        lane.current = None
        row.state = State.QUEUED
        row.attempts -= 1
        self._spool.settle(row)

    def _hand_over(self, lane: RemoteQueue, row: Row) -> None:
        remote, parcel = lane.remote, lane.parcels.get(row.id)
        if remote is None or self._stopping or not self._allowed():
            self._back(lane, row)
            return
        if row.attempts > 1:
            remote.metrics.retried += 1
        return_ack = parcel.return_ack if parcel is not None else None
        remote.pool.push(Letter(row.body, row.control_id, return_ack, partial(self._done, lane, row, remote), inf))

    def _done(self, lane: RemoteQueue, row: Row, remote: Remote, outcome: Outcome) -> None:
        lane.current = None
        self._remotes.note(remote, outcome)
        match outcome:
            case Answered(code="CE"):
                row.ack_code = "CE"
                self._try_later(lane, row, remote, outcome, "the remote could not commit the message (CE)")
            case Answered(ack=ack, code=code):
                row.answer, row.ack_code = ack or None, code
                row.reason = "" if code in _ACCEPTED else f"the remote refused the message ({code})"
                self._finish(lane, row, outcome, State.PROCESSED if code in _ACCEPTED else State.REJECTED)
            case NotSent(failure=failure) if failure.kind is Kind.STOPPING:
                self._back(lane, row)
            case NotSent(failure=failure):
                self._try_later(lane, row, remote, outcome, failure.for_log)
            case Unanswered(committed=True):
                row.ack_code = "CA"
                self._finish(lane, row, outcome, State.PROCESSED)
            case Unanswered(failure=failure):
                row.ambiguous = True
                if remote.spec.retry.mode is RetryMode.GUARANTEED:
                    self._try_later(lane, row, remote, outcome, failure.for_log)
                else:
                    row.reason = f"{failure.for_log}; a person decides whether to send it again"
                    self._finish(lane, row, outcome, State.HELD)
            case _ as never:
                assert_never(never)
        self._pump(lane)

    def _try_later(self, lane: RemoteQueue, row: Row, remote: Remote, outcome: Outcome, reason: str) -> None:
        policy = remote.spec.retry
        limit = attempt_limit(policy)
        if limit and row.attempts >= limit:
            row.reason = f"given up after {row.attempts} {'try' if row.attempts == 1 else 'tries'}: {reason}"
            self._finish(lane, row, outcome, State.FAILED)
            return
        wait_s = backoff_s(policy, row.attempts, self._random)
        row.reason = reason
        row.state = State.QUEUED
        row.due_ms = self._now_ms() + int(wait_s * 1000)
        self._spool.settle(row)

    def _finish(self, lane: RemoteQueue, row: Row, outcome: Outcome, state: State) -> None:
        parcel = lane.parcels.get(row.id)
        told = self._tell(row, parcel.remote if parcel is not None else row.channel, outcome)
        if not row.callback:
            row.ack = AckState.NOT_OWED
        else:
            row.ack = AckState.DELIVERED if told else AckState.UNDELIVERED
        self._settle(lane, row, state)

    def _settle(self, lane: RemoteQueue, row: Row, state: State) -> None:
        row.state = state
        lane.leave(row)
        self._spool.settle(row)

    # ---- for people

    def stored(self, url: str) -> tuple[int, float | None]:
        """How many messages wait for a remote, the one under way included, and since when the oldest (ms, epoch)."""
        lane = self._lanes.get(url)
        oldest_ms = lane.rows[0].received_ms if lane is not None and lane.rows else None
        return self._spool.tally.open_to[url], oldest_ms

    def urls(self) -> list[str]:
        """The remotes for which something waits."""
        return list(self._lanes)

    def findings(self) -> Iterator[Finding]:
        """Addresses for which something waits and that cannot be used."""
        for lane in self._lanes.values():
            yield from lane.refused

    def _lane(self, url: str) -> RemoteQueue:
        lane = self._lanes.get(url)
        if lane is None:
            lane = self._lanes[url] = RemoteQueue(url)
        return lane


def _not_stored(trouble: SpoolTrouble) -> Failure:
    return Failure(Kind.NOT_STORED, f"the message is not stored: {trouble}", trouble.hint)
