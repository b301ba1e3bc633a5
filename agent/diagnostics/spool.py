"""What the spool holds, and whether it is sound.

Secret: how a file is read that its owner may be writing, and how long a look at all of it may take.
Promise: nothing is written, not even a log beside a file that was closed in an orderly way; what could not be looked at
in time is said.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import apsw

from agent.diagnostics.check import Looked
from agent.diagnostics.host import Host
from agent.errors import Finding, Severity, StoreError
from agent.store.peek import counts
from agent.store.row import State, Trouble
from agent.store.sqlite import check_version, connect_reader, fetch, size_bytes, trouble_of

CHECK_WITHIN_S: Final = 6.0
OLD_S: Final = 3_600.0
_FOR_A_PERSON: Final = (State.HELD, State.FAILED)
_STEPS: Final = 10_000  # of SQLite's virtual machine, between two looks at the clock


@dataclass(frozen=True, slots=True)
class _Content:
    """`damage`: what the quick check complains of, its first line. `whole`: it came to its end."""

    version: int
    by_channel: dict[str, dict[State, int]]
    oldest_ms: int | None
    damage: str
    whole: bool


async def look(host: Host) -> Looked:
    path = host.paths.spool
    return await host.threads.run(lambda: judge(path, host.now()))


def judge(path: Path, now: datetime, *, within_s: float = CHECK_WITHIN_S) -> Looked:
    """For a thread: it reads all of the file."""
    aside = tuple(_set_aside(path))
    try:
        if not path.exists():
            return Looked("there is none yet: it is made at the first start", aside)
        content = _read(path, within_s)
    except StoreError as error:
        return Looked("", (Finding("spool.not-read", Severity.ERROR, str(error), error.hint, str(path)), *aside))
    except (apsw.Error, OSError, ValueError) as error:
        trouble = trouble_of(error, path, doing="read")
        code = "spool.damaged" if trouble.trouble is Trouble.DAMAGED else "spool.not-read"
        return Looked("", (Finding(code, Severity.ERROR, str(trouble), trouble.hint, str(path)), *aside))
    return Looked(_text(path, content), (*_findings(path, content, now), *aside))


def _read(path: Path, within_s: float) -> _Content:
    log = path.with_name(f"{path.name}-wal")
    closed = not log.exists()
    try:
        with contextlib.closing(_reader(path, closed=closed)) as reader:
            content = _content(reader, path, within_s)
    except apsw.Error:
        if not (closed and log.exists()):
            raise
    else:
        if not (closed and log.exists()):
            return content
    # somebody began to write meanwhile: what was seen without his log may be neither the old nor the new state
    with contextlib.closing(_reader(path, closed=False)) as reader:
        return _content(reader, path, within_s)


def _reader(path: Path, *, closed: bool) -> apsw.Connection:
    """`closed`: nobody has it open, so it is read as it lies. SQLite would lay a log beside it otherwise, which the
    agent's user could perhaps not write."""
    if not closed:
        return connect_reader(path)
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    return apsw.Connection(f"{path.absolute().as_uri()}?immutable=1", flags=flags)


def _content(reader: apsw.Connection, path: Path, within_s: float) -> _Content:
    version = check_version(reader, path)
    if not version:
        return _Content(0, {}, None, "", whole=True)
    by_channel = counts(reader)
    open_ids = fetch(reader, "SELECT min(id) FROM delivery WHERE state<10")[0][0]
    oldest = fetch(reader, "SELECT received_ms FROM message WHERE id=?", (open_ids,)) if open_ids is not None else []
    damage, whole = _quick_check(reader, within_s)
    return _Content(version, by_channel, int(oldest[0][0]) if oldest else None, damage, whole)


def _quick_check(reader: apsw.Connection, within_s: float) -> tuple[str, bool]:
    ends_at = time.monotonic() + within_s
    reader.set_progress_handler(lambda: time.monotonic() > ends_at, _STEPS)
    try:
        said = str(fetch(reader, "PRAGMA quick_check(1)")[0][0])
    except apsw.InterruptError:
        return "", False
    return ("" if said == "ok" else said), True


def _text(path: Path, content: _Content) -> str:
    if not content.version:
        return "empty: it is filled in at the first start"
    states = dict.fromkeys(State, 0)
    for of_channel in content.by_channel.values():
        for state, number in of_channel.items():
            states[state] += number
    held = ", ".join(f"{number} {state.name.lower()}" for state, number in states.items() if number) or "no messages"
    checked = "sound" if content.whole and not content.damage else "not sound" if content.damage else "only partly read"
    return f"{checked}, {held}, {size_bytes(path) / (1 << 20):.1f} MiB, schema {content.version}"


def _findings(path: Path, content: _Content, now: datetime) -> Iterable[Finding]:
    where = str(path)
    if content.damage:
        text = "the spool is damaged: its pages contradict each other"
        remedy = (
            "check the disk; the agent sets the file aside and carries over what can be read when it meets the damage"
        )
        yield Finding("spool.damaged", Severity.ERROR, text, remedy, where)
    if not content.whole:
        text = "the spool is so large that not all of it could be checked in time"
        remedy = f"sqlite3 -readonly {path} 'PRAGMA quick_check' checks the rest"
        yield Finding("spool.not-all-checked", Severity.INFO, text, remedy, where)
    kept = [of_channel.get(state, 0) for of_channel in content.by_channel.values() for state in _FOR_A_PERSON]
    if held := sum(kept):
        text = f"{held} messages were not delivered and wait for a person"
        remedy = "look at the server's answers for them; the senders were told at the time"
        yield Finding("spool.held", Severity.WARNING, text, remedy, where)
    if content.oldest_ms is not None:
        since = datetime.fromtimestamp(content.oldest_ms / 1000, UTC)
        if (now - since).total_seconds() > OLD_S:
            waiting = sum(n for states in content.by_channel.values() for s, n in states.items() if not s.finished)
            text = f"{waiting} messages wait for the server, the oldest since {since:%Y-%m-%d %H:%M} UTC"
            remedy = "bring the way to the server back; they are delivered by themselves then"
            yield Finding("spool.old", Severity.WARNING, text, remedy, where)


def _set_aside(path: Path) -> Iterable[Finding]:
    """Damaged spools of other days."""
    try:
        found = sorted(path.parent.glob(f"{path.stem}.damaged-*{path.suffix}"))
    except OSError:
        return
    for file in found:
        text = "a damaged spool was set aside here; what could be read of it was carried over"
        remedy = "delete it when it is clear that nothing in it is missed"
        yield Finding("spool.set-aside", Severity.WARNING, text, remedy, str(file))
