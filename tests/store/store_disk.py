"""The doubles of the store room: a disk that fails when it is told to, and somebody to whom the spool tells things.

The disk is the far end: everything of ours above it is real, and SQLite is.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import apsw

from agent.store.row import AckState, Content, Direction, Repeat, Row, State
from agent.store.spool import Spool, SpoolEvents, Timing
from agent.store.sqlite import SpoolTrouble

SWIFT = Timing(settle_lag_s=0.002, probe_every_s=0.01, hung_after_s=0.05, close_within_s=2.0)
REMOTE = "mllp://10.2.2.2:2575?durable=true"
# The schema as earlier versions left it, for files of those days.
_SCHEMA_1 = """
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
"""
_SCHEMA_2 = """
ALTER TABLE message ADD COLUMN direction INTEGER NOT NULL DEFAULT 0;
ALTER TABLE message ADD COLUMN callback TEXT NOT NULL DEFAULT '';
ALTER TABLE delivery ADD COLUMN direction INTEGER NOT NULL DEFAULT 0;
CREATE INDEX open_delivery ON delivery(direction, channel, state, id) WHERE state < 10;
DROP INDEX delivery_open;
"""
EARLIER = (1, 2)
ADT = b"MSH|^~\\&|ADT|WARD|LAB|HOSP|20260101120000||ADT^A01|%s|P|2.5\rPID|||4711^^^HOSP||NEMO^NOBODY\r"
_serial = itertools.count(1)


@dataclass(frozen=True)
class Room:
    """What a disk says of itself, in bytes."""

    total: int
    free: int


class Disk:
    """A disk of one's own, by the name `vfs`. Reads always work; what is written obeys the last order given.

    `stall` lets every sync wait, `fill` refuses writes that need more room, `break_` refuses every write and sync,
    `protect` is a mount that became read-only. `on` limits the order to files with such an ending ("-wal").
    `after_write` is called when something was written: what the files hold then is what a kill leaves.
    """

    def __init__(self) -> None:
        self.vfs = f"disk-{next(_serial)}"
        self.syncs = 0
        self.usage = Room(total=1 << 40, free=1 << 39)
        self.syncing = threading.Event()
        self._flowing = threading.Event()
        self._flowing.set()
        self._refusal: type[apsw.Error] | None = None
        self._on = ""
        self.after_write: Callable[[], None] = lambda: None
        self._shim = _Shim(self)

    def stall(self, *, on: str = "") -> None:
        self._on = on
        self.syncing.clear()
        self._flowing.clear()

    def resume(self) -> None:
        self._flowing.set()

    def fill(self, *, on: str = "") -> None:
        self._refusal, self._on = apsw.FullError, on

    def break_(self, *, on: str = "") -> None:
        self._refusal, self._on = apsw.IOError, on

    def protect(self) -> None:
        self._refusal, self._on = apsw.ReadOnlyError, ""

    def free(self) -> None:
        """Room again, whole again, writable again."""
        self._refusal = None

    def room(self, _: Path) -> Room:
        return self.usage

    def write(self, name: str, *, grows: bool) -> None:
        if self._refusal is None or not name.endswith(self._on):
            return
        if grows or self._refusal is not apsw.FullError:
            raise self._refusal("the disk was told to refuse")

    def sync(self, name: str) -> None:
        if name.endswith(self._on) and not self._flowing.is_set():
            self.syncing.set()
            self._flowing.wait()
        if self._refusal is not None and self._refusal is not apsw.FullError and name.endswith(self._on):
            raise self._refusal("the disk was told to refuse")
        self.syncs += name.endswith("-wal")

    async def until_syncing(self) -> None:
        """Until a sync waits for `resume`."""
        assert await asyncio.to_thread(self.syncing.wait, 5)


class _File(apsw.VFSFile):
    def excepthook(self, *_: object) -> bool:
        """A refusal that SQLite keeps to itself, as it does a checkpoint's."""
        return True

    def __init__(self, disk: Disk, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        self._disk = disk
        self._name = name.filename() if isinstance(name, apsw.URIFilename) else name or ""
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        self._disk.write(self._name, grows=offset + len(data) > self.xFileSize())
        super().xWrite(data, offset)
        self._disk.after_write()

    def xSync(self, flags: int) -> None:
        self._disk.sync(self._name)
        super().xSync(flags)

    def xTruncate(self, size: int) -> None:
        self._disk.write(self._name, grows=False)
        super().xTruncate(size)


class _Shim(apsw.VFS):
    def excepthook(self, *_: object) -> bool:
        return True

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        super().__init__(disk.vfs, "")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        return _File(self._disk, name, flags)


@dataclass
class Told:
    """Everything that the spool said, in the order in which it did."""

    durable: list[Row] = field(default_factory=list)
    claimed: list[Row] = field(default_factory=list)
    refused: list[Row] = field(default_factory=list)
    unclaimed: list[Row] = field(default_factory=list)
    health: list[SpoolTrouble | None] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    reasons: list[SpoolTrouble] = field(default_factory=list)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def events(self) -> SpoolEvents:
        return SpoolEvents(self._durable, self._claimed, self._refused, self._unclaimed, self._health)

    def _durable(self, rows: list[Row]) -> None:
        self.durable += rows
        self.batches.append(len(rows))
        self._news.set()

    def _claimed(self, rows: list[Row]) -> None:
        self.claimed += rows
        self._news.set()

    def _refused(self, rows: list[Row], trouble: SpoolTrouble) -> None:
        self.refused += rows
        self.reasons.append(trouble)
        self._news.set()

    def _unclaimed(self, rows: list[Row]) -> None:
        self.unclaimed += rows
        self._news.set()

    def _health(self, trouble: SpoolTrouble | None) -> None:
        self.health.append(trouble)
        self._news.set()

    async def until(self, so: Callable[[], object]) -> None:
        """Until `so()` is true of what was told, at most five seconds."""
        async with asyncio.timeout(5):
            while not so():
                self._news.clear()
                await self._news.wait()


def message(
    spool: Spool,
    control_id: bytes | None = None,
    *,
    channel: str = "adt",
    state: State = State.QUEUED,
    body: bytes | None = None,
    seq: int | None = None,
    repeat: Repeat = Repeat.NO,
    direction: Direction = Direction.IN,
    callback: str = "",
    content: Content = Content.HL7,
) -> Row:
    """A message that has just come in, and is not put anywhere yet."""
    row_id = spool.next_id()
    control_id = b"M%d" % row_id if control_id is None else control_id
    remote = "10.1.1.1:5000"
    body = ADT % control_id if body is None else body
    row = Row(
        row_id, channel, remote, remote.encode(), control_id, b"ADT^A01", 1_700_000_000_000, body, seq, repeat,
        direction=direction, callback=callback, content=content,
    )  # fmt: skip
    row.state = state
    row.attempts = int(state is State.INFLIGHT)
    return row


def outbound(spool: Spool, control_id: bytes | None = None, *, to: str = REMOTE, **more: Any) -> Row:
    """A message that the server has just pushed, and waits for."""
    return message(spool, control_id, channel=to, direction=Direction.OUT, **{"callback": "callback-1", **more})


def conclude(spool: Spool, row: Row, state: State = State.PROCESSED) -> None:
    """The server, or the remote, has answered for `row`."""
    row.state = state
    row.ack = AckState.DELIVERED
    row.ack_code = "AA"
    row.status = 200
    row.answer = b"MSH|^~\\&|\rMSA|AA|%s\r" % row.control_id
    spool.settle(row)


@asynccontextmanager
async def running(
    path: Path, told: Told, *, disk: Disk | None = None, timing: Timing = SWIFT, min_free_bytes: int = 0
) -> AsyncIterator[Spool]:
    """A spool with its owner at work, as in the daemon."""
    spool_of = partial(Spool.open, path, told.events, min_free_bytes=min_free_bytes, timing=timing)
    opened = spool_of() if disk is None else spool_of(vfs=disk.vfs, usage=disk.room)
    crashes = crashes_of_the_loop()
    async with opened as spool, asyncio.TaskGroup() as tasks:
        work = tasks.create_task(spool.run())
        try:
            yield spool
        finally:
            work.cancel()
    assert crashes == []


def crashes_of_the_loop() -> list[dict[str, Any]]:
    """What callbacks raise from now on; in the daemon it would end the process."""
    crashes: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: crashes.append(context))
    return crashes


