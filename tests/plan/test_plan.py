"""What the server wants becomes channels, and everything that is wrong with it becomes findings, at once."""

from __future__ import annotations

import pytest

from agent.errors import Finding, Severity
from agent.plan import AgentSettings, ConfigPlan, build_plan
from agent.plan.retry import RetryWish
from agent.protocol.fhir import Agent, AgentChannel, AgentSetting, Endpoint, Reference
from agent.protocol.hl7 import KeySpec
from agent.settings import ChannelDefaults
from agent.spec import AckMode, AppAck, BatchAck, ChannelSpec, DuplicateBehavior, LineSpec, RetryMode, RetryPolicy

DEFAULTS = ChannelDefaults(ack_timeout_s=12.0, max_message_bytes=1_000_000)


def _plan(addresses: dict[str, str], status: str = "active", **settings: bool | int | str) -> ConfigPlan:
    """One channel for each name, with an active endpoint at its address."""
    agent = Agent(
        status=status,
        channel=tuple(AgentChannel(name, Reference(f"Endpoint/{name}")) for name in addresses),
        setting=tuple(_setting(name, value) for name, value in settings.items()),
    )
    endpoints = {f"Endpoint/{name}": Endpoint(address=address) for name, address in addresses.items()}
    return build_plan(agent, endpoints, DEFAULTS)


def _setting(name: str, value: bool | int | str) -> AgentSetting:
    if isinstance(value, bool):
        return AgentSetting(name, value_boolean=value)
    return AgentSetting(name, value_integer=value) if isinstance(value, int) else AgentSetting(name, value_string=value)


def _only(plan: ConfigPlan) -> ChannelSpec:
    (channel,) = plan.channels
    return channel


def test_a_bare_address_is_a_complete_channel() -> None:
    plan = _plan({"adt": "mllp://0.0.0.0:2575"})

    assert _only(plan) == ChannelSpec(
        name="adt",
        address="mllp://0.0.0.0:2575",
        host="0.0.0.0",
        port=2575,
        ack_timeout_s=12.0,
        line=LineSpec(max_message_bytes=1_000_000),
        endpoint="Endpoint/adt",
    )
    assert (plan.findings, plan.off, plan.skipped, plan.agent_settings) == ((), False, (), AgentSettings())


def test_every_parameter_finds_its_place() -> None:
    plan = _plan(
        {
            "adt": "mllp://[::1]:1?encoding=iso-8859-1&enhanced=true&appLevelAck=ER&assignSeqNo=true&messagesPerMin=30"
            "&ackTimeoutSecs=5&logicalChannelKey=PID-3.1&maxWorkers=4&duplicateBehavior=reject&retryMode=normal"
            "&autoRetryBaseDelayMs=10&autoRetryMaxDelayMs=20&autoRetryMaxAttempts=3&autoRetryBackoffMultiplier=1.5"
            "&invalidBytes=fallback:windows-1252&mllpRelease=2&batchAck=batch"
        }
    )
    channel = _only(plan)

    assert plan.findings == ()
    assert (channel.host, channel.encoding, channel.ack_mode, channel.app_ack) == (
        "::1", "iso-8859-1", AckMode.ENHANCED, AppAck.ERROR,
    )  # fmt: skip
    assert (channel.assign_seq_no, channel.messages_per_min, channel.ack_timeout_s) == (True, 30, 5.0)
    assert (channel.order_key, channel.max_workers) == (KeySpec.parse("PID-3.1"), 4)
    assert channel.duplicates is DuplicateBehavior.REJECT
    assert channel.retry == RetryPolicy(RetryMode.NORMAL, 10, 20, 3, 1.5)
    assert (channel.fallback_charset, channel.mllp_release, channel.batch_ack) == ("cp1252", 2, BatchAck.BATCH)


@pytest.mark.parametrize("mode", ["false", "auto", "aa"])
def test_app_level_ack_without_the_mode_that_it_belongs_to_is_noted(mode: str) -> None:
    plan = _plan({"adt": f"mllp://h:1?enhanced={mode}&appLevelAck=NE"})

    assert [(finding.code, finding.severity, finding.where) for finding in plan.findings] == [
        ("channel.idle-parameter", Severity.INFO, "adt.appLevelAck")
    ]
    assert ("MSH-16" in plan.findings[0].text) is (mode == "auto")
    assert _only(plan).ack_mode is {"false": AckMode.ORIGINAL, "auto": AckMode.AUTO, "aa": AckMode.ENHANCED_AA}[mode]


@pytest.mark.parametrize("enhanced", ["true", "aa", "auto", "false"])
def test_commit_blocks_go_with_every_mode(enhanced: str) -> None:
    plan = _plan({"adt": f"mllp://h:1?enhanced={enhanced}&mllpRelease=2"})

    assert plan.findings == ()
    assert _only(plan).mllp_release == 2


