"""Queries of the file: each finds its rows by an index, and says what it could not read."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_disk import REMOTE, Told, conclude, message, outbound, running, settled, store

from agent.store.batch import restore
from agent.store.row import AckState, Content, Direction, Repeat, Row, State, Trouble
from agent.store.shelf import Shelf, survey
from agent.store.sqlite import SpoolTrouble, fetch, open_sound


async def test_a_page_has_at_least_one_row_and_otherwise_keeps_to_its_limits(path: Path, told: Told) -> None:
    async with running(path, told) as spool:
        rows = [message(spool, body=b"x" * 1000) for _ in range(10)]
        await store(spool, told, *rows)
        shelf = spool.shelf
        assert [r.id for r in shelf.queued("adt", 0, limit=4, limit_bytes=1 << 20)] == [r.id for r in rows[:4]]
        assert [r.id for r in shelf.queued("adt", rows[3].id, limit=9, limit_bytes=2500)] == [r.id for r in rows[4:7]]
        assert [r.id for r in shelf.queued("adt", rows[8].id, limit=9, limit_bytes=1)] == [rows[9].id]
        assert shelf.queued("adt", rows[9].id, limit=9, limit_bytes=1) == []
        assert shelf.queued("lab", 0, limit=9, limit_bytes=1) == []


async def test_a_page_that_was_not_read_to_its_end_holds_no_reading_open(path: Path, told: Told) -> None:
    """An open reading would keep the log from being emptied, and let it grow for ever."""
    async with running(path, told) as spool:
        await store(spool, told, *(message(spool) for _ in range(10)))
        spool.shelf.queued("adt", 0, limit=10, limit_bytes=1)
        assert not spool.shelf.connection.in_transaction
        other = apsw.Connection(str(path))
        assert fetch(other, "PRAGMA wal_checkpoint(TRUNCATE)")[0][0] == 0
        other.close()


async def test_the_newest_of_an_id_is_found_and_an_empty_id_never(path: Path, told: Told) -> None:
    async with running(path, told) as spool:
        first, second, nameless = message(spool, b"A"), message(spool, b"A"), message(spool, b"")
        await store(spool, told, first, second, nameless)
        found = spool.shelf.newest("adt", b"A")
        assert found is not None
        assert found.id == second.id
        assert spool.shelf.newest("adt", b"") is None


async def test_control_ids_come_in_pages_each_after_the_last(path: Path, told: Told) -> None:
    async with running(path, told) as spool:
        names = [b"%02d" % number for number in range(7)]
        rows = [message(spool, name, channel=channel) for name in names for channel in ("lab", "adt")]
        await store(spool, told, *rows, message(spool, b""))
        found: list[tuple[str, bytes]] = []
        while page := spool.shelf.control_ids(found[-1] if found else ("", b""), 3):
            found += page
        assert found == [("adt", name) for name in names] + [("lab", name) for name in names]


_OPEN = "open_delivery (direction=?"


@pytest.mark.parametrize("direction", list(Direction))
@pytest.mark.parametrize(
    ("ask", "led_by"),
    [
        (
            lambda shelf, way: shelf.queued("a", 1, limit=9, limit_bytes=9, direction=way),
            [f"d USING INDEX {_OPEN} AND channel=? AND state=? AND id>?)"],
        ),
        (lambda shelf, way: shelf.interrupted("a", way), [f"d USING INDEX {_OPEN} AND channel=? AND state=?)"]),
        (lambda shelf, way: shelf.newest("a", b"1", way), ["m USING INDEX message_by_control (channel=? AND "]),
        (lambda shelf, way: shelf.get(1, way), ["m USING INTEGER PRIMARY KEY"]),
        (
            lambda shelf, way: shelf.open_channels(way),
            [f"d USING COVERING INDEX {_OPEN}", f"d USING COVERING INDEX {_OPEN} AND channel>?)"],
        ),
        (lambda shelf, _: shelf.control_ids(("a", b""), 9), ["message USING COVERING INDEX message_by_control ("]),
    ],
    ids=["queued", "interrupted", "newest", "get", "open_channels", "control_ids"],
)
def test_every_query_finds_its_rows_by_an_index(
    path: Path, ask: Callable[[Shelf, Direction], object], led_by: list[str], direction: Direction
) -> None:
    """One index leads to the rows, and nothing is sorted; the other table is reached by the number of the row."""
    connection = open_sound(path)
    for row_id in (1, 2):
        row = Row(row_id, "a", "", b"", b"1", b"", 0, b"", direction=direction)
        row.kept = State.QUEUED
        restore(connection, [row])
    shelf = Shelf(path)
    asked: list[str] = []
    shelf.connection.set_exec_trace(lambda _, sql, values: asked.append(sql) or True)
    ask(shelf, direction)
    shelf.close()
    plans = [fetch(connection, f"EXPLAIN QUERY PLAN {sql}", (None,) * sql.count("?")) for sql in asked]
    connection.close()

    assert len(plans) == len(led_by)
    for plan, leader in zip(plans, led_by, strict=True):
        first, *others = (str(step[3]) for step in plan)
        assert first.startswith(f"SEARCH {leader}")
        assert all(re.match(r"SEARCH [md] USING INTEGER PRIMARY KEY", other) for other in others)


async def test_what_goes_out_and_what_comes_in_are_never_taken_for_each_other(path: Path, told: Told) -> None:
    """Though a channel has the name of the remote's URL, and the messages one control id."""
    async with running(path, told) as spool:
        rows = [
            message(spool, b"SAME", channel=REMOTE, direction=way, state=state)
            for state in (State.QUEUED, State.INFLIGHT)
            for way in Direction
        ]
        await store(spool, told, *rows, outbound(spool, to="mllp://other:1"), message(spool, channel="adt"))
        shelf = spool.shelf
        for way, queued, interrupted in ((Direction.IN, rows[0], rows[2]), (Direction.OUT, rows[1], rows[3])):
            page = shelf.queued(REMOTE, 0, limit=9, limit_bytes=1 << 20, direction=way)
            newest, got = shelf.newest(REMOTE, b"SAME", way), shelf.get(queued.id, way)
            assert [row.id for row in page] == [queued.id]
            assert [row.id for row in shelf.interrupted(REMOTE, way)] == [interrupted.id]
            assert newest is not None
            assert newest.id == interrupted.id
            assert got is not None
            assert (got.id, got.direction) == (queued.id, way)
        assert shelf.get(rows[1].id) is None
        assert shelf.open_channels() == ["adt", REMOTE]
        assert shelf.open_channels(Direction.OUT) == [REMOTE, "mllp://other:1"]