async def store(spool: Spool, told: Told, *rows: Row) -> None:
    """Put these and wait until they are durable."""
    for row in rows:
        spool.put(row)
    await until_durable(told, rows)


async def until_durable(told: Told, rows: Iterable[Row]) -> None:
    await told.until(lambda: all(row.durable for row in rows))


async def settled(spool: Spool) -> None:
    """Until everything given to the spool so far is on disk."""
    await spool.perform(lambda _: None)


def of_version(version: int, path: Path, states: Iterable[State], *, body: bytes = b"body") -> None:
    """A closed file as that version of the schema left it, with an inbound message in each of these states: 1, 2, ...
    of channel adt; and since version 2 with an outbound one in each of them: 1001, 1002, ... to REMOTE."""
    connection = apsw.Connection(str(path))
    for pragma in ("auto_vacuum=INCREMENTAL", "journal_mode=WAL"):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    with connection:
        connection.execute(_SCHEMA_1)
        connection.execute("INSERT INTO meta VALUES('instance', '0123456789abcdef01234567'), ('sequence:adt', 7)")
        found = list(states)
        for number, state in enumerate(found, 1):
            _insert(connection, (number, "adt", state, body))
        if version >= 2:
            connection.execute(_SCHEMA_2)
            for number, state in enumerate(found, 1001):
                _insert(connection, (number, REMOTE, state, body), message=f",1,'c{number}'", delivery=",1")
        connection.pragma("user_version", version)
    connection.close()


def _insert(
    connection: apsw.Connection, facts: tuple[int, str, State, bytes], *, message: str = "", delivery: str = ""
) -> None:
    """`message` and `delivery`: the values of what version 2 added to them, as SQL."""
    number, channel, state, body = facts
    connection.execute(
        f"INSERT INTO message VALUES(?,?,'10.1.1.1:5000',x'6b',?,x'414454',?,NULL,0,?{message})",
        (number, channel, b"M%d" % number, 1_700_000_000_000 + number, body + b" %d" % number),
    )
    settled_ms = 1_700_000_100_000 if state.finished else None
    connection.execute(
        f"INSERT INTO delivery VALUES(?,?,1,2,1,0,?,200,'AA','why',x'61636b',?{delivery})",
        (number, state, settled_ms, channel),
    )


def on_disk(path: Path) -> dict[int, State]:
    """What the file says, by a stranger's eyes."""
    reader = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        found = reader.execute("SELECT d.id, d.state FROM delivery d JOIN message m ON m.id = d.id ORDER BY 1")
        return {row_id: State(state) for row_id, state in found}
    finally:
        reader.close()
