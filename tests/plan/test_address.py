"""Addresses as servers send them."""

from __future__ import annotations

from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.plan.address import Address, BadAddress, is_no_place, read_address
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
    ("text", "code"),
    [
        ("", "address-empty"),
        ("nonsense", "address-unreadable"),
        ("0.0.0.0:2575", "address-unreadable"),
        ("mllp:0.0.0.0:2575", "address-unreadable"),
        ("mllp://[::1:2575", "address-unreadable"),
        ("mllp://h:1\n?x=1", "address-unreadable"),
        ("mllp://user:pw@h:1", "address-unreadable"),
        ("foo://0.0.0.0:2575", "scheme-unknown"),
        ("tcp://0.0.0.0:2575?startChar=%02&endChar=%03", "scheme-unsupported"),
        ("dicom://0.0.0.0:104", "scheme-unsupported"),
        ("serial:///dev/ttyS0?baud=9600", "scheme-unsupported"),
        ("astm://0.0.0.0:1", "scheme-unsupported"),
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
    ],
)
@pytest.mark.parametrize("family", Family)
def test_each_way_to_get_it_wrong_has_its_name_and_remedy(text: str, code: str, family: Family) -> None:
    with pytest.raises(BadAddress) as refused:
        read_address(text, family)

    assert refused.value.code == code
    assert refused.value.remedy
    assert "pw" not in str(refused.value)


def test_the_remedy_for_a_remote_names_no_place_to_listen_on() -> None:
    heard = []
    for family in Family:
        with pytest.raises(BadAddress) as refused:
            read_address("", family)
        heard.append((str(refused.value), refused.value.remedy))

    assert heard == [
        ("the endpoint has no address", "write it like mllp://0.0.0.0:2575"),
        ("the remote has no address", "write mllp://host:port, with an IPv6 address in brackets"),
    ]


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

    assert _read(f"mllp://0.0.0.0:2575?{query}").parameters == tuple(pairs)


@given(
    st.one_of(
        st.text(),
        st.text().map("mllp://".__add__),
        st.text("0123456789.:[]@/?#=&%", max_size=30).map("mllps://".__add__),
    ),
    st.sampled_from(Family),
)
def test_any_text_is_an_address_or_a_bad_one(text: str, family: Family) -> None:
    try:
        address = read_address(text, family)
    except BadAddress as bad:
        assert bad.code  # noqa: PT017 - one of two right outcomes
        assert bad.remedy  # noqa: PT017
    else:
        assert address.host
        assert 0 <= address.port <= 65_535


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
def test_two_addresses_collide_when_no_host_could_serve_both(one: str, other: str, collide: bool) -> None:
    first, second = _read(f"mllp://{one}"), _read(f"mllp://{other}")

    assert first.collides_with(second) is collide
    assert second.collides_with(first) is collide
