"""Push a message through an agent to a device: `POST {fhir}/Agent/[id]/$push` and `{fhir}/Agent/$push?identifier=`.

Secret: what a push may ask for, where a destination leads, and when a push that nobody waits for counts as done.
Promise: what is wrong with a request is said before any agent is asked, in the recorded server's words; what the device
answered comes back unchanged; a push that nobody waits for is done when it is on its way to the agent, as recorded, but
one to a durable remote only when the agent says that it is stored.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Any
from urllib.parse import parse_qsl

from agent.hub.agents import Agents, Query
from agent.hub.outcomes import ALL_OK, Outcome, Refused, bad_request
from agent.hub.parameters import Parameters, text_of
from agent.hub.resources import Resource, Resources
from agent.hub.roster import CallFailed, Roster
from agent.hub.search import read_search
from agent.protocol.envelope import Push, PushResponse

PING = "x-application/ping"
WAIT_MS = 10_000
MAX_WAIT_MS = 55_000
RETURN_ACKS = ("first", "application")
STORED = 202  # what an agent answers that has stored a message, and not delivered it yet
MAX_SENTENCE = 500  # characters of its words about that
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
HOST = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*\.?\Z")  # RFC 1123 §2.1, and `_` as Windows has it
MEDIA_TYPE = re.compile(r"[\w!#$%&'*+.^`|~-]{1,127}/[\w!#$%&'*+.^`|~-]{1,127}(?=\Z|[;\s])", re.ASCII)


class Until(Enum):
    """What ends a push: it is on its way to the agent, the agent has stored it, or the device has answered."""

    SENT = auto()
    STORED = auto()
    ANSWERED = auto()


@dataclass(frozen=True, slots=True)
class Order:
    """A push that was checked. `remote`: a Device's url, or the host of a ping."""

    agent_id: str
    remote: str
    content_type: str
    body: str
    until: Until
    timeout_s: float
    return_ack: str | None

    def frame(self, callback: str | None = None) -> Push:
        """The push as the agent is told it."""
        return Push(
            remote=self.remote,
            content_type=self.content_type,
            body=self.body,
            callback=callback,
            return_ack=self.return_ack,
            wait_for_response=False if self.until is Until.STORED else None,
        )


@dataclass(frozen=True, slots=True)
class Said:
    """What the device answered: a media type without parameters, and the text."""

    content_type: str
    body: str


class Pushes:
    """$push, over the agents that a hub knows. `timeout_scale` shortens every wait, for tests."""

    def __init__(self, resources: Resources, agents: Agents, roster: Roster, *, timeout_scale: float = 1.0) -> None:
        self._resources = resources
        self._agents = agents
        self._roster = roster
        self._timeout_scale = timeout_scale

    def order(self, agent_id: str | None, query: Query, parameters: Parameters) -> Order:
        """Check a request; without an id the query names the agent. Raises Refused: 404, or 400 with the reason."""
        agent = self._agents.by_identifier(query) if agent_id is None else self._agents.by_id(agent_id)
        body = _required(parameters, "body")
        content_type = _required(parameters, "contentType")
        destination = _required(parameters, "destination")
        wait = parameters.boolean("waitForResponse")
        wait_ms = parameters.integer("waitTimeout")
        wait_ms = WAIT_MS if wait_ms is None else wait_ms
        if not 0 <= wait_ms <= MAX_WAIT_MS:
            raise Refused(bad_request("Invalid wait timeout"))
        return_ack = parameters.text("returnAck")
        if return_ack is not None and return_ack not in RETURN_ACKS:
            raise Refused(bad_request(f"Invalid returnAck - must be one of {', '.join(RETURN_ACKS)}"))
        if content_type != PING and agent["status"] == "off":
            raise Refused(bad_request("Agent is currently disabled. Agent.status is 'off'"))
        remote = self._remote(destination, content_type)
        if wait:
            until = Until.ANSWERED
        elif content_type != PING and _is_durable(agent, remote):
            until = Until.STORED
        else:
            until = Until.SENT
        timeout_s = wait_ms / 1000 * self._timeout_scale
        return Order(agent["id"], remote, content_type, body, until, timeout_s, return_ack)

    async def carry(self, order: Order) -> Said | Outcome:
        """Push, and wait as ordered: the device's answer, or that all is well without one. Raises Refused (400)."""
        try:
            if order.until is Until.SENT:
                await self._roster.tell(order.agent_id, order.frame(), order.timeout_s)
                return ALL_OK
            answer = await self._roster.call(order.agent_id, order.frame, order.timeout_s)
            if not isinstance(answer, PushResponse):
                raise CallFailed("Agent sent an answer to something else")
            if answer.status_code >= 400:
                raise CallFailed(_text(answer.body) or f"Agent answered with status {answer.status_code}")
        except CallFailed as failure:
            raise Refused(bad_request(str(failure))) from None
        if order.until is Until.STORED:
            said = answer.body if answer.status_code == STORED and isinstance(answer.body, str) else ""
            return replace(ALL_OK, diagnostics=said[:MAX_SENTENCE])
        return Said(_media_type(answer, order), _text(answer.body))

    def _remote(self, destination: str, content_type: str) -> str:
        if destination.startswith(("Device/", "Device?")):
            device = self._device(destination)
            if device is None:
                raise Refused(bad_request("Destination device not found"))
            url = device.get("url")
            if not isinstance(url, str) or not url:
                raise Refused(bad_request("Destination device missing url"))
            return url
        if content_type == PING and HOST.match(destination):
            return destination
        raise Refused(bad_request("Destination device not found"))

    def _device(self, destination: str) -> Resource | None:
        """The Device of a reference, or the first of a search."""
        if destination.startswith("Device?"):
            criteria = parse_qsl(destination.removeprefix("Device?"), keep_blank_values=True)
            if not criteria:  # any device is no destination
                return None
            return next(iter(self._resources.find(read_search("Device", criteria)).resources), None)
        try:
            return self._resources.get("Device", destination.removeprefix("Device/"))
        except Refused:
            return None


def _required(parameters: Parameters, name: str) -> str:
    value = parameters.text(name)
    if value is None:
        raise Refused(bad_request(f"Missing {name} parameter"))
    return value


def _is_durable(agent: Resource, remote: str) -> bool:
    """Whether an agent with this configuration stores a message before it sends it: the remote's url wins."""
    query = remote.partition("#")[0].partition("?")[2]
    asked = dict(parse_qsl(query)).get("durable")
    if asked is None:
        settings = {setting["name"]: setting for setting in agent.get("setting", [])}
        setting = settings.get("outboundDurable", {})
        asked = setting.get("valueBoolean", setting.get("valueString"))
    return str(asked).strip().lower() == "true"


def _text(body: Any) -> str:
    """The body of an answer: a text, or JSON."""
    return "" if body is None else text_of(body)


def _media_type(answer: PushResponse, order: Order) -> str:
    """What the answer is, as far as it can stand in a header (RFC 9110 §8.3.1), without parameters."""
    candidates: tuple[str | None, ...] = (answer.content_type, "application/json")
    if isinstance(answer.body, str | None):
        candidates = (answer.content_type, order.content_type, "text/plain")
    return next(match[0] for candidate in candidates if (match := MEDIA_TYPE.match(candidate or "")))
