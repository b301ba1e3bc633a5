"""How the file is set up, its versions, and what its errors mean."""

from __future__ import annotations

import errno
import os
import stat
import sys
from pathlib import Path

import apsw
import pytest
from store_disk import Disk, Room

from agent.store.row import Trouble
from agent.store.sqlite import (
    SCHEMA_VERSION,
    NotASpool,
    SpoolTooNew,
    SpoolTrouble,
    connect,
    connect_reader,
    fetch,
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