@pytest.mark.parametrize(
    "parameter", ["allow=10.0.0.1/8", "mode=both", "invalidBytes=drop", "mllpRelease=0", "encoding=x"]
)
def test_what_would_open_a_door_or_change_bytes_keeps_the_channel_closed(parameter: str) -> None:
    plan = _plan({"adt": f"mllp://h:1?{parameter}", "other": "mllp://h:1"})

    assert [finding.where for finding in plan.errors] == [f"adt.{parameter.partition('=')[0]}"]
    assert [channel.name for channel in plan.channels] == ["other"]


def test_an_address_wins_over_the_agent_and_the_agent_over_the_host() -> None:
    plan = _plan(
        {"told": "mllp://h:1?logicalChannelKey=&maxWorkers=2&retryMode=none", "untold": "mllp://h:2"},
        channelLogicalChannelKey="PID-3.1",
        channelMaxWorkers=8,
        channelRetryMode="normal",
        channelAutoRetryBaseDelayMs=7,
    )
    told, untold = plan.channels

    assert (told.order_key, told.max_workers, told.retry.mode, told.retry.base_ms) == (None, 2, RetryMode.NONE, 7)
    assert (untold.order_key, untold.max_workers) == (KeySpec.parse("PID-3.1"), 8)
    assert untold.retry == RetryPolicy(RetryMode.NORMAL, 7, 60_000, 10, 2.0)


@pytest.mark.parametrize(
    ("settings", "mode"),
    [
        ({}, RetryMode.GUARANTEED),
        ({"channelAutoRetry": True}, RetryMode.NORMAL),
        ({"channelAutoRetry": False}, RetryMode.NONE),
        ({"channelGuaranteedDelivery": True}, RetryMode.GUARANTEED),
        ({"channelGuaranteedDelivery": False}, RetryMode.NORMAL),
        ({"channelGuaranteedDelivery": False, "channelAutoRetry": False}, RetryMode.NONE),
        ({"channelGuaranteedDelivery": True, "channelAutoRetry": False}, RetryMode.GUARANTEED),
        ({"channelRetryMode": "none", "channelAutoRetry": True, "channelGuaranteedDelivery": True}, RetryMode.NONE),
    ],
)
def test_older_names_of_the_retry_mode(settings: dict[str, bool | str], mode: RetryMode) -> None:
    retry = _only(_plan({"adt": "mllp://h:1"}, **settings)).retry

    assert retry.mode is mode
    assert retry.max_attempts == {RetryMode.NONE: 1, RetryMode.NORMAL: 10, RetryMode.GUARANTEED: 0}[mode]


def test_a_longest_delay_below_the_first_one_is_raised_and_told() -> None:
    plan = _plan({"adt": "mllp://h:1?autoRetryBaseDelayMs=5000&autoRetryMaxDelayMs=1000"})

    assert _only(plan).retry.max_ms == 5_000
    assert [finding.where for finding in plan.findings] == ["adt.autoRetryMaxDelayMs"]
    assert _plan({"adt": "mllp://h:1?autoRetryBaseDelayMs=90000"}).findings == ()


def test_agent_settings() -> None:
    settings = _plan(
        {},
        keepAlive=True,
        outboundDurable=True,
        channelRetryMode="normal",
        channelAutoRetryBaseDelayMs=5,
        logStatsFreqSecs=0,
        queueRetentionDays=1,
        queueRetentionMaxMb=2,
        queueErroredRetentionDays=3,
        queueSweepIntervalSecs=4,
        strictConfigValidation=True,
    ).agent_settings

    wish = RetryWish(mode=RetryMode.NORMAL, base_ms=5)
    assert settings == AgentSettings(True, None, None, 1.0, 2, 3.0, 4, strict=True, outbound_durable=True, retry=wish)
    assert _plan({}, keepAlive=True, maxClientsPerRemote=9).agent_settings.max_clients_per_remote == 9
    assert _plan({}, channelAutoRetry=False).agent_settings.retry == RetryWish(mode=RetryMode.NONE)


def test_the_recorded_wrong_values_are_warnings_and_the_channel_runs_with_defaults() -> None:
    """Scenario inbound-enhanced-invalid."""
    plan = _plan({"adt": "mllp://0.0.0.0:27001?enhanced=maybe&appLevelAck=XX&messagesPerMin=abc"})

    assert [(finding.where, finding.severity) for finding in plan.findings] == [
        ("adt.enhanced", Severity.WARNING),
        ("adt.appLevelAck", Severity.WARNING),
        ("adt.messagesPerMin", Severity.WARNING),
    ]
    channel = _only(plan)
    assert (channel.ack_mode, channel.app_ack, channel.messages_per_min) == (AckMode.ORIGINAL, AppAck.ALWAYS, None)


