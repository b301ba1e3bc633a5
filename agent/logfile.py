"""Lines of text in rotated files, written without holding anybody up.

Secret: how lines reach the disk (one thread, in batches), how files follow each other by day and by size, and what
happens while the disk takes nothing.
Promise: `Tap.put` never blocks on a disk and never raises; lines wait in bounded memory while a disk is full or
read-only, are counted as dropped beyond that bound, and flow again by themselves when the disk is back.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path
from typing import Protocol, TextIO

LINGER_S = 0.1  # lines gather this long before they are written together
RETRY_S = 5.0
PENDING_BYTES = 8 * 1024 * 1024
STUCK_S = 2.0  # a write that hangs (a network share) must not hang whoever waits for it
_CHUNK_BYTES = 256 * 1024
_BLOCK_BYTES = 64 * 1024


class Target(Protocol):
    """Where lines end up. `write` takes whole lines, returns how many bytes it took and may raise OSError."""

    def write(self, data: bytes) -> int: ...

    def close(self) -> None: ...


class LogFiles:
    """The series `<stem>-YYYY-MM-DD.log`, `<stem>-YYYY-MM-DD.1.log`, … in one folder; days are UTC.

    A new file is begun, none is renamed: Windows forbids that while a reader has it open.
    """

    def __init__(self, folder: Path, stem: str, *, max_bytes: int, keep: int, mode: int) -> None:
        self._folder = folder
        self._stem = stem
        self._max_bytes = max_bytes
        self._keep = keep
        self._mode = mode
        self._file: int | None = None
        self._day = ""
        self._size_bytes = 0

    def write(self, data: bytes) -> int:
        """Append; a short count means that the disk took only a part."""
        file = self._current(len(data))
        written = 0
        while written < len(data):
            try:
                written += os.write(file, data[written:] if written else data)
            except OSError:
                if not written:
                    self.close()
                    raise
                break
        self._size_bytes += written
        return written

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _current(self, coming_bytes: int) -> int:
        day = f"{datetime.now(UTC):%Y-%m-%d}"
        full = self._size_bytes > 0 and self._size_bytes + coming_bytes > self._max_bytes
        if self._file is not None and day == self._day and not full and os.fstat(self._file).st_nlink > 0:
            return self._file
        self.close()
        self._folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        path = self._next(day, coming_bytes)
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), self._mode)
        if not self._day:
            _end_the_line(self._file)
        self._day = day
        self._size_bytes = os.fstat(self._file).st_size
        for old in list_files(self._folder, self._stem)[: -self._keep]:
            with contextlib.suppress(OSError):  # Windows keeps a file that somebody reads; it goes the next time
                old.unlink()
        return self._file

    def _next(self, day: str, coming_bytes: int) -> Path:
        """The newest file of today while there is room in it, else the one after it."""
        today = [entry for entry in _series(self._folder, self._stem) if entry[0] == day]
        number = today[-1][1] if today else 0
        if today and today[-1][2].stat().st_size + coming_bytes > self._max_bytes and today[-1][2].stat().st_size > 0:
            number += 1
        return self._folder / (f"{self._stem}-{day}.{number}.log" if number else f"{self._stem}-{day}.log")


def _end_the_line(file: int) -> None:
    """What a power loss left may be half a line, and would spoil the first one of this process."""
    size_bytes = os.lseek(file, 0, os.SEEK_END)
    if size_bytes > 0:
        os.lseek(file, size_bytes - 1, os.SEEK_SET)
        if os.read(file, 1) != b"\n":
            os.write(file, b"\n")


class Stream:
    """A terminal or a pipe as a target. It may be gone at any time; nobody should hear of it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, data: bytes) -> int:
        try:
            self._stream.write(data.decode("utf-8", "replace"))
            self._stream.flush()
        except (OSError, ValueError):  # ValueError: closed, or an encoding that lacks the character
            pass
        return len(data)

    def close(self) -> None:
        """The stream belongs to whoever opened it."""


class Tap:
    """Where one log's lines go in.

    `dropped`: lines that found no room. `failing`: why the target takes nothing at the moment, or empty.
    """

    def __init__(
        self, target: Target, wake: threading.Event, notice: Callable[[int], bytes], *, stuck_s: float = STUCK_S
    ) -> None:
        self.dropped = 0
        self.failing = ""
        self._target = target
        self._wake = wake
        self._notice = notice
        self._stuck_s = stuck_s
        self._noticed = 0
        self._retry_at = 0.0
        self._lock = threading.Lock()  # pending lines: held for an append or a swap only
        self._write_lock = threading.Lock()  # the target: one writer at a time, thread or flush
        self._pending: list[bytes] = []
        self._pending_bytes = 0

    def put(self, line: bytes) -> None:
        """Take one whole line, its line end included."""
        with self._lock:
            if self._pending_bytes + len(line) > PENDING_BYTES:
                self.dropped += 1
                return
            self._pending.append(line)
            self._pending_bytes += len(line)
        if not self._wake.is_set():
            self._wake.set()

    def drain(self, *, even_if_failing: bool = False) -> bool:
        """Write what is pending; True when nothing is left."""
        if not self._write_lock.acquire(timeout=self._stuck_s):
            return False
        try:
            if self.failing and not even_if_failing and time.monotonic() < self._retry_at:
                return False
            return self._write_pending()
        finally:
            self._write_lock.release()

    def close(self) -> None:
        """Write what can be written, then let go of the target; one that is stuck is left to the operating system."""
        if self._write_lock.acquire(timeout=self._stuck_s):
            try:
                self._write_pending()
                self._target.close()
            finally:
                self._write_lock.release()

    def _write_pending(self) -> bool:
        while chunk := self._take():
            if not self._write(chunk):
                return False
        return True

    def _write(self, chunk: bytes) -> bool:
        try:
            written = self._target.write(chunk)
        except OSError as failed:
            written = 0
            self.failing = failed.strerror or type(failed).__name__
        if written < len(chunk):
            self.failing = self.failing or "the disk took only a part"
            self._retry_at = time.monotonic() + RETRY_S
            self._give_back(chunk[written:])
            return False
        self.failing = ""
        return True

    def _take(self) -> bytes:
        with self._lock:
            if self.dropped > self._noticed and not self.failing:
                self._pending.append(notice := self._notice(self.dropped - self._noticed))
                self._pending_bytes += len(notice)
                self._noticed = self.dropped
            count = size_bytes = 0
            for line in self._pending:
                count += 1
                size_bytes += len(line)
                if size_bytes >= _CHUNK_BYTES:
                    break
            chunk = b"".join(self._pending[:count])
            del self._pending[:count]
            self._pending_bytes -= size_bytes
            return chunk

    def _give_back(self, rest: bytes) -> None:
        with self._lock:
            self._pending.insert(0, rest)
            self._pending_bytes += len(rest)


