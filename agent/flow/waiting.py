"""Keep the letters of one remote that wait for a connection, in the order in which they came.

Secret: how a letter in the middle of a long queue is found when its time is over, without looking at the others.
Promise: first in, first out; adding, taking and running out of time cost the same however many wait, and nothing is
kept of a letter that has left.
"""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from agent.flow.letters import Letter

_SPARE: Final = 64  # alarms of letters that have left, kept before they are swept out


@dataclass(frozen=True, slots=True)
class Waiter:
    """A letter that waits since a loop time, behind the `before` others that waited then."""

    letter: Letter
    since: float
    before: int


class WaitingRoom:
    """Times are loop times."""

    __slots__ = ("_alarms", "_number", "_waiters")

    def __init__(self) -> None:
        self._number = 0
        self._waiters: OrderedDict[int, Waiter] = OrderedDict()
        self._alarms: list[tuple[float, int]] = []  # begin_by, number; a heap

    def __len__(self) -> int:
        return len(self._waiters)

    def add(self, letter: Letter, now: float) -> None:
        """Put a letter behind the others."""
        self._number += 1
        self._waiters[self._number] = Waiter(letter, now, len(self._waiters))
        if letter.begin_by < math.inf:
            heapq.heappush(self._alarms, (letter.begin_by, self._number))
            if len(self._alarms) > 2 * len(self._waiters) + _SPARE:
                self._alarms = [alarm for alarm in self._alarms if alarm[1] in self._waiters]
                heapq.heapify(self._alarms)

    def first(self) -> Letter:
        """The letter whose turn it is. Raises StopIteration if nothing waits."""
        return next(iter(self._waiters.values())).letter

    def take(self) -> Letter:
        """Let the first letter go. Raises KeyError if nothing waits."""
        return self._waiters.popitem(last=False)[1].letter

    def overdue(self, now: float) -> list[Waiter]:
        """Let those go whose `begin_by` is not after `now`, the most overdue first."""
        gone = []
        while self.next_due() <= now:
            gone.append(self._waiters.pop(heapq.heappop(self._alarms)[1]))
        return gone

    def next_due(self) -> float:
        """The loop time at which the next letter runs out of time; infinity if none does."""
        alarms, waiters = self._alarms, self._waiters
        while alarms and alarms[0][1] not in waiters:
            heapq.heappop(alarms)
        return alarms[0][0] if alarms else math.inf

    def clear(self) -> list[Letter]:
        """Let all go, in their order."""
        letters = [waiter.letter for waiter in self._waiters.values()]
        self._waiters.clear()
        self._alarms.clear()
        return letters
