"""Remember what was odd on the wire, so that a person can be told why there is no message.

Secret: what is kept of connections (transport facts, never content), how much, and when the log is told.
Promise: memory is bounded however many strangers knock; the main log hears of each peer and kind once, and again only
after an hour's silence about it; nothing in here can hold a byte of a patient's.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from agent.errors import Finding, Severity
from agent.protocol.explanations import EXPLANATIONS
from agent.protocol.forensics import Oddity

RECENT: Final = 32
KINDS: Final = 256
TOLD_AGAIN_S: Final = 3_600.0
SHOWN_FOR_S: Final = 3_600.0  # a finding, so long after it was seen last
_SHOWN_AT_MOST: Final = 8


@dataclass(frozen=True, slots=True)
class Facts:
    """One connection as transport sees it. `peer` is ip:port, `opened_at` seconds since 1970, `first` is a shape."""

    peer: str
    opened_at: float
    silent_s: float
    bytes_in: int
    frames: int
    open_bytes: int
    first: str
    over: bool
    tls: bool
    oddity: Oddity | None


@dataclass(slots=True)
class Sighting:
    """One kind of oddity from one host. Times in seconds since 1970; `detail`: why, the last time, if that was told."""

    oddity: Oddity
    host: str
    first_at: float
    last_at: float
    first: str
    detail: str
    count: int = 1


class Sightings:
    """What one channel has seen. `now` gives seconds since 1970; `tell` puts a sighting into the log."""

    def __init__(self, now: Callable[[], float], tell: Callable[[Sighting], None]) -> None:
        self._now = now
        self._tell = tell
        self._by_kind: OrderedDict[tuple[Oddity, str], Sighting] = OrderedDict()
        self._told: dict[tuple[Oddity, str], float] = {}
        self.ended: deque[Facts] = deque(maxlen=RECENT)
        self.counts: dict[str, int] = {}

    def note(self, oddity: Oddity, host: str, first: str, detail: str = "") -> None:
        """`host` was odd. `first`: the shape of the first bytes; `detail`: a sentence of our own about it."""
        self.counts[oddity.value] = self.counts.get(oddity.value, 0) + 1
        now, kind = self._now(), (oddity, host)
        seen = self._by_kind.get(kind)
        if seen is None:
            seen = self._by_kind[kind] = Sighting(oddity, host, now, now, first, detail)
            if len(self._by_kind) > KINDS:
                forgotten, _ = self._by_kind.popitem(last=False)
                self._told.pop(forgotten, None)
        else:
            seen.count += 1
            seen.last_at = now
            seen.first = first or seen.first
            seen.detail = detail
            self._by_kind.move_to_end(kind)
        # against the last sighting, so that a host that knocks every second is not told of every hour
        if now - self._told.get(kind, now - TOLD_AGAIN_S) >= TOLD_AGAIN_S:
            self._tell(seen)
        self._told[kind] = now

    @property
    def all(self) -> list[Sighting]:
        """The latest first."""
        return list(reversed(self._by_kind.values()))

    def findings(self, channel: str) -> Iterable[Finding]:
        """What was odd lately and needs somebody; probes of load balancers and the like are left out."""
        now = self._now()
        lately = [
            seen
            for seen in self.all
            if EXPLANATIONS[seen.oddity].severity is not Severity.INFO and now - seen.last_at < SHOWN_FOR_S
        ]
        for seen in lately[:_SHOWN_AT_MOST]:
            why = EXPLANATIONS[seen.oddity]
            times = "once" if seen.count == 1 else f"{seen.count} times"
            bytes_seen = f" (first bytes {seen.first})" if seen.first else ""
            text = f"{seen.host}, {times}: {seen.detail or why.text}{bytes_seen}"
            yield Finding(f"wire.{seen.oddity}", why.severity, text, why.remedy, channel)
        if len(lately) > _SHOWN_AT_MOST:
            text = f"{len(lately) - _SHOWN_AT_MOST} further hosts send what is no message"
            yield Finding("wire.more", Severity.WARNING, text, "agent doctor --port shows them all", channel)
