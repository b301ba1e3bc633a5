"""Every option that the server may set, by its name on an address and by its name as an agent-wide setting.

Secret: the names, types, ranges and defaults of PROTOCOL §3, older names included, and which of two wins.
Promise: a value that cannot be used becomes a finding and never a guess: the default is used in its place and the
finding says so, or, where going on would break the order or the bytes of messages, it is an error.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from agent.errors import Finding, Severity
from agent.plan.address import Address
from agent.plan.values import (
    Unusable,
    decimal,
    encoding,
    invalid_bytes,
    networks,
    one_of,
    order_key,
    switch,
    text,
    whole,
)
from agent.protocol.fhir import Agent, SettingValue
from agent.spec import AckMode, AppAck, BatchAck, DuplicateBehavior, RetryMode


@dataclass(frozen=True, slots=True)
class Option:
    """`parameter`: its name on an address, `setting`: its agent-wide name; empty where it has none.

    `fatal`: a wrong value is an error; otherwise it is a warning and the default holds. `guards`: so is a misspelt
    name, since the channel would be open to everybody. `retired`: the reason why it is understood and does nothing.
    """

    parse: Callable[[SettingValue], Any]
    parameter: str = ""
    setting: str = ""
    fatal: bool = False
    guards: bool = False
    retired: str = ""


OPTIONS: tuple[Option, ...] = (
    Option(encoding, "encoding", fatal=True),
    Option(
        one_of(true=AckMode.ENHANCED, aa=AckMode.ENHANCED_AA, auto=AckMode.AUTO, false=AckMode.ORIGINAL), "enhanced"
    ),
    Option(one_of(al=AppAck.ALWAYS, ne=AppAck.NEVER, er=AppAck.ERROR, su=AppAck.SUCCESS), "appLevelAck"),
    Option(switch, "assignSeqNo"),
    Option(whole(1, 1_000_000), "messagesPerMin"),
    Option(decimal(0, 86_400), "ackTimeoutSecs"),
    Option(order_key, "logicalChannelKey", "channelLogicalChannelKey", fatal=True),
    Option(whole(1, 500), "maxWorkers", "channelMaxWorkers"),
    Option(one_of(**{str(mode): mode for mode in DuplicateBehavior}), "duplicateBehavior"),
    Option(one_of(**{str(mode): mode for mode in RetryMode}), "retryMode", "channelRetryMode"),
    Option(whole(1, 86_400_000), "autoRetryBaseDelayMs", "channelAutoRetryBaseDelayMs"),
    Option(whole(1, 86_400_000), "autoRetryMaxDelayMs", "channelAutoRetryMaxDelayMs"),
    Option(whole(0, 1_000_000), "autoRetryMaxAttempts", "channelAutoRetryMaxAttempts"),
    Option(decimal(1, 100), "autoRetryBackoffMultiplier", "channelAutoRetryBackoffMultiplier"),
    Option(text, "tls"),  # whether this host has such a certificate is for plan.line to say
    Option(one_of(server=False, client=True), "mode", fatal=True),
    Option(networks, "allow", fatal=True, guards=True),
    Option(whole(0, 100_000), "maxConnections"),
    Option(whole(1_024, 1024**3), "maxMessageBytes"),
    Option(decimal(0, 86_400), "idleTimeoutSecs"),
    Option(decimal(0, 86_400), "frameTimeoutSecs"),
    Option(whole(0, 7_200), "tcpKeepAliveSecs"),
    Option(invalid_bytes, "invalidBytes", fatal=True),
    Option(one_of(**{"1": 1, "2": 2}), "mllpRelease", fatal=True),
    Option(one_of(**{str(way): way for way in BatchAck}), "batchAck"),
    Option(switch, setting="channelAutoRetry"),
    Option(switch, setting="channelGuaranteedDelivery"),
    Option(switch, setting="keepAlive"),
    Option(whole(1, 1_000), setting="maxClientsPerRemote"),
    Option(whole(0, 86_400), setting="logStatsFreqSecs"),
    Option(switch, setting="durableQueue", retired="every message is kept on disk before it is acknowledged, always"),
    Option(text, setting="queueDbPath", retired="where the spool lies is said on the host (spool.dir)"),
    Option(decimal(0, 36_500), setting="queueRetentionDays"),
    Option(whole(1, 100_000_000), setting="queueRetentionMaxMb"),
    Option(decimal(0, 36_500), setting="queueErroredRetentionDays"),
    Option(whole(1, 86_400), setting="queueSweepIntervalSecs"),
    Option(switch, setting="strictConfigValidation"),
)
BY_PARAMETER = {option.parameter: option for option in OPTIONS if option.parameter}
_GUARDS = [option.parameter for option in OPTIONS if option.guards]
BY_SETTING = {option.setting: option for option in OPTIONS if option.setting}


def read_parameters(channel: str, address: Address, findings: list[Finding]) -> dict[str, Any]:
    """Parameter name -> value, for those that were given and can be used. The first of a repeated one counts."""
    values: dict[str, Any] = {}
    seen: set[str] = set()
    for name, raw in address.parameters:
        where = f"{label(channel)}.{label(name)}"
        if name not in BY_PARAMETER:
            near = nearest(name, BY_PARAMETER) or next(filter(name.lower().startswith, _GUARDS), "")
            severity = Severity.ERROR if near in _GUARDS else Severity.WARNING
            remedy = f"did you mean {near}?" if near else "remove it from the address"
            findings.append(Finding("channel.unknown-parameter", severity, "there is no such parameter", remedy, where))
        elif name in seen:
            findings.append(
                Finding(
                    "channel.repeated-parameter",
                    Severity.WARNING,
                    "the parameter is given twice and the first one counts",
                    "keep one of them",
                    where,
                )
            )
        else:
            seen.add(name)
            _read(name, BY_PARAMETER[name], raw, where, "channel", values, findings)
    return values


def read_agent_settings(agent: Agent, findings: list[Finding]) -> dict[str, Any]:
    """Setting name -> value, for those that were given and can be used. The last of a repeated one counts."""
    values: dict[str, Any] = {}
    given: dict[str, SettingValue | None] = {}
    for setting in agent.setting:
        where = f"Agent.setting.{label(setting.name)}"
        if setting.name not in BY_SETTING:
            near = nearest(setting.name, BY_SETTING)
            remedy = f"did you mean {near}?" if near else "remove it from the Agent"
            findings.append(
                Finding("agent.unknown-setting", Severity.WARNING, "there is no such setting", remedy, where)
            )
            continue
        if setting.name in given:
            text = "the setting is given twice and the last one counts"
            findings.append(Finding("agent.repeated-setting", Severity.WARNING, text, "keep one of them", where))
        given[setting.name] = setting.value
    for name, value in given.items():
        _read(
            name, BY_SETTING[name], "" if value is None else value, f"Agent.setting.{name}", "agent", values, findings
        )
    return values


def _read(
    name: str,
    option: Option,
    raw: SettingValue,
    where: str,
    family: str,
    values: dict[str, Any],
    findings: list[Finding],
) -> None:
    try:
        value = option.parse(raw)
    except Unusable as unusable:
        severity = Severity.ERROR if option.fatal else Severity.WARNING
        text = f"{_shown(raw)} cannot be used: {unusable}"
        remedy = unusable.remedy if option.fatal else f"{unusable.remedy}; the default holds meanwhile"
        findings.append(Finding(f"{family}.bad-value", severity, text, remedy, where))
        return
    if option.retired:
        if value is not True:
            text = f"the setting has no effect: {option.retired}"
            findings.append(Finding("agent.ignored-setting", Severity.INFO, text, "it may be removed", where))
        return
    values[name] = value


def nearest(name: str, known: Iterable[str]) -> str:
    """The one that somebody who wrote `name` most likely meant, or empty."""
    lower = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(name.lower(), lower, n=1)
    return lower[close[0]] if close else ""


def label(name: str) -> str:
    """A name that somebody else wrote, fit for one line of a screen."""
    return "".join(character if character.isprintable() else "?" for character in name[:60])


def _shown(raw: SettingValue) -> str:
    return "an empty value" if raw == "" else ascii(raw[:60] if isinstance(raw, str) else raw)
