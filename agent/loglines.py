"""What stands in the log files, read again: a page for the server, lines for people.

Secret: how a whole line is told from a damaged one, in which order lines count when the clock was set back, and how a
line is laid out for people.
Promise: pages that follow each other lose and repeat no line; memory is bounded by a page and the lines of one
millisecond, however large the files are; what is laid out cannot steer a terminal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec

from agent.logfile import lines_backwards, list_files

THRESHOLDS: Final[Mapping[str, int]] = {"DEBUG": 10, "INFO": 20, "WARN": 30, "ERROR": 40, "NONE": 1_000}
WITHHELD: Final = "<withheld>"
PAGE_BYTES: Final = 900_000  # servers take frames of a million bytes, and a page travels with a little around it
# Lines stand in the order in which they were written, which is that of their stamps unless a clock was set back: at
# most as far as from the easternmost time zone, by a machine that took its local time for UTC.
DISORDER: Final = timedelta(hours=14)

_NOTICE_BYTES: Final = 256
_PARTS: Final = 1_000  # microseconds: a millisecond of more lines is not parted
_LONGEST_BYTES: Final = 1_000_000
_COLOURS: Final = {"DEBUG": "\x1b[2m", "INFO": "\x1b[32m", "WARN": "\x1b[33m", "ERROR": "\x1b[1;31m"}
_BLOCKS: Final = ("content", "exception")  # fields that are laid out below their line, line by line
_encode = msgspec.json.Encoder().encode


class _Head(msgspec.Struct, gc=False):
    level: str
    msg: str
    timestamp: Annotated[str, msgspec.Meta(pattern=r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\Z")]


_heads: msgspec.json.Decoder[_Head] = msgspec.json.Decoder(_Head)
_lines: msgspec.json.Decoder[dict[str, Any]] = msgspec.json.Decoder(dict[str, Any])
_STAMP: Final = b'"timestamp":"'
_STAMP_BYTES: Final = len("2026-11-22T07:43:42.115Z")


@dataclass(frozen=True, slots=True)
class Page:
    """Log lines, newest first. The next page is those before `next_before` (an instant, perhaps between two
    milliseconds, see `cursor_of`); None: there are none."""

    lines: list[dict[str, Any]]
    next_before: str | None


def stamp_of(moment: datetime) -> str:
    """A moment as lines are stamped, rounded up to the millisecond, so that `timestamp < stamp` says "before" exactly.

    Raises OverflowError for what is beyond the years 1 to 9999 in UTC.
    """
    utc = moment.astimezone(UTC) + timedelta(microseconds=-moment.microsecond % 1_000)
    return utc.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def cursor_of(moment: datetime) -> str:
    """An instant as a page's beginning: lines stamped before it count, and of those stamped with its millisecond as
    many of the oldest as it is microseconds into that. So a page may end between two lines of one millisecond.

    Raises OverflowError as `stamp_of`.
    """
    utc = moment.astimezone(UTC)
    precision = "microseconds" if utc.microsecond % 1_000 else "milliseconds"
    return utc.isoformat(timespec=precision).removesuffix("+00:00") + "Z"


def moment_of(stamp: str) -> datetime:
    """The moment of a line's `timestamp`; the epoch for one that is no date, as 2026-02-31."""
    try:
        return datetime.fromisoformat(stamp)
    except ValueError:
        return datetime.fromtimestamp(0, UTC)


def parse(raw: bytes) -> dict[str, Any] | None:
    """A line of a log file; None for one that is damaged."""
    try:
        _heads.decode(raw)
        return _lines.decode(raw)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def _stamp(raw: bytes) -> str:
    """Its stamp, if the line is whole; for one as we write it in a fraction of the time that parsing takes."""
    found = raw.find(_STAMP)
    if found < 0:
        line = parse(raw)
        return "" if line is None else str(line["timestamp"])
    begins = found + len(_STAMP)
    return raw[begins : begins + _STAMP_BYTES].decode("latin-1")


