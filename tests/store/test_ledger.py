"""Looking for messages in the file as a stranger: with its owner at work, gone, and with a file that cannot be read."""

from __future__ import annotations

import os
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_disk import EARLIER, REMOTE, Told, conclude, message, of_version, outbound, running, settled, store

from agent.errors import StoreError
from agent.store import ledger
from agent.store.ledger import Entry, Filter, channels, entries, id_span
from agent.store.row import AckState, Content, Direction, Repeat, State
from agent.store.sqlite import SCHEMA_VERSION, SpoolTooNew, SpoolTrouble, open_sound

T0 = 1_790_000_000_000
HOUR_MS = 3_600_000
EVERYTHING = Filter(limit=1_000_000)


def fill(path: Path, *messages: Entry) -> None:
    """A spool that holds these and nothing else; the bodies are not looked at here."""
    connection = open_sound(path)
    with connection:
        connection.executemany("INSERT INTO message VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?)", map(message_values, messages))
        connection.executemany("INSERT INTO delivery VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?)", map(delivery_values, messages))
    connection.close()


def message_values(m: Entry) -> tuple[Any, ...]:
    body = b"x" * m.size_bytes
    came = m.id, m.channel, m.remote, m.order_key, m.control_id, m.message_type, m.received_ms, m.seq, m.repeat
    return *came, body, m.direction, m.callback, m.content


def delivery_values(m: Entry) -> tuple[Any, ...]:
    answer = None if m.answer_bytes is None else b"y" * m.answer_bytes
    fate = m.state, m.ack, m.attempts, m.ambiguous, m.due_ms, m.settled_ms, m.status, m.ack_code, m.reason
    return m.id, *fate, answer, m.channel, m.direction


def an_entry(number: int, **different: object) -> Entry:
    entry = Entry(
        id=number,
        channel="adt",
        remote="10.1.1.1:5000",
        order_key=b"key",
        control_id=b"M%d" % number,
        message_type=b"ADT^A01^ADT_A01",
        received_ms=T0 + number * 1_000,
        seq=None,
        repeat=Repeat.NO,
        size_bytes=3,
        state=State.PROCESSED,
        ack=AckState.DELIVERED,
        attempts=1,
        ambiguous=False,
        due_ms=0,
        settled_ms=T0 + number * 1_000 + 50,
        status=200,
        ack_code="AA",
        reason="",
        answer_bytes=5,
        direction=Direction.IN,
        callback="",
        content=Content.HL7,
    )
    return replace(entry, **different)  # type: ignore[arg-type]


def an_outbound(number: int, **different: object) -> Entry:
    return an_entry(number, **{"channel": REMOTE, "direction": Direction.OUT, "callback": f"c{number}", **different})


def ids(path: Path, wanted: Filter) -> list[int]:
    return [entry.id for entry in entries(path, wanted)]


async def test_the_file_of_a_live_owner_is_searched_while_it_works(path: Path, told: Told) -> None:
    async with running(path, told) as spool:
        first, second = message(spool), message(spool, channel="lab", state=State.INFLIGHT)
        await store(spool, told, first, second)
        conclude(spool, first, State.HELD)
        await settled(spool)

        found = entries(path, EVERYTHING)
        await store(spool, told, message(spool))

        assert [(entry.id, entry.channel, entry.state) for entry in found] == [
            (second.id, "lab", State.INFLIGHT),
            (first.id, "adt", State.HELD),
        ]
        assert len(entries(path, EVERYTHING)) == 3


async def test_a_message_is_found_with_all_that_the_owner_knows_of_it(path: Path, told: Told) -> None:
    async with running(path, told) as spool:
        row = message(spool, seq=42, repeat=Repeat.RETRIED)
        await store(spool, told, row)
        conclude(spool, row)
        await settled(spool)

        found = ledger.message(path, row.id)

    assert found is not None
    assert (found.body, found.answer) == (row.body, row.answer)
    assert (found.entry.seq, found.entry.repeat, found.entry.state) == (42, Repeat.RETRIED, State.PROCESSED)
    assert (found.entry.ack, found.entry.ack_code, found.entry.status) == (AckState.DELIVERED, "AA", 200)
    assert (found.entry.size_bytes, found.entry.answer_bytes) == (len(row.body), len(row.answer or b""))
    assert (found.entry.control_id, found.entry.remote) == (row.control_id, row.remote)
    assert found.entry.settled_ms is not None


