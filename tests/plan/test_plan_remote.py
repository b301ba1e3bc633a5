"""What the server calls a remote becomes a complete spec under one name, or every reason why not."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import ConfigError, Finding, Severity
from agent.plan import AgentSettings, Remote, build_plan, read_remote
from agent.plan.kind import Kind
from agent.plan.options import BY_PARAMETER
from agent.plan.retry import RetryWish
from agent.protocol.charset import codec_for
from agent.protocol.fhir import Agent, AgentSetting
from agent.settings import ChannelDefaults, OutboundDefaults
from agent.spec import Astm, RemoteSpec, RetryMode, RetryPolicy, ReturnAck, TlsSpec

LAB_2 = TlsSpec("lab-2", certificate=Path("/tls/lab.pem"))
DEFAULT = TlsSpec("default")
PLACE = "remote lab.example:2575"


def _read(
    text: str, *tls: TlsSpec, settings: AgentSettings | None = None, defaults: OutboundDefaults | None = None
) -> Remote:
    settings, defaults = settings or AgentSettings(), defaults or OutboundDefaults()
    return read_remote(text, settings, defaults, {spec.name: spec for spec in tls})


def _spec(text: str, *tls: TlsSpec, settings: AgentSettings | None = None) -> RemoteSpec:
    remote = _read(text, *tls, settings=settings)
    assert remote.findings == ()
    return remote.spec


def _lab(query: str, *tls: TlsSpec, settings: AgentSettings | None = None) -> RemoteSpec:
    return _spec(f"mllp://lab.example:2575?{query}", *tls, settings=settings)


def _refused(text: str, *tls: TlsSpec, settings: AgentSettings | None = None) -> tuple[Finding, ...]:
    with pytest.raises(ConfigError) as refused:
        _read(text, *tls, settings=settings)
    assert all(finding.remedy and str(finding).isprintable() for finding in refused.value.findings)
    return refused.value.findings


def _agent(**given: bool | int | str) -> AgentSettings:
    """As the server's Agent.setting says it."""
    kinds = {bool: "value_boolean", int: "value_integer", str: "value_string"}
    setting = tuple(AgentSetting(name, **{kinds[type(value)]: value}) for name, value in given.items())  # type: ignore[arg-type]
    plan = build_plan(Agent(setting=setting), {}, ChannelDefaults())
    assert plan.findings == ()
    return plan.agent_settings


def test_a_bare_address_is_a_complete_remote() -> None:
    assert _spec("mllp://10.1.2.3:2575") == RemoteSpec("mllp://10.1.2.3:2575", "10.1.2.3", 2575)


def test_every_parameter_finds_its_place() -> None:
    text = (
        "mllps://lab.example:2575?encoding=iso-8859-1&keepAlive=true&maxClients=7&inFlight=3&ackTimeoutMs=1500"
        "&serialize=false&returnAck=first&durable=true&tls=lab-2&retryMode=normal&autoRetryBaseDelayMs=10"
        "&autoRetryMaxDelayMs=20&autoRetryMaxAttempts=4&autoRetryBackoffMultiplier=1.5"
    )
    spec = _spec(text, LAB_2)

    assert spec == RemoteSpec(
        url=spec.url,
        host="lab.example",
        port=2575,
        encoding="iso-8859-1",
        keep_alive=True,
        max_clients=7,
        in_flight=3,
        serialize=False,
        ack_timeout_s=1.5,
        return_ack=ReturnAck.FIRST,
        secure=True,
        tls=LAB_2,
        durable=True,
        retry=RetryPolicy(RetryMode.NORMAL, 10, 20, 4, 1.5),
    )
    assert spec.url == (
        "mllps://lab.example:2575?ackTimeoutMs=1500&autoRetryBackoffMultiplier=1.5&autoRetryBaseDelayMs=10"
        "&autoRetryMaxAttempts=4&autoRetryMaxDelayMs=20&durable=true&encoding=iso-8859-1&inFlight=3&keepAlive=true"
        "&maxClients=7&retryMode=normal&returnAck=first&serialize=false&tls=lab-2"
    )


