"""What was acknowledged of messages that are not finished.

Secret: one small file for each, in which every piece is sealed with all that came before it; and that a piece which the
disk refused leaves no trace in it.
Promise: when `kept` hears True, pulling the plug loses nothing of that piece nor of those before it. What is read after
a crash is the pieces in their order, as far as they are whole; of a torn end nothing is ever taken for content. A file
that cannot be understood is set aside, never deleted.

Life of a draft: begun (nothing on disk) → pieces, each synced before its `kept` → discarded (no file). Power loss
leaves the file with every kept piece, perhaps one more that nobody was told of, and the beginning of another. A disk
that refuses a piece says no for that one; the next is tried anew, behind the last that was kept.

The file: a line that says what it is, then records: length and seal (32 bits each, big-endian), content. The seal is
the CRC-32 of length and content, begun with the seal before. The first record is the head, as JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import secrets
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from agent.store.diskthread import DiskThread
from agent.store.folders import sync_folder

_MAGIC: Final = b"agent draft 1\n"
_RECORD: Final = struct.Struct(">II")  # length, seal
_LENGTH: Final = struct.Struct(">I")
_DRAFT, _BAD = ".draft", ".bad"
_BINARY: Final = getattr(os, "O_BINARY", 0)

_Write = Callable[[Callable[[], None], Callable[[bool], None]], None]  # work for the disk, and who hears of it
_Delete = Callable[[Path, str], None]  # file, and name of the draft


@dataclass(frozen=True, slots=True)
class LeftDraft:
    """What an earlier process acknowledged of a message, and did not store as one. `message`: its pieces, joined."""

    name: str
    channel: str
    remote: str
    message: bytes
    path: Path


@dataclass(frozen=True, slots=True)
class Unread:
    """A file of drafts that could not be read, and why, in a sentence."""

    path: Path
    reason: str


class Draft:
    """One unfinished message. `name` is unique for ever on this host."""

    __slots__ = ("_delete", "_file", "_over", "_write", "name")

    def __init__(self, name: str, file: _File, write: _Write, delete: _Delete) -> None:
        self.name = name
        self._file = file
        self._write = write
        self._delete = delete
        self._over = False

    def add(self, piece: bytes, kept: Callable[[bool], None]) -> None:
        """Have one more piece on the platter; `kept` hears on the loop, never from inside the call, whether it is."""
        if self._over:
            asyncio.get_running_loop().call_soon(kept, False)
        else:
            self._write(partial(self._file.add, piece), kept)

    def discard(self) -> None:
        """The message is stored elsewhere: delete the file, in the background. What is added later is not kept."""
        if not self._over:
            self._over = True
            self._delete(self._file.path, self.name)


class Drafts:
    """All drafts of one folder, which is made with the first piece, for its owner alone.

    `unread`: files that `leftovers` could make nothing of. `sync` brings a file to the platter, as os.fsync.
    """

    def __init__(self, folder: Path, *, sync: Callable[[int], None] = os.fsync, close_within_s: float = 10.0) -> None:
        self.folder = folder
        self.unread: list[Unread] = []
        self._sync = sync
        self._close_within_s = close_within_s
        self._disk: DiskThread | None = None
        self._closed = False
        self._mine: set[str] = set()
        self._last_ms = 0

    def begin(self, channel: str, remote: str) -> Draft:
        """A draft of one message; nothing is written before its first piece."""
        # a clock that is set back leaves the random part: names of one process differ by their milliseconds
        self._last_ms = max(time.time_ns() // 1_000_000, self._last_ms + 1)
        name = f"{self._last_ms:011x}{secrets.token_hex(4)}"
        self._mine.add(name)
        head = json.dumps({"name": name, "channel": channel, "remote": remote}).encode()
        file = _File(self.folder / f"{name}{_DRAFT}", head, self._sync)
        return Draft(name, file, self._write, self._delete)

    def leftovers(self) -> list[LeftDraft]:
        """What earlier processes left, oldest first. Reads all of it at once, for a start.

        A file whose head makes no sense becomes `*.bad`; one that the disk does not give stays. Both are in `unread`.
        """
        found: list[LeftDraft] = []
        self.unread.clear()
        for path in self._files():
            try:
                left = _read(path)
            except OSError as error:
                self.unread.append(Unread(path, f"the disk does not give it: {error.strerror or 'no reason told'}"))
            except ValueError:
                self.unread.append(_set_aside(path))
            else:
                if left.message:
                    found.append(left)
                else:  # it was torn before anything in it was acknowledged
                    self.discard(left)
        return sorted(found, key=lambda left: left.name)

    def _files(self) -> list[Path]:
        try:
            names = os.listdir(self.folder)
        except OSError:
            return []
        theirs = (name for name in names if name.endswith(_DRAFT) and name.removesuffix(_DRAFT) not in self._mine)
        return [self.folder / name for name in theirs]

    def discard(self, left: LeftDraft) -> None:
        """The message is stored elsewhere: delete the file, in the background."""
        self._delete(left.path, left.name)

    async def close(self) -> None:
        """Wait for what the disk was given. What is added later is not kept, what is discarded later stays for the
        next process, and so does every draft that was not discarded."""
        self._closed = True
        disk, self._disk = self._disk, None
        if disk is None:
            return
        with contextlib.suppress(TimeoutError):  # a disk that hangs must not hold up the end
            async with asyncio.timeout(self._close_within_s):
                await disk.run(lambda: None)
        disk.end()

    # ---- to the disk

    def _write(self, work: Callable[[], None], kept: Callable[[bool], None]) -> None:
        def done(_: Any, error: BaseException | None) -> None:
            if error is not None and not isinstance(error, OSError):
                raise error
            kept(error is None)

        if self._closed:
            asyncio.get_running_loop().call_soon(kept, False)
        else:
            self._thread().submit(work, done)

    def _delete(self, path: Path, name: str) -> None:
        def done(_: Any, error: BaseException | None) -> None:
            if error is None:
                self._mine.discard(name)
            elif not isinstance(error, OSError):  # a file that stays is met again by the next process
                raise error

        if not self._closed:
            self._thread().submit(partial(path.unlink, missing_ok=True), done)

    def _thread(self) -> DiskThread:
        if self._disk is None:
            self._disk = DiskThread("drafts")
        return self._disk


class _File:
    """The file of one draft. `add` is for a thread that may hang. It is opened for each piece, so that one that was
    deleted or moved is not written to as if it were there."""

    __slots__ = ("_head", "_kept_bytes", "_seal", "_sync", "path")

    def __init__(self, path: Path, head: bytes, sync: Callable[[int], None]) -> None:
        self.path = path
        self._head = head
        self._sync = sync
        self._kept_bytes = 0
        self._seal = 0

    def add(self, piece: bytes) -> None:
        """Raises OSError; the file is then as if this piece had never come, once the next one does."""
        first = not self._kept_bytes
        beginning, seal = _record(self._head, 0) if first else (b"", self._seal)
        content, seal = _record(piece, seal)
        written = _MAGIC + beginning + content if first else content
        if first:
            self._make_folder()
        descriptor = os.open(self.path, os.O_RDWR | _BINARY | (os.O_CREAT if first else 0), 0o600)
        try:
            if os.fstat(descriptor).st_size < self._kept_bytes:
                raise OSError(errno.EIO, "it is shorter than what was kept in it")
            os.ftruncate(descriptor, self._kept_bytes)  # what a piece that was refused has left
            os.lseek(descriptor, self._kept_bytes, os.SEEK_SET)
            _write_all(descriptor, written)
            self._sync(descriptor)
        finally:
            os.close(descriptor)
        if first:
            sync_folder(self.path.parent, self._sync)
        self._kept_bytes += len(written)
        self._seal = seal

    def _make_folder(self) -> None:
        folder = self.path.parent
        if not folder.exists():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            sync_folder(folder.parent, self._sync)


def _write_all(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:  # a disk that is nearly full takes a part, and says so only at the next attempt
        rest = rest[os.write(descriptor, rest) :]


# ---- the format


def _record(content: bytes, before: int) -> tuple[bytes, int]:
    """A record and its seal; `before`: the seal of the record before."""
    seal = _seal(content, before)
    return _RECORD.pack(len(content), seal) + content, seal


def _seal(content: bytes, before: int) -> int:
    return zlib.crc32(content, zlib.crc32(_LENGTH.pack(len(content)), before))


def _records(found: bytes) -> Iterator[bytes]:
    """The records of a file behind its first line, as far as they are whole."""
    at = seal = 0
    while at + _RECORD.size <= len(found):
        length, told = _RECORD.unpack_from(found, at)
        at += _RECORD.size
        content = found[at : at + length]
        if len(content) < length or (seal := _seal(content, seal)) != told:
            return
        yield content
        at += length


def _read(path: Path) -> LeftDraft:
    """Raises OSError, and ValueError where the head makes no sense."""
    found = path.read_bytes()
    if not found.strip(b"\0"):  # made by a process that was gone before it wrote, or before that was on the platter
        return LeftDraft(path.stem, "", "", b"", path)
    if not found.startswith(_MAGIC):
        raise ValueError("it does not begin as a draft does")
    records = list(_records(found[len(_MAGIC) :]))
    match json.loads(records[0] if records else b""):
        case {"name": str(name), "channel": str(channel), "remote": str(remote)}:
            return LeftDraft(name, channel, remote, b"".join(records[1:]), path)
        case _:
            raise ValueError("its head lacks what a draft says of itself")


def _set_aside(path: Path) -> Unread:
    reason = "its head makes no sense; what it holds was acknowledged, and only a person can say what it is"
    aside, number = path.with_suffix(_BAD), 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.stem}-{number}{_BAD}")
    try:
        path.rename(aside)
    except OSError:
        return Unread(path, reason)
    return Unread(aside, reason)
