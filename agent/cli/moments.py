"""Points in time, as people type them.

Secret: which words are a time, and which moment a time of day means.
Promise: a word that is none is a usage error that shows how one looks.
"""

from __future__ import annotations

import argparse
import re
from datetime import UTC, datetime, time, timedelta
from typing import Final, assert_never

Moment = datetime | time | timedelta  # as typed: a moment, a time of day, so long ago

_SPAN: Final = re.compile(r"(\d{1,4}(?:\.\d{1,3})?) ?(s|m|min|h|d|w)", re.ASCII)
_SPAN_S: Final = {"s": 1, "m": 60, "min": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_CLOCK: Final = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?", re.ASCII)


def moment(word: str) -> Moment:
    """For argparse: `2h`, `30min`, `03:00` or `2026-11-22T03:00`; local time where it names no zone."""
    if span := _SPAN.fullmatch(word):
        return timedelta(seconds=float(span[1]) * _SPAN_S[span[2]])
    if clock := _CLOCK.fullmatch(word):
        return time(int(clock[1]), int(clock[2]), int(clock[3] or 0))
    try:
        found = datetime.fromisoformat(word)
        if found.year < 1971 or found.year > 9998:
            raise ValueError
        return found.astimezone()
    except (ValueError, OverflowError, OSError):
        raise argparse.ArgumentTypeError(
            f"{word!r} is no time: write 2h, 30min or 7d for so long ago, 03:00, or 2026-11-22T03:00"
        ) from None


def at(moment: Moment, now: datetime) -> datetime:
    """When it was, seen from `now`: a time of day is the last one before it."""
    match moment:
        case timedelta():
            return now - moment
        case time():
            return _last_before(moment, now)
        case datetime():
            return moment
        case _ as never:
            assert_never(never)


def interval(since: Moment | None, until: Moment | None, now: datetime) -> tuple[int | None, int | None]:
    """Both in milliseconds since the epoch. A time of day is the last one before `now`; for `until`, where `since`
    is later than that, the first one after `since`: 23:00 to 01:00 is one night.
    """
    since_ms = None if since is None else _ms(at(since, now))
    until_ms = None if until is None else _ms(at(until, now))
    if isinstance(until, time) and since_ms is not None and until_ms is not None and until_ms <= since_ms:
        began = datetime.fromtimestamp(since_ms / 1_000).astimezone()
        until_ms = max(until_ms, _ms(_last_before(until, began + timedelta(days=1))))
    return since_ms, until_ms


def _last_before(clock: time, now: datetime) -> datetime:
    today = datetime.combine(now.date(), clock)
    found = today.astimezone()
    return found if found <= now else (today - timedelta(days=1)).astimezone()


def _ms(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