@pytest.mark.parametrize(
    ("one", "other", "url"),
    [
        ("mllp://LAB.Example:2575", "MLLP://lab.example:02575/", "mllp://lab.example:2575"),
        (" mllp://lab:1? ", "mllp://lab:1", "mllp://lab:1"),
        ("mllp://[0:0:0:0:0:0:0:1]:1", "mllp://[::1]:1", "mllp://[::1]:1"),
        ("mllp://[2001:DB8::00ff]:1", "mllp://[2001:db8:0::ff]:1", "mllp://[2001:db8::ff]:1"),
        ("mllp://[::ffff:10.1.2.3]:1", "mllp://10.1.2.3:1", "mllp://10.1.2.3:1"),
        ("mllp://[fe80::1%25eth0]:1", "mllp://[FE80::1%eth0]:1", "mllp://[fe80::1%25eth0]:1"),
        ("mllp://h:1?maxClients=2&keepAlive=true", "mllp://h:1?keepAlive=TRUE&maxClients=02",
         "mllp://h:1?keepAlive=true&maxClients=2"),
        ("mllp://h:1?encoding=8859/1", "mllp://h:1?encoding=8859%2f1", "mllp://h:1?encoding=8859%2F1"),
        ("mllp://h:1?encoding=UNICODE+UTF-8", "mllp://h:1?encoding=unicode%20utf-8",
         "mllp://h:1?encoding=unicode%20utf-8"),
        ("mllp://h:1?encoding=", "mllp://h:1?encoding=Auto", "mllp://h:1?encoding=auto"),
        ("mllp://h:1?returnAck=FIRST", "mllp://h:1?defaultReturnAck=first", "mllp://h:1?returnAck=first"),
        ("mllp://h:1?durable=true&autoRetryBackoffMultiplier=2.0",
         "mllp://h:1?durable=true&autoRetryBackoffMultiplier=2e0",
         "mllp://h:1?autoRetryBackoffMultiplier=2&durable=true"),
    ],
)  # fmt: skip
def test_two_spellings_of_one_remote_share_a_name(one: str, other: str, url: str) -> None:
    assert _spec(one) == _spec(other)
    assert _spec(one).url == url


def test_a_certificate_goes_by_the_name_that_this_host_has_for_it() -> None:
    assert _spec("mllps://h:1?tls=LAB_2", LAB_2) == _spec("mllps://h:1?tls=lab-2", LAB_2)


@pytest.mark.parametrize(
    ("text", "host", "where"),
    [
        ("mllp://[fe80::1%25eth0]:1", "fe80::1%eth0", "[fe80::1%eth0]:1"),
        ("mllp://[fe80::1%2525]:1", "fe80::1%25", "[fe80::1%25]:1"),
        ("mllp://[fe80::1%7]:1", "fe80::1%7", "[fe80::1%7]:1"),
        ("mllp://[fe80::1%25]:1", "fe80::1%25", "[fe80::1%25]:1"),
        ("mllp://LIS_01.klinik-süd.example.:1", "lis_01.klinik-süd.example.", "lis_01.klinik-süd.example.:1"),
        ("mllp://3com.example:1", "3com.example", "3com.example:1"),
    ],
)
def test_the_host_is_as_a_resolver_takes_it(text: str, host: str, where: str) -> None:
    spec = _spec(text)

    assert (spec.host, spec.where) == (host, where)


