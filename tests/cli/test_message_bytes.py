"""Bytes by number and by character, as text where they are one, and masked for those who must not know."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cli.lines import cells_of, plain
from agent.cli.message_bytes import SHOWN_BYTES, byte_lines, masked_bytes, reading_of


def shown(body: bytes, width: int | None = None) -> list[str]:
    return plain(byte_lines(body, width)).splitlines()


def test_text_is_shown_with_its_controls_by_name_and_then_byte_for_byte() -> None:
    assert shown(b"\x02W 72.5kg\r\nP 4711\r\x03") == [
        "  <STX>W 72.5kg<CR><LF>",
        "  P 4711<CR>",
        "  <ETX>",
        "",
        "  000000  02 57 20 37 32 2e 35 6b  67 0d 0a 50 20 34 37 31  .W 72.5kg..P 471",
        "  000010  31 0d 03                                          1..",
    ]


def test_what_is_no_text_is_shown_byte_for_byte_alone() -> None:
    assert shown(b"A\x00\x10\xff") == ["  000000  41 00 10 ff                                       A..."]
    assert shown(b"") == []


@pytest.mark.parametrize(
    ("body", "read_as"),
    [
        (b"plain\r\n", "ASCII"),
        ("Größe".encode(), "UTF-8"),
        ("Größe".encode("latin-1"), "ISO-8859-1, for it is no UTF-8"),
        (b"\x05\x06\x15\x17\x1c", "ASCII"),
        (b"\x80\x81 binary", None),
        (b"\x00", None),
        (b"\x7f", None),
        ("\u202eright to left".encode(), None),
        (b"", None),
    ],
)
def test_bytes_are_text_where_every_character_of_them_can_be_printed(body: bytes, read_as: str | None) -> None:
    found = reading_of(body)
    assert (None if found is None else found[1]) == read_as


@given(st.binary(max_size=300), st.sampled_from([None, 40, 77, 78, 120]))
def test_whatever_the_bytes_nothing_moves_the_cursor_and_nothing_is_lost(body: bytes, width: int | None) -> None:
    lines = shown(body, width)

    assert all(line.isprintable() for line in lines)
    assert width is None or all(cells_of(line) <= width for line in lines)
    row = 16 if width is None or width >= 78 else 8 if width >= 43 else 4
    dump = lines[len(lines) - math.ceil(len(body) / row) :]
    numbers = "".join("".join(line[10 : 10 + 3 * row + row // 8 - 1].split()) for line in dump)
    assert numbers == body.hex()


def test_of_very_many_bytes_the_first_are_shown_and_the_rest_is_counted() -> None:
    lines = shown(bytes(SHOWN_BYTES + 1_234))

    assert len(lines) == SHOWN_BYTES // 16 + 1
    assert lines[-1] == "  ... 1,234 more bytes: --raw gives all"


def test_masked_text_keeps_its_length_and_its_punctuation() -> None:
    assert masked_bytes(b"\x02NEMO, Anna: 72.5kg\r\x03") == b"\x02XXXX, Xxxx: 99.9xx\r\x03"
    assert masked_bytes("Ä4711".encode()) == b"xx9999"
    assert masked_bytes(b"") == b""


def test_of_what_is_no_text_nothing_is_shown_masked() -> None:
    assert masked_bytes(b"\x00\x47\x11NEMO") is None


@given(st.binary(min_size=1))
def test_no_letter_and_no_digit_survives_the_mask(body: bytes) -> None:
    found = masked_bytes(body) or b""

    assert set(found) & set(b"ABCDEFGHIJKLMNOPQRSTUVWYZabcdefghijklmnopqrstuvwyz012345678") == set()
    assert max(found, default=0) < 0x80
    assert len(found) in (0, len(body))
