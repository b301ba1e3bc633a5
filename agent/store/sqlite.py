"""The one file that survives power loss, and what to do when the disk breaks it.

Secret: SQLite. WAL with synchronous=FULL, so a COMMIT that returned is on the platter; the schema and its migrations; which
SQLite error means which trouble; how a damaged file is set aside and what can be read out of it.
Promise: `open_spool` gives a usable connection or a StoreError that says what to do; a damaged file is renamed, never deleted;
a file written by a newer version is left alone.

Two tables: `message` is evidence and never changes, `delivery` is the small, hot part. So finishing a message rewrites tens of
bytes, not the page that holds its body.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, assert_never

import apsw

from agent.errors import StoreError
from agent.store.row import State, Trouble

SCHEMA_VERSION: Final = 1

_MIGRATIONS: Final[dict[int, str]] = {
    1: """
    CREATE TABLE message(
        id INTEGER PRIMARY KEY, channel TEXT NOT NULL, remote TEXT NOT NULL, order_key BLOB NOT NULL, control_id BLOB NOT NULL,
        message_type BLOB NOT NULL, received_ms INTEGER NOT NULL, seq INTEGER, repeat INTEGER NOT NULL, body BLOB NOT NULL);
    CREATE INDEX message_by_control ON message(channel, control_id) WHERE control_id <> x'';
    CREATE TABLE delivery(
        id INTEGER PRIMARY KEY, state INTEGER NOT NULL, ack INTEGER NOT NULL, attempts INTEGER NOT NULL, ambiguous INTEGER NOT NULL,
        due_ms INTEGER NOT NULL, settled_ms INTEGER, status INTEGER, ack_code TEXT NOT NULL, reason TEXT NOT NULL, answer BLOB);
    CREATE INDEX delivery_open ON delivery(state, id) WHERE state < 10;
    CREATE TABLE meta(name TEXT PRIMARY KEY, value) WITHOUT ROWID;
    """,
}

_TROUBLE: Final[tuple[tuple[type[apsw.Error], Trouble], ...]] = (
    (apsw.FullError, Trouble.FULL),
    (apsw.ReadOnlyError, Trouble.READ_ONLY),
    (apsw.PermissionsError, Trouble.READ_ONLY),
    (apsw.CorruptError, Trouble.DAMAGED),
    (apsw.NotADBError, Trouble.DAMAGED),
)


class SpoolTrouble(StoreError):
    """The disk failed us: `trouble` says how, the text says where, the hint what a person can do."""

    def __init__(self, trouble: Trouble, text: str, *, hint: str) -> None:
        super().__init__(text, hint=hint)
        self.trouble = trouble


class SpoolTooNew(StoreError):
    """A newer version wrote this file; this one must not touch it."""


@dataclass(frozen=True, slots=True)
class SetAside:
    """A damaged spool that was renamed: where it is now, and how many undelivered messages were read out of it."""

    path: Path
    rescued: int
    complete: bool


def remedy(trouble: Trouble, path: Path) -> str:
    """What a person can do about a troubled disk."""
    match trouble:
        case Trouble.FULL | Trouble.LOW:
            return f"free space on the disk that holds {path.parent}; messages are accepted again by themselves"
        case Trouble.READ_ONLY:
            return f"give the agent's user write access to {path.parent}, or remount the disk writable"
        case Trouble.DAMAGED:
            return f"check the disk that holds {path.parent}; the damaged file is set aside, not deleted"
        case Trouble.UNAVAILABLE:
            return f"check the disk that holds {path.parent}, and the system log"
        case _ as never:
            assert_never(never)


def trouble_of(error: apsw.Error | OSError, path: Path) -> SpoolTrouble:
    """Name what the disk did, with the remedy."""
    trouble = next((trouble for kind, trouble in _TROUBLE if isinstance(error, kind)), Trouble.UNAVAILABLE)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        trouble = Trouble.FULL
    if isinstance(error, apsw.IOError) and "disk full" in str(error).lower():
        trouble = Trouble.FULL
    return SpoolTrouble(trouble, f"the spool cannot be written ({trouble}): {error}", hint=remedy(trouble, path))


def connect(path: Path, *, vfs: str | None = None, cache_kib: int = 8_000) -> apsw.Connection:
    """A writing connection, set up for durability. Raises apsw.Error."""
    connection = apsw.Connection(str(path), vfs=vfs) if vfs else apsw.Connection(str(path))
    try:
        for pragma in (
            "auto_vacuum=INCREMENTAL",  # lets retention give space back to the disk
            "journal_mode=WAL",
            "synchronous=FULL",
            "wal_autocheckpoint=2000",
            "journal_size_limit=16777216",
            "cache_spill=OFF",  # nothing reaches the disk before COMMIT, so an INSERT never waits for it
            "temp_store=MEMORY",
            f"cache_size=-{cache_kib}",
        ):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        connection.set_busy_timeout(100)
    except apsw.Error:
        connection.close()
        raise
    return connection


def connect_reader(path: Path, *, vfs: str | None = None) -> apsw.Connection:
    """A second connection that only reads; WAL lets it see every commit without waiting for the writer."""
    flags = apsw.SQLITE_OPEN_READONLY
    connection = apsw.Connection(str(path), flags=flags, vfs=vfs) if vfs else apsw.Connection(str(path), flags=flags)
    connection.execute("PRAGMA cache_size=-2000").fetchall()
    connection.set_busy_timeout(1_000)
    return connection


def fetch(connection: apsw.Connection, sql: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """All rows of a query. Raises apsw.Error."""
    return connection.execute(sql, values).fetchall()


def migrate(connection: apsw.Connection, path: Path) -> None:
    """Bring the schema forward, one version at a time, each in one transaction."""
    found = int(connection.pragma("user_version"))
    if found > SCHEMA_VERSION:
        raise SpoolTooNew(
            f"{path} was written by a newer version of the agent (spool schema {found}, this one knows {SCHEMA_VERSION})",
            hint="run that version again, or move the file away to start with an empty spool",
        )
    for version in range(found + 1, SCHEMA_VERSION + 1):
        with connection:
            connection.execute(_MIGRATIONS[version])
            if version == 1:
                connection.execute("INSERT INTO meta VALUES('instance', ?)", (secrets.token_hex(12),))
            connection.pragma("user_version", version)


def open_spool(path: Path, *, vfs: str | None = None) -> tuple[apsw.Connection, SetAside | None]:
    """Open or create the spool file; a damaged one is set aside and what is undelivered in it is carried over.

    Raises SpoolTrouble when the disk does not let us, SpoolTooNew when the file is from a newer version.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return _open_sound(path, vfs), None
        except (apsw.CorruptError, apsw.NotADBError):
            aside = _move_aside(path)
            connection = _open_sound(path, vfs)
            rescued, complete = _rescue(aside, connection)
            return connection, SetAside(aside, rescued, complete)
    except (apsw.Error, OSError) as error:
        raise trouble_of(error, path) from error