def test_what_has_no_effect_whatever_the_settings_stands_not_in_the_name() -> None:
    remote = _read(
        "mllp://lab.example:2575/adt?patient=Smith&enhanced=true&maxClients=many&keepAlive=true&keepAlive=false&tls=lab"
        "&returnAck=first&defaultReturnAck=application#x"
    )

    assert remote.spec == RemoteSpec(
        "mllp://lab.example:2575?keepAlive=true&returnAck=first",
        "lab.example",
        2575,
        keep_alive=True,
        max_clients=1,
        return_ack=ReturnAck.FIRST,
    )
    assert [(finding.code, finding.severity, finding.text.partition(":")[0]) for finding in remote.findings] == [
        ("remote.address-rest", Severity.WARNING, "what follows host and port is ignored"),
        ("remote.unknown-parameter", Severity.WARNING, "patient"),
        ("remote.idle-parameter", Severity.WARNING, "enhanced"),
        ("remote.bad-value", Severity.WARNING, "maxClients"),
        ("remote.repeated-parameter", Severity.WARNING, "keepAlive"),
        ("remote.tls-unused", Severity.WARNING, "tls"),
        ("remote.idle-parameter", Severity.INFO, "defaultReturnAck"),
    ]
    assert {finding.where for finding in remote.findings} == {PLACE}
    assert all(finding.remedy for finding in remote.findings)


@pytest.mark.parametrize(
    ("query", "idle"),
    [
        ("serialize=true&maxClients=2&inFlight=3", ["maxClients", "inFlight"]),
        ("serialize=true&maxClients=1&inFlight=1", []),
        ("serialize=false&maxClients=2&inFlight=3", []),
        ("autoRetryBaseDelayMs=1&retryMode=none", ["retryMode", "autoRetryBaseDelayMs"]),
        ("autoRetryBaseDelayMs=5000&autoRetryMaxDelayMs=1", ["autoRetryBaseDelayMs", "autoRetryMaxDelayMs"]),
        ("durable=false&autoRetryMaxAttempts=1", ["autoRetryMaxAttempts"]),
        ("durable=true&retryMode=normal", []),
    ],
)
def test_parameters_without_effect_beside_others_are_noted(query: str, idle: list[str]) -> None:
    findings = _read(f"mllp://lab.example:2575?{query}").findings

    assert [finding.text.partition(":")[0] for finding in findings] == idle
    assert {(finding.code, finding.severity, finding.where) for finding in findings} <= {
        ("remote.idle-parameter", Severity.INFO, PLACE)
    }


def test_a_note_never_stops_a_push_even_strictly() -> None:
    strict = AgentSettings(strict=True)

    assert len(_read("mllp://h:1?serialize=true&maxClients=2&retryMode=none", settings=strict).findings) == 2


def test_strict_validation_makes_every_warning_an_error() -> None:
    findings = _refused("mllp://lab.example:2575?xyzzy=1&retryMode=none", settings=_agent(strictConfigValidation=True))

    assert [(finding.code, finding.severity) for finding in findings] == [
        ("remote.unknown-parameter", Severity.ERROR),
    ]


def test_a_parameter_wins_over_the_agent_and_the_agent_over_the_host() -> None:
    agent = _agent(
        keepAlive=True,
        maxClientsPerRemote=9,
        outboundDurable=True,
        channelRetryMode="normal",
        channelAutoRetryBaseDelayMs=7,
    )
    untold = _spec("mllp://h:1", settings=agent)
    told = _spec(
        "mllp://h:1?keepAlive=false&maxClients=2&durable=true&autoRetryBaseDelayMs=8&ackTimeoutMs=0", settings=agent
    )

    assert (untold.keep_alive, untold.max_clients, untold.durable) == (True, 9, True)
    assert untold.retry == RetryPolicy(RetryMode.NORMAL, 7, 60_000, 10)
    assert (told.keep_alive, told.max_clients, told.durable, told.ack_timeout_s) == (False, 2, True, 0.0)
    assert told.retry == RetryPolicy(RetryMode.NORMAL, 8, 60_000, 10)
    assert not _lab("durable=false", settings=agent).durable
    assert _read("mllp://h:1", defaults=OutboundDefaults(ack_timeout_s=0.0)).spec.ack_timeout_s == 0.0
    assert _read("mllp://h:1", defaults=OutboundDefaults(ack_timeout_s=4.5)).spec.ack_timeout_s == 4.5
    assert _read("mllp://h:1?ackTimeoutMs=1", defaults=OutboundDefaults(ack_timeout_s=4.5)).spec.ack_timeout_s == 0.001


