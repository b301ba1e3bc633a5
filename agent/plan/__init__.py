"""What the server wants of this agent, as one complete and checked plan.

Secret: how Agent and Endpoint resources and local defaults become channels.
Promise: `build_plan` never raises for what the server sent; every problem of every channel is in `findings` at once, a
channel with an error is left out, and the others stand as if it were not there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.errors import Finding, Severity
from agent.plan.address import Address, BadAddress, read_address
from agent.plan.agentwide import AgentSettings, agent_settings, as_parameters
from agent.plan.lastgood import LastGood, load_last_good, save_last_good
from agent.plan.line import line_spec
from agent.plan.options import read_agent_settings, read_parameters
from agent.plan.remote import Remote, read_remote
from agent.plan.retry import RetryWish
from agent.plan.subject import Family, Subject, label, strictly
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


def build_plan(agent: Agent, endpoints: Mapping[str, Endpoint | Finding], defaults: ChannelDefaults) -> ConfigPlan:
    """`endpoints`: by the reference that the channels use (`Endpoint/<id>`); a Finding where reading one failed.

    A parameter of an address wins over the agent-wide setting, which wins over `defaults`. With strictConfigValidation
    every warning is an error.
    """
    findings: list[Finding] = []
    values = read_agent_settings(agent, findings)
    settings = agent_settings(values)
    if settings.strict:
        findings = [strictly(finding) for finding in findings]
    off = agent.status == "off"
    specs: list[ChannelSpec] = []
    skipped: list[str] = []
    taken: list[tuple[str, Address]] = []
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
        address = _address(channel, endpoint, problems)
        if address is not None:
            parameters = read_parameters(Subject(Family.CHANNEL, channel.name), address, problems)
            spec = _spec(channel, address, {**as_parameters(values), **parameters}, defaults, problems)
            if not spec.dials:
                problems += _collisions(channel.name, address, taken)
            if settings.strict:
                problems = [strictly(finding) for finding in problems]
            if not any(finding.severity is Severity.ERROR for finding in problems):
                specs.append(spec)
                if not spec.dials:
                    taken.append((channel.name, address))
        findings += problems
    return ConfigPlan(tuple(specs), settings, tuple(findings), off, tuple(skipped))


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
        encoding=values.get("encoding"),
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
    )


def _address(channel: AgentChannel, endpoint: Endpoint | Finding | None, problems: list[Finding]) -> Address | None:
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
        remedy = f"check {channel.endpoint.reference[:80]} and that the agent may read it"
        problems.append(Finding("channel.endpoint-missing", Severity.ERROR, text, remedy, where))
        return None
    try:
        address = read_address(endpoint.address, Family.CHANNEL)
    except BadAddress as bad:
        subject = Subject(Family.CHANNEL, channel.name)
        problems.append(subject.finding(bad.code, Severity.ERROR, str(bad), bad.remedy))
        return None
    if address.ignored:
        text, remedy = "what follows host and port is ignored", "put parameters after a '?'"
        problems.append(
            Finding("channel.address-rest", Severity.WARNING, text, remedy, f"{label(channel.name)}.address")
        )
    return address


def _collisions(name: str, address: Address, taken: list[tuple[str, Address]]) -> list[Finding]:
    return [
        Finding(
            "channel.port-twice",
            Severity.ERROR,
            f"channel {label(other_name)} listens on port {address.port} already ({other.host})",
            "give one of them another port or another address of this host",
            f"{label(name)}.address",
        )
        for other_name, other in taken
        if address.collides_with(other)
    ]


def _bad_name(name: str) -> Finding:
    if not name.strip():
        return Finding("channel.name-missing", Severity.ERROR, "a channel has no name", "name it", "Agent.channel")
    text, remedy = "another channel has the same name", "give each channel a name of its own"
    return Finding("channel.name-twice", Severity.ERROR, text, remedy, f"{label(name)}.name")
