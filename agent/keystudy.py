"""What an ordering key would do for a channel, from messages that came through it.

Secret: how a queue is emptied by N workers in order per key: the schedule, with a unit of time for each message.
Promise: pure. A speed-up is between 1 and N; what it says of N workers is what first in, first out per key allows, with
a merge or link message alone in its time. It keeps little of a key, however long that is, so a
million of them fit in memory.
"""

from __future__ import annotations

import dataclasses
import hashlib
import heapq
import re
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from agent.protocol.hl7 import FieldPath, Header, KeySpec, NotHl7, is_link_or_merge

_LARGEST = 5
_NAME_BYTES = 200
_MINUTE_MS = 60_000
_NOTICEABLE = 1.5  # below that nobody would see a difference
_MANY = 0.1
# What a merge says of the one that goes (MRG, §3.4.9), and the field that says it of the one that stays.
_PRIOR = {
    (b"PID", 3): 1, (b"PID", 4): 2, (b"PID", 18): 3, (b"PID", 2): 4, (b"PV1", 19): 5, (b"PV1", 50): 6, (b"PID", 5): 7,
}  # fmt: skip
_LINE_END = re.compile(rb"[\r\n]+")


@dataclass(frozen=True, slots=True)
class Message:
    """One message in the order of its arrival. `ties`: None for most; of a merge or link, the other keys it names."""

    arrival_ms: int
    key: bytes
    ties: tuple[bytes, ...] | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What was found. Shares are from 0 to 1. `largest`: the commonest keys that are not empty, each with its count.

    `barriers`: merge and link messages, `crossing` those of them that tie two keys. `speed_up`: by number of workers,
    how much faster than one of them they empty a queue of all these messages. `first_ms`, `last_ms`: of the arrivals.
    """

    messages: int
    keys: int
    empty: int
    largest: tuple[tuple[bytes, int], ...]
    barriers: int
    crossing: int
    speed_up: dict[int, float]
    busiest_minute: int
    first_ms: int
    last_ms: int

    @property
    def empty_share(self) -> float:
        return self.empty / self.messages if self.messages else 0.0

    @property
    def largest_share(self) -> float:
        return self.largest[0][1] / self.messages if self.largest else 0.0


class KeyStudy:
    """Told of each message in stored order; `result` may be asked at any time."""

    def __init__(self, workers: Sequence[int]) -> None:
        self._schedules = [_Schedule(number) for number in workers]
        self._keys: dict[bytes, int] = {}  # digest of a key → its number
        self._counts = array("Q")
        self._minutes: Counter[int] = Counter()
        self._names: dict[int, bytes] = {}  # of the keys that are, or were, among the commonest
        self._empty: int | None = None  # the number of the empty key
        self._messages = self._barriers = self._crossing = 0
        self._first_ms = self._last_ms = 0

    def add(self, message: Message) -> None:
        digest = message.key if len(message.key) <= 16 else hashlib.blake2b(message.key, digest_size=17).digest()
        number = self._keys.setdefault(digest, len(self._counts))
        if number == len(self._counts):
            self._counts.append(0)
            if not message.key:
                self._empty = number
        self._counts[number] += 1
        if self._counts[number] == 2:  # one that came once is never worth its name
            self._names[number] = message.key[:_NAME_BYTES]
        if not self._messages:
            self._first_ms = message.arrival_ms
            self._names[number] = message.key[:_NAME_BYTES]
        self._first_ms = min(self._first_ms, message.arrival_ms)
        self._last_ms = max(self._last_ms, message.arrival_ms)
        self._messages += 1
        self._minutes[message.arrival_ms // _MINUTE_MS] += 1
        if message.ties is not None:
            self._barriers += 1
            self._crossing += any(tied != message.key for tied in message.ties)
        for schedule in self._schedules:
            if message.ties is None:
                schedule.place(number)
            else:
                schedule.place_alone(number)

    def result(self) -> Result:
        named = ((count, number) for number in self._names if number != self._empty and (count := self._counts[number]))
        commonest = heapq.nlargest(_LARGEST, named, key=lambda found: (found[0], -found[1]))
        return Result(
            messages=self._messages,
            keys=len(self._counts),
            empty=0 if self._empty is None else self._counts[self._empty],
            largest=tuple((self._names[number], count) for count, number in commonest),
            barriers=self._barriers,
            crossing=self._crossing,
            speed_up={each.workers: self._messages / each.steps if each.steps else 1.0 for each in self._schedules},
            busiest_minute=max(self._minutes.values(), default=0),
            first_ms=self._first_ms,
            last_ms=self._last_ms,
        )


@dataclass(slots=True)
class _Schedule:
    """List scheduling with unit work: each message, in stored order, goes into the first step that is after the one
    before it of its key and has a worker free. None of them is moved by a later one, so this is what workers do that
    always take the first message that may go.
    """

    workers: int
    steps: int = 0
    _floor: int = 0  # no message goes before it any more: a barrier stands there
    _busy: array[int] = field(default_factory=lambda: array("L"))  # by step
    _free: array[int] = field(default_factory=lambda: array("L"))  # by step, one where a worker may be free: a forest
    _next: array[int] = field(default_factory=lambda: array("L"))  # by key, the step after its newest

    def place(self, key: int) -> None:
        step = self._first_free(max(self._after(key), self._floor))
        self._busy[step] += 1
        if self._busy[step] >= self.workers:
            self._free[step] = step + 1
        self._next[key] = step + 1
        self.steps = max(self.steps, step + 1)

    def place_alone(self, key: int) -> None:
        """After all that came before; and all that comes later goes after it."""
        self._after(key)
        self.steps += 1
        self._floor = self._next[key] = self.steps

    def _after(self, key: int) -> int:
        if key == len(self._next):
            self._next.append(0)
        return self._next[key]

    def _first_free(self, step: int) -> int:
        free = self._free
        while True:
            while len(free) <= step:
                free.append(len(free))
                self._busy.append(0)
            if free[step] == step:
                return step
            if free[step] < len(free):
                free[step] = free[free[step]]
            step = free[step]


def message_of(spec: KeySpec, arrival_ms: int, body: bytes) -> Message:
    """A stored HL7 message as the study takes it. One that is no HL7 has the empty key, as in its channel."""
    key = spec.read(body)
    try:
        barrier = is_link_or_merge(Header.of(body))
    except NotHl7:
        barrier = False
    return Message(arrival_ms, key, _ties(spec, body) if barrier else None)


def can_tell(spec: KeySpec, head: bytes) -> bool:
    """Whether the beginning of a message is enough of it: all segments of the key stand in it with their ends, and it
    is no merge, which names its other keys further on."""
    separator = head[3:4]
    for path in spec.paths:
        opening = path.segment + separator
        start = 0 if head.startswith(opening) else max(head.find(b"\r" + opening), head.find(b"\n" + opening))
        if start < 0 or _LINE_END.search(head, start + 1) is None:
            return False
    try:
        return not is_link_or_merge(Header.of(head))
    except NotHl7:
        return True


def _ties(spec: KeySpec, body: bytes) -> tuple[bytes, ...]:
    """The keys that a merge or link message names beside its own: of each MRG, and of each further PID."""
    first, *rest = _LINE_END.split(body)
    separator = body[3:4]
    prior = _of_the_prior(spec)
    tied: list[bytes] = []
    for segment in rest:
        moved = b"\r".join((first, segment, *rest))  # a field path reads the first segment of a name
        if segment.startswith(b"PID" + separator):
            tied.append(spec.read(moved))
        elif prior is not None and segment.startswith(b"MRG" + separator):
            tied.append(prior.read(moved))
    return tuple(dict.fromkeys(key for key in tied if key))


def _of_the_prior(spec: KeySpec) -> KeySpec | None:
    """The spec that reads the same of the patient, account or visit that goes; None if MRG does not have it."""
    paths = tuple(_prior_path(path) for path in spec.paths)
    return None if paths == spec.paths else dataclasses.replace(spec, paths=paths)


def _prior_path(path: FieldPath) -> FieldPath:
    number = _PRIOR.get((path.segment, path.field))
    return path if number is None else dataclasses.replace(path, segment=b"MRG", field=number)


def advice(result: Result, key: str) -> str:
    """One plain sentence: whether this key is worth it, with how many workers, and what speaks against it."""
    if not result.messages:
        return "There is nothing to judge by: no HL7 message is stored."
    best = max(result.speed_up.values(), default=1.0)
    if result.empty_share > _MANY:
        return (
            f"Take another key: {result.empty_share:.0%} of the messages have no {key}, and all of them would wait"
            " for each other."
        )
    if best < _NOTICEABLE:
        if result.barriers > result.messages * _MANY:
            why = "so many merge and link messages each wait for all that came before"
        elif result.largest_share > 0.5:
            why = f"{result.largest_share:.0%} of the messages have the same key"
        else:
            why = "too few messages have different keys, or too few workers were asked about"
        return f"Leave it as it is: {key} makes little difference, since {why}."
    enough = min(number for number, gain in result.speed_up.items() if gain >= 0.9 * best)
    gain = result.speed_up[enough]
    rest = "" if enough == max(result.speed_up) else ", and more workers add little"
    return f"logicalChannelKey={key} with maxWorkers={enough} empties a queue about {gain:.1f} times as fast{rest}."
