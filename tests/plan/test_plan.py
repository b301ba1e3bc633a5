"""What the server wants becomes channels, and everything that is wrong with it becomes findings, at once."""

from __future__ import annotations

import pytest

from agent.errors import Finding, Severity
from agent.plan import AgentSettings, ConfigPlan, build_plan
from agent.plan.extras import is_installed
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
    return build_plan(agent, endpoints, DEFAULTS, have=lambda module: True)


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
    plan = _plan({"adt": f"mllp://h:1?{parameter}", "other": "mllp://h:2"})

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

    plan = build_plan(agent, endpoints, DEFAULTS, have=lambda module: False)

    assert [channel.name for channel in plan.channels] == ["good", "also-good"]
    assert [(finding.where, finding.code) for finding in plan.errors] == [
        ("none.endpoint", "channel.endpoint-missing"),
        ("lost.endpoint", "channel.endpoint-missing"),
        ("denied.endpoint", "server.refused"),
        ("dicom.address", "channel.extra-missing"),
        ("key.logicalChannelKey", "channel.bad-value"),
        ("key.encoding", "channel.bad-value"),
        ("good.name", "channel.name-twice"),
        ("good.address", "channel.port-twice"),
        ("taken.address", "channel.port-twice"),
        ("Agent.channel", "channel.name-missing"),
        (" .address", "channel.port-twice"),
        (" .address", "channel.port-twice"),
    ]
    assert all(finding.remedy for finding in plan.errors)


def test_of_two_channels_with_one_port_the_first_that_is_sound_has_it_and_a_broken_one_hears_of_it_at_once() -> None:
    plan = _plan(
        {"broken": "mllp://h:1?encoding=x", "first": "mllp://h:1", "second": "tcp://h:1?startChar=%02&endChar=%03"}
    )

    assert [channel.name for channel in plan.channels] == ["first"]
    assert [(finding.where, finding.code, finding.text.partition(" listens")[0]) for finding in plan.findings] == [
        ("broken.encoding", "channel.bad-value", "'x' cannot be used: the character set 'x' is unknown"),
        ("broken.address", "channel.port-twice", "channel first"),
        ("broken.address", "channel.port-twice", "channel second"),
        ("second.address", "channel.port-twice", "channel first"),
    ]


def test_of_an_address_without_a_place_the_parameters_are_checked_all_the_same() -> None:
    plan = _plan({"adt": "mllp://?encoding=x&alow=10.0.0.1", "lab": "tcp://h:99999?mode=both"})

    assert plan.channels == ()
    assert [(finding.where, finding.code) for finding in plan.findings] == [
        ("adt.address", "channel.host-missing"),
        ("adt.address", "channel.port-missing"),
        ("adt.encoding", "channel.bad-value"),
        ("adt.alow", "channel.unknown-parameter"),
        ("lab.address", "channel.port-bad"),
        ("lab.mode", "channel.bad-value"),
    ]


