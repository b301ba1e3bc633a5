"""In which order the messages of one channel go to the server."""

from __future__ import annotations

import dataclasses

import pytest
from flow_far_ends import SPEC, adt
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agent.flow.lanes import Lane
from agent.metrics import ChannelMetrics
from agent.protocol.hl7 import Header, KeySpec
from agent.spec import AckMode, ChannelSpec
from agent.store.row import Row

BY_PATIENT = KeySpec.parse("PID-3.1")


def lane_of(**changes: object) -> Lane:
    return Lane("adt", dataclasses.replace(SPEC, **changes), ChannelMetrics())  # type: ignore[arg-type]


def entered(lane: Lane, row_id: int, body: bytes = adt(), remote: str = "10.0.0.1:40001") -> Row:
    """A durable row that has entered and woken."""
    header = Header.of(body)
    key = lane.key_of(header, body, remote)
    row = Row(row_id, "adt", remote, key, header.control_id, header.message_type, 0, body)
    row.durable = True
    lane.enter(row)
    lane.wake(row)
    return row


def went(lane: Lane, now: float = 0.0) -> list[int]:
    """The ids of all that may go now, taken."""
    ids = []
    while (row := lane.next(now)) is not None:
        lane.take(row)
        ids.append(row.id)
    return ids


def finish(lane: Lane, row: Row) -> None:
    lane.release(row)
    lane.done(row)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({}, b"10.0.0.1:40001"),
        ({"ack_mode": AckMode.ENHANCED}, b"10.0.0.1"),
        ({"ack_mode": AckMode.ENHANCED_AA}, b"10.0.0.1"),
        ({"max_workers": 1}, b""),
        ({"order_key": BY_PATIENT, "max_workers": 1}, b"P1"),
        ({"order_key": KeySpec.parse("PV1-19")}, b""),
    ],
)
def test_what_keeps_messages_in_order_among_themselves(changes: dict[str, object], key: bytes) -> None:
    body = adt(patient="P1")
    assert lane_of(**changes).key_of(Header.of(body), body, "10.0.0.1:40001") == key


def test_an_ipv6_sender_keeps_its_whole_address_as_key() -> None:
    lane = lane_of(ack_mode=AckMode.ENHANCED)
    assert lane.key_of(Header.of(adt()), adt(), "::ffff:10.0.0.1:40001") == b"::ffff:10.0.0.1"


def test_a_merge_waits_for_everything_before_it_and_holds_everything_after_it() -> None:
    # given messages of two patients, their merge, and one more of each
    lane = lane_of(order_key=BY_PATIENT)
    first = [entered(lane, 1, adt(patient="P1")), entered(lane, 2, adt(patient="P2"))]
    merge = entered(lane, 3, adt(patient="P1", event="A40"))
    entered(lane, 4, adt(patient="P3"))
    # then they go in three waves
    assert went(lane) == [1, 2]
    finish(lane, first[0])
    assert went(lane) == []
    finish(lane, first[1])
    assert went(lane) == [3]
    finish(lane, merge)
    assert went(lane) == [4]


def test_a_merge_on_a_channel_ordered_by_sender_is_like_any_other() -> None:
    lane = lane_of()
    entered(lane, 1, adt(), "10.0.0.1:1")
    entered(lane, 2, adt(event="A40"), "10.0.0.2:1")
    entered(lane, 3, adt(), "10.0.0.3:1")
    assert went(lane) == [1, 2, 3]


def test_a_gap_is_counted_from_when_the_message_went() -> None:
    lane = lane_of(messages_per_min=60.0)
    rows = [entered(lane, number, remote=f"10.0.0.{number}:1") for number in (1, 2)]
    assert went(lane, 100.0) == [1]
    assert went(lane, 200.0) == [], "the first is taken, but has not gone yet"
    lane.went(200.0)
    assert went(lane, 200.9) == []
    assert lane.next_due(200.9) == 201.0
    assert went(lane, 201.0) == [2]
    assert rows[1].order_key != rows[0].order_key


def test_nothing_is_due_while_workers_are_the_limit() -> None:
    # an alarm set for the present would call itself for ever
    lane = lane_of(max_workers=2)
    for number in range(4):
        entered(lane, number, remote=f"10.0.0.{number}:1")
    went(lane, 50.0)
    assert lane.next_due(50.0) is None