@pytest.mark.parametrize(
    ("query", "agent", "clients"),
    [
        ("", {}, 5),
        ("keepAlive=true", {}, 1),
        ("", {"keepAlive": True}, 1),
        ("keepAlive=false", {"keepAlive": True}, 5),
        ("keepAlive=true", {"maxClientsPerRemote": 4}, 4),
        ("keepAlive=true&maxClients=3", {"maxClientsPerRemote": 4}, 3),
        ("maxClients=3", {"keepAlive": True}, 3),
    ],
)
def test_a_remote_that_is_kept_connected_has_one_connection_unless_somebody_says_more(
    query: str, agent: Mapping[str, bool | int], clients: int
) -> None:
    assert _lab(query, settings=_agent(**agent)).max_clients == clients


def test_the_older_switches_of_the_agent_hold_for_remotes_too() -> None:
    assert _lab("durable=true", settings=_agent(channelAutoRetry=False)).retry.mode is RetryMode.NONE
    assert _lab("durable=true&retryMode=guaranteed", settings=_agent(channelAutoRetry=False)).retry == RetryPolicy()


@pytest.mark.parametrize(
    ("text", "ours", "taken"),
    [
        ("mllps://h:1?tls=lab-2", (DEFAULT, LAB_2), LAB_2),
        ("mllps://h:1", (DEFAULT, LAB_2), DEFAULT),
        ("mllps://h:1", (LAB_2,), None),
        ("mllps://h:1", (), None),
        ("mllp://h:1", (DEFAULT,), None),
    ],
)
def test_the_certificate_is_the_one_that_is_named_else_the_default_else_none(
    text: str, ours: tuple[TlsSpec, ...], taken: TlsSpec | None
) -> None:
    spec = _spec(text, *ours)

    assert (spec.tls, spec.secure) == (taken, text.startswith("mllps"))


