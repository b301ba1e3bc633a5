"""When to try again, from what was said in several places."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import Finding, Severity
from agent.plan.kind import Kind
from agent.plan.options import BY_PARAMETER
from agent.plan.retry import PARAMETERS, RetryWish, mode_of_older_switches
from agent.plan.subject import Family, Subject
from agent.spec import RetryMode, RetryPolicy

LAB = Subject(Family.REMOTE, "lab.example:2575")
WISHES = st.builds(
    RetryWish,
    mode=st.none() | st.sampled_from(RetryMode),
    base_ms=st.none() | st.integers(1, 86_400_000),
    max_ms=st.none() | st.integers(1, 86_400_000),
    max_attempts=st.none() | st.integers(0, 1_000_000),
    multiplier=st.none() | st.floats(1, 100),
)


def _policy(wish: RetryWish) -> RetryPolicy:
    problems: list[Finding] = []
    policy = wish.policy(LAB, problems)
    assert problems == []
    return policy


def test_who_says_nothing_gets_the_default() -> None:
    assert _policy(RetryWish()) == RetryPolicy()


@pytest.mark.parametrize(
    ("wish", "attempts"),
    [
        (RetryWish(mode=RetryMode.NONE), 1),
        (RetryWish(mode=RetryMode.NONE, max_attempts=7), 1),
        (RetryWish(mode=RetryMode.NORMAL), 10),
        (RetryWish(mode=RetryMode.NORMAL, max_attempts=7), 7),
        (RetryWish(mode=RetryMode.NORMAL, max_attempts=0), 0),
        (RetryWish(mode=RetryMode.GUARANTEED), 0),
        (RetryWish(max_attempts=7), 7),
    ],
)
def test_how_often_depends_on_the_mode_and_on_what_was_said(wish: RetryWish, attempts: int) -> None:
    assert _policy(wish).max_attempts == attempts


def test_every_value_finds_its_place() -> None:
    values = {
        "retryMode": RetryMode.NORMAL,
        "autoRetryBaseDelayMs": 10,
        "autoRetryMaxDelayMs": 20,
        "autoRetryMaxAttempts": 3,
        "autoRetryBackoffMultiplier": 1.5,
        "encoding": "utf-8",
    }

    assert _policy(RetryWish.of(values)) == RetryPolicy(RetryMode.NORMAL, 10, 20, 3, 1.5)


def test_the_names_are_those_of_an_address() -> None:
    for kind in Kind:
        assert set(PARAMETERS.values()) <= set(BY_PARAMETER[kind])


def test_a_first_delay_beyond_the_usual_longest_one_raises_that() -> None:
    assert _policy(RetryWish(base_ms=90_000)).max_ms == 90_000


def test_a_longest_delay_that_is_shorter_than_the_first_is_told() -> None:
    problems: list[Finding] = []

    assert RetryWish(base_ms=5_000, max_ms=1_000).policy(LAB, problems).max_ms == 5_000

    (problem,) = problems
    assert (problem.code, problem.severity) == ("remote.bad-value", Severity.WARNING)
    assert problem.text.startswith("autoRetryMaxDelayMs: ")


@given(WISHES, WISHES)
def test_what_is_said_wins_value_by_value(stronger: RetryWish, weaker: RetryWish) -> None:
    both = stronger.over(weaker)

    for field in PARAMETERS:
        said = getattr(stronger, field)
        assert getattr(both, field) == (getattr(weaker, field) if said is None else said)


def test_no_limit_is_something_said() -> None:
    assert RetryWish(max_attempts=0).over(RetryWish(max_attempts=7)).max_attempts == 0


@given(WISHES)
def test_every_policy_is_complete_and_in_order(wish: RetryWish) -> None:
    policy = wish.policy(LAB, [])

    assert policy.base_ms <= policy.max_ms
    assert (policy.mode is RetryMode.NONE) <= (policy.max_attempts == 1)


@pytest.mark.parametrize(
    ("auto", "guaranteed", "mode"),
    [
        (None, None, None),
        (True, None, RetryMode.NORMAL),
        (False, None, RetryMode.NONE),
        (None, False, RetryMode.NORMAL),
        (False, False, RetryMode.NONE),
        (False, True, RetryMode.GUARANTEED),
    ],
)
def test_older_switches(auto: bool | None, guaranteed: bool | None, mode: RetryMode | None) -> None:
    assert mode_of_older_switches(auto, guaranteed) == mode
