"""The FHIR resources that an agent reads, as far as it reads them.

Secret: the JSON shape of Agent, Endpoint and OperationOutcome (Medplum's Agent, FHIR R4 Endpoint and OperationOutcome).
Promise: fields we do not know are passed over; a field we know that has the wrong type is `UnreadableResource`, naming
the path, never a value that means something else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from agent.errors import ConfigError, Finding, Severity

SettingValue = bool | int | float | str


class UnreadableResource(ConfigError):
    """The server sent something else than the resource that was asked for."""

    def __init__(self, resource_type: str, problem: str, remedy: str = "") -> None:
        remedy = remedy or f"correct the {resource_type} on the server"
        super().__init__([Finding("server.unreadable-resource", Severity.ERROR, problem, remedy, resource_type)])


class Reference(msgspec.Struct, frozen=True, rename="camel"):
    """`Type/id`, or empty."""

    reference: str = ""


class AgentSetting(msgspec.Struct, frozen=True, rename="camel"):
    """One Agent.setting; exactly one of the values is there in a valid resource."""

    name: str
    value_boolean: bool | None = None
    value_integer: int | None = None
    value_string: str | None = None
    value_decimal: float | None = None

    @property
    def value(self) -> SettingValue | None:
        values = (self.value_boolean, self.value_integer, self.value_string, self.value_decimal)
        return next((value for value in values if value is not None), None)


class AgentChannel(msgspec.Struct, frozen=True, rename="camel"):
    """One Agent.channel: a name, where to listen, and (for people) where its messages go."""

    name: str
    endpoint: Reference = Reference()
    target_reference: Reference = Reference()
    target_url: str = ""


class Agent(msgspec.Struct, frozen=True, rename="camel"):
    """What one agent is to do."""

    id: str = ""
    name: str = ""
    status: str = "active"
    setting: tuple[AgentSetting, ...] = ()
    channel: tuple[AgentChannel, ...] = ()


class Endpoint(msgspec.Struct, frozen=True, rename="camel"):
    """Where a channel listens."""

    id: str = ""
    name: str = ""
    status: str = "active"
    address: str = ""


class CodeableConcept(msgspec.Struct, frozen=True):
    text: str = ""


class Issue(msgspec.Struct, frozen=True):
    """One OperationOutcome.issue."""

    severity: str = ""
    code: str = ""
    details: CodeableConcept = CodeableConcept()
    diagnostics: str = ""


class OperationOutcome(msgspec.Struct, frozen=True):
    """What a server says about a request."""

    id: str = ""
    issue: tuple[Issue, ...] = ()

    @property
    def text(self) -> str:
        """The words for people, issues joined by `; `."""
        return "; ".join(issue.details.text or issue.diagnostics or issue.code for issue in self.issue)


Resource = TypeVar("Resource", Agent, Endpoint, OperationOutcome)


def read_agent(source: bytes | str | Mapping[str, Any]) -> Agent:
    """From JSON text or the decoded object. Raises UnreadableResource."""
    return _read(source, Agent)


def read_endpoint(source: bytes | str | Mapping[str, Any]) -> Endpoint:
    """From JSON text or the decoded object. Raises UnreadableResource."""
    return _read(source, Endpoint)


def read_outcome(source: bytes | str | Mapping[str, Any]) -> OperationOutcome:
    """From JSON text or the decoded object. Raises UnreadableResource."""
    return _read(source, OperationOutcome)


def _read(source: bytes | str | Mapping[str, Any], kind: type[Resource]) -> Resource:
    wanted = kind.__name__
    if isinstance(source, bytes | str):
        try:
            source = msgspec.json.decode(source)
        except (msgspec.DecodeError, UnicodeDecodeError) as wrong:
            remedy = "check that base_url leads to the server and that no proxy answers in its place"
            raise UnreadableResource(wanted, f"the answer is no JSON: {wrong}", remedy) from None
    if not isinstance(source, Mapping):
        raise UnreadableResource(wanted, f"a JSON object is expected, not {type(source).__name__}")
    found = source.get("resourceType")
    if found != wanted:
        shown = found if isinstance(found, str) and found.isalpha() and len(found) < 64 else "something without a type"
        raise UnreadableResource(wanted, f"a {wanted} is expected, and the server sent {shown}")
    try:
        return msgspec.convert(source, kind)
    except msgspec.ValidationError as wrong:
        raise UnreadableResource(wanted, str(wrong)) from None