@pytest.mark.parametrize(
    ("named", "remedy"),
    [
        ("lab-3", "did you mean lab-2? this host has default, lab-2"),
        ("", "correct the name, or add it to this host's config.toml; this host has default, lab-2"),
    ],
)
def test_a_certificate_that_this_host_does_not_have_is_an_error_and_never_the_default(named: str, remedy: str) -> None:
    (finding,) = _refused(f"mllps://lab.example:2575?tls={named}", DEFAULT, LAB_2)

    assert (finding.code, finding.severity, finding.where) == ("remote.tls-unknown", Severity.ERROR, PLACE)
    assert finding.remedy == remedy


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "remote.address-empty"),
        ("nonsense", "remote.address-unreadable"),
        ("10.1.2.3:2575", "remote.address-unreadable"),
        ("mllp:10.1.2.3:2575", "remote.address-unreadable"),
        ("mllp://[::1:2575", "remote.address-unreadable"),
        ("mllp://h\x00:1", "remote.address-unreadable"),
        ("mllp://h:1?encoding=%00utf-8", "remote.address-unreadable"),
        ("mllp://h:1?a%0Ab=1", "remote.address-unreadable"),
        ("mllp://Smith:secret@h:1", "remote.address-unreadable"),
        ("mllp://@h:1", "remote.address-unreadable"),
        ("tcp://h:1", "remote.scheme-unsupported"),
        ("astm://10.1.2.3", "remote.port-missing"),
        ("astm://Smith@LIS", "remote.address-unreadable"),
        ("astm://%0A", "remote.address-unreadable"),
        ("astm://0.0.0.0:1", "remote.host-any"),
        ("astm://h:0", "remote.port-bad"),
        ("astm://lab..example:1", "remote.host-bad"),
        ("astm://h:1?encoding=klingon", "remote.bad-value"),
        ("astm://LIS?durable=yes", "remote.bad-value"),
        ("tcps://h:1", "remote.scheme-unknown"),
        ("serial:///dev/ttyS0", "remote.scheme-unsupported"),
        ("dicom://h:104", "remote.scheme-unsupported"),
        ("https://h:443", "remote.scheme-unknown"),
        ("mllp://h", "remote.port-missing"),
        ("mllp://h:0", "remote.port-bad"),
        ("mllp://h:65536", "remote.port-bad"),
        ("mllp://fe80::1:2575", "remote.port-bad"),
        ("mllp://:2575", "remote.host-missing"),
        ("mllp://0.0.0.0:1", "remote.host-any"),
        ("mllp://[::]:1", "remote.host-any"),
        ("mllp://[::ffff:0.0.0.0]:1", "remote.host-any"),
        ("mllp://0:1", "remote.host-bad"),
        ("mllp://0x7f000001:1", "remote.host-bad"),
        ("mllp://010.0.0.1:1", "remote.host-bad"),
        ("mllp://10.1.2.300:1", "remote.host-bad"),
        ("mllp://10.1.2.3.:1", "remote.host-bad"),
        ("mllp://lab..example:1", "remote.host-bad"),
        ("mllp://lab example:1", "remote.host-bad"),
        ("mllp://lab%2eexample:1", "remote.host-bad"),
        ("mllp://lab;rm:1", "remote.host-bad"),
        (f"mllp://{'x' * 64}:1", "remote.host-bad"),
        (f"mllp://{'x.' * 127}x:1", "remote.host-bad"),
        ("mllp://[fe80::1%25eth 0]:1", "remote.host-bad"),
        ("mllp://h:1?encoding=klingon", "remote.bad-value"),
        ("mllp://h:1?returnAck=last", "remote.bad-value"),
        ("mllp://h:1?defaultReturnAck=last", "remote.bad-value"),
        ("mllp://h:1?durable=yes", "remote.bad-value"),
        ("mllp://h:1?serialize=1", "remote.bad-value"),
        (f"mllp://h:1?x={'y' * 2_000}", "remote.address-long"),
    ],
)
def test_each_way_to_get_it_wrong_has_its_name_and_remedy(text: str, code: str) -> None:
    (finding,) = _refused(text)

    assert (finding.code, finding.severity) == (code, Severity.ERROR)
    assert finding.where in {
        "remote", "remote h:1", "remote h:0", "remote 0.0.0.0:1", "remote [::]:1", "remote channel LIS",
    }  # fmt: skip
    assert "secret" not in str(finding)
    assert "Smith" not in str(finding)


def test_an_address_without_a_scheme_hears_how_to_write_one() -> None:
    (finding,) = _refused("10.1.2.3:2575")

    assert str(finding) == (
        "remote: the address has no scheme — write mllp://host:port, with an IPv6 address in brackets"
    )


def test_every_problem_is_told_at_once_errors_first_and_notes_not_at_all() -> None:
    findings = _refused("mllps://0.0.0.0:0/x?xyzzy=1&encoding=klingon&durable=yes&retryMode=none&tls=none")

    assert [(finding.code, finding.severity) for finding in findings] == [
        ("remote.host-any", Severity.ERROR),
        ("remote.port-bad", Severity.ERROR),
        ("remote.bad-value", Severity.ERROR),
        ("remote.bad-value", Severity.ERROR),
        ("remote.tls-unknown", Severity.ERROR),
        ("remote.address-rest", Severity.WARNING),
        ("remote.unknown-parameter", Severity.WARNING),
    ]


def test_what_is_wrong_with_the_parameters_is_told_beside_what_is_wrong_with_the_place() -> None:
    findings = _refused("mllp://:99999?durable=yes&xyzzy=1")

    assert [finding.code for finding in findings] == [
        "remote.host-missing", "remote.port-bad", "remote.bad-value", "remote.unknown-parameter",
    ]  # fmt: skip


def test_a_bare_address_of_an_analyser_is_a_complete_remote() -> None:
    assert _spec("astm://10.1.2.3:4001") == RemoteSpec(
        "astm://10.1.2.3:4001", "10.1.2.3", 4_001, max_clients=1, wire=Astm()
    )


