"""What a channel speaks: byte streams, analysers, DICOM, and all that over a serial line."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import Severity
from agent.plan import ConfigPlan, build_plan
from agent.plan.kind import Kind
from agent.plan.options import BY_PARAMETER
from agent.protocol.charset import codec_for
from agent.protocol.fhir import Agent, AgentChannel, AgentSetting, Endpoint, Reference
from agent.settings import ChannelDefaults
from agent.spec import (
    AckMode,
    Astm,
    ByteStream,
    ChannelSpec,
    Dicom,
    DuplicateBehavior,
    FlowControl,
    LineSpec,
    Mllp,
    Parity,
    RetryMode,
    SerialSpec,
)

ENDS = "startChar=%02&endChar=%03"
EVERYWHERE = {
    "channelLogicalChannelKey": "PID-3.1",
    "channelMaxWorkers": "8",
    "channelRetryMode": "normal",
    "keepAlive": "true",
    "maxClientsPerRemote": "7",
}


def _plan(*addresses: str, **settings: str) -> ConfigPlan:
    agent = Agent(
        channel=tuple(AgentChannel(f"c{number}", Reference(f"Endpoint/{number}")) for number in range(len(addresses))),
        setting=tuple(AgentSetting(name, value_string=value) for name, value in settings.items()),
    )
    endpoints = {f"Endpoint/{number}": Endpoint(address=text) for number, text in enumerate(addresses)}
    return build_plan(agent, endpoints, ChannelDefaults(), have=lambda module: True)


def _spec(address: str, **settings: str) -> ChannelSpec:
    plan = _plan(address, **settings)
    assert plan.findings == ()
    return plan.channels[0]


def test_the_recorded_byte_stream_is_a_complete_channel() -> None:
    """Scenario inbound-bytestream."""
    assert _spec("tcp://0.0.0.0:27001?startChar=%02&endChar=%03") == ChannelSpec(
        name="c0",
        address="tcp://0.0.0.0:27001?startChar=%02&endChar=%03",
        host="0.0.0.0",
        port=27_001,
        wire=ByteStream(end=3, start=2),
        endpoint="Endpoint/0",
    )


def test_the_recorded_dicom_address_is_a_complete_channel() -> None:
    """Scenario dicom."""
    assert _spec("dicom://0.0.0.0:27001") == ChannelSpec(
        name="c0",
        address="dicom://0.0.0.0:27001",
        host="0.0.0.0",
        port=27_001,
        line=LineSpec(max_message_bytes=0),
        wire=Dicom(),
        endpoint="Endpoint/0",
    )


def test_every_parameter_of_a_byte_stream_finds_its_place() -> None:
    spec = _spec(
        f"tcp://h:1?{ENDS}&autoRespond=%05:%06,%04:%15&autoRespond=ab:c&stripSequence=%0D%0A,x&stripControlChars=true"
        "&keepControlChars=%0D,%0A&bodyEncoding=iso-8859-1&ignoreResponse=true&messagesPerMin=30&retryMode=none"
        "&ackTimeoutSecs=5&maxWorkers=2"
    )

    assert spec.wire == ByteStream(
        end=3,
        start=2,
        responses=((b"\x05", b"\x06"), (b"\x04", b"\x15"), (b"ab", b"c")),
        strip=(b"\r\n", b"x"),
        strip_controls=True,
        keep_controls=frozenset({13, 10}),
        body_codec="iso8859-1",
        ignore_response=True,
    )
    assert (spec.messages_per_min, spec.retry.mode, spec.ack_timeout_s, spec.max_workers) == (
        30,
        RetryMode.NONE,
        5.0,
        2,
    )


@pytest.mark.parametrize("scheme", ["astm://h:1?", "tcp://h:1?mode=astm&", "serial://COM1?mode=astm&"])
def test_every_parameter_of_an_analyser_finds_its_place(scheme: str) -> None:
    assert _spec(scheme).wire == Astm()
    assert _spec(f"{scheme}encoding=utf-8&frameBytes=1024&ignoreResponse=true").wire == Astm("utf-8", 1_024, True)
    assert _spec(f"{scheme}encoding=iso-8859-1&frameBytes=240").wire == Astm()


def test_the_charset_of_records_is_the_wires_and_none_of_hl7() -> None:
    assert _spec("astm://h:1?encoding=utf-8").encoding is None


def test_percent_encoded_commas_and_colons_between_plain_ones_are_bytes_like_others() -> None:
    wire = _spec(f"tcp://h:1?{ENDS}&autoRespond=%05:%3A%2C,%2C:%E9&stripSequence=%2C,%25").wire

    assert isinstance(wire, ByteStream)
    assert wire.responses == ((b"\x05", b":,"), (b",", b"\xe9"))
    assert wire.strip == (b",", b"%")


def test_every_parameter_of_dicom_finds_its_place() -> None:
    assert _spec("dicom://h:104?aeTitle=ARCHIVE&callingAeTitles=CT1,MR%201").wire == Dicom("ARCHIVE", ("CT1", "MR 1"))


def test_every_parameter_of_a_serial_line_finds_its_place() -> None:
    spec = _spec(
        f"serial:///dev/ttyUSB0?baudRate=19200&dataBits=7&parity=E&stopBits=2&flowControl=xonxoff&{ENDS}&maxMessageBytes=2048"
    )

    assert spec.serial == SerialSpec("/dev/ttyUSB0", 19_200, 7, Parity.EVEN, 2.0, FlowControl.XON_XOFF)
    assert (spec.host, spec.port, spec.dials, spec.listens) == ("/dev/ttyUSB0", 0, False, False)
    assert (spec.wire, spec.line.max_message_bytes) == (ByteStream(end=3, start=2), 2_048)


def test_a_serial_line_that_says_nothing_is_one_of_9600_baud_eight_data_bits_and_no_parity() -> None:
    assert _spec("serial://COM3?mode=astm").serial == SerialSpec("COM3")


@pytest.mark.parametrize(
    ("address", "family"),
    [
        ("mllp://h:1", "mllp"),
        (f"tcp://h:1?{ENDS}", "tcp"),
        (f"tcp://h:1?{ENDS}&mode=client", "tcp"),
        ("tcp://h:1?mode=astm", "astm"),
        ("astm://h:1?mode=client", "astm"),
        (f"serial:///dev/ttyS0?{ENDS}", "tcp"),
        ("serial:///dev/ttyS0?mode=astm", "astm"),
        ("dicom://h:104", "dicom"),
    ],
)
def test_the_family_of_a_channel_is_what_it_speaks(address: str, family: str) -> None:
    spec = _spec(address)

    assert spec.family == family
    assert (spec.wire == Mllp()) is (family == "mllp")
    assert (spec.serial is None) is not address.startswith("serial")


@pytest.mark.parametrize(
    "address", [f"tcp://h:1?{ENDS}", "astm://h:1", "dicom://h:104", f"serial://COM1?{ENDS}", "serial://COM1?mode=astm"]
)
def test_what_is_about_hl7_has_its_default_on_other_wires_and_agent_wide_settings_complain_on_none(
    address: str,
) -> None:
    spec = _spec(address, **EVERYWHERE)

    assert (spec.encoding, spec.order_key, spec.fallback_charset) == (None, None, None)
    assert (spec.ack_mode, spec.duplicates, spec.mllp_release) == (
        AckMode.ORIGINAL, DuplicateBehavior.IDEMPOTENT, 1,
    )  # fmt: skip
    assert (spec.max_workers, spec.retry.mode) == (8, RetryMode.NORMAL)


def test_the_agents_key_holds_for_hl7() -> None:
    assert _spec("mllp://h:1", **EVERYWHERE).order_key is not None


def test_a_byte_stream_needs_an_end_and_says_so_beside_what_else_is_wrong() -> None:
    plan = _plan("tcp://h:1?startChar=%0D%0A&baudRate=1")

    assert [(finding.code, finding.where) for finding in plan.errors] == [
        ("channel.bad-value", "c0.startChar"),
        ("channel.parameter-missing", "c0.endChar"),
    ]
    assert "endChar=%03" in plan.errors[1].remedy


def test_an_end_that_cannot_be_used_is_not_told_to_be_missing() -> None:
    (finding,) = _plan("tcp://h:1?startChar=%02&endChar=").findings

    assert (finding.code, finding.where, finding.severity) == ("channel.bad-value", "c0.endChar", Severity.ERROR)


@pytest.mark.parametrize(
    ("address", "remedy"),
    [
        ("tcp://h:1?mode=astm-client", "astm://host:port?mode=client"),
        ("serial://COM1?mode=client", "mode=astm for an analyser"),
        ("dicom://h:1?mode=client", "calls nobody"),
    ],
)
def test_a_mode_that_there_is_not_hears_what_may_have_been_meant_and_nothing_about_characters(
    address: str, remedy: str
) -> None:
    (finding,) = _plan(address).findings

    assert (finding.code, finding.where, finding.severity) == ("channel.bad-value", "c0.mode", Severity.ERROR)
    assert remedy in finding.remedy


def test_a_start_of_zero_and_an_end_of_zero_are_characters_like_others() -> None:
    assert _spec("tcp://h:1?startChar=%00&endChar=%01").wire == ByteStream(end=1, start=0)
    assert _spec("tcp://h:1?startChar=%01&endChar=%00").wire == ByteStream(end=0, start=1)


def test_one_sequence_with_two_answers_is_refused() -> None:
    (finding,) = _plan(f"tcp://h:1?{ENDS}&autoRespond=%05:%06&autoRespond=%05:%15").findings

    assert (finding.code, finding.where, finding.severity) == ("channel.bad-value", "c0.autoRespond", Severity.ERROR)


def test_characters_that_would_stay_anyway_are_noted() -> None:
    plan = _plan(f"tcp://h:1?{ENDS}&keepControlChars=%0D")

    assert [(finding.code, finding.where, finding.severity) for finding in plan.findings] == [
        ("channel.idle-parameter", "c0.keepControlChars", Severity.INFO)
    ]


@pytest.mark.parametrize(
    ("address", "where"),
    [
        ("serial://COM1?mode=astm&allow=10.0.0.1", "c0.allow"),
        ("serial://COM1?mode=astm&idleTimeoutSecs=1", "c0.idleTimeoutSecs"),
        ("serial://COM1?mode=astm&endChar=%03", "c0.endChar"),
        ("astm://h:1?frameTimeoutSecs=1", "c0.frameTimeoutSecs"),
        ("astm://h:1?ackTimeoutSecs=1", "c0.ackTimeoutSecs"),
        ("dicom://h:1?ackTimeoutSecs=1", "c0.ackTimeoutSecs"),
        ("tcp://h:1?mode=astm&startChar=%03", "c0.startChar"),
        (f"tcp://h:1?{ENDS}&baudRate=9600", "c0.baudRate"),
        (f"tcp://h:1?{ENDS}&enhanced=true", "c0.enhanced"),
        ("dicom://h:1?enhanced=true", "c0.enhanced"),
        ("mllp://h:1?aeTitle=X", "c0.aeTitle"),
    ],
)
def test_a_parameter_of_another_wire_is_a_warning_and_the_channel_runs(address: str, where: str) -> None:
    plan = _plan(address)

    assert [(finding.code, finding.where, finding.severity) for finding in plan.findings] == [
        ("channel.idle-parameter", where, Severity.WARNING)
    ]
    assert len(plan.channels) == 1


NAMES = sorted({name for kind in Kind for name in BY_PARAMETER[kind]})
VALUES = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["astm", "client", "true", "\x02", "\x03", "\x05:\x06", "a,b", "hex", "utf-8", "N", "2", "CT1"]),
    st.integers(-1, 5_000_000).map(str),
)


@given(
    st.sampled_from(["tcp://h:1", "astm://h:1", "dicom://h:104", "serial:///dev/ttyS0", "serial://COM3", "mllp://h:1"]),
    st.dictionaries(st.one_of(st.sampled_from(NAMES), st.text(max_size=9)), VALUES, max_size=8),
    st.dictionaries(st.sampled_from(sorted(EVERYWHERE)), VALUES),
    st.randoms(use_true_random=False),
)
def test_whatever_the_server_says_a_channel_is_complete_or_an_error(
    place: str, parameters: Mapping[str, str], settings: dict[str, Any], chance: random.Random
) -> None:
    given_twice = list(parameters.items()) + chance.sample(list(parameters.items()), k=len(parameters) // 2)
    plan = _plan(f"{place}?{urlencode(given_twice, errors='replace')}", **settings)

    of_the_channel = [finding for finding in plan.findings if finding.code.startswith("channel.")]
    assert bool(plan.channels) is not any(finding.severity is Severity.ERROR for finding in of_the_channel)
    assert all(finding.remedy and finding.where and str(finding).isprintable() for finding in plan.findings)
    for spec in plan.channels:
        assert (spec.serial is not None) is place.startswith("serial")
        match spec.wire:
            case ByteStream(end=end, start=start):
                assert start != end
                assert start is None or 0 <= start <= 255
                assert 0 <= end <= 255
                assert all(sequence and answer for sequence, answer in spec.wire.responses)
                assert all(spec.wire.strip)
                assert all(octet < 0x20 for octet in spec.wire.keep_controls)
                assert spec.wire.body_codec is None or codec_for(spec.wire.body_codec) == spec.wire.body_codec
            case Astm(codec=codec, frame_bytes=longest):
                assert codec_for(codec)
                assert 16 <= longest <= 63_993
            case Dicom(ae_title=title, calling=calling):
                assert all(1 <= len(name) <= 16 for name in (*calling, *([title] if title is not None else [])))
            case Mllp():
                assert place.startswith("mllp")
