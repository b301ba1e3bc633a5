"""Find the agents that an operation is about.

Secret: how a path, an identifier or a search names agents, and the recorded words for finding none.
Promise: whoever asks for agents gets at least one, or Refused; the order is that of the search.
"""

from __future__ import annotations

from collections.abc import Sequence

from agent.hub.outcomes import Refused, bad_request
from agent.hub.resources import Resource, Resources
from agent.hub.search import read_search

MAX_AGENTS = 100

Query = Sequence[tuple[str, str]]


class Agents:
    """The Agent resources of a hub."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    def by_id(self, agent_id: str) -> Resource:
        """The agent in the path. Raises Refused: 404, or 410 once deleted."""
        return self._resources.get("Agent", agent_id)

    def by_identifier(self, query: Query) -> Resource:
        """The first agent with the `identifier` in the query. Raises Refused (400)."""
        identifier = dict(query).get("identifier")
        search = read_search("Agent", [("identifier", identifier), ("_count", "1")]) if identifier else None
        found = self._resources.find(search).resources if search else []
        if not found:
            raise Refused(bad_request("Must specify agent ID or identifier"))
        return found[0]

    def matching(self, query: Query, *, limited: bool) -> list[Resource]:
        """One page of a search; when `limited`, a page of more than MAX_AGENTS is refused. Raises Refused (400)."""
        search = read_search("Agent", query)
        if limited and search.count > MAX_AGENTS:
            raise Refused(bad_request(f"'_count' of {search.count} is greater than max of {MAX_AGENTS}"))
        agents = self._resources.find(search).resources
        if not agents:
            raise Refused(bad_request("No agent(s) for given query"))
        return agents
