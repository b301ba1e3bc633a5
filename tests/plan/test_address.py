"""Addresses as servers send them."""

from __future__ import annotations

from urllib.parse import quote, quote_plus, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.plan.address import Address, BadAddress, is_no_place, read_address
from agent.plan.kind import CHANNELS, REMOTES, SERIAL, Kind
from agent.plan.subject import Family


def _read(text: str) -> Address:
    return read_address(text, Family.CHANNEL)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("mllp://0.0.0.0:2575", "0.0.0.0", 2575),
        ("mllp://[::]:2575/", "::", 2575),
        ("MLLP://LocalHost:1?enhanced=true", "localhost", 1),
        (" mllp://adt.example.org:65535 ", "adt.example.org", 65535),
        ("mllp://[fe80::1%25eth0]:104", "fe80::1%25eth0", 104),
        ("mllp://127.0.0.1:0", "127.0.0.1", 0),
    ],
)
def test_host_and_port_are_what_the_address_says(text: str, host: str, port: int) -> None:
    address = _read(text)

    assert (address.host, address.port, address.text) == (host, port, text.strip())


def test_the_scheme_says_whether_there_is_tls() -> None:
    plain, secure = _read("mllp://h:1"), _read("MLLPS://h:1?tls=main")

    assert not plain.secure
    assert secure.secure
    assert secure.collides_with(plain), "TLS makes no second port"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("mllp://h:1", Kind.MLLP),
        ("mllps://h:1", Kind.MLLP),
        ("tcp://h:1", Kind.STREAM),
        ("TCP://h:1?mode=client", Kind.STREAM),
        ("tcp://h:1?mode=astm", Kind.ASTM),
        ("tcp://h:1?endChar=%03&mode=+ASTM", Kind.ASTM),
        ("tcp://h:1?mode=client&mode=astm", Kind.STREAM),
        ("astm://h:1", Kind.ASTM),
        ("astm://h:1?mode=client", Kind.ASTM),
        ("dicom://h:104", Kind.DICOM),
        ("dicom://h:104?mode=astm", Kind.DICOM),
        ("mllp://h:1?mode=astm", Kind.MLLP),
        ("serial:///dev/ttyUSB0", Kind.SERIAL_STREAM),
        ("serial:///dev/ttyUSB0?mode=astm", Kind.SERIAL_ASTM),
    ],
)
def test_scheme_and_mode_say_what_a_channel_speaks(text: str, kind: Kind) -> None:
    assert _read(text).kind is kind


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("mllp://h:1", Kind.REMOTE),
        ("mllps://h:1", Kind.REMOTE),
        ("astm://h:1", Kind.ASTM_REMOTE),
        ("astm://h:1?mode=client", Kind.ASTM_REMOTE),
    ],
)
def test_the_scheme_says_what_a_remote_speaks(text: str, kind: Kind) -> None:
    assert read_address(text, Family.REMOTE).kind is kind


@pytest.mark.parametrize(
    ("text", "device"),
    [
        ("serial:///dev/ttyUSB0?baudRate=9600", "/dev/ttyUSB0"),
        ("serial:///dev/serial/by-id/usb-FTDI_FT232R%23A1-if00", "/dev/serial/by-id/usb-FTDI_FT232R#A1-if00"),
        ("serial://COM3?baudRate=9600", "COM3"),
        ("serial://com12", "COM12"),
        ("serial://COM3/", "COM3"),
        ("serial:///COM3", "COM3"),
        ("SERIAL:///com3?mode=astm", "COM3"),
    ],
)
def test_a_serial_line_is_a_device_without_a_port(text: str, device: str) -> None:
    address = _read(text)

    assert (address.device, address.host, address.port, address.ignored) == (device, device, 0, "")
    assert _read("tcp://h:1").device == ""


@pytest.mark.parametrize(
    ("text", "channel"),
    [
        ("astm://Architect", "Architect"),
        ("astm://lab-1/", "lab-1"),
        ("astm://ICU%20bed%201?encoding=utf-8", "ICU bed 1"),
        ("astm://ICU bed 1", "ICU bed 1"),
        ("astm://Klinik%2FS%C3%BCd%3A2%40x", "Klinik/Süd:2@x"),
        ("astm://lab.example", "lab.example"),
    ],
)
def test_a_remote_analyser_without_a_port_is_a_channel_of_ours(text: str, channel: str) -> None:
    address = read_address(text, Family.REMOTE)

    assert (address.channel, address.host, address.port) == (channel, "", 0)


@pytest.mark.parametrize("text", ["astm://lab.example:4001", "astm://[fe80::1]:4001", "mllp://h:1"])
def test_a_remote_with_a_port_is_none_of_our_channels(text: str) -> None:
    address = read_address(text, Family.REMOTE)

    assert (address.channel, bool(address.host)) == ("", True)