async def test_a_message_to_a_remote_is_found_with_all_that_the_owner_knows_of_it(path: Path, told: Told) -> None:
    async with running(path, told) as spool:
        row = outbound(spool, callback="callback-9")
        await store(spool, told, row)
        conclude(spool, row)
        await settled(spool)

        found = ledger.message(path, row.id)

    assert found is not None
    assert (found.entry.direction, found.entry.callback) == (Direction.OUT, "callback-9")
    assert (found.entry.channel, found.entry.remote) == (REMOTE, row.remote)
    assert (found.body, found.answer, found.entry.ack_code) == (row.body, row.answer, "AA")


async def test_looking_changes_nothing_in_the_file(path: Path, told: Told) -> None:
    async with running(path, told) as spool:
        await store(spool, told, message(spool))
    before = path.read_bytes()

    assert len(entries(path, EVERYTHING)) == 1
    assert ledger.message(path, 1) is not None
    assert path.read_bytes() == before


def test_an_entry_comes_back_as_it_was_written(path: Path) -> None:
    odd = an_entry(
        7,
        order_key=b"A\x1fB",
        seq=3,
        repeat=Repeat.CONFLICT,
        state=State.FAILED,
        ack=AckState.UNDELIVERED,
        attempts=9,
        ambiguous=True,
        due_ms=5,
        status=None,
        ack_code="AR",
        reason="away",
        answer_bytes=None,
        direction=Direction.OUT,
        callback="callback-7",
    )
    fill(path, odd)

    assert entries(path, EVERYTHING) == [odd]


def test_the_newest_come_first_and_the_next_page_goes_on_below(path: Path) -> None:
    fill(path, *(an_entry(number) for number in range(1, 8)))

    assert ids(path, Filter(limit=3)) == [7, 6, 5]
    assert ids(path, Filter(limit=3, before_id=5)) == [4, 3, 2]
    assert ids(path, Filter(limit=3, before_id=2)) == [1]
    assert ids(path, Filter(limit=3, before_id=1)) == []


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("M1", [1]),
        ("M1*", [12, 11, 1]),
        ("M*", [12, 11, 2, 1]),
        ("*", [13, 12, 11, 2, 1]),
        ("m1", []),
        ("M", []),
        ("100%*", [13]),
    ],
)
def test_a_control_id_is_exact_or_a_beginning(path: Path, wanted: str, found: list[int]) -> None:
    fill(
        path,
        an_entry(1),
        an_entry(2, channel="lab"),
        an_entry(3, control_id=b""),
        an_entry(11),
        an_entry(12, channel="lab"),
        an_entry(13, control_id=b"100%1"),
    )

    assert ids(path, Filter(control_id=wanted)) == found
    assert ids(path, Filter(control_id=wanted, channel="lab")) == [number for number in found if number in (2, 12)]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("ADT", [4, 3, 2, 1]),
        ("adt", [4, 3, 2, 1]),
        ("ADT^A01", [4, 3, 1]),
        ("ADT-A01", [4, 3, 1]),
        ("ADT^A01^ADT_A01", [1]),
        ("ADT^A0", []),
        ("AD", []),
        ("ADTX", [5]),
        ("^", []),
    ],
)
def test_a_type_is_a_beginning_of_whole_components_in_any_delimiters(path: Path, wanted: str, found: list[int]) -> None:
    types = [b"ADT^A01^ADT_A01", b"ADT^A08", b"ADT$A01", b"adt^a01", b"ADTX^A01", b""]
    fill(path, *(an_entry(number, message_type=kind) for number, kind in enumerate(types, 1)))

    assert ids(path, Filter(message_type=wanted)) == found


def test_both_directions_are_in_one_page_and_each_can_be_asked_for(path: Path) -> None:
    fill(path, an_entry(1), an_outbound(2), an_entry(3), an_outbound(4, state=State.QUEUED), an_outbound(5))

    assert ids(path, Filter(limit=4)) == [5, 4, 3, 2]
    assert ids(path, Filter(limit=4, before_id=2)) == [1]
    assert ids(path, Filter(direction=Direction.IN)) == [3, 1]
    assert ids(path, Filter(direction=Direction.OUT, limit=2)) == [5, 4]
    assert ids(path, Filter(direction=Direction.OUT, limit=2, before_id=4)) == [2]
    assert ids(path, Filter(direction=Direction.OUT, states=frozenset((State.QUEUED,)))) == [4]
    assert ids(path, Filter(direction=Direction.IN, states=frozenset((State.QUEUED,)))) == []


