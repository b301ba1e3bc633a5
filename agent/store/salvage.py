"""A damaged spool: set aside, never deleted, and what can still be read of it carried over.

Secret: the order of renames, so that a kill at any moment neither mixes two files nor forgets half a rescue. The new
file is complete before the old one moves, and says in its `meta` whom it has to rescue until that is done. A lost
first page is replaced in a copy, since we know what it must have said.
Promise: the damaged file and its log stay as they were, under a new name. Every undelivered message that can be read is
in the new file; one whose state cannot be read is HELD there, for a person.
"""

from __future__ import annotations

import contextlib
import glob
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import apsw

from agent.store.batch import put_meta, restore
from agent.store.folders import sync_folder
from agent.store.row import AckState, Direction, Row, State, Trouble
from agent.store.shelf import Shelf, survey
from agent.store.sqlite import SpoolTrouble, fetch, open_sound, trouble_of

_RESCUE: Final = "rescue"
_STEP: Final = 64  # ids a transaction: bodies are held in memory until it commits
_PAGE_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class SetAside:
    """A damaged spool that was renamed: where it is now, how many undelivered messages were carried over, and whether
    nothing of it was unreadable."""

    path: Path
    rescued: int
    complete: bool


def open_spool(
    path: Path, *, vfs: str | None = None, create: bool = True, suspect: bool = False
) -> tuple[apsw.Connection, SetAside | None]:
    """Open or create the spool file; a damaged one is set aside. `suspect`: look at all of it first.

    Raises SpoolTrouble when the disk does not let us, SpoolTooNew and NotASpool when the file is not ours to touch.
    """
    try:
        if create:
            path.parent.mkdir(parents=True, exist_ok=True)
        finish_swap(path, vfs)
        try:
            if suspect and not sound(path, vfs):
                raise apsw.CorruptError("what it holds contradicts itself")
            connection = open_sound(path, vfs=vfs, create=create)
        except (apsw.CorruptError, apsw.NotADBError):
            _set_aside(path, vfs)
            connection = open_sound(path, vfs=vfs, create=False)
        try:
            return connection, _rescue(connection, path, vfs)
        except BaseException:
            connection.close()
            raise
    except (apsw.Error, OSError) as error:
        raise trouble_of(error, path) from error


def sound(path: Path, vfs: str | None) -> bool:
    """Whether every page can be read and agrees with the others, and every undelivered message makes sense."""
    try:
        with contextlib.closing(Shelf(path, vfs)) as shelf:
            if fetch(shelf.connection, "PRAGMA integrity_check(1)") != [("ok",)]:
                return False
            for _ in shelf.open_range(0, 1 << 62):
                pass
            return "instance" in shelf.meta()
    except (apsw.CorruptError, apsw.NotADBError, apsw.IOError):
        return False
    except SpoolTrouble as trouble:
        if trouble.trouble is Trouble.DAMAGED or isinstance(trouble.__cause__, apsw.IOError):
            return False
        raise


