"""Framing: whatever the network does to the stream, the same messages come out."""

from __future__ import annotations

import time
from itertools import combinations, pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import PeerError
from agent.protocol.mllp import CR, END, START, Framer, FrameTooLong, wrap

ADT = b"MSH|^~\\&|ADT1|WARD|LAB|WARD|20260101||ADT^A01|1|P|2.5\rPID|1||4711\r"

# Everything that means something to a framer, and two things that do not.
_TOKENS = [b"\x0b", b"\x1c", b"\r", b"\x1c\r", b"\x0bMSH", b"\x0bM", b"SH", b"MSH", b"x", b"\n"]
_TOKENS += [wrap(b"MSH|a"), wrap(b"")]
streams = st.lists(st.sampled_from(_TOKENS), max_size=24).map(b"".join)


class Reading:
    """The rules said slowly: one byte after the other over the whole stream."""

    def __init__(self, stream: bytes, max_bytes: int = 1 << 20) -> None:
        self.messages: list[bytes] = []
        self.skipped = self.truncated = 0
        self.oversized = False
        message: bytes | None = None
        at = 0
        while at < len(stream):
            if message is None:
                if stream[at] == START:
                    message = b""
                else:
                    self.skipped += 1
                at += 1
            elif stream[at : at + 2] == bytes((END, CR)):
                self.messages.append(message)
                message = None
                at += 2
            elif stream[at : at + 4] == b"\x0bMSH":
                self.truncated += 1
                message = b""
                at += 1
            elif stream[at:] in (b"\x1c", b"\x0b", b"\x0bM", b"\x0bMS"):
                return  # what these are is for the next packet to say
            else:
                message += stream[at : at + 1]
                at += 1
                if len(message) > max_bytes:
                    self.oversized = True
                    return


def feed_all(framer: Framer, packets: list[bytes]) -> list[bytes]:
    return [message for packet in packets for message in framer.feed(packet)]


def cut(stream: bytes, places: tuple[int, ...] | list[int]) -> list[bytes]:
    edges = [0, *sorted(places), len(stream)]
    return [stream[a:b] for a, b in pairwise(edges)]


def assert_reads_as(framer: Framer, messages: list[bytes], reading: Reading) -> None:
    assert messages == reading.messages
    assert framer.skipped == reading.skipped
    assert framer.truncated == reading.truncated
    assert (framer.oversized is not None) == reading.oversized


def test_a_frame_is_the_message_between_its_blocks() -> None:
    assert wrap(b"abc") == b"\x0babc\x1c\x0d"


def test_one_whole_frame_in_one_read_is_one_message() -> None:
    framer = Framer()
    assert framer.feed(wrap(ADT)) == [ADT]
    assert (framer.buffered, framer.skipped, framer.truncated) == (0, 0, 0)


def test_pipelined_frames_come_out_in_order() -> None:
    messages = [ADT + b"%d" % number for number in range(50)]
    assert Framer().feed(b"".join(map(wrap, messages))) == messages


def test_an_empty_frame_is_an_empty_message() -> None:
    assert Framer().feed(wrap(b"") + wrap(ADT) + wrap(b"")) == [b"", ADT, b""]


def test_an_empty_read_is_nothing() -> None:
    framer = Framer()
    assert framer.feed(b"") == []
    assert framer.feed(wrap(ADT)[:10]) == []
    assert framer.feed(b"") == []
    assert framer.feed(wrap(ADT)[10:]) == [ADT]


def test_a_message_that_is_still_arriving_is_held_and_counted() -> None:
    framer = Framer()
    assert framer.feed(b"\x0bMSH|") == []
    assert framer.buffered == 4
    assert framer.feed(b"\x1c\r") == [b"MSH|"]
    assert framer.buffered == 0


def test_an_end_block_without_its_carriage_return_is_content() -> None:
    assert Framer().feed(b"\x0ba\x1cb\x1c\x1c\r") == [b"a\x1cb\x1c"]


def test_bytes_between_frames_are_ignored_and_counted() -> None:
    framer = Framer()
    assert framer.feed(b"\r\n" + wrap(ADT) + b"\r\n\x1c\r" + wrap(b"x") + b"MSH|no start\r") == [ADT, b"x"]
    assert framer.skipped == 2 + 4 + 13


def test_a_sender_that_begins_again_is_taken_at_its_new_start() -> None:
    framer = Framer()
    assert framer.feed(b"\x0bMSH|half a mess") == []
    assert framer.feed(wrap(ADT)) == [ADT]
    assert framer.truncated == 1


def test_a_start_byte_inside_a_message_is_content_when_no_msh_follows() -> None:
    framer = Framer()
    assert framer.feed(b"\x0bMSH|\x0bMS|\x0b\x0bx\x1c\r") == [b"MSH|\x0bMS|\x0b\x0bx"]
    assert framer.truncated == 0


def test_every_packetisation_of_a_short_stream_reads_the_same() -> None:
    for stream in (b"\x0ba\x1c\r\x0b\x1c\x1c\r", b"\x0b\x0bMSH\x1c\r\x1c\x0bb", b"z\x0bx\x0bMSH\x1c\x1c\r"):
        for choice in product((False, True), repeat=len(stream) - 1):
            framer = Framer()
            packets = cut(stream, [place for place, cut_here in enumerate(choice, 1) if cut_here])
            assert_reads_as(framer, feed_all(framer, packets), Reading(stream))