def test_a_row_settled_in_its_sleep_leaves_no_alarm_for_the_next_of_its_key() -> None:
    # given a sleeping row, and one behind it that fails too and is to sleep longer
    lane = lane_of()
    first, second = entered(lane, 1), entered(lane, 2)
    lane.take(first)
    lane.release(first)
    lane.back(first, 10.0)
    lane.done(first)  # a late answer
    assert went(lane, 5.0) == [2]
    lane.release(second)
    lane.back(second, 20.0)
    # then the first one's alarm wakes nobody
    assert went(lane, 15.0) == []
    assert went(lane, 20.0) == [2]


def test_only_the_first_of_a_key_can_sleep() -> None:
    lane = lane_of()
    first, second = entered(lane, 1), entered(lane, 2)
    lane.sleep(second, 10.0)
    assert went(lane) == [1]
    finish(lane, first)
    assert went(lane) == [2]


def test_a_row_behind_one_that_was_settled_late_waits_for_the_disk_and_for_a_barrier() -> None:
    # given a ready row that a late answer settles, and behind it one that is not stored yet
    lane = lane_of(order_key=BY_PATIENT)
    first = entered(lane, 1, adt(patient="P1"))
    entered(lane, 2, adt(patient="P2"))
    second = Row(3, "adt", "", first.order_key, b"M3", b"ADT", 0, adt(patient="P1"))
    lane.enter(second)
    lane.done(first)
    assert went(lane) == [2]
    # and one behind a barrier likewise
    second.durable = True
    lane.wake(second)
    entered(lane, 4, adt(patient="P3", event="A40"))
    entered(lane, 5, adt(patient="P1"))
    lane.done(second)
    assert went(lane) == []


def test_new_keys_begin_when_what_came_before_them_is_done() -> None:
    lane = lane_of()
    one = entered(lane, 1, remote="10.0.0.1:1")
    lane.respec(dataclasses.replace(SPEC, order_key=BY_PATIENT))
    entered(lane, 2, adt(patient="P1"))
    assert went(lane) == [1]
    finish(lane, one)
    assert went(lane) == [2]


def test_a_channel_that_is_not_configured_sends_nothing() -> None:
    lane = lane_of()
    entered(lane, 1)
    lane.respec(None)
    assert went(lane) == []
    lane.respec(SPEC)
    assert went(lane) == [1]


@dataclasses.dataclass(eq=False)
class Wanted:
    """A row as the model sees it. An era begins with each barrier, after it, and when keys change their meaning."""

    row: Row
    era: int
    due: float = 0.0
    taken: bool = False


