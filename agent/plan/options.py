"""Read what the server says about options, on an address and agent-wide; say what there is.

Secret: which of two values of one option wins, and what is said of a name that has no effect where it stands.
Promise: a value that cannot be used becomes a finding and never a guess: the default is used in its place and the
finding says so, or, where going on would break the order or the bytes of messages, or a promise, it is an error.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, Final

from agent.errors import Finding, Severity
from agent.plan.address import Address
from agent.plan.catalogue import BY_PARAMETER, BY_SETTING, OPTIONS, Option
from agent.plan.kind import CHANNELS, REMOTES, Kind, called
from agent.plan.subject import Subject, label
from agent.plan.values import Unusable
from agent.protocol.fhir import Agent, SettingValue

__all__ = ["BY_PARAMETER", "OPTIONS", "Option", "describe_options", "nearest", "read_agent_settings", "read_parameters"]

_SAME_THING: Final = 0.8  # `ackTimeoutSecs` is that much like `ackTimeoutMs`, and `mode` less like `retryMode`


def read_parameters(subject: Subject, address: Address, findings: list[Finding]) -> dict[str, Any]:
    """Parameter name -> value, for those that were given and can be used. The first of a repeated one counts, but for
    those that are lists by nature: all of these count."""
    known = BY_PARAMETER[address.kind]
    values: dict[str, Any] = {}
    seen: set[str] = set()
    for parameter in address.parameters:
        name, option = parameter.name, known.get(parameter.name)
        if option is None:
            findings.append(_without_effect(subject, address.kind, name))
            continue
        if name in seen and not option.repeats:
            text, remedy = "the parameter is given twice and the first one counts", "keep one of them"
            findings.append(subject.finding("repeated-parameter", Severity.WARNING, text, remedy, name))
            continue
        seen.add(name)
        try:
            value = option.parse(parameter.raw if option.raw else parameter.value)
        except Unusable as unusable:
            findings.append(subject.finding("bad-value", *_refusal(option, parameter.value, unusable), name))
            continue
        values[name] = tuple(dict.fromkeys((*values.get(name, ()), *value))) if option.repeats else value
    return values


def _without_effect(subject: Subject, kind: Kind, name: str) -> Finding:
    """About a name that addresses of this kind do not have."""
    known = BY_PARAMETER[kind]
    elsewhere = Kind(0)
    for option in OPTIONS:
        if option.parameter == name:
            elsewhere |= option.kinds
    if name and elsewhere:
        ours, others = (CHANNELS, REMOTES) if kind in CHANNELS else (REMOTES, CHANNELS)
        near = nearest(name, known, likeness=_SAME_THING)
        place = called(elsewhere & ours or others)
        remedy = f"did you mean {near}?" if near else f"remove it; it belongs on the address of {place}"
        text = f"the parameter has no effect on {called(kind if elsewhere & ours else ours)}"
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


def describe_options() -> list[dict[str, Any]]:
    """Plain facts, one row an option, for a schema and for documentation.

    `name` on an address or None; `setting`, its agent-wide name, or None; `wires`, the kinds of address that it has an
    effect on (`mllp`, `stream`, `astm`, `dicom`, `serial-stream`, `serial-astm`, `remote`, `astm-remote`); `type` of
    JSON Schema; `minimum`, `maximum` and `choices` or None; `default` in words; `doc`, a sentence; `retired`, why it
    does nothing, or None. A name may have several rows, each for other kinds.
    """
    return [
        {
            "name": option.parameter or None,
            "setting": option.setting or None,
            "wires": list(option.kinds.words),
            "type": option.form.type,
            "minimum": option.form.minimum,
            "maximum": option.form.maximum,
            "choices": list(option.form.choices) or None,
            "default": option.default,
            "doc": option.doc,
            "retired": option.retired or None,
        }
        for option in OPTIONS
    ]
