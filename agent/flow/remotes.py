"""Know the remotes that messages are pushed to: one pool each, by what the server calls them.

Secret: which spellings mean the same remote, what a changed configuration means for a pool that is at work, and when a
remote is forgotten.
Promise: two addresses that mean the same share one pool and its limits; a reload disturbs no pool whose settings stay,
and no message that is under way; a remote's trouble is known until it answers again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from agent.errors import ConfigError, Finding, Severity
from agent.failures import Failure, Kind
from agent.flow.analysers import AnalyserPool
from agent.flow.letters import Answered, Call, Dial, Outcome, Serving
from agent.flow.pool import Pool
from agent.metrics import RemoteMetrics
from agent.spec import Astm, RemoteSpec

SPELLINGS: Final = 2_000  # texts that are remembered, so that an address is read once and not for each message
AT_MOST: Final = 1_000  # remotes; beyond it the one that was idle for longest is forgotten
RECENT_S: Final = 600.0  # a failure that nothing has followed for so long is history
_OURS: Final = frozenset(  # what says nothing about the remote
    (Kind.BAD_MESSAGE, Kind.BAD_REMOTE, Kind.QUEUE_FULL, Kind.WAITED, Kind.STOPPING, Kind.NOT_STORED)
)

Read = Callable[[str], tuple[RemoteSpec, tuple[Finding, ...]]]
"""An address as the server wrote it → what it asks for, with what was odd about it. Raises ConfigError."""


@dataclass(slots=True)
class Remote:
    """One remote at work. `failure`: what went wrong last, while nothing has gone well since."""

    pool: Pool | AnalyserPool
    findings: tuple[Finding, ...] = ()
    used_at: float = 0.0
    taken_bytes: int = 0  # of messages that wait or are unanswered
    failure: Failure | None = None
    failed_at: float = 0.0
    refused: tuple[Finding, ...] = field(default=())  # why its new settings are not in force

    @property
    def spec(self) -> RemoteSpec:
        return self.pool.spec

    @property
    def metrics(self) -> RemoteMetrics:
        return self.pool.metrics


class Remotes:
    """`on_health(spec, failure)` hears when a remote begins to fail, and (None) when it answers again. `call` and
    `serving`: how analysers are reached, `dial`: all others."""

    def __init__(
        self,
        read: Read,
        *,
        dial: Dial,
        call: Call,
        serving: Serving,
        waiting_limit: Callable[[], int],
        on_health: Callable[[RemoteSpec, Failure | None], None],
        now: Callable[[], float],
    ) -> None:
        self.by_url: dict[str, Remote] = {}
        self.kept: Callable[[str], bool] = lambda url: False  # whether somebody still needs a remote that is idle
        self._read = read
        self._dial = dial
        self._call = call
        self._serving = serving
        self._waiting_limit = waiting_limit
        self._on_health = on_health
        self._now = now
        self._urls: dict[str, str] = {}
        self._stopping = False
        self._settled = asyncio.Event()

    def find(self, text: str) -> Remote:
        """The remote that the server means by `text`. Raises ConfigError."""
        url = self._urls.get(text)
        remote = self.by_url.get(url) if url is not None else None
        if remote is None:
            spec, findings = self._read(text)
            if len(self._urls) >= SPELLINGS:
                self._urls.clear()
            self._urls[text] = spec.url
            remote = self.by_url.get(spec.url) or self._add(spec)
            remote.findings = findings
        remote.used_at = self._now()
        return remote

    def note(self, remote: Remote, outcome: Outcome) -> None:
        """What became of a message for this remote."""
        self._settled.set()
        if isinstance(outcome, Answered):
            if remote.failure is not None:
                remote.failure = None
                self._on_health(remote.spec, None)
            return
        failure = outcome.failure
        if failure.kind in _OURS:
            return
        news = remote.failure is None or remote.failure.kind is not failure.kind
        remote.failure, remote.failed_at = failure, self._now()
        if news:
            self._on_health(remote.spec, failure)

    def reconfigure(self) -> None:
        """Settings may have changed: those of this host, or those of the agent on the server."""
        self._urls.clear()
        for url, remote in self.by_url.items():
            try:
                spec, remote.findings = self._read(url)
            except ConfigError as error:
                remote.refused = error.findings
                continue
            remote.refused = ()
            remote.pool.respec(spec)

    def findings(self) -> Iterator[Finding]:
        """What a person should know about remotes."""
        now = self._now()
        for remote in self.by_url.values():
            yield from remote.findings
            yield from remote.refused
            if isinstance(remote.pool, AnalyserPool):
                yield from remote.pool.findings()
            failure = remote.failure
            if failure is not None and now - remote.failed_at < RECENT_S:
                where = remote.spec.where
                remedy = failure.remedy or "check the remote and the network"
                yield Finding(f"remote.{failure.kind}", Severity.WARNING, failure.for_log, remedy, where)

    def stop(self) -> None:
        """Begin nothing more; what is written may yet be answered."""
        self._stopping = True
        for remote in self.by_url.values():
            remote.pool.stop()

    def abort(self) -> None:
        """End everything now."""
        for remote in self.by_url.values():
            remote.pool.abort()

    async def settled(self) -> None:
        """Until nothing waits and nothing is unanswered."""
        while any(remote.pool.busy for remote in self.by_url.values()):
            self._settled.clear()
            await self._settled.wait()

    def _add(self, spec: RemoteSpec) -> Remote:
        if len(self.by_url) >= AT_MOST:
            self._forget_one()
        pool = self._pool(spec)
        if self._stopping:
            pool.stop()
        remote = self.by_url[spec.url] = Remote(pool)
        return remote

    def _pool(self, spec: RemoteSpec) -> Pool | AnalyserPool:
        metrics, limit = RemoteMetrics(), self._waiting_limit()
        if isinstance(spec.wire, Astm):
            return AnalyserPool(spec, serving=self._serving, call=self._call, metrics=metrics, waiting_limit=limit)
        return Pool(spec, dial=self._dial, metrics=metrics, waiting_limit=limit)

    def _forget_one(self) -> None:
        idle = [(remote.used_at, url) for url, remote in self.by_url.items() if remote.pool.idle and not self.kept(url)]
        if idle:
            del self.by_url[min(idle)[1]]
            self._urls.clear()
