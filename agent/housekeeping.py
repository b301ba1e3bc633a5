"""What the daemon does now and then: let history go, and write its counters down.

Secret: when it is time. Retention follows this host's settings, then the server's; a disk that gets full makes it come
at once and keep half, for what is new matters more.
Promise: nothing here is in anybody's way: small steps, and a failure is logged and tried again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import structlog

from agent.backoff import pause
from agent.plan import AgentSettings
from agent.settings import SpoolSettings
from agent.store.retention import RetentionPolicy, Swept, sweep
from agent.store.spool import Spool

log = structlog.get_logger("main")

FIRST_SWEEP_S: Final = 60.0
ASK_AGAIN_S: Final = 10.0  # whether the server wants the counters in the log


class Housekeeping:
    """`local` and `remote` are asked each time: both change with a reload. `swept`: the last sweep."""

    def __init__(
        self, spool: Spool, *, local: Callable[[], SpoolSettings], remote: Callable[[], AgentSettings]
    ) -> None:
        self.swept: Swept | None = None
        self._spool = spool
        self._local = local
        self._remote = remote
        self._now = asyncio.Event()

    def hurry(self) -> None:
        """The disk gets full."""
        self._now.set()

    async def sweep(self) -> None:
        """Let history go when it is due, for ever."""
        await pause(self._now, FIRST_SWEEP_S)
        while True:
            hurry = self._now.is_set()
            self._now.clear()
            policy = self._retention(hurry=hurry)
            self.swept = await sweep(self._spool, policy)
            if self.swept.error:
                log.warning("spool.not-swept", reason=self.swept.error)
            elif self.swept.deleted:
                log.info("spool.swept", deleted=self.swept.deleted, hurry=hurry)
            await pause(self._now, policy.sweep_interval_s)

    def _retention(self, *, hurry: bool) -> RetentionPolicy:
        local, remote = self._local(), self._remote()
        max_mb = _first(local.retention_max_mb, remote.queue_retention_max_mb)
        return RetentionPolicy(
            _first(local.retention_days, remote.queue_retention_days),
            _first(local.errored_retention_days, remote.queue_errored_retention_days),
            min(max_mb, self._spool.size_bytes / 2_000_000) if hurry else max_mb,
            remote.queue_sweep_interval_s,
        )

    async def log_stats(self, stats: Callable[[], dict[str, Any]]) -> None:
        """Write the counters into the main log as often as the server asks for it (logStatsFreqSecs), for ever."""
        while True:
            every_s = self._remote().log_stats_freq_s
            await asyncio.sleep(every_s or ASK_AGAIN_S)
            if every_s:
                log.info("agent.stats", stats=stats())


def _first(local: float | None, remote: float) -> float:
    return remote if local is None else local
