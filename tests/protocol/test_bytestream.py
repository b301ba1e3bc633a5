"""Byte streams: the same messages whatever the line does, and the text that the server reads of them."""

from __future__ import annotations

import codecs
import time
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.errors import PeerError
from agent.protocol.bytestream import Responder, StreamFramer, body_of, bytes_of
from agent.protocol.mllp import FrameTooLong
from agent.protocol.text import InvalidBytes

STX, ETX, ENQ, ACK = 0x02, 0x03, 0x05, 0x06
MUCH = 1 << 20

streams = st.lists(st.sampled_from([b"\x02", b"\x03", b"\n", b"a", b"bc", b"\x05", b"\x02x\x03"]), max_size=24).map(
    b"".join
)
starts = st.sampled_from([STX, None])


class Reading:
    """The rules said slowly: one byte after the other."""

    def __init__(self, stream: bytes, start: int | None, end: int, max_bytes: int = MUCH) -> None:
        self.messages: list[bytes] = []
        self.skipped = self.truncated = 0
        self.oversized = False
        self.open: bytes | None = None if start is not None else b""
        for byte in stream:
            if byte == start:
                self.truncated += self.open is not None
                self.open = b""
            if self.open is None:
                self.skipped += 1
                continue
            self.open += bytes((byte,))
            if len(self.open) > max_bytes:
                self.oversized = True
                return
            if byte == end:
                self.messages.append(self.open)
                self.open = None if start is not None else b""


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(places), len(stream)]
    return [stream[a:b] for a, b in pairwise(edges)]


def read_in(packets: list[bytes], framer: StreamFramer) -> list[bytes]:
    return [message for packet in packets for message in framer.feed(packet)]


# ---- where messages begin and end


def test_a_message_is_all_from_its_start_to_its_end_both_included() -> None:
    framer = StreamFramer(STX, ETX, MUCH)
    assert framer.feed(b"\x02hello\x03") == [b"\x02hello\x03"]
    assert (framer.skipped, framer.truncated, framer.buffered, framer.begun) == (0, 0, 0, False)


def test_the_recorded_stream_gives_its_messages_without_the_noise_before_a_start() -> None:
    # given the packets of the recording, in which the existing agent passed the noise on
    packets = ["0268656c6c6f03", "6e6f6973650273706c697420", "6f7665722074776f03", "026f6e65030274776f03"]
    framer = StreamFramer(STX, ETX, MUCH)
    messages = read_in([bytes.fromhex(packet) for packet in packets], framer)
    assert messages == [b"\x02hello\x03", b"\x02split over two\x03", b"\x02one\x03", b"\x02two\x03"]
    assert framer.skipped == len(b"noise")


def test_a_start_inside_a_message_begins_it_anew() -> None:
    framer = StreamFramer(STX, ETX, MUCH)
    assert framer.feed(b"\x02half\x02who") == []
    assert framer.truncated == 1
    assert framer.head(9) == b"\x02who"
    assert framer.feed(b"le\x03") == [b"\x02whole\x03"]


def test_an_end_outside_of_messages_is_skipped() -> None:
    framer = StreamFramer(STX, ETX, MUCH)
    assert framer.feed(b"\x03x\x03") == []
    assert framer.skipped == 3
    assert not framer.begun


def test_without_a_start_character_a_message_is_all_since_the_last_end() -> None:
    framer = StreamFramer(None, 0x0D, MUCH)
    assert framer.feed(b"one\rtwo\rth") == [b"one\r", b"two\r"]
    assert framer.feed(b"ree\r") == [b"three\r"]
    assert (framer.skipped, framer.truncated) == (0, 0)


def test_line_ends_behind_an_end_character_begin_no_message() -> None:
    # given a device that ends each line with CR LF, and a channel that says CR
    framer = StreamFramer(None, 0x0D, MUCH)
    assert framer.feed(b"one\r\n") == [b"one\r"]
    assert not framer.begun
    assert framer.feed(b"t") == []
    assert framer.begun
    assert framer.feed(b"wo\r\n") == [b"\ntwo\r"]


def test_blanks_without_end_do_begin_one_so_that_they_are_not_kept_for_ever() -> None:
    framer = StreamFramer(None, ETX, MUCH)
    framer.feed(b"\n" * 5_000)
    assert framer.begun


@given(streams, starts, st.lists(st.integers(0, 60), max_size=6))
@example(b"\x02a\x02b\x03", STX, [1, 2, 3])
def test_any_cut_of_a_stream_gives_what_the_rules_say(stream: bytes, start: int | None, places: list[int]) -> None:
    framer, reading = StreamFramer(start, ETX, MUCH), Reading(stream, start, ETX)
    assert read_in(cut(stream, [place % (len(stream) + 1) for place in places]), framer) == reading.messages
    assert (framer.skipped, framer.truncated) == (reading.skipped, reading.truncated)
    assert framer.head(MUCH) == (reading.open or b"")
    assert framer.begun == bool((reading.open or b"").strip(b"\n"))


