"""By which configuration the daemon runs, and when that changes.

Secret: when the server's configuration is read again: at the start, until it could be read once, after an outage so
long that a change may have gone unheard, and when somebody asks.
Promise: what somebody asks for is in force whole or not at all. What is read unasked never takes away a channel that
runs: then the old plan stays, with a finding. What is in force is kept as the last good one, and holds while the server
cannot be asked.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

import structlog

from agent.backoff import pause
from agent.channels import Channels
from agent.configuration import Configuration, Resources
from agent.errors import AgentError, ConfigError, Finding, LinkError, Severity
from agent.plan import AgentSettings, ConfigPlan

log = structlog.get_logger("main")

RETRY_S: Final = 10.0
LONG_OUTAGE_S: Final = 60.0  # after it the configuration may have changed unheard


class Steering:
    """`plan`: what is in force, None before the first. `on_adopted` hears of each new one."""

    def __init__(
        self, configuration: Configuration, channels: Channels, *, on_adopted: Callable[[], None] = lambda: None
    ) -> None:
        self.plan: ConfigPlan | None = None
        self._configuration = configuration
        self._channels = channels
        self._on_adopted = on_adopted
        self._stale = True
        self._lost_at: float | None = None
        self._refresh = asyncio.Event()
        self._turn = asyncio.Lock()
        self._refused: tuple[Finding, ...] = ()  # why the server's newest configuration is not in force
        self._told = ""

    @property
    def agent_settings(self) -> AgentSettings:
        return self.plan.agent_settings if self.plan is not None else AgentSettings()

    @property
    def off(self) -> bool:
        """Whether Agent.status on the server is off: nothing is taken or sent."""
        return self.plan is not None and self.plan.off

    def findings(self) -> list[Finding]:
        if self.plan is None:
            return []
        found = [*self.plan.findings, *(finding for finding in self._refused if finding not in self.plan.findings)]
        if self.plan.off:
            text = "Agent.status is off on the server: all channels are closed"
            found.append(Finding("agent.off", Severity.WARNING, text, "set Agent.status to active and reload"))
        return found

    def live(self) -> None:
        """The link is up."""
        unread = self._stale and not self._turn.locked()  # while it is being read, it need not be read again
        if unread or (self._lost_at is not None and time.monotonic() - self._lost_at > LONG_OUTAGE_S):
            self._refresh.set()
        self._lost_at = None

    def lost(self) -> None:
        """The link went down."""
        self._lost_at = time.monotonic()

    async def recall(self) -> None:
        """Listen by the last good configuration; the server's own follows when it can be asked."""
        plan = self._configuration.recall()
        if plan is not None:
            await self._adopt(plan, None, partial=True)
            log.info("configuration.recalled", channels=len(plan.channels), saved_at=str(self._configuration.saved_at))

    async def follow(self) -> None:
        """Read the server's configuration at the start, and again when it may have changed unheard."""
        self._refresh.set()
        while True:
            await self._refresh.wait()
            self._refresh.clear()
            try:
                await self._look()
                self._told = ""
            except AgentError as error:
                if str(error) != self._told:
                    self._told = str(error)
                    log.warning("configuration.unread", reason=str(error), remedy=error.hint)
                wait_s = (error.retry_after_s if isinstance(error, LinkError) else None) or RETRY_S
                await pause(self._refresh, wait_s)
                self._refresh.set()

    async def reload(self) -> None:
        """The server's configuration, again, all or nothing. Raises AgentError when the old one stays in force."""
        async with self._turn:
            resources = await self._configuration.read()
            plan = self._configuration.plan(resources)
            if plan.errors:
                raise ConfigError(plan.errors)
            await self._adopt(plan, resources, partial=False)

    async def _look(self) -> None:
        """The server's configuration, unasked: as much of it as can be had without losing a channel that runs."""
        async with self._turn:
            resources = await self._configuration.read()
            plan = self._configuration.plan(resources)
            self._stale = False
            listening = {n for n, channel in self._channels.by_name.items() if channel.inlet is not None}
            wanted = {channel.name for channel in resources.agent.channel} - set(plan.skipped)
            if listening & wanted - {spec.name for spec in plan.channels}:
                self._refuse(plan.errors)
                return
            try:
                await self._adopt(plan, resources, partial=False)
            except ConfigError as error:
                if listening & {finding.where for finding in error.findings}:
                    self._refuse(error.findings)
                    return
                await self._adopt(plan, resources, partial=True)

    def _refuse(self, findings: tuple[Finding, ...]) -> None:
        if findings != self._refused:
            log.error(
                "configuration.refused", reason="; ".join(map(str, findings)), remedy="the old one stays in force"
            )
        self._refused = findings

    def _keep(self, resources: Resources) -> None:
        try:
            self._configuration.keep(resources)
        except AgentError as error:
            log.error("configuration.not-kept", reason=str(error), remedy=error.hint)

    async def _adopt(self, plan: ConfigPlan, resources: Resources | None, *, partial: bool) -> None:
        """Run by `plan`, made from `resources` (None: the kept ones). Raises ConfigError when nothing was changed."""
        await self._channels.apply(plan.channels, partial=partial)
        self._stale = self._stale and resources is None
        self._refused = ()
        if resources is not None:
            self._keep(resources)
        known = self.plan.findings if self.plan is not None else ()
        self.plan = plan
        self._on_adopted()
        for finding in plan.findings:
            if finding not in known:
                say = log.error if finding.severity is Severity.ERROR else log.warning
                say(
                    "configuration.finding",
                    code=finding.code,
                    where=finding.where,
                    reason=finding.text,
                    remedy=finding.remedy,
                )
        if plan.off:
            log.warning("daemon.off", reason="Agent.status is off on the server; all channels are closed")