# Every problem that the addresses of channels may have: the other addresses in force, this one, where, severity.
PROBLEMS = [
    ("channel.address-empty", [""], "c1.address", Severity.ERROR),
    ("channel.address-unreadable", ["nonsense"], "c1.address", Severity.ERROR),
    ("channel.scheme-unknown", ["hl7://h:1"], "c1.address", Severity.ERROR),
    ("channel.host-missing", ["mllp://:1"], "c1.address", Severity.ERROR),
    ("channel.port-missing", ["mllp://h"], "c1.address", Severity.ERROR),
    ("channel.port-bad", ["mllp://h:65536"], "c1.address", Severity.ERROR),
    ("channel.port-twice", ["mllp://h:1", "mllp://h:1"], "c2.address", Severity.ERROR),
    ("channel.device-missing", ["serial://?endChar=%03&startChar=%02"], "c1.address", Severity.ERROR),
    ("channel.device-bad", ["serial://dev/ttyS0?endChar=%03&startChar=%02"], "c1.address", Severity.ERROR),
    (
        "channel.device-twice",
        ["serial://COM1?mode=astm", "serial:///com1?mode=astm"],
        "c2.address",
        Severity.ERROR,
    ),
    ("channel.dial-host", ["mllp://0.0.0.0:1?mode=client"], "c1.address", Severity.ERROR),
    ("channel.dial-port", ["astm://h:0?mode=client"], "c1.address", Severity.ERROR),
    ("channel.port-any", ["mllp://h:0"], "c1.address", Severity.INFO),
    ("channel.address-rest", ["mllp://h:1/x"], "c1.address", Severity.WARNING),
    ("channel.address-rest", ["serial:///dev/ttyS0?mode=astm#1"], "c1.address", Severity.WARNING),
    ("channel.unknown-parameter", ["mllp://h:1?maxworkers=1"], "c1.maxworkers", Severity.WARNING),
    ("channel.unknown-parameter", ["mllp://h:1?alow=10.0.0.1"], "c1.alow", Severity.ERROR),
    ("channel.idle-parameter", ["mllp://h:1?baudRate=9600"], "c1.baudRate", Severity.WARNING),
    ("channel.idle-parameter", ["mllp://h:1?maxClients=1"], "c1.maxClients", Severity.WARNING),
    ("channel.idle-parameter", ["mllp://h:1?appLevelAck=AL"], "c1.appLevelAck", Severity.INFO),
    ("channel.idle-parameter", ["mllp://h:1?mode=client&allow=10.0.0.1"], "c1.allow", Severity.INFO),
    ("channel.repeated-parameter", ["mllp://h:1?maxWorkers=1&maxWorkers=2"], "c1.maxWorkers", Severity.WARNING),
    ("channel.bad-value", ["mllp://h:1?maxWorkers=501"], "c1.maxWorkers", Severity.WARNING),
    ("channel.bad-value", ["mllp://h:1?logicalChannelKey=PID"], "c1.logicalChannelKey", Severity.ERROR),
    ("channel.bad-value", ["mllp://h:1?autoRetryBaseDelayMs=9&autoRetryMaxDelayMs=1"], "c1.autoRetryMaxDelayMs",
     Severity.WARNING),
    ("channel.parameter-missing", ["tcp://h:1?startChar=%02"], "c1.endChar", Severity.ERROR),
    ("channel.no-start", ["tcp://h:1?endChar=%03"], "c1.startChar", Severity.INFO),
    ("channel.same-characters", ["tcp://h:1?startChar=%03&endChar=%03"], "c1.endChar", Severity.ERROR),
    ("channel.tls-missing", ["mllps://h:1"], "c1.tls", Severity.ERROR),
    ("channel.tls-unknown", ["mllps://h:1?tls=x"], "c1.tls", Severity.ERROR),
    ("channel.tls-unused", ["mllp://h:1?tls=x"], "c1.tls", Severity.WARNING),
]  # fmt: skip


@pytest.mark.parametrize(("code", "addresses", "where", "severity"), PROBLEMS)
@pytest.mark.parametrize("strict", [False, True])
def test_each_problem_of_a_channel_has_its_code_and_strictly_no_warning_lets_it_run(
    code: str, addresses: list[str], where: str, severity: Severity, strict: bool
) -> None:
    plan = _plan({f"c{number}": text for number, text in enumerate(addresses, start=1)}, strictConfigValidation=strict)

    if strict and severity is Severity.WARNING:
        severity = Severity.ERROR
    assert [(finding.code, finding.where, finding.severity) for finding in plan.findings] == [(code, where, severity)]
    assert all(finding.text and finding.remedy for finding in plan.findings)
    assert len(plan.channels) == len(addresses) - (severity is Severity.ERROR)


def test_every_problem_of_every_channel_is_told_at_once() -> None:
    broken = {f"c{number}.{code}": addresses[0] for number, (code, addresses, _, _) in enumerate(PROBLEMS)}

    plan = _plan(broken)

    alone = {code for code, addresses, _, _ in PROBLEMS if len(addresses) == 1}
    assert alone <= {finding.code for finding in plan.findings}


@pytest.mark.parametrize(
    ("address", "module", "extra"),
    [
        ("serial:///dev/ttyS0?startChar=%02&endChar=%03", "serial", "serial"),
        ("serial:///dev/ttyS0?mode=astm", "serial", "serial"),
        ("dicom://h:104", "pynetdicom", "dicom"),
    ],
)
def test_a_library_that_is_not_installed_keeps_the_channel_closed(address: str, module: str, extra: str) -> None:
    agent = Agent(channel=(AgentChannel("c", Reference("Endpoint/1")),))
    endpoints = {"Endpoint/1": Endpoint(address=address)}

    without = build_plan(agent, endpoints, DEFAULTS, have=lambda asked: asked != module)
    beside = build_plan(agent, endpoints, DEFAULTS, have=lambda asked: asked == module)

    assert [(finding.code, finding.severity, finding.remedy) for finding in without.findings] == [
        ("channel.extra-missing", Severity.ERROR, f"pip install onprem-agent[{extra}]")
    ]
    assert (without.channels, beside.findings, len(beside.channels)) == ((), (), 1)


@pytest.mark.parametrize("address", ["mllp://h:1", "tcp://h:1?startChar=%02&endChar=%03", "astm://h:1"])
def test_most_channels_need_no_library(address: str) -> None:
    agent = Agent(channel=(AgentChannel("c", Reference("Endpoint/1")),))

    plan = build_plan(agent, {"Endpoint/1": Endpoint(address=address)}, DEFAULTS, have=lambda module: False)

    assert plan.findings == ()


def test_what_is_installed_is_found_without_importing_it() -> None:
    assert is_installed("asyncio")
    assert not is_installed("no_such_module_anywhere")


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
