"""Letters that wait, in their order and with their deadlines."""

from __future__ import annotations

import math

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agent.flow.letters import Letter
from agent.flow.waiting import WaitingRoom


def letter(begin_by: float = math.inf) -> Letter:
    return Letter(b"", b"", None, lambda outcome: None, begin_by)


def test_who_joins_is_told_how_many_are_before_it() -> None:
    room = WaitingRoom()
    for _ in range(3):
        room.add(letter(5.0), 1.0)
    room.take()
    room.add(letter(9.0), 2.0)
    assert [(waiter.since, waiter.before) for waiter in room.overdue(9.0)] == [(1.0, 1), (1.0, 2), (2.0, 2)]


def test_nothing_is_kept_of_letters_that_have_left() -> None:
    room = WaitingRoom()
    for number in range(10_000):
        room.add(letter(1e9 + number), 0.0)
        room.take()
    assert len(room._alarms) < 100


class Room(RuleBasedStateMachine):
    """A waiting room beside a plain list of letters that does the same slowly."""

    def __init__(self) -> None:
        super().__init__()
        self.room = WaitingRoom()
        self.waiting: list[Letter] = []
        self.now = 0.0

    @rule(within_s=st.one_of(st.integers(0, 20).map(float), st.just(math.inf)))
    def comes(self, within_s: float) -> None:
        new = letter(self.now + within_s)
        self.room.add(new, self.now)
        self.waiting.append(new)

    @rule(count=st.integers(1, 80))
    def many_come(self, count: int) -> None:
        for number in range(count):
            self.comes(float(number % 7))

    @precondition(lambda self: self.waiting)
    @rule()
    def goes(self) -> None:
        assert self.room.first() is self.waiting[0]
        assert self.room.take() is self.waiting.pop(0)

    @rule(seconds=st.integers(0, 8))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds
        overdue = [letter for letter in self.waiting if letter.begin_by <= self.now]
        overdue.sort(key=lambda letter: letter.begin_by)
        assert [waiter.letter for waiter in self.room.overdue(self.now)] == overdue
        self.waiting = [letter for letter in self.waiting if letter not in overdue]

    @rule()
    def all_go(self) -> None:
        assert self.room.clear() == self.waiting
        self.waiting = []

    @invariant()
    def they_agree(self) -> None:
        assert len(self.room) == len(self.waiting)
        assert self.room.next_due() == min((letter.begin_by for letter in self.waiting), default=math.inf)


TestRoom = Room.TestCase
TestRoom.settings = settings(max_examples=100, stateful_step_count=40)
