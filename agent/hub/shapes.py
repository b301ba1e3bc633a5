"""Refuse resources that the real server would refuse, naming the element.

Secret: what Agent, Endpoint and the hub's Bot must contain.
Promise: the first element at fault is named by its FHIR path; types without a rule here are let in as they
are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from agent.hub.behaviour import BadBehaviour, read_behaviour
from agent.hub.outcomes import Refused, bad_request, misshapen, missing

TYPE_NAME = re.compile(r"[A-Z][A-Za-z]{1,63}\Z")
AGENT_STATUS = frozenset({"active", "off", "error"})
ENDPOINT_STATUS = frozenset({"active", "suspended", "error", "off", "entered-in-error", "test"})
SETTING_VALUES = frozenset({"valueBoolean", "valueInteger", "valueString", "valueDecimal"})


def check_shape(resource: Any) -> None:
    """Raises Refused (400) naming the element that is missing or wrong."""
    if not isinstance(resource, dict):
        raise Refused(bad_request("Resource is not an object"))
    name = resource.get("resourceType")
    if not isinstance(name, str) or not TYPE_NAME.match(name):
        raise Refused(bad_request("Missing or invalid resourceType", "resourceType"))
    if not isinstance(resource.get("meta", {}), dict):
        raise Refused(misshapen("Invalid JSON type: expected an object", f"{name}.meta"))
    if (check := _CHECKS.get(name)) is not None:
        check(resource)


def _agent(agent: Mapping[str, Any]) -> None:
    _text(agent, "Agent", "name")
    _code(agent, "Agent", "status", AGENT_STATUS)
    for index, channel in enumerate(_list(agent, "Agent", "channel")):
        at = f"Agent.channel[{index}]"
        _text(channel, at, "name")
        _reference(channel, at, "endpoint")
        if "targetReference" in channel or "targetUrl" not in channel:
            _reference(channel, at, "targetReference")
    for index, setting in enumerate(_list(agent, "Agent", "setting")):
        at = f"Agent.setting[{index}]"
        _text(setting, at, "name")
        if not SETTING_VALUES & setting.keys():
            raise Refused(missing(f"{at}.value[x]"))


def _endpoint(endpoint: Mapping[str, Any]) -> None:
    _code(endpoint, "Endpoint", "status", ENDPOINT_STATUS)
    _text(endpoint, "Endpoint", "address")
    if not isinstance(endpoint.get("connectionType"), dict):
        raise Refused(missing("Endpoint.connectionType"))
    if not _list(endpoint, "Endpoint", "payloadType"):
        raise Refused(missing("Endpoint.payloadType"))


def _bot(bot: Mapping[str, Any]) -> None:
    if "code" in bot:
        try:
            read_behaviour(bot["code"])
        except BadBehaviour as bad:
            raise Refused(misshapen(str(bad), "Bot.code")) from None


def _client(client: Mapping[str, Any]) -> None:
    if "secret" in client:
        _text(client, "ClientApplication", "secret")


def _text(element: Mapping[str, Any], at: str, name: str) -> None:
    if element.get(name) in (None, ""):
        raise Refused(missing(f"{at}.{name}"))
    if not isinstance(element[name], str):
        raise Refused(misshapen("Invalid JSON type: expected a string", f"{at}.{name}"))


def _code(element: Mapping[str, Any], at: str, name: str, allowed: frozenset[str]) -> None:
    _text(element, at, name)
    if element[name] not in allowed:
        raise Refused(misshapen(f"Value must be one of {', '.join(sorted(allowed))}", f"{at}.{name}"))


def _reference(element: Mapping[str, Any], at: str, name: str) -> None:
    value = element.get(name)
    if value is None:
        raise Refused(missing(f"{at}.{name}"))
    if not isinstance(value, dict) or not isinstance(value.get("reference"), str):
        raise Refused(misshapen("Invalid reference: expected {'reference': 'Type/id'}", f"{at}.{name}"))


def _list(element: Mapping[str, Any], at: str, name: str) -> list[dict[str, Any]]:
    value = element.get(name, [])
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise Refused(misshapen("Invalid JSON type: expected a list of objects", f"{at}.{name}"))
    return value


_CHECKS: dict[str, Callable[[Mapping[str, Any]], None]] = {
    "Agent": _agent,
    "Endpoint": _endpoint,
    "Bot": _bot,
    "ClientApplication": _client,
}