def test_an_analyser_may_be_reached_by_a_channel_of_ours() -> None:
    spec = _spec("astm://Cobas%20e411?encoding=windows-1252&frameBytes=1024")

    assert spec == RemoteSpec(
        "astm://Cobas%20e411?encoding=cp1252&frameBytes=1024",
        host="",
        port=0,
        max_clients=1,
        wire=Astm("cp1252", 1_024),
        line="Cobas e411",
    )
    assert spec.where == "channel Cobas e411"


@pytest.mark.parametrize(
    ("one", "other", "url"),
    [
        ("astm://LAB.Example:4001", "ASTM://lab.example:04001/", "astm://lab.example:4001"),
        ("astm://Cobas%20e411", " astm://Cobas e411/ ", "astm://Cobas%20e411"),
        ("astm://a%2Db", "astm://a-b", "astm://a-b"),
        ("astm://x%2fy%3A1", "astm://x%2Fy%3a1", "astm://x%2Fy%3A1"),
        ("astm://h:1?encoding=ISO-8859-1", "astm://h:1?encoding=8859/1", "astm://h:1?encoding=latin-1"),
        ("astm://h:1?encoding=utf8&frameBytes=0300", "astm://h:1?frameBytes=300&encoding=UTF-8",
         "astm://h:1?encoding=utf-8&frameBytes=300"),
    ],
)  # fmt: skip
def test_two_spellings_of_one_analyser_share_a_name(one: str, other: str, url: str) -> None:
    assert _spec(one) == _spec(other)
    assert _spec(one).url == url


def test_the_name_of_a_channel_keeps_its_case() -> None:
    assert _spec("astm://Cobas").line == "Cobas"
    assert _spec("astm://Cobas") != _spec("astm://cobas")


def test_every_parameter_of_an_analyser_finds_its_place() -> None:
    spec = _spec(
        "astm://lab.example:4001?encoding=utf-8&frameBytes=1024&keepAlive=true&durable=true"
        "&retryMode=normal&autoRetryBaseDelayMs=10&autoRetryMaxDelayMs=20&autoRetryMaxAttempts=4"
        "&autoRetryBackoffMultiplier=1.5"
    )

    assert (spec.wire, spec.keep_alive, spec.durable) == (Astm("utf-8", 1_024), True, True)
    assert spec.retry == RetryPolicy(RetryMode.NORMAL, 10, 20, 4, 1.5)


def test_agent_wide_settings_hold_for_analysers_and_complain_of_none() -> None:
    agent = _agent(keepAlive=True, maxClientsPerRemote=9, outboundDurable=True, channelRetryMode="none")

    spec = _spec("astm://h:1", DEFAULT, settings=agent)

    assert (spec.keep_alive, spec.max_clients, spec.durable, spec.tls) == (True, 1, True, None)
    assert spec.retry.mode is RetryMode.NONE


@pytest.mark.parametrize("name", ["maxClients", "inFlight", "serialize", "returnAck", "defaultReturnAck", "tls"])
def test_what_is_about_hl7_has_no_effect_on_an_analyser(name: str) -> None:
    remote = _read(f"astm://lab.example:2575?{name}=1")

    assert [(finding.code, finding.severity, finding.where) for finding in remote.findings] == [
        ("remote.idle-parameter", Severity.WARNING, PLACE)
    ]
    assert remote.spec.url == "astm://lab.example:2575"


def test_a_channels_connection_is_kept_by_the_channel() -> None:
    remote = _read("astm://LIS?keepAlive=true")

    assert [(finding.code, finding.severity, finding.where) for finding in remote.findings] == [
        ("remote.idle-parameter", Severity.INFO, "remote channel LIS")
    ]


