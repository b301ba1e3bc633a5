"""The count that needs no disk equals what the disk would say."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import apsw
from store_disk import REMOTE, Told, conclude, message, on_disk, outbound, running, settled, store

from agent.store.row import Direction, Row, State
from agent.store.sqlite import fetch, open_sound
from agent.store.tally import Tally


async def finished(path: Path, told: Told, number: int) -> None:
    async with running(path, told) as spool:
        rows = [message(spool) for _ in range(number)]
        await store(spool, told, *rows)
        for row in rows[1:]:
            conclude(spool, row)


async def test_the_undelivered_are_counted_at_once_and_history_when_it_was_looked_up(path: Path, told: Told) -> None:
    await finished(path, told, 10)
    tally = Tally(path, None)
    assert tally.by_state == {State.QUEUED: 1}
    assert tally.open_of == {"adt": 1}
    tally.include(tally.count_finished())
    assert tally.by_state == Counter(on_disk(path).values())


async def test_what_goes_out_is_counted_by_its_remote_and_apart(path: Path, told: Told) -> None:
    """Though a channel has the name of the remote's URL."""
    async with running(path, told) as spool:
        rows = [outbound(spool), outbound(spool), outbound(spool, state=State.INFLIGHT), message(spool, channel=REMOTE)]
        await store(spool, told, *rows)
        assert (spool.tally.open_to, spool.tally.open_of) == ({REMOTE: 3}, {REMOTE: 1})
        conclude(spool, rows[0])
        conclude(spool, rows[3], State.HELD)
        await settled(spool)
        assert (spool.tally.open_to[REMOTE], spool.tally.open_of[REMOTE]) == (2, 0)
        assert spool.tally.by_state == Counter(on_disk(path).values())
    tally = Tally(path, None)
    assert (tally.open_to, tally.open_of) == ({REMOTE: 2}, {})
    assert tally.by_state == {State.QUEUED: 1, State.INFLIGHT: 1}
    tally.close()


def test_the_undelivered_are_counted_from_their_index_alone(path: Path) -> None:
    connection = open_sound(path)
    asked: list[str] = []

    def listen(reader: apsw.Connection) -> None:
        reader.set_exec_trace(lambda _, sql, values: asked.append(sql) or True)

    apsw.connection_hooks.append(listen)
    try:
        Tally(path, None).close()
    finally:
        apsw.connection_hooks.remove(listen)
    (sql,) = [sql for sql in asked if "GROUP BY" in sql]
    plan = [step[3] for step in fetch(connection, f"EXPLAIN QUERY PLAN {sql}")]
    connection.close()
    assert plan == ["SCAN delivery USING COVERING INDEX open_delivery"]


async def test_what_happens_during_the_count_is_counted_once(path: Path, told: Told) -> None:
    await finished(path, told, 10)
    tally = Tally(path, None)
    async with running(path, Told()) as spool:
        row = spool.queued("adt", 0, limit=1, limit_bytes=1)[0]
        conclude(spool, row)
        await settled(spool)
        row.kept = State.QUEUED  # as before the commit, for this count too
        tally.moved([row], [State.PROCESSED])
    tally.include(tally.count_finished())
    assert {state: n for state, n in tally.by_state.items() if n} == {State.PROCESSED: 10}


async def test_a_sweep_before_the_count_is_known_is_not_forgotten(path: Path, told: Told) -> None:
    await finished(path, told, 10)
    tally = Tally(path, None)
    tally.deleted(State.PROCESSED, 4)
    tally.include(tally.count_finished())
    assert tally.by_state[State.PROCESSED] == 5


async def test_a_restart_counts_what_the_last_process_left(path: Path, told: Told) -> None:
    await finished(path, told, 10)
    told = Told()
    async with running(path, told) as spool:
        row = message(spool)
        await store(spool, told, row)
        await spool.survey(lambda _: None)  # behind the count, in the same thread
        await settled(spool)
        assert spool.tally.by_state == Counter(on_disk(path).values())


def test_moves_between_states_keep_the_sums(path: Path) -> None:
    open_sound(path).close()
    tally = Tally(path, None)
    rows = [Row(n, "adt", "", b"", b"", b"", 0, b"") for n in range(3)]
    tally.stored(rows, [State.QUEUED, State.INFLIGHT, State.QUEUED])
    tally.moved(rows[:2], [State.INFLIGHT, State.HELD])
    tally.moved(rows[:1], [State.INFLIGHT])
    tally.moved(rows[1:2], [State.PROCESSED])
    tally.close()
    assert {s: n for s, n in tally.by_state.items() if n} == {State.QUEUED: 1, State.INFLIGHT: 1, State.PROCESSED: 1}
    assert tally.open_of["adt"] == 2
    outgoing = Row(9, "adt", "", b"", b"", b"", 0, b"", direction=Direction.OUT)
    tally.stored([outgoing], [State.QUEUED])
    tally.moved([outgoing], [State.REJECTED])
    assert (tally.open_of["adt"], tally.open_to["adt"]) == (2, 0)
