"""How long to wait before the next try."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from agent.backoff import Backoff, pause


def test_waits_double_up_to_the_limit_and_start_again_after_a_success() -> None:
    backoff = Backoff(1.0, 10.0, draw=lambda: 0.0)

    assert [backoff.next() for _ in range(6)] == [1, 2, 4, 8, 10, 10]
    backoff.reset()
    assert backoff.next() == 1


def test_jitter_shortens_and_never_lengthens() -> None:
    backoff = Backoff(4.0, 4.0, jitter=0.5, draw=lambda: 1.0)

    assert backoff.next() == 2.0


@given(
    base_s=st.floats(0.001, 100),
    max_s=st.floats(0.001, 1000),
    multiplier=st.floats(1, 10),
    jitter=st.floats(0, 1),
    draws=st.lists(st.floats(0, 1), min_size=1, max_size=2000),
)
def test_no_wait_is_negative_or_above_the_limit(
    base_s: float, max_s: float, multiplier: float, jitter: float, draws: list[float]
) -> None:
    remaining = iter(draws)
    backoff = Backoff(base_s, max_s, multiplier=multiplier, jitter=jitter, draw=lambda: next(remaining))

    for _ in draws:
        assert 0 <= backoff.next() <= max_s


async def test_a_pause_ends_when_it_is_over_or_somebody_wakes_it() -> None:
    wake = asyncio.Event()
    await pause(wake, 0.01)
    assert not wake.is_set()

    wake.set()
    async with asyncio.timeout(5):
        await pause(wake, 3600)
