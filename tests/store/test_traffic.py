"""The messages that came in, in the order in which they came, read beside the daemon."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import apsw
import pytest

from agent.errors import StoreError
from agent.store.row import Content, Direction, Row
from agent.store.spool import Spool, SpoolEvents
from agent.store.traffic import HEAD_BYTES, Passed, open_traffic


@asynccontextmanager
async def spool_in(folder: Path) -> AsyncIterator[Spool]:
    def nobody(*_: object) -> None: ...

    events = SpoolEvents(nobody, nobody, nobody, nobody, nobody)
    async with Spool.open(folder / "spool.db", events, min_free_bytes=0) as spool, asyncio.TaskGroup() as tasks:
        work = tasks.create_task(spool.run())
        try:
            yield spool
        finally:
            work.cancel()


def came(
    spool: Spool,
    body: bytes = b"MSH|",
    *,
    channel: str = "adt",
    at_ms: int = 1_000,
    direction: Direction = Direction.IN,
    content: Content = Content.HL7,
) -> Row:
    row = Row(
        spool.next_id(), channel, "10.1.1.1:5000", b"", b"", b"", at_ms, body, direction=direction, content=content
    )
    spool.put(row)
    return row


def read(folder: Path, channel: str | None = None, after_id: int = 0, since_ms: int = 0) -> list[Passed]:
    with open_traffic(folder / "spool.db") as traffic:
        return list(traffic.messages(channel, after_id, since_ms))


async def test_hl7_messages_that_came_in_are_read_oldest_first_while_the_daemon_is_at_work(tmp_path: Path) -> None:
    async with spool_in(tmp_path) as spool:
        rows = [came(spool, b"MSH|%d" % number, channel="adt" if number % 2 else "lab") for number in range(10)]
        came(spool, direction=Direction.OUT)
        came(spool, content=Content.BYTES)
        await spool.perform(lambda _: None)

        assert [(passed.id, passed.head) for passed in read(tmp_path)] == [(row.id, row.body) for row in rows]
        assert [passed.id for passed in read(tmp_path, "lab")] == [row.id for row in rows[::2]]
        assert [passed.id for passed in read(tmp_path, after_id=rows[6].id)] == [row.id for row in rows[7:]]


async def test_what_came_before_is_left_out_even_where_the_clock_was_set_back(tmp_path: Path) -> None:
    async with spool_in(tmp_path) as spool:
        rows = [came(spool, at_ms=at_ms) for at_ms in (1_000, 5_000, 2_000, 3_000)]

    assert [passed.id for passed in read(tmp_path, since_ms=3_000)] == [rows[1].id, rows[3].id]


async def test_of_a_large_message_only_the_beginning_is_read_until_the_whole_is_asked_for(tmp_path: Path) -> None:
    bodies = [bytes([65 + index]) * size for index, size in enumerate((HEAD_BYTES, HEAD_BYTES + 1, 3_000_000))]
    async with spool_in(tmp_path) as spool:
        for body in bodies:
            came(spool, body)

    with open_traffic(tmp_path / "spool.db") as traffic:
        passed = list(traffic.messages(None, 0, 0))
        assert [each.head for each in passed] == [body[:HEAD_BYTES] for body in bodies]
        assert [each.whole for each in passed] == [True, False, False]
        assert [each.size_bytes for each in passed] == list(map(len, bodies))
        assert [traffic.body(each.id) for each in passed] == bodies
        assert traffic.body(passed[-1].id + 1) == b""


async def test_a_gap_in_the_ids_as_retention_leaves_it_is_stepped_over(tmp_path: Path) -> None:
    async with spool_in(tmp_path) as spool:
        first, last = came(spool), came(spool)
    connection = apsw.Connection(str(tmp_path / "spool.db"))
    connection.execute("UPDATE message SET id=id+1000000 WHERE id=?", (last.id,))
    connection.close()

    assert [passed.id for passed in read(tmp_path)] == [first.id, last.id + 1_000_000]


async def test_more_messages_than_one_look_takes_are_all_read_once(tmp_path: Path) -> None:
    async with spool_in(tmp_path) as spool:
        ids = [came(spool).id for _ in range(12_000)]

    assert [passed.id for passed in read(tmp_path)] == ids


async def test_the_name_of_a_spool_is_its_own(tmp_path: Path) -> None:
    names = []
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        async with spool_in(tmp_path / place):
            pass
        with open_traffic(tmp_path / place / "spool.db") as traffic:
            names.append(traffic.instance)

    assert len(set(names)) == 2
    assert all(names)


@pytest.mark.parametrize("content", [None, b"", b"no database, only text\n" * 100])
def test_a_spool_that_is_none_is_a_sentence_with_its_remedy(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "spool.db").write_bytes(content)

    with pytest.raises(StoreError) as refused:
        read(tmp_path)

    assert refused.value.hint
