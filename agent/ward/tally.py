"""Account for every message that was sent.

Secret: how outcomes and times are counted.
Promise: each message has exactly one outcome, so that `sent` is always the sum of the answered, the timed out, the
failed and those in flight; a snapshot never changes; a percentile is within 3 % of the truth.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

POSITIVE = frozenset({"AA", "CA"})
KEPT_FAILURES = 10
REASON_CHARS = 160


@dataclass(frozen=True, slots=True)
class Latency:
    """From the write of a message to its answer, in milliseconds; all 0 while `count` is 0."""

    count: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float


@dataclass(frozen=True, slots=True)
class Failure:
    """A message without a positive answer, and why: MSA-1 and MSA-3 of the answer, or what kept it from coming."""

    control_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Tally:
    """What has happened so far.

    `answers`: messages by MSA-1 of their answer. `application_answers`: by MSA-1, the answers that followed a CA; they
    are counted beside the messages, not among them. `late`: answers to messages that had timed out. `unmatched`:
    answers to nothing that was sent. `failures`: the first few. `obstacle`: why a connection was last lost or refused.
    `stopped`: why messages were left unsent; empty during the run and if none were.
    """

    sent: int
    in_flight: int
    answers: Mapping[str, int]
    application_answers: Mapping[str, int]
    timed_out: int
    failed: int
    late: int
    unmatched: int
    connections_open: int
    connections_opened: int
    connections_lost: int
    sent_bytes: int
    elapsed_s: float
    latency: Latency
    failures: tuple[Failure, ...]
    obstacle: str
    stopped: str

    @property
    def answered(self) -> int:
        return sum(self.answers.values())

    @property
    def positive(self) -> int:
        """Messages answered AA or CA."""
        return sum(count for code, count in self.answers.items() if code in POSITIVE)

    @property
    def all_positive(self) -> bool:
        """Whether messages were sent, all of them were accepted, and no application refused one afterwards."""
        refused_later = any(count for code, count in self.application_answers.items() if code not in POSITIVE)
        return 0 < self.sent == self.positive and not refused_later and not self.stopped

    @property
    def rate_per_s(self) -> float:
        """Answered messages a second."""
        return self.answered / self.elapsed_s if self.elapsed_s > 0 else 0.0


class Stopwatch:
    """Durations in, percentiles out: 32 buckets to each power of two of microseconds."""

    __slots__ = ("_buckets", "_count", "_longest_s")

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()
        self._count = 0
        self._longest_s = 0.0

    def record(self, seconds: float) -> None:
        micros = int(seconds * 1e6)
        shift = max(micros.bit_length() - 6, 0)
        self._buckets[(shift << 5) + (micros >> shift)] += 1
        self._count += 1
        self._longest_s = max(self._longest_s, seconds)

    def latency(self) -> Latency:
        def at(share: float) -> float:
            remaining = share * self._count
            for bucket in sorted(self._buckets):
                remaining -= self._buckets[bucket]
                if remaining <= 0:
                    shift = max((bucket >> 5) - 1, 0)
                    middle = ((bucket - (shift << 5)) + 0.5) * (1 << shift)
                    return min(middle / 1e3, self._longest_s * 1e3)
            return 0.0

        return Latency(self._count, at(0.50), at(0.95), at(0.99), self._longest_s * 1e3)


class Ledger:
    """The counters behind the tallies of one run; all connections of the run write into the same one."""

    def __init__(self) -> None:
        self.sent = 0
        self.sent_bytes = 0
        self.in_flight = 0
        self.late = 0
        self.unmatched = 0
        self.connections_open = 0
        self.connections_opened = 0
        self.connections_lost = 0
        self.obstacle = ""
        self.stopped = ""
        self._answers: Counter[str] = Counter()
        self._application: Counter[str] = Counter()
        self._timed_out = 0
        self._failed = 0
        self._failures: list[Failure] = []
        self._stopwatch = Stopwatch()

    def send(self, size_bytes: int) -> None:
        self.sent += 1
        self.sent_bytes += size_bytes
        self.in_flight += 1

    def answer(self, control_id: bytes, code: str, text: bytes, after_s: float) -> None:
        """The message was answered, `after_s` seconds after it was written."""
        self.in_flight -= 1
        self._answers[code] += 1
        self._stopwatch.record(after_s)
        if code not in POSITIVE:
            self._note(control_id, f"{code} {printable(text)}".strip())

    def application_answer(self, control_id: bytes, code: str, text: bytes) -> None:
        """After its CA, a message got the application's answer."""
        self._application[code] += 1
        if code not in POSITIVE:
            self._note(control_id, f"{code} after CA {printable(text)}".strip())

    def time_out(self, control_id: bytes, after_s: float) -> None:
        self.in_flight -= 1
        self._timed_out += 1
        self._note(control_id, f"no answer within {after_s:g} s")

    def fail(self, control_id: bytes, reason: str) -> None:
        self.in_flight -= 1
        self._failed += 1
        self._note(control_id, reason)

    def tally(self, elapsed_s: float) -> Tally:
        return Tally(
            sent=self.sent,
            in_flight=self.in_flight,
            answers=MappingProxyType(dict(self._answers)),
            application_answers=MappingProxyType(dict(self._application)),
            timed_out=self._timed_out,
            failed=self._failed,
            late=self.late,
            unmatched=self.unmatched,
            connections_open=self.connections_open,
            connections_opened=self.connections_opened,
            connections_lost=self.connections_lost,
            sent_bytes=self.sent_bytes,
            elapsed_s=elapsed_s,
            latency=self._stopwatch.latency(),
            failures=tuple(self._failures),
            obstacle=self.obstacle,
            stopped=self.stopped,
        )

    def _note(self, control_id: bytes, reason: str) -> None:
        if len(self._failures) < KEPT_FAILURES:
            self._failures.append(Failure(printable(control_id), reason))


def printable(text: bytes) -> str:
    """Bytes of a peer for a terminal: short, and without anything that could move its cursor."""
    decoded = text[: 4 * REASON_CHARS].decode("utf-8", "replace")
    return "".join(char if char.isprintable() else "?" for char in decoded)[:REASON_CHARS]
