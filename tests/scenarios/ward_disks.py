"""Disks that do not behave: one that stalls or refuses to write, and one that is small enough to be filled.

Secret: how a disk is made to fail on purpose (an SQLite VFS between the spool and the real file, a tmpfs of a few MiB).
Promise: what the disk says is decided by the test; nothing but the spool's own files is touched.
"""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw

GIVE_UP_S = 60.0


class SickDisk(apsw.VFS):
    """A disk under every new SQLite connection of this process.

    While it stalls, no fsync returns; `syncs` counts those that did. While it is `read_only`, no write succeeds.
    """

    def __init__(self) -> None:
        self.syncs = 0
        self.read_only = False
        self._flows = threading.Event()
        self._flows.set()
        self._waiting = threading.Semaphore(0)
        (self.usual, *_) = apsw.vfs_names()  # the default stands first
        super().__init__("sick", self.usual, makedefault=True)

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        return _SickFile(self, name, flags)

    def stall(self) -> None:
        """From now on no fsync returns."""
        self._flows.clear()

    def resume(self) -> None:
        self._flows.set()

    def wait_for_stalled(self) -> bool:
        """Block until some fsync is held up; for a thread."""
        return self._waiting.acquire(timeout=GIVE_UP_S)

    def sync(self) -> None:
        if not self._flows.is_set():
            self._waiting.release()
            self._flows.wait(GIVE_UP_S)
        self.syncs += 1


class _SickFile(apsw.VFSFile):
    def __init__(self, disk: SickDisk, name: Any, flags: list[int]) -> None:
        self._disk = disk
        super().__init__(disk.usual, name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        if self._disk.read_only:
            raise apsw.ReadOnlyError("the disk was remounted read-only")
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:
        self._disk.sync()
        super().xSync(flags)


@contextlib.contextmanager
def sick_disk() -> Iterator[SickDisk]:
    """Between `with` and its end, SQLite in this process writes through the disk that is given."""
    disk = SickDisk()
    try:
        yield disk
    finally:
        disk.resume()
        apsw.set_default_vfs(disk.usual)
        disk.unregister()


class SmallDisk:
    """A file system of its own, of a few MiB, mounted at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def fill(self) -> None:
        """Write until nothing more fits."""
        with self._ballast.open("ab", buffering=0) as ballast, contextlib.suppress(OSError):
            while ballast.write(b"\0" * 4096):
                pass

    def free(self) -> None:
        self._ballast.unlink()

    def remount(self, how: str) -> None:
        """`ro` or `rw`; the former only while nobody has a file open for writing."""
        subprocess.run(["mount", "-o", f"remount,{how}", str(self.path)], check=True)


@contextlib.contextmanager
def small_disk(path: Path, size_mib: int) -> Iterator[SmallDisk]:
    """A tmpfs at `path`, which needs the right to mount."""
    path.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "tmpfs", str(path)], check=True)
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)
