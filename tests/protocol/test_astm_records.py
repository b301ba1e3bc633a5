"""Records of an analyser, as text and as they travel."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.protocol.astm import is_records, normalized, records
from agent.protocol.astmframe import checksum, frames


@pytest.mark.parametrize(
    "text",
    [
        "H|\\^&|||Host\rL|1|N\r",
        "H|\\^&",
        "H|\\^&\r\nL|1",
        "\r\nH|\\^&\n",
        "H|@^\\|2",
        "H!^&~!",
        "H|`^&|",
    ],
)
def test_a_message_begins_with_a_header_and_its_delimiters(text: str) -> None:
    assert is_records(text)


@pytest.mark.parametrize(
    "text",
    ["", "OK", "H", "H|", "H||||", "H|ello", "Hello", "HTTP/1.1 200", "MSH|^~\\&|", "P|1\r", "{}", "<html>", " H|\\^&"],
)
def test_anything_else_is_no_message(text: str) -> None:
    assert not is_records(text)


@pytest.mark.parametrize("text", ["H|\\^&\rL|1", "H|\\^&\r\nL|1\r\n", "H|\\^&\n\nL|1\n", "\nH|\\^&\rL|1\r\r"])
def test_each_record_ends_with_cr_whatever_stood_between_them(text: str) -> None:
    assert normalized(text, "latin-1") == b"H|\\^&\rL|1\r"


def test_a_character_that_the_analyser_has_no_byte_for_is_an_error() -> None:
    assert normalized("C|1|µ", "latin-1") == b"C|1|\xb5\r"
    with pytest.raises(UnicodeEncodeError):
        normalized("C|1|日", "latin-1")


def test_the_checksum_is_the_low_byte_of_the_sum_as_two_digits() -> None:
    # the example that E1381 lists give: 1 H | \ ^ & ... is summed from the frame number to ETX
    assert checksum(b"\x03") == b"03"
    assert checksum(b"\xff\x01\x03") == b"03"
    assert checksum(b"1Test\x03") == b"D4"


@given(
    st.lists(st.binary(max_size=60).map(lambda record: record.replace(b"\r", b"").replace(b"\n", b""))),
    st.integers(1, 30),
)
def test_frames_hold_every_record_once_in_order_and_none_is_too_long(whole: list[bytes], text_bytes: int) -> None:
    sent = frames(records(b"".join(record + b"\r" for record in whole)), text_bytes)

    texts = [one[2:-5] for one in sent]
    assert b"".join(texts) == b"".join(record + b"\r" for record in whole if record)
    assert all(0 < len(text) <= text_bytes for text in texts)
    assert [one[1:2] for one in sent] == [b"%d" % ((at + 1) % 8) for at in range(len(sent))]
    assert all((one[-5:-4] == b"\x03") == one[2:-5].endswith(b"\r") for one in sent)
