"""The one file that survives power loss: how it is set up, and what its errors mean.

Secret: SQLite. WAL with synchronous=FULL, so a COMMIT that returned is on the platter; the schema and its migrations;
which SQLite error means which trouble.
Promise: `open_sound` gives a usable connection or an error that names the trouble; a file written by a newer version,
or by another program, is left as it is.

Two tables: `message` is evidence and never changes, `delivery` is the small, hot part. So finishing a message rewrites
tens of bytes, not the page that holds its body. `delivery` repeats the channel, so that a channel's backlog is found
without reading the messages of the others. Both say the direction: what goes out has a backlog of its own for each
remote, and is found without a look at what comes in. What a message is made of (`content`) is said with the evidence
alone: no backlog is asked for by it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol, assert_never

import apsw

from agent.errors import StoreError
from agent.store.row import Trouble

SCHEMA_VERSION: Final = 3
OPEN_WITHIN_MS: Final = 5_000  # another process may be checkpointing or closing the file
WRITE_WITHIN_MS: Final = 100  # BEGIN runs on the loop: better troubled for a second than deaf for five

_PAGE_BYTES: Final = 4096
_LOG_PAGES: Final = 2_000  # in the log before they move into the file; fewer on a small disk

_MIGRATIONS: Final[dict[int, str]] = {
    1: """
    CREATE TABLE message(
        id INTEGER PRIMARY KEY, channel TEXT NOT NULL, remote TEXT NOT NULL, order_key BLOB NOT NULL,
        control_id BLOB NOT NULL, message_type BLOB NOT NULL, received_ms INTEGER NOT NULL, seq INTEGER,
        repeat INTEGER NOT NULL, body BLOB NOT NULL);
    CREATE INDEX message_by_control ON message(channel, control_id) WHERE control_id <> x'';
    CREATE TABLE delivery(
        id INTEGER PRIMARY KEY, state INTEGER NOT NULL, ack INTEGER NOT NULL, attempts INTEGER NOT NULL,
        ambiguous INTEGER NOT NULL, due_ms INTEGER NOT NULL, settled_ms INTEGER, status INTEGER,
        ack_code TEXT NOT NULL, reason TEXT NOT NULL, answer BLOB, channel TEXT NOT NULL);
    CREATE INDEX delivery_open ON delivery(channel, state, id) WHERE state < 10;
    CREATE TABLE meta(name TEXT PRIMARY KEY, value) WITHOUT ROWID;
    """,
    # No row is written anew, and the tables keep their roots, by which salvage finds them in a file of either version
    # that has lost its first page: of an index that is dropped, the newest root takes the place.
    2: """
    ALTER TABLE message ADD COLUMN direction INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE message ADD COLUMN callback TEXT NOT NULL DEFAULT '';
    ALTER TABLE delivery ADD COLUMN direction INTEGER NOT NULL DEFAULT 0;
    CREATE INDEX open_delivery ON delivery(direction, channel, state, id) WHERE state < 10;
    DROP INDEX delivery_open;
    """,
    3: "ALTER TABLE message ADD COLUMN content INTEGER NOT NULL DEFAULT 0",  # no row is written anew here either
}
# What files of earlier versions lack: the version that brought it, the column, and what a migration makes of it.
_ABSENT: Final = ((2, "m.direction", "0"), (2, "d.direction", "0"), (2, "m.callback", "''"), (3, "m.content", "0"))

DAMAGE: Final = (apsw.CorruptError, apsw.NotADBError, apsw.SQLError)  # SQLError: a table of ours is missing
_TROUBLE: Final[tuple[tuple[type[apsw.Error] | tuple[type[apsw.Error], ...], Trouble], ...]] = (
    (apsw.FullError, Trouble.FULL),
    (apsw.ReadOnlyError, Trouble.READ_ONLY),
    (apsw.PermissionsError, Trouble.READ_ONLY),
    (DAMAGE, Trouble.DAMAGED),
)
_ERRNO: Final = {
    errno.ENOSPC: Trouble.FULL,
    getattr(errno, "EDQUOT", errno.ENOSPC): Trouble.FULL,
    errno.EROFS: Trouble.READ_ONLY,
    errno.EACCES: Trouble.READ_ONLY,
    errno.EPERM: Trouble.READ_ONLY,
}


class SpoolTrouble(StoreError):
    """The disk failed us: `trouble` says how, the text says where, the hint what a person can do."""

    def __init__(self, trouble: Trouble, text: str, *, hint: str) -> None:
        super().__init__(text, hint=hint)
        self.trouble = trouble


class SpoolTooNew(StoreError):
    """A newer version wrote this file; this one must not touch it."""


class NotASpool(StoreError):
    """Another program's database lies where the spool should be; it is left as it is."""


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


def trouble_of(
    error: apsw.Error | OSError | ValueError | TypeError, path: Path, *, doing: str = "written"
) -> SpoolTrouble:
    """Name what the disk did, with the remedy. ValueError and TypeError: what was read is nothing that we wrote."""
    words = str(error)
    match error:
        case ValueError() | TypeError():
            trouble = Trouble.DAMAGED
            words = "it holds values that make no sense"  # the error's own words may quote them
        case OSError():
            trouble = _ERRNO.get(error.errno or 0, Trouble.UNAVAILABLE)
        case _:
            trouble = next((trouble for kind, trouble in _TROUBLE if isinstance(error, kind)), Trouble.UNAVAILABLE)
            if trouble is Trouble.UNAVAILABLE and path.parent.exists() and not os.access(path.parent, os.W_OK):
                trouble = Trouble.READ_ONLY  # SQLite calls a write to a read-only mount an I/O error
    return SpoolTrouble(trouble, f"the spool cannot be {doing} ({trouble}): {words}", hint=remedy(trouble, path))


