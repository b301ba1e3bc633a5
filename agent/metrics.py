"""Count what happens and how long it took, without ever knowing what was in a message.

Secret: how durations are kept: 40 logarithmic buckets to the decade, 1 µs to 10,000 s, 3 KB for ever.
Promise: a percentile is within 3 % of the true one, recording a duration costs well under half a microsecond,
and nothing in here can hold a byte of a patient's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from math import log10

PER_DECADE = 40  # bounds are 5.9 % apart, so the middle of a bucket is within 2.9 % of anything in it
FIRST_DECADE = -6
LAST_DECADE = 4
OFFSET = -FIRST_DECADE * PER_DECADE
BUCKETS = (LAST_DECADE - FIRST_DECADE) * PER_DECADE
SHORTEST_S = 10.0**FIRST_DECADE
LONGEST_S = 10.0**LAST_DECADE
EXPORTED_EVERY = PER_DECADE // 4  # every tenth of our own bounds is shown to a monitoring system …
EXPORTED_FROM = OFFSET - 4 * PER_DECADE  # … from 0.1 ms …
EXPORTED_TO = OFFSET + 2 * PER_DECADE  # … to 100 s
UNMEASURED = -1


@dataclass(frozen=True, slots=True)
class HistogramSnapshot:
    """A histogram at one moment. Durations in seconds; all of them 0 while `count` is 0.

    `cumulative` pairs an upper bound in seconds with how many durations were shorter, as a Prometheus
    histogram wants it, but for the closing +Inf, which is `count`.
    """

    count: int
    total_s: float
    min_s: float
    max_s: float
    mean_s: float
    p50_s: float
    p95_s: float
    p99_s: float
    cumulative: tuple[tuple[float, int], ...]


class Histogram:
    """Durations in seconds in, percentiles out. One writer, on the event loop's thread."""

    __slots__ = ("_buckets", "_highest_s", "_lowest_s", "count", "total_s")

    def __init__(self) -> None:
        self.count = 0
        self.total_s = 0.0
        self._lowest_s = math.inf
        self._highest_s = 0.0
        self._buckets = [0] * BUCKETS

    def record(self, seconds: float) -> None:
        """Count one duration. A negative one (a clock that stepped) counts as 0."""
        if seconds < 0.0:
            seconds = 0.0
        self.count += 1
        self.total_s += seconds
        if seconds > self._highest_s:
            self._highest_s = seconds
        if seconds < self._lowest_s:
            self._lowest_s = seconds
        if SHORTEST_S <= seconds < LONGEST_S:
            self._buckets[int(log10(seconds) * PER_DECADE + OFFSET)] += 1
        else:
            self._buckets[0 if seconds < SHORTEST_S else -1] += 1

    @property
    def min(self) -> float:
        """The shortest duration in milliseconds, -1 before the first."""
        return self._lowest_s * 1000 if self.count else UNMEASURED

    @property
    def max(self) -> float:
        """The longest duration in milliseconds, -1 before the first."""
        return self._highest_s * 1000 if self.count else UNMEASURED

    @property
    def mean(self) -> float:
        """The mean duration in milliseconds, -1 before the first."""
        return self.total_s / self.count * 1000 if self.count else UNMEASURED

    def percentile(self, p: float) -> float:
        """The duration in milliseconds that `p` per cent (0–100) do not exceed; -1 before the first."""
        if not 0 <= p <= 100:
            raise ValueError(f"a percentile lies between 0 and 100, not at {p}")
        return self._quantile_s(p / 100) * 1000 if self.count else UNMEASURED

    def snapshot(self) -> HistogramSnapshot:
        """Everything at this moment, frozen."""
        return HistogramSnapshot(
            count=self.count,
            total_s=self.total_s,
            min_s=self._lowest_s if self.count else 0.0,
            max_s=self._highest_s,
            mean_s=self.total_s / self.count if self.count else 0.0,
            p50_s=self._quantile_s(0.50),
            p95_s=self._quantile_s(0.95),
            p99_s=self._quantile_s(0.99),
            cumulative=self._cumulative(),
        )

    def _quantile_s(self, fraction: float) -> float:
        if not self.count:
            return 0.0
        rank = max(1, math.ceil(fraction * self.count))
        if rank == self.count:
            return self._highest_s  # known exactly, and the one that people argue about
        seen = 0
        for index, filled in enumerate(self._buckets):
            seen += filled
            if seen >= rank:
                middle: float = 10.0 ** ((index + 0.5 - OFFSET) / PER_DECADE)
                return min(max(middle, self._lowest_s), self._highest_s)
        return self._highest_s

    def _cumulative(self) -> tuple[tuple[float, int], ...]:
        rows = []
        seen = sum(self._buckets[: EXPORTED_FROM - EXPORTED_EVERY])
        for end in range(EXPORTED_FROM, EXPORTED_TO + 1, EXPORTED_EVERY):
            seen += sum(self._buckets[end - EXPORTED_EVERY : end])
            rows.append((10.0 ** ((end - OFFSET) / PER_DECADE), seen))
        return tuple(rows)


