"""How an answer finds the connection that asked."""

from __future__ import annotations

import asyncio

import pytest
from flow_far_ends import Bell, Clock, Device, adt
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agent.flow.replies import Replies
from agent.store.row import Row


def row_of(row_id: int, remote: str = "10.0.0.1:40001") -> Row:
    return Row(row_id, "adt", remote, b"", b"M%d" % row_id, b"ADT", 0, adt(f"M{row_id}"))


class Book:
    """Replies with a clock that stands still, and devices."""

    def __init__(self) -> None:
        self.bell = Bell()
        self.clock = Clock()
        self.late: list[int] = []
        self.replies = Replies(self._late, self.clock.now)

    def _late(self, row: Row) -> bytes:
        self.late.append(row.id)
        return b"late %d" % row.id

    def device(self, remote: str = "10.0.0.1:40001") -> Device:
        device = Device(self.bell, remote)
        self.replies.opened("adt", device)
        return device

    def owe(self, row: Row, device: Device, within_s: float = 25.0) -> None:
        device.owed += 1
        self.replies.owe(row, device, within_s)

    def hangs_up(self, device: Device) -> None:
        device.gone = True
        self.replies.closed("adt", device)


@pytest.fixture
def book() -> Book:
    return Book()


def test_everyone_who_waits_for_a_message_hears_its_answer_once(book: Book) -> None:
    one, other = book.device("10.0.0.1:1"), book.device("10.0.0.2:1")
    row = row_of(1)
    book.owe(row, one)
    book.owe(row, other)
    book.owe(row, other)
    assert book.replies.answer(row, b"AA")
    assert not book.replies.answer(row, b"AA")
    assert (one.heard, other.heard) == ([b"AA"], [b"AA", b"AA"])
    assert book.replies.owed == 0


def test_the_deadline_answers_whoever_has_waited_long_enough_and_nobody_else(book: Book) -> None:
    device = book.device()
    book.owe(row_of(1), device)
    book.clock.s += 10
    book.owe(row_of(2), device)
    book.owe(row_of(3), device, within_s=5.0)
    book.clock.s += 15
    book.replies.expire()
    assert sorted(device.heard) == [b"late 1", b"late 3"]
    assert book.replies.answer(row_of(2), b"AA")


def test_zero_waits_for_ever(book: Book) -> None:
    device = book.device()
    book.owe(row_of(1), device, within_s=0.0)
    book.clock.s += 1e9
    book.replies.expire()
    assert device.heard == []
    assert book.replies.answer(row_of(1), b"AA")


def test_a_repeat_waits_with_a_deadline_of_its_own(book: Book) -> None:
    device, row = book.device(), row_of(1)
    book.owe(row, device)
    book.clock.s += 20
    book.owe(row, device)
    book.clock.s += 5
    book.replies.expire()
    assert device.heard == [b"late 1"]
    assert book.replies.answer(row, b"AA")
    assert device.heard == [b"late 1", b"AA"]


def test_who_has_gone_is_answered_no_more_and_forgotten_with_its_message(book: Book) -> None:
    device = book.device()
    for row_id in range(1, 1_001):
        book.owe(row_of(row_id), device, within_s=0.0)
    book.hangs_up(device)
    book.replies.expire()
    assert book.replies.owed == 0
    assert not book.replies.answer(row_of(1), b"AA")
    assert device.heard == []


def test_a_later_word_reaches_the_connection_that_sent_the_message(book: Book) -> None:
    device, row = book.device(), row_of(1)
    book.owe(row, device)
    book.replies.answer(row, b"CA")
    assert book.replies.tell(row, b"AA")
    assert device.told == [b"AA"]


def test_a_later_word_never_reaches_a_later_connection_from_the_same_address(book: Book) -> None:
    device, row = book.device(), row_of(7)
    book.owe(row, device)
    book.replies.answer(row, b"CA")
    book.hangs_up(device)
    again = book.device()
    assert not book.replies.tell(row, b"AA")
    assert again.told == []


def test_a_connection_that_outlives_a_newer_one_in_the_books_changes_nothing(book: Book) -> None:
    # given the old connection's end noticed only after the new one came from the same address
    old, new = book.device(), book.device()
    book.hangs_up(old)
    row = row_of(1)
    book.owe(row, new)
    book.replies.answer(row, b"CA")
    assert book.replies.tell(row, b"AA")
    assert new.told == [b"AA"]