def connect(path: Path, *, vfs: str | None = None, create: bool = True) -> apsw.Connection:
    """A writing connection, set up for durability. Raises apsw.Error, OSError, SpoolTooNew, NotASpool."""
    flags = apsw.SQLITE_OPEN_READWRITE
    if create:
        flags |= apsw.SQLITE_OPEN_CREATE
        with contextlib.suppress(FileExistsError):  # private from its first byte; WAL and shared memory inherit it
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    connection = apsw.Connection(str(path), flags=flags, vfs=vfs)
    log_pages = max(_LOG_PAGES // 20, min(_LOG_PAGES, shutil.disk_usage(path.parent).total // 40 // _PAGE_BYTES))
    try:
        connection.set_busy_timeout(OPEN_WITHIN_MS)
        if not check_version(connection, path):  # the rest leaves its mark in a file: not in one that is not ours
            connection.execute("PRAGMA auto_vacuum=INCREMENTAL")  # lets retention give space back to the disk
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            f"wal_autocheckpoint={log_pages}",
            f"journal_size_limit={2 * log_pages * _PAGE_BYTES}",
            "cache_spill=OFF",  # nothing reaches the disk before COMMIT, so an INSERT never waits for it
            "temp_store=MEMORY",
            "cache_size=-8000",
        ):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        if connection.pragma("journal_mode") != "wal":
            raise apsw.CantOpenError("this disk does not support a write-ahead log; the spool needs a local disk")
    except (apsw.Error, StoreError):
        connection.close()
        raise
    return connection


def connect_reader(path: Path, *, vfs: str | None = None) -> apsw.Connection:
    """A second connection that only reads; WAL lets it see every commit without waiting for the writer."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY, vfs=vfs)
    try:
        connection.set_busy_timeout(1_000)
        connection.execute("PRAGMA cache_size=-2000").fetchall()
    except apsw.Error:
        connection.close()
        raise
    return connection


def fetch(connection: apsw.Connection, sql: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """All rows of a query. Raises apsw.Error."""
    return connection.execute(sql, values).fetchall()


def schema_of(connection: apsw.Connection) -> int:
    """The schema version of the file; 0 = empty. Raises apsw.Error."""
    return int(connection.pragma("user_version"))


def for_schema(sql: str, version: int) -> str:
    """A query over `message m` and `delivery d` for a file of this version: what it lacks has the value that a
    migration would give it. For those who read a file that its owner has not migrated, or could not."""
    for since, column, value in _ABSENT:
        if version < since:
            sql = sql.replace(column, value)
    return sql


def check_version(connection: apsw.Connection, path: Path) -> int:
    """As `schema_of`, for a file that may not be ours to touch. Raises SpoolTooNew and NotASpool."""
    found = schema_of(connection)
    if found > SCHEMA_VERSION:
        raise SpoolTooNew(
            f"{path} was written by a newer version of the agent"
            f" (spool schema {found}, this one knows {SCHEMA_VERSION})",
            hint="run that version again, or move the file away to start with an empty spool",
        )
    if not found and fetch(connection, "SELECT 1 FROM sqlite_schema LIMIT 1"):
        raise NotASpool(
            f"{path} is a database of another program",
            hint="name another folder with spool.dir, or move the file away",
        )
    return found


def migrate(connection: apsw.Connection, path: Path) -> None:
    """Bring the schema forward, one version at a time, each in one transaction."""
    for version in range(check_version(connection, path) + 1, SCHEMA_VERSION + 1):
        with connection:
            connection.execute(_MIGRATIONS[version])
            if version == 1:
                connection.execute("INSERT INTO meta VALUES('instance', ?)", (secrets.token_hex(12),))
            connection.pragma("user_version", version)


def open_sound(path: Path, *, vfs: str | None = None, create: bool = True) -> apsw.Connection:
    """A writing connection to a file of the current schema. Raises apsw.Error, OSError, SpoolTooNew, NotASpool."""
    connection = connect(path, vfs=vfs, create=create)
    try:
        migrate(connection, path)
        connection.set_busy_timeout(WRITE_WITHIN_MS)
    except BaseException:
        connection.close()
        raise
    with contextlib.suppress(OSError):  # a file that came from elsewhere, say out of a backup
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
    return connection


def size_bytes(path: Path) -> int:
    """What a spool takes of the disk, its log included."""
    total = 0
    for suffix in ("", "-wal"):
        with contextlib.suppress(OSError):
            total += path.with_name(path.name + suffix).stat().st_size
    return total


class DiskUsage(Protocol):
    """As `shutil.disk_usage` returns it, in bytes."""

    @property
    def total(self) -> int: ...

    @property
    def free(self) -> int: ...


def low_on_space(
    path: Path,
    min_free_bytes: int,
    *,
    already: bool,
    usage: Callable[[Path], DiskUsage] = shutil.disk_usage,
) -> SpoolTrouble | None:
    """Trouble before the disk is full, so that what was accepted can still be delivered and recorded.

    The reserve is `min_free_bytes`, or a tenth of a small disk; and as much as the log holds, which may have to move
    into the file. `already` low: it takes a little more to be well again.
    """
    try:
        disk = usage(path.parent)
        log_bytes = size_bytes(path) - path.stat().st_size
    except OSError:
        return None  # the next commit will say what is wrong
    reserve = min(min_free_bytes, disk.total // 10)
    if disk.free >= (reserve * 5 // 4 if already else reserve) + (log_bytes if reserve else 0):
        return None
    kept_mib = (reserve + log_bytes) >> 20
    text = f"only {disk.free >> 20} MiB are free on the disk of the spool; the last {kept_mib} MiB are for delivery"
    return SpoolTrouble(Trouble.LOW, text, hint=remedy(Trouble.LOW, path))
