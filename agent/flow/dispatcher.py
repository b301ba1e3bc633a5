"""Hand every stored message to the server, in order, and learn what became of it.

Secret: the window (how much may be unanswered) and whose turn it is among the channels.
Promise: nothing is written to a socket before the disk knows that it will be; nothing counts as delivered before the
server has said so; a channel whose server side is slow or sick delays no other.

A row in memory is QUEUED (waits its turn, or sleeps until its next try), claimed (INFLIGHT on its way to the disk)
or in flight (on the socket, in `_sent`). One whose object is not on the server yet is taken by the uploads first, and
stays QUEUED meanwhile. Losing the link makes in-flight rows ambiguous: `guaranteed` sends them
again, marked by a callback with `#attempt`; the other modes leave them to a person.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from agent.errors import Finding, PeerError
from agent.flow.answers import Answers
from agent.flow.backlog import PAGE_BYTES, WAITING_ROWS, Backlog
from agent.flow.bodies import CONTENT_TYPES, HL7_V2, body_text
from agent.flow.callbacks import Callbacks
from agent.flow.lanes import Lane
from agent.flow.outcomes import Outcomes
from agent.flow.receipts import Receipts
from agent.flow.uploads import Uploads
from agent.flow.verdict import Accepted, Refused, TryLater, judge
from agent.metrics import ChannelMetrics
from agent.protocol.envelope import TransmitRequest, TransmitResponse, encode
from agent.spec import ChannelSpec, Dicom
from agent.store.row import Content, Row, State
from agent.store.spool import Spool

_LANE_SHARE: Final = 2  # one channel may fill this fraction of the window, so that a stuck one leaves room
_TICK_S: Final = 0.5
_TOKEN_BYTES: Final = 2_048  # what a token may take as long as there was none yet


class Link(Protocol):
    """The uplink as the dispatcher sees it. `writable`: live, and the network keeps up."""

    @property
    def live(self) -> bool: ...

    @property
    def writable(self) -> bool: ...

    def send(self, frames: list[bytes]) -> None: ...


@dataclass(frozen=True, slots=True)
class Window:
    """How much may be unanswered at once, and how long an answer may take before it counts as lost."""

    frames: int = 2_000
    bytes: int = 32 << 20
    answer_within_s: float = 60.0


class Dispatcher:
    """One per process; owns the lanes. Called on the loop by the spool, the uplink and the intake.

    `uploads`: where objects go before their messages; None where no channel brings any.
    """

    def __init__(
        self,
        *,
        answers: Answers,
        token: Callable[[], str],
        agent_id: str,
        window: Window,
        now: Callable[[], float],
        now_ms: Callable[[], int],
        uploads: Uploads | None = None,
    ) -> None:
        self.lanes: dict[str, Lane] = {}
        self.uploads = uploads
        self._answers = answers
        self._token = token
        self._agent_id = agent_id
        self._window = window
        self._now = now
        self._now_ms = now_ms
        self._sent: dict[int, Row] = {}  # in the order of sending
        self._busy_rows = 0
        self._busy_bytes = 0
        self._turn = 0
        self._alarm: asyncio.TimerHandle | None = None
        self._drained: asyncio.Event | None = None
        self._spool: Spool
        self._link: Link
        self._backlog: Backlog
        self._rows: dict[int, Row]  # the backlog's
        self._callbacks: Callbacks
        self._receipts: Receipts
        self._outcomes: Outcomes

    def connect(self, spool: Spool, link: Link) -> None:
        """Complete the circle: the spool and the uplink know the dispatcher, and it knows them."""
        self._spool = spool
        self._link = link
        self._backlog = Backlog(spool, self.lanes, now=self._now, now_ms=self._now_ms)
        self._rows = self._backlog.rows
        self._callbacks = Callbacks(self._agent_id, spool.instance)
        self._receipts = Receipts(self._callbacks, spool, self._rows, self._sent)
        self._outcomes = Outcomes(self._answers, self._backlog, spool, now=self._now, now_ms=self._now_ms)
        self._answers.replies.begin_after(spool.last_id)

    def configure(self, name: str, spec: ChannelSpec | None, metrics: ChannelMetrics) -> Lane:
        """Carry channel `name` by `spec` from now on; None parks it. What is stored for it is picked up."""
        lane = self.lanes.get(name)
        if lane is None:
            lane = self.lanes[name] = Lane(name, None, metrics)
        lane.respec(spec)
        self._fetch(lane)
        self.pump()
        return lane

    def _fetch(self, lane: Lane) -> None:
        """Take up what waits in the file, as far as there is room: what was interrupted goes before all else."""
        if not lane.recovered and lane.spec is not None:
            for row in self._backlog.interrupted(lane):
                self._outcomes.interrupted(row, lane)
        if self._backlog.wants_more(lane):
            self._backlog.refill(lane)

    # ---- a message arrives

    def arrive(self, lane: Lane, row: Row) -> None:
        """Take a row that is about to be stored; its state says whether it will be handed over as soon as it is."""
        if lane.spilled or lane.rows >= WAITING_ROWS or lane.bytes > PAGE_BYTES:  # the cheap half of the question
            backlog = self._backlog
            if lane.spilled or backlog.full_for(lane):
                backlog.set_aside(lane, row)
                return
        self._rows[row.id] = row
        lane.enter(row)
        lane.last_id = row.id
        if row.content is not Content.DICOM and lane.may_go_at_once(row) and self._may_send(lane):
            self._claim(lane, row)
        else:
            row.text = None

    def durable(self, rows: list[Row]) -> None:
        """The spool has committed these rows, in the order they came."""
        go: list[Row] = []
        offered = False
        for row in rows:
            lane: Lane | None = row.lane
            if row.state is State.INFLIGHT:
                go.append(row)
            elif lane is None:
                self._backlog.written(row)
                offered = True
            else:
                lane.wake(row)
                offered = True
        if go:
            self._hand_over(go)
        if offered:
            self.pump()

    def claimed(self, rows: list[Row]) -> None:
        """INFLIGHT is on disk for these rows."""
        now = self._now()
        for row in rows:
            row.lane.went(now)
        self._hand_over([row for row in rows if row.state is State.INFLIGHT and row.id not in self._sent])
        self.pump()

    def refused(self, rows: list[Row]) -> None:
        """These rows were not stored, and are not ours."""
        for row in rows:
            if row.lane is None:
                self._backlog.unwritable(row)
                continue
            if row.state is State.INFLIGHT:
                self._release(row)
            self._backlog.leave(row)

    def unclaimed(self, rows: list[Row]) -> None:
        """The disk did not take these claims: the rows wait for a disk that does."""
        for row in rows:
            row.lane.went(self._now())
            if row.state is State.INFLIGHT and row.id not in self._sent:
                self._unclaim(row)

    # ---- handing over

    def pump(self) -> None:
        """Claim what may go now: each channel in turn, one row at a time, while the window has room."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        self._claim_all()
        if self._drained is not None and not self._busy_rows:
            self._drained.set()

    def _claim_all(self) -> None:
        hungry = [lane for lane in self.lanes.values() if lane.restless]
        if not hungry or not self._link.writable or self._spool.stuck:
            return
        now = self._now()
        self._turn += 1
        start = self._turn % len(hungry)
        hungry = waiting = hungry[start:] + hungry[:start]
        for lane in hungry:
            self._fetch(lane)
        while hungry:
            left: list[Lane] = []
            for lane in hungry:
                if self._may_send(lane) and (row := lane.next(now)) is not None:
                    left.append(lane)
                    if self._drained is not None and not self._answers.replies.owes(row):
                        continue
                    if self.uploads is not None and self.uploads.lacks(row):
                        lane.take(row)
                        self.uploads.begin(row, self._uploaded)
                    else:
                        self._claim(lane, row)
                        self._spool.claim(row)
            hungry = left
        due = min((at for lane in waiting if (at := lane.next_due(now)) is not None), default=None)
        if due is not None and due - now < _TICK_S:
            self._alarm = asyncio.get_running_loop().call_later(due - now, self.pump)

    def _may_send(self, lane: Lane) -> bool:
        """A channel with nothing on its way always may: no other, however stuck, can keep the window from it."""
        if not self._link.writable or self._spool.stuck:
            return False
        if self.uploads is not None and self.uploads.full and lane.spec and isinstance(lane.spec.wire, Dicom):
            return False
        window = self._window
        taken = lane.metrics.pending
        return not taken or (
            self._busy_rows < window.frames
            and self._busy_bytes < window.bytes
            and taken * _LANE_SHARE < window.frames
            and lane.bytes_taken * _LANE_SHARE < window.bytes
        )

    def _claim(self, lane: Lane, row: Row) -> None:
        row.state = State.INFLIGHT
        row.attempts += 1
        lane.take(row)
        self._busy_rows += 1
        self._busy_bytes += row.size

    def _release(self, row: Row) -> None:
        row.lane.release(row)
        self._busy_rows -= 1
        self._busy_bytes -= row.size

    def _uploaded(self, row: Row, trouble: Refused | TryLater | None) -> None:
        """The object of `row` is on the server, and the row may go; or why it is not."""
        row.lane.forgo()
        row.lane.release(row)
        if trouble is None:
            row.lane.back(row)
        else:
            row.attempts += 1
            self._outcomes.conclude(row, trouble)
        self.pump()

    def _unclaim(self, row: Row) -> None:
        """Nothing was written: as if it had never been tried."""
        row.state = State.QUEUED
        row.attempts -= 1
        row.text = None
        self._release(row)
        self._spool.settle(row)
        row.lane.back(row)

    def _hand_over(self, rows: list[Row]) -> None:
        if not self._link.live:
            for row in rows:
                self._unclaim(row)
            return
        token = self._token()
        now = self._now()
        name = self._callbacks.of
        sent = self._sent
        frames: list[bytes] = []
        for row in rows:
            text = row.text
            if text is None or row.seq is not None:
                text = self._wire_text(row)
                if text is None:
                    continue
            content_type = HL7_V2 if row.content is Content.HL7 else CONTENT_TYPES[row.content]
            frames.append(encode(TransmitRequest(token, row.channel, row.remote, content_type, text, name(row))))
            row.text = None
            row.sent_at = now
            sent[row.id] = row
            if row.attempts > 1:
                row.lane.metrics.retried += 1
        self._link.send(frames)

    def _wire_text(self, row: Row) -> str | None:
        """The body as the server gets it; None if the channel's encoding has changed since and cannot read it."""
        spec: ChannelSpec | None = row.lane.spec
        reference = self.uploads.reference(row) if self.uploads is not None and row.content is Content.DICOM else None
        try:
            return body_text(row, spec, reference)
        except PeerError:
            self._release(row)
            self._outcomes.hold(row, "the channel's encoding cannot read this message any more")
            return None

    # ---- answers

    def answered(self, frames: Iterable[TransmitResponse]) -> None:
        """`agent:transmit:response` frames of one socket read."""
        now = self._now()
        for frame in frames:
            verdict = judge(frame)
            row = self._receipts.row_of(frame, verdict)
            if row is None:
                if type(verdict) is Accepted:
                    self._learn(frame, verdict)
                continue
            if self._sent.pop(row.id, None) is not None:
                row.lane.metrics.rtt.record(now - row.sent_at)
            if row.state is State.INFLIGHT:
                self._release(row)
            self._outcomes.conclude(row, verdict)
            if row.content is Content.DICOM and row.state is State.PROCESSED and self.uploads is not None:
                self.uploads.settled(row)
        self.pump()

    def _learn(self, frame: TransmitResponse, verdict: Accepted) -> None:
        row = self._receipts.given_up(frame)
        lane = self.lanes.get(row.channel) if row is not None else None
        if row is not None and lane is not None:
            self._outcomes.after_all(row, lane, verdict)

    def link_lost(self, *, too_large: bool) -> None:
        """The socket is gone. `too_large`: the server closed it with 1009, so one of our frames was above its limit."""
        rows = list(self._sent.values())
        self._sent.clear()
        for row in rows:
            self._release(row)
        self._outcomes.lost(rows, too_large=too_large)
        if self._drained is not None:
            self.pump()

    async def drain(self) -> None:
        """Begin only what a sender waits for, until nothing is in flight: so a stop makes nothing ambiguous."""
        self._drained = asyncio.Event()
        self.pump()
        await self._drained.wait()

    async def run(self) -> None:
        """Give up waiting for answers that do not come, and keep the lanes moving."""
        while True:
            await asyncio.sleep(_TICK_S)
            self.expire()

    def expire(self) -> None:
        """Count as lost what the server has not answered in time."""
        within_s = self._window.answer_within_s
        overdue = self._now() - within_s
        late: list[Row] = []
        for row in self._sent.values():
            if row.sent_at > overdue:
                break
            late.append(row)
        for row in late:
            del self._sent[row.id]
            self._release(row)
            row.ambiguous = True
            self._outcomes.conclude(row, TryLater(None, f"no answer from the server in {within_s:g} s"))
        self.pump()

    @property
    def too_large(self) -> Finding | None:
        """A message that the server would not take for its size."""
        return self._outcomes.too_large

    @property
    def in_flight(self) -> int:
        """Frames on the socket that the server has not answered."""
        return len(self._sent)

    @property
    def token_bytes(self) -> int:
        """What the access token adds to each frame."""
        return len(self._token()) or _TOKEN_BYTES
