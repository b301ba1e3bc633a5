"""What becomes of a message when something is known about it: an answer, none in time, or a link that broke.

Secret: the policy of second tries, and which failures are a person's.
Promise: every outcome is told to the sender as far as it is owed, goes to the disk, and sets the next of its key
free; only what cannot have arrived, or may arrive twice by the channel's own wish, is sent again.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final, assert_never

from agent.errors import Finding, Severity
from agent.flow.answers import Answers
from agent.flow.backlog import Backlog
from agent.flow.lanes import Lane
from agent.flow.policy import attempt_limit, backoff_s
from agent.flow.verdict import Accepted, Refused, TryLater, Verdict
from agent.spec import RetryMode, RetryPolicy
from agent.store.row import AckState, Row, State
from agent.store.spool import Spool

_SUSPECT_BYTES: Final = 65_536  # 1009 is about a smaller message only if it comes twice


class Outcomes:
    """Rows here are no longer on the socket. `too_large`: the last message that was above the server's limit."""

    def __init__(
        self,
        answers: Answers,
        backlog: Backlog,
        spool: Spool,
        *,
        now: Callable[[], float],
        now_ms: Callable[[], int],
    ) -> None:
        self.too_large: Finding | None = None
        self._answers = answers
        self._backlog = backlog
        self._spool = spool
        self._now = now
        self._now_ms = now_ms
        self._random = random.Random()
        self._suspect = 0

    def conclude(self, row: Row, verdict: Verdict) -> None:
        """The server has answered, or has not in time."""
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

    def after_all(self, row: Row, lane: Lane, verdict: Accepted) -> None:
        """A message that was given up did arrive: whoever looks after it should know, and a sender that asks again."""
        row.lane = lane
        row.state = State.PROCESSED
        row.status = verdict.status
        self._answers.keep(row, verdict)
        self._spool.settle(row)
        lane.metrics.delivered += 1

    def hold(self, row: Row, reason: str) -> None:
        """Leave `row` to a person."""
        row.reason = reason
        self._finish(row, State.HELD, Refused(0, "AE", f"{reason}; a person decides whether to send it again"))

    def lost(self, rows: list[Row], *, too_large: bool) -> None:
        """The link broke while these were on it. `too_large`: because one of them was above the server's limit."""
        culprit = max(rows, key=lambda row: row.size, default=None) if too_large else None
        for row in rows:
            if row is culprit and (row.size >= _SUSPECT_BYTES or row.id == self._suspect):
                self._reject_too_large(row)
            else:
                self._ambiguous(row)
        self._suspect = culprit.id if culprit is not None else 0

    def interrupted(self, row: Row, lane: Lane) -> None:
        """The last process ended while `row` was on the link."""
        assert lane.spec is not None
        row.ambiguous = True
        if lane.spec.retry.mode is RetryMode.GUARANTEED:
            row.state = State.QUEUED
            self._backlog.key_anew(lane, row)
            self._backlog.enter(lane, row)
            lane.wake(row)
        else:
            row.state = State.HELD
            row.ack = AckState.UNDELIVERED
            row.reason = "the agent stopped between sending this message and its answer"
            self._spool.settle(row)

    def _finish(self, row: Row, state: State, verdict: Accepted | Refused) -> None:
        row.state = state
        self._answers.give(row, verdict)
        self._backlog.leave(row)
        self._spool.settle(row)

    def _try_later(self, row: Row, after_s: float | None) -> None:
        policy = row.lane.spec.retry if row.lane.spec else RetryPolicy()
        limit = attempt_limit(policy)
        if limit and row.attempts >= limit:
            row.reason = f"given up after {row.attempts} {'try' if row.attempts == 1 else 'tries'}: {row.reason}"
            self._finish(row, State.FAILED, Refused(row.status or 0, "AE", row.reason))
            return
        wait_s = max(backoff_s(policy, row.attempts, self._random), after_s or 0.0)
        row.state = State.QUEUED
        row.due_ms = self._now_ms() + int(wait_s * 1000)
        self._spool.settle(row)
        row.lane.back(row, self._now() + wait_s)

    def _ambiguous(self, row: Row) -> None:
        lane: Lane = row.lane
        reason = "the connection to the server was lost before its answer"
        row.ambiguous = True
        if lane.spec is None or lane.spec.retry.mode is RetryMode.GUARANTEED:
            row.reason = reason
            row.state = State.QUEUED
            lane.back(row)
            return  # the file says INFLIGHT, which is what a crash now should find
        self.hold(row, reason)

    def _reject_too_large(self, row: Row) -> None:
        row.status = 413
        row.reason = f"the server closes the connection on a message of {row.size} bytes"
        self.too_large = Finding(
            "server.frame-limit",
            Severity.ERROR,
            f"channel {row.channel}: {row.reason} (ref {row.id})",
            "raise the server's maxJsonSize, or lower server.max_frame_bytes so that such messages are refused at once",
        )
        self._finish(row, State.REJECTED, Refused(413, "AR", row.reason))
