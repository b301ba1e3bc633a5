"""What the spool holds, and whether it is sound.

Secret: how a file is read that its owner may be writing, and how long a look at all of it may take.
Promise: nothing is written, not even a log beside a file that was closed in an orderly way; what could not be looked at
in time is said.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import apsw

from agent.diagnostics.check import Looked
from agent.diagnostics.host import Host
from agent.errors import Finding, Severity, StoreError
from agent.store.peek import counts_by_direction
from agent.store.row import Direction, State, Trouble
from agent.store.sqlite import check_version, connect_reader, fetch, for_schema, size_bytes, trouble_of

CHECK_WITHIN_S: Final = 6.0
OLD_S: Final = 3_600.0
_FOR_A_PERSON: Final = (State.HELD, State.FAILED)
_WAITING: Final = {
    Direction.IN: ("the server", "bring the way to the server back; they are delivered by themselves then"),
    Direction.OUT: ("remotes", "agent status names the remotes that fail; they are delivered by themselves then"),
}
_STEPS: Final = 10_000  # of SQLite's virtual machine, between two looks at the clock


@dataclass(frozen=True, slots=True)
class _Content:
    """`damage`: what the quick check complains of, its first line. `whole`: it came to its end."""

    version: int
    counts: dict[Direction, Counter[State]]
    oldest_ms: dict[Direction, int]  # of the undelivered
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
        return _Content(0, {}, {}, "", whole=True)
    counts = {
        direction: sum((Counter(states) for states in by_name.values()), Counter[State]())
        for direction, by_name in counts_by_direction(reader).items()
    }
    oldest = fetch(
        reader,
        for_schema(
            "SELECT d.direction, m.received_ms FROM message m JOIN delivery d ON d.id=m.id WHERE d.id IN"
            " (SELECT min(d.id) FROM delivery d WHERE d.state<10 GROUP BY d.direction)",
            version,
        ),
    )
    damage, whole = _quick_check(reader, within_s)
    return _Content(version, counts, {Direction(way): int(came_ms) for way, came_ms in oldest}, damage, whole)


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
    numbers = ((state, sum(states[state] for states in content.counts.values())) for state in State)
    held = ", ".join(f"{number} {state.name.lower()}" for state, number in numbers if number) or "no messages"
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
    if held := sum(states[state] for states in content.counts.values() for state in _FOR_A_PERSON):
        text = f"{held} messages were not delivered and wait for a person"
        remedy = "agent messages list --state problem shows them, each with its reason"
        yield Finding("spool.held", Severity.WARNING, text, remedy, where)
    for direction, (waits_for, remedy) in _WAITING.items():
        oldest_ms = content.oldest_ms.get(direction)
        if oldest_ms is None:
            continue
        since = datetime.fromtimestamp(oldest_ms / 1000, UTC)
        if (now - since).total_seconds() > OLD_S:
            waiting = sum(number for state, number in content.counts[direction].items() if not state.finished)
            text = f"{waiting} messages wait for {waits_for}, the oldest since {since:%Y-%m-%d %H:%M} UTC"
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