class LaneMachine(RuleBasedStateMachine):
    """A lane against a list: whatever happens in whatever order, the promises hold."""

    def __init__(self) -> None:
        super().__init__()
        self.spec: ChannelSpec = dataclasses.replace(SPEC, order_key=BY_PATIENT, max_workers=2)
        self.lane = Lane("adt", self.spec, ChannelMetrics())
        self.waiting: list[Wanted] = []
        self.now = 0.0
        self.era = 0
        self.last_id = 0

    def may_go(self, one: Wanted) -> bool:
        before = self.waiting[: self.waiting.index(one)]
        key = one.row.order_key
        return (
            one.row.durable
            and not one.taken
            and one.due <= self.now
            and not any(other.row.order_key == key or other.era < one.era for other in before)
            and (self.spec.max_workers is None or self.taken < self.spec.max_workers)
        )

    @property
    def taken(self) -> int:
        return len({one.row.order_key for one in self.waiting if one.taken})

    @rule(
        patient=st.sampled_from("ABC"),
        merge=st.sampled_from((False, False, False, True)),
        durable=st.booleans(),
        at_once=st.booleans(),
    )
    def arrives(self, patient: str, merge: bool, durable: bool, at_once: bool) -> None:
        body = adt(patient=patient, event="A40" if merge else "A01")
        header = Header.of(body)
        self.last_id += 1
        key = self.lane.key_of(header, body, f"10.0.0.{ord(patient)}:1")
        row = Row(self.last_id, "adt", "", key, header.control_id, header.message_type, 0, body)
        self.lane.enter(row)
        barrier = merge and self.spec.order_key is not None
        self.waiting.append(one := Wanted(row, self.era + barrier))
        self.era += 2 * barrier
        if self.lane.may_go_at_once(row) and at_once:
            row.durable = True  # the dispatcher takes it now and waits for the disk with it
            assert self.may_go(one)
            self.lane.take(row)
            one.taken = True
        elif durable:
            row.durable = True
            self.lane.wake(row)

    @precondition(lambda self: any(not one.row.durable for one in self.waiting))
    @rule()
    def is_committed(self) -> None:
        row = next(one.row for one in self.waiting if not one.row.durable)
        row.durable = True
        self.lane.wake(row)

    @precondition(lambda self: any(not one.row.durable for one in self.waiting))
    @rule()
    def is_not_stored(self) -> None:
        one = next(one for one in self.waiting if not one.row.durable)
        self.lane.done(one.row)
        self.waiting.remove(one)

    @rule(passes_s=st.sampled_from((0.0, 1.0, 5.0)))
    def is_pumped(self, passes_s: float) -> None:
        self.now += passes_s
        while (row := self.lane.next(self.now)) is not None:
            one = next(one for one in self.waiting if one.row is row)
            assert self.may_go(one)
            self.lane.take(row)
            one.taken = True
        assert not any(map(self.may_go, self.waiting)), "something may go that the lane does not give out"

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def is_settled(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from([one for one in self.waiting if one.taken]))
        self.lane.release(one.row)
        self.lane.done(one.row)
        self.waiting.remove(one)

    @precondition(lambda self: self.taken)
    @rule(data=st.data(), sleeps_s=st.sampled_from((None, 1.0, 3.0)))
    def comes_back(self, data: st.DataObject, sleeps_s: float | None) -> None:
        one = data.draw(st.sampled_from([one for one in self.waiting if one.taken]))
        one.taken = False
        one.due = self.now + sleeps_s if sleeps_s is not None else 0.0
        self.lane.release(one.row)
        self.lane.back(one.row, one.due if sleeps_s is not None else None)

    @precondition(lambda self: any(one.due > self.now for one in self.waiting))
    @rule()
    def is_settled_in_its_sleep(self) -> None:
        one = next(one for one in self.waiting if one.due > self.now)
        self.lane.done(one.row)
        self.waiting.remove(one)

    @precondition(lambda self: any(one.row.durable and not one.taken for one in self.waiting))
    @rule(data=st.data())
    def is_settled_by_a_late_answer(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from([one for one in self.waiting if one.row.durable and not one.taken]))
        self.lane.done(one.row)
        self.waiting.remove(one)

    @rule(workers=st.sampled_from((None, 1, 2, 3)), by_patient=st.booleans())
    def is_configured_anew(self, workers: int | None, by_patient: bool) -> None:
        before = self.spec
        self.spec = dataclasses.replace(SPEC, order_key=BY_PATIENT if by_patient else None, max_workers=workers)
        if (before.order_key, before.max_workers == 1) != (self.spec.order_key, workers == 1):
            self.era += 1
        self.lane.respec(self.spec)

    @invariant()
    def counts_are_right(self) -> None:
        assert self.lane.rows == len(self.waiting)
        assert self.lane.bytes == sum(one.row.size for one in self.waiting)
        assert self.lane.metrics.pending == sum(one.taken for one in self.waiting)
        assert self.lane.bytes_taken == sum(one.row.size for one in self.waiting if one.taken)
        asleep = {one.row.order_key for one in self.waiting if one.row.order_key in self.lane.asleep}
        assert self.lane.dozing == sum(one.row.order_key in asleep for one in self.waiting)

    def teardown(self) -> None:
        """When everything settles, every row goes."""
        for one in self.waiting:
            one.row.durable = True
        for one in list(self.waiting):
            self.lane.wake(one.row)
        self.now += 1_000.0
        while self.waiting:
            self.is_pumped(0.0)
            gone = [one for one in self.waiting if one.taken]
            assert gone, "rows wait that will never go"
            for one in gone:
                self.lane.release(one.row)
                self.lane.done(one.row)
                self.waiting.remove(one)
        assert not self.lane.keys
        assert not self.lane.busy
        assert not self.lane.asleep


TestLaneMachine = LaneMachine.TestCase
TestLaneMachine.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
