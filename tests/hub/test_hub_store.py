"""Many writes, few commits; what is reported as kept is on disk."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import apsw
import pytest

from agent.errors import StoreError
from agent.hub.outcomes import NOT_FOUND, Refused
from agent.hub.store import SCHEMA_VERSION, Store

INSERT = "INSERT INTO setting (name, value) VALUES (?, ?)"


@pytest.fixture
async def store(tmp_path: Path) -> Any:
    store = Store(tmp_path / "hub.db", INSERT)
    yield store
    await store.close()


def names_on_disk(folder: Path) -> list[str]:
    """What another process would see."""
    with apsw.Connection(str(folder / "hub.db")) as other:
        return [name for (name,) in other.execute("SELECT name FROM setting ORDER BY name")]


async def append(store: Store, name: str) -> StoreError | None:
    kept: asyncio.Future[StoreError | None] = asyncio.get_running_loop().create_future()
    store.append((name, ""), kept.set_result)
    async with asyncio.timeout(10):
        return await kept


async def test_a_row_is_on_disk_when_it_is_reported(store: Store, tmp_path: Path) -> None:
    assert await append(store, "a") is None
    assert names_on_disk(tmp_path) == ["a"]


async def test_what_arrives_during_a_commit_shares_the_next(store: Store, tmp_path: Path) -> None:
    def count(db: apsw.Connection) -> int:
        return int(db.execute("SELECT count(*) FROM setting").get)

    store._writer.set_commit_hook(lambda: commits.append(1) or False)
    commits: list[int] = []
    async with asyncio.TaskGroup() as everybody:
        tasks = [everybody.create_task(append(store, f"{number:03}")) for number in range(200)]
        counted = everybody.create_task(store.write(count))
    assert [task.result() for task in tasks] == [None] * 200
    assert counted.result() == 200
    assert len(commits) <= 2
    assert len(names_on_disk(tmp_path)) == 200


async def test_one_refusal_undoes_only_its_own_job(store: Store, tmp_path: Path) -> None:
    def good(db: apsw.Connection) -> None:
        db.execute(INSERT, ("good", ""))

    def bad(db: apsw.Connection) -> None:
        db.execute(INSERT, ("half done", ""))
        raise Refused(NOT_FOUND)

    async with asyncio.TaskGroup() as both:
        refused = both.create_task(refusal_of(store.write(bad)))
        both.create_task(store.write(good))
    assert isinstance(refused.result(), Refused)
    assert names_on_disk(tmp_path) == ["good"]


async def refusal_of(waiting: Any) -> Refused | None:
    try:
        await waiting
    except Refused as refused:
        return refused
    return None


async def test_a_full_disk_is_told_to_everybody_and_can_pass(store: Store, tmp_path: Path) -> None:
    await append(store, "before")
    pages = await store.write(lambda db: db.execute("PRAGMA page_count").get)
    await store.write(lambda db: db.execute(f"PRAGMA max_page_count={pages}").get)
    error = await append(store, "x" * 100_000)
    assert isinstance(error, StoreError)
    assert error.hint
    with pytest.raises(StoreError):
        await store.write(lambda db: db.execute(INSERT, ("y" * 100_000, "")).get)
    assert names_on_disk(tmp_path) == ["before"]

    await store.write(lambda db: db.execute("PRAGMA max_page_count=1000000").get)
    assert await append(store, "after") is None
    assert names_on_disk(tmp_path) == ["after", "before"]


async def test_a_newer_schema_is_refused_politely(tmp_path: Path) -> None:
    with apsw.Connection(str(tmp_path / "hub.db")) as other:
        other.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    with pytest.raises(StoreError, match=f"schema {SCHEMA_VERSION + 1}") as refused:
        Store(tmp_path / "hub.db", INSERT)
    assert "newer release" in refused.value.hint


async def test_a_file_that_is_no_database_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "hub.db").write_bytes(b"no database" * 1_000)
    with pytest.raises(StoreError, match="cannot open"):
        Store(tmp_path / "hub.db", INSERT)


async def test_closing_waits_for_what_is_under_way(tmp_path: Path) -> None:
    store = Store(tmp_path / "hub.db", INSERT)
    for number in range(50):
        store.later(lambda db, number=number: db.execute(INSERT, (f"{number:02}", "")))
    await store.close()
    assert len(names_on_disk(tmp_path)) == 50


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no permission bits")
async def test_others_cannot_read_the_file(store: Store, tmp_path: Path) -> None:
    await append(store, "a")
    modes = {name: os.stat(tmp_path / name).st_mode & 0o077 for name in os.listdir(tmp_path)}
    assert modes == dict.fromkeys(modes, 0)
    assert "hub.db" in modes
