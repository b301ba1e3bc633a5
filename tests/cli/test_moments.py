"""Points in time, as people type them."""

from __future__ import annotations

import argparse
from datetime import datetime, time, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cli.moments import Moment, at, interval, moment

NOW = datetime(2026, 11, 22, 12, 0).astimezone()


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("2h", timedelta(hours=2)), ("30min", timedelta(minutes=30)), ("90 s", timedelta(seconds=90)),
        ("1.5d", timedelta(hours=36)), ("2w", timedelta(days=14)), ("5m", timedelta(minutes=5)),
        ("03:00", time(3)), ("7:05", time(7, 5)), ("23:59:58", time(23, 59, 58)),
        ("2026-11-22T03:00", datetime(2026, 11, 22, 3).astimezone()),
        ("2026-11-22", datetime(2026, 11, 22).astimezone()),
        ("2026-11-22T03:00:00+01:00", datetime.fromisoformat("2026-11-22T03:00:00+01:00")),
    ],
)  # fmt: skip
def test_a_moment_may_be_typed_in_several_ways(word: str, meant: Moment) -> None:
    assert moment(word) == meant


@pytest.mark.parametrize("word", ["", "soon", "2", "-2h", "25:00", "12:60", "99999h", "1969-01-01", "9999-12-31", "٢h"])
def test_what_is_none_is_told_how_one_looks(word: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is no time: write 2h, 30min or 7d"):
        moment(word)


@given(st.text())
def test_any_word_is_a_moment_or_wrong_usage(word: str) -> None:
    try:
        found = moment(word)
    except argparse.ArgumentTypeError:
        return
    assert at(found, NOW).tzinfo is not None


@pytest.mark.parametrize(
    ("word", "when"),
    [
        ("2h", NOW - timedelta(hours=2)),
        ("11:59", NOW - timedelta(minutes=1)),
        ("12:01", NOW - timedelta(minutes=1_439)),
    ],
)
def test_a_time_of_day_is_the_last_one(word: str, when: datetime) -> None:
    assert at(moment(word), NOW) == when


def test_an_interval_over_midnight_is_one_night() -> None:
    since_ms, until_ms = interval(time(23), time(1), NOW)
    assert since_ms is not None
    assert until_ms is not None
    assert until_ms - since_ms == 2 * 3_600_000
    assert interval(None, None, NOW) == (None, None)
