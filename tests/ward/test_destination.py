"""Addresses that a sender is given."""

from __future__ import annotations

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.ward.destination import Destination, client_tls


@pytest.mark.parametrize(
    ("text", "destination"),
    [
        ("mllp://10.0.0.5:2575", Destination("10.0.0.5", 2575)),
        ("interface.example:6661", Destination("interface.example", 6661)),
        ("mllps://interface.example:6661", Destination("interface.example", 6661, tls=True)),
        ("[::1]:2575", Destination("::1", 2575)),
        ("mllp://[fe80::1]:2575", Destination("fe80::1", 2575)),
        ("mllp://0.0.0.0:2575?encoding=utf-8&enhanced=true", Destination("127.0.0.1", 2575)),
        ("mllp://[::]:2575", Destination("::1", 2575)),
    ],
)
def test_an_address_as_people_and_endpoints_write_it(text: str, destination: Destination) -> None:
    assert Destination.parse(text) == destination


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("localhost", "lacks a host or a port"),
        ("mllp://:2575", "lacks a host or a port"),
        ("mllp://host:0", "lacks a host or a port"),
        ("http://host:80", "the scheme is 'http'"),
        ("mllp://host:99999", "is no MLLP address"),
        ("mllp://host:port", "is no MLLP address"),
        ("mllp://[::1:2575", "is no MLLP address"),
        ("", "lacks a host or a port"),
    ],
)
def test_what_is_no_address_is_refused_with_the_remedy(text: str, sentence: str) -> None:
    with pytest.raises(ValueError) as refused:
        Destination.parse(text)
    assert sentence in str(refused.value)
    assert "write it as mllp://host:port" in str(refused.value)


@given(st.text(max_size=40))
def test_any_text_is_an_address_or_refused(text: str) -> None:
    try:
        destination = Destination.parse(text)
    except ValueError:
        return
    assert destination.host
    assert 0 < destination.port < 65536


@given(
    st.from_regex(r"\A[a-z][a-z0-9.-]{0,20}\Z") | st.ip_addresses().filter(lambda a: not a.is_unspecified).map(str),
    st.integers(1, 65535),
    st.booleans(),
)
def test_an_address_reads_back_as_it_is_written(host: str, port: int, tls: bool) -> None:
    destination = Destination(host, port, tls)
    assert Destination.parse(str(destination)) == destination


def test_tls_verifies_unless_told_otherwise() -> None:
    careful, careless = client_tls(), client_tls(insecure=True)
    assert (careful.verify_mode, careful.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert (careless.verify_mode, careless.check_hostname) == (ssl.CERT_NONE, False)