BAD = [
    ("", "address-empty"),
    ("nonsense", "address-unreadable"),
    ("0.0.0.0:2575", "address-unreadable"),
    ("mllp:0.0.0.0:2575", "address-unreadable"),
    ("mllp://[::1:2575", "address-unreadable"),
    ("mllp://h:1\n?x=1", "address-unreadable"),
    ("mllp://user:pw@h:1", "address-unreadable"),
    ("foo://0.0.0.0:2575", "scheme-unknown"),
    ("tcps://0.0.0.0:2575", "scheme-unknown"),
    ("astms://0.0.0.0:2575", "scheme-unknown"),
    ("mllps://0.0.0.0", "port-missing"),
    ("mllpss://0.0.0.0:1", "scheme-unknown"),
    ("mllp://:2575", "host-missing"),
    ("mllp://0.0.0.0", "port-missing"),
    ("mllp://0.0.0.0:", "port-missing"),
    ("mllp://0.0.0.0:65536", "port-bad"),
    ("mllp://0.0.0.0:-1", "port-bad"),
    ("mllp://0.0.0.0:hl7", "port-bad"),
    ("mllp://fe80::1:2575", "port-bad"),
    ("mllp://[v1.x]:1", "address-unreadable"),
    ("mllp://[lab.example]:1", "address-unreadable"),
    ("mllp://[::1]x:1", "address-unreadable"),
    ("mllp://x[::1]:1", "address-unreadable"),
    ("astm://:4001", "host-missing"),
    ("astm://h:astm", "port-bad"),
    ("astm://10.1.2.3", "port-missing"),
    ("astm://[::1]", "port-missing"),
]
BAD_CHANNELS = [
    ("tcp://0.0.0.0?startChar=%02&endChar=%03", "port-missing"),
    ("dicom://:104", "host-missing"),
    ("astm://lab", "port-missing"),
    ("serial://", "device-missing"),
    ("serial:///", "device-missing"),
    ("serial://?baudRate=9600", "device-missing"),
    ("serial://dev/ttyUSB0", "device-bad"),
    ("serial://ttyUSB0", "device-bad"),
    ("serial://COM", "device-bad"),
    ("serial://COM3:9600", "device-bad"),
    ("serial://COM3/dev", "device-bad"),
    ("serial://user:pw@COM3", "address-unreadable"),
    ("serial:///dev/tty%00S0", "address-unreadable"),
]
BAD_REMOTES = [
    ("tcp://0.0.0.0:2575?startChar=%02&endChar=%03", "scheme-unsupported"),
    ("dicom://0.0.0.0:104", "scheme-unsupported"),
    ("serial:///dev/ttyS0?baudRate=9600", "scheme-unsupported"),
    ("astm://lab:", "port-missing"),
    ("astm://10%2E1.2.3", "port-missing"),
    ("astm://%20", "address-unreadable"),
    ("astm://%0A", "address-unreadable"),
    ("astm://%ff", "address-unreadable"),
    ("astm://pw@lab", "address-unreadable"),
    ("astm://", "host-missing"),
]


@pytest.mark.parametrize(
    ("family", "text", "code"),
    [
        *((family, text, code) for family in Family for text, code in BAD),
        *((Family.CHANNEL, text, code) for text, code in BAD_CHANNELS),
        *((Family.REMOTE, text, code) for text, code in BAD_REMOTES),
    ],
)
def test_each_way_to_get_it_wrong_has_its_name_and_remedy(family: Family, text: str, code: str) -> None:
    with pytest.raises(BadAddress) as refused:
        read_address(text, family)

    assert refused.value.flaws[0].code == code
    assert all(flaw.text and flaw.remedy for flaw in refused.value.flaws)
    assert "pw" not in str(refused.value)


def test_what_is_wrong_is_told_at_once_with_what_could_be_read() -> None:
    with pytest.raises(BadAddress) as refused:
        _read("tcp://?endChar=%03")

    assert [flaw.code for flaw in refused.value.flaws] == ["host-missing", "port-missing"]
    assert refused.value.rest is not None
    assert [parameter.name for parameter in refused.value.rest.parameters] == ["endChar"]


@pytest.mark.parametrize(
    ("family", "text", "remedy"),
    [
        (Family.CHANNEL, "", "write it like mllp://0.0.0.0:2575"),
        (Family.CHANNEL, "hl7://h:1", "use mllp://, mllps://, tcp://, astm://, dicom:// or serial://"),
        (Family.CHANNEL, "tcps://h:1", "use tcp://, which is not encrypted; only mllps:// is"),
        (Family.CHANNEL, "dicoms://h:1", "use dicom://, which is not encrypted; only mllps:// is"),
        (
            Family.CHANNEL,
            "tcp://h",
            "add one after the host; write it like tcp://0.0.0.0:4000?startChar=%02&endChar=%03",
        ),
        (Family.CHANNEL, "serial://dev/ttyUSB0", "did you mean serial:///dev/ttyUSB0?"),
        (Family.CHANNEL, "serial://ttyUSB0", "did you mean serial:///dev/ttyUSB0?"),
        (Family.REMOTE, "", "write mllp://host:port, with an IPv6 address in brackets"),
        (Family.REMOTE, "hl7://h:1", "use mllp://, mllps:// or astm://"),
        (Family.REMOTE, "tcp://h:1", "use mllp:// for HL7 v2, or astm:// for an analyser"),
        (
            Family.REMOTE,
            "serial:///dev/ttyS0",
            "use astm://NAME, where NAME is the channel that has the serial line to the analyser",
        ),
        (Family.REMOTE, "dicom://h:1", "use mllp:// or astm://"),
        (
            Family.REMOTE,
            "astm://h:",
            "add one after the host; write astm://host:port, or astm://NAME with the name of one of our channels",
        ),
    ],
)
def test_the_remedy_fits_what_was_meant(family: Family, text: str, remedy: str) -> None:
    with pytest.raises(BadAddress) as refused:
        read_address(text, family)

    assert [flaw.remedy for flaw in refused.value.flaws] == [remedy]


