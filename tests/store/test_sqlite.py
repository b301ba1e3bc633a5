"""How the file is set up, its versions, and what its errors mean."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import sys
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import pytest
from store_disk import EARLIER, Disk, Room, of_version

from agent.store.row import Content, Direction, Row, State, Trouble
from agent.store.shelf import Shelf
from agent.store.sqlite import (
    SCHEMA_VERSION,
    NotASpool,
    SpoolTooNew,
    SpoolTrouble,
    connect,
    connect_reader,
    fetch,
    for_schema,
    low_on_space,
    open_sound,
    remedy,
    trouble_of,
)

MIB = 1 << 20


def test_a_new_file_is_set_up_for_durability(path: Path) -> None:
    connection = open_sound(path)
    settings = {name: connection.pragma(name) for name in ("journal_mode", "synchronous", "auto_vacuum", "cache_spill")}
    connection.close()
    assert settings == {"journal_mode": "wal", "synchronous": 2, "auto_vacuum": 2, "cache_spill": 0}


def test_every_commit_is_synced(path: Path, disk: Disk) -> None:
    connection = open_sound(path, vfs=disk.vfs)
    before = disk.syncs
    for number in range(5):
        connection.execute("INSERT INTO meta VALUES(?, 1)", (f"n{number}",))
    assert disk.syncs == before + 5
    connection.close()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes; the folder's rights count there")
def test_nobody_else_can_read_any_of_its_files(path: Path) -> None:
    before = os.umask(0o022)
    try:
        connection = open_sound(path)
        connection.execute("INSERT INTO meta VALUES('a', 1)")
        modes = {part.name: stat.S_IMODE(part.stat().st_mode) for part in path.parent.iterdir()}
        connection.close()
    finally:
        os.umask(before)
    assert modes == {"spool.db": 0o600, "spool.db-wal": 0o600, "spool.db-shm": 0o600}


@pytest.mark.skipif(sys.platform == "win32", reason="as above")
def test_a_file_that_others_could_read_is_closed_to_them(path: Path) -> None:
    open_sound(path).close()
    path.chmod(0o644)
    open_sound(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_second_start_keeps_the_instance(path: Path) -> None:
    instances = []
    for _ in range(2):
        connection = open_sound(path)
        instances.append(fetch(connection, "SELECT value FROM meta WHERE name='instance'"))
        connection.close()
    assert instances[0] == instances[1]


def test_a_file_of_a_newer_version_is_refused_and_left_as_it_is(path: Path) -> None:
    connection = open_sound(path)
    connection.pragma("user_version", SCHEMA_VERSION + 1)
    connection.close()
    before = path.read_bytes()
    with pytest.raises(SpoolTooNew, match=f"schema {SCHEMA_VERSION + 1}") as caught:
        open_sound(path)
    assert caught.value.hint
    assert path.read_bytes() == before


def test_the_database_of_another_program_is_left_as_it_is(path: Path) -> None:
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE message(x); INSERT INTO message VALUES(1)")
    connection.close()
    with pytest.raises(NotASpool) as caught:
        open_sound(path)
    assert caught.value.hint
    connection = apsw.Connection(str(path))
    assert fetch(connection, "SELECT name FROM sqlite_schema") == [("message",)]
    connection.close()


def test_a_migration_that_fails_leaves_nothing_behind(path: Path, disk: Disk) -> None:
    connect(path, vfs=disk.vfs).close()
    disk.fill(on="-wal")
    with pytest.raises(apsw.FullError):
        open_sound(path, vfs=disk.vfs)
    disk.free()
    connection = open_sound(path, vfs=disk.vfs)
    assert fetch(connection, "SELECT count(*) FROM message") == [(0,)]
    connection.close()


@pytest.mark.parametrize("earlier", EARLIER)
def test_a_file_of_an_earlier_version_keeps_everything_and_is_of_this_one_afterwards(path: Path, earlier: int) -> None:
    of_version(earlier, path, State)
    before = contents(path)
    open_sound(path).close()

    after = contents(path)
    assert version(path) == SCHEMA_VERSION
    in_version_2 = [(*row, Direction.IN, "") for row in before["message"]] if earlier < 2 else before["message"]
    assert after["message"] == [(*row, Content.HL7) for row in in_version_2]
    assert after["delivery"] == [(*row, Direction.IN) if earlier < 2 else row for row in before["delivery"]]
    assert after["meta"] == before["meta"]


@pytest.mark.parametrize("earlier", EARLIER)
def test_a_file_that_was_migrated_is_laid_out_as_a_new_one(path: Path, earlier: int) -> None:
    of_version(earlier, path, [State.QUEUED])
    open_sound(path).close()
    open_sound(path.with_name("new.db")).close()

    of_version(1, path.with_name("old.db"), [])

    def layout(file: Path) -> dict[str, tuple[int, str]]:
        found = read(file, "SELECT name, rootpage, sql FROM sqlite_schema")
        return {name: (root, " ".join(sql.split())) for name, root, sql in found}

    migrated, new, old = (layout(file) for file in (path, path.with_name("new.db"), path.with_name("old.db")))
    assert migrated == new
    assert {root: sql.split("(")[0] for root, sql in migrated.values()} == {
        root: sql.split("(")[0].replace("INDEX delivery_open ON", "INDEX open_delivery ON")
        for root, sql in old.values()
    }


@pytest.mark.parametrize("earlier", EARLIER)
def test_a_migration_writes_no_message_anew_however_many_the_file_holds(path: Path, disk: Disk, earlier: int) -> None:
    of_version(earlier, path, [State.QUEUED] * 10 + [State.PROCESSED] * 990, body=b"x" * 5_000)
    pages = path.stat().st_size // 4096
    written: list[None] = []
    disk.after_write = partial(written.append, None)
    open_sound(path, vfs=disk.vfs).close()

    assert pages > 1_000
    assert len(written) < 40  # each page that changed, twice: into the log, and from there into the file
    assert version(path) == SCHEMA_VERSION


@pytest.mark.parametrize("earlier", EARLIER)
def test_a_kill_in_the_middle_of_a_migration_leaves_a_whole_version(path: Path, disk: Disk, earlier: int) -> None:
    of_version(earlier, path, State)
    states = [state for _, state in read(path, "SELECT id, state FROM delivery ORDER BY id")]
    graves: list[Path] = []

    def kill() -> None:
        """Its files as they are at this moment are what the next start finds."""
        grave = path.with_name(f"life-{len(graves)}") / path.name
        grave.parent.mkdir()
        for suffix in ("", "-wal"):
            if (part := path.with_name(path.name + suffix)).exists():
                shutil.copy(part, grave.with_name(part.name))
        graves.append(grave)

    disk.after_write = kill
    open_sound(path, vfs=disk.vfs).close()

    met = set()
    for grave in graves:
        found = version(grave)
        met.add(found)
        columns = [len(read(grave, f"SELECT * FROM {table}")[0]) for table in ("message", "delivery")]
        assert columns == {1: [10, 12], 2: [12, 13], 3: [13, 13]}[found]
        open_sound(grave).close()
        assert version(grave) == SCHEMA_VERSION
        assert [state for _, state in read(grave, "SELECT id, state FROM delivery ORDER BY id")] == states
        assert len(read(grave, "SELECT * FROM message")) == len(states)
    assert met == set(range(earlier, SCHEMA_VERSION + 1))


@pytest.mark.parametrize("earlier", EARLIER)
def test_an_earlier_version_is_read_as_the_migration_would_make_it(path: Path, earlier: int) -> None:
    of_version(earlier, path, [State.QUEUED, State.HELD])
    unmigrated = as_read(path)
    open_sound(path).close()

    inbound = [(1, 0, "", 0, b"body 1"), (2, 0, "", 0, b"body 2")]
    outbound = [(1001, 1, "c1001", 0, b"body 1001"), (1002, 1, "c1002", 0, b"body 1002")] if earlier == 2 else []
    assert unmigrated == as_read(path) == ([*inbound[:1], *outbound[:1]], [*inbound, *outbound], outbound)
    assert for_schema("SELECT d.direction, m.content", SCHEMA_VERSION) == "SELECT d.direction, m.content"


def as_read(path: Path) -> tuple[list[tuple[object, ...]], ...]:
    """What is open, what there is, and what goes out."""
    shelf = Shelf(path)
    try:
        ids = [row_id for (row_id,) in fetch(shelf.connection, "SELECT id FROM message ORDER BY id")]
        found = shelf.open_range(0, 9_999), map(shelf.alone, ids), (shelf.get(one, Direction.OUT) for one in ids)
        return tuple([facts(row) for row in rows if row is not None] for rows in found)
    finally:
        shelf.close()


def facts(row: Row) -> tuple[object, ...]:
    return row.id, row.direction, row.callback, row.content, row.body


def read(path: Path, sql: str) -> list[tuple[Any, ...]]:
    """By a stranger's eyes."""
    connection = apsw.Connection(str(path))
    try:
        return fetch(connection, sql)
    finally:
        connection.close()