def test_strict_validation_makes_every_warning_an_error_and_notes_stay_notes() -> None:
    plan = _plan(
        {"bad": "mllp://h:1?enhanced=maybe", "good": "mllp://h:2?appLevelAck=AL"},
        strictConfigValidation=True,
        keepalive=True,
    )

    assert [(finding.where, finding.severity) for finding in plan.findings] == [
        ("Agent.setting.keepalive", Severity.ERROR),
        ("bad.enhanced", Severity.ERROR),
        ("good.appLevelAck", Severity.INFO),
    ]
    assert [channel.name for channel in plan.channels] == ["good"]
    assert len(plan.errors) == 2


def test_channels_with_errors_are_left_out_all_told_at_once_and_the_others_stand() -> None:
    agent = Agent(
        channel=(
            AgentChannel("good", Reference("Endpoint/good")),
            AgentChannel("none"),
            AgentChannel("lost", Reference("Endpoint/lost")),
            AgentChannel("denied", Reference("Endpoint/denied")),
            AgentChannel("dicom", Reference("Endpoint/dicom")),
            AgentChannel("key", Reference("Endpoint/key")),
            AgentChannel("good", Reference("Endpoint/free")),
            AgentChannel("taken", Reference("Endpoint/taken")),
            AgentChannel(" ", Reference("Endpoint/free")),
            AgentChannel("also-good", Reference("Endpoint/free")),
        )
    )
    endpoints: dict[str, Endpoint | Finding] = {
        "Endpoint/good": Endpoint(address="mllp://0.0.0.0:1"),
        "Endpoint/denied": Finding("server.refused", Severity.WARNING, "Forbidden", "allow it", "Endpoint/denied"),
        "Endpoint/dicom": Endpoint(address="dicom://0.0.0.0:104"),
        "Endpoint/key": Endpoint(address="mllp://0.0.0.0:3?logicalChannelKey=x&encoding=y"),
        "Endpoint/taken": Endpoint(address="mllp://127.0.0.1:1"),
        "Endpoint/free": Endpoint(address="mllp://0.0.0.0:2"),
    }

    plan = build_plan(agent, endpoints, DEFAULTS)

    assert [channel.name for channel in plan.channels] == ["good", "also-good"]
    assert [(finding.where, finding.code) for finding in plan.errors] == [
        ("none.endpoint", "channel.endpoint-missing"),
        ("lost.endpoint", "channel.endpoint-missing"),
        ("denied.endpoint", "server.refused"),
        ("dicom.address", "channel.scheme-unsupported"),
        ("key.logicalChannelKey", "channel.bad-value"),
        ("key.encoding", "channel.bad-value"),
        ("good.name", "channel.name-twice"),
        ("taken.address", "channel.port-twice"),
        ("Agent.channel", "channel.name-missing"),
    ]
    assert all(finding.remedy for finding in plan.errors)


def test_a_malformed_agent_wide_key_is_an_error_and_stops_no_channel() -> None:
    plan = _plan({"adt": "mllp://h:1"}, channelLogicalChannelKey="PID")

    assert [finding.where for finding in plan.errors] == ["Agent.setting.channelLogicalChannelKey"]
    assert _only(plan).order_key is None


def test_an_endpoint_that_is_off_is_skipped_and_not_wrong_even_if_its_address_is() -> None:
    agent = Agent(channel=(AgentChannel("adt", Reference("Endpoint/1")),))

    plan = build_plan(agent, {"Endpoint/1": Endpoint(status="off", address="nonsense")}, DEFAULTS)

    assert (plan.channels, plan.skipped, plan.findings, plan.off) == ((), ("adt",), (), False)


def test_an_agent_that_is_off_has_no_channels_and_needs_no_endpoints() -> None:
    agent = Agent(status="off", channel=(AgentChannel("adt", Reference("Endpoint/1")),))

    plan = build_plan(agent, {}, DEFAULTS)

    assert (plan.off, plan.channels, plan.skipped, plan.findings) == (True, (), ("adt",), ())


def test_remarks_about_an_address() -> None:
    plan = _plan({"a": "mllp://h:0", "b": "mllp://h:2/path?enhanced=true#x"})

    assert [(finding.code, finding.severity) for finding in plan.findings] == [
        ("channel.port-any", Severity.INFO),
        ("channel.address-rest", Severity.WARNING),
    ]
    assert len(plan.channels) == 2


def test_equal_resources_make_equal_plans() -> None:
    addresses = {"adt": "mllp://h:1?logicalChannelKey=PID-3.1&enhanced=aa"}

    assert _plan(addresses) == _plan(addresses)
