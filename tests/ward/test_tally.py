"""Counting what became of the messages."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.ward.tally import KEPT_FAILURES, Failure, Ledger, Stopwatch, printable

outcomes = st.sampled_from(["AA", "AE", "AR", "CA", "CE", "CR", "time-out", "failure", "nothing yet"])


@given(st.lists(outcomes, max_size=60))
def test_every_message_has_exactly_one_outcome(fates: list[str]) -> None:
    ledger = Ledger()
    for fate in fates:
        ledger.send(100)
        match fate:
            case "time-out":
                ledger.time_out(b"1", 30)
            case "failure":
                ledger.fail(b"1", "connection lost")
            case "nothing yet":
                pass
            case code:
                ledger.answer(b"1", code, b"", 0.001)
    tally = ledger.tally(1.0)
    assert tally.sent == len(fates) == tally.answered + tally.timed_out + tally.failed + tally.in_flight
    assert tally.positive == fates.count("AA") + fates.count("CA")
    assert tally.all_positive == (bool(fates) and set(fates) <= {"AA", "CA"})
    assert tally.sent_bytes == 100 * len(fates)


def test_a_snapshot_never_changes() -> None:
    ledger = Ledger()
    ledger.send(10)
    before = ledger.tally(1.0)
    ledger.answer(b"1", "AA", b"", 0.001)
    assert (before.answered, before.in_flight) == (0, 1)
    with pytest.raises(TypeError):
        before.answers["AA"] = 1  # type: ignore[index]


def test_an_application_that_refuses_after_the_commit_spoils_the_run() -> None:
    ledger = Ledger()
    ledger.send(10)
    ledger.answer(b"7", "CA", b"", 0.001)
    assert ledger.tally(1.0).all_positive
    ledger.application_answer(b"7", "AE", b"no such patient")
    tally = ledger.tally(1.0)
    assert not tally.all_positive
    assert tally.sent == tally.answered == 1
    assert tally.failures == (Failure("7", "AE after CA no such patient"),)


def test_only_the_first_failures_are_kept_and_all_are_counted() -> None:
    ledger = Ledger()
    for number in range(50):
        ledger.send(10)
        ledger.fail(b"%d" % number, "lost")
    tally = ledger.tally(1.0)
    assert tally.failed == 50
    assert [failure.control_id for failure in tally.failures] == [str(n) for n in range(KEPT_FAILURES)]


@given(st.lists(st.floats(0.000_05, 300), min_size=1, max_size=300))
def test_percentiles_are_within_three_percent(durations_s: list[float]) -> None:
    stopwatch = Stopwatch()
    for duration_s in durations_s:
        stopwatch.record(duration_s)
    latency = stopwatch.latency()
    ordered = sorted(durations_s)
    for share, measured_ms in ((0.5, latency.p50_ms), (0.95, latency.p95_ms), (0.99, latency.p99_ms)):
        true_ms = ordered[math.ceil(share * len(ordered)) - 1] * 1e3
        assert measured_ms == pytest.approx(true_ms, rel=0.03)
    assert latency.max_ms == max(durations_s) * 1e3
    assert latency.count == len(durations_s)


def test_no_durations_make_no_latency() -> None:
    latency = Stopwatch().latency()
    assert (latency.count, latency.p50_ms, latency.p99_ms, latency.max_ms) == (0, 0, 0, 0)


@given(st.binary(max_size=2000))
def test_what_a_peer_says_cannot_move_the_cursor(text: bytes) -> None:
    assert printable(text).isprintable()
    assert len(printable(text)) <= 160