class LogWriter:
    """The thread that drains the taps. A context manager: leaving it writes what is pending and closes the targets."""

    def __init__(self, *, stuck_s: float = STUCK_S) -> None:
        self._stuck_s = stuck_s
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._taps: list[Tap] = []
        self._thread = threading.Thread(target=self._run, name="logbook", daemon=True)

    def tap(self, target: Target, notice: Callable[[int], bytes]) -> Tap:
        """`notice(n)` makes the line that tells of n dropped ones."""
        tap = Tap(target, self._wake, notice, stuck_s=self._stuck_s)
        self._taps.append(tap)
        return tap

    def flush(self) -> None:
        """Write what is pending now, in the caller's thread."""
        for tap in self._taps:
            tap.drain(even_if_failing=True)

    def __enter__(self) -> LogWriter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._wake.set()
        self._thread.join(timeout=self._stuck_s)
        for tap in self._taps:
            tap.close()

    def _run(self) -> None:
        all_written = True
        while not self._closing.is_set():
            self._wake.wait(None if all_written else RETRY_S)
            self._closing.wait(LINGER_S)
            self._wake.clear()
            all_written = sum(not tap.drain() for tap in self._taps) == 0


def list_files(folder: Path, stem: str) -> list[Path]:
    """The files of a series, oldest first; empty when there is no such folder."""
    return [path for _, _, path in _series(folder, stem)]


def _series(folder: Path, stem: str) -> list[tuple[str, int, Path]]:
    name = re.compile(re.escape(stem) + r"-(\d{4}-\d{2}-\d{2})(?:\.(\d{1,6}))?\.log")
    try:
        matches = [(name.fullmatch(path.name), path) for path in folder.iterdir()]
    except OSError:
        return []
    return sorted((match[1], int(match[2] or 0), path) for match, path in matches if match is not None)


def lines_backwards(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file, last first, without line ends, each with the offset of its first byte.

    Memory is bounded by a block and the longest line.
    """
    with path.open("rb") as file:
        position = file.seek(0, os.SEEK_END)
        tail: list[bytes] = []  # pieces of the line that began before the block, last first
        while position > 0:
            step = min(_BLOCK_BYTES, position)
            position -= step
            file.seek(position)
            first, *others = file.read(step).split(b"\n")
            if not others:
                tail.append(first)
                continue
            begins = position + step - len(others[-1])
            tail.append(others.pop())
            yield begins, b"".join(reversed(tail))
            for line in reversed(others):
                begins -= len(line) + 1
                yield begins, line
            tail = [first]
        yield 0, b"".join(reversed(tail))


class Follower:
    """What is added to a series, through rotation and midnight.

    No file is kept open, and each of the series is looked at each time: Windows could not prune an open one, and a
    clock that was set back over midnight lets the writer return to an older one.
    """

    def __init__(self, folder: Path, stem: str, begin: tuple[Path, int] | None = None) -> None:
        """`begin`: a file and an offset in it; what stands before it, and in older files, counts as read."""
        self._folder = folder
        self._stem = stem
        self._places: dict[Path, tuple[int, int]] = {}  # which file it was (st_ino), and how far it is read
        if begin is None:
            return
        first, offset = begin
        for path in takewhile(lambda path: path != first, list_files(folder, stem)):
            self._skip(path, None)
        self._skip(first, offset)

    def _skip(self, path: Path, offset: int | None) -> None:
        with contextlib.suppress(OSError):
            facts = path.stat()
            self._places[path] = (facts.st_ino, facts.st_size if offset is None else offset)

    def read(self) -> Iterator[bytes]:
        """The lines that have come, without line ends, oldest file first. A line counts once its end is there.

        Raises OSError for a file that may not be read.
        """
        files = list_files(self._folder, self._stem)
        self._places = {path: place for path, place in self._places.items() if path in files}
        for path in files:
            with contextlib.suppress(FileNotFoundError):  # pruned meanwhile
                yield from self._read(path)

    def _read(self, path: Path) -> Iterator[bytes]:
        facts = path.stat()
        known, offset = self._places.get(path, (facts.st_ino, 0))
        if known != facts.st_ino or facts.st_size < offset:  # another file, or emptied
            offset = 0
        self._places[path] = (facts.st_ino, offset)
        if facts.st_size == offset:
            return
        with path.open("rb") as file:
            file.seek(offset)
            rest = b""
            while block := file.read(_CHUNK_BYTES):
                *lines, rest = (rest + block).split(b"\n")
                for line in lines:
                    offset += len(line) + 1
                    self._places[path] = (facts.st_ino, offset)
                    yield line
