"""When a message is tried again."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.flow.policy import attempt_limit, backoff_s
from agent.spec import RetryMode, RetryPolicy


@pytest.mark.parametrize(
    ("policy", "limit"),
    [
        (RetryPolicy(RetryMode.NONE, max_attempts=7), 1),
        (RetryPolicy(RetryMode.NORMAL, max_attempts=7), 7),
        (RetryPolicy(RetryMode.NORMAL, max_attempts=0), 0),
        (RetryPolicy(RetryMode.GUARANTEED), 0),
        (RetryPolicy(RetryMode.GUARANTEED, max_attempts=7), 7),
    ],
)
def test_how_often_a_message_is_tried(policy: RetryPolicy, limit: int) -> None:
    assert attempt_limit(policy) == limit


def test_the_pause_doubles_up_to_the_longest() -> None:
    policy = RetryPolicy(base_ms=1_000, max_ms=60_000, multiplier=2.0)
    longest = [max(backoff_s(policy, attempt, Random(seed)) for seed in range(200)) for attempt in range(1, 9)]
    assert [round(pause) for pause in longest] == [1, 2, 4, 8, 16, 32, 60, 60]


@given(st.integers(1, 10**6), st.integers(1, 10**9), st.floats(1, 1e9), st.integers(1, 10**6), st.integers(0, 2**32))
def test_any_policy_gives_a_pause_between_three_quarters_and_the_whole(
    base_ms: int, max_ms: int, multiplier: float, attempts: int, seed: int
) -> None:
    pause = backoff_s(RetryPolicy(base_ms=base_ms, max_ms=max_ms, multiplier=multiplier), attempts, Random(seed))
    assert 0.75 * min(base_ms, max_ms) / 1000 <= pause <= max_ms / 1000
