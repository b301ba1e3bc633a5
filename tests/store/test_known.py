"""Repetitions are found wherever the first one is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from store_disk import Disk, Told, conclude, message, running, store

from agent.store.known import Known
from agent.store.row import Direction, Row, State
from agent.store.shelf import Shelf
from agent.store.sqlite import SpoolTrouble


def row(row_id: int, control_id: bytes, direction: Direction = Direction.IN) -> Row:
    it = Row(row_id, "adt", "", b"", control_id, b"", 0, b"", direction=direction)
    it.durable, it.kept = True, State.QUEUED
    return it


def test_the_newest_row_of_an_id_is_the_one_that_memory_keeps() -> None:
    known = Known()
    first, second = row(1, b"A"), row(2, b"A")
    known.hot["adt", b"A"] = second
    known.forget(first)
    assert known.hot == {("adt", b"A"): second}
    known.forget(second)
    assert known.hot == {}

    for order in ([second, first], [first, second]):
        known.read(order)
        assert known.reread == {("adt", b"A"): second}
        known.forget(row(2, b"A"))
        assert known.reread == {}


def test_of_what_goes_out_every_row_is_held_whatever_its_control_id() -> None:
    known = Known()
    rows = [row(number, control_id, Direction.OUT) for number, control_id in enumerate((b"A", b"A", b""), 1)]
    known.read(rows)
    inbound = row(4, b"A")
    known.hot["adt", b"A"] = inbound
    assert known.undelivered() == [inbound, *rows]

    rows[0].kept = State.PROCESSED
    known.forget(rows[1])
    assert known.undelivered() == [inbound, rows[2]]


def test_what_goes_out_is_not_put_into_the_duplicates_memory() -> None:
    known = Known()
    known.seen.filled()
    known.stored([row(1, b"OUT", Direction.OUT), row(2, b""), row(3, b"IN")])
    assert known.seen.maybe("adt", b"IN")
    assert not known.seen.maybe("adt", b"OUT")
    assert known.seen.added == 1


async def test_an_older_row_that_was_read_again_does_not_hide_the_newer_one_in_the_file(path: Path, told: Told) -> None:
    async with running(path, told) as spool:
        older, newer = message(spool, b"SAME"), message(spool, b"SAME", body=b"other bytes")
        await store(spool, told, older, newer)
        conclude(spool, newer)
    async with running(path, Told()) as spool:
        (again,) = spool.queued("adt", 0, limit=9, limit_bytes=1 << 20)
        known = spool.known("adt", b"SAME")
        assert again.id == older.id
        assert known is not None
        assert known.id == newer.id


async def test_a_row_that_memory_has_goes_before_what_the_file_says_of_it(path: Path, told: Told) -> None:
    async with running(path, told) as spool:
        await store(spool, told, message(spool, b"SAME"))
    async with running(path, Told()) as spool:
        (again,) = spool.queued("adt", 0, limit=9, limit_bytes=1 << 20)
        assert spool.known("adt", b"SAME") is again


async def test_what_is_stored_while_the_filter_is_filled_is_in_it(path: Path, told: Told) -> None:
    async with running(path, told) as spool:
        await store(spool, told, *(message(spool, b"OLD%d" % n) for n in range(1200)))
        known = Known()
        shelf = Shelf(path)
        learning = asyncio.get_running_loop().create_task(known.learn(lambda: shelf, lambda _: None, 0.01))
        await asyncio.sleep(0)
        known.stored([row(9000, b"A-NEW")])  # sorts before what is still to be read
        async with asyncio.timeout(5):
            await until(lambda: known.seen.ready)
        learning.cancel()
        shelf.close()
        assert known.seen.maybe("adt", b"A-NEW")
        assert all(known.seen.maybe("adt", b"OLD%d" % n) for n in range(1200))
        assert not known.seen.maybe("adt", b"NEVER-SEEN")


async def test_a_filter_that_took_too_much_is_filled_anew_from_the_file(path: Path, told: Told) -> None:
    async with running(path, told) as spool:
        await store(spool, told, message(spool, b"KEPT"))
        known = Known()
        shelf = Shelf(path)
        learning = asyncio.get_running_loop().create_task(known.learn(lambda: shelf, lambda _: None, 0.01))
        async with asyncio.timeout(5):
            await until(lambda: known.seen.ready)
            crowded = known.seen
            crowded.added = 3_000_000
            known.stored([row(2, b"SWEPT-SINCE")])
            await until(lambda: known.seen is not crowded)
        learning.cancel()
        shelf.close()
        assert known.seen.maybe("adt", b"KEPT")
        assert not known.seen.maybe("adt", b"SWEPT-SINCE")


async def test_a_file_that_cannot_be_read_is_asked_again(path: Path, told: Told, disk: Disk) -> None:
    async with running(path, told) as spool:
        await store(spool, told, message(spool, b"A"))
        closed, sound = Shelf(path), Shelf(path)
        closed.close()
        shelves = iter([closed, closed, sound, sound])
        troubles: list[SpoolTrouble] = []
        known = Known()
        work = known.learn(lambda: next(shelves), troubles.append, 0.001)
        learning = asyncio.get_running_loop().create_task(work)
        async with asyncio.timeout(5):
            await until(lambda: known.seen.ready)
        learning.cancel()
        sound.close()
        assert len(troubles) == 2
        assert known.seen.maybe("adt", b"A")


async def until(so: Callable[[], bool]) -> None:
    while not so():
        await asyncio.sleep(0.001)
