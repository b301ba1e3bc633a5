"""When a message that was not accepted is tried again, and when no more.

Secret: the arithmetic of a RetryPolicy.
Promise: any policy gives a finite pause, never longer than it says; 0 attempts mean no limit.
"""

from __future__ import annotations

from random import Random
from typing import assert_never

from agent.spec import RetryMode, RetryPolicy


def attempt_limit(policy: RetryPolicy) -> int:
    """How many tries the policy allows; 0 = no limit."""
    match policy.mode:
        case RetryMode.NONE:
            return 1
        case RetryMode.NORMAL | RetryMode.GUARANTEED:
            return policy.max_attempts
        case _ as never:
            assert_never(never)


def backoff_s(policy: RetryPolicy, attempts: int, source: Random) -> float:
    """Exponential, jittered down by up to a quarter so that the rows of an outage do not return as one wave."""
    try:
        grown = policy.base_ms * policy.multiplier ** (attempts - 1)
    except OverflowError:
        grown = policy.max_ms
    return min(grown, policy.max_ms) / 1000 * source.uniform(0.75, 1.0)
