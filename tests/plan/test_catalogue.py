"""The table of options holds together, and says what it holds."""

from __future__ import annotations

import json
from itertools import combinations

import pytest

from agent.plan.agentwide import AgentSettings, agent_settings, as_parameters
from agent.plan.catalogue import BY_PARAMETER, BY_SETTING, OPTIONS, Option
from agent.plan.kind import CHANNELS, Kind
from agent.plan.options import describe_options
from agent.plan.retry import RetryWish
from agent.settings import ChannelDefaults, OutboundDefaults
from agent.spec import Astm, Dicom, LineSpec, SerialSpec

# PROTOCOL §3, agent-wide, with the defaults that it has for them.
AGENT_WIDE = {
    "keepAlive": "false",
    "maxClientsPerRemote": "5; 1 with keepAlive",
    "logStatsFreqSecs": "off",
    "durableQueue": "true",
    "queueDbPath": "spool.dir of this host",
    "queueRetentionDays": "7",
    "queueRetentionMaxMb": "512",
    "queueErroredRetentionDays": "90",
    "queueSweepIntervalSecs": "3600",
    "channelMaxWorkers": "as many as there are keys",
    "channelLogicalChannelKey": "the sender",
    "channelRetryMode": "guaranteed",
    "channelAutoRetryBaseDelayMs": "1000",
    "channelAutoRetryMaxDelayMs": "60000",
    "channelAutoRetryMaxAttempts": "0; 10 with retryMode=normal",
    "channelAutoRetryBackoffMultiplier": "2",
    "strictConfigValidation": "false",
    "channelAutoRetry": "none",
    "channelGuaranteedDelivery": "none",
    "outboundDurable": "false",
}
# PROTOCOL §3, on addresses, and issue 5.
ON_ADDRESSES = {
    Kind.MLLP: {
        "encoding", "enhanced", "appLevelAck", "assignSeqNo", "messagesPerMin", "logicalChannelKey", "maxWorkers",
        "duplicateBehavior", "retryMode", "autoRetryBaseDelayMs", "autoRetryMaxDelayMs", "autoRetryMaxAttempts",
        "autoRetryBackoffMultiplier",
    },
    Kind.STREAM: {
        "startChar", "endChar", "autoRespond", "stripSequence", "stripControlChars", "keepControlChars", "bodyEncoding",
        "ignoreResponse", "mode", "allow",
    },
    Kind.ASTM: {"encoding", "frameBytes", "ignoreResponse", "mode", "allow"},
    Kind.SERIAL_STREAM: {"baudRate", "dataBits", "parity", "stopBits", "flowControl", "startChar", "endChar", "mode"},
    Kind.SERIAL_ASTM: {"baudRate", "dataBits", "parity", "stopBits", "flowControl", "encoding", "frameBytes", "mode"},
    Kind.DICOM: {"aeTitle", "callingAeTitles", "allow", "maxMessageBytes"},
    Kind.ASTM_REMOTE: {"encoding", "frameBytes", "keepAlive", "durable", "retryMode"},
}  # fmt: skip


def test_everything_that_the_protocol_names_is_there_and_the_defaults_are_as_it_has_them() -> None:
    assert {name: option.default for name, option in BY_SETTING.items()} == AGENT_WIDE
    for kind, names in ON_ADDRESSES.items():
        assert names <= set(BY_PARAMETER[kind])


def test_one_name_is_one_option_for_each_kind_of_address() -> None:
    for one, other in combinations([option for option in OPTIONS if option.parameter], 2):
        assert one.parameter != other.parameter or not one.kinds & other.kinds
    settings = [option.setting for option in OPTIONS if option.setting]
    assert len(settings) == len(set(settings))


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.parameter or option.setting)
def test_each_option_has_a_name_a_default_and_a_sentence(option: Option) -> None:
    assert option.parameter or option.setting
    assert bool(option.parameter) is bool(option.kinds)
    assert option.default
    assert option.doc.endswith(".")
    assert option.doc[0].isupper() or option.doc.split(":")[0] in {*option.form.choices, "none"}


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.parameter or option.setting)
def test_what_a_form_says_of_range_and_choices_is_what_its_parser_takes(option: Option) -> None:
    form = option.form
    for choice in form.choices:
        form.parse(choice)
    if form.minimum is not None and form.maximum is not None:
        assert (form.parse(form.minimum), form.parse(form.maximum)) == (form.minimum, form.maximum)
        for beyond in (form.minimum - 1, form.maximum + 1):
            with pytest.raises(ValueError, match="is expected"):
                form.parse(beyond)


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.parameter or option.setting)
def test_a_default_that_is_a_value_is_one_that_can_be_written(option: Option) -> None:
    if option.form.type in {"integer", "number", "boolean"} or option.form.choices:
        value = option.default.rpartition(": ")[2].partition(";")[0]
        if value.replace(".", "").isdigit() or value in {"true", "false"} or value in option.form.choices:
            option.parse(value)