def test_what_goes_to_a_remote_is_found_by_its_url(path: Path) -> None:
    namesake = an_entry(3, channel=REMOTE)
    fill(path, an_entry(1), an_outbound(2), namesake, an_outbound(4, channel="mllp://other:1"))

    assert ids(path, Filter(channel=REMOTE)) == [3, 2]
    assert ids(path, Filter(channel=REMOTE, direction=Direction.OUT)) == [2]
    assert ids(path, Filter(channel=REMOTE, control_id="M2")) == [2]
    assert channels(path) == ["adt", REMOTE, "mllp://other:1"]


def test_what_a_message_is_made_of_can_be_asked_for(path: Path) -> None:
    dicom = Content.DICOM
    fill(
        path, an_entry(1), an_entry(2, content=dicom), an_entry(3, content=Content.ASTM), an_outbound(4, content=dicom)
    )

    assert ids(path, Filter(content=Content.DICOM)) == [4, 2]
    assert ids(path, Filter(content=Content.DICOM, control_id="M2")) == [2]
    assert ids(path, Filter(content=Content.HL7)) == [1]
    assert ids(path, Filter(content=Content.BYTES)) == []
    assert [entry.content for entry in entries(path, EVERYTHING)] == [dicom, Content.ASTM, dicom, Content.HL7]


@pytest.mark.parametrize("earlier", EARLIER)
def test_a_file_that_nobody_has_migrated_so_far_is_read_as_it_is(path: Path, earlier: int) -> None:
    of_version(earlier, path, [State.PROCESSED, State.QUEUED])
    outbound = [1002, 1001] if earlier == 2 else []
    before = path.read_bytes()

    assert ids(path, EVERYTHING) == [*outbound, 2, 1]
    assert ids(path, Filter(direction=Direction.IN, states=frozenset((State.QUEUED,)))) == [2]
    assert ids(path, Filter(direction=Direction.OUT)) == outbound
    assert ids(path, Filter(content=Content.HL7)) == [*outbound, 2, 1]
    assert ids(path, Filter(content=Content.ASTM)) == []
    found = ledger.message(path, 2)
    assert found is not None
    assert (found.entry.direction, found.entry.callback, found.body) == (Direction.IN, "", b"body 2")
    assert found.entry.content is Content.HL7
    assert path.read_bytes() == before


def test_no_state_finds_nothing(path: Path) -> None:
    fill(path, an_entry(1), an_entry(2, state=State.QUEUED))

    assert ids(path, Filter(states=frozenset())) == []


class TestTime:
    def test_the_beginning_belongs_to_it_and_the_end_does_not(self, path: Path) -> None:
        fill(path, *(an_entry(number) for number in range(1, 100)))

        assert ids(path, Filter(since_ms=T0 + 10_000, until_ms=T0 + 13_000)) == [12, 11, 10]
        assert ids(path, Filter(since_ms=T0 + 98_000)) == [99, 98]
        assert ids(path, Filter(until_ms=T0 + 3_000)) == [2, 1]
        assert ids(path, Filter(since_ms=T0 + 100_000)) == []
        assert ids(path, Filter(until_ms=T0)) == []

    def test_messages_are_found_where_the_clock_was_set_back_by_an_hour(self, path: Path) -> None:
        before = [an_entry(number, received_ms=T0 + number * 60_000) for number in range(1, 81)]
        after = [an_entry(number, received_ms=T0 + (number - 60) * 60_000) for number in range(81, 200)]
        fill(path, *before, *after)

        after_it = ids(path, Filter(since_ms=T0 + 70 * 60_000, until_ms=T0 + 80 * 60_000))
        before_it = ids(path, Filter(since_ms=T0 + 50 * 60_000, until_ms=T0 + 60 * 60_000, before_id=141))

        assert after_it == [*range(139, 129, -1), *range(79, 69, -1)]
        assert before_it == [*range(119, 109, -1), *range(59, 49, -1)]

    def test_long_searches_go_through_gaps_that_retention_left(self, path: Path) -> None:
        held = an_entry(1, state=State.HELD)
        fill(path, held, *(an_entry(number) for number in range(500_000, 500_003)), an_entry(9_000_000))

        assert ids(path, Filter(states=frozenset((State.HELD,)))) == [1]