def write_back(connection: apsw.Connection, path: Path, vfs: str | None) -> None:
    """The file was deleted while `connection` had it open: everything is still there, and goes back to its place.

    The caller closes `connection` and then opens the spool, which finishes this. Raises apsw.Error, OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _copy_out(connection, path, _beside(path, "fresh"), vfs)


def keep_replaced(connection: apsw.Connection, path: Path, vfs: str | None) -> None:
    """Another file took the place of the one that `connection` has open, and whose last name that may have been.

    Raises apsw.Error, OSError.
    """
    _copy_out(connection, path, _unused(path, "replaced"), vfs)


def _copy_out(connection: apsw.Connection, path: Path, target: Path, vfs: str | None) -> None:
    copy = _beside(path, "copy")
    _remove(copy)
    with contextlib.closing(apsw.Connection(str(copy), vfs=vfs)) as into, into.backup("main", connection, "main") as it:
        it.step()
    copy.chmod(0o600)
    copy.replace(target)


def finish_swap(path: Path, vfs: str | None) -> None:
    """Complete a change of files that was begun: the new file takes its place, an old log goes where it belongs."""
    fresh = _beside(path, "fresh")
    if not fresh.exists():
        return
    if path.exists():  # it never came to the change
        _remove(fresh)
        return
    name = survey(fresh, vfs, lambda reader: fetch(reader, "SELECT value FROM meta WHERE name=?", (_RESCUE,)))
    log = part(path, "-wal")
    if log.exists():
        if name:
            log.replace(part(path.with_name(name[0][0]), "-wal"))
        else:
            log.unlink()  # of a deleted file; the copy has all of it
    for leftover in (part(path, "-shm"), part(fresh, "-wal"), part(fresh, "-shm")):
        leftover.unlink(missing_ok=True)
    fresh.replace(path)
    sync_folder(path.parent)


def left_aside(path: Path) -> list[Path]:
    """The damaged files that were set aside for this spool, by whatever process, and that nobody has taken away yet."""
    return sorted(path.parent.glob(f"{glob.escape(path.stem)}.damaged-*{glob.escape(path.suffix)}"))


def _set_aside(path: Path, vfs: str | None) -> None:
    aside = _unused(path, "damaged")
    fresh = _beside(path, "fresh")
    _remove(fresh)
    connection = open_sound(fresh, vfs=vfs)
    try:
        put_meta(connection, [(_RESCUE, aside.name)])
    finally:
        connection.close()
    path.replace(aside)
    finish_swap(path, vfs)


def _rescue(into: apsw.Connection, path: Path, vfs: str | None) -> SetAside | None:
    marked = fetch(into, "SELECT value FROM meta WHERE name=?", (_RESCUE,))
    if not marked:
        return None
    aside = path.with_name(marked[0][0])
    rescued, complete = 0, False
    with contextlib.suppress(SpoolTrouble), _readable(aside, vfs) as shelf:
        low, high = _bounds(shelf)
        missed = 0
        for start in range(low, high + 1, _STEP):
            rows, whole = _read(shelf, start, min(start + _STEP - 1, high))
            missed += not whole
            if rows:
                with into:
                    rescued += restore(into, rows)
        with into:
            put_meta(into, [("last_id", high)])
            put_meta(into, [(name, value) for name, value in shelf.meta().items() if name != _RESCUE])
        complete = not missed
    with into:
        into.execute("DELETE FROM meta WHERE name=?", (_RESCUE,))
    return SetAside(aside, rescued, complete)


@contextlib.contextmanager
def _readable(aside: Path, vfs: str | None) -> Iterator[Shelf]:
    """The damaged file as it is, or a copy with a first page that is one."""
    if _has_schema(aside, vfs):
        with contextlib.closing(Shelf(aside, vfs)) as shelf:
            yield shelf
        return
    copy = _beside(aside, "copy")
    try:
        _remove(copy)
        open_sound(copy, vfs=vfs).close()  # a first page as it must have been: the schema is always the same
        page = bytearray(copy.read_bytes()[:_PAGE_BYTES])
        page[28:32] = page[92:96] = bytes(4)  # the number of pages: the file's size says it
        page[32:40] = bytes(8)  # no list of free pages
        _remove(copy)
        shutil.copyfile(aside, copy)
        with copy.open("r+b") as file:
            file.write(page)
        log = part(aside, "-wal")
        if log.exists():
            shutil.copyfile(log, part(copy, "-wal"))
        with contextlib.closing(Shelf(copy, vfs)) as shelf:
            yield shelf
    finally:
        _remove(copy)


def _has_schema(path: Path, vfs: str | None) -> bool:
    try:
        return bool(survey(path, vfs, lambda reader: fetch(reader, "SELECT 1 FROM sqlite_schema")))
    except apsw.Error:
        return False


def _bounds(shelf: Shelf) -> tuple[int, int]:
    """The lowest and the highest id that any table knows."""
    found: list[int] = []
    failure: SpoolTrouble | None = None
    for table in ("message", "delivery"):
        try:
            found += [i for row in fetch(shelf.connection, f"SELECT min(id), max(id) FROM {table}") for i in row if i]
        except apsw.Error as error:
            failure = trouble_of(error, Path(table), doing="read")
    if failure is not None and not found:
        raise failure
    return min(found, default=1), max(found, default=0)


def _read(shelf: Shelf, low: int, high: int) -> tuple[list[Row], bool]:
    """The undelivered rows of an id range, and whether all of it could be read. Closes in on what cannot."""
    try:
        return list(shelf.open_range(low, high)), True
    except SpoolTrouble:
        if low < high:
            middle = (low + high) // 2
            return _read(shelf, low, middle)[0] + _read(shelf, middle + 1, high)[0], False
    with contextlib.suppress(SpoolTrouble):
        row = shelf.alone(low)
        if row is not None:
            row.state = row.kept = State.HELD
            unasked = row.direction is Direction.OUT and not row.callback
            row.ack = AckState.NOT_OWED if unasked else AckState.UNDELIVERED
            row.ambiguous = True
            row.reason = "what became of this message was on a damaged page of the spool"
            return [row], False
    return [], False


def _beside(path: Path, word: str) -> Path:
    return path.with_name(f"{path.stem}.{word}{path.suffix}")


def _unused(path: Path, word: str) -> Path:
    number = 1
    while (found := _beside(path, f"{word}-{number}")).exists():
        number += 1
    return found


def part(path: Path, suffix: str) -> Path:
    """A file that belongs to `path`: its log ("-wal"), its shared memory ("-shm")."""
    return path.with_name(path.name + suffix)


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        part(path, suffix).unlink(missing_ok=True)
