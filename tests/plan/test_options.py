"""Options by both their names, and values that cannot be used."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import Finding, Severity
from agent.plan.address import Address, Parameter
from agent.plan.kind import CHANNELS, REMOTES, Kind
from agent.plan.options import BY_PARAMETER, OPTIONS, Option, read_agent_settings, read_parameters
from agent.plan.subject import Family, Subject
from agent.plan.values import Unusable
from agent.protocol.fhir import Agent, AgentSetting
from agent.protocol.hl7 import KeySpec
from agent.spec import AckMode, BatchAck, DuplicateBehavior, FlowControl, Parity, RetryMode, ReturnAck

ADT = Subject(Family.CHANNEL, "adt")
LAB = Subject(Family.REMOTE, "lab.example:2575")


def _on(kind: Kind, *given: tuple[str, str]) -> tuple[dict[str, Any], list[Finding]]:
    """`given`: names and values as they are before percent-encoding."""
    findings: list[Finding] = []
    parameters = tuple(Parameter(name, value, quote(value, safe="")) for name, value in given)
    subject = ADT if kind in CHANNELS else LAB
    return read_parameters(subject, Address("", kind, "x", "0.0.0.0", 1, parameters), findings), findings


def _names(kinds: Kind) -> set[str]:
    return {name for kind in Kind if kind in kinds for name in BY_PARAMETER[kind]}


def _of_a_remote(**given: str) -> tuple[dict[str, Any], list[Finding]]:
    return _on(Kind.REMOTE, *given.items())


def _parameters(**given: str) -> tuple[dict[str, Any], list[Finding]]:
    return _on(Kind.MLLP, *given.items())


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


@pytest.mark.parametrize("name", sorted(_names(CHANNELS) - _names(REMOTES)))
def test_what_belongs_on_the_address_of_a_channel_has_no_effect_on_a_remote(name: str) -> None:
    values, (finding,) = _of_a_remote(**{name: "1"})

    assert values == {}
    assert (finding.code, finding.severity) == ("remote.idle-parameter", Severity.WARNING)
    assert finding.text == f"{name}: the parameter has no effect on a remote"
    meant = {"ackTimeoutSecs": "ackTimeoutMs", "bodyEncoding": "encoding"}.get(name)
    remedy = "remove it; it belongs on the address of a channel"
    assert finding.remedy == (f"did you mean {meant}?" if meant else remedy)


@pytest.mark.parametrize("name", sorted(_names(REMOTES) - _names(CHANNELS)))
def test_what_belongs_on_the_address_of_a_remote_has_no_effect_on_a_channel(name: str) -> None:
    values, (finding,) = _parameters(**{name: "1"})

    assert values == {}
    assert (finding.code, finding.severity, finding.where) == (
        "channel.idle-parameter", Severity.WARNING, f"adt.{name}",
    )  # fmt: skip
    meant = "did you mean ackTimeoutSecs?" if name == "ackTimeoutMs" else None
    assert finding.remedy == (meant or "remove it; it belongs on the address of a remote")


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind in Kind for name in sorted((_names(CHANNELS) | _names(REMOTES)) - set(BY_PARAMETER[kind]))],
)
def test_what_has_no_effect_where_it_stands_is_left_out_and_told(kind: Kind, name: str) -> None:
    values, (finding,) = _on(kind, (name, "1"))

    assert values == {}
    assert finding.code in {"channel.idle-parameter", "remote.idle-parameter"}
    assert finding.severity is Severity.WARNING
    assert "no effect on a" in finding.text
    assert finding.remedy.startswith(("did you mean ", "remove it; it belongs on the address of a"))


@pytest.mark.parametrize(
    ("kind", "name", "text", "remedy"),
    [
        (
            Kind.MLLP,
            "startChar",
            "the parameter has no effect on an MLLP channel",
            "remove it; it belongs on the address of a byte stream channel",
        ),
        (Kind.STREAM, "encoding", "the parameter has no effect on a byte stream channel", "did you mean bodyEncoding?"),
        (
            Kind.ASTM,
            "baudRate",
            "the parameter has no effect on an ASTM channel",
            "remove it; it belongs on the address of a serial channel",
        ),
        (
            Kind.DICOM,
            "ignoreResponse",
            "the parameter has no effect on a DICOM channel",
            "remove it; it belongs on the address of a byte stream or ASTM channel",
        ),
        (
            Kind.SERIAL_ASTM,
            "tcpKeepAliveSecs",
            "the parameter has no effect on a serial ASTM channel",
            "remove it; it belongs on the address of a channel with TCP connections",
        ),
        (
            Kind.ASTM_REMOTE,
            "returnAck",
            "returnAck: the parameter has no effect on an ASTM remote",
            "remove it; it belongs on the address of an MLLP remote",
        ),
    ],
)
def test_it_is_told_where_a_parameter_would_have_an_effect(kind: Kind, name: str, text: str, remedy: str) -> None:
    _, (finding,) = _on(kind, (name, "1"))

    assert (finding.text, finding.remedy) == (text, remedy)


@pytest.mark.parametrize(
    ("kind", "misspelt", "meant", "severity"),
    [
        (Kind.STREAM, "startchar", "startChar", Severity.WARNING),
        (Kind.STREAM, "autorespond", "autoRespond", Severity.WARNING),
        (Kind.SERIAL_STREAM, "baud", "baudRate", Severity.WARNING),
        (Kind.SERIAL_ASTM, "databits", "dataBits", Severity.WARNING),
        (Kind.DICOM, "aet", "aeTitle", Severity.WARNING),
        (Kind.DICOM, "callingAeTitle", "callingAeTitles", Severity.ERROR),
        (Kind.DICOM, "callingAETitles", "callingAeTitles", Severity.ERROR),
        (Kind.STREAM, "alow", "allow", Severity.ERROR),
        (Kind.SERIAL_ASTM, "alow", "", Severity.WARNING),
    ],
)
def test_a_misspelt_parameter_hears_what_was_meant_on_an_address_of_its_kind(
    kind: Kind, misspelt: str, meant: str, severity: Severity
) -> None:
    values, (finding,) = _on(kind, (misspelt, "1"))

    assert values == {}
    assert (finding.code, finding.severity) == ("channel.unknown-parameter", severity)
    assert finding.remedy == (f"did you mean {meant}?" if meant else "remove it from the address")


STREAMS = (Kind.STREAM, Kind.SERIAL_STREAM)
ANALYSERS = (Kind.ASTM, Kind.SERIAL_ASTM, Kind.ASTM_REMOTE)
SERIAL = (Kind.SERIAL_STREAM, Kind.SERIAL_ASTM)
DICOM = (Kind.DICOM,)


@pytest.mark.parametrize(
    ("kinds", "name", "written", "value"),
    [
        (STREAMS, "startChar", "\x02", 2),
        (STREAMS, "startChar", "\x00", 0),
        (STREAMS, "endChar", "\xff", 255),
        (STREAMS, "endChar", "|", 124),
        (STREAMS, "autoRespond", "\x05:\x06,\x03:\x06", ((b"\x05", b"\x06"), (b"\x03", b"\x06"))),
        (STREAMS, "stripSequence", "\x05,\r\n,\x05", (b"\x05", b"\r\n")),
        (STREAMS, "stripControlChars", "true", True),
        (STREAMS, "keepControlChars", "\r,\n", (13, 10)),
        (STREAMS, "keepControlChars", "\r\n\r", (13, 10)),
        (STREAMS, "bodyEncoding", "HEX", None),
        (STREAMS, "bodyEncoding", "UTF8", "utf-8"),
        (STREAMS, "bodyEncoding", "windows-1252", "cp1252"),
        ((*STREAMS, Kind.ASTM, Kind.SERIAL_ASTM), "ignoreResponse", "true", True),
        (ANALYSERS, "encoding", "utf-8", "utf-8"),
        (ANALYSERS, "encoding", "ISO-8859-1", "latin-1"),
        (ANALYSERS, "encoding", "Latin-1", "latin-1"),
        (ANALYSERS, "frameBytes", "16", 16),
        (ANALYSERS, "frameBytes", "63993", 63_993),
        (SERIAL, "baudRate", "300", 300),
        (SERIAL, "baudRate", "4000000", 4_000_000),
        (SERIAL, "dataBits", "5", 5),
        (SERIAL, "dataBits", "8", 8),
        (SERIAL, "parity", "N", Parity.NONE),
        (SERIAL, "parity", "e", Parity.EVEN),
        (SERIAL, "parity", "O", Parity.ODD),
        (SERIAL, "parity", "M", Parity.MARK),
        (SERIAL, "parity", "S", Parity.SPACE),
        (SERIAL, "stopBits", "1", 1.0),
        (SERIAL, "stopBits", "1.5", 1.5),
        (SERIAL, "stopBits", "2", 2.0),
        (SERIAL, "flowControl", "none", FlowControl.NONE),
        (SERIAL, "flowControl", "RtsCts", FlowControl.RTS_CTS),
        (SERIAL, "flowControl", "xonxoff", FlowControl.XON_XOFF),
        (SERIAL, "mode", "astm", False),
        (DICOM, "mode", "server", False),
        ((Kind.ASTM, Kind.STREAM), "mode", "client", True),
        ((Kind.ASTM, Kind.STREAM), "mode", "ASTM", False),
        (DICOM, "aeTitle", "STORE_SCP", "STORE_SCP"),
        (DICOM, "aeTitle", " 16 characters ok", "16 characters ok"),
        (DICOM, "callingAeTitles", "CT1, MR 1,CT1", ("CT1", "MR 1")),
        (DICOM, "maxMessageBytes", "0", 0),
        (DICOM, "maxMessageBytes", "1099511627776", 1024**4),
        ((Kind.STREAM, Kind.ASTM, *SERIAL), "maxMessageBytes", "1024", 1_024),
        ((Kind.STREAM, Kind.ASTM, Kind.DICOM), "maxConnections", "3", 3),
        ((Kind.STREAM, Kind.ASTM, Kind.DICOM), "allow", "10.0.0.0/8", (ip_network("10.0.0.0/8"),)),
        (tuple(CHANNELS), "retryMode", "normal", RetryMode.NORMAL),
        (tuple(CHANNELS), "messagesPerMin", "30", 30),
        (tuple(CHANNELS), "maxWorkers", "2", 2),
        ((Kind.ASTM_REMOTE,), "durable", "true", True),
        ((Kind.ASTM_REMOTE,), "keepAlive", "true", True),
    ],
)
def test_a_parameter_of_another_wire_that_can_be_used(
    kinds: tuple[Kind, ...], name: str, written: str, value: object
) -> None:
    for kind in kinds:
        assert _on(kind, (name, written)) == ({name: value}, [])


@pytest.mark.parametrize(
    ("kinds", "name", "written", "severity"),
    [
        (STREAMS, "startChar", "", Severity.ERROR),
        (STREAMS, "startChar", "\r\n", Severity.ERROR),
        (STREAMS, "endChar", "€", Severity.ERROR),
        (STREAMS, "autoRespond", "\x05", Severity.ERROR),
        (STREAMS, "autoRespond", "\x05:", Severity.ERROR),
        (STREAMS, "autoRespond", ":\x06", Severity.ERROR),
        (STREAMS, "autoRespond", "\x05:\x06,", Severity.ERROR),
        (STREAMS, "autoRespond", "a:b:c", Severity.ERROR),
        (STREAMS, "stripSequence", "", Severity.ERROR),
        (STREAMS, "stripSequence", "a,,b", Severity.ERROR),
        (STREAMS, "stripControlChars", "yes", Severity.ERROR),
        (STREAMS, "keepControlChars", "\r ", Severity.ERROR),
        (STREAMS, "bodyEncoding", "klingon", Severity.ERROR),
        (STREAMS, "bodyEncoding", "", Severity.ERROR),
        (STREAMS, "ignoreResponse", "1", Severity.ERROR),
        (ANALYSERS, "encoding", "auto", Severity.ERROR),
        (ANALYSERS, "encoding", "", Severity.ERROR),
        (ANALYSERS, "encoding", "utf-16", Severity.ERROR),
        (ANALYSERS, "frameBytes", "15", Severity.WARNING),
        (ANALYSERS, "frameBytes", "63994", Severity.WARNING),
        (SERIAL, "baudRate", "299", Severity.ERROR),
        (SERIAL, "baudRate", "4000001", Severity.ERROR),
        (SERIAL, "baudRate", "fast", Severity.ERROR),
        (SERIAL, "dataBits", "4", Severity.ERROR),
        (SERIAL, "dataBits", "9", Severity.ERROR),
        (SERIAL, "parity", "none", Severity.ERROR),
        (SERIAL, "stopBits", "1.0", Severity.ERROR),
        (SERIAL, "stopBits", "3", Severity.ERROR),
        (SERIAL, "flowControl", "dtr", Severity.ERROR),
        (SERIAL, "mode", "client", Severity.ERROR),
        (DICOM, "mode", "client", Severity.ERROR),
        ((Kind.STREAM, Kind.ASTM), "mode", "astm-client", Severity.ERROR),
        ((Kind.MLLP,), "mode", "astm", Severity.ERROR),
        (DICOM, "aeTitle", "", Severity.ERROR),
        (DICOM, "aeTitle", "   ", Severity.ERROR),
        (DICOM, "aeTitle", "seventeen letters", Severity.ERROR),
        (DICOM, "aeTitle", "a\\b", Severity.ERROR),
        (DICOM, "aeTitle", "Süd", Severity.ERROR),
        (DICOM, "aeTitle", "a\tb", Severity.ERROR),
        (DICOM, "callingAeTitles", "", Severity.ERROR),
        (DICOM, "callingAeTitles", "CT1,", Severity.ERROR),
        (DICOM, "maxMessageBytes", "-1", Severity.WARNING),
        (DICOM, "maxMessageBytes", "1099511627777", Severity.WARNING),
        ((Kind.STREAM, Kind.ASTM, *SERIAL), "maxMessageBytes", "0", Severity.WARNING),
    ],
)
def test_a_parameter_of_another_wire_that_cannot_be_used_is_left_out_and_told(
    kinds: tuple[Kind, ...], name: str, written: str, severity: Severity
) -> None:
    for kind in kinds:
        values, (finding,) = _on(kind, (name, written))

        assert values == {}
        assert finding.code in {"channel.bad-value", "remote.bad-value"}
        assert (finding.severity, bool(finding.remedy)) == (severity, True)
        assert str(finding).isprintable()


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
    values, findings = _on(Kind.MLLP, ("maxWorkers", "1"), ("maxWorkers", "2"))

    assert values == {"maxWorkers": 1}
    assert [(finding.code, finding.where) for finding in findings] == [("channel.repeated-parameter", "adt.maxWorkers")]


def test_of_a_repeated_parameter_the_first_counts_even_if_it_cannot_be_used() -> None:
    values, findings = _on(Kind.MLLP, ("maxWorkers", "many"), ("maxWorkers", "2"))

    assert values == {}
    assert [finding.code for finding in findings] == ["channel.bad-value", "channel.repeated-parameter"]


def test_of_a_list_that_is_given_in_parts_every_part_counts_and_each_entry_once() -> None:
    values, findings = _on(
        Kind.STREAM, ("stripSequence", "\x05,\x15"), ("endChar", "\r"), ("stripSequence", "\x04,\x05")
    )

    assert values == {"stripSequence": (b"\x05", b"\x15", b"\x04"), "endChar": 13}
    assert findings == []


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


@given(
    st.sampled_from(list(Kind)),
    st.lists(st.tuples(st.one_of(st.sampled_from(sorted(_names(CHANNELS) | _names(REMOTES))), st.text()), st.text())),
)
def test_whatever_is_written_each_parameter_is_taken_or_told(kind: Kind, given: list[tuple[str, str]]) -> None:
    values, findings = _on(kind, *given)

    assert set(values) <= {name for name, _ in given}
    assert len(findings) >= len({name for name, _ in given} - set(values))
    assert all(finding.remedy and str(finding).isprintable() for finding in findings)