def test_a_message_of_an_earlier_process_is_nobodys_business(book: Book) -> None:
    book.replies.begin_after(100)
    device = book.device()
    assert not book.replies.tell(row_of(100), b"AA")
    book.owe(row_of(101), device)
    assert book.replies.tell(row_of(101), b"AA")


def test_who_repeats_a_message_from_another_connection_hears_the_later_word(book: Book) -> None:
    first, row = book.device("10.0.0.1:1"), row_of(1, "10.0.0.1:1")
    book.owe(row, first)
    book.replies.answer(row, b"CA")
    book.hangs_up(first)
    second = book.device("10.0.0.1:2")
    book.replies.follow(row, second)
    assert book.replies.tell(row, b"AA")
    assert second.told == [b"AA"]


def test_a_follower_that_has_gone_is_forgotten(book: Book) -> None:
    device = book.device()
    book.replies.follow(row_of(1), device)
    book.hangs_up(device)
    book.replies.expire()
    assert not book.replies.tell(row_of(1), b"AA")
    assert not book.replies._instead


def test_who_was_told_no_hears_no_later_yes(book: Book) -> None:
    device, row = book.device(), row_of(1)
    book.owe(row, device)
    book.replies.answer(row, b"CE")
    book.replies.hush(row)
    assert not book.replies.tell(row, b"AA")
    assert device.told == []


async def test_deadlines_are_watched_without_being_asked(book: Book) -> None:
    device = book.device()
    book.owe(row_of(1), device, within_s=1.0)
    book.clock.s += 1.0
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(book.replies.run())
        await book.bell.until(lambda: device.heard)
        running.cancel()
    assert device.heard == [b"late 1"]


class DebtMachine(RuleBasedStateMachine):
    """Whatever happens, each frame is answered exactly once or its sender has gone."""

    def __init__(self) -> None:
        super().__init__()
        self.book = Book()
        self.rows: list[Row] = []
        self.devices: list[Device] = []
        self.debts: list[tuple[float, Device, Row]] = []

    @rule()
    def connects(self) -> None:
        self.devices.append(self.book.device(f"10.0.0.1:{len(self.devices)}"))

    @precondition(lambda self: self.devices)
    @rule(data=st.data(), within_s=st.sampled_from((0.0, 5.0, 25.0)), repeats=st.booleans())
    def sends(self, data: st.DataObject, within_s: float, repeats: bool) -> None:
        device = data.draw(st.sampled_from(self.devices))
        if repeats and self.rows:
            row = data.draw(st.sampled_from(self.rows))
        else:
            row = row_of(len(self.rows) + 1)
            self.rows.append(row)
        self.book.owe(row, device, within_s)
        due = self.book.clock.s + within_s if within_s else float("inf")
        self.debts.append((due, device, row))

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def is_answered(self, data: st.DataObject) -> None:
        row = data.draw(st.sampled_from(self.rows))
        owed = [debt for debt in self.debts if debt[2] is row]
        heard = {id(device): len(device.heard) for device in self.devices}
        assert self.book.replies.answer(row, b"AA") is bool(owed)
        for device in {debt[1] for debt in owed}:
            assert len(device.heard) - heard[id(device)] == sum(debt[1] is device for debt in owed)
        self.debts = [debt for debt in self.debts if debt[2] is not row]

    @rule(passes_s=st.sampled_from((0.0, 5.0, 30.0)))
    def time_passes(self, passes_s: float) -> None:
        self.book.clock.s += passes_s
        self.book.late.clear()
        self.book.replies.expire()
        late = [debt for debt in self.debts if debt[0] <= self.book.clock.s]
        assert sorted(self.book.late) == sorted(row.id for _, _, row in late)
        self.debts = [debt for debt in self.debts if debt not in late]

    @precondition(lambda self: self.devices)
    @rule(data=st.data())
    def hangs_up(self, data: st.DataObject) -> None:
        device = data.draw(st.sampled_from(self.devices))
        self.devices.remove(device)
        self.book.hangs_up(device)
        self.debts = [debt for debt in self.debts if debt[1] is not device]

    @invariant()
    def debts_agree(self) -> None:
        for device in self.devices:
            assert device.owed == sum(debt[1] is device for debt in self.debts)

    def teardown(self) -> None:
        self.book.replies.expire()
        assert self.book.replies.owed == len({id(row) for _, _, row in self.debts})


TestDebtMachine = DebtMachine.TestCase
TestDebtMachine.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
