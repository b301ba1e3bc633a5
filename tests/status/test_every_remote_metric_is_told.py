"""Whatever is counted towards a remote reaches everybody who asks: a metric that is added and forgotten fails here."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agent.cli.lines import plain
from agent.cli.status_screen import compose
from agent.metrics import Histogram, RemoteMetrics
from agent.spec import RemoteSpec
from agent.status import ClientStatus, StatusReport, prometheus, to_builtins, wire_stats

Told = dict[str, set[str]]
NOT_ON_THE_SCREEN = {"connections_total", "rtt"}  # open ones and reconnects are, and percentiles without their number
NO_NUMBER = {"last_error"}


@pytest.fixture(scope="module")
def marks() -> dict[str, str]:
    """For each metric a value that no other number of a report has, as text."""
    return {name: f"{1009 + 2 * number}" for number, name in enumerate(RemoteMetrics.__slots__)}


@pytest.fixture
def told(marks: dict[str, str], report: Callable[..., StatusReport]) -> Told:
    """All the numbers and texts in what each reader gets of a remote whose metrics have these values."""
    metrics = RemoteMetrics()
    for name, mark in marks.items():
        match getattr(metrics, name):
            case int():
                setattr(metrics, name, int(mark))
            case str():
                setattr(metrics, name, mark)
            case dict() as by_kind:
                by_kind["unframed"] = int(mark)
            case Histogram() as durations:
                for _ in range(int(mark)):
                    durations.record(0.001)
            case other:
                pytest.fail(f"{name} is {other!r}: say here how one of this kind is filled in")
    spec = RemoteSpec("mllp://lab:2575", "lab", 2575)
    whole = report(clients=(ClientStatus.of(metrics, spec=spec, stored=0, oldest_stored_seconds=None),))
    return {
        "json": set(leaves(to_builtins(whole)["clients"])),
        "wire": set(leaves(wire_stats(whole)["clientStats"])),
        "metrics": {line.rsplit(" ", 1)[1] for line in prometheus(whole).splitlines() if "client_" in line},
        "screen": set(re.findall(r"\d+", plain(compose(whole, now_s=0)))),
    }


def leaves(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for each in value:
            yield from leaves(each)
    else:
        yield str(value)


def test_the_json_of_status_tells_every_metric_of_a_remote(marks: dict[str, str], told: Told) -> None:
    assert {name for name, mark in marks.items() if mark not in told["json"]} == set()


def test_the_servers_stats_tell_every_metric_of_a_remote(marks: dict[str, str], told: Told) -> None:
    assert {name for name, mark in marks.items() if mark not in told["wire"]} == set()


def test_monitoring_is_told_every_metric_of_a_remote_that_is_a_number(marks: dict[str, str], told: Told) -> None:
    assert {name for name, mark in marks.items() if mark not in told["metrics"]} == NO_NUMBER


def test_the_screen_shows_every_metric_of_a_remote(marks: dict[str, str], told: Told) -> None:
    assert {name for name, mark in marks.items() if mark not in told["screen"]} == NOT_ON_THE_SCREEN
