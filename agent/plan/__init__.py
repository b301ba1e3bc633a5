"""What the server wants of this agent, as one complete and checked plan.

Secret: how Agent and Endpoint resources, older names and local defaults become channels.
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
from agent.plan.lastgood import LastGood, load_last_good, save_last_good
from agent.plan.line import line_spec
from agent.plan.options import label, read_agent_settings, read_parameters
from agent.protocol.fhir import Agent, AgentChannel, Endpoint
from agent.settings import ChannelDefaults
from agent.spec import AckMode, AppAck, BatchAck, ChannelSpec, DuplicateBehavior, RetryMode, RetryPolicy

__all__ = ["AgentSettings", "ConfigPlan", "LastGood", "build_plan", "load_last_good", "save_last_good"]

NORMAL_ATTEMPTS = 10


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """What holds for the whole agent. `log_stats_freq_s` None: off. Retention in days, MB (10^6 bytes) and seconds."""

    keep_alive: bool = False
    max_clients_per_remote: int = 5
    log_stats_freq_s: int | None = None
    queue_retention_days: float = 7.0
    queue_retention_max_mb: int = 512
    queue_errored_retention_days: float = 90.0
    queue_sweep_interval_s: int = 3_600
    strict: bool = False


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
    settings = _agent_settings(values)
    if settings.strict:
        findings = [_strict(finding) for finding in findings]
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
            parameters = read_parameters(channel.name, address, problems)
            spec = _spec(channel, address, {**_as_parameters(values), **parameters}, defaults, problems)
            if not spec.dials:
                problems += _collisions(channel.name, address, taken)
            if settings.strict:
                problems = [_strict(finding) for finding in problems]
            if not any(finding.severity is Severity.ERROR for finding in problems):
                specs.append(spec)
                if not spec.dials:
                    taken.append((channel.name, address))
        findings += problems
    return ConfigPlan(tuple(specs), settings, tuple(findings), off, tuple(skipped))


def _agent_settings(values: Mapping[str, Any]) -> AgentSettings:
    keep_alive = values.get("keepAlive", False)
    return AgentSettings(
        keep_alive=keep_alive,
        max_clients_per_remote=values.get("maxClientsPerRemote", 1 if keep_alive else 5),
        log_stats_freq_s=values.get("logStatsFreqSecs") or None,
        queue_retention_days=values.get("queueRetentionDays", 7.0),
        queue_retention_max_mb=values.get("queueRetentionMaxMb", 512),
        queue_errored_retention_days=values.get("queueErroredRetentionDays", 90.0),
        queue_sweep_interval_s=values.get("queueSweepIntervalSecs", 3_600),
        strict=values.get("strictConfigValidation", False),
    )


def _as_parameters(values: Mapping[str, Any]) -> dict[str, Any]:
    """Agent-wide settings under the names that an address uses.

    The older names count only without `channelRetryMode`. Guaranteed delivery wins over auto retry: where two switches
    disagree, no message may be given up.
    """
    prefix = "channel"
    renamed = {
        name[len(prefix)].lower() + name[len(prefix) + 1 :]: value
        for name, value in values.items()
        if name.startswith(prefix)
    }
    auto = renamed.pop("autoRetry", None)
    guaranteed = renamed.pop("guaranteedDelivery", None)
    if "retryMode" not in renamed:
        if guaranteed:
            renamed["retryMode"] = RetryMode.GUARANTEED
        elif auto is not None or guaranteed is not None:
            renamed["retryMode"] = RetryMode.NONE if auto is False else RetryMode.NORMAL
    return renamed


def _spec(
    channel: AgentChannel,
    address: Address,
    values: Mapping[str, Any],
    defaults: ChannelDefaults,
    problems: list[Finding],
) -> ChannelSpec:
    mode: AckMode = values.get("enhanced", AckMode.ORIGINAL)
    if "appLevelAck" in values and mode is not AckMode.ENHANCED:
        text = "appLevelAck has no effect unless enhanced=true"
        remedy = "remove it, or add enhanced=true"
        if mode is AckMode.AUTO:
            text, remedy = "appLevelAck has no effect with enhanced=auto: MSH-16 of each message decides", "remove it"
        where = f"{label(channel.name)}.appLevelAck"
        problems.append(Finding("channel.idle-parameter", Severity.INFO, text, remedy, where))
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
        retry=_retry(channel.name, values, problems),
        line=line_spec(channel.name, address, values, defaults, problems),
        dials=values.get("mode", False),
        fallback_charset=values.get("invalidBytes"),
        mllp_release=values.get("mllpRelease", 1),
        batch_ack=values.get("batchAck", BatchAck.MESSAGE),
        endpoint=channel.endpoint.reference,
    )


def _retry(channel: str, values: Mapping[str, Any], problems: list[Finding]) -> RetryPolicy:
    mode: RetryMode = values.get("retryMode", RetryMode.GUARANTEED)
    attempts = {RetryMode.NONE: 1, RetryMode.NORMAL: NORMAL_ATTEMPTS, RetryMode.GUARANTEED: 0}[mode]
    if mode is not RetryMode.NONE:
        attempts = values.get("autoRetryMaxAttempts", attempts)
    base_ms = values.get("autoRetryBaseDelayMs", 1_000)
    max_ms = values.get("autoRetryMaxDelayMs", max(60_000, base_ms))
    if max_ms < base_ms:
        problems.append(
            Finding(
                "channel.bad-value",
                Severity.WARNING,
                f"the longest delay between tries ({max_ms} ms) is shorter than the first one ({base_ms} ms)",
                f"raise it; {base_ms} ms hold meanwhile",
                f"{label(channel)}.autoRetryMaxDelayMs",
            )
        )
        max_ms = base_ms
    return RetryPolicy(mode, base_ms, max_ms, attempts, values.get("autoRetryBackoffMultiplier", 2.0))


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
        address = read_address(endpoint.address)
    except BadAddress as bad:
        problems.append(Finding(bad.code, Severity.ERROR, str(bad), bad.remedy, f"{label(channel.name)}.address"))
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


def _strict(finding: Finding) -> Finding:
    if finding.severity is Severity.WARNING:
        return dataclasses.replace(finding, severity=Severity.ERROR)
    return finding