# ---- a page


def read_page(folder: Path, stem: str, limit: int, before: str | None = None, *, max_bytes: int = PAGE_BYTES) -> Page:
    """The newest lines of a series, or of those stamped before `before`; damaged ones are passed over.

    `before`: as `cursor_of` writes it. There are at most `limit` lines of `max_bytes` of JSON on a page; a line that
    alone exceeds `max_bytes` gives way to one that tells so. Only a millisecond of a thousand lines or more is not
    parted: its page is shorter, or longer, or tells how many of them it leaves out.
    """
    edge, rest = ("", 0) if before is None else _edge_of(before)
    newest = _Newest(limit, max_bytes, edge, rest)
    for path in reversed(list_files(folder, stem)):
        with suppress(OSError):  # pruned or taken away while we read
            if before is not None and _all_later(path, before):
                continue
            for _, raw in lines_backwards(path):
                stamp = _stamp(raw)
                if before is not None and stamp >= edge and not (rest and stamp == edge):
                    continue
                if stamp >= newest.oldest:
                    newest.add(stamp, raw)
                elif (stamp < newest.enough or not newest.more) and parse(raw) is not None:
                    newest.more = True
                    if stamp < newest.enough:
                        return newest.page()
    return newest.page()


def _edge_of(before: str) -> tuple[str, int]:
    """The millisecond in which a page begins, and how many of its oldest lines are on it."""
    if len(before) == _STAMP_BYTES:
        return before, 0
    return f"{before[: _STAMP_BYTES - 1]}Z", int(before[_STAMP_BYTES - 1 : -1])


def _all_later(path: Path, before: str) -> bool:
    """Whether the page needs nothing of this file; a look at its first line is enough."""
    with path.open("rb") as file:
        first = file.readline(_LONGEST_BYTES)
    return parse(first) is not None and _earlier(_stamp(first)) >= before


def _earlier(stamp: str) -> str:
    """What no line is older than that was written after one with this stamp."""
    try:
        return stamp_of(moment_of(stamp) - DISORDER)
    except OverflowError:
        return ""


class _Newest:
    """The newest lines among those added, newest files first: enough for a page, and for cutting it rightly.

    `edge`, `rest`: of the lines with this stamp only so many of the oldest. `oldest`: older lines are on later pages;
    `more`: there are such. `enough`: once an older line than this has come up, none will that belongs on the page.
    """

    def __init__(self, limit: int, max_bytes: int, edge: str, rest: int) -> None:
        self.oldest = ""
        self.enough = ""
        self.more = False
        self._limit = limit
        self._max_bytes = max_bytes - _NOTICE_BYTES
        self._edge = edge
        self._rest = rest
        self._edge_lines: list[tuple[str, int, dict[str, Any]]] = []  # of the millisecond in which the page begins
        self._lines: list[tuple[str, int, dict[str, Any]]] = []
        self._bytes = 0
        self._sift_at = (limit, self._max_bytes)  # above either of them

    def add(self, stamp: str, raw: bytes) -> None:
        line = parse(raw)
        if line is None or line["timestamp"] != stamp:
            return
        if stamp == self._edge:
            self._edge_lines.append((stamp, len(raw) + 1, line))
            return
        self._lines.append((stamp, len(raw) + 1, line))
        self._bytes += len(raw) + 1
        if len(self._lines) > self._sift_at[0] or self._bytes > self._sift_at[1]:
            self._sift()

    def page(self) -> Page:
        self._sort()
        self._lines[:0] = self._edge_lines[max(0, len(self._edge_lines) - self._rest) :]
        end = self._end()
        if end == len(self._lines):
            return Page([line for _, _, line in self._lines], None)
        edge = self._lines[end][0]
        left = sum(stamp == edge for stamp, _, _ in self._lines[end:])
        if end and self._lines[end - 1][0] == edge and left < _PARTS:
            return Page([line for _, _, line in self._lines[:end]], _between(edge, left))
        if not end and 1 < left <= _PARTS:
            return Page([_left_out(edge, 1)], _between(edge, left - 1))
        while end and self._lines[end - 1][0] == edge:
            end -= 1
        if end:
            return Page([line for _, _, line in self._lines[:end]], self._lines[end - 1][0])
        group = [entry for entry in self._lines if entry[0] == edge]
        fitting = self._fitting(group)
        lines = [line for _, _, line in group[:fitting]]
        if fitting < len(group):
            lines.append(_left_out(edge, len(group) - fitting))
        return Page(lines, edge if self.more or len(group) < len(self._lines) else None)

    def _sift(self) -> None:
        self._sort()
        end = self._end()
        if end == len(self._lines):
            return
        self.oldest = self._lines[end][0]
        self.enough = _earlier(self.oldest)
        kept = [entry for entry in self._lines if entry[0] >= self.oldest]
        self.more = self.more or len(kept) < len(self._lines)
        self._lines = kept
        self._bytes = sum(size for _, size, _ in self._lines)
        self._sift_at = (2 * len(self._lines), 2 * self._bytes)  # each line is sorted a few times, however many come

    def _sort(self) -> None:
        self._lines.sort(key=lambda entry: entry[0], reverse=True)  # stable: of one millisecond the last written first

    def _end(self) -> int:
        return min(self._limit, self._fitting(self._lines))

    def _fitting(self, lines: list[tuple[str, int, dict[str, Any]]]) -> int:
        room = self._max_bytes
        for number, (_, size, _) in enumerate(lines):
            room -= size
            if room < 0:
                return number
        return len(lines)