@pytest.mark.parametrize(
    ("host", "nowhere"),
    [
        ("0.0.0.0", True),
        ("::", True),
        ("0:0::0", True),
        ("::ffff:0.0.0.0", True),
        ("127.0.0.1", False),
        ("::1", False),
        ("lab.example", False),
    ],
)
def test_what_is_listened_on_can_be_no_place_to_connect_to(host: str, nowhere: bool) -> None:
    assert is_no_place(host) is nowhere


NAME = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
VALUE = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.lists(st.tuples(NAME, VALUE), max_size=5), st.booleans())
def test_parameters_come_back_as_they_were_before_percent_encoding(pairs: list[tuple[str, str]], plus: bool) -> None:
    query = urlencode(pairs) if plus else urlencode(pairs, quote_via=quote, safe="")

    parameters = _read(f"mllp://0.0.0.0:2575?{query}").parameters

    assert [(parameter.name, parameter.value) for parameter in parameters] == pairs
    assert query == "&".join(
        f"{quote_plus(parameter.name) if plus else quote(parameter.name, safe='')}={parameter.raw}"
        for parameter in parameters
    )


@given(
    st.one_of(
        st.text(),
        st.text().map("mllp://".__add__),
        st.text("0123456789.:[]@/?#=&%", max_size=30).map("mllps://".__add__),
        st.builds(
            "{}://{}".format,
            st.sampled_from(["tcp", "astm", "dicom", "serial"]),
            st.one_of(st.text(), st.text("0123456789.:[]@/?#=&%COMdevtty mode=astm", max_size=30)),
        ),
    ),
    st.sampled_from(Family),
)
def test_any_text_is_an_address_or_a_bad_one(text: str, family: Family) -> None:
    try:
        address = read_address(text, family)
    except BadAddress as bad:
        assert bad.flaws  # noqa: PT017 - one of two right outcomes
        assert all(flaw.code and flaw.text.isprintable() and flaw.remedy.isprintable() for flaw in bad.flaws)  # noqa: PT017
    else:
        assert bool(address.host) is not bool(address.channel)
        assert (address.host + address.channel).isprintable()
        assert address.kind in (CHANNELS if family is Family.CHANNEL else REMOTES)
        assert 0 <= address.port <= 65_535
        assert not address.channel or address.kind is Kind.ASTM_REMOTE
        assert bool(address.device) is (address.kind in SERIAL)


@pytest.mark.parametrize(
    ("one", "other", "collide"),
    [
        ("0.0.0.0:1", "0.0.0.0:2", False),
        ("0.0.0.0:1", "127.0.0.1:1", True),
        ("127.0.0.1:1", "127.0.0.1:1", True),
        ("127.0.0.1:1", "127.0.0.2:1", False),
        ("localhost:1", "127.0.0.1:1", True),
        ("localhost:1", "[::1]:1", True),
        ("[::]:1", "10.0.0.1:1", True),
        ("0.0.0.0:1", "[::1]:1", False),
        ("0.0.0.0:1", "[::]:1", True),
        ("0.0.0.0:1", "some.name:1", True),
        ("[0:0:0:0:0:0:0:1]:1", "[::1]:1", True),
        ("127.0.0.1:0", "127.0.0.1:0", False),
    ],
)
@pytest.mark.parametrize("scheme", ["mllp", "tcp", "astm", "dicom"])
def test_two_addresses_collide_when_no_host_could_serve_both(scheme: str, one: str, other: str, collide: bool) -> None:
    first, second = _read(f"mllp://{one}"), _read(f"{scheme}://{other}")

    assert first.collides_with(second) is collide
    assert second.collides_with(first) is collide


@pytest.mark.parametrize(
    ("one", "other", "collide"),
    [
        ("serial:///dev/ttyS0", "serial:///dev/ttyS0?mode=astm", True),
        ("serial:///dev/ttyS0", "serial:///dev//./ttyS0", True),
        ("serial:///dev/ttyS0", "serial:///dev/ttyS1", False),
        ("serial://COM3", "serial:///com3", True),
        ("serial://COM3", "serial://COM4", False),
        ("serial://COM3", "tcp://0.0.0.0:0", False),
    ],
)
def test_one_serial_port_has_one_channel(one: str, other: str, collide: bool) -> None:
    first, second = _read(one), _read(other)

    assert first.collides_with(second) is collide
    assert second.collides_with(first) is collide