@given(streams, starts, st.lists(st.integers(0, 60), max_size=6), st.integers(1, 8))
@example(b"\x02aaaa\x03", STX, [3], 5)
@example(b"\x02aaaaaa\x02\x03", STX, [], 3)
def test_a_message_over_the_limit_is_noticed_however_it_came(
    stream: bytes, start: int | None, places: list[int], limit: int
) -> None:
    framer, reading = StreamFramer(start, ETX, limit), Reading(stream, start, ETX, limit)
    assert read_in(cut(stream, [place % (len(stream) + 1) for place in places]), framer) == reading.messages
    assert (framer.oversized is not None) == reading.oversized
    assert framer.truncated == reading.truncated
    assert framer.buffered <= limit
    if framer.oversized is not None:
        assert framer.oversized.head == reading.open
        assert framer.begun


def test_the_limit_itself_is_not_too_long_and_one_more_byte_is() -> None:
    assert StreamFramer(STX, ETX, 5).feed(b"\x02abc\x03") == [b"\x02abc\x03"]
    framer = StreamFramer(STX, ETX, 4)
    assert framer.feed(b"\x02abc\x03\x02a\x03") == []
    assert isinstance(framer.oversized, FrameTooLong)
    assert framer.feed(b"\x02a\x03") == []


@given(st.binary(max_size=300), st.none() | st.integers(0, 255), st.integers(0, 255), st.integers(1, 99))
def test_no_bytes_break_it(stream: bytes, start: int | None, end: int, limit: int) -> None:
    framer = StreamFramer(start, end, limit)
    for message in framer.feed(stream):
        assert len(message) <= limit
        assert message in stream
        assert message[-1] == end


