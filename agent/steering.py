"""By which configuration the daemon runs, and when that changes.

Secret: when the server's configuration is read again: at the start, until it could be read once, after an outage so
long that a change may have gone unheard, and when somebody asks.
Promise: what somebody asks for is in force whole or not at all, and whoever gives up waiting for it leaves nothing half
done. Who asks while it is being done shares one further run with all others who do. What is read unasked never takes
away a channel that runs: then the old plan stays, with a finding. What is in force is kept as the last good one, and
holds while the server cannot be asked.

Power loss: before the new one is kept the next start has the old one, afterwards the new one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import structlog

from agent.backoff import pause
from agent.channels import Channels
from agent.configuration import Configuration, Resources, resources_of
from agent.errors import AgentError, ConfigError, Finding, LinkError, Severity
from agent.plan import AgentSettings, ConfigPlan
from agent.proposal import Proposal, basis_of, check_basis, draw_up

log = structlog.get_logger("main")

RETRY_S: Final = 10.0
LONG_OUTAGE_S: Final = 60.0  # after it the configuration may have changed unheard
FROM_FILE: Final = (
    "this is not the server's configuration: the next reload, or the next start that reaches the server, replaces it"
)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """A value and not an exception: nobody may be left to hear it."""

    proposal: Proposal | None = None
    error: AgentError | None = None


@dataclass(frozen=True, slots=True)
class _Order:
    """Something to be done, one after the other."""

    work: Callable[[], Awaitable[Proposal | None]]
    done: asyncio.Future[_Outcome]


class Steering:
    """`plan`: what is in force, None before the first. `on_adopted` hears of each new one. What is asked for is done by
    `follow`."""

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
        self._orders: asyncio.Queue[_Order] = asyncio.Queue()
        self._next_reload: _Order | None = None  # asked for, not begun
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
        found = list(self._refused)
        if self._refused:
            many = f"{len(found)} problems" if len(found) != 1 else "one problem"
            text = f"the server's newest configuration is not in force, for {many}; the one before it stays"
            remedy = "correct it on the server and reload; agent channel plan --from-server tells what would come of it"
            found.insert(0, Finding("configuration.refused", Severity.ERROR, text, remedy))
        if self.plan is None:
            return found
        found += [finding for finding in self.plan.findings if finding not in found]
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
        """Do what is asked for; read the server's configuration at the start, and again when it may have changed
        unheard."""
        async with asyncio.TaskGroup() as both:
            both.create_task(self._serve(), name="steering:orders")
            both.create_task(self._watch(), name="steering:watch")

    async def _watch(self) -> None:
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

    # ---- what somebody asks for

    async def reload(self) -> None:
        """The server's configuration, again, all or nothing. Raises AgentError when the old one stays in force."""
        if self._next_reload is None:
            self._next_reload = self._order(self._reload)
        await self._heard(self._next_reload)

    async def propose(self, document: Mapping[str, Any] | None, *, apply: bool, basis: str | None) -> Proposal:
        """What would come of the server's configuration, or of the one in `document` (None: the server's): `agent` and
        `endpoints` by reference. `apply`: have it, if it has no error. Raises AgentError; StaleBasis if `basis` is not
        what the plan is made from now."""
        if not apply:
            resources = await self._resources(document)
            return await self._proposal(resources, self._configuration.plan(resources))

        async def work() -> Proposal:
            return await self._apply(document, basis)

        proposal = await self._heard(self._order(work))
        assert proposal is not None
        return proposal

    def _order(self, work: Callable[[], Awaitable[Proposal | None]]) -> _Order:
        order = _Order(work, asyncio.get_running_loop().create_future())
        self._orders.put_nowait(order)
        return order

    async def _heard(self, order: _Order) -> Proposal | None:
        outcome = await asyncio.shield(order.done)
        if outcome.error is not None:
            raise outcome.error
        return outcome.proposal

    async def _serve(self) -> None:
        while True:
            order = await self._orders.get()
            outcome = _Outcome(error=AgentError("the agent is stopping", hint="ask again when it runs"))
            try:
                outcome = _Outcome(await order.work())
            except AgentError as error:
                outcome = _Outcome(error=error)
            finally:
                order.done.set_result(outcome)

    async def _reload(self) -> None:
        async with self._turn:
            self._next_reload = None
            try:
                resources = await self._configuration.read()
                plan = self._configuration.plan(resources)
                problems = [*plan.errors, *(await self._channels.outlook(plan.channels)).problems]
                if problems:
                    raise ConfigError(problems)
                await self._adopt(plan, resources, partial=False)
            except ConfigError as error:
                self._refused = error.findings
                raise
            except LinkError:
                raise  # that the server is away is a finding of its own
            except AgentError as error:
                self._refused = (Finding("configuration.unread", Severity.ERROR, str(error), error.hint),)
                raise

    async def _resources(self, document: Mapping[str, Any] | None) -> Resources:
        if document is None:
            return await self._configuration.read()
        return resources_of(document["agent"], document["endpoints"])

    async def _proposal(self, resources: Resources, plan: ConfigPlan) -> Proposal:
        outlook = await self._channels.outlook(plan.channels)
        running = self._channels.running
        basis = basis_of(resources.digest, running, self._configuration.terms)
        proposal = draw_up(plan, outlook, running, resources.addresses, basis)
        if not self._configuration.is_of_another(resources.agent):
            return proposal
        text = f"this is the configuration of another agent ({resources.agent.id[:64]})"
        remedy = "take the resources of this host's agent, or leave the Agent's id out"
        other = Finding("configuration.other-agent", Severity.ERROR, text, remedy, "Agent.id")
        return replace(proposal, problems=(other, *proposal.problems))

    async def _apply(self, document: Mapping[str, Any] | None, basis: str | None) -> Proposal:
        async with self._turn:
            resources = await self._resources(document)
            plan = self._configuration.plan(resources)
            proposal = await self._proposal(resources, plan)
            if basis is not None:
                check_basis(basis, proposal.basis)
            if proposal.errors:
                return proposal
            try:
                await self._adopt(plan, resources, partial=False)
            except ConfigError as error:  # what was free a moment ago is not so any more
                return replace(proposal, problems=(*proposal.problems, *error.findings))
            log.info("configuration.applied", source="server" if document is None else "file", basis=proposal.basis)
            return replace(proposal, applied=True, note="" if document is None else FROM_FILE)

    # ---- what is read unasked

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

    async def _keep(self, resources: Resources) -> None:
        try:
            await self._configuration.keep(resources)
        except AgentError as error:
            log.error("configuration.not-kept", reason=str(error), remedy=error.hint)

    async def _adopt(self, plan: ConfigPlan, resources: Resources | None, *, partial: bool) -> None:
        """Run by `plan`, made from `resources` (None: the kept ones). Raises ConfigError when nothing was changed."""
        await self._channels.apply(plan.channels, partial=partial)
        self._stale = self._stale and resources is None
        self._refused = ()
        known = self.plan.findings if self.plan is not None else ()
        self.plan = plan
        self._on_adopted()
        if resources is not None:
            await self._keep(resources)
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
