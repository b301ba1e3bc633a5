"""Group commit: how many messages share one fsync.

Secret: while one COMMIT is on its way to the platter, in a thread that does nothing else, everything that arrives joins
the next one: a batch is one message at one message a second, hundreds under load, and nobody waits for a timer. INSERTs
run on the loop, because in a second thread each would fight for the interpreter lock.
Promise: `on_durable` and `on_claimed` are called only when the COMMIT has returned. What it did not take is given back
once, in order; what was settled stays for the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import apsw

from agent.store.batch import SEQUENCE, Batch, commit, put_meta
from agent.store.diskthread import DiskThread
from agent.store.known import Known
from agent.store.row import Direction, Row, State
from agent.store.spoolfile import SpoolFile
from agent.store.sqlite import SpoolTrouble, trouble_of
from agent.store.tally import Tally
from agent.store.terms import SpoolEvents, Timing

_OUT: Final = Direction.OUT


class GroupCommit(ABC):
    """`trouble` is kept by who owns the disk's health; while it is `stuck`, nothing is written, all is given back."""

    def __init__(self, file: SpoolFile, tally: Tally, events: SpoolEvents, timing: Timing) -> None:
        self.path: Path = file.path
        self.tally = tally
        self.trouble: SpoolTrouble | None = None
        self.stuck = False
        self.commits = 0
        self.uncommitted_bytes = 0
        self._unweighed_bytes = 0  # stored since free space was looked at
        self._file = file
        self._events = events
        self._timing = timing
        self._loop = asyncio.get_running_loop()
        self._known = Known()
        self._hot = self._known.hot
        self._outbound = self._known.outbound
        self._sequences = file.sequences
        self._dirty_sequences: set[str] = set()
        self._next = Batch()
        self._current = Batch()
        self._doubtful: list[int] = []
        self._patchy = False
        self._committing = False
        self._began = 0.0
        self._idle = asyncio.Event()
        self._idle.set()
        self._kick_due = False
        self._lag: asyncio.TimerHandle | None = None
        self._writing = DiskThread("spool-commit", urgent=True)

    @abstractmethod
    def _troubled(self, trouble: SpoolTrouble | None) -> None:
        """Take note of what the disk did."""

    @abstractmethod
    def _answered(self) -> None:
        """A commit has succeeded."""

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
        if row.direction is _OUT:
            self._outbound[row.id] = row
        elif row.control_id:
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
        """Record what became of `row` (all its outcome fields). Joins the next commit, or one within the lag."""
        self._next.settles.append(row)
        if not self._committing and not self._kick_due and self._lag is None:
            self._lag = self._loop.call_later(self._timing.settle_lag_s, self._lagged)

    async def perform(self, work: Callable[[apsw.Connection], None]) -> None:
        """Run `work` inside the next commit, in its thread, and return when that is durable (retention uses it).

        Senders wait as long as `work` takes. Raises SpoolTrouble when the disk does not take it.
        """
        if self.trouble is not None and self.stuck:
            raise self.trouble
        done: asyncio.Future[None] = self._loop.create_future()
        self._next.jobs.append((work, done))
        if not self._kick_due:
            self._kick_due = True
            self._loop.call_soon(self._kick)
        await done

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
        self._next = Batch()
        self._current = batch
        writer = self._file.writer
        try:
            writer.execute("BEGIN IMMEDIATE")
            batch.write(writer, patchy=self._patchy)
            if self._dirty_sequences:
                put_meta(writer, [(SEQUENCE + channel, self._sequences[channel]) for channel in self._dirty_sequences])
                self._dirty_sequences.clear()
        except apsw.Error as error:
            self._failed(error)
            return
        self._committing = True
        self._began = self._loop.time()
        self._idle.clear()
        self._writing.submit(partial(commit, writer, batch.jobs), self._returned)

    def _returned(self, _: None, failure: BaseException | None) -> None:
        self._committing = False
        self._idle.set()
        if isinstance(failure, apsw.Error):
            self._doubtful += [row.id for row in self._current.puts]
            self._failed(failure)
            return
        if failure is not None:
            raise failure
        self.commits += 1
        batch, self._current = self._current, Batch()
        self._account(batch)
        self._answered()
        if not self._kick_due:  # the next commit is on its way before this one's rows are looked at
            self._kick()
        if batch.puts:
            self._events.on_durable(batch.puts)
        if batch.claims:
            self._events.on_claimed(batch.claims)

    def _account(self, batch: Batch) -> None:
        for _, done in batch.jobs:
            if not done.done():
                done.set_result(None)
        if batch.puts:
            size_bytes = 0
            for row in batch.puts:
                row.durable = True
                size_bytes += row.size
            self.uncommitted_bytes -= size_bytes
            self._unweighed_bytes += size_bytes
            self._known.stored(batch.puts)
            self.tally.stored(batch.puts, batch.put_states)
        if batch.restored:
            self.tally.stored(batch.restored, [State.QUEUED] * len(batch.restored))
        if batch.claims:
            self.tally.moved(batch.claims, [State.INFLIGHT] * len(batch.claims))
        if batch.settles:
            for row, state in zip(batch.settles, batch.settle_states, strict=True):
                if state >= 10:
                    self._known.forget(row)
            self.tally.moved(batch.settles, batch.settle_states)

    def _failed(self, error: apsw.Error) -> None:
        writer = self._file.writer
        with contextlib.suppress(apsw.Error):
            if writer.in_transaction:
                writer.execute("ROLLBACK")
        batch, self._current = self._current, Batch()
        self._next.merge(batch)
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
            self._known.forget(row)
            if row.seq is not None:
                self._sequences[row.channel] = min(self._sequences[row.channel], row.seq)
        if puts and waiting.settles:
            refused = {row.id for row in puts}
            waiting.settles = [row for row in waiting.settles if row.id not in refused]
        for _, done in jobs:
            if not done.done():
                done.set_exception(trouble)
        if puts:
            self._events.on_refused(puts, trouble)
        if claims:
            self._events.on_unclaimed(claims)