def test_the_defaults_that_are_told_are_those_that_hold() -> None:
    host, line, serial, agent = ChannelDefaults(), LineSpec(), SerialSpec("x"), AgentSettings()
    told = {option.parameter or option.setting: option.default for option in OPTIONS}

    assert told["idleTimeoutSecs"].endswith(f": {host.idle_timeout_s:g}")
    assert told["frameTimeoutSecs"].endswith(f": {host.frame_timeout_s:g}")
    assert told["tcpKeepAliveSecs"].endswith(f": {host.keepalive_s}")
    assert told["maxConnections"].endswith(f": {host.max_connections}")
    assert told["ackTimeoutSecs"].endswith(f": {host.ack_timeout_s:g}")
    assert told["ackTimeoutMs"].endswith(f": {OutboundDefaults().ack_timeout_s * 1000:g}")
    assert BY_PARAMETER[Kind.MLLP]["maxMessageBytes"].default.endswith(f": {line.max_message_bytes}")
    assert BY_PARAMETER[Kind.ASTM]["encoding"].default == Astm().codec
    assert told["frameBytes"] == str(Astm().frame_bytes)
    assert (told["baudRate"], told["dataBits"], told["parity"], told["stopBits"], told["flowControl"]) == (
        str(serial.baud_rate), str(serial.data_bits), serial.parity, f"{serial.stop_bits:g}", serial.flow,
    )  # fmt: skip
    assert Dicom() == Dicom(None, ())
    assert told["queueRetentionDays"] == f"{agent.queue_retention_days:g}"
    assert told["queueRetentionMaxMb"] == str(agent.queue_retention_max_mb)
    assert told["queueErroredRetentionDays"] == f"{agent.queue_errored_retention_days:g}"
    assert told["queueSweepIntervalSecs"] == str(agent.queue_sweep_interval_s)


def test_every_agent_wide_name_reaches_an_address_or_the_agent() -> None:
    for name, option in BY_SETTING.items():
        value = option.parse(option.form.choices[0] if option.form.choices else _some(option))
        reaches = agent_settings({name: value}) != AgentSettings() or as_parameters({name: value})
        assert reaches or option.retired, name
    assert agent_settings({}).retry == RetryWish()


def _some(option: Option) -> str:
    return {"boolean": "true", "string": "PID-3.1"}.get(option.form.type, "3")


def test_the_options_are_described_as_plain_facts() -> None:
    rows = describe_options()
    described = {(row["name"], row["setting"], *row["wires"]): row for row in rows}

    assert json.loads(json.dumps(rows)) == rows
    assert len(described) == len(OPTIONS)
    assert described["baudRate", None, "serial-stream", "serial-astm"] == {
        "name": "baudRate",
        "setting": None,
        "wires": ["serial-stream", "serial-astm"],
        "type": "integer",
        "minimum": 300,
        "maximum": 4_000_000,
        "choices": None,
        "default": "9600",
        "doc": "Bits a second.",
        "retired": None,
    }
    assert described["parity", None, "serial-stream", "serial-astm"]["choices"] == ["N", "E", "O", "M", "S"]
    assert described[None, "durableQueue"]["retired"]
    assert {word for row in rows for word in row["wires"]} == {word for kind in Kind for word in kind.words}
    assert CHANNELS.words == ("mllp", "stream", "astm", "dicom", "serial-stream", "serial-astm")