@pytest.mark.parametrize(
    "stream",
    [b"\x02" * MUCH, b"\x02a" * (MUCH // 2), b"\x02\x03" * (MUCH // 2), b"a" * MUCH, b"\n" * MUCH],
    ids=["starts", "pieces", "messages", "no start", "blanks"],
)
@pytest.mark.parametrize("start", [STX, None])
def test_time_is_linear_in_the_bytes(stream: bytes, start: int | None) -> None:
    # given a million bytes, which would take hours if each were looked at as often as there are others before it
    begun = time.process_time()
    read_in([stream], StreamFramer(start, ETX, 1 << 30))
    read_in([stream[at : at + 64] for at in range(0, len(stream), 64)], StreamFramer(start, ETX, 1 << 30))
    assert time.process_time() - begun < 20


def test_what_has_begun_can_be_dropped() -> None:
    framer = StreamFramer(STX, ETX, MUCH)
    framer.feed(b"\x02half")
    framer.drop()
    assert (framer.buffered, framer.begun, framer.head(4), framer.tail(2)) == (0, False, b"", b"")


def test_it_shows_the_two_ends_of_what_has_begun() -> None:
    framer = StreamFramer(STX, ETX, MUCH)
    framer.feed(b"x\x02abcdef")
    assert (framer.head(3), framer.tail(2), framer.buffered) == (b"\x02ab", b"ef", 7)


# ---- other characters


def test_other_characters_hold_from_the_next_message_on() -> None:
    framer = StreamFramer(STX, ETX, MUCH)
    framer.feed(b"\x02ol")
    framer.delimit(0x5B, 0x5D)
    assert framer.feed(b"d]\x03[new]\x02no\x03") == [b"\x02old]\x03", b"[new]"]


def test_between_messages_other_characters_hold_at_once() -> None:
    framer = StreamFramer(None, 0x0D, MUCH)
    framer.feed(b"one\r\n")
    framer.delimit(STX, ETX)
    assert framer.feed(b"\x02two\x03") == [b"\x02two\x03"]


def test_an_end_that_never_came_is_put_right_when_the_next_message_begins() -> None:
    # given a channel whose end character was wrong, and a message that waits for it
    framer = StreamFramer(STX, 0x04, MUCH)
    framer.feed(b"\x02one\x03")
    framer.delimit(STX, ETX)
    assert framer.feed(b"\x02two\x03\x02three\x03") == [b"\x02two\x03", b"\x02three\x03"]
    assert framer.truncated == 1


def test_the_same_characters_again_change_nothing() -> None:
    framer = StreamFramer(None, 0x0D, MUCH)
    framer.feed(b"one\r\n")
    framer.delimit(None, 0x0D)
    assert framer.feed(b"two\r") == [b"\ntwo\r"]


# ---- what is answered at once


def test_a_sequence_is_answered_when_its_last_byte_is_there() -> None:
    responder = Responder(((b"\x05", b"\x06"), (b"ab", b"!")))
    assert responder.answers(b"\x05") == b"\x06"
    assert responder.answers(b"xa") == b""
    assert responder.answers(b"b") == b"!"
    assert responder.answered_bytes == 3


def test_answers_come_in_the_order_of_the_ends_and_then_of_the_pairs() -> None:
    responder = Responder(((b"b", b"1"), (b"ab", b"2"), (b"a", b"3"), (b"abc", b"4")))
    assert responder.answers(b"abc") == b"3" + b"12" + b"4"


def test_sequences_may_overlap() -> None:
    assert Responder(((b"aa", b"."),)).answers(b"aaaa") == b"..."


def test_a_responder_can_learn_other_answers_and_says_nothing_without_any() -> None:
    responder = Responder(())
    assert responder.answers(b"\x05") == b""
    responder.learn(((b"\x05", b"\x06"), (b"", b"never")))
    assert responder.answers(b"\x05") == b"\x06"


pairs = st.lists(st.tuples(st.binary(min_size=1, max_size=3), st.binary(min_size=1, max_size=2)), max_size=4)


@given(pairs, st.lists(st.sampled_from([b"\0", b"\1", b"\0\0", b"\1\0\1"]), max_size=20), st.lists(st.integers(0, 60)))
def test_any_cut_of_a_stream_is_answered_alike(
    responses: list[tuple[bytes, bytes]], pieces: list[bytes], places: list[int]
) -> None:
    responses = [(bytes(byte & 1 for byte in pattern), answer) for pattern, answer in responses]
    stream = b"".join(pieces)
    said = b"".join(
        answer for end in range(1, len(stream) + 1) for pattern, answer in responses if stream[:end].endswith(pattern)
    )
    responder = Responder(responses)
    packets = cut(stream, [place % (len(stream) + 1) for place in places])
    assert b"".join(map(responder.answers, packets)) == said


# ---- what the server reads


def test_a_body_is_hexadecimal_unless_its_channel_names_a_codec() -> None:
    assert body_of(b"\x02hello\x03") == "0268656c6c6f03"
    assert body_of(b"\x02gr\xfc\xdfe\x03", codec="latin-1") == "\x02grüße\x03"


def test_sequences_are_left_out_before_control_characters() -> None:
    message = b"\x02A\r\n\x17B\x0d\x03"
    assert body_of(message, strip=(b"\r\n\x17",), codec="ascii") == "\x02AB\r\x03"
    kept = body_of(message, strip=(b"\r\n\x17",), strip_controls=True, keep_controls=frozenset((0x0D,)), codec="ascii")
    assert kept == "AB\r"
    assert body_of(message, strip_controls=True) == b"AB".hex()


def test_the_longest_sequence_that_fits_is_left_out_whatever_the_order() -> None:
    assert body_of(b"xabcx", strip=(b"ab", b"abc"), codec="ascii") == "xx"
    assert body_of(b"a.b|c", strip=(b".", b"|"), codec="ascii") == "abc"


def test_bytes_without_a_meaning_are_refused_and_not_shown_to_a_log() -> None:
    with pytest.raises(InvalidBytes) as caught:
        body_of(b"\x02EVERYMAN\x81\x03", strip_controls=True, codec="ascii")
    error = caught.value
    assert isinstance(error, PeerError)
    assert str(error) == "byte 9 of the body (0x81) is not valid ASCII"
    assert error.loggable == "byte 9 of the body is not valid ASCII"
    assert error.position == 9
    assert "bodyEncoding" in error.hint


@given(st.binary(max_size=60), st.lists(st.binary(min_size=1, max_size=3), max_size=3), st.booleans())
def test_any_message_has_a_hexadecimal_body(message: bytes, strip: list[bytes], controls: bool) -> None:
    body = bytes.fromhex(body_of(message, strip=tuple(strip), strip_controls=controls))
    assert not controls or all(byte >= 0x20 for byte in body)
    assert strip or controls or body == message
    assert all(bytes((byte,)) in message for byte in body)


# ---- what the server answers


def test_an_answer_is_hexadecimal_in_either_case_with_white_space_anywhere() -> None:
    assert bytes_of("0268656C6c6F03", None) == b"\x02hello\x03"
    assert bytes_of(" 02\n68 6 5\t6c6c6f03\r\n", None) == b"\x02hello\x03"
    assert bytes_of("", None) == b""


@pytest.mark.parametrize("text", ["0", "xyz", "OK", "02 6", "0x02", "٠٢"])
def test_what_is_not_hexadecimal_is_no_answer(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        bytes_of(text, None)


def test_an_answer_goes_back_in_the_codec_of_the_body() -> None:
    assert bytes_of("grüße", "latin-1") == b"gr\xfc\xdfe"
    with pytest.raises(ValueError, match=r"."):
        bytes_of("\u20ac", "latin-1")


@given(st.binary(max_size=60))
def test_every_body_comes_back_as_the_bytes_that_it_was(message: bytes) -> None:
    assert bytes_of(body_of(message), None) == message
    assert bytes_of(body_of(message, codec="latin-1"), "latin-1") == message


@given(st.text(max_size=60), st.sampled_from([None, "ascii", "utf-8", "cp1252", "shift_jis"]))
def test_no_answer_raises_anything_else(text: str, codec: str | None) -> None:
    try:
        answer = bytes_of(text, codec)
    except ValueError:
        return
    assert codec is None or codecs.decode(answer, codec) == text
