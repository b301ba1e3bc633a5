"""Every option that the server may set, by its name on an address and by its name as an agent-wide setting.

Secret: the names, types, ranges and defaults of PROTOCOL §3, older names included, and which of two wins.
Promise: a value that cannot be used becomes a finding and never a guess: the default is used in its place and the
finding says so, or, where going on would break the order or the bytes of messages, or a promise, it is an error.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from agent.errors import Finding, Severity
from agent.plan.address import Address
from agent.plan.subject import Family, Subject, label
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
from agent.spec import AckMode, AppAck, BatchAck, DuplicateBehavior, RetryMode, ReturnAck


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


_ON_BOTH: tuple[Option, ...] = (
    Option(encoding, "encoding", fatal=True),
    Option(text, "tls"),  # whether this host has such a certificate is for plan.tls to say
    Option(one_of(**{str(mode): mode for mode in RetryMode}), "retryMode", "channelRetryMode"),
    Option(whole(1, 86_400_000), "autoRetryBaseDelayMs", "channelAutoRetryBaseDelayMs"),
    Option(whole(1, 86_400_000), "autoRetryMaxDelayMs", "channelAutoRetryMaxDelayMs"),
    Option(whole(0, 1_000_000), "autoRetryMaxAttempts", "channelAutoRetryMaxAttempts"),
    Option(decimal(1, 100), "autoRetryBackoffMultiplier", "channelAutoRetryBackoffMultiplier"),
)
_OF_A_CHANNEL: tuple[Option, ...] = (
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
)
_OF_A_REMOTE: tuple[Option, ...] = (
    Option(switch, "keepAlive", "keepAlive"),
    Option(whole(1, 1_000), "maxClients", "maxClientsPerRemote"),
    Option(whole(1, 1_000), "inFlight"),
    Option(whole(0, 3_600_000), "ackTimeoutMs"),
    Option(switch, "serialize", fatal=True),
    Option(one_of(**{str(which): which for which in ReturnAck}), "returnAck", fatal=True),
    Option(one_of(**{str(which): which for which in ReturnAck}), "defaultReturnAck", fatal=True),
    Option(switch, "durable", "outboundDurable", fatal=True),
)
OPTIONS: tuple[Option, ...] = (
    *_ON_BOTH,
    *_OF_A_CHANNEL,
    *_OF_A_REMOTE,
    Option(switch, setting="channelAutoRetry"),
    Option(switch, setting="channelGuaranteedDelivery"),
    Option(whole(0, 86_400), setting="logStatsFreqSecs"),
    Option(switch, setting="durableQueue", retired="every message is kept on disk before it is acknowledged, always"),
    Option(text, setting="queueDbPath", retired="where the spool lies is said on the host (spool.dir)"),
    Option(decimal(0, 36_500), setting="queueRetentionDays"),
    Option(whole(1, 100_000_000), setting="queueRetentionMaxMb"),
    Option(decimal(0, 36_500), setting="queueErroredRetentionDays"),
    Option(whole(1, 86_400), setting="queueSweepIntervalSecs"),
    Option(switch, setting="strictConfigValidation"),
)
BY_PARAMETER: Final = {
    Family.CHANNEL: {option.parameter: option for option in (*_ON_BOTH, *_OF_A_CHANNEL)},
    Family.REMOTE: {option.parameter: option for option in (*_ON_BOTH, *_OF_A_REMOTE)},
}
BY_SETTING: Final = {option.setting: option for option in OPTIONS if option.setting}
_ELSEWHERE: Final = {Family.CHANNEL: Family.REMOTE, Family.REMOTE: Family.CHANNEL}
_SAME_THING: Final = 0.8  # `ackTimeoutSecs` is that much like `ackTimeoutMs`, and `mode` less like `retryMode`


def read_parameters(subject: Subject, address: Address, findings: list[Finding]) -> dict[str, Any]:
    """Parameter name -> value, for those that were given and can be used. The first of a repeated one counts."""
    known = BY_PARAMETER[subject.family]
    values: dict[str, Any] = {}
    seen: set[str] = set()
    for name, raw in address.parameters:
        if name not in known:
            findings.append(_unknown(subject, name))
        elif name in seen:
            text, remedy = "the parameter is given twice and the first one counts", "keep one of them"
            findings.append(subject.finding("repeated-parameter", Severity.WARNING, text, remedy, name))
        else:
            seen.add(name)
            try:
                values[name] = known[name].parse(raw)
            except Unusable as unusable:
                findings.append(subject.finding("bad-value", *_refusal(known[name], raw, unusable), name))
    return values


def _unknown(subject: Subject, name: str) -> Finding:
    known, elsewhere = BY_PARAMETER[subject.family], _ELSEWHERE[subject.family]
    if name in BY_PARAMETER[elsewhere]:
        near = nearest(name, known, likeness=_SAME_THING)
        remedy = f"did you mean {near}?" if near else f"remove it; it belongs on the address of a {elsewhere}"
        text = f"the parameter has no effect on a {subject.family}"
        return subject.finding("idle-parameter", Severity.WARNING, text, remedy, name)
    guards = [option.parameter for option in known.values() if option.guards]
    near = nearest(name, known) or next(filter(name.lower().startswith, guards), "")
    severity = Severity.ERROR if near in guards else Severity.WARNING
    remedy = f"did you mean {near}?" if near else "remove it from the address"
    return subject.finding("unknown-parameter", severity, "there is no such parameter", remedy, name)


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
        option, raw, where = BY_SETTING[name], "" if value is None else value, f"Agent.setting.{name}"
        try:
            parsed = option.parse(raw)
        except Unusable as unusable:
            findings.append(Finding("agent.bad-value", *_refusal(option, raw, unusable), where))
            continue
        if not option.retired:
            values[name] = parsed
        elif parsed is not True:
            text = f"the setting has no effect: {option.retired}"
            findings.append(Finding("agent.ignored-setting", Severity.INFO, text, "it may be removed", where))
    return values


def _refusal(option: Option, raw: SettingValue, unusable: Unusable) -> tuple[Severity, str, str]:
    """(severity, text, remedy)."""
    text = f"{_shown(raw)} cannot be used: {unusable}"
    if option.fatal:
        return Severity.ERROR, text, unusable.remedy
    return Severity.WARNING, text, f"{unusable.remedy}; the default holds meanwhile"


def nearest(name: str, known: Iterable[str], *, likeness: float = 0.6) -> str:
    """The one that somebody who wrote `name` most likely meant, or empty."""
    lower = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=likeness)
    return lower[close[0]] if close else ""


def _shown(raw: SettingValue) -> str:
    return "an empty value" if raw == "" else ascii(raw[:60] if isinstance(raw, str) else raw)
