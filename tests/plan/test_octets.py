"""Bytes as they are written in an address."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.plan.octets import control_characters, one_byte, responses, sequences
from agent.plan.values import Unusable


@pytest.mark.parametrize(
    ("raw", "byte"),
    [
        ("%02", 0x02),
        ("%00", 0x00),
        ("%7f", 0x7F),
        ("%E9", 0xE9),
        ("%e9", 0xE9),
        ("%C3%A9", 0xE9),
        ("é", 0xE9),
        ("%C2%80", 0x80),
        ("A", 0x41),
        ("+", 0x20),
        ("%2B", 0x2B),
        ("%25", 0x25),
        ("%2C", 0x2C),
        (",", 0x2C),
        ("%3A", 0x3A),
    ],
)
def test_one_character_is_one_byte_however_it_is_encoded(raw: str, byte: int) -> None:
    assert one_byte(raw) == byte


@pytest.mark.parametrize("raw", ["", "%0D%0A", "ab", "%C4%80", "€", "%F0%9F%98%80", "%", "%5", "%zz", "%%30"])
def test_what_is_no_single_byte_is_refused(raw: str) -> None:
    with pytest.raises(Unusable):
        one_byte(raw)


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        ("%05", (b"\x05",)),
        ("%05,%15,%04", (b"\x05", b"\x15", b"\x04")),
        ("%0D%0A,%0D", (b"\r\n", b"\r")),
        ("%05%2C%15", (b"\x05", b"\x15")),
        ("%05%2c%15", (b"\x05", b"\x15")),
        ("%05,%2C", (b"\x05", b",")),
        ("a%3Ab,c", (b"a:b", b"c")),
        ("a:b", (b"a:b",)),
        ("%E9%C3%A9", (b"\xe9\xe9",)),
    ],
)
def test_a_comma_that_is_not_encoded_separates_else_an_encoded_one_does(raw: str, found: tuple[bytes, ...]) -> None:
    assert sequences(raw) == found


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        ("%05:%06", ((b"\x05", b"\x06"),)),
        ("%05:%06,%03:%06", ((b"\x05", b"\x06"), (b"\x03", b"\x06"))),
        ("%05%3A%06%2C%03%3A%06", ((b"\x05", b"\x06"), (b"\x03", b"\x06"))),
        ("%05:%3A%2C", ((b"\x05", b":,"),)),
        ("%2C:%3A,a:b", ((b",", b":"), (b"a", b"b"))),
        ("%05:%06,%05:%06", ((b"\x05", b"\x06"),)),
        ("%05%15:%06%0D%0A", ((b"\x05\x15", b"\x06\r\n"),)),
    ],
)
def test_a_colon_stands_between_a_sequence_and_its_answer(raw: str, found: tuple[tuple[bytes, bytes], ...]) -> None:
    assert responses(raw) == found


@pytest.mark.parametrize("raw", ["", "%05", "%05:", ":%06", "%05:%06,", "%05:%06:%07", "%05%3A%06,%03:%06", "%05:%0"])
def test_what_is_no_list_of_pairs_is_refused(raw: str) -> None:
    with pytest.raises(Unusable):
        responses(raw)


def test_control_characters_may_have_commas_between_them() -> None:
    assert control_characters("%0D,%0A") == control_characters("%0D%0A") == control_characters("%0D%2C%0A") == (13, 10)
    with pytest.raises(Unusable):
        control_characters("%0D%20")


def _percent(octets: bytes) -> str:
    return "".join(f"%{octet:02X}" for octet in octets)


@given(st.lists(st.binary(min_size=1, max_size=4).filter(bytes.isascii), min_size=1, max_size=5, unique=True))
def test_sequences_come_back_as_they_were_before_percent_encoding(octets: list[bytes]) -> None:
    written = ",".join(map(_percent, octets))

    assert sequences(f"{written},{written}") == tuple(octets)
    assert responses(",".join(f"{_percent(one)}:{_percent(one)}" for one in octets)) == tuple(
        (one, one) for one in octets
    )


@given(st.integers(0, 255))
def test_every_byte_can_be_written_in_two_ways(byte: int) -> None:
    assert one_byte(_percent(bytes([byte]))) == one_byte(_percent(chr(byte).encode())) == byte


@given(
    st.sampled_from([one_byte, sequences, control_characters, responses]),
    st.one_of(st.text(), st.text("%0123456789abcdefABCDEF,:+é€", max_size=20), st.just("\ud800")),
)
def test_any_text_is_taken_or_refused(parse: Callable[[str], Any], raw: str) -> None:
    try:
        parse(raw)
    except Unusable as unusable:
        assert str(unusable)  # noqa: PT017 - one of two right outcomes
        assert unusable.remedy  # noqa: PT017
