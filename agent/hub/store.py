"""Keep resources and received messages on disk, many to one commit.

Secret: one SQLite file in WAL mode with one writer thread; while a commit is in its fsync everything that
arrives joins the next, so that a flood costs a few commits and a single write costs one.
Promise: what was reported as kept survives power loss (synchronous=FULL); a job that raises changes nothing;
when the disk refuses, everything that waited hears StoreError and later writes are tried again.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import apsw

from agent.errors import StoreError
from agent.hub.outcomes import Refused

T = TypeVar("T")
Job = Callable[[apsw.Connection], Any]
Kept = Callable[[StoreError | None], None]

# What brings an empty file, or that of an older release, up to date: a file of version n has had the first n of these.
MIGRATIONS = (
    """
CREATE TABLE resource (
    number INTEGER PRIMARY KEY, type TEXT NOT NULL, id TEXT NOT NULL, version TEXT NOT NULL, updated TEXT NOT NULL,
    deleted INTEGER NOT NULL, content TEXT NOT NULL, UNIQUE (type, id));
CREATE TABLE term (
    resource INTEGER NOT NULL, param TEXT NOT NULL, system TEXT NOT NULL, value TEXT NOT NULL);
CREATE INDEX term_by_value ON term (param, value);
CREATE INDEX term_by_resource ON term (resource);
CREATE TABLE presence (agent TEXT PRIMARY KEY, status TEXT NOT NULL, version TEXT NOT NULL, updated TEXT NOT NULL);
CREATE TABLE setting (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE message (
    id INTEGER PRIMARY KEY AUTOINCREMENT, received TEXT NOT NULL, agent TEXT NOT NULL, channel TEXT NOT NULL,
    remote TEXT, content_type TEXT, callback TEXT, control_id TEXT, message_type TEXT, body TEXT NOT NULL,
    status INTEGER, answer TEXT);
CREATE INDEX message_by_control_id ON message (control_id);
""",
    "CREATE TABLE job (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, content TEXT NOT NULL)",
)
SCHEMA_VERSION = len(MIGRATIONS)


class Store:
    """The hub's database. `read` is for queries on the event loop; writes go through `write` and `append`."""

    def __init__(self, path: Path, insert: str) -> None:
        """Open or create the file. `insert` is the statement that keeps one row given to `append`."""
        self._insert = insert
        self._rows: list[tuple[Sequence[Any], Kept]] = []
        self._jobs: list[tuple[Job, asyncio.Future[Any] | None]] = []
        self._busy = False
        self._idle: asyncio.Future[None] | None = None
        if not path.exists():
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))  # it holds secrets and messages
        try:
            self._writer = _connect(path)
            _migrate(self._writer)
            self.read = _connect(path)
        except apsw.Error as error:
            raise StoreError(
                f"cannot open {path}: {error}", hint="free or repair the disk, or give another --data-dir"
            ) from error
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="hub-store")

    def append(self, row: Sequence[Any], kept: Kept) -> None:
        """Keep one row; `kept` is called on the loop after the commit, with None or with what went wrong."""
        self._rows.append((row, kept))
        self._wake()

    async def write(self, job: Callable[[apsw.Connection], T]) -> T:
        """Run `job` inside the next transaction, in the writer thread; returns its result once committed."""
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._jobs.append((job, done))
        self._wake()
        return await done

    def later(self, job: Job) -> None:
        """Run `job` inside one of the next transactions; nobody waits for it, and a refusal is lost with it."""
        self._jobs.append((job, None))
        self._wake()

    async def close(self) -> None:
        """Wait for what is under way, then close the file."""
        if self._busy:
            self._idle = asyncio.get_running_loop().create_future()
            await self._idle
        self._thread.shutdown()
        self.read.close()
        self._writer.close()

    def _wake(self) -> None:
        if not self._busy:
            self._busy = True
            asyncio.get_running_loop().call_soon(self._commit_next)

    def _commit_next(self) -> None:
        rows, self._rows = self._rows, []
        jobs, self._jobs = self._jobs, []
        loop = asyncio.get_running_loop()
        batch = loop.run_in_executor(self._thread, self._commit, [row for row, _ in rows], [job for job, _ in jobs])

        def committed(done: asyncio.Future[list[Any]]) -> None:
            error = done.exception()
            if self._rows or self._jobs:
                self._commit_next()  # first: the disk works while the answers below are written
            else:
                self._busy = False
            refusal = _as_store_error(error)
            for _, kept in rows:
                kept(refusal)
            results = done.result() if refusal is None else [refusal] * len(jobs)
            for (_, waiter), result in zip(jobs, results, strict=True):
                if waiter is None or waiter.done():
                    continue
                if isinstance(result, BaseException):
                    waiter.set_exception(result)
                else:
                    waiter.set_result(result)
            if not self._busy and self._idle is not None and not self._idle.done():
                self._idle.set_result(None)
            if error is not None and error is not refusal:
                raise error  # a defect of ours: the loop's exception handler must hear of it

        batch.add_done_callback(committed)

    def _commit(self, rows: list[Sequence[Any]], jobs: list[Job]) -> list[Any]:
        writer = self._writer
        try:
            writer.execute("BEGIN IMMEDIATE")
            try:
                if rows:
                    writer.executemany(self._insert, rows)
                results = [self._attempt(job) for job in jobs]
                writer.execute("COMMIT")
            finally:
                if writer.in_transaction:  # a full disk may have rolled back already
                    writer.execute("ROLLBACK")
        except apsw.Error as error:
            raise StoreError(f"the hub's disk does not keep data: {error}", hint="free the hub's disk") from error
        return results

    def _attempt(self, job: Job) -> Any:
        try:
            with self._writer:  # a savepoint: one job's refusal must not undo its neighbours
                return job(self._writer)
        except Refused as refused:
            return refused


def _as_store_error(error: BaseException | None) -> StoreError | None:
    if error is None or isinstance(error, StoreError):
        return error
    return StoreError("the hub could not store this because of a defect", hint="see the hub's log and report it")


def _connect(path: Path) -> apsw.Connection:
    connection = apsw.Connection(str(path))
    connection.set_busy_timeout(5_000)
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "wal_autocheckpoint=2000"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


def _migrate(connection: apsw.Connection) -> None:
    version = connection.execute("PRAGMA user_version").get
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"the hub's database has schema {version}, this release knows {SCHEMA_VERSION}",
            hint="start the newer release, or give an empty --data-dir",
        )
    if version < SCHEMA_VERSION:
        with connection:
            for step in MIGRATIONS[version:]:
                connection.execute(step)
            connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
