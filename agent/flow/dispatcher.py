"""Hand every stored message to the server, in order, and learn what became of it.

Secret: the window (how much may be unanswered), whose turn it is among the channels, and the policy of second tries.
Promise: nothing is written to a socket before the disk knows that it will be; nothing counts as delivered before the server has
said so; a channel whose server side is slow or sick delays no other; memory is bounded, the rest waits in the file.

A row in memory is QUEUED (waits its turn, or sleeps until its next try), claimed (INFLIGHT on its way to the disk) or in flight
(on the socket, in `_sent`). Losing the link makes in-flight rows ambiguous: `guaranteed` sends them again, marked by a callback
with `#attempt`; the other modes leave them to a person.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Protocol, assert_never

from agent.errors import Finding, Severity
from agent.flow.answers import Answers
from agent.flow.lanes import PAGE_BYTES, PAGE_ROWS, Lane
from agent.flow.verdict import Accepted, Refused, TryLater, Verdict, judge
from agent.metrics import ChannelMetrics
from agent.protocol.envelope import TransmitRequest, TransmitResponse, encode
from agent.protocol.hl7 import normalize, read_ack, with_sequence_number
from agent.spec import ChannelSpec, RetryMode, RetryPolicy
from agent.store.row import AckState, Row, State
from agent.store.spool import Spool

HL7_V2: Final = "x-application/hl7-v2+er7"
_LANE_SHARE: Final = 2  # one channel may fill this fraction of the window, so that a stuck one leaves room
_MEMORY_BYTES: Final = 48 << 20  # bodies of waiting rows in memory, all channels together
_TICK_S: Final = 0.5
_NORMAL_ATTEMPTS: Final = 10  # the limit of `normal` where the policy names none
_SUSPECT_BYTES: Final = 65_536  # a frame below this is never what a server closes the socket for (1009)


class Link(Protocol):
    """The uplink as the dispatcher sees it."""

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
    """One per process; owns the lanes. Called on the loop by the spool, the uplink and the intake."""

    def __init__(
        self,
        *,
        answers: Answers,
        token: Callable[[], str],
        agent_id: str,
        window: Window,
        now: Callable[[], float],
        now_ms: Callable[[], int],
    ) -> None:
        self.lanes: dict[str, Lane] = {}
        self.too_large: Finding | None = None
        self._answers = answers
        self._token = token
        self._agent_id = agent_id
        self._window = window
        self._now = now
        self._now_ms = now_ms
        self._random = random.Random()
        self._rows: dict[int, Row] = {}
        self._sent: dict[int, Row] = {}
        self._busy_rows = 0
        self._busy_bytes = 0
        self._turn = 0
        self._alarm: asyncio.TimerHandle | None = None
        self._spool: Spool
        self._link: Link
        self._prefix = ""

    def connect(self, spool: Spool, link: Link) -> None:
        """Complete the circle: the spool and the uplink know the dispatcher, and it knows them."""
        self._spool = spool
        self._link = link
        instance = spool.instance
        # the shape of an RFC 9562 UUID: constant for this spool, the last twelve digits are the row
        self._prefix = f"Agent/{self._agent_id}-{instance[:8]}-{instance[8:12]}-4{instance[12:15]}-a{instance[15:18]}-"

    # ---- which channels there are

    def configure(self, name: str, spec: ChannelSpec | None, metrics: ChannelMetrics) -> Lane:
        """Carry channel `name` by `spec` from now on; None parks it. What is stored for it is picked up."""
        lane = self.lanes.get(name)
        if lane is None:
            lane = self.lanes[name] = Lane(name, None, metrics)
            lane.spilled = True
        first = lane.spec is None and spec is not None
        lane.respec(spec)
        if first:
            self._recover(lane)
        self.pump()
        return lane

    def _recover(self, lane: Lane) -> None:
        """Take up what the last process left in flight, before anything that came after it."""
        assert lane.spec is not None
        for row in self._spool.shelf.interrupted(lane.name):
            if row.id in self._rows:
                continue
            row.ambiguous = True
            if lane.spec.retry.mode is RetryMode.GUARANTEED:
                self._enter(lane, row)
                lane.wake(row)
            else:
                row.state = State.HELD
                row.ack = AckState.UNDELIVERED
                row.reason = "the agent stopped between sending this message and its answer"
                self._spool.settle(row)
        self._refill(lane)

    # ---- a message arrives

    def arrive(self, lane: Lane, row: Row) -> None:
        """Take a row that is about to be stored; its state says whether it will be handed over as soon as it is."""
        if lane.spilled or lane.rows >= 2 * PAGE_ROWS or self._memory_full(lane):
            lane.spilled = True
            lane.pending_spilled += 1
            row.text = None
            return
        self._enter(lane, row)
        lane.last_id = row.id
        if self._may_send(lane) and lane.may_go_at_once(row):
            self._claim(lane, row)
        else:
            row.text = None

    def durable(self, rows: list[Row]) -> None:
        """The spool has committed these rows, in the order they came."""
        go: list[Row] = []
        offered = False
        for row in rows:
            lane: Lane | None = row.lane
            if lane is None:
                lane = self.lanes[row.channel]
                lane.pending_spilled -= 1
                self._spool.forget(row)
                row.body = b""
                offered = True
            elif row.state is State.INFLIGHT:
                go.append(row)
            else:
                lane.wake(row)
                offered = True
        if go:
            self._hand_over(go)
        if offered:
            self.pump()

    def claimed(self, rows: list[Row]) -> None:
        """INFLIGHT is on disk for these rows."""
        self._hand_over([row for row in rows if row.state is State.INFLIGHT and row.id not in self._sent])

    def refused(self, rows: list[Row]) -> None:
        """These rows were not stored, and are not ours."""
        for row in rows:
            lane: Lane | None = row.lane
            if lane is None:
                self.lanes[row.channel].pending_spilled -= 1
                continue
            if row.state is State.INFLIGHT:
                self._release(row)
            self._leave(row)

    def unclaimed(self, rows: list[Row]) -> None:
        """The disk did not take these claims: the rows wait for a disk that does."""
        for row in rows:
            if row.state is State.INFLIGHT:
                self._unclaim(row)

    # ---- handing over

    def pump(self) -> None:
        """Claim what may go now: each channel in turn, one row at a time, while the window has room."""
        lanes = list(self.lanes.values())
        if not lanes or not self._link.live or self._spool.stuck:
            return
        now = self._now()
        start = self._turn % len(lanes)
        self._turn += 1
        hungry = lanes[start:] + lanes[:start]
        while hungry:
            left: list[Lane] = []
            for lane in hungry:
                if not self._may_send(lane):
                    continue
                if lane.spilled and lane.rows < PAGE_ROWS // 2:
                    self._refill(lane)
                row = lane.next(now)
                if row is not None:
                    self._claim(lane, row)
                    self._spool.claim(row)
                    left.append(lane)
            hungry = left
        self._set_alarm()

    def _may_send(self, lane: Lane) -> bool:
        window = self._window
        return (
            self._link.live
            and self._link.writable
            and not self._spool.stuck
            and self._busy_rows < window.frames
            and self._busy_bytes < window.bytes
            and lane.metrics.pending < window.frames // _LANE_SHARE
        )

    def _claim(self, lane: Lane, row: Row) -> None:
        row.state = State.INFLIGHT
        row.attempts += 1
        lane.busy.add(row.order_key)
        lane.metrics.pending += 1
        self._busy_rows += 1
        self._busy_bytes += row.size

    def _release(self, row: Row) -> None:
        row.lane.metrics.pending -= 1
        self._busy_rows -= 1
        self._busy_bytes -= row.size

    def _unclaim(self, row: Row) -> None:
        """Nothing was written: as if it had never been tried."""
        row.state = State.QUEUED
        row.attempts -= 1
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
        prefix = self._prefix
        frames: list[bytes] = []
        for row in rows:
            text = row.text
            if text is None or row.seq is not None:
                text = self._wire_text(row)
            callback = f"{prefix}{row.id:012x}" if row.attempts == 1 else f"{prefix}{row.id:012x}#{row.attempts}"
            frames.append(encode(TransmitRequest(token, row.channel, row.remote, HL7_V2, text, callback)))
            row.text = None
            row.sent_at = now
            self._sent[row.id] = row
            if row.attempts > 1:
                row.lane.metrics.retried += 1
        self._link.send(frames)

    def _wire_text(self, row: Row) -> str:
        body = normalize(row.body)
        if row.seq is not None:
            body = with_sequence_number(body, row.seq)
        return body.decode(self._answers.codec(row))

    # ---- answers

    def answered(self, frames: Iterable[TransmitResponse]) -> None:
        """`agent:transmit:response` frames of one socket read."""
        for frame in frames:
            row = self._row_of(frame)
            if row is None:
                continue
            verdict = judge(frame)
            was_sent = self._sent.pop(row.id, None) is not None
            if was_sent:
                row.lane.metrics.rtt.record(self._now() - row.sent_at)
            if type(verdict) is TryLater and not was_sent:
                continue  # it is already on its way to a next try
            if row.state is State.INFLIGHT:
                self._release(row)
            self._conclude(row, verdict)
        self.pump()

    def _row_of(self, frame: TransmitResponse) -> Row | None:
        callback = frame.callback
        if callback is not None:
            if not callback.startswith(self._prefix):
                return None
            try:
                row = self._rows.get(int(callback[len(self._prefix) :].partition("#")[0], 16))
            except ValueError:
                return None
            return row if row is not None and row.attempts else None
        # an old server: the sender's address is all there is, and with it the id that the answer names
        ack = read_ack(frame.body.encode("utf-8", "replace")) if isinstance(frame.body, str) else None
        waiting = [r for r in self._sent.values() if r.remote == frame.remote and frame.channel in (None, r.channel)]
        named = [r for r in waiting if ack is not None and r.control_id == ack.control_id]
        return next(iter(named or waiting), None)

    def _conclude(self, row: Row, verdict: Verdict) -> None:
        match verdict:
            case Accepted(status=status):
                row.status = status
                self._finish(row, State.PROCESSED, verdict)
                row.lane.metrics.delivered += 1
            case Refused(status=status, reason=reason):
                row.status = status
                row.reason = reason
                self._finish(row, State.REJECTED, verdict)
            case TryLater(status=status, reason=reason, after_s=after_s):
                row.status = status
                row.reason = reason
                self._try_later(row, after_s)
            case _ as never:
                assert_never(never)

    def _finish(self, row: Row, state: State, verdict: Accepted | Refused) -> None:
        row.state = state
        self._answers.give(row, verdict)
        self._leave(row)
        self._spool.settle(row)

    def _try_later(self, row: Row, after_s: float | None) -> None:
        policy = row.lane.spec.retry if row.lane.spec else RetryPolicy()
        limit = _attempt_limit(policy)
        if limit and row.attempts >= limit:
            row.reason = f"given up after {row.attempts} tries: {row.reason}"
            self._finish(row, State.FAILED, Refused(row.status or 0, "AE", row.reason))
            return
        wait_s = _backoff_s(policy, row.attempts, self._random)
        if after_s is not None:
            wait_s = max(wait_s, after_s)
        row.state = State.QUEUED
        row.due_ms = self._now_ms() + int(wait_s * 1000)
        self._spool.settle(row)
        row.lane.back(row, self._now() + wait_s)

    # ---- the link comes and goes

    def link_lost(self, *, too_large: bool) -> None:
        """The socket is gone. `too_large`: the server closed it with 1009, so one of our frames was above its limit."""
        sent, self._sent = self._sent, {}
        culprit = max(sent.values(), key=lambda row: row.size, default=None) if too_large else None
        for row in sent.values():
            self._release(row)
            if row is culprit and row.size >= _SUSPECT_BYTES:
                row.reason = f"the server closes the connection on a message of {row.size} bytes"
                self.too_large = Finding(
                    "server.frame-limit",
                    Severity.ERROR,
                    f"channel {row.channel}: {row.reason} (ref {row.id})",
                    "raise the server's maxJsonSize, or lower server.max_frame_bytes so that such messages are refused at once",
                )
                self._finish(row, State.REJECTED, Refused(413, "AR", row.reason))
                continue
            self._ambiguous(row, "the connection to the server was lost before its answer")

    def _ambiguous(self, row: Row, reason: str) -> None:
        mode = row.lane.spec.retry.mode if row.lane.spec else RetryMode.GUARANTEED
        row.ambiguous = True
        row.reason = reason
        if mode is RetryMode.GUARANTEED:
            row.state = State.QUEUED
            row.lane.back(row)
            return  # the file says INFLIGHT, which is what a crash now should find
        self._finish(row, State.HELD, Refused(0, "AE", f"{reason}; a person decides whether to send it again"))

    async def run(self) -> None:
        """Give up waiting for answers that do not come, and keep the lanes moving."""
        while True:
            await asyncio.sleep(_TICK_S)
            overdue = self._now() - self._window.answer_within_s
            late: list[Row] = []
            for row in self._sent.values():  # in the order of sending
                if row.sent_at > overdue:
                    break
                late.append(row)
            for row in late:
                del self._sent[row.id]
                self._release(row)
                row.ambiguous = True
                self._conclude(row, TryLater(None, f"no answer from the server in {self._window.answer_within_s:g} s"))
            self.pump()

    def _set_alarm(self) -> None:
        due = min((at for lane in self.lanes.values() if (at := lane.next_due()) is not None), default=None)
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if due is not None and due - (now := self._now()) < _TICK_S:
            self._alarm = asyncio.get_running_loop().call_later(max(0.0, due - now), self.pump)

    # ---- memory

    def _enter(self, lane: Lane, row: Row) -> None:
        self._rows[row.id] = row
        lane.enter(row)

    def _leave(self, row: Row) -> None:
        del self._rows[row.id]
        row.lane.done(row)

    def _memory_full(self, lane: Lane) -> bool:
        return lane.bytes > PAGE_BYTES and sum(other.bytes for other in self.lanes.values()) > _MEMORY_BYTES

    def _refill(self, lane: Lane) -> None:
        """Read the next page of a lane whose rows wait in the file."""
        rows = self._spool.queued(lane.name, lane.last_id, limit=PAGE_ROWS, limit_bytes=PAGE_BYTES)
        for row in rows:
            lane.last_id = row.id
            if row.id in self._rows:
                continue
            self._enter(lane, row)
            if row.due_ms > (now_ms := self._now_ms()):
                lane.back(row, self._now() + (row.due_ms - now_ms) / 1000)
            else:
                lane.wake(row)
        if not rows and not lane.pending_spilled:
            lane.spilled = False

    @property
    def in_flight(self) -> int:
        """Frames on the socket that the server has not answered."""
        return len(self._sent)

    @property
    def token_bytes(self) -> int:
        """What the access token adds to each frame."""
        return len(self._token())


def _attempt_limit(policy: RetryPolicy) -> int:
    """How many tries the policy allows; 0 = no limit."""
    match policy.mode:
        case RetryMode.NONE:
            return 1
        case RetryMode.NORMAL:
            return policy.max_attempts or _NORMAL_ATTEMPTS
        case RetryMode.GUARANTEED:
            return 0
        case _ as never:
            assert_never(never)


def _backoff_s(policy: RetryPolicy, attempts: int, source: random.Random) -> float:
    """Exponential, jittered down by up to a quarter so that the rows of an outage do not return as one wave."""
    grown = policy.base_ms * policy.multiplier ** min(attempts - 1, 64)
    return min(grown, policy.max_ms) / 1000 * source.uniform(0.75, 1.0)