async def test_a_channel_or_remote_whose_messages_are_all_finished_is_not_open(path: Path, told: Told) -> None:
    async with running(path, told) as spool:
        done = [message(spool, channel=REMOTE), outbound(spool, to="mllp://other:1")]
        waiting = [outbound(spool), message(spool, channel="")]
        await store(spool, told, *done, *waiting)
        for row in done:
            conclude(spool, row)
        await settled(spool)
        assert spool.shelf.open_channels() == [""]
        assert spool.shelf.open_channels(Direction.OUT) == [REMOTE]


async def test_interrupted_rows_come_by_channel_oldest_first(path: Path, told: Told) -> None:
    async with running(path, told) as spool:
        sent = [message(spool, state=State.INFLIGHT) for _ in range(3)]
        other = message(spool, channel="lab", state=State.INFLIGHT)
        await store(spool, told, *sent, other, message(spool))
        conclude(spool, sent[1])
        await settled(spool)
        assert [row.id for row in spool.shelf.interrupted("adt")] == [sent[0].id, sent[2].id]


def test_a_value_that_makes_no_sense_is_damage_and_is_not_quoted(path: Path) -> None:
    connection = open_sound(path)
    row = Row(1, "adt", "r", b"", b"A", b"ADT^A01", 0, b"body")
    row.kept = State.QUEUED
    with connection:
        restore(connection, [row])
        connection.execute("UPDATE delivery SET ack=77")
        connection.execute("UPDATE message SET remote=CAST(x'ff4e454d4f' AS TEXT)")
    shelf = Shelf(path)
    looks: list[Callable[[], object]] = [partial(shelf.get, 1), partial(shelf.newest, "adt", b"A")]
    for look in looks:
        with pytest.raises(SpoolTrouble) as caught:
            look()
        assert caught.value.trouble is Trouble.DAMAGED
        assert "NEMO" not in str(caught.value)
    shelf.close()
    connection.close()


def test_a_closed_shelf_says_so_in_the_family_s_words(path: Path) -> None:
    open_sound(path).close()
    shelf = Shelf(path)
    shelf.close()
    shelf.close()
    with pytest.raises(SpoolTrouble):
        shelf.last_id()


def test_a_survey_leaves_no_connection_behind(path: Path) -> None:
    open_sound(path).close()
    reader = survey(path, None, lambda reader: reader)
    with pytest.raises(apsw.ConnectionClosedError):
        reader.execute("SELECT 1")


@given(
    body=st.binary(max_size=300),
    control_id=st.binary(max_size=20),
    order_key=st.binary(max_size=20),
    remote=st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20),
    seq=st.none() | st.integers(0, 2**40),
    repeat=st.sampled_from(Repeat),
    state=st.sampled_from(State),
    ack=st.sampled_from(AckState),
    attempts=st.integers(0, 1000),
    ambiguous=st.booleans(),
    status=st.none() | st.integers(0, 999),
    answer=st.none() | st.binary(max_size=50),
    direction=st.sampled_from(Direction),
    callback=st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20),
    content=st.sampled_from(Content),
)
def test_a_row_comes_back_as_it_was(
    body: bytes, control_id: bytes, order_key: bytes, remote: str, seq: int | None, repeat: Repeat, state: State,
    ack: AckState, attempts: int, ambiguous: bool, status: int | None, answer: bytes | None, direction: Direction,
    callback: str, content: Content,
) -> None:  # fmt: skip
    connection = open_sound(PLACE)
    row = Row(
        1,
        "adt",
        remote,
        order_key,
        control_id,
        b"ADT^A01",
        1,
        body,
        seq,
        repeat,
        direction=direction,
        callback=callback,
        content=content,
    )
    row.state = row.kept = state
    row.ack, row.attempts, row.ambiguous, row.status, row.answer = ack, attempts, ambiguous, status, answer
    row.ack_code, row.reason, row.due_ms = "AA", "because", 7
    with connection:
        connection.execute("DELETE FROM message; DELETE FROM delivery")
        restore(connection, [row])
    shelf = Shelf(PLACE)
    found = shelf.get(1, direction)
    shelf.close()
    connection.close()
    assert found is not None
    for slot in Row.__slots__:
        if slot not in ("lane", "header", "text", "epoch", "sent_at", "durable"):
            assert getattr(found, slot) == getattr(row, slot), slot


PLACE = Path()


@pytest.fixture(autouse=True, scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> None:
    globals()["PLACE"] = tmp_path_factory.mktemp("rows") / "spool.db"
