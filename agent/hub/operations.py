"""Answer the operations on agents: `GET|POST {fhir}/Agent/[id]/$op` and `{fhir}/Agent/$op?search`.

Secret: which operations there are, what each asks the agent and how the answer becomes FHIR; a further one is
one line in REMOTE.
Promise: one agent's failure never hides another's; the order of a search is the order of its answers; every
error text is the recorded server's. ($push is one of its own: `agent.hub.push`.)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from agent.hub.agents import Agents, Query
from agent.hub.outcomes import ALL_OK, NOT_FOUND, Refused, bad_request
from agent.hub.parameters import Parameters
from agent.hub.resources import Resource, public
from agent.hub.roster import Ask, CallFailed, Presence, Roster
from agent.protocol.envelope import (
    FromAgent,
    LogsRequest,
    LogsResponse,
    ReloadConfigRequest,
    StatsRequest,
    StatsResponse,
)

TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Remote:
    """An operation that asks the agent: `request` reads the parameters, `answer` the agent's reply.

    `own` names the query parameters that are the operation's, not the search's.
    """

    request: Callable[[Parameters], Ask]
    answer: Callable[[FromAgent], Resource]
    timeout_s: float = TIMEOUT_S
    own: frozenset[str] = frozenset()


def _stats(frame: FromAgent) -> Resource:
    stats = frame.stats if isinstance(frame, StatsResponse) else None
    if stats is None:
        raise CallFailed("Agent sent no stats")
    return _parameters({"name": "stats", "valueString": msgspec.json.encode(stats).decode()})


def _ask_for_logs(parameters: Parameters) -> Ask:
    return partial(_logs_request, parameters.integer("limit"), parameters.text("before"))


def _logs_request(limit: int | None, before: str | None, callback: str) -> LogsRequest:
    return LogsRequest(limit=limit, before=before, callback=callback)


def _logs(frame: FromAgent) -> Resource:
    """The lines as the recorded server gives them; where to read on is said as newer servers do."""
    if not isinstance(frame, LogsResponse) or frame.logs is None:
        raise CallFailed("Agent sent no logs")
    lines = "\n".join(msgspec.json.encode(line).decode() for line in frame.logs)
    parameters: list[dict[str, Any]] = [{"name": "logs", "valueString": lines}]
    if frame.has_more is not None:
        parameters.append({"name": "hasMore", "valueBoolean": frame.has_more})
    if frame.next_before is not None:
        parameters.append({"name": "nextBefore", "valueString": frame.next_before})
    return _parameters(*parameters)


REMOTE: dict[str, Remote] = {
    "$reload-config": Remote(lambda _: ReloadConfigRequest, lambda _: ALL_OK.resource()),
    "$stats": Remote(lambda _: StatsRequest, _stats),
    "$fetch-logs": Remote(_ask_for_logs, _logs, own=frozenset({"limit", "before"})),
}


class Operations:
    """The operations, over the agents that a hub knows. `timeout_scale` shortens every deadline, for tests."""

    def __init__(self, agents: Agents, roster: Roster, *, timeout_scale: float = 1.0) -> None:
        self._agents = agents
        self._roster = roster
        self._timeout_scale = timeout_scale

    async def one(self, name: str, agent_id: str, query: Query) -> Resource:
        """An operation on one agent, by id. Raises Refused: 404, or 400 with the reason."""
        if name == "$status":
            return self._status(self._agents.by_id(agent_id))
        if (remote := REMOTE.get(name)) is None:
            raise Refused(NOT_FOUND)
        agent = self._agents.by_id(agent_id)
        answer = await self._answer(remote, remote.request(Parameters(query)), agent)
        return ALL_OK.traced() if answer == ALL_OK.resource() else answer  # recorded so here, and not in a Bundle

    async def many(self, name: str, query: Query) -> Resource:
        """An operation on the type: `$status` by identifier, all others by search. Raises Refused."""
        if name == "$status":
            return self._status(self._agents.by_identifier(query))
        if name == "$bulk-status":
            return _bundle([(agent, self._status(agent)) for agent in self._agents.matching(query, limited=False)])
        if (remote := REMOTE.get(name)) is None:
            raise Refused(NOT_FOUND)
        request = remote.request(Parameters(query))
        search = [(key, value) for key, value in query if key not in remote.own]
        agents = self._agents.matching(search, limited=True)
        async with asyncio.TaskGroup() as calls:
            answers = [calls.create_task(self._answer_or_outcome(remote, request, agent)) for agent in agents]
        return _bundle([(agent, answer.result()) for agent, answer in zip(agents, answers, strict=True)])

    def _status(self, agent: Resource) -> Resource:
        return _status(self._roster.presence(agent["id"]))

    async def _answer(self, remote: Remote, request: Ask, agent: Resource) -> Resource:
        try:
            frame = await self._roster.call(agent["id"], request, remote.timeout_s * self._timeout_scale)
            if (status_code := getattr(frame, "status_code", 200)) >= 400:
                raise CallFailed(f"Agent answered with status {status_code}")
            return remote.answer(frame)
        except CallFailed as failure:
            raise Refused(bad_request(str(failure))) from None

    async def _answer_or_outcome(self, remote: Remote, request: Ask, agent: Resource) -> Resource:
        try:
            return await self._answer(remote, request, agent)
        except Refused as refused:
            return refused.outcome.resource()


def _status(presence: Presence) -> Resource:
    parameters: list[dict[str, Any]] = [
        {"name": "status", "valueCode": presence.status},
        {"name": "version", "valueString": presence.version},
    ]
    if presence.updated:
        parameters.append({"name": "lastUpdated", "valueInstant": presence.updated})
    return _parameters(*parameters)


def _bundle(results: list[tuple[Resource, Resource]]) -> Resource:
    """Agents, each with its answer."""
    entries = [
        _parameters(
            {"name": "agent", "resource": public(agent, extended=False)}, {"name": "result", "resource": answer}
        )
        for agent, answer in results
    ]
    return {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": entry} for entry in entries]}


def _parameters(*parameters: dict[str, Any]) -> Resource:
    return {"resourceType": "Parameters", "parameter": list(parameters)}
