"""Who may connect, with what certificate, for how long, and which side connects."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import Finding, Severity
from agent.plan import ConfigPlan, build_plan
from agent.plan.kind import Kind
from agent.plan.options import BY_PARAMETER
from agent.protocol.charset import codec_for
from agent.protocol.fhir import Agent, AgentChannel, Endpoint, Reference
from agent.settings import ChannelDefaults
from agent.spec import LineSpec, TlsSpec

MAIN = TlsSpec("main", certificate=Path("/tls/main.pem"))
LAB = TlsSpec("lab-2", certificate=Path("/tls/lab.pem"), client_ca=Path("/tls/ca.pem"))
ADT = TlsSpec("adt", certificate=Path("/tls/adt.pem"))
DEFAULT = TlsSpec("default", certificate=Path("/tls/default.pem"))
BARE = TlsSpec("bare")


def _have_all(module: str) -> bool:
    return True


def _plan(*addresses: str, tls: tuple[TlsSpec, ...] = (), name: str = "adt", **defaults: float) -> ConfigPlan:
    """One channel for each address; the first has the name."""
    names = [name, *(f"{name}{number}" for number in range(2, len(addresses) + 1))]
    agent = Agent(channel=tuple(AgentChannel(channel, Reference(f"Endpoint/{channel}")) for channel in names))
    endpoints = {f"Endpoint/{channel}": Endpoint(address=text) for channel, text in zip(names, addresses, strict=True)}
    return build_plan(agent, endpoints, ChannelDefaults(tls={spec.name: spec for spec in tls}, **defaults), _have_all)  # type: ignore[arg-type]


def _line(*addresses: str, tls: tuple[TlsSpec, ...] = (), name: str = "adt", **defaults: float) -> LineSpec:
    plan = _plan(*addresses, tls=tls, name=name, **defaults)
    assert plan.findings == ()
    return plan.channels[0].line


def _finding(plan: ConfigPlan) -> tuple[str, Severity, str]:
    (finding,) = plan.findings
    assert finding.remedy
    return finding.code, finding.severity, finding.where


def test_every_parameter_of_a_line_wins_over_this_hosts_default() -> None:
    line = _line(
        "mllps://0.0.0.0:1?tls=main&allow=10.0.0.0/8,fd00::1&maxConnections=3&maxMessageBytes=2048&idleTimeoutSecs=4.5"
        "&frameTimeoutSecs=0&tcpKeepAliveSecs=6",
        tls=(MAIN,),
        max_connections=9,
        max_message_bytes=9_999,
        idle_timeout_s=9,
        frame_timeout_s=9,
        keepalive_s=9,
    )

    assert line == LineSpec(MAIN, (ip_network("10.0.0.0/8"), ip_network("fd00::1/128")), 3, 2_048, 4.5, 0.0, 6)


def test_an_address_that_says_nothing_leaves_it_to_this_host() -> None:
    line = _line(
        "mllp://0.0.0.0:1",
        tls=(DEFAULT,),
        max_connections=1,
        max_message_bytes=2_000,
        idle_timeout_s=3.5,
        frame_timeout_s=4.5,
        keepalive_s=5,
    )

    assert line == LineSpec(None, (), 1, 2_000, 3.5, 4.5, 5)


@pytest.mark.parametrize(
    ("address", "name", "ours", "taken"),
    [
        ("mllps://h:1?tls=main", "adt", (DEFAULT, ADT, MAIN), MAIN),
        ("mllps://h:1", "adt", (DEFAULT, ADT, MAIN), ADT),
        ("mllps://h:1", "oru", (DEFAULT, ADT, MAIN), DEFAULT),
        ("mllps://h:1", "ADT", (DEFAULT, ADT), ADT),
        ("mllps://h:1?tls=LAB_2", "adt", (ADT, LAB), LAB),
        ("mllp://h:1", "adt", (DEFAULT, ADT), None),
    ],
)
def test_the_certificate_is_the_one_that_is_named_else_the_channels_own_else_the_default(
    address: str, name: str, ours: tuple[TlsSpec, ...], taken: TlsSpec | None
) -> None:
    assert _line(address, tls=ours, name=name).tls == taken


def test_two_certificates_that_a_name_fits_alike_are_not_guessed_between() -> None:
    ours = (TlsSpec("LAB-2", certificate=Path("/a")), TlsSpec("lab_2", certificate=Path("/b")))

    assert _finding(_plan("mllps://h:1?tls=lab-2", tls=ours)) == ("channel.tls-unknown", Severity.ERROR, "adt.tls")
    assert _line("mllps://h:1?tls=lab_2", tls=ours).tls == ours[1]


def test_tls_without_a_certificate_of_this_host_is_an_error_and_never_plain() -> None:
    plan = _plan("mllps://0.0.0.0:1", tls=(MAIN, LAB))

    assert _finding(plan) == ("channel.tls-missing", Severity.ERROR, "adt.tls")
    assert "main, lab-2" in plan.findings[0].remedy
    assert plan.channels == ()
    assert "this host has none" in _plan("mllps://0.0.0.0:1").findings[0].remedy


@pytest.mark.parametrize(
    ("named", "remedy"),
    [
        ("mian", "did you mean main? this host has main, lab-2"),
        ("", "correct the name, or add it to this host's config.toml; this host has main, lab-2"),
    ],
)
def test_a_certificate_that_this_host_does_not_have_is_an_error_even_if_it_has_a_default(
    named: str, remedy: str
) -> None:
    plan = _plan(f"mllps://h:1?tls={named}", tls=(MAIN, LAB))

    assert _finding(plan) == ("channel.tls-unknown", Severity.ERROR, "adt.tls")
    assert plan.findings[0].remedy == remedy
    assert _finding(_plan("mllps://h:1?tls=x", tls=(DEFAULT,)))[0] == "channel.tls-unknown"


def test_a_name_of_a_certificate_that_would_upset_a_terminal_is_shown_harmlessly() -> None:
    (finding,) = _plan(f"mllps://h:1?{urlencode({'tls': chr(27) + '[31m'})}").findings

    assert str(finding).isprintable()


def test_tls_on_a_plain_channel_has_no_effect_and_is_told() -> None:
    plan = _plan("mllp://0.0.0.0:1?tls=main", tls=(MAIN,))

    assert _finding(plan) == ("channel.tls-unused", Severity.WARNING, "adt.tls")
    assert plan.channels[0].line.tls is None


def test_a_channel_that_listens_must_show_a_certificate_and_one_that_dials_need_not() -> None:
    listens = _plan("mllps://0.0.0.0:1?tls=bare", tls=(BARE,))
    dials = _plan("mllps://ris.example.org:1?tls=bare&mode=client", tls=(BARE,))

    assert _finding(listens) == ("channel.tls-certificate", Severity.ERROR, "adt.tls")
    assert "[tls.bare]" in listens.findings[0].remedy
    assert dials.findings == ()
    assert dials.channels[0].line.tls == BARE


def test_a_channel_that_dials_without_any_table_hears_that_an_empty_one_will_do() -> None:
    (finding,) = _plan("mllps://ris.example.org:1?mode=client").findings

    assert (finding.code, finding.severity) == ("channel.tls-missing", Severity.ERROR)
    assert "may be empty" in finding.remedy


def test_mode_says_which_side_connects() -> None:
    listens, also_listens, dials = _plan("mllp://h:1", "mllp://h:2?mode=server", "mllp://h:3?mode=client").channels

    assert (listens.dials, also_listens.dials, dials.dials) == (False, False, True)


@pytest.mark.parametrize(
    ("place", "code"),
    [
        ("0.0.0.0:1", "channel.dial-host"),
        ("[::]:1", "channel.dial-host"),
        ("[0:0::0]:1", "channel.dial-host"),
        ("[::ffff:0.0.0.0]:1", "channel.dial-host"),
        ("ris.example.org:0", "channel.dial-port"),
    ],
)
def test_a_place_to_listen_on_is_none_to_dial(place: str, code: str) -> None:
    plan = _plan(f"mllp://{place}?mode=client")

    assert _finding(plan) == (code, Severity.ERROR, "adt.address")
    assert plan.channels == ()


def test_port_0_is_noted_where_it_is_listened_on() -> None:
    assert _finding(_plan("mllp://h:0")) == ("channel.port-any", Severity.INFO, "adt.address")


def test_channels_that_dial_take_no_port_from_anybody() -> None:
    plan = _plan(
        "mllp://h:1?mode=client", "mllp://h:1?mode=client", "mllp://h:1", "mllp://h:2", "mllp://h:2?mode=client"
    )

    assert plan.findings == ()
    assert len(plan.channels) == 5


def test_one_port_carries_tls_or_plain_text_and_never_both() -> None:
    plan = _plan("mllp://0.0.0.0:1", "mllps://127.0.0.1:1", tls=(DEFAULT,))

    assert _finding(plan) == ("channel.port-twice", Severity.ERROR, "adt2.address")
    assert [channel.name for channel in plan.channels] == ["adt"]


@pytest.mark.parametrize("parameter", ["allow=10.0.0.0/8", "maxConnections=1"])
def test_what_concerns_those_who_connect_has_no_effect_on_a_channel_that_dials(parameter: str) -> None:
    plan = _plan(f"mllp://ris.example.org:1?mode=client&{parameter}")

    assert _finding(plan) == ("channel.idle-parameter", Severity.INFO, f"adt.{parameter.partition('=')[0]}")
    assert len(plan.channels) == 1


def test_objects_of_any_size_are_taken_by_dicom_whatever_this_host_says_about_messages() -> None:
    told, untold = _plan("dicom://h:1?maxMessageBytes=5", "dicom://h:2", max_message_bytes=2_000).channels

    assert (told.line.max_message_bytes, untold.line.max_message_bytes) == (5, 0)
    assert _line("astm://h:1", max_message_bytes=2_000).max_message_bytes == 2_000
    assert _line("tcp://h:1?startChar=%02&endChar=%03", max_message_bytes=2_000).max_message_bytes == 2_000


def test_a_serial_line_has_no_connections_to_limit_and_no_idle_ones_to_close() -> None:
    line = _line(
        "serial:///dev/ttyS0?startChar=%02&endChar=%03&frameTimeoutSecs=7",
        max_connections=3,
        idle_timeout_s=4,
        keepalive_s=5,
        max_message_bytes=6_000,
    )

    assert line == LineSpec(max_message_bytes=6_000, frame_timeout_s=7.0, keepalive_s=0)


@pytest.mark.parametrize("scheme", ["tcp", "astm"])
def test_other_wires_dial_as_well(scheme: str) -> None:
    ends = "&startChar=%02&endChar=%03" if scheme == "tcp" else ""
    plan = _plan(f"{scheme}://lab.example:1?mode=client{ends}", f"{scheme}://0.0.0.0:1?mode=client{ends}")

    assert [(spec.dials, spec.listens, spec.host) for spec in plan.channels] == [(True, False, "lab.example")]
    assert _finding(plan) == ("channel.dial-host", Severity.ERROR, "adt2.address")


def test_one_port_has_one_channel_whatever_it_speaks() -> None:
    plan = _plan("astm://0.0.0.0:1", "tcp://127.0.0.1:1?startChar=%02&endChar=%03", "dicom://[::]:1", "mllp://h:2")

    assert [channel.name for channel in plan.channels] == ["adt", "adt4"]
    assert {(finding.code, finding.where) for finding in plan.findings} == {
        ("channel.port-twice", "adt2.address"),
        ("channel.port-twice", "adt3.address"),
    }


VALUES = st.one_of(
    st.text(max_size=20),
    st.integers(-2, 2_000_000_000).map(str),
    st.floats().map(str),
    st.sampled_from(
        ["true", "auto", "aa", "client", "server", "reject", "fallback:gbk", "main", "batch", "reject", "2"]
    ),
    st.ip_addresses().map(str),
    st.tuples(st.ip_addresses(), st.integers(0, 130)).map(lambda pair: f"{pair[0]}/{pair[1]}"),
)
PARAMETERS = st.dictionaries(
    st.one_of(
        st.sampled_from(sorted({name for kind in Kind for name in BY_PARAMETER[kind]})), st.text(min_size=1, max_size=9)
    ),
    VALUES,
)


@given(
    st.sampled_from(["mllp", "mllps", "tcp", "astm", "dicom"]),
    st.sampled_from(["0.0.0.0", "[::]", "ris.example.org", "[fe80::1]"]),
    st.integers(0, 65_535),
    PARAMETERS,
)
def test_whatever_the_server_says_a_channel_is_within_its_ranges_or_is_not(
    scheme: str, host: str, port: int, parameters: Mapping[str, str]
) -> None:
    plan = _plan(f"{scheme}://{host}:{port}?{urlencode(parameters, errors='replace')}", tls=(MAIN, BARE))

    assert bool(plan.channels) is not bool(plan.errors)
    assert all(finding.remedy and finding.where and str(finding).isprintable() for finding in plan.findings)
    for spec in plan.channels:
        line = spec.line
        assert (line.tls is not None) is (scheme == "mllps")
        assert line.tls is None or spec.dials or line.tls.certificate
        assert not (spec.dials and (spec.port == 0 or spec.host in {"0.0.0.0", "::"}))
        assert ("allow" in parameters) is bool(line.allow)
        assert spec.family == (
            "astm" if parameters.get("mode", "").strip().lower() == "astm" else scheme[:5].rstrip("s")
        )
        assert 0 <= line.max_connections <= 100_000
        assert 1_024 <= line.max_message_bytes <= 1024**3 or scheme == "dicom"
        assert 0 <= line.idle_timeout_s <= 86_400
        assert 0 <= line.frame_timeout_s <= 86_400
        assert 0 <= line.keepalive_s <= 7_200
        assert spec.mllp_release in {1, 2}
        assert spec.fallback_charset is None or codec_for(spec.fallback_charset) == spec.fallback_charset
        assert 0 <= spec.ack_timeout_s <= 86_400
        assert spec.max_workers is None or 1 <= spec.max_workers <= 500


@given(st.text())
def test_any_text_as_an_address_makes_a_channel_or_an_error(text: str) -> None:
    plan = _plan(text)

    assert bool(plan.channels) is not bool(plan.errors)
    assert all(isinstance(finding, Finding) and finding.remedy for finding in plan.findings)
