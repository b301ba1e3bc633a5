from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.metrics import BUCKETS, ChannelMetrics, Histogram, RemoteMetrics, rtt_json

durations_s = st.floats(min_value=1e-6, max_value=9_999, allow_nan=False)


def recorded(*seconds: float) -> Histogram:
    histogram = Histogram()
    for each in seconds:
        histogram.record(each)
    return histogram


def test_before_the_first_measurement_everything_says_unmeasured() -> None:
    assert rtt_json(Histogram(), 3) == {
        "count": 0, "min": -1, "max": -1, "average": -1, "p50": -1, "p95": -1, "p99": -1, "pendingCount": 3,
    }  # fmt: skip


def test_a_single_round_trip_is_every_percentile() -> None:
    assert rtt_json(recorded(0.012345), 0) == {
        "count": 1, "min": 12.35, "max": 12.35, "average": 12.35,
        "p50": 12.35, "p95": 12.35, "p99": 12.35, "pendingCount": 0,
    }  # fmt: skip


@given(st.lists(durations_s, min_size=1, max_size=300), st.integers(0, 100))
def test_a_percentile_is_within_three_per_cent_of_the_true_one(seconds: list[float], p: int) -> None:
    true_ms = sorted(seconds)[max(1, math.ceil(p / 100 * len(seconds))) - 1] * 1000
    assert recorded(*seconds).percentile(p) == pytest.approx(true_ms, rel=0.03)


@given(st.lists(durations_s, min_size=1, max_size=300))
def test_the_extremes_and_the_mean_are_exact(seconds: list[float]) -> None:
    histogram = recorded(*seconds)
    assert histogram.min == pytest.approx(min(seconds) * 1000)
    assert histogram.max == pytest.approx(max(seconds) * 1000)
    assert histogram.mean == pytest.approx(sum(seconds) / len(seconds) * 1000)


@given(st.lists(st.floats(min_value=-1, max_value=1e9, allow_nan=False), max_size=100))
def test_any_duration_is_counted_and_memory_stays_the_same(seconds: list[float]) -> None:
    histogram = recorded(*seconds)
    assert histogram.count == len(seconds)
    assert len(histogram._buckets) == BUCKETS
    assert sum(histogram._buckets) == len(seconds)


def test_a_clock_that_stepped_back_counts_as_no_time() -> None:
    assert recorded(-0.5).min == 0


@given(st.lists(durations_s, max_size=200))
def test_a_snapshot_counts_upwards_like_a_prometheus_histogram(seconds: list[float]) -> None:
    now = recorded(*seconds).snapshot()
    bounds = [bound for bound, _ in now.cumulative]
    counts = [count for _, count in now.cumulative]
    assert bounds == sorted(bounds)
    assert bounds[0] == pytest.approx(0.0001)
    assert bounds[-1] == pytest.approx(100)
    assert counts == sorted(counts)
    for bound, count in now.cumulative:
        # a duration that lies on a bound to the last digit may fall on either side of it
        assert sum(s < bound * 0.999999 for s in seconds) <= count <= sum(s <= bound * 1.000001 for s in seconds)


def test_a_snapshot_does_not_move_with_its_histogram() -> None:
    histogram = recorded(0.1)
    before = histogram.snapshot()
    histogram.record(0.5)
    assert (before.count, before.max_s) == (1, 0.1)


@pytest.mark.parametrize("p", [-1, 100.5])
def test_a_percentile_outside_its_range_is_a_mistake_of_the_caller(p: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 100"):
        recorded(0.1).percentile(p)


def test_a_channel_has_no_room_for_anything_but_its_numbers() -> None:
    metrics = ChannelMetrics()
    metrics.received += 1
    with pytest.raises(AttributeError):
        metrics.last_patient = "DOE^JOHN"  # type: ignore[attr-defined]
    assert metrics.received == 1


def test_what_failed_towards_a_remote_is_counted_by_kind_and_the_last_reason_is_kept() -> None:
    metrics = RemoteMetrics()
    assert (metrics.failed, metrics.last_error) == ({}, "")
    for kind, why in (("silent", "no answer within 30 s"), ("dns", "no address"), ("silent", "no answer within 5 s")):
        metrics.fail(kind, why)
    assert metrics.failed == {"silent": 2, "dns": 1}
    assert metrics.last_error == "no answer within 5 s"


def test_a_remote_has_no_room_for_anything_but_its_numbers_and_its_last_error() -> None:
    with pytest.raises(AttributeError):
        RemoteMetrics().last_message = b"PID|1||4711"  # type: ignore[attr-defined]