def test_every_two_cuts_of_a_feed_read_the_same() -> None:
    stream = b"\n" + wrap(b"MSH|1\r") + wrap(b"") + b"\x0bMSH|2" + wrap(b"MSH|3\x1c\r"[:6]) + b"??" + wrap(b"\x1cMSH")
    for places in combinations(range(len(stream) + 1), 2):
        framer = Framer()
        assert_reads_as(framer, feed_all(framer, cut(stream, places)), Reading(stream))


@given(streams, st.data())
def test_any_stream_in_any_packets_reads_as_the_rules_say(stream: bytes, data: st.DataObject) -> None:
    places = data.draw(st.lists(st.integers(0, len(stream)), max_size=len(stream)))
    framer = Framer()
    assert_reads_as(framer, feed_all(framer, cut(stream, places)), Reading(stream))


@given(streams, st.data(), st.integers(0, 12))
def test_the_limit_gives_the_same_verdict_in_any_packets(stream: bytes, data: st.DataObject, limit: int) -> None:
    places = data.draw(st.lists(st.integers(0, len(stream)), max_size=len(stream)))
    framer = Framer(limit)
    messages: list[bytes] = []
    for packet in cut(stream, places):
        messages += framer.feed(packet)
        assert framer.buffered <= limit + 3, "no more is held than the limit and three bytes that may be framing"
    assert_reads_as(framer, messages, Reading(stream, limit))
    assert all(len(message) <= limit for message in messages)


@given(st.lists(st.binary(max_size=40).filter(lambda m: b"\x1c\r" not in m + b"\r" and b"\x0bMSH" not in m)))
def test_what_is_wrapped_comes_out(messages: list[bytes]) -> None:
    assert Framer().feed(b"".join(map(wrap, messages))) == messages


@pytest.mark.parametrize("excess", [0, 1])
def test_the_limit_is_exact_at_every_split(excess: int) -> None:
    limit = 8
    message = b"A" * (limit + excess)
    stream = wrap(b"first") + wrap(message) + wrap(b"last")
    for place in range(len(stream) + 1):
        framer = Framer(limit)
        messages = feed_all(framer, cut(stream, [place]))
        if excess:
            assert messages == [b"first"]
            assert framer.oversized is not None
        else:
            assert messages == [b"first", message, b"last"]
            assert framer.oversized is None


def test_the_limit_holds_for_a_whole_frame_in_one_read() -> None:
    framer = Framer(8)
    assert framer.feed(wrap(b"A" * 8)) == [b"A" * 8]
    assert framer.feed(wrap(b"A" * 9)) == []
    assert framer.oversized is not None


def test_a_message_is_too_long_as_soon_as_it_is_not_when_it_ends() -> None:
    framer = Framer(100)
    assert framer.feed(b"\x0bMSH|" + b"x" * 97) == []
    assert isinstance(framer.oversized, FrameTooLong)
    assert framer.buffered == 0, "the stream is given up, so nothing of it is kept"


def test_an_oversized_message_leaves_its_head_for_the_answer() -> None:
    framer = Framer(10_000)
    framer.feed(b"\x0b" + ADT)
    framer.feed(b"x" * 20_000)
    error = framer.oversized
    assert error is not None
    assert isinstance(error, PeerError)
    assert error.head == (ADT + b"x" * 4096)[:4096]
    assert error.limit == 10_000
    assert "10000 bytes" in str(error)
    assert error.hint
    assert "4711" not in str(error) + error.hint, "no content in an error"


def test_after_an_oversized_message_everything_is_ignored() -> None:
    framer = Framer(10)
    assert framer.feed(wrap(b"fine") + wrap(b"much too long") + wrap(b"fine")) == [b"fine"]
    assert framer.feed(wrap(b"fine")) == []
    assert (framer.skipped, framer.truncated, framer.buffered) == (0, 0, 0)


def test_a_piece_given_up_does_not_count_against_the_next_message() -> None:
    framer = Framer(10)
    assert framer.feed(b"\x0bMSH|123456") == []
    assert framer.feed(b"\x0bMSH|54321\x1c\r") == [b"MSH|54321"]
    assert framer.oversized is None


def test_a_piece_that_was_too_long_is_not_forgiven_by_a_new_start() -> None:
    framer = Framer(10)
    assert framer.feed(b"\x0bMSH|1234567\x0bMSH|54321\x1c\r") == []
    assert framer.oversized is not None
    assert framer.oversized.head == b"MSH|1234567"


@pytest.mark.parametrize(
    "filler",
    [
        pytest.param(b"x", id="text"),
        pytest.param(b"\x1c", id="end bytes"),
        pytest.param(b"\x0b", id="start bytes"),
        pytest.param(b"\x0bMS", id="half starts"),
    ],
)
def test_a_large_message_in_small_packets_takes_linear_time(filler: bytes) -> None:
    # Looking again at what was looked at, 8 MB in 128-byte packets would search some 260 GB.
    message = b"MSH|" + filler * (8_000_000 // len(filler)) + b"."
    framer = Framer()
    stream = wrap(message)
    started = time.process_time()
    messages = [done for at in range(0, len(stream), 128) for done in framer.feed(stream[at : at + 128])]
    assert time.process_time() - started < 5
    assert messages == [message]
