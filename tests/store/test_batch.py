"""What one commit leaves on disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from agent.store.batch import Batch, commit, put_meta, restore
from agent.store.row import Content, Direction, Row, State
from agent.store.sqlite import fetch, open_sound


@pytest.fixture
def connection(path: Path) -> Iterator[apsw.Connection]:
    it = open_sound(path)
    yield it
    it.close()


def row(row_id: int, state: State = State.QUEUED) -> Row:
    it = Row(row_id, "adt", "10.1.1.1:5", b"k", b"A", b"ADT^A01", 1, b"body")
    it.state = it.kept = state
    return it


def write(connection: apsw.Connection, batch: Batch, *, patchy: bool = False) -> None:
    connection.execute("BEGIN IMMEDIATE")
    batch.write(connection, patchy=patchy)
    commit(connection, batch.jobs)


def states(connection: apsw.Connection) -> dict[int, int]:
    return dict(fetch(connection, "SELECT id, state FROM delivery"))


def test_a_row_that_does_it_all_in_one_batch_ends_as_it_is_now(connection: apsw.Connection) -> None:
    it = row(1)
    batch = Batch(puts=[it], claims=[it], settles=[it])
    it.state = State.PROCESSED
    write(connection, batch)
    assert states(connection) == {1: State.PROCESSED}
    assert (batch.put_states, batch.settle_states) == ([State.PROCESSED], [State.PROCESSED])


def test_only_what_is_finished_has_a_time_of_its_end(connection: apsw.Connection) -> None:
    again, done = row(1), row(2, State.REJECTED)
    write(connection, Batch(puts=[again, done], settles=[again, done]))
    assert fetch(connection, "SELECT settled_ms IS NULL FROM delivery ORDER BY id") == [(1,), (0,)]


def test_a_failed_batch_goes_before_what_came_after_it() -> None:
    first, second = row(1), row(2)
    later = Batch(puts=[second], claims=[second], settles=[second])
    later.merge(Batch(puts=[first], claims=[first], settles=[first]))
    assert (later.puts, later.claims, later.settles) == ([first, second],) * 3


def test_rows_that_a_patchy_file_lost_are_put_back_when_their_turn_comes(connection: apsw.Connection) -> None:
    lost, there = row(1), row(2)
    write(connection, Batch(puts=[there]))
    for it in (lost, there):
        it.state, it.attempts = State.PROCESSED, 3
    batch = Batch(settles=[lost, there])
    write(connection, batch, patchy=True)
    assert states(connection) == {1: State.PROCESSED, 2: State.PROCESSED}
    assert batch.restored == [lost]


def test_a_row_whose_body_memory_has_dropped_is_not_made_up(connection: apsw.Connection) -> None:
    lost = row(1)
    lost.body = b""
    batch = Batch(settles=[lost])
    write(connection, batch, patchy=True)
    assert states(connection) == {}
    assert batch.restored == []


def test_what_the_file_has_is_not_overwritten_by_memory(connection: apsw.Connection) -> None:
    write(connection, Batch(puts=[row(1, State.INFLIGHT)]))
    with connection:
        assert restore(connection, [row(1), row(2)]) == 1
    assert states(connection) == {1: State.INFLIGHT, 2: State.QUEUED}


def test_the_direction_stands_in_both_tables_and_the_content_with_the_message(connection: apsw.Connection) -> None:
    out, again = (
        Row(
            number,
            "mllp://lab:2575",
            "lab:2575",
            b"",
            b"A",
            b"",
            1,
            b"",
            direction=Direction.OUT,
            callback=f"c{number}",
            content=content,
        )
        for number, content in ((1, Content.ASTM), (2, Content.DICOM))
    )
    again.kept = State.QUEUED
    write(connection, Batch(puts=[out, row(3)]))
    with connection:
        restore(connection, [again])
    columns = "m.direction, m.callback, d.direction, m.content"
    found = fetch(connection, f"SELECT {columns} FROM message m JOIN delivery d USING (id) ORDER BY id")
    assert found == [(1, "c1", 1, 2), (1, "c2", 1, 3), (0, "", 0, 0)]


def test_meta_values_are_replaced(connection: apsw.Connection) -> None:
    put_meta(connection, [("a", 1)])
    put_meta(connection, [("a", 2)])
    assert fetch(connection, "SELECT value FROM meta WHERE name='a'") == [(2,)]
