"""Write what arrives to files, away from the loop.

Secret: a daemon thread for each association, so that a disk that hangs holds up nobody else, and not the end of the
process.
Promise: `finished` hears, on the loop, that a file is whole and on the platter and what it says, or what the disk
refused; a file that was refused or dropped is gone. What is spared of the disk stays free. Memory: `pending_bytes` is
what waits to be written; `relieved` hears when half of PENDING_BYTES is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import queue
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from agent.protocol.dicomjson import DatasetJson, dataset_json

PENDING_BYTES: Final = 2 * 1024 * 1024
WEIGH_BYTES: Final = 8 * 1024 * 1024  # free space is looked at after so many


@dataclass(frozen=True, slots=True)
class Written:
    """A file on the platter: its bytes, and its elements as JSON."""

    size_bytes: int
    dataset: DatasetJson


class PartWriter:
    """Files one after the other. All calls on the loop; `relieved` is called there. `sync` brings a file to the
    platter, as os.fsync; `spare_bytes`: what of the disk is left to others, asked for in the writer's thread."""

    def __init__(
        self,
        name: str,
        relieved: Callable[[], None],
        sync: Callable[[int], None] = os.fsync,
        spare_bytes: Callable[[], int] = lambda: 0,
    ) -> None:
        self.pending_bytes = 0
        self.over = False  # it was told to end
        self.ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._relieved = relieved
        self._sync = sync
        self._spare_bytes = spare_bytes
        self._orders: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._file: BinaryIO | None = None  # this and all below: of the thread
        self._path = Path()
        self._trouble: OSError | None = None
        self._unweighed_bytes = 0
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def begin(self, path: Path, head: bytes) -> None:
        """A new file; nobody but us may read it."""
        self._orders.put(lambda: self._begin(path, head))

    def write(self, data: bytes) -> None:
        self.pending_bytes += len(data)
        self._orders.put(lambda: self._write(data))

    def finish(self, finished: Callable[[Written | OSError], None]) -> None:
        """That was all of it. The file is the caller's from then on."""
        self._orders.put(lambda: self._finish(finished))

    def drop(self) -> None:
        """Delete what was begun and is not finished."""
        self._orders.put(self._delete)

    def discard(self, path: Path) -> None:
        """Delete a finished file that nobody has taken over."""
        self._orders.put(lambda: _unlink(path))

    def end(self) -> None:
        """Delete what is not finished, and let the thread end."""
        self.over = True
        self._orders.put(None)

    def _work(self) -> None:
        while (order := self._orders.get()) is not None:
            order()
            del order
        self._delete()
        self._tell(self.ended.set)

    def _begin(self, path: Path, head: bytes) -> None:
        self._delete()
        self._path, self._trouble = path, None
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._weigh()
            self._file = os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | _BINARY, 0o600), "w+b")
            self._file.write(head)
        except OSError as error:
            self._refused(error)

    def _write(self, data: bytes) -> None:
        if self._file is not None:
            try:
                self._unweighed_bytes += len(data)
                if self._unweighed_bytes > WEIGH_BYTES:
                    self._weigh()
                self._file.write(data)
            except OSError as error:
                self._refused(error)
        size = len(data)
        self._tell(lambda: self._wrote(size))

    def _finish(self, finished: Callable[[Written | OSError], None]) -> None:
        outcome: Written | OSError = self._trouble or OSError("no file was begun")
        if self._file is not None:
            try:
                self._file.flush()
                self._sync(self._file.fileno())
                size = os.fstat(self._file.fileno()).st_size
                if os.stat(self._path).st_size != size:  # it has to be where it is looked for
                    raise OSError("the file was taken away")
                outcome = Written(size, dataset_json(self._file))
                self._file.close()
                self._file = None
            except OSError as error:
                self._refused(error)
                outcome = error
        self._tell(lambda: finished(outcome))

    def _weigh(self) -> None:
        """Raises OSError where the disk is left too little for others: an object may be larger than all that is free,
        and must not keep messages from being stored."""
        self._unweighed_bytes = 0
        spare = self._spare_bytes()
        if spare and shutil.disk_usage(self._path.parent).free < spare:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _refused(self, error: OSError) -> None:
        self._trouble = error
        self._delete()

    def _delete(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):  # what could not be written cannot be flushed either
                self._file.close()
            self._file = None
            _unlink(self._path)

    def _wrote(self, size: int) -> None:
        before, self.pending_bytes = self.pending_bytes, self.pending_bytes - size
        if before > PENDING_BYTES // 2 >= self.pending_bytes:
            self._relieved()

    def _tell(self, what: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has gone: nobody waits any more
            self._loop.call_soon_threadsafe(what)


_BINARY: Final = getattr(os, "O_BINARY", 0)


def _unlink(path: Path) -> None:
    with contextlib.suppress(OSError):  # the next start sweeps it away
        path.unlink()
