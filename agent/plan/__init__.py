"""What the server wants of this agent, as one complete and checked plan.

Secret: how Agent and Endpoint resources and local defaults become channels.
Promise: `build_plan` never raises for what the server sent; every problem of every channel is in `findings` at once, a
channel with an error is left out, and the others stand as if it were not there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from agent.errors import Finding, Severity
from agent.plan.address import Address, BadAddress, read_address
from agent.plan.agentwide import AgentSettings, agent_settings, as_parameters
from agent.plan.extras import is_installed, missing_extra
from agent.plan.kind import Kind
from agent.plan.lastgood import LastGood, load_last_good, save_last_good
from agent.plan.line import line_spec, look_at_place
from agent.plan.options import BY_PARAMETER, read_agent_settings, read_parameters
from agent.plan.remote import Remote, read_remote
from agent.plan.retry import RetryWish
from agent.plan.subject import Family, Subject, label, strictly
from agent.plan.wire import serial_of, wire_of
from agent.protocol.fhir import Agent, AgentChannel, Endpoint
from agent.settings import ChannelDefaults
from agent.spec import AckMode, AppAck, BatchAck, ChannelSpec, DuplicateBehavior

__all__ = [
    "AgentSettings",
    "ConfigPlan",
    "LastGood",
    "Remote",
    "build_plan",
    "load_last_good",
    "read_remote",
    "save_last_good",
]


@dataclass(frozen=True, slots=True)
class ConfigPlan:
    """`off`: Agent.status says that nothing may run. `skipped`: names of channels that are switched off, not wrong."""

    channels: tuple[ChannelSpec, ...]
    agent_settings: AgentSettings
    findings: tuple[Finding, ...]
    off: bool
    skipped: tuple[str, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity is Severity.ERROR)


@dataclass(slots=True)
class _Draft:
    """A channel as far as it could be read. `address` None: not far enough to say where it is."""

    name: str
    address: Address | None
    spec: ChannelSpec | None
    problems: list[Finding]

    @property
    def runs(self) -> bool:
        return self.spec is not None and not any(each.severity is Severity.ERROR for each in self.problems)

    @property
    def takes_its_place(self) -> bool:
        """Nobody else can have its port, or its serial port."""
        return self.spec is not None and (self.spec.listens or self.spec.serial is not None)


def build_plan(
    agent: Agent,
    endpoints: Mapping[str, Endpoint | Finding],
    defaults: ChannelDefaults,
    have: Callable[[str], bool] = is_installed,
) -> ConfigPlan:
    """`endpoints`: by the reference that the channels use (`Endpoint/<id>`); a Finding where reading one failed.
    `have`: whether this host has a module that some channels need.

    A parameter of an address wins over the agent-wide setting, which wins over `defaults`. With strictConfigValidation
    every warning is an error.
    """
    findings: list[Finding] = []
    values = read_agent_settings(agent, findings)
    settings = agent_settings(values)
    off = agent.status == "off"
    drafts: list[_Draft] = []
    skipped: list[str] = []
    names: set[str] = set()
    for channel in agent.channel:
        endpoint = endpoints.get(channel.endpoint.reference)
        if off or (isinstance(endpoint, Endpoint) and endpoint.status == "off"):
            skipped.append(channel.name)
            continue
        problems: list[Finding] = []
        if channel.name in names or not channel.name.strip():
            problems.append(_bad_name(channel.name))
        names.add(channel.name)
        draft = _draft(channel, endpoint, as_parameters(values), defaults, have, problems)
        if settings.strict:
            draft.problems = [strictly(finding) for finding in draft.problems]
        drafts.append(draft)
    _tell_collisions(drafts)
    if settings.strict:
        findings = [strictly(finding) for finding in findings]
    findings += [finding for draft in drafts for finding in draft.problems]
    specs = tuple(draft.spec for draft in drafts if draft.spec is not None and draft.runs)
    return ConfigPlan(specs, settings, tuple(findings), off, tuple(skipped))


def _draft(
    channel: AgentChannel,
    endpoint: Endpoint | Finding | None,
    agent_wide: Mapping[str, Any],
    defaults: ChannelDefaults,
    have: Callable[[str], bool],
    problems: list[Finding],
) -> _Draft:
    subject = Subject(Family.CHANNEL, channel.name)
    written = _written(channel, endpoint, problems)
    if written is None:
        return _Draft(channel.name, None, None, problems)
    sound = True
    try:
        address = read_address(written, Family.CHANNEL)
    except BadAddress as bad:
        problems += [subject.finding(flaw.code, Severity.ERROR, flaw.text, flaw.remedy) for flaw in bad.flaws]
        if bad.rest is None:
            return _Draft(channel.name, None, None, problems)
        sound, address = False, bad.rest
    if address.ignored:
        text, remedy = "what follows host and port is ignored", "put parameters after a '?'"
        if address.device:
            text, remedy = "what follows the serial port is ignored", "write a # in the name of a device as %23"
        problems.append(subject.finding("address-rest", Severity.WARNING, text, remedy))
    parameters = read_parameters(subject, address, problems)
    known = BY_PARAMETER[address.kind]
    values = {**{name: value for name, value in agent_wide.items() if name in known}, **parameters}
    spec = _spec(channel, address, values, defaults, problems)
    problems += missing_extra(subject, address.kind, have)
    if not sound:
        return _Draft(channel.name, None, None, problems)
    problems += look_at_place(channel.name, address, values)
    return _Draft(channel.name, address, spec, problems)


def _spec(
    channel: AgentChannel,
    address: Address,
    values: Mapping[str, Any],
    defaults: ChannelDefaults,
    problems: list[Finding],
) -> ChannelSpec:
    subject = Subject(Family.CHANNEL, channel.name)
    mode: AckMode = values.get("enhanced", AckMode.ORIGINAL)
    if "appLevelAck" in values and mode is not AckMode.ENHANCED:
        text = "appLevelAck has no effect unless enhanced=true"
        remedy = "remove it, or add enhanced=true"
        if mode is AckMode.AUTO:
            text, remedy = "appLevelAck has no effect with enhanced=auto: MSH-16 of each message decides", "remove it"
        problems.append(subject.finding("idle-parameter", Severity.INFO, text, remedy, "appLevelAck"))
    return ChannelSpec(
        name=channel.name,
        address=address.text,
        host=address.host,
        port=address.port,
        encoding=values.get("encoding") if address.kind is Kind.MLLP else None,
        ack_mode=mode,
        app_ack=values.get("appLevelAck", AppAck.ALWAYS),
        assign_seq_no=values.get("assignSeqNo", False),
        messages_per_min=values.get("messagesPerMin"),
        ack_timeout_s=values.get("ackTimeoutSecs", defaults.ack_timeout_s),
        order_key=values.get("logicalChannelKey"),
        max_workers=values.get("maxWorkers"),
        duplicates=values.get("duplicateBehavior", DuplicateBehavior.IDEMPOTENT),
        retry=RetryWish.of(values).policy(subject, problems),
        line=line_spec(channel.name, address, values, defaults, problems),
        dials=values.get("mode", False),
        fallback_charset=values.get("invalidBytes"),
        mllp_release=values.get("mllpRelease", 1),
        batch_ack=values.get("batchAck", BatchAck.MESSAGE),
        endpoint=channel.endpoint.reference,
        wire=wire_of(subject, address, values, problems),
        serial=serial_of(address, values),
    )


def _written(channel: AgentChannel, endpoint: Endpoint | Finding | None, problems: list[Finding]) -> str | None:
    """The address as the server has it."""
    where = f"{label(channel.name)}.endpoint"
    if not channel.endpoint.reference:
        text, remedy = "the channel names no endpoint", "set Agent.channel.endpoint to an Endpoint"
        problems.append(Finding("channel.endpoint-missing", Severity.ERROR, text, remedy, where))
        return None
    if isinstance(endpoint, Finding):
        problems.append(dataclasses.replace(endpoint, severity=Severity.ERROR, where=where))
        return None
    if endpoint is None:
        text = "the endpoint was not among those that the server gave out"
        remedy = f"check {label(channel.endpoint.reference)} and that the agent may read it"
        problems.append(Finding("channel.endpoint-missing", Severity.ERROR, text, remedy, where))
        return None
    return endpoint.address


def _tell_collisions(drafts: list[_Draft]) -> None:
    """Of two channels that run, the first one has the place. One that does not run hears of all that run there, and of
    those before it that do not."""
    placed = [(draft, draft.address) for draft in drafts if draft.address is not None and draft.takes_its_place]
    for number, (draft, address) in enumerate(placed):
        runs = draft.runs
        earlier = [(other, its) for other, its in placed[:number] if other.runs or not runs]
        later = [(other, its) for other, its in placed[number + 1 :] if other.runs and not runs]
        rivals = [other.name for other, its in earlier + later if address.collides_with(its)]
        draft.problems += [_collision(draft.name, address, rival) for rival in rivals]


def _collision(name: str, address: Address, rival: str) -> Finding:
    subject = Subject(Family.CHANNEL, name)
    if address.device:
        text, remedy = f"channel {label(rival)} has the serial port {label(address.device)}", "give one of them another"
        return subject.finding("device-twice", Severity.ERROR, text, remedy)
    text = f"channel {label(rival)} listens on port {address.port} too"
    remedy = "give one of them another port or another address of this host"
    return subject.finding("port-twice", Severity.ERROR, text, remedy)


def _bad_name(name: str) -> Finding:
    if not name.strip():
        return Finding("channel.name-missing", Severity.ERROR, "a channel has no name", "name it", "Agent.channel")
    text, remedy = "another channel has the same name", "give each channel a name of its own"
    return Finding("channel.name-twice", Severity.ERROR, text, remedy, f"{label(name)}.name")