VALUES = st.one_of(
    st.text(max_size=20),
    st.integers(-2, 4_000_000).map(str),
    st.floats().map(str),
    st.sampled_from(["true", "FALSE", "auto", "utf-8", "ISO-8859-1", "first", "application", "lab-2", "LAB_2", "none"]),
)
NAMES = st.sampled_from(sorted({name for kind in Kind for name in BY_PARAMETER[kind]}))
PARAMETERS = st.dictionaries(st.one_of(NAMES, st.text(min_size=1, max_size=9)), VALUES, max_size=8)
HOSTS = st.one_of(
    st.sampled_from(
        ["lab.example", "LAB-1", "[fe80::1%25Eth0]", "[::ffff:1.2.3.4]", "0.0.0.0", "İstanbul", "ΑΣ.example"]
    ),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map("[{}]".format),
    st.text(min_size=1, max_size=12),
)
TEXTS = st.one_of(
    st.text(),
    st.text().map("mllp://".__add__),
    st.text("0123456789.:[]@/?#=&%abx", max_size=30).map("mllps://".__add__),
    st.builds(
        lambda scheme, host, port, parameters: (
            f"{scheme}://{host}:{port}?{urlencode(parameters, errors='replace', quote_via=quote)}"
        ),
        st.sampled_from(["mllp", "mllps", "MLLP", "astm", "tcp"]),
        HOSTS,
        st.integers(0, 65_536),
        PARAMETERS,
    ),
    st.builds(
        lambda name, parameters: f"astm://{name}?{urlencode(parameters, errors='replace', quote_via=quote)}",
        st.one_of(st.text(min_size=1, max_size=12), st.text(min_size=1).map(lambda text: quote(text, safe=""))),
        PARAMETERS,
    ),
)
SETTINGS = st.builds(
    AgentSettings,
    keep_alive=st.booleans(),
    max_clients_per_remote=st.none() | st.integers(1, 1_000),
    outbound_durable=st.booleans(),
    strict=st.booleans(),
    retry=st.builds(RetryWish, mode=st.none() | st.sampled_from(RetryMode), base_ms=st.none() | st.integers(1, 10**7)),
)


@given(TEXTS, SETTINGS)
def test_any_text_is_a_remote_within_its_ranges_that_reads_back_the_same_or_an_error(
    text: str, settings: AgentSettings
) -> None:
    try:
        remote = _read(text, LAB_2, settings=settings)
    except ConfigError as error:
        assert error.findings[0].severity is Severity.ERROR  # noqa: PT017 - one of two right outcomes
        findings = error.findings
    else:
        spec, findings = remote.spec, remote.findings
        assert _read(spec.url, LAB_2, settings=settings).spec == spec
        assert spec.url.isprintable()
        assert spec.host not in {"0.0.0.0", "::"}
        assert bool(spec.host) is bool(spec.port) is not bool(spec.line)
        assert spec.line or spec.where in spec.url.replace("%25", "%")
        assert 0 <= spec.port <= 65_535
        assert isinstance(spec.wire, Astm) is spec.url.startswith("astm")
        assert spec.encoding is None or codec_for(spec.encoding)
        assert 1 <= spec.max_clients <= 1_000
        assert 1 <= spec.in_flight <= 1_000
        assert 0 <= spec.ack_timeout_s <= 3_600
        assert spec.tls is None or spec.secure
        assert all(finding.severity is not Severity.ERROR for finding in findings)
    assert all(
        each.code.startswith("remote.") and each.remedy and each.where.startswith("remote") and str(each).isprintable()
        for each in findings
    )


@given(
    st.dictionaries(st.sampled_from(sorted(BY_PARAMETER[Kind.REMOTE])), VALUES, min_size=2),
    st.randoms(use_true_random=False),
)
def test_neither_the_order_of_parameters_nor_the_case_of_the_host_makes_another_remote(
    parameters: Mapping[str, str], chance: random.Random
) -> None:
    shuffled = list(parameters.items())
    chance.shuffle(shuffled)
    specs = []
    for text in (
        f"mllp://lab.example:2575?{urlencode(list(parameters.items()), errors='replace')}",
        f"MLLP://LAB.Example:2575?{urlencode(shuffled, errors='replace', quote_via=quote)}",
    ):
        try:
            specs.append(_read(text, LAB_2).spec)
        except ConfigError as error:
            specs.append(sorted(map(str, error.findings)))

    assert specs[0] == specs[1]