def _open_sound(path: Path, vfs: str | None) -> apsw.Connection:
    connection = connect(path, vfs=vfs)
    try:
        migrate(connection, path)
        connection.execute("SELECT count(*) FROM delivery WHERE state < 10").fetchall()
        connection.execute("SELECT max(id) FROM message").fetchall()
    except BaseException:
        connection.close()
        raise
    os.chmod(path, 0o600)
    return connection


def _move_aside(path: Path) -> Path:
    stem = f"{path.stem}.damaged"
    number = 1
    while (aside := path.with_name(f"{stem}-{number}{path.suffix}")).exists():
        number += 1
    for suffix in ("-wal", "-shm", ""):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.replace(aside.with_name(aside.name + suffix))
    return aside


def _rescue(damaged: Path, into: apsw.Connection) -> tuple[int, bool]:
    """Copy every undelivered message that can still be read, oldest first; (how many, whether nothing stopped us)."""
    rescued, complete = 0, True
    try:
        source = apsw.Connection(str(damaged), flags=apsw.SQLITE_OPEN_READONLY)
    except apsw.Error:
        return 0, False
    try:
        for low, high in _id_ranges(source):
            try:
                rows = fetch(
                    source,
                    "SELECT m.*, d.* FROM message m JOIN delivery d ON d.id = m.id WHERE m.id BETWEEN ? AND ? AND d.state < ?",
                    (low, high, int(State.PROCESSED)),
                )
            except apsw.Error:
                complete = False
                continue
            with into:
                for row in rows:
                    into.execute(f"INSERT OR IGNORE INTO message VALUES({','.join('?' * 10)})", row[:10])
                    into.execute(f"INSERT OR IGNORE INTO delivery VALUES({','.join('?' * 11)})", row[10:])
                    rescued += 1
        meta = fetch(source, "SELECT name, value FROM meta")
        with into:
            into.executemany("INSERT OR REPLACE INTO meta VALUES(?, ?)", meta)
    except apsw.Error:
        complete = False
    finally:
        source.close()
    return rescued, complete


def _id_ranges(source: apsw.Connection) -> list[tuple[int, int]]:
    """Small id ranges, so that one unreadable page costs few messages."""
    lowest, highest = fetch(source, "SELECT min(id), max(id) FROM delivery")[0]
    if lowest is None:
        return []
    return [(low, min(low + 15, highest)) for low in range(lowest, highest + 1, 16)]


def probe(connection: apsw.Connection, path: Path) -> None:
    """One small commit, to see whether the disk takes it. Raises SpoolTrouble."""
    try:
        with connection:
            connection.execute("INSERT OR REPLACE INTO meta VALUES('probed', ?)", (time.time_ns() // 1_000_000,))
    except apsw.Error as error:
        raise trouble_of(error, path) from error


def spoil(path: Path) -> None:
    """Make the next `open_spool` set this file aside, if SQLite really finds it damaged."""
    try:
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            sound = fetch(connection, "PRAGMA quick_check(1)") == [("ok",)]
        finally:
            connection.close()
    except apsw.Error:
        sound = False
    if not sound:
        with contextlib.suppress(OSError), path.open("r+b") as file:
            file.write(b"this spool is damaged and was set aside\n")


def low_on_space(path: Path, min_free_bytes: int, *, already: bool) -> SpoolTrouble | None:
    """Trouble before the disk is full, so that what was accepted can still be delivered and recorded.

    The reserve is `min_free_bytes`, or a tenth of a small disk. `already` low: it takes a little more to be well again.
    """
    try:
        disk = shutil.disk_usage(path.parent)
    except OSError:
        return None  # the next commit will say what is wrong
    reserve = min(min_free_bytes, disk.total // 10)
    if disk.free >= (reserve * 5 // 4 if already else reserve):
        return None
    text = (
        f"only {disk.free >> 20} MiB are free on the disk of the spool; the last {reserve >> 20} MiB are for delivery"
    )
    return SpoolTrouble(Trouble.LOW, text, hint=remedy(Trouble.LOW, path))
