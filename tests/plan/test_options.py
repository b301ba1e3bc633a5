"""Options by both their names, and values that cannot be used."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import Finding, Severity
from agent.plan.address import Address
from agent.plan.options import BY_PARAMETER, OPTIONS, Option, read_agent_settings, read_parameters
from agent.plan.subject import Family, Subject
from agent.plan.values import Unusable
from agent.protocol.fhir import Agent, AgentSetting
from agent.protocol.hl7 import KeySpec
from agent.spec import AckMode, BatchAck, DuplicateBehavior, RetryMode, ReturnAck

ADT = Subject(Family.CHANNEL, "adt")
LAB = Subject(Family.REMOTE, "lab.example:2575")


def _of_a_remote(**given: str) -> tuple[dict[str, Any], list[Finding]]:
    findings: list[Finding] = []
    return read_parameters(LAB, Address("", "lab.example", 2575, tuple(given.items())), findings), findings


def _parameters(**given: str) -> tuple[dict[str, Any], list[Finding]]:
    findings: list[Finding] = []
    values = read_parameters(ADT, Address("", "0.0.0.0", 1, tuple(given.items())), findings)
    return values, findings


def _setting(name: str, value: object) -> AgentSetting:
    match value:
        case bool():
            return AgentSetting(name, value_boolean=value)
        case int():
            return AgentSetting(name, value_integer=value)
        case float():
            return AgentSetting(name, value_decimal=value)
        case _:
            return AgentSetting(name, value_string=None if value is None else str(value))


def _settings(**given: object) -> tuple[dict[str, Any], list[Finding]]:
    findings: list[Finding] = []
    agent = Agent(setting=tuple(_setting(name, value) for name, value in given.items()))
    return read_agent_settings(agent, findings), findings


@pytest.mark.parametrize(
    ("name", "raw", "value"),
    [
        ("encoding", "iso-8859-1", "iso-8859-1"),
        ("encoding", "auto", None),
        ("enhanced", "TRUE", AckMode.ENHANCED),
        ("enhanced", "aa", AckMode.ENHANCED_AA),
        ("enhanced", "false", AckMode.ORIGINAL),
        ("assignSeqNo", "true", True),
        ("messagesPerMin", "30", 30),
        ("ackTimeoutSecs", "0", 0),
        ("logicalChannelKey", "MSH-4,PID-3.1", KeySpec.parse("MSH-4,PID-3.1")),
        ("logicalChannelKey", "", None),
        ("maxWorkers", "500", 500),
        ("duplicateBehavior", "reject", DuplicateBehavior.REJECT),
        ("retryMode", "none", RetryMode.NONE),
        ("autoRetryBackoffMultiplier", "1.5", 1.5),
        ("enhanced", "auto", AckMode.AUTO),
        ("tls", "main", "main"),
        ("mode", "server", False),
        ("mode", "Client", True),
        ("allow", "10.1.0.0/16", (ip_network("10.1.0.0/16"),)),
        ("allow", "10.1.2.3, fd00::/8,10.1.2.3", (ip_network("10.1.2.3/32"), ip_network("fd00::/8"))),
        ("allow", "::ffff:10.0.0.0/104,::ffff:1.2.3.4", (ip_network("10.0.0.0/8"), ip_network("1.2.3.4/32"))),
        ("allow", "0.0.0.0/0,::/0", (ip_network("0.0.0.0/0"), ip_network("::/0"))),
        ("maxConnections", "0", 0),
        ("maxConnections", "100000", 100_000),
        ("maxMessageBytes", "1024", 1_024),
        ("maxMessageBytes", "1073741824", 1024**3),
        ("idleTimeoutSecs", "0.5", 0.5),
        ("frameTimeoutSecs", "86400", 86_400.0),
        ("tcpKeepAliveSecs", "7200", 7_200),
        ("invalidBytes", "reject", None),
        ("invalidBytes", "Fallback:windows-1252", "cp1252"),
        ("invalidBytes", "fallback: 8859/1", "iso8859-1"),
        ("mllpRelease", "2", 2),
        ("batchAck", "batch", BatchAck.BATCH),
    ],
)
def test_a_parameter_that_can_be_used(name: str, raw: str, value: object) -> None:
    assert _parameters(**{name: raw}) == ({name: value}, [])


@pytest.mark.parametrize(
    ("name", "raw", "severity"),
    [
        ("enhanced", "maybe", Severity.WARNING),
        ("appLevelAck", "XX", Severity.WARNING),
        ("messagesPerMin", "abc", Severity.WARNING),
        ("messagesPerMin", "0", Severity.WARNING),
        ("maxWorkers", "501", Severity.WARNING),
        ("ackTimeoutSecs", "nan", Severity.WARNING),
        ("ackTimeoutSecs", "-1", Severity.WARNING),
        ("duplicateBehavior", "ignore", Severity.WARNING),
        ("retryMode", "always", Severity.WARNING),
        ("encoding", "klingon", Severity.ERROR),
        ("logicalChannelKey", "PID", Severity.ERROR),
        ("logicalChannelKey", "PID-3.1,MSH-", Severity.ERROR),
        ("mode", "both", Severity.ERROR),
        ("allow", "everybody", Severity.ERROR),
        ("allow", "10.0.0.0/33", Severity.ERROR),
        ("allow", "10.0.0.0/255.0.0.0", Severity.ERROR),
        ("allow", "10.0.0.0/0.0.0.255", Severity.ERROR),
        ("allow", "fe80::1%eth0", Severity.ERROR),
        ("allow", "10.0.0.1,", Severity.ERROR),
        ("allow", "010.0.0.1", Severity.ERROR),
        ("maxConnections", "-1", Severity.WARNING),
        ("maxConnections", "100001", Severity.WARNING),
        ("maxMessageBytes", "1023", Severity.WARNING),
        ("maxMessageBytes", "1073741825", Severity.WARNING),
        ("idleTimeoutSecs", "-0.1", Severity.WARNING),
        ("frameTimeoutSecs", "86401", Severity.WARNING),
        ("tcpKeepAliveSecs", "7201", Severity.WARNING),
        ("tcpKeepAliveSecs", "1.5", Severity.WARNING),
        ("invalidBytes", "ignore", Severity.ERROR),
        ("invalidBytes", "fallback", Severity.ERROR),
        ("invalidBytes", "fallback:klingon", Severity.ERROR),
        ("invalidBytes", "fallback:utf-16", Severity.ERROR),
        ("invalidBytes", "reject:latin-1", Severity.ERROR),
        ("mllpRelease", "3", Severity.ERROR),
        ("batchAck", "file", Severity.WARNING),
    ],
)
def test_a_parameter_that_cannot_be_used_is_left_out_and_told(name: str, raw: str, severity: Severity) -> None:
    values, (finding,) = _parameters(**{name: raw})

    assert values == {}
    assert (finding.code, finding.where, finding.severity) == ("channel.bad-value", f"adt.{name}", severity)
    assert raw in finding.text


@pytest.mark.parametrize(
    ("raw", "meant"),
    [
        ("10.1.2.3/8", ["10.0.0.0/8", "10.1.2.3"]),
        ("192.168.0.0/16,fd00::1/8", ["fd00::/8", "fd00::1"]),
        ("10.0.0.1/0", ["0.0.0.0/0"]),
    ],
)
def test_an_address_with_a_prefix_is_refused_with_the_network_that_may_have_been_meant(
    raw: str, meant: list[str]
) -> None:
    values, (finding,) = _parameters(allow=raw)

    assert values == {}
    assert (finding.severity, finding.where) == (Severity.ERROR, "adt.allow")
    assert all(network in finding.remedy for network in meant)


def test_an_empty_list_of_senders_is_refused_and_does_not_mean_everybody() -> None:
    values, (finding,) = _parameters(allow="")

    assert values == {}
    assert finding.severity is Severity.ERROR


@pytest.mark.parametrize("name", ["Allow", "alow", "allowed", "allowedNetworks"])
def test_a_misspelt_list_of_senders_is_an_error_and_does_not_mean_everybody(name: str) -> None:
    values, (finding,) = _parameters(**{name: "10.0.0.0/8"})

    assert values == {}
    assert (finding.code, finding.severity) == ("channel.unknown-parameter", Severity.ERROR)
    assert finding.remedy == "did you mean allow?"


def test_an_unknown_parameter_is_a_warning_with_the_one_that_was_meant() -> None:
    values, (near, far) = _parameters(appLevelACK="AL", xyzzy="1")

    assert values == {}
    assert (near.code, near.severity) == ("channel.unknown-parameter", Severity.WARNING)
    assert near.remedy == "did you mean appLevelAck?"
    assert "did you mean" not in far.remedy


@pytest.mark.parametrize(
    ("name", "raw", "value"),
    [
        ("keepAlive", "TRUE", True),
        ("maxClients", "1000", 1_000),
        ("inFlight", "1", 1),
        ("ackTimeoutMs", "0", 0),
        ("ackTimeoutMs", "3600000", 3_600_000),
        ("serialize", "true", True),
        ("returnAck", "First", ReturnAck.FIRST),
        ("defaultReturnAck", "application", ReturnAck.APPLICATION),
        ("durable", "false", False),
        ("encoding", "8859/1", "8859/1"),
        ("encoding", "", None),
        ("retryMode", "normal", RetryMode.NORMAL),
        ("autoRetryMaxAttempts", "0", 0),
        ("tls", "lab", "lab"),
    ],
)
def test_a_parameter_of_a_remote_that_can_be_used(name: str, raw: str, value: object) -> None:
    assert _of_a_remote(**{name: raw}) == ({name: value}, [])


@pytest.mark.parametrize(
    ("name", "raw", "severity"),
    [
        ("keepAlive", "yes", Severity.WARNING),
        ("maxClients", "0", Severity.WARNING),
        ("maxClients", "1001", Severity.WARNING),
        ("inFlight", "0", Severity.WARNING),
        ("inFlight", "1001", Severity.WARNING),
        ("ackTimeoutMs", "-1", Severity.WARNING),
        ("ackTimeoutMs", "3600001", Severity.WARNING),
        ("ackTimeoutMs", "0.5", Severity.WARNING),
        ("autoRetryBaseDelayMs", "0", Severity.WARNING),
        ("retryMode", "always", Severity.WARNING),
        ("encoding", "klingon", Severity.ERROR),
        ("serialize", "yes", Severity.ERROR),
        ("returnAck", "second", Severity.ERROR),
        ("defaultReturnAck", "", Severity.ERROR),
        ("durable", "yes", Severity.ERROR),
    ],
)
def test_a_parameter_of_a_remote_that_cannot_be_used_is_left_out_and_told(
    name: str, raw: str, severity: Severity
) -> None:
    values, (finding,) = _of_a_remote(**{name: raw})

    assert values == {}
    assert (finding.code, finding.where, finding.severity) == ("remote.bad-value", "remote lab.example:2575", severity)
    assert finding.text.startswith(f"{name}: ")
    assert ("the default holds" in finding.remedy) is (severity is Severity.WARNING)


@pytest.mark.parametrize("name", sorted(set(BY_PARAMETER[Family.CHANNEL]) - set(BY_PARAMETER[Family.REMOTE])))
def test_what_belongs_on_the_address_of_a_channel_has_no_effect_on_a_remote(name: str) -> None:
    values, (finding,) = _of_a_remote(**{name: "1"})

    assert values == {}
    assert (finding.code, finding.severity) == ("remote.idle-parameter", Severity.WARNING)
    assert finding.text == f"{name}: the parameter has no effect on a remote"
    meant = "did you mean ackTimeoutMs?" if name == "ackTimeoutSecs" else None
    assert finding.remedy == (meant or "remove it; it belongs on the address of a channel")


@pytest.mark.parametrize("name", sorted(set(BY_PARAMETER[Family.REMOTE]) - set(BY_PARAMETER[Family.CHANNEL])))
def test_what_belongs_on_the_address_of_a_remote_has_no_effect_on_a_channel(name: str) -> None:
    values, (finding,) = _parameters(**{name: "1"})

    assert values == {}
    assert (finding.code, finding.severity, finding.where) == (
        "channel.idle-parameter", Severity.WARNING, f"adt.{name}",
    )  # fmt: skip
    meant = "did you mean ackTimeoutSecs?" if name == "ackTimeoutMs" else None
    assert finding.remedy == (meant or "remove it; it belongs on the address of a remote")


def test_an_unknown_parameter_of_a_remote_is_a_warning_with_the_one_that_was_meant() -> None:
    values, (near, far, listening) = _of_a_remote(keepalive="true", xyzzy="1", alow="10.0.0.0/8")

    assert values == {}
    assert (near.code, near.severity, near.where) == (
        "remote.unknown-parameter", Severity.WARNING, "remote lab.example:2575",
    )  # fmt: skip
    assert (near.text, near.remedy) == ("keepalive: there is no such parameter", "did you mean keepAlive?")
    assert "did you mean" not in far.remedy
    assert listening.severity is Severity.WARNING, "nobody connects to us there, so no door is left open"


def test_the_first_of_a_repeated_parameter_counts() -> None:
    findings: list[Finding] = []
    address = Address("", "h", 1, (("maxWorkers", "1"), ("maxWorkers", "2")))

    assert read_parameters(ADT, address, findings) == {"maxWorkers": 1}
    assert [(finding.code, finding.where) for finding in findings] == [("channel.repeated-parameter", "adt.maxWorkers")]


def test_of_a_repeated_parameter_the_first_counts_even_if_it_cannot_be_used() -> None:
    findings: list[Finding] = []
    address = Address("", "h", 1, (("maxWorkers", "many"), ("maxWorkers", "2")))

    assert read_parameters(ADT, address, findings) == {}
    assert [finding.code for finding in findings] == ["channel.bad-value", "channel.repeated-parameter"]


def test_settings_are_taken_in_every_type_that_a_server_may_use() -> None:
    given = {
        "keepAlive": "true",
        "maxClientsPerRemote": "3",
        "logStatsFreqSecs": 2.0,
        "queueRetentionDays": 7,
        "outboundDurable": True,
    }

    values, findings = _settings(**given)

    assert values == {
        "keepAlive": True,
        "maxClientsPerRemote": 3,
        "logStatsFreqSecs": 2,
        "queueRetentionDays": 7.0,
        "outboundDurable": True,
    }
    assert findings == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("keepAlive", 1),
        ("keepAlive", "yes"),
        ("maxClientsPerRemote", True),
        ("queueRetentionMaxMb", 1.5),
        ("keepAlive", None),
    ],
)
def test_a_setting_of_the_wrong_type_is_a_warning_and_left_out(name: str, value: object) -> None:
    values, (finding,) = _settings(**{name: value})

    assert values == {}
    assert (finding.code, finding.where) == ("agent.bad-value", f"Agent.setting.{name}")


def test_a_promise_to_keep_messages_that_cannot_be_read_is_an_error() -> None:
    values, (finding,) = _settings(outboundDurable="always")

    assert values == {}
    assert (finding.code, finding.severity, finding.where) == (
        "agent.bad-value", Severity.ERROR, "Agent.setting.outboundDurable",
    )  # fmt: skip


def test_settings_that_mean_nothing_here_are_noted_with_the_reason() -> None:
    values, findings = _settings(durableQueue=False, queueDbPath="/x.db", keepalive=True)

    assert values == {}
    assert [(finding.code, finding.severity) for finding in findings] == [
        ("agent.unknown-setting", Severity.WARNING),
        ("agent.ignored-setting", Severity.INFO),
        ("agent.ignored-setting", Severity.INFO),
    ]
    assert _settings(durableQueue=True) == ({}, [])


def test_the_last_of_a_repeated_setting_counts() -> None:
    findings: list[Finding] = []
    agent = Agent(setting=(_setting("keepAlive", True), _setting("keepAlive", False)))

    assert read_agent_settings(agent, findings) == {"keepAlive": False}
    assert [finding.code for finding in findings] == ["agent.repeated-setting"]


def test_a_name_that_would_upset_a_terminal_is_shown_harmlessly() -> None:
    _, (finding,) = _settings(**{"\x1b[31mred\n": True})

    assert str(finding).isprintable()


@given(st.sampled_from(OPTIONS), st.one_of(st.booleans(), st.integers(), st.floats(), st.text()))
def test_every_option_takes_or_refuses_any_value(option: Option, value: bool | int | float | str) -> None:
    try:
        option.parse(value)
    except Unusable as unusable:
        assert str(unusable)  # noqa: PT017 - one of two right outcomes