class ChannelMetrics:
    """What one channel has done since the process started. Plain attributes, incremented by the hot path.

    `connections` are open now, `pending` are sent to the server and unanswered now; the others only grow:
    `received` frames, `acknowledged` and `rejected` answers to senders, `delivered` server receipts,
    `retried` tries after the first, `duplicates` recognised, `timeouts` of the acknowledgement deadline,
    `bytes_in`; `fallbacks` are messages that only the fallback charset could read; `refused` counts what was not taken,
    by kind. `rtt` is the server's round trip: from the write of a request to its answer.
    """

    __slots__ = (
        "acknowledged", "bytes_in", "connections", "connections_total", "delivered", "duplicates", "fallbacks",
        "pending", "received", "refused", "rejected", "retried", "rtt", "timeouts",
    )  # fmt: skip

    def __init__(self) -> None:
        self.connections = 0
        self.connections_total = 0
        self.received = 0
        self.acknowledged = 0
        self.rejected = 0
        self.delivered = 0
        self.retried = 0
        self.duplicates = 0
        self.timeouts = 0
        self.bytes_in = 0
        self.pending = 0
        self.fallbacks = 0
        self.refused: dict[str, int] = {}
        self.rtt = Histogram()

    def refuse(self, kind: str) -> None:
        """Count one thing that was not taken. `kind` is a fixed word, never something that a peer wrote."""
        self.refused[kind] = self.refused.get(kind, 0) + 1


class RemoteMetrics:
    """What was done towards one remote since the process started. Plain attributes, as in ChannelMetrics.

    Now: `connections` open, `waiting` for a connection, `pending` written and unanswered. Growing: `connections_total`,
    `reconnects` after a lost one, `pushed` messages accepted for it, `acknowledged` (AA, CA) and `refused` (AE, AR, CE,
    CR) by it, `retried` tries after the first of durable ones, `late` answers that nobody waited for any more,
    `failed` by kind (`agent.failures.Kind`). `rtt`: from the write of a message to the acknowledgement that answers it.
    """

    __slots__ = (
        "acknowledged", "connections", "connections_total", "failed", "last_error", "late", "pending", "pushed",
        "reconnects", "refused", "retried", "rtt", "waiting",
    )  # fmt: skip

    def __init__(self) -> None:
        self.connections = 0
        self.connections_total = 0
        self.reconnects = 0
        self.waiting = 0
        self.pending = 0
        self.pushed = 0
        self.acknowledged = 0
        self.refused = 0
        self.retried = 0
        self.late = 0
        self.failed: dict[str, int] = {}
        self.last_error = ""  # of the last one that failed, as the log may say it; empty again after an acknowledgement
        self.rtt = Histogram()

    def fail(self, kind: str, why: str) -> None:
        """Count one message that got no acknowledgement."""
        self.failed[kind] = self.failed.get(kind, 0) + 1
        self.last_error = why


def rtt_json(histogram: Histogram, pending: int) -> dict[str, float]:
    """Round trips as the wire has them (`AgentRttStats`): milliseconds to two places, -1 where unmeasured."""
    return {
        "count": histogram.count,
        "min": round(histogram.min, 2),
        "max": round(histogram.max, 2),
        "average": round(histogram.mean, 2),
        "p50": round(histogram.percentile(50), 2),
        "p95": round(histogram.percentile(95), 2),
        "p99": round(histogram.percentile(99), 2),
        "pendingCount": pending,
    }