_STATES = st.sampled_from(State)
_MESSAGES = st.lists(
    st.builds(
        lambda channel, state, control_id, kind, step, way: (channel, state, control_id, kind, step, way),
        st.sampled_from(["adt", "lab", "é"]),
        _STATES,
        st.sampled_from([b"", b"A1", b"A2", b"B", b"\xff\xff"]),
        st.sampled_from([b"ADT^A01", b"ADT^A08", b"ORU^R01"]),
        st.integers(0, 3 * HOUR_MS),
        st.sampled_from(Direction),
    ),
    max_size=40,
)
_FILTERS = st.builds(
    Filter,
    channel=st.sampled_from([None, "adt", "é", "none"]),
    states=st.none() | st.frozensets(_STATES),
    direction=st.none() | st.sampled_from(Direction),
    since_ms=st.none() | st.integers(T0, T0 + 60 * HOUR_MS),
    until_ms=st.none() | st.integers(T0, T0 + 60 * HOUR_MS),
    control_id=st.sampled_from(["", "A1", "A*", "*"]),
    message_type=st.sampled_from(["", "ADT", "ADT^A08"]),
    before_id=st.none() | st.integers(1, 60),
    limit=st.integers(1, 50),
)


def fits(entry: Entry, wanted: Filter) -> bool:
    control_id = wanted.control_id.encode()
    return (
        (wanted.channel is None or entry.channel == wanted.channel)
        and (wanted.states is None or entry.state in wanted.states)
        and (wanted.direction is None or entry.direction is wanted.direction)
        and (wanted.since_ms is None or entry.received_ms >= wanted.since_ms)
        and (wanted.until_ms is None or entry.received_ms < wanted.until_ms)
        and (
            not control_id.endswith(b"*") or (entry.control_id != b"" and entry.control_id.startswith(control_id[:-1]))
        )
        and (not control_id or control_id.endswith(b"*") or entry.control_id == control_id)
        and (entry.message_type + b"^").startswith(wanted.message_type.encode() + b"^" * bool(wanted.message_type))
        and (wanted.before_id is None or entry.id < wanted.before_id)
    )


@given(_MESSAGES, st.lists(_FILTERS, min_size=1, max_size=12))
def test_a_search_finds_what_looking_at_every_message_would(
    tmp_path_factory: pytest.TempPathFactory,
    told_of: list[tuple[str, State, bytes, bytes, int, Direction]],
    asked: list[Filter],
) -> None:
    path = tmp_path_factory.mktemp("ledger") / "spool.db"
    held = []
    moment = T0
    for number, (channel, state, control_id, kind, step, way) in enumerate(told_of, 3):
        moment += step
        came = moment - (HOUR_MS if number % 7 == 0 else 0)  # a clock that is set back, and forth again
        kept = an_entry(number, channel=channel, state=state, control_id=control_id, message_type=kind)
        held.append(replace(kept, received_ms=came, direction=way))
    fill(path, *held)

    for wanted in asked:
        expected = [entry for entry in reversed(held) if fits(entry, wanted)][: wanted.limit]
        assert entries(path, wanted) == expected


def test_more_than_one_round_of_the_index_of_undelivered_messages(path: Path) -> None:
    chance = random.Random(7)
    channel_of = {number: chance.choice(["adt", "lab", "lab", "lab"]) for number in range(1, 2_001)}
    held = [
        an_entry(number, channel=channel, state=State.INFLIGHT if number % 5 == 0 else State.QUEUED)
        for number, channel in channel_of.items()
    ]
    fill(path, *held)
    open_states = frozenset((State.QUEUED, State.INFLIGHT))

    assert ids(path, Filter(states=open_states, limit=5_000)) == list(range(2_000, 0, -1))
    assert ids(path, Filter(states=open_states, channel="adt", limit=5_000)) == [
        number for number in range(2_000, 0, -1) if channel_of[number] == "adt"
    ]


def test_a_beginning_that_nearly_all_control_ids_have_finds_the_same(path: Path) -> None:
    ordinary = an_entry(1, size_bytes=0)
    fill(
        path,
        *(replace(ordinary, id=number, control_id=b"MSG%d" % number) for number in range(1, 200_003)),
        an_entry(200_003, control_id=b""),
    )

    assert ids(path, Filter(control_id="MSG*", limit=2)) == [200_002, 200_001]
    assert ids(path, Filter(control_id="*", limit=2)) == [200_002, 200_001]


def steps(path: Path, wanted: Filter) -> int:
    """How far SQLite's machine runs for a search, in thousands of its instructions."""
    counted = [0]

    def tick() -> bool:
        counted[0] += 1
        return False

    def hook(connection: apsw.Connection) -> None:
        connection.set_progress_handler(tick, 1_000)

    apsw.connection_hooks.append(hook)
    try:
        entries(path, wanted)
    finally:
        apsw.connection_hooks.remove(hook)
    return counted[0]


