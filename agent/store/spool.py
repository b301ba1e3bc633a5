"""Keep every accepted message until the server, or the remote that it goes to, has answered for it.

Secret: who owns the disk's health, and how a spool goes on after each kind of failure.
Promise: once `on_durable` was called, pulling the plug loses nothing. What could not be stored is given back through
`on_refused`; what was settled is not forgotten while the process lives, whatever the disk does.

Life of a row: put (joins the next commit, as QUEUED, or as INFLIGHT when the dispatcher will hand it over at once) →
durable → claim (INFLIGHT is on disk before the first byte is on the socket) → settle. Power loss leaves QUEUED rows
certainly unsent and INFLIGHT rows ambiguous; nothing else.

Health has one owner, `run`: healthy ⇄ low (nothing new is accepted, the rest goes on) ⇄ troubled (full, read-only,
unavailable: it probes until the disk takes a commit again) and damaged (the file is set aside, a new one continues with
what could be read of it). Settled rows that wait for a sick disk are no more than were claimed when it fell ill, for
nothing is claimed meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import apsw

from agent.errors import StoreError
from agent.store.commits import GroupCommit
from agent.store.diskthread import DiskThread
from agent.store.row import Direction, Row, Trouble
from agent.store.shelf import Shelf, survey
from agent.store.spoolfile import Memory, SpoolFile, gone
from agent.store.sqlite import DiskUsage, SpoolTrouble, low_on_space, remedy, size_bytes, trouble_of
from agent.store.terms import SpoolEvents, Timing

__all__ = ["Spool", "SpoolEvents", "Timing"]

_WEIGH_BYTES: Final = 1 << 20  # free space is looked at after so many bytes, for a second is long for a small disk
_RELAPSE_S: Final = 10.0  # trouble this soon after a recovery is the same trouble
_MAX_PATIENCE: Final = 10  # at most so many probe intervals between two recoveries of a disk that relapses
_STUBBORN: Final = 3  # relapses of a readable disk after which the file itself is suspect

_T = TypeVar("_T")


class Spool(GroupCommit):
    """The durable queue. Everything here is called on one event loop; see the module for the promises."""

    def __init__(
        self,
        path: Path,
        events: SpoolEvents,
        *,
        min_free_bytes: int,
        vfs: str | None,
        timing: Timing,
        usage: Callable[[Path], DiskUsage],
    ) -> None:
        file, tally = SpoolFile.open(path, vfs=vfs)
        super().__init__(file, tally, events, timing)
        self.min_free_bytes = min_free_bytes
        self.instance = file.instance
        self.set_aside = file.set_aside
        self._vfs = vfs
        self._usage = usage
        self._last_id = file.last_id
        self._reading = DiskThread("spool-read")
        self._fault = asyncio.Event()
        self._uncounted = asyncio.Event()
        self._uncounted.set()
        self._recount = False
        self._suspect = False
        self._hung: SpoolTrouble | None = None
        self._relapses = 0
        self._mended_at = -_RELAPSE_S

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls,
        path: Path,
        events: SpoolEvents,
        *,
        min_free_bytes: int = 64 << 20,
        vfs: str | None = None,
        timing: Timing = Timing(),  # noqa: B008 - frozen
        usage: Callable[[Path], DiskUsage] = shutil.disk_usage,
    ) -> AsyncIterator[Spool]:
        """Open the file (created, migrated, or set aside if damaged); at the end everything settled is on disk.

        Raises SpoolTrouble when the disk does not let us, SpoolTooNew when a newer version wrote the file, NotASpool
        when another program did.
        """
        spool = cls(path, events, min_free_bytes=min_free_bytes, vfs=vfs, timing=timing, usage=usage)
        try:
            yield spool
        finally:
            await spool._close()

    def next_id(self) -> int:
        """An id for a row that is about to be put; never given twice, also not after a refusal."""
        self._last_id += 1
        return self._last_id

    @property
    def last_id(self) -> int:
        """The newest id that was given; 0 before the first."""
        return self._last_id

    def forget(self, row: Row) -> None:
        """Drop what memory holds of a durable row that waits in the file alone."""
        self._known.forget(row)

    # ---- what is known

    @property
    def shelf(self) -> Shelf:
        """Queries of the open file. They raise SpoolTrouble, and do so while the file is being mended."""
        return self._file.shelf

    def known(self, channel: str, control_id: bytes) -> Row | None:
        """The newest message that came by this channel with this MSH-10, in memory or on disk; in memory alone while
        `stuck`."""
        row = self._hot.get((channel, control_id))
        if row is not None:
            return row
        held = self._known.reread.get((channel, control_id))
        if self.stuck or not self._known.seen.maybe(channel, control_id):
            return held
        try:
            stored = self._file.shelf.newest(channel, control_id)
        except SpoolTrouble as trouble:
            self._troubled(trouble)
            return held
        return held if stored is None or (held is not None and held.id >= stored.id) else stored

    def queued(
        self, channel: str, after_id: int, *, limit: int, limit_bytes: int, direction: Direction = Direction.IN
    ) -> list[Row]:
        """As `Shelf.queued`; the rows are in memory's hands from here on. Nothing while the spool is `stuck`."""
        if self.stuck:
            return []
        try:
            rows = self._file.shelf.queued(channel, after_id, limit=limit, limit_bytes=limit_bytes, direction=direction)
        except SpoolTrouble as trouble:
            self._troubled(trouble)
            return []
        self._known.read(rows)
        return rows

    async def survey(self, read: Callable[[apsw.Connection], _T]) -> _T:
        """A long look at what is committed, in a thread and by a connection of its own. Raises SpoolTrouble."""
        try:
            return await self._reading.run(partial(survey, self.path, self._vfs, read))
        except apsw.Error as error:
            raise trouble_of(error, self.path, doing="read") from error

    @property
    def size_bytes(self) -> int:
        return size_bytes(self.path)

    # ---- health

    def _troubled(self, trouble: SpoolTrouble | None) -> None:
        stuck = trouble is not None and trouble.trouble is not Trouble.LOW
        if stuck and not self.stuck:
            soon = self._loop.time() - self._mended_at < _RELAPSE_S
            self._relapses = self._relapses + 1 if soon else 0
        changed = (trouble and trouble.trouble) != (self.trouble and self.trouble.trouble)
        self.trouble, self.stuck = trouble, stuck
        if trouble is not None:
            self._suspect = self._suspect or trouble.trouble is Trouble.DAMAGED
            self._fault.set()
        if changed:
            self._events.on_health(trouble)

    def _answered(self) -> None:
        recovered = self._hung is not None and self.trouble is self._hung
        self._hung = None
        if recovered or (self._unweighed_bytes > _WEIGH_BYTES and not self.stuck):
            self._troubled(self._low())

    def _low(self) -> SpoolTrouble | None:
        self._unweighed_bytes = 0
        return low_on_space(self.path, self.min_free_bytes, already=self.trouble is not None, usage=self._usage)

    async def run(self) -> None:
        """Own the disk's health, and learn in the background what the file holds."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._count(), name="spool:count")
            learning = self._known.learn(lambda: self.shelf, self._troubled, self._timing.probe_every_s)
            tasks.create_task(learning, name="spool:learn")
            tasks.create_task(self._watch(), name="spool:watch")

    async def _count(self) -> None:
        while True:
            await self._uncounted.wait()
            self._uncounted.clear()
            tally = self.tally
            try:
                tally.include(await self._reading.run(tally.count_finished))
            except (apsw.Error, ValueError) as error:
                self._recount = True
                self._troubled(trouble_of(error, self.path, doing="read"))

    async def _watch(self) -> None:
        timing = self._timing
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timing.probe_every_s):
                    await self._fault.wait()
            self._fault.clear()
            if not self.stuck:
                self._look()
                self._fault.clear()
                continue
            await asyncio.sleep(timing.probe_every_s * min(1 << self._relapses, _MAX_PATIENCE))
            await self._idle.wait()
            if self.stuck:
                await self._mend()

    def _look(self) -> None:
        """What no commit would tell: a disk that is nearly full, one that does not answer, a file that was moved."""
        waited_s = self._loop.time() - self._began
        if self._committing and waited_s > self._timing.hung_after_s:
            text = f"the disk has not answered a commit for {waited_s:.0f} s"
            self._hung = SpoolTrouble(Trouble.UNAVAILABLE, text, hint=remedy(Trouble.UNAVAILABLE, self.path))
            self._troubled(self._hung)
            self._give_back()
        elif not self._file.in_place():
            self._troubled(gone(self.path))
            self._kick()
        else:
            self._troubled(self._low())
            self._kick()

    async def _mend(self) -> None:
        """One attempt to get a usable file: the open one if it takes a commit again, else the file opened anew."""
        doubtful = len(self._doubtful)
        memory = Memory(
            instance=self.instance,
            last_id=self._last_id,
            sequences=dict(self._sequences),
            doubtful=self._doubtful[:],
            rows=self._known.undelivered(),
        )
        suspect = self._suspect or self._relapses >= _STUBBORN
        try:
            file, tally = await self._writing.run(partial(self._file.mended, memory, suspect, self._recount))
        except SpoolTrouble as trouble:
            self._troubled(trouble)
            return
        except StoreError as error:  # somebody put another file there
            self._troubled(SpoolTrouble(Trouble.UNAVAILABLE, str(error), hint=error.hint))
            return
        del self._doubtful[:doubtful]
        self._file = file
        self._suspect = False
        if tally is not None:
            self.tally.close()
            self.tally = tally
            self._recount = False
            self._uncounted.set()
        if file.set_aside is not None:
            self.set_aside = file.set_aside
            self._patchy = True
        self._mended_at = self._loop.time()
        self._troubled(self._low())
        self._kick()

    # ---- the end

    async def _close(self) -> None:
        try:
            async with asyncio.timeout(self._timing.close_within_s):
                while self._committing or (self._next and not self.stuck):
                    self._kick()
                    await self._idle.wait()
                    await asyncio.sleep(0)
                self.tally.close()
                await self._writing.run(self._file.close)
        except TimeoutError:
            self._file.shelf.close()  # the disk hangs: the next start finds these rows as interrupted
        finally:
            if self._lag is not None:
                self._lag.cancel()
            self._writing.end()
            self._reading.end()
