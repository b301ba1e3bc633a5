"""Answer the operations on agents: `GET|POST {fhir}/Agent/[id]/$op` and `{fhir}/Agent/$op?search`.

Secret: which operations there are, what each asks the agent and how the answer becomes FHIR; a further one is
one line in REMOTE.
Promise: one agent's failure never hides another's; the order of a search is the order of its answers; every
error text is the recorded server's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from agent.hub.outcomes import ALL_OK, NOT_FOUND, Refused, bad_request
from agent.hub.resources import Resource, Resources, public
from agent.hub.roster import CallFailed, Presence, Roster
from agent.hub.search import read_search
from agent.protocol.envelope import Frame, FromAgent, ReloadConfigRequest, StatsRequest, StatsResponse

MAX_AGENTS = 100
TIMEOUT_S = 5.0

Query = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Remote:
    """An operation that asks the agent: `request` makes the frame from query and callback, `answer` reads the reply.

    `own` names the query parameters that are the operation's, not the search's.
    """

    request: Callable[[Mapping[str, str], str], Frame]
    answer: Callable[[FromAgent], Resource]
    timeout_s: float = TIMEOUT_S
    own: frozenset[str] = frozenset()


def _stats(frame: FromAgent) -> Resource:
    stats = frame.stats if isinstance(frame, StatsResponse) else None
    if stats is None:
        raise CallFailed("Agent sent no stats")
    return _parameters({"name": "stats", "valueString": msgspec.json.encode(stats).decode()})


REMOTE: dict[str, Remote] = {
    "$reload-config": Remote(lambda _, callback: ReloadConfigRequest(callback=callback), lambda _: ALL_OK.resource()),
    "$stats": Remote(lambda _, callback: StatsRequest(callback=callback), _stats),
}


class Operations:
    """The operations, over the agents that a hub knows. `timeout_scale` shortens every deadline, for tests."""

    def __init__(self, resources: Resources, roster: Roster, *, timeout_scale: float = 1.0) -> None:
        self._resources = resources
        self._roster = roster
        self._timeout_scale = timeout_scale

    async def one(self, name: str, agent_id: str, query: Query) -> Resource:
        """An operation on one agent, by id. Raises Refused: 404, or 400 with the reason."""
        if name != "$status" and name not in REMOTE:
            raise Refused(NOT_FOUND)
        answer = await self._answer(name, self._resources.get("Agent", agent_id), query)
        return ALL_OK.traced() if answer == ALL_OK.resource() else answer  # recorded so here, and not in a Bundle

    async def many(self, name: str, query: Query) -> Resource:
        """An operation on the type: `$status` by identifier, all others by search. Raises Refused."""
        if name == "$status":
            return await self._answer(name, self._by_identifier(query), query)
        if name == "$bulk-status":
            name, remote = "$status", None
        elif (remote := REMOTE.get(name)) is None:
            raise Refused(NOT_FOUND)
        own = remote.own if remote else frozenset()
        search = read_search("Agent", [(key, value) for key, value in query if key not in own])
        if remote and search.count > MAX_AGENTS:
            raise Refused(bad_request(f"'_count' of {search.count} is greater than max of {MAX_AGENTS}"))
        agents = self._resources.find(search).resources
        if not agents:
            raise Refused(bad_request("No agent(s) for given query"))
        async with asyncio.TaskGroup() as calls:
            answers = [calls.create_task(self._answer_or_outcome(name, agent, query)) for agent in agents]
        entries = [
            _parameters(
                {"name": "agent", "resource": public(agent, extended=False)},
                {"name": "result", "resource": answer.result()},
            )
            for agent, answer in zip(agents, answers, strict=True)
        ]
        return {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": entry} for entry in entries]}

    def _by_identifier(self, query: Query) -> Resource:
        identifier = dict(query).get("identifier")
        search = read_search("Agent", [("identifier", identifier), ("_count", "1")]) if identifier else None
        found = self._resources.find(search).resources if search else []
        if not found:
            raise Refused(bad_request("Must specify agent ID or identifier"))
        return found[0]

    async def _answer(self, name: str, agent: Resource, query: Query) -> Resource:
        if name == "$status":
            return _status(self._roster.presence(agent["id"]))
        remote = REMOTE[name]
        values = dict(query)
        try:
            frame = await self._roster.call(
                agent["id"],
                lambda callback: remote.request(values, callback),
                remote.timeout_s * self._timeout_scale,
            )
            if (status_code := getattr(frame, "status_code", 200)) >= 400:
                raise CallFailed(f"Agent answered with status {status_code}")
            return remote.answer(frame)
        except CallFailed as failure:
            raise Refused(bad_request(str(failure))) from None

    async def _answer_or_outcome(self, name: str, agent: Resource, query: Query) -> Resource:
        try:
            return await self._answer(name, agent, query)
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


def _parameters(*parameters: dict[str, Any]) -> Resource:
    return {"resourceType": "Parameters", "parameter": list(parameters)}
