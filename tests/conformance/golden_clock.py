"""Run the agent with a clock that can be moved on, so that nobody waits half a minute for its next try.

Secret: how seconds are skipped in a process that is otherwise the agent as it is: the clocks of the `time` module and
the selector of asyncio's own loop.
Promise: time goes as ever, but for the seconds that a line on stdin names: they are over at once, as soon as nothing
was heard on any connection for QUIET_S, so that whatever waits for them is waiting already.

As a program: `python golden_clock.py run …` is `agent run …`.
"""

from __future__ import annotations

import asyncio
import os
import runpy
import selectors
import sys
import time

QUIET_S = 0.4
STDIN = 0

_monotonic = time.monotonic
_clock_gettime = time.clock_gettime


class SkippingSelector(selectors.DefaultSelector):
    """A loop's selector that is told on `told`, a pipe, how many seconds to skip.

    `skipped_s`: how far the loop's clock is ahead of the system's.
    """

    def __init__(self, told: int) -> None:
        super().__init__()
        self.skipped_s = 0.0
        self._told = told
        self._to_skip_s = 0.0
        self._quiet_since = _monotonic()
        self.register(told, selectors.EVENT_READ)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self._to_skip_s:
            quiet_s = max(self._quiet_since + QUIET_S - _monotonic(), 0.0)
            timeout = quiet_s if timeout is None else min(timeout, quiet_s)
        ready = super().select(timeout)
        heard = [(key, events) for key, events in ready if key.fd != self._told]
        if len(heard) < len(ready):
            self._read()
        if ready:
            self._quiet_since = _monotonic()
        elif self._to_skip_s and _monotonic() - self._quiet_since >= QUIET_S:
            self.skipped_s += self._to_skip_s
            self._to_skip_s = 0.0
        return heard

    def _read(self) -> None:
        said = os.read(self._told, 4096)
        if not said:
            self.unregister(self._told)
        self._to_skip_s += sum(float(seconds) for seconds in said.split())


class SkippingPolicy(asyncio.DefaultEventLoopPolicy):
    """Every loop of this process has the one selector."""

    def __init__(self, selector: SkippingSelector) -> None:
        super().__init__()
        self._selector = selector

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.SelectorEventLoop(self._selector)


def main() -> None:
    """Become the agent. Nothing of it is imported yet, so that it gets to see no other clock than this."""
    selector = SkippingSelector(STDIN)
    time.monotonic = lambda: _monotonic() + selector.skipped_s
    time.clock_gettime = lambda clock: _clock_gettime(clock) + selector.skipped_s
    sys.modules["uvloop"] = None  # type: ignore[assignment]  # its clock is its own; without it, asyncio's loop is taken
    asyncio.set_event_loop_policy(SkippingPolicy(selector))
    runpy.run_module("agent", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
