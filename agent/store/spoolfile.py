"""The open file: writer, reader, and what it knows of itself.

Secret: how a file is told to be ours (its `instance`, and the place on the disk it was opened at), and what memory
writes into a file that is opened again after a failure.
Promise: what `open` returns can be read and written; ids, MSH-13 numbers and the instance go on where memory has them.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import apsw

from agent.store.batch import SEQUENCE, put_meta, restore
from agent.store.row import Row, Trouble
from agent.store.salvage import SetAside, keep_replaced, open_spool, part, write_back
from agent.store.shelf import Shelf
from agent.store.sqlite import SpoolTrouble, trouble_of
from agent.store.tally import Tally


@dataclass(frozen=True, slots=True)
class Memory:
    """What a process knows better than a file that failed it.

    `doubtful`: ids whose COMMIT failed. They were refused, but their pages may have reached the log, and would come to
    life when it is read again. `rows`: undelivered rows in memory, for a file that may have lost them.
    """

    instance: str
    last_id: int
    sequences: dict[str, int]
    doubtful: Sequence[int]
    rows: Sequence[Row]


class SpoolFile:
    """Made by `open`; every method but `close` is for a thread that may hang."""

    def __init__(self, path: Path, writer: apsw.Connection, set_aside: SetAside | None, vfs: str | None) -> None:
        self.path = path
        self.writer = writer
        self.set_aside = set_aside
        self._vfs = vfs
        self.shelf = Shelf(path, vfs)
        try:
            meta = self.shelf.meta()
            self.instance = str(meta["instance"])
            self.last_id = max(self.shelf.last_id(), _number(meta.get("last_id")))
            self.sequences = {
                name.removeprefix(SEQUENCE): _number(value) for name, value in meta.items() if name.startswith(SEQUENCE)
            }
            self._place = _place(path)
            self._log_place = _place(part(path, "-wal"))
        except KeyError as error:
            self.shelf.close()
            raise trouble_of(ValueError(), path, doing="read") from error
        except BaseException:
            self.shelf.close()
            raise

    @classmethod
    def open(
        cls, path: Path, *, vfs: str | None, memory: Memory | None = None, suspect: bool = False
    ) -> tuple[SpoolFile, Tally]:
        """The file, created only for a process that has no `memory` of it; a damaged one is set aside.

        Raises SpoolTrouble, SpoolTooNew, NotASpool.
        """
        try:
            return cls._open(path, vfs, memory, suspect=suspect)
        except SpoolTrouble as trouble:
            if suspect or trouble.trouble is not Trouble.DAMAGED:
                raise
            return cls._open(path, vfs, memory, suspect=True)

    @classmethod
    def _open(cls, path: Path, vfs: str | None, memory: Memory | None, *, suspect: bool) -> tuple[SpoolFile, Tally]:
        writer, set_aside = open_spool(path, vfs=vfs, create=memory is None, suspect=suspect)
        file: SpoolFile | None = None
        try:
            if memory is not None and set_aside is not None:
                put_meta(writer, [("instance", memory.instance)])
            file = cls(path, writer, set_aside, vfs)
            if memory is not None:
                restored = file.recall(memory, memory.rows if set_aside is not None else ())
                if set_aside is not None:
                    file.set_aside = replace(set_aside, rescued=set_aside.rescued + restored)
            return file, Tally(path, vfs)
        except (apsw.Error, ValueError) as error:
            (file or writer).close()
            raise trouble_of(error, path) from error
        except BaseException:
            (file or writer).close()
            raise

    def recall(self, memory: Memory, rows: Sequence[Row] = ()) -> int:
        """One small commit that shows whether the disk takes it, with what only memory knew; how many of `rows` the
        file lacked. Raises SpoolTrouble."""
        if self.instance != memory.instance:
            raise gone(self.path)
        try:
            with self.writer as connection:
                for row_id in memory.doubtful:
                    connection.execute("DELETE FROM message WHERE id=?", (row_id,))
                    connection.execute("DELETE FROM delivery WHERE id=?", (row_id,))
                restored = restore(connection, rows)
                put_meta(
                    connection,
                    [
                        ("probed", time.time_ns() // 1_000_000),
                        ("last_id", max(memory.last_id, self.last_id)),
                        *((SEQUENCE + channel, number) for channel, number in memory.sequences.items()),
                    ],
                )
        except apsw.Error as error:
            with contextlib.suppress(apsw.Error):
                if self.writer.in_transaction:
                    self.writer.execute("ROLLBACK")
            raise trouble_of(error, self.path) from error
        return restored

    def mended(self, memory: Memory, suspect: bool, recount: bool) -> tuple[SpoolFile, Tally | None]:
        """One attempt to get a file that takes a commit: this one, or the same opened anew.

        `suspect`: something in it could not be read. With it comes a new count, where the old one is void (`recount`).
        Raises SpoolTrouble, SpoolTooNew, NotASpool; this file may be closed then.
        """
        if not self.in_place():
            self._put_back()
        elif not suspect and not recount:
            try:
                self.recall(memory)
            except SpoolTrouble as trouble:
                if trouble.trouble is Trouble.FULL:
                    raise  # opening it anew needs more room, not less
            else:
                return self, None
        self.close()
        opened, tally = SpoolFile.open(self.path, vfs=self._vfs, memory=memory, suspect=suspect)
        if recount or opened.set_aside is not None:
            return opened, tally
        tally.close()
        return opened, None

    def in_place(self) -> bool:
        """Whether the path still leads to the file that is open."""
        return _place(self.path) == self._place

    def _put_back(self) -> None:
        """If the file was deleted on this disk, its content goes back to its place. An unmounted disk must come back,
        and a file that was replaced be put back: meanwhile this one stays open, for nothing else may lead to it.

        Raises SpoolTrouble while neither is so. To be followed by `close` and `open`.
        """
        try:
            if self.path.exists():
                raise gone(self.path)
            folder = self.path.parent
            while not folder.exists():
                folder = folder.parent
            if self._place is None or folder.stat().st_dev != self._place[0]:
                raise gone(self.path)
            write_back(self.writer, self.path, self._vfs)
        except apsw.ConnectionClosedError as error:
            raise gone(self.path) from error
        except (apsw.Error, OSError) as error:
            raise trouble_of(error, self.path) from error

    def close(self) -> None:
        """Both connections; the last one to close moves the log into the file, which a sick disk may refuse."""
        self.shelf.close()
        log = part(self.path, "-wal")
        left_behind = False
        if self.path.exists() and not self.in_place():
            with contextlib.suppress(apsw.Error, OSError):
                keep_replaced(self.writer, self.path, self._vfs)
                left_behind = _place(log) == self._log_place
        with contextlib.suppress(apsw.Error):
            self.writer.close()
        if left_behind:  # SQLite would take it for the log of the file that stands there now
            for mine in (log, part(self.path, "-shm")):
                mine.unlink(missing_ok=True)


def gone(path: Path) -> SpoolTrouble:
    """The trouble of a spool whose path leads elsewhere."""
    return SpoolTrouble(
        Trouble.UNAVAILABLE,
        f"the spool that this process began with is not at {path} any more",
        hint="mount its disk or put it back; or restart the agent, which goes on with what is there",
    )


def _place(path: Path) -> tuple[int, int] | None:
    """(device, file number) of what the path leads to, or None."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0
