"""Keep every accepted message until the server has answered for it.

Secret: how many messages share one fsync. While one COMMIT is on its way to the platter (in a thread that does nothing
else), everything that arrives joins the next one: a batch is one message at one message a second, hundreds under load,
and nobody waits for a timer. INSERTs run on the loop, because in a second thread each would fight for the interpreter
lock.
Promise: `on_durable` is called only when the COMMIT has returned; pulling the plug after that loses nothing. What could
not be stored is given back through `on_refused`; what was settled is not forgotten while the process lives, whatever the
disk does.

Life of a row: put (joins the next commit, as QUEUED, or as INFLIGHT when the dispatcher will hand it over at once) →
durable → claim (INFLIGHT is on disk before the first byte is on the socket) → settle. Power loss leaves QUEUED rows
certainly unsent and INFLIGHT rows ambiguous; nothing else.

Health has one owner, `run`: healthy ⇄ troubled (full, low, read-only, unavailable: it probes until the disk takes a
commit again) and damaged (the file is set aside, a new one continues with what could be read of it).
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import apsw

from agent.store.row import Row, State, Trouble
from agent.store.seen import Seen
from agent.store.shelf import Shelf
from agent.store.sqlite import SetAside, SpoolTrouble, low_on_space, open_spool, probe, spoil, trouble_of
from agent.store.tally import Tally

SETTLE_LAG_S: Final = 0.05  # how long a finished message may wait for company before its outcome is committed
PROBE_EVERY_S: Final = 1.0  # how often a troubled disk is asked again, and free space is looked at

_INSERT_MESSAGE: Final = "INSERT INTO message VALUES(?,?,?,?,?,?,?,?,?,?)"
_INSERT_DELIVERY: Final = "INSERT INTO delivery VALUES(?,?,0,?,0,0,NULL,NULL,'','',NULL)"
_CLAIM: Final = "UPDATE delivery SET state=1, attempts=?, ambiguous=? WHERE id=?"
_SETTLE: Final = (
    "UPDATE delivery SET state=?, ack=?, attempts=?, ambiguous=?, due_ms=?, settled_ms=?, status=?, ack_code=?,"
    " reason=?, answer=? WHERE id=?"
)
_SEQUENCE: Final = "sequence:"


@dataclass(slots=True)
class SpoolEvents:
    """Who is told. Every call happens on the loop, with rows in the order in which they were put."""

    on_durable: Callable[[list[Row]], None]
    on_claimed: Callable[[list[Row]], None]
    on_refused: Callable[[list[Row], SpoolTrouble], None]
    on_unclaimed: Callable[[list[Row]], None]
    on_health: Callable[[SpoolTrouble | None], None]


_Job = tuple[Callable[[apsw.Connection], None], asyncio.Future[None]]


@dataclass(slots=True)
class _Batch:
    """What one commit carries, and the states it will leave on disk."""

    puts: list[Row] = field(default_factory=list)
    claims: list[Row] = field(default_factory=list)
    settles: list[Row] = field(default_factory=list)
    jobs: list[_Job] = field(default_factory=list)
    put_states: list[State] = field(default_factory=list)
    settle_states: list[State] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.puts or self.claims or self.settles or self.jobs)


class Spool:
    """The durable queue. Everything here is called on one event loop; see the module for the promises."""

    def __init__(self, path: Path, events: SpoolEvents, *, min_free_bytes: int, vfs: str | None) -> None:
        self.path = path
        self.min_free_bytes = min_free_bytes
        self.trouble: SpoolTrouble | None = None
        self.commits = 0
        self.uncommitted_bytes = 0
        self._events = events
        self._vfs = vfs
        self._loop = asyncio.get_running_loop()
        self._next = _Batch()
        self._current = _Batch()
        self._hot: dict[tuple[str, bytes], Row] = {}
        self._seen = Seen()
        self._sequences: dict[str, int] = {}
        self._dirty_sequences: set[str] = set()
        self._last_id = 0
        self._committing = False
        self._kick_due = False
        self._lag: asyncio.TimerHandle | None = None
        self._fault = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        connection, self.set_aside = open_spool(path, vfs=vfs)
        self._adopt(connection)
        self._first_new_id = self._last_id
        self.tally = Tally(path, vfs)
        self._orders: queue.SimpleQueue[apsw.Connection | None] = queue.SimpleQueue()
        self._committed = threading.Event()
        self._thread = threading.Thread(target=self._commit_forever, name="spool-commit", daemon=True)
        self._thread.start()

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls, path: Path, events: SpoolEvents, *, min_free_bytes: int = 64 << 20, vfs: str | None = None
    ) -> AsyncIterator[Spool]:
        """Open the file (created, migrated, or set aside if damaged); at the end everything settled is on disk.

        Raises SpoolTrouble when the disk does not let us, SpoolTooNew when a newer version wrote the file.
        """
        spool = cls(path, events, min_free_bytes=min_free_bytes, vfs=vfs)
        try:
            yield spool
        finally:
            await spool._close()

    # ---- what a message goes through

    def next_id(self) -> int:
        self._last_id += 1
        return self._last_id

    def next_sequence(self, channel: str) -> int:
        """The next MSH-13 of a channel, from 0; it is on disk with the message that carries it."""
        number = self._sequences.get(channel, 0)
        self._sequences[channel] = number + 1
        self._dirty_sequences.add(channel)
        return number

    def put(self, row: Row) -> None:
        """Let `row` join the next commit; its state says how: QUEUED, or INFLIGHT if it is handed over at once."""
        self._next.puts.append(row)
        self.uncommitted_bytes += row.size
        if row.control_id:
            self._hot[row.channel, row.control_id] = row
        if not self._kick_due:
            self._kick_due = True
            self._loop.call_soon(self._kick)

    def claim(self, row: Row) -> None:
        """Have INFLIGHT on disk before `row` is written to a socket; `on_claimed` says when."""
        self._next.claims.append(row)
        if not self._kick_due:
            self._kick_due = True
            self._loop.call_soon(self._kick)

    def settle(self, row: Row) -> None:
        """Record what became of `row` (all its outcome fields). Joins the next commit, or one within SETTLE_LAG_S."""
        self._next.settles.append(row)
        if not self._committing and not self._kick_due and self._lag is None:
            self._lag = self._loop.call_later(SETTLE_LAG_S, self._lagged)

    async def perform(self, work: Callable[[apsw.Connection], None]) -> None:
        """Run `work` inside the next commit and return when that is durable (retention uses it; keep it short)."""
        if self.trouble is not None and self.stuck:
            raise self.trouble
        done: asyncio.Future[None] = self._loop.create_future()
        self._next.jobs.append((work, done))
        if not self._kick_due:
            self._kick_due = True
            self._loop.call_soon(self._kick)
        await done

    def forget(self, row: Row) -> None:
        """Drop what memory holds of a durable row that waits in the file alone."""
        key = (row.channel, row.control_id)
        if self._hot.get(key) is row:
            del self._hot[key]

    # ---- what is known

    def known(self, channel: str, control_id: bytes) -> Row | None:
        """The newest message of this channel with this MSH-10, in memory or on disk."""
        row = self._hot.get((channel, control_id))
        if row is not None or not self._seen.maybe(channel, control_id):
            return row
        try:
            return self.shelf.newest(channel, control_id)
        except SpoolTrouble as trouble:
            self._troubled(trouble)
            return None

    def queued(self, channel: str, after_id: int, *, limit: int, limit_bytes: int) -> list[Row]:
        """As `Shelf.queued`; the rows are in memory's hands from here on. Nothing while the disk does not answer."""
        try:
            rows = self.shelf.queued(channel, after_id, limit=limit, limit_bytes=limit_bytes)
        except SpoolTrouble as trouble:
            self._troubled(trouble)
            return []
        for row in rows:
            if row.control_id:
                self._hot.setdefault((channel, row.control_id), row)
        return rows

    @property
    def stuck(self) -> bool:
        """Whether nothing can be recorded at the moment, so nothing may be sent either."""
        return self.trouble is not None and self.trouble.trouble is not Trouble.LOW

    @property
    def size_bytes(self) -> int:
        total = 0
        for suffix in ("", "-wal"):
            with contextlib.suppress(OSError):
                total += self.path.with_name(self.path.name + suffix).stat().st_size
        return total

    # ---- group commit

    def _lagged(self) -> None:
        self._lag = None
        if not self._kick_due:
            self._kick()

    def _kick(self) -> None:
        self._kick_due = False
        if self._committing:
            return
        if self.stuck:
            self._give_back()
            return
        batch = self._next
        if not batch:
            return
        if self._lag is not None:
            self._lag.cancel()
            self._lag = None
        self._next = _Batch()
        self._current = batch
        try:
            self._write(self._connection, batch)
        except apsw.Error as error:
            self._failed(error)
            return
        self._committing = True
        self._idle.clear()
        self._committed.clear()
        self._orders.put(self._connection)
        self._loop.call_later(0.002, self._yield_to_commit)

    def _write(self, connection: apsw.Connection, batch: _Batch) -> None:
        connection.execute("BEGIN IMMEDIATE")
        if puts := batch.puts:
            connection.executemany(
                _INSERT_MESSAGE,
                [
                    (r.id, r.channel, r.remote, r.order_key, r.control_id, r.message_type, r.received_ms, r.seq, r.repeat, r.body)
                    for r in puts
                ],
            )  # fmt: skip
            batch.put_states = [r.state for r in puts]
            connection.executemany(_INSERT_DELIVERY, [(r.id, r.state, r.attempts) for r in puts])
        if claims := batch.claims:
            connection.executemany(_CLAIM, [(r.attempts, r.ambiguous, r.id) for r in claims])
        if settles := batch.settles:
            now_ms = time.time_ns() // 1_000_000
            batch.settle_states = [r.state for r in settles]
            connection.executemany(
                _SETTLE,
                [
                    (r.state, r.ack, r.attempts, r.ambiguous, r.due_ms, now_ms if r.state >= 10 else None, r.status,
                     r.ack_code, r.reason, r.answer, r.id)
                    for r in settles
                ],
            )  # fmt: skip
        if self._dirty_sequences:
            numbers = [(_SEQUENCE + channel, self._sequences[channel]) for channel in self._dirty_sequences]
            connection.executemany("INSERT OR REPLACE INTO meta VALUES(?,?)", numbers)
            self._dirty_sequences.clear()
        for work, _ in batch.jobs:
            work(connection)

    def _yield_to_commit(self) -> None:
        """Give the commit thread a chance at the interpreter lock, which a busy loop can keep from it for a second."""
        if self._committing and not self._committed.wait(0.0005):
            self._loop.call_later(0.002, self._yield_to_commit)

    def _commit_forever(self) -> None:
        call = self._loop.call_soon_threadsafe
        while (connection := self._orders.get()) is not None:
            failure: apsw.Error | None = None
            try:
                connection.execute("COMMIT")
            except apsw.Error as error:
                failure = error
            self._committed.set()
            with contextlib.suppress(RuntimeError):  # the loop has gone: nobody waits for this commit any more
                call(self._returned, failure)

    def _returned(self, failure: apsw.Error | None) -> None:
        self._committing = False
        self._idle.set()
        if failure is not None:
            self._failed(failure)
            return
        self.commits += 1
        batch, self._current = self._current, _Batch()
        self._account(batch)
        if not self._kick_due:  # the next commit is on its way before this one's rows are looked at
            self._kick()
        if batch.puts:
            self._events.on_durable(batch.puts)
        if batch.claims:
            self._events.on_claimed(batch.claims)

    def _account(self, batch: _Batch) -> None:
        for _, done in batch.jobs:
            if not done.done():
                done.set_result(None)
        if batch.puts:
            add = self._seen.add
            for row in batch.puts:
                row.durable = True
                self.uncommitted_bytes -= row.size
                if row.control_id:
                    add(row.channel, row.control_id)
            self.tally.stored(batch.puts, batch.put_states)
        if batch.claims:
            self.tally.moved(batch.claims, [State.INFLIGHT] * len(batch.claims))
        if batch.settles:
            for row, state in zip(batch.settles, batch.settle_states, strict=True):
                if state >= 10:
                    self.forget(row)
            self.tally.moved(batch.settles, batch.settle_states)

    # ---- when the disk fails

    def _failed(self, error: apsw.Error) -> None:
        with contextlib.suppress(apsw.Error):
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        batch, self._current = self._current, _Batch()
        upcoming = self._next
        upcoming.puts[:0] = batch.puts
        upcoming.claims[:0] = batch.claims
        upcoming.settles[:0] = batch.settles
        upcoming.jobs[:0] = batch.jobs
        self._troubled(trouble_of(error, self.path))
        self._give_back()

    def _give_back(self) -> None:
        """What waits for a commit that will not come goes back to who gave it; outcomes stay until the disk is well."""
        trouble = self.trouble
        assert trouble is not None
        waiting = self._next
        puts, claims, jobs = waiting.puts, waiting.claims, waiting.jobs
        waiting.puts, waiting.claims, waiting.jobs = [], [], []
        for row in puts:
            self.uncommitted_bytes -= row.size
            self.forget(row)
            if row.seq is not None:
                self._sequences[row.channel] = min(self._sequences[row.channel], row.seq)
        for _, done in jobs:
            if not done.done():
                done.set_exception(trouble)
        if puts:
            self._events.on_refused(puts, trouble)
        if claims:
            self._events.on_unclaimed(claims)

    def _troubled(self, trouble: SpoolTrouble | None) -> None:
        changed = (trouble and trouble.trouble) != (self.trouble and self.trouble.trouble)
        self.trouble = trouble
        if trouble is not None:
            self._fault.set()
        if changed:
            self._events.on_health(trouble)

    async def run(self) -> None:
        """Own the disk's health, and learn in the background what the file holds."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._remember(), name="spool:remember")
            tasks.create_task(self._watch(), name="spool:watch")

    async def _remember(self) -> None:
        self.tally.by_state += await asyncio.to_thread(self.tally.count_finished)
        after_id = 0
        while True:
            try:
                found = self.shelf.control_ids(after_id, self._first_new_id, 500)
            except SpoolTrouble as trouble:
                self._troubled(trouble)
                await asyncio.sleep(PROBE_EVERY_S)
                continue
            if not found:
                self._seen.ready = True
                return
            for after_id, channel, control_id in found:  # noqa: B007 - the next page begins after the last one
                self._seen.add(channel, control_id)
            await asyncio.sleep(0.002)

    async def _watch(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PROBE_EVERY_S):
                    await self._fault.wait()
            self._fault.clear()
            if not self.stuck:
                self._troubled(low_on_space(self.path, self.min_free_bytes, already=self.trouble is not None))
                self._kick()
                self._fault.clear()
                continue
            await asyncio.sleep(PROBE_EVERY_S)
            await self._idle.wait()
            await self._mend()

    async def _mend(self) -> None:
        """One attempt to get a usable file. In a thread, since a sick disk may hang."""
        assert self.trouble is not None
        damaged = self.trouble.trouble is Trouble.DAMAGED
        self._close_file()
        try:
            if damaged:
                await asyncio.to_thread(spoil, self.path)
            connection, aside = await asyncio.to_thread(open_spool, self.path, vfs=self._vfs)
            try:
                await asyncio.to_thread(probe, connection, self.path)
                self._adopt(connection)
            except SpoolTrouble:
                connection.close()
                raise
        except SpoolTrouble as trouble:
            self._troubled(trouble)
            return
        self.set_aside = aside or self.set_aside
        self._troubled(None)
        self._kick()

    # ---- the file

    def _adopt(self, connection: apsw.Connection) -> None:
        self.shelf = Shelf(self.path, self._vfs)
        meta = self.shelf.meta()
        self._connection = connection
        self.instance: str = meta["instance"]
        self._last_id = max(self.shelf.last_id(), int(meta.get("last_id", 0)), self._last_id)
        for name, value in meta.items():
            if name.startswith(_SEQUENCE):
                channel = name.removeprefix(_SEQUENCE)
                self._sequences[channel] = max(self._sequences.get(channel, 0), int(value))

    def _close_file(self) -> None:
        self.shelf.close()
        with contextlib.suppress(apsw.Error):
            self._connection.close()

    async def _close(self) -> None:
        try:
            async with asyncio.timeout(10):
                while self._committing or (self._next and not self.stuck):
                    self._kick()
                    await self._idle.wait()
                    await asyncio.sleep(0)
        except TimeoutError:
            return  # the disk hangs: the next start finds these rows as interrupted
        finally:
            if self._lag is not None:
                self._lag.cancel()
            self._orders.put(None)
        self._thread.join()
        self.tally.close()
        self._close_file()
