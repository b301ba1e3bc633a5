"""What a key would do for a channel, told from the order in which its messages came."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.keystudy import KeyStudy, Message, Result, advice, can_tell, message_of
from agent.protocol.hl7 import KeySpec

WORKERS = (1, 2, 4, 8, 16)
MESSAGES = st.lists(
    st.builds(
        Message,
        st.integers(0, 10**7),
        st.sampled_from([b"", b"a", b"b", b"c", b"d", b"e" * 40]),
        st.one_of(st.none(), st.none(), st.none(), st.sampled_from([(), (b"a",), (b"b",)])),
    ),
    max_size=60,
)


def study(messages: Iterable[Message], workers: Sequence[int] = WORKERS) -> Result:
    found = KeyStudy(workers)
    for message in messages:
        found.add(message)
    return found.result()


def of_keys(*keys: bytes | str, barriers: Sequence[int] = ()) -> list[Message]:
    return [
        Message(index, key.encode() if isinstance(key, str) else key, () if index in barriers else None)
        for index, key in enumerate(keys)
    ]


def steps_of_workers(messages: Sequence[Message], workers: int) -> int:
    """The same by the letter: in each unit of time every worker takes the first waiting message that may go."""
    waiting = list(range(len(messages)))
    steps = 0
    while waiting:
        steps += 1
        taken: list[int] = []
        for index in waiting:
            before = [other for other in waiting if other < index]
            free = all(messages[other].key != messages[index].key and messages[other].ties is None for other in before)
            alone = messages[index].ties is None or not before
            if free and alone and len(taken) < workers:
                taken.append(index)
        waiting = [index for index in waiting if index not in taken]
    return steps


@given(MESSAGES, st.integers(1, 9))
def test_the_schedule_is_that_of_workers_who_take_the_first_message_that_may_go(
    messages: list[Message], workers: int
) -> None:
    found = study(messages, (workers,)).speed_up[workers]

    assert found == (len(messages) / steps_of_workers(messages, workers) if messages else 1.0)


@given(MESSAGES)
def test_a_speed_up_is_between_one_and_the_workers_and_grows_with_them(messages: list[Message]) -> None:
    found = study(messages).speed_up

    assert all(1 <= gain <= workers for workers, gain in found.items())
    assert sorted(found.values()) == list(found.values())


@given(MESSAGES)
def test_the_counts_are_those_of_the_messages(messages: list[Message]) -> None:
    found = study(messages)

    keys = [message.key for message in messages]
    assert (found.messages, found.keys, found.empty) == (len(keys), len(set(keys)), keys.count(b""))
    named = [key for key in keys if key]
    if found.largest:
        assert found.largest[0][1] == max(map(named.count, named))
        assert all(named.count(key) == count for key, count in found.largest)
    assert found.barriers == sum(message.ties is not None for message in messages)
    assert found.crossing == sum(
        any(tied != message.key for tied in message.ties) for message in messages if message.ties is not None
    )


def test_one_key_is_one_queue() -> None:
    assert set(study(of_keys(*["a"] * 1_000)).speed_up.values()) == {1.0}


def test_with_all_keys_different_every_worker_counts() -> None:
    found = study(of_keys(*map(str, range(16_000))))

    assert found.speed_up == {workers: float(workers) for workers in WORKERS}


def test_half_of_the_messages_with_one_key_leave_a_speed_up_of_two() -> None:
    keys = [str(index) if index % 2 else "same" for index in range(8_000)]

    assert study(of_keys(*keys)).speed_up[16] == pytest.approx(2, rel=0.01)


def test_a_merge_waits_for_all_and_all_wait_for_it() -> None:
    """a b c | merge | d e: with 4 workers three units of time."""
    found = study(of_keys("a", "b", "c", "merge", "d", "e", barriers=[3]), (4,))

    assert found.speed_up == {4: 6 / 3}
    assert (found.barriers, found.crossing) == (1, 0)


def test_a_very_long_key_is_told_from_another_and_kept_short() -> None:
    found = study(of_keys(b"x" * 10_000 + b"1", b"x" * 10_000 + b"2", b"x" * 10_000 + b"2"))

    assert found.keys == 2
    assert [(len(key), count) for key, count in found.largest] == [(200, 2), (200, 1)]


def test_the_busiest_minute_and_the_span_are_those_of_the_arrivals() -> None:
    arrivals_ms = [0, 59_999, 60_000, 60_001, 119_999, 600_000]

    found = study(Message(arrival, b"") for arrival in arrivals_ms)

    assert (found.busiest_minute, found.first_ms, found.last_ms) == (3, 0, 600_000)


def test_the_commonest_keys_come_first_and_the_empty_one_is_not_among_them() -> None:
    keys = random.Random(1).sample(["a"] * 9 + ["b"] * 5 + [""] * 20 + ["c"], 35)

    found = study(of_keys(*keys))

    assert found.largest[:2] == ((b"a", 9), (b"b", 5))
    assert all(key for key, _ in found.largest)
    assert found.empty_share == 20 / 35
    assert found.largest_share == 9 / 35


# ---- out of HL7

PID = KeySpec.parse("PID-3.1")


def hl7(trigger: str, *segments: str) -> bytes:
    return "\r".join([f"MSH|^~\\&|A|B|C|D|||ADT^{trigger}|1|P|2.5", *segments, ""]).encode()


@pytest.mark.parametrize(
    ("spec", "message", "ties"),
    [
        ("PID-3.1", hl7("A01", "PID|1||4711^^^H"), None),
        ("PID-3.1", hl7("A40", "PID|1||4711^^^H", "MRG|4712^^^H"), (b"4712",)),
        ("PID-3.1", hl7("A40", "PID|1||4711^^^H", "MRG|4711^^^H"), (b"4711",)),
        ("PID-3.1", hl7("A40", "PID|1||1", "MRG|2", "PID|1||3", "MRG|4"), (b"2", b"3", b"4")),
        ("PID-3", hl7("A40", "PID|1||4711^^^H", "MRG|4712^^^H"), (b"4712^^^H",)),
        ("MSH-4,PID-3.1", hl7("A40", "PID|1||4711", "MRG|4712"), (b"B\x1f4712",)),
        ("PID-18", hl7("A35", "PID|1||4711" + "|" * 15 + "ACC1", "MRG|4712||ACC2"), (b"ACC2",)),
        ("PV1-19", hl7("A50", "PID|1||4711", "MRG|||||V2", "PV1|1" + "|" * 18 + "V1"), (b"V1", b"V2")),
        ("PID-3.1", hl7("A24", "PID|1||1", "PID|2||2"), (b"2",)),
        ("PID-3.1", hl7("A40", "PID|1||1"), ()),
        ("MSH-10", hl7("A40", "PID|1||1", "MRG|2"), ()),
    ],
)
def test_the_keys_that_a_merge_ties_are_read_where_the_standard_puts_them(
    spec: str, message: bytes, ties: tuple[bytes, ...] | None
) -> None:
    found = message_of(KeySpec.parse(spec), 7, message)

    own = KeySpec.parse(spec).read(message)
    assert (found.arrival_ms, found.key) == (7, own)
    if ties is None or found.ties is None:
        assert found.ties == ties
    else:
        assert set(found.ties) - {own} == set(ties) - {own}


@given(st.binary(max_size=300), st.sampled_from(["PID-3.1", "MSH-4,PID-3.1", "PV1-19"]))
def test_any_bytes_are_a_message(body: bytes, spec: str) -> None:
    read = KeySpec.parse(spec)

    for content in (body, b"MSH|^~\\&|" + body, hl7("A40") + body):
        assert message_of(read, 0, content).key == read.read(content)
        can_tell(read, content)


@given(st.integers(0, 200), st.sampled_from(["PID-3.1", "MSH-4,PID-3.1", "NTE-3", "MSH-10"]))
def test_what_the_beginning_is_enough_for_is_the_same_as_of_the_whole(length: int, spec: str) -> None:
    whole = hl7("A01", "PID|1||4711^^^H||NEMO", "NTE|1||" + "x" * 100)
    read = KeySpec.parse(spec)

    if can_tell(read, whole[:length]):
        assert message_of(read, 0, whole[:length]) == message_of(read, 0, whole)


def test_a_merge_is_read_whole_and_a_key_that_stands_late_too() -> None:
    assert can_tell(PID, hl7("A01", "PID|1||1", "NTE"))
    assert not can_tell(PID, hl7("A40", "PID|1||1", "NTE"))
    assert not can_tell(PID, hl7("A01", "EVN|1"))
    assert not can_tell(PID, hl7("A01", "PID|1||1")[:-1])


# ---- advice


@pytest.mark.parametrize(
    ("keys", "barriers", "words"),
    [
        ([], (), "nothing to judge by"),
        ([""] * 20 + list(map(str, range(80))), (), "Take another key: 20% of the messages have no PID-3.1"),
        (["a"] * 90 + ["b"] * 10, (), "Leave it as it is: PID-3.1 makes little difference, since 90%"),
        (list(map(str, range(100))), range(100), "Leave it as it is: PID-3.1 makes little difference, since so many"),
        (["a", "b"], (), "maxWorkers=2 empties a queue about 2.0 times as fast, and more workers add little."),
        (list(map(str, range(1_600))), (), "maxWorkers=16 empties a queue about 16.0 times as fast."),
    ],
)
def test_the_advice_is_one_sentence_with_its_reason(keys: list[str], barriers: Sequence[int], words: str) -> None:
    told = advice(study(of_keys(*keys, barriers=barriers)), "PID-3.1")

    assert words in told
    assert told.endswith(".")
