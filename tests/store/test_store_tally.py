"""The count that needs no disk equals what the disk would say."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from store_disk import Told, conclude, message, on_disk, running, settled, store

from agent.store.row import Row, State
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
    from agent.store.sqlite import open_sound

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