def test_what_an_index_knows_is_not_searched_for(path: Path) -> None:
    fill(
        path,
        an_entry(1, state=State.QUEUED),
        *(an_entry(number, received_ms=T0 + number * 60_000) for number in range(2, 20_000)),
    )
    everything = steps(path, Filter(states=frozenset((State.FAILED,))))

    assert everything > 50
    assert steps(path, Filter(states=frozenset((State.QUEUED,)))) < 10
    assert steps(path, Filter(control_id="M2")) < 10
    assert steps(path, Filter(limit=50)) < 10
    assert steps(path, Filter(limit=50, before_id=100)) < 10
    assert steps(path, Filter(since_ms=T0 + 19_990 * 60_000)) < 10
    assert steps(path, Filter(until_ms=T0 + 10 * 60_000)) < 10
    assert steps(path, Filter(direction=Direction.OUT)) <= everything
    assert channels(path) == ["adt"]


def test_what_waits_to_go_out_is_not_searched_for_among_what_came_in(path: Path) -> None:
    fill(
        path,
        *(an_entry(number, state=State.QUEUED) for number in range(1, 20_000)),
        an_outbound(20_000, state=State.QUEUED),
        *(an_entry(number, state=State.QUEUED) for number in range(20_001, 40_000)),
    )

    assert ids(path, Filter(direction=Direction.OUT, states=frozenset((State.QUEUED,)))) == [20_000]
    assert steps(path, Filter(direction=Direction.OUT, states=frozenset((State.QUEUED,)))) < 10
    assert steps(path, Filter(channel=REMOTE, states=frozenset((State.QUEUED, State.INFLIGHT)))) < 10


def test_a_channel_whose_messages_have_no_ids_is_known_while_one_of_them_is_open(path: Path) -> None:
    nameless = {"channel": "scale", "control_id": b"", "content": Content.BYTES}
    fill(path, an_entry(1), an_entry(2, **nameless), an_entry(3, **nameless, state=State.QUEUED), an_outbound(4))

    assert channels(path) == ["adt", REMOTE, "scale"]


def test_the_channels_and_the_span_of_what_is_held(path: Path) -> None:
    fill(path, an_entry(5, channel="lab"), an_entry(9), an_entry(12, channel="lab"))

    assert channels(path) == ["adt", "lab"]
    assert id_span(path) == (5, 12)


def test_a_message_that_is_not_there_is_none(path: Path) -> None:
    fill(path, an_entry(5))

    assert ledger.message(path, 6) is None


def test_without_a_file_it_says_what_to_do(path: Path) -> None:
    with pytest.raises(StoreError, match="no spool") as caught:
        entries(path, EVERYTHING)
    assert caught.value.hint
    assert not path.exists()


def test_a_file_that_was_only_just_created_is_empty(path: Path) -> None:
    path.touch()

    assert entries(path, EVERYTHING) == []
    assert ledger.message(path, 1) is None
    assert channels(path) == []
    assert id_span(path) is None


def test_a_spool_without_messages_is_empty(path: Path) -> None:
    fill(path)

    assert entries(path, Filter(since_ms=T0)) == []
    assert id_span(path) is None


@pytest.mark.parametrize("damaged", [b"no database at all" * 500, b"SQLite format 3\0" + b"\xa5" * 9000])
def test_a_damaged_file_is_named_so_and_left_alone(path: Path, damaged: bytes) -> None:
    path.write_bytes(damaged)

    with pytest.raises(SpoolTrouble, match="cannot be read"):
        entries(path, EVERYTHING)
    with pytest.raises(SpoolTrouble, match="cannot be read"):
        ledger.message(path, 1)
    assert path.read_bytes() == damaged


def test_a_file_of_a_newer_version_is_not_interpreted(path: Path) -> None:
    connection = open_sound(path)
    connection.pragma("user_version", SCHEMA_VERSION + 1)
    connection.close()

    with pytest.raises(SpoolTooNew):
        entries(path, EVERYTHING)


def test_states_that_nobody_knows_are_damage_not_a_crash(path: Path) -> None:
    fill(path, an_entry(1))
    connection = open_sound(path)
    connection.execute("UPDATE delivery SET state=77")
    connection.close()

    with pytest.raises(SpoolTrouble):
        entries(path, EVERYTHING)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="an administrator may read everything")
def test_a_file_of_somebody_else_names_the_remedy(path: Path) -> None:
    fill(path, an_entry(1))
    path.chmod(0)

    with pytest.raises(StoreError, match="may not read") as caught:
        entries(path, EVERYTHING)
    assert "agent's user" in caught.value.hint
