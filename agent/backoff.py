"""Say how long to wait before the next try.

Secret: how waits grow and how they are spread, so that a thousand agents do not come back in the same second.
Promise: no wait is longer than `max_s`, none is negative, and they grow until something works again.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable


class Backoff:
    """Waits of `base_s`, times `multiplier` at each failure, up to `max_s`; each shortened at random by up to `jitter`.

    `jitter` is a share from 0 to 1. The draw only ever shortens, so that `max_s` is a bound and not an average.
    """

    def __init__(
        self,
        base_s: float,
        max_s: float,
        *,
        multiplier: float = 2.0,
        jitter: float = 0.25,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._base_s = base_s
        self._max_s = max_s
        self._multiplier = multiplier
        self._jitter = jitter
        self._draw = draw
        self._wait_s = base_s

    def next(self) -> float:
        """Seconds to wait now; the next call answers more."""
        wait_s = min(self._wait_s, self._max_s)
        self._wait_s = min(wait_s * self._multiplier, self._max_s)  # bounded here too: it may fail for weeks
        return wait_s * (1 - self._jitter * self._draw())

    def reset(self) -> None:
        """It worked: the next wait is a short one again."""
        self._wait_s = self._base_s


async def pause(wake: asyncio.Event, seconds: float) -> None:
    """Wait until somebody sets `wake`, but no longer than this."""
    try:
        async with asyncio.timeout(seconds):
            await wake.wait()
    except TimeoutError:
        return
