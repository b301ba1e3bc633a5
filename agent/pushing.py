"""The way out: what the server pushes to remotes, from the request to the remote's answer.

Secret: how pools, outbox and connections are wired to each other and to this host's settings.
Promise: a push is answered whatever becomes of it; a reload changes only the remotes whose settings changed; a stop
lets what is written be answered, and leaves what is durable on disk.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import structlog

from agent.errors import Finding
from agent.failures import Failure
from agent.flow.letters import Outcome, Serving
from agent.flow.outbox import Outbox
from agent.flow.pusher import ContentLog, Pusher, PushLimits, response_to
from agent.flow.remotes import Remotes
from agent.net.astmcall import AstmCalls
from agent.net.outbound import Outbound
from agent.net.probe import probe
from agent.plan import AgentSettings
from agent.plan.remote import read_remote
from agent.protocol.envelope import PushResponse
from agent.settings import Settings
from agent.spec import RemoteSpec
from agent.status import ClientStatus
from agent.store.row import Row
from agent.store.spool import Spool

log = structlog.get_logger("main")


class Pushing:
    """`settings` and `agent_settings` are asked each time: both change. `allowed`: whether anything may be sent;
    `answer` tells the server, and says whether it could at once; `lines`: which channel serves an analyser."""

    def __init__(
        self,
        *,
        settings: Callable[[], Settings],
        agent_settings: Callable[[], AgentSettings],
        allowed: Callable[[], bool],
        answer: Callable[[PushResponse], bool],
        content_log: ContentLog | None,
        now_ms: Callable[[], int],
        lines: Serving,
    ) -> None:
        self._settings = settings
        self._agent_settings = agent_settings
        self._answer = answer
        self._lines = Outbound()
        self._calls = AstmCalls()
        self.remotes = Remotes(
            self._read,
            dial=self._lines.dial,
            call=self._calls.call,
            serving=lines,
            waiting_limit=lambda: settings().outbound.waiting_per_remote,
            on_health=_note_health,
            now=time.monotonic,
        )
        self.outbox = Outbox(self.remotes, tell=self._tell, allowed=allowed, now_ms=now_ms)
        self.pusher = Pusher(self.remotes, self.outbox, limits=self._limits, content_log=content_log)

    async def run(self) -> None:
        """Own the connections, for ever; cancelled, they end."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._lines.run(), name="lines")
                tasks.create_task(self._calls.run(), name="calls")
        finally:
            self.remotes.abort()

    def connect(self, spool: Spool) -> None:
        """Take up what the spool holds for remotes; it goes out with the next `reconfigure`. Raises SpoolTrouble."""
        self.outbox.connect(spool)

    def reconfigure(self) -> None:
        """Settings have changed, or sending may begin."""
        self.remotes.reconfigure()
        self.outbox.pump()

    async def drain(self) -> None:
        """Begin nothing more, and wait for the answers to what is written; cancelled, tell the server what has none."""
        self.outbox.stop()
        self.remotes.stop()
        try:
            await self.remotes.settled()
        finally:
            self.remotes.abort()

    async def probe(self, host: str, port: int, secure: bool) -> float:
        """Connect and hang up; seconds that it took. Raises LinkError."""
        spec = RemoteSpec(f"{'mllps' if secure else 'mllp'}://{host}:{port}", host, port, secure=secure)
        return await probe(host, port, spec=spec)

    def findings(self) -> Iterator[Finding]:
        yield from self.remotes.findings()
        yield from self.outbox.findings()
        yield from self._lines.findings(datetime.now(UTC))

    def statuses(self) -> Iterator[ClientStatus]:
        """Every remote that was pushed to since the start, or for which something is stored."""
        now_s = time.time()
        for url, remote in sorted(self.remotes.by_url.items()):
            stored, oldest_ms = self.outbox.stored(url)
            age_s = None if oldest_ms is None else max(0.0, round(now_s - oldest_ms / 1000, 1))
            yield ClientStatus.of(remote.metrics, spec=remote.spec, stored=stored, oldest_stored_seconds=age_s)

    def _read(self, text: str) -> tuple[RemoteSpec, tuple[Finding, ...]]:
        settings = self._settings()
        found = read_remote(text, self._agent_settings(), settings.outbound, settings.tls)
        return found.spec, found.findings

    def _limits(self) -> PushLimits:
        outbound = self._settings().outbound
        return PushLimits(outbound.wait_s, outbound.waiting_bytes)

    def _tell(self, row: Row, remote: str, outcome: Outcome) -> bool:
        found = self.remotes.by_url.get(row.channel)
        return self._answer(response_to(remote, row.callback, outcome, found.spec if found is not None else None))


def _note_health(spec: RemoteSpec, failure: Failure | None) -> None:
    if failure is None:
        log.info("remote.answers", remote=spec.where)
    else:
        log.warning(
            "remote.failing", remote=spec.where, kind=failure.kind, reason=failure.for_log, remedy=failure.remedy
        )
