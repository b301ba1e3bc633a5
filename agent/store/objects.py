"""Keep the DICOM objects of stored rows as files, until the server has them.

Secret: their names, and the note beside each of the Binary that it was uploaded as.
Promise: once `done` has heard None, pulling the plug loses nothing: the file is in its place under its number. What a
full disk or a missing folder refuses is told, never raised. What a killed process left behind, `sweep` deletes: parts
of objects that did not come whole, and objects that nobody wants, never one that somebody does.

Power loss in `adopt` leaves the part or the object, neither acknowledged; in `note_reference` the note may be missing,
and the object is uploaded once more.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import apsw

from agent.store.diskthread import DiskThread
from agent.store.folders import sync_folder
from agent.store.row import Content, Direction, State
from agent.store.sqlite import fetch

_OBJECT, _NOTE, _PART = ".dcm", ".ref", ".part"
_ASKED_AT_ONCE: Final = 500
_CLOCK_S: Final = 2.0  # file systems keep times as coarse as this
_NOTE_BYTES: Final = 256
_COMMITTED_WITHIN_S: Final = 3_600.0
CLOSE_WITHIN_S: Final = 1.0


class Objects:
    """All objects of this host, by number. Parts are written to `folder` by whoever receives; it need not be there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._began = time.time()
        self._disk = DiskThread("objects")
        self._adopted: dict[int, float] = {}  # lately, and when: their rows may not be committed yet
        self._references: dict[int, str] = {}

    def adopt(self, part: Path, number: int, done: Callable[[OSError | None], None]) -> None:
        """Make a part, which is on the platter, an object. `done` hears on the loop, later, what was in the
        way: then the part is where it was, if it was there."""
        self._adopted[number] = time.monotonic()

        def adopted(_: object, error: BaseException | None) -> None:
            if error is not None and not isinstance(error, OSError):
                raise error
            if error is not None:
                self._adopted.pop(number, None)
            done(error)

        self._disk.submit(lambda: self._move(part, self.path_of(number)), adopted)

    def path_of(self, number: int) -> Path:
        """Where an object is, if it has one."""
        return self.folder / f"{number}{_OBJECT}"

    def reference_of(self, number: int) -> str | None:
        """The Binary that the object was uploaded as, "Binary/<id>"; None if that was not noted."""
        known = self._references.get(number)
        if known is None:
            with contextlib.suppress(OSError, UnicodeDecodeError), self._note(number).open("rb") as file:
                known = file.read(_NOTE_BYTES).decode("ascii") or None
        return known

    def note_reference(self, number: int, reference: str) -> None:
        """The object is on the server. Known at once, and on the platter soon."""
        self._references[number] = reference
        self._disk.submit(lambda: self._write_note(number, reference), _ignore_trouble)

    def discard(self, number: int) -> None:
        """The object of a row, and its note, are needed no more."""
        self._references.pop(number, None)
        self._adopted.pop(number, None)
        self._disk.submit(lambda: _unlink(self.path_of(number), self._note(number)), _ignore_trouble)

    async def sweep(self, wanted: Callable[[list[int]], Awaitable[set[int]]]) -> None:
        """Delete the parts that earlier processes left, and objects that are not `wanted` and were not adopted in the
        last hour. Raises what `wanted` raises; what the disk refuses stays for the next time."""
        now = time.monotonic()
        self._adopted = {number: at for number, at in self._adopted.items() if now - at < _COMMITTED_WITHIN_S}
        try:
            found = await self._disk.run(self._look_for_leftovers)
        except OSError:
            return
        for begin in range(0, len(found), _ASKED_AT_ONCE):
            asked = found[begin : begin + _ASKED_AT_ONCE]
            keep = await wanted(asked)
            # one that was adopted while we asked has its row now or will have it
            unwanted = [number for number in asked if number not in keep and number not in self._adopted]
            paths = [path for number in unwanted for path in (self.path_of(number), self._note(number))]
            await self._disk.run(lambda paths=paths: _unlink(*paths))  # type: ignore[misc]

    async def close(self, within_s: float = CLOSE_WITHIN_S) -> None:
        """After all that was asked for so far, if the disk does it in time: one that hangs must not hold up the end."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._disk.run(lambda: None)
        self._disk.end()

    def _note(self, number: int) -> Path:
        return self.folder / f"{number}{_NOTE}"

    def _move(self, part: Path, place: Path) -> None:
        os.replace(part, place)
        try:
            sync_folder(self.folder)
        except OSError:
            with contextlib.suppress(OSError):
                os.replace(place, part)
            raise

    def _write_note(self, number: int, reference: str) -> None:
        if not self.path_of(number).exists():
            return  # it was discarded meanwhile: a note would stay behind
        part = self.folder / f"{number}{_NOTE}{_PART}"
        with part.open("wb") as file:
            file.write(reference.encode("ascii", "replace"))
            file.flush()
            os.fsync(file.fileno())
        part.replace(self._note(number))

    def _look_for_leftovers(self) -> list[int]:
        """Delete the parts of earlier processes; the numbers of all objects."""
        numbers: set[int] = set()
        with contextlib.suppress(FileNotFoundError), os.scandir(self.folder) as entries:
            for entry in entries:
                name, _, kind = entry.name.partition(".")
                if entry.name.endswith(_PART):
                    with contextlib.suppress(OSError):
                        if entry.stat().st_mtime < self._began - _CLOCK_S:
                            _unlink(Path(entry.path))
                elif f".{kind}" in (_OBJECT, _NOTE) and name.isascii() and name.isdigit():
                    numbers.add(int(name))
        return sorted(numbers)


def undelivered_objects(reader: apsw.Connection, *, numbers: list[int]) -> set[int]:
    """Which of these objects a message names that the server does not have yet, or that a person may send again. The
    number of an object is the control id of its row. Raises apsw.Error."""
    channels = fetch(reader, "SELECT DISTINCT channel FROM delivery WHERE direction=?", (Direction.IN,))
    # by channel, as the index on control ids begins with it
    sql = (
        "SELECT m.control_id FROM message m JOIN delivery d ON d.id=m.id"
        f" WHERE m.channel=? AND m.control_id IN ({','.join('?' * len(numbers))})"
        " AND m.control_id<>x'' AND m.content=? AND d.state<>?"
    )
    ids = [b"%d" % number for number in numbers]
    return {
        int(control_id)
        for (channel,) in channels
        for (control_id,) in fetch(reader, sql, (channel, *ids, Content.DICOM, State.PROCESSED))
    }


def _ignore_trouble(_: object, error: BaseException | None) -> None:
    """What the disk refuses here is done by the next sweep, or done twice."""
    if error is not None and not isinstance(error, OSError):
        raise error


def _unlink(*paths: Path) -> None:
    for path in paths:
        with contextlib.suppress(OSError):  # the next sweep tries again
            path.unlink(missing_ok=True)
