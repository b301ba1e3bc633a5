"""What the spool holds and whether it is sound, with real files, live ones, closed ones and damaged ones."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import apsw
import pytest
from diagnostics_far_ends import a_host, findings_of

from agent.diagnostics import spool
from agent.diagnostics.check import Looked
from agent.errors import Severity
from agent.store.row import Direction, State
from agent.store.sqlite import open_sound

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def fill(
    connection: apsw.Connection,
    states: dict[State, int],
    received: datetime = NOW,
    body: int = 100,
    direction: Direction = Direction.IN,
) -> None:
    with connection:
        for state, number in states.items():
            for _ in range(number):
                moment = int(received.timestamp() * 1000)
                values = ("adt", "10.0.0.1:1", b"", b"", b"", moment, 0, os.urandom(body), direction)
                connection.execute("INSERT INTO message VALUES(NULL,?,?,?,?,?,?,NULL,?,?,?,'',0)", values)
                row = connection.last_insert_rowid()
                connection.execute(
                    "INSERT INTO delivery VALUES(?,?,0,0,0,0,NULL,NULL,'','',NULL,'adt',?)", (row, state, direction)
                )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data" / "spool.db"


@pytest.fixture
def writer(path: Path) -> Iterator[apsw.Connection]:
    """Somebody who has the spool open."""
    connection = open_sound(path)
    yield connection
    connection.close()


def files(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in folder.iterdir()}


async def test_before_the_first_start_there_is_none(tmp_path: Path) -> None:
    assert await spool.look(a_host(tmp_path)) == Looked("there is none yet: it is made at the first start")


def test_a_spool_in_use_is_read_beside_its_owner(path: Path, writer: apsw.Connection) -> None:
    fill(writer, {State.QUEUED: 2, State.PROCESSED: 3})

    looked = spool.judge(path, NOW)

    assert looked.findings == ()
    assert looked.text.startswith("sound, 2 queued, 3 processed, ")
    assert looked.text.endswith(" MiB, schema 3")


def test_looking_at_a_closed_spool_leaves_nothing_beside_it(path: Path) -> None:
    connection = open_sound(path)
    fill(connection, {State.PROCESSED: 5})
    connection.close()
    before = files(path.parent)

    looked = spool.judge(path, NOW)

    assert looked.text.startswith("sound, 5 processed")
    assert files(path.parent) == before
    assert set(before) == {"spool.db"}


def test_an_owner_who_comes_while_a_closed_spool_is_read_is_not_misread(path: Path) -> None:
    connection = open_sound(path)
    fill(connection, {State.PROCESSED: 5})
    connection.close()
    log = path.with_name("spool.db-wal")

    class Comes(apsw.VFS):
        """A disk on which the owner begins to write as soon as the file is looked at."""

        def __init__(self) -> None:
            self.owner: apsw.Connection | None = None
            (self.usual, *_) = apsw.vfs_names()
            super().__init__("comes", self.usual, makedefault=True)

        def xOpen(self, name: object, flags: list[int]) -> apsw.VFSFile:
            opened = apsw.VFSFile(self.usual, name, flags)  # type: ignore[arg-type]
            if self.owner is None and not log.exists():
                self.owner = apsw.Connection(str(path), vfs=self.usual)
                fill(self.owner, {State.QUEUED: 1})
            return opened

    disk = Comes()
    try:
        looked = spool.judge(path, NOW)
        assert disk.owner is not None
        disk.owner.close()
    finally:
        apsw.set_default_vfs(disk.usual)
        disk.unregister()
    assert looked.text.startswith("sound, 1 queued, 5 processed")


def test_messages_that_wait_too_long_are_a_warning(path: Path, writer: apsw.Connection) -> None:
    fill(writer, {State.QUEUED: 2}, received=NOW - timedelta(hours=3))
    finding = findings_of(spool.judge(path, NOW))["spool.old"]
    assert finding.severity is Severity.WARNING
    assert finding.text == "2 messages wait for the server, the oldest since 2026-11-22 09:00 UTC"


def test_messages_that_a_person_must_look_at_are_a_warning(path: Path, writer: apsw.Connection) -> None:
    fill(writer, {State.HELD: 1, State.FAILED: 2})
    finding = findings_of(spool.judge(path, NOW))["spool.held"]
    assert finding.text.startswith("3 messages were not delivered")


def test_a_spool_with_overwritten_pages_is_damaged(path: Path) -> None:
    connection = open_sound(path)
    fill(connection, {State.PROCESSED: 300}, body=2_000)
    connection.close()
    with path.open("r+b") as file:
        file.seek(20 * 4096)
        file.write(os.urandom(40 * 4096))
    before = files(path.parent)

    looked = spool.judge(path, NOW)

    finding = findings_of(looked)["spool.damaged"]
    assert finding.severity is Severity.ERROR
    assert files(path.parent) == before


def test_a_file_that_is_no_database_is_damaged(path: Path) -> None:
    path.write_bytes(b"PID|1||4711^^^HOSP||NEMO^NOBODY" * 200)
    looked = spool.judge(path, NOW)
    assert set(findings_of(looked)) == {"spool.damaged"}
    assert "NEMO" not in str(looked)


def test_a_spool_of_a_newer_version_is_left_alone(path: Path) -> None:
    connection = open_sound(path)
    connection.pragma("user_version", 99)
    connection.close()
    finding = findings_of(spool.judge(path, NOW))["spool.not-read"]
    assert "newer version" in finding.text


def test_a_check_that_takes_too_long_says_what_it_left_out(path: Path, writer: apsw.Connection) -> None:
    fill(writer, {State.PROCESSED: 30_000}, body=10)
    looked = spool.judge(path, NOW, within_s=-1.0)
    assert looked.text.startswith("only partly read, 30000 processed")
    assert findings_of(looked)["spool.not-all-checked"].severity is Severity.INFO


def test_damaged_spools_of_other_days_are_told_of(path: Path, writer: apsw.Connection) -> None:
    path.with_name("spool.damaged-1.db").touch()
    looked = spool.judge(path, NOW)
    assert looked.text.startswith("sound, no messages")
    assert findings_of(looked)["spool.set-aside"].where.endswith("spool.damaged-1.db")


def test_what_waits_for_the_server_and_what_waits_for_remotes_are_told_apart(
    path: Path, writer: apsw.Connection
) -> None:
    fill(writer, {State.QUEUED: 2}, NOW - timedelta(hours=3))
    fill(writer, {State.QUEUED: 3, State.PROCESSED: 1}, NOW - timedelta(hours=2), direction=Direction.OUT)

    texts = [finding.text for finding in spool.judge(path, NOW).findings if finding.code == "spool.old"]

    assert texts == [
        "2 messages wait for the server, the oldest since 2026-11-22 09:00 UTC",
        "3 messages wait for remotes, the oldest since 2026-11-22 10:00 UTC",
    ]