def _between(stamp: str, left: int) -> str:
    """The cursor after which so many lines with this stamp are still to come."""
    return f"{stamp[:-1]}{left:03d}Z"


def _left_out(stamp: str, lines: int) -> dict[str, Any]:
    return {"level": "WARN", "msg": "logs.left-out", "timestamp": stamp, "lines": lines}


# ---- for people


def readable(line: Mapping[str, Any], when: str, *, colours: bool) -> str:
    """`07:43:42.115 WARN  uplink.lost  code=1009 reason="too big"`: `when`, level, event, fields; no line end.

    A message's content and a traceback stand below it, indented.
    """
    level = str(line["level"])
    begin, dim, end = (_COLOURS.get(level, ""), "\x1b[2m", "\x1b[0m") if colours else ("", "", "")
    fields = " ".join(
        f"{_field(name)}={_field(value)}"
        for name, value in line.items()
        if name not in {"level", "msg", "timestamp", *_BLOCKS}
    )
    text = f"{dim}{when}{end} {begin}{harmless(level):<5}{end} {harmless(str(line['msg']))}"
    if fields:
        text += f"  {dim}{fields}{end}"
    for block in _BLOCKS:
        for part in _parts(line.get(block)):
            text += f"\n  {part}"
    return text


def local(stamp: str) -> str:
    """`2026-11-22 07:43:42.115`, in local time."""
    return moment_of(stamp).astimezone().isoformat(sep=" ", timespec="milliseconds")[:23]


def _parts(block: object) -> Iterator[str]:
    """Segments of a message (HL7 v2.5.1 §2.5: each ends in CR) or lines of a traceback."""
    if block is not None and (text := str(block).rstrip("\r\n")):
        for part in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
            yield harmless(part)


def _field(value: object) -> str:
    if isinstance(value, str) and value and value.isprintable() and " " not in value:
        return value
    try:
        return harmless(_encode(value).decode())
    except (TypeError, ValueError, OverflowError, RecursionError):
        return WITHHELD


def harmless(text: str) -> str:
    """JSON escapes the ASCII controls only; a terminal obeys others (ECMA-48 §5.3), and marks that turn text round."""
    return text if text.isprintable() else "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at] << 8 | units[at + 1]:04x}" for at in range(0, len(units), 2))
