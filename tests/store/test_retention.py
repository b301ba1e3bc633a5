"""What is finished is let go by age and by size, and its space goes back to the disk."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import apsw
import pytest
from store_disk import Disk, Told, conclude, message, on_disk, running, settled, store

from agent.store.retention import RetentionPolicy, sweep
from agent.store.row import Direction, Row, State
from agent.store.spool import Spool

DAY_MS = 86_400_000


async def ended(
    spool: Spool, told: Told, *states: State, size_bytes: int = 100, direction: Direction = Direction.IN
) -> list[Row]:
    """Messages that came to these states."""
    begun = [State.QUEUED if state is State.QUEUED else State.INFLIGHT for state in states]
    rows = [message(spool, body=b"x" * size_bytes, state=state, direction=direction) for state in begun]
    await store(spool, told, *rows)
    for row, state in zip(rows, states, strict=True):
        if state.finished:
            conclude(spool, row, state)
    await settled(spool)
    return rows


async def age(spool: Spool, days: float) -> None:
    """Everything that is finished was finished so long ago."""
    then_ms = time.time_ns() // 1_000_000 - int(days * DAY_MS)

    def work(connection: apsw.Connection) -> None:
        connection.execute("UPDATE delivery SET settled_ms=? WHERE settled_ms IS NOT NULL", (then_ms,))

    await spool.perform(work)


@pytest.mark.parametrize("direction", Direction)
async def test_history_goes_by_age_and_errors_much_later(path: Path, told: Told, direction: Direction) -> None:
    async with running(path, told) as spool:
        rows = await ended(spool, told, *State, direction=direction)
        await age(spool, 8)
        swept = await sweep(spool, RetentionPolicy(days=7, errored_days=90))
        assert (swept.deleted, swept.error) == (1, "")
        assert set(on_disk(path).values()) == set(State) - {State.PROCESSED}
        await age(spool, 91)
        assert (await sweep(spool, RetentionPolicy(days=7, errored_days=90))).deleted == 3
        assert set(on_disk(path)) == {row.id for row in rows if not row.state.finished}
        assert spool.tally.by_state[State.HELD] == 0
        assert (await sweep(spool, RetentionPolicy())).deleted == 0


async def test_by_size_the_oldest_processed_go_first_then_errors_and_never_what_is_undelivered(
    path: Path, told: Told
) -> None:
    async with running(path, told) as spool:
        states = [State.REJECTED] * 50 + [State.PROCESSED] * 200 + [State.QUEUED] * 50
        rows = await ended(spool, told, *states, size_bytes=10_000)
        await sweep(spool, RetentionPolicy(max_mb=1.6))
        left = on_disk(path)
        processed = [row.id for row in rows if row.state is State.PROCESSED and row.id in left]
        assert 0 < len(processed) < 100
        assert processed == [row.id for row in rows[50:250]][-len(processed) :]
        assert sum(state is State.REJECTED for state in left.values()) == 50

        await sweep(spool, RetentionPolicy(max_mb=0.0))
        assert set(on_disk(path)) == {row.id for row in rows[250:]}
        assert {s: n for s, n in spool.tally.by_state.items() if n} == {State.QUEUED: 50}


async def test_by_size_the_oldest_go_first_whichever_their_way(path: Path, told: Told) -> None:
    async with running(path, told) as spool:
        for _ in range(2):
            for direction in Direction:
                await ended(spool, told, *[State.PROCESSED] * 50, size_bytes=10_000, direction=direction)
        waiting = await ended(spool, told, State.QUEUED, size_bytes=10_000, direction=Direction.OUT)
        await sweep(spool, RetentionPolicy(max_mb=1.2))
        left = sorted(on_disk(path))
        assert 50 < len(left) < 130
        assert left == list(range(waiting[0].id - len(left) + 1, waiting[0].id + 1))
        await sweep(spool, RetentionPolicy(max_mb=0.0))
        assert on_disk(path) == {waiting[0].id: State.QUEUED}


async def test_space_goes_back_to_the_disk(path: Path, told: Told) -> None:
    async with running(path, told) as spool:
        for _ in range(4):
            await ended(spool, told, *[State.PROCESSED] * 500, size_bytes=3_000)
        before = spool.size_bytes
        await sweep(spool, RetentionPolicy(days=-1))
    assert spool.size_bytes < before / 5


async def test_ids_are_never_used_twice_though_everything_was_swept(path: Path, told: Told) -> None:
    async with running(path, told) as spool:
        rows = await ended(spool, told, *[State.PROCESSED] * 20)
        await sweep(spool, RetentionPolicy(days=-1))
        assert on_disk(path) == {}
    async with running(path, Told()) as spool:
        assert spool.next_id() > rows[-1].id


async def test_nobody_waits_behind_a_sweep(path: Path, told: Told) -> None:
    async with running(path, told) as spool:
        await ended(spool, told, *[State.PROCESSED] * 3000, size_bytes=1000)
        longest_s = 0.0

        async def put_on() -> None:
            nonlocal longest_s
            while True:
                before = time.monotonic()
                await store(spool, told, message(spool))
                longest_s = max(longest_s, time.monotonic() - before)

        async with asyncio.TaskGroup() as tasks:
            sender = tasks.create_task(put_on())
            swept = await sweep(spool, RetentionPolicy(days=-1))
            sender.cancel()
        assert swept.deleted == 3000
        assert longest_s < 0.5


async def test_a_sweep_on_a_sick_disk_says_so_and_deletes_nothing(path: Path, disk: Disk, told: Told) -> None:
    async with running(path, told, disk=disk) as spool:
        await ended(spool, told, *[State.PROCESSED] * 20)
        disk.break_()
        swept = await sweep(spool, RetentionPolicy(days=-1))
        assert swept.deleted == 0
        assert "spool" in swept.error
        disk.free()
        await told.until(lambda: told.health[-1] is None)
        assert spool.tally.by_state[State.PROCESSED] == 20
        assert (await sweep(spool, RetentionPolicy(days=-1))).deleted == 20


async def test_a_clock_that_was_set_back_keeps_what_it_cannot_judge(path: Path, told: Told) -> None:
    async with running(path, told) as spool:
        await ended(spool, told, State.PROCESSED)
        await age(spool, -3650)
        assert (await sweep(spool, RetentionPolicy(days=7))).deleted == 0