def version(path: Path) -> int:
    return int(read(path, "PRAGMA user_version")[0][0])


def contents(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    return {table: read(path, f"SELECT * FROM {table} ORDER BY 1") for table in ("message", "delivery", "meta")}


def test_a_reader_cannot_write(path: Path) -> None:
    open_sound(path).close()
    reader = connect_reader(path)
    with pytest.raises(apsw.ReadOnlyError):
        reader.execute("INSERT INTO meta VALUES('a', 1)")
    reader.close()


@pytest.mark.parametrize(
    ("error", "trouble"),
    [
        (apsw.FullError("full"), Trouble.FULL),
        (apsw.ReadOnlyError("ro"), Trouble.READ_ONLY),
        (apsw.CorruptError("malformed"), Trouble.DAMAGED),
        (apsw.NotADBError("not a database"), Trouble.DAMAGED),
        (apsw.SQLError("no such table: message"), Trouble.DAMAGED),
        (apsw.IOError("disk I/O error"), Trouble.UNAVAILABLE),
        (apsw.BusyError("locked"), Trouble.UNAVAILABLE),
        (OSError(errno.ENOSPC, "no space"), Trouble.FULL),
        (OSError(errno.EROFS, "read-only"), Trouble.READ_ONLY),
        (OSError(errno.EACCES, "denied"), Trouble.READ_ONLY),
        (OSError(errno.EIO, "io"), Trouble.UNAVAILABLE),
        (ValueError("NEMO^NOBODY"), Trouble.DAMAGED),
    ],
)
def test_errors_are_named_by_what_the_disk_did(
    path: Path, error: apsw.Error | OSError | ValueError, trouble: Trouble
) -> None:
    named = trouble_of(error, path)
    assert named.trouble is trouble
    assert named.hint == remedy(trouble, path)
    assert "NEMO" not in str(named)


def test_a_reader_s_trouble_speaks_of_reading(path: Path) -> None:
    assert "cannot be read" in str(trouble_of(apsw.IOError("x"), path, doing="read"))


@pytest.mark.parametrize(
    ("total", "free", "already", "low"),
    [
        (1000 * MIB * MIB, 64 * MIB, False, False),
        (1000 * MIB * MIB, 64 * MIB - 1, False, True),
        (1000 * MIB * MIB, 79 * MIB, True, True),
        (1000 * MIB * MIB, 80 * MIB, True, False),
        (100 * MIB, 11 * MIB, False, False),
        (100 * MIB, 9 * MIB, False, True),
    ],
)
def test_low_on_space_is_a_reserve_and_a_little_more_to_be_well(
    path: Path, total: int, free: int, already: bool, low: bool
) -> None:
    path.touch()
    found = low_on_space(path, 64 * MIB, already=already, usage=lambda _: Room(total, free))
    assert (found is not None) is low
    if found is not None:
        assert found.trouble is Trouble.LOW


def test_the_reserve_includes_what_the_log_may_move_into_the_file(path: Path) -> None:
    path.touch()
    path.with_name("spool.db-wal").write_bytes(bytes(5 * MIB))
    room = Room(1000 * MIB * MIB, 66 * MIB)
    assert low_on_space(path, 64 * MIB, already=False, usage=lambda _: room) is not None


def test_a_disk_that_cannot_be_asked_is_not_called_low(path: Path) -> None:
    def unable(_: Path) -> Room:
        raise OSError(errno.EIO, "io")

    assert low_on_space(path, 64 * MIB, already=False, usage=unable) is None


def test_trouble_is_an_error_with_its_remedy(path: Path) -> None:
    error = SpoolTrouble(Trouble.FULL, "full", hint=remedy(Trouble.FULL, path))
    assert str(path.parent) in error.hint
