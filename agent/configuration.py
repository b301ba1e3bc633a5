"""What the server wants us to be, and what we go by while it is away.

Secret: which resources make up the configuration, how they are read, what tells one from another, and the copy of the
last good one on this host's disk.
Promise: a configuration is either read whole or not at all; the last good one is there at the next start, also
without a server. Power loss while it is kept leaves the one before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from agent.errors import AgentError, ConfigError, Finding, LinkError, Severity
from agent.plan import ConfigPlan, build_plan
from agent.plan.lastgood import digest_of, load_last_good, save_last_good
from agent.protocol.fhir import Agent, Endpoint, read_agent, read_endpoint
from agent.settings import ChannelDefaults

_READS_AT_ONCE: Final = 16


@dataclass(frozen=True, slots=True)
class Resources:
    """One reading of the server's resources, as they were sent and as they were understood."""

    agent: Agent
    endpoints: dict[str, Endpoint | Finding]
    agent_json: dict[str, Any]
    endpoints_json: dict[str, dict[str, Any]]

    @property
    def digest(self) -> str:
        """Tells them from all others, their versions included."""
        return digest_of(self.agent_json, self.endpoints_json)

    @property
    def addresses(self) -> dict[str, str]:
        """What each channel's endpoint says, as far as it could be read, by the channel's name."""
        found: dict[str, str] = {}
        for channel in self.agent.channel:
            endpoint = self.endpoints.get(channel.endpoint.reference)
            found[channel.name] = endpoint.address if isinstance(endpoint, Endpoint) else ""
        return found


def resources_of(agent_json: dict[str, Any], endpoints_json: Mapping[str, Any]) -> Resources:
    """Resources that somebody wrote down, endpoints by reference. Raises ConfigError if the Agent cannot be read."""
    endpoints: dict[str, Endpoint | Finding] = {}
    raw: dict[str, dict[str, Any]] = {}
    for reference, written in endpoints_json.items():
        try:
            endpoints[reference] = read_endpoint(written)
            raw[reference] = written
        except ConfigError as error:
            endpoints[reference] = error.findings[0]
    return Resources(read_agent(agent_json), endpoints, agent_json, raw)


class Configuration:
    """`get` reads a path of the server (relative to its base URL); `defaults` are this host's."""

    def __init__(
        self,
        agent_id: str,
        last_good: Path,
        *,
        get: Callable[[str], Awaitable[dict[str, Any]]],
        defaults: Callable[[], ChannelDefaults],
    ) -> None:
        self._agent_id = agent_id
        self._last_good = last_good
        self._get = get
        self._defaults = defaults
        self.saved_at: datetime | None = None
        self.finding: Finding | None = None

    async def read(self) -> Resources:
        """Agent and all its Endpoints. Raises LinkError while the server cannot be asked, another AgentError if it
        has no such Agent, or none that can be read."""
        agent_json = await self._get(f"fhir/R4/Agent/{self._agent_id}")
        agent = read_agent(agent_json)
        references = list(dict.fromkeys(c.endpoint.reference for c in agent.channel if c.endpoint.reference))
        if agent.status == "off":
            references = []
        gate = asyncio.Semaphore(_READS_AT_ONCE)
        async with asyncio.TaskGroup() as reads:
            tasks = [
                reads.create_task(self._endpoint(reference, gate), name="configuration:endpoint")
                for reference in references
            ]
        found = [task.result() for task in tasks]
        for answer in found:
            if isinstance(answer, LinkError):
                raise answer
        written = {
            reference: answer for reference, answer in zip(references, found, strict=True) if isinstance(answer, dict)
        }
        resources = resources_of(agent_json, written)
        for reference, answer in zip(references, found, strict=True):
            if isinstance(answer, Finding):
                resources.endpoints[reference] = answer
        return resources

    async def _endpoint(self, reference: str, gate: asyncio.Semaphore) -> dict[str, Any] | Finding | LinkError:
        """The resource, or what is wrong with it. An error of the network is about none of them, so about all."""
        async with gate:
            try:
                return await self._get(f"fhir/R4/{reference}")
            except LinkError as error:
                return error
            except AgentError as error:
                return Finding(
                    "channel.endpoint-unreadable",
                    Severity.ERROR,
                    f"{reference} cannot be read: {error}",
                    "correct the channel's endpoint reference, or let the agent's client read it",
                    reference,
                )

    def plan(self, resources: Resources) -> ConfigPlan:
        return build_plan(resources.agent, resources.endpoints, self._defaults())

    def is_of_another(self, agent: Agent) -> bool:
        """Whether this Agent is not the one that we are to be."""
        return agent.id not in ("", self._agent_id)

    @property
    def terms(self) -> str:
        """What of this host's settings a plan is made from, in a form that can be compared."""
        return repr(self._defaults())

    async def keep(self, resources: Resources) -> None:
        """These resources are in force: they are the last good ones. Raises StoreError."""
        now = datetime.now(UTC)
        await asyncio.to_thread(save_last_good, self._last_good, resources.agent_json, resources.endpoints_json, now)
        self.saved_at = now

    def recall(self) -> ConfigPlan | None:
        """The plan of the last good resources, if there are any that can be read."""
        kept = load_last_good(self._last_good)
        if isinstance(kept, Finding):
            self.finding = kept
            return None
        if kept is None or self.is_of_another(kept.agent):
            return None
        self.saved_at = kept.saved_at
        return build_plan(kept.agent, dict(kept.endpoints), self._defaults())
