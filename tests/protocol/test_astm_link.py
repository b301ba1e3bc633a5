"""The link of an analyser, as transcripts: what one end hears, and what it says and tells."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.protocol.astm import Link, is_sendable
from agent.protocol.astmevents import Event, Keep, NotSent, Odd, Reason, Remains, Say, Sent, Session, State
from agent.protocol.astmframe import MAX_FRAME_BYTES, Fault, checksum

ENQ, ACK, NAK, EOT = b"\x05", b"\x06", b"\x15", b"\x04"
HEADER, RESULT, LAST = b"H|\\^&|||Analyser\r", b"R|1|^^^GLU|5.4\r", b"L|1|N\r"


def frame(number: int, text: bytes, end: bytes = b"\x03", trailer: bytes = b"\r\n") -> bytes:
    covered = b"%d%b%b" % (number, text, end)
    return b"\x02%b%b%b" % (covered, checksum(covered), trailer)


class Line:
    """A link, with a clock that moves when it is told to and a disk that keeps everything, or as `disk` says."""

    def __init__(self, link: Link | None = None) -> None:
        self.link = link or Link(max_bytes=1_000)
        self.now = 50.0
        self.disk: bool | None = True  # None: it does not come back
        self.told: list[Event] = []
        self.pieces: list[bytes] = []

    def hears(self, *reads: bytes, after_s: float = 0.1) -> bytes:
        """What it says to that."""
        said = b""
        for data in reads:
            self.now += after_s
            said += self._heed(self.link.received(data, self.now))
        return said

    def waits(self, seconds: float) -> bytes:
        """What it says while time passes."""
        said, end = b"", self.now + seconds
        while (deadline := self.link.deadline) is not None and deadline <= end:
            self.now = max(self.now, deadline)
            said += self._heed(self.link.tick(self.now))
        self.now = end
        return said

    def disk_says(self, ok: bool) -> bytes:
        return self._heed(self.link.kept(ok, self.now))

    def sends(self, message: bytes) -> bytes:
        return self._heed(self.link.send(message, self.now))

    def stops(self) -> bytes:
        return self._heed(self.link.stop(self.now))

    def breaks(self) -> bytes:
        return self._heed(self.link.close(self.now))

    def tells(self) -> list[Event]:
        told, self.told = self.told, []
        return told

    def _heed(self, events: list[Event]) -> bytes:
        said = b""
        for event in events:
            match event:
                case Say(data):
                    said += data
                case Keep(piece):
                    self.pieces.append(piece)
                    if self.disk is not None:
                        said += self.disk_says(self.disk)
                case _:
                    self.told.append(event)
        return said


# ---- receiving


def test_a_session_is_acknowledged_frame_by_frame_and_comes_out_as_one_message() -> None:
    line = Line()

    assert line.hears(ENQ) == ACK
    assert line.hears(frame(1, HEADER)) == ACK
    assert line.hears(frame(2, RESULT)) == ACK
    assert line.hears(frame(3, LAST)) == ACK
    assert line.tells() == []
    assert line.hears(EOT) == b""

    assert line.tells() == [Session(HEADER + RESULT + LAST)]
    assert line.pieces == [HEADER, RESULT, LAST]
    assert line.link.state is State.NEUTRAL
    assert line.link.deadline is None


@given(st.lists(st.integers(1, 200), max_size=6))
def test_the_same_comes_out_however_the_line_cuts_it(cuts: list[int]) -> None:
    stream = ENQ + frame(1, HEADER) + frame(2, RESULT[:5], b"\x17") + frame(3, RESULT[5:]) + frame(4, LAST) + EOT
    line = Line()
    places = sorted({0, len(stream), *(cut % len(stream) for cut in cuts)})

    line.hears(*(stream[a:b] for a, b in itertools.pairwise(places)))

    assert line.tells() == [Session(HEADER + RESULT + LAST)]


def test_a_frame_is_not_acknowledged_before_it_is_on_disk() -> None:
    line = Line()
    line.disk = None

    assert line.hears(ENQ, frame(1, HEADER)) == ACK
    assert line.link.deadline is None
    assert line.waits(5.0) == b""
    assert line.disk_says(True) == ACK


def test_a_frame_that_the_disk_does_not_keep_is_asked_for_again() -> None:
    line = Line()
    line.hears(ENQ)
    line.disk = False
    assert line.hears(frame(1, HEADER)) == NAK
    line.disk = True
    assert line.hears(frame(1, HEADER), frame(2, LAST), EOT) == ACK + ACK
    assert line.tells() == [Session(HEADER + LAST)]


def test_an_answer_that_comes_too_late_is_not_said() -> None:
    line = Line()
    line.disk = None
    line.hears(ENQ, frame(1, HEADER))
    line.now += 14.5  # after 15 s the sender gives up, and an ACK would be taken for the one to its next ENQ

    assert line.disk_says(True) == b""
    assert line.hears(EOT) == b""
    assert line.tells() == [Odd(Fault.UNFINISHED), Remains(HEADER)]


def test_records_that_end_the_message_are_whole_even_if_their_sender_did_not_wait_for_the_answer() -> None:
    line = Line()
    line.disk = None
    line.hears(ENQ, frame(1, HEADER + LAST), EOT)

    assert line.disk_says(True) == b""
    assert line.tells() == [Session(HEADER + LAST)]


def test_a_sender_that_gives_up_while_the_disk_works_and_asks_again_gets_one_answer() -> None:
    line = Line()
    line.disk = None
    line.hears(ENQ, frame(1, HEADER), frame(1, HEADER), EOT, ENQ)

    assert line.disk_says(True) == ACK  # to the last ENQ, and to nothing before
    assert line.tells() == [Odd(Fault.UNFINISHED), Remains(HEADER)]


def test_a_sender_that_waits_for_no_answer_loses_nothing() -> None:
    line = Line()
    line.disk = None
    line.hears(ENQ + frame(1, HEADER) + frame(2, RESULT) + frame(3, LAST) + EOT)

    for _ in range(3):
        line.disk_says(True)

    assert line.tells() == [Session(HEADER + RESULT + LAST)]


def test_a_whole_session_in_one_read_loses_nothing_however_long_it_is() -> None:
    texts = [b"R|%d\r" % at for at in range(200)]
    line = Line(Link(max_bytes=100_000))

    line.hears(ENQ + b"".join(frame((at + 1) % 8, text) for at, text in enumerate(texts)) + EOT)

    assert line.pieces == texts
    assert line.tells() == [Odd(Fault.UNFINISHED), Remains(b"".join(texts))]  # as nobody waited for the last answer


@pytest.mark.parametrize("flood", [ENQ + EOT, b"\n\x02x\x03", b"\x02\x03\x04\x05"])
def test_a_flood_of_signals_is_thrown_away(flood: bytes) -> None:
    line = Line()

    assert len(line.hears(ENQ, flood * 20_000)) <= 2
    assert line.link.skipped > 19_000 * len(flood)
    assert len(line.tells()) <= 1_000


def test_what_comes_in_the_wrong_moment_is_held_within_bounds() -> None:
    line = Line(Link(max_bytes=100_000_000))
    line.disk = None
    line.hears(ENQ, frame(1, HEADER))

    line.hears(*(b"x" * 500_000 for _ in range(10)))

    assert line.link.buffered < 1_100_000
    assert line.link.skipped > 3_900_000


def test_a_repeated_frame_is_acknowledged_again_and_taken_once() -> None:
    line = Line()

    assert line.hears(ENQ, frame(1, HEADER), frame(1, HEADER), frame(2, LAST), frame(2, LAST), EOT) == ACK * 5
    assert line.tells() == [Session(HEADER + LAST)]


def test_a_repetition_that_was_damaged_and_came_again_leaves_nothing_open() -> None:
    line = Line()
    damaged = frame(1, HEADER)[:-4] + b"00\r\n"

    assert line.hears(ENQ, frame(1, HEADER), damaged, frame(1, HEADER), EOT, after_s=10.0) == ACK + ACK + NAK + ACK
    assert line.tells() == [Odd(Fault.CHECKSUM), Session(HEADER)]


def test_repetitions_that_come_while_the_disk_works_are_answered_with_their_frame() -> None:
    line = Line()
    line.disk = None
    line.hears(ENQ, frame(1, HEADER), frame(1, HEADER), frame(1, HEADER))

    assert line.disk_says(True) == ACK


def test_another_frame_under_the_last_number_is_not_lost_as_a_repetition() -> None:
    line = Line()

    assert line.hears(ENQ, frame(1, HEADER), frame(1, RESULT)) == ACK + ACK + NAK
    assert line.tells() == [Odd(Fault.NUMBER)]


@pytest.mark.parametrize(
    ("bad", "fault"),
    [
        (frame(2, HEADER)[:-4] + b"00\r\n", Fault.CHECKSUM),
        (frame(2, HEADER).replace(b"Analyser", b"Analyzer"), Fault.CHECKSUM),
        (frame(3, HEADER), Fault.NUMBER),
        (frame(0, HEADER), Fault.NUMBER),
        (frame(9, HEADER), Fault.MALFORMED),
        (b"\x02\x03E3\r\n", Fault.MALFORMED),
        (frame(2, HEADER)[1:], Fault.MALFORMED),
        (frame(2, b"R" * MAX_FRAME_BYTES), Fault.TOO_LONG),
        (frame(2, b"R" * 2_000), Fault.TOO_BIG),
    ],
)
def test_a_bad_frame_is_refused_and_told_and_the_right_one_taken_after_it(bad: bytes, fault: Fault) -> None:
    line = Line()
    line.hears(ENQ, frame(1, HEADER))

    assert line.hears(bad) == NAK
    assert line.tells() == [Odd(fault)]
    assert line.hears(frame(2, LAST), EOT) == ACK
    assert line.tells() == [Session(HEADER + LAST)]


def test_a_frame_with_a_character_too_few_at_its_end_is_refused_after_a_pause() -> None:
    line = Line()
    line.hears(ENQ)

    assert line.hears(frame(1, HEADER)[:-4]) == b""
    assert line.waits(4.9) == b""
    assert line.waits(0.2) == NAK
    assert line.hears(b"\r\n", frame(1, HEADER)) == ACK


def test_a_frame_whose_end_comes_too_early_is_refused_once() -> None:
    damaged = bytearray(frame(1, HEADER))
    damaged[6] = 0x03
    line = Line()
    line.hears(ENQ)

    assert line.hears(bytes(damaged[:9]), bytes(damaged[9:])) == NAK
    assert line.waits(10.0) == b""
    assert line.hears(frame(1, HEADER)) == ACK


@pytest.mark.parametrize("trailer", [b"", b"\r", b"\n", b"\r\n", b"\r\n\r\n"])
def test_line_ends_behind_a_frame_may_be_missing_or_too_many(trailer: bytes) -> None:
    line = Line()

    assert line.hears(ENQ, frame(1, HEADER, trailer=trailer), frame(2, LAST, trailer=trailer), EOT) == ACK * 3
    assert line.tells() == [Session(HEADER + LAST)]


def test_a_checksum_in_lower_case_is_right() -> None:
    assert Line().hears(ENQ, b"\x021Test\x03d4\r\n") == ACK + ACK


def test_frame_numbers_go_round_and_a_long_record_is_put_together() -> None:
    line = Line()
    pieces = [b"%03d" % at for at in range(20)]
    said = line.hears(ENQ, *(frame((at + 1) % 8, piece, b"\x17") for at, piece in enumerate(pieces)))

    assert said == ACK * 21
    line.hears(frame(21 % 8, b"end"), EOT)
    assert line.tells() == [Session(b"".join(pieces) + b"end\r")]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([HEADER + RESULT + LAST], HEADER + RESULT + LAST),
        ([HEADER[:-1], LAST[:-1]], HEADER + LAST),
        ([HEADER[:-1] + b"\r\n" + LAST[:-1] + b"\n"], HEADER + LAST),
        ([b"\r" + HEADER + b"\r\r", b"", b"\r", LAST], HEADER + LAST),
        ([b"R|1|\x07\x12\x10\x06\r"], b"R|1|\x07\x12\x10\x06\r"),
        ([b"C|1|\x05\x04\x02\r"], b"C|1|\x05\x04\x02\r"),
    ],
)
def test_each_record_ends_with_one_cr_whatever_the_frames_held(texts: list[bytes], message: bytes) -> None:
    line = Line()

    assert line.hears(ENQ, *(frame(at + 1, text) for at, text in enumerate(texts)), EOT) == ACK * (1 + len(texts))
    assert line.tells() == [Session(message)]
    assert b"".join(line.pieces) == message


def test_a_line_break_that_two_frames_share_is_one() -> None:
    line = Line()
    line.hears(ENQ, frame(1, b"H|\\^&\r", b"\x17"), frame(2, b"\nL|1", b"\x17"), frame(3, b"|N\r"), EOT)
    assert line.tells() == [Session(b"H|\\^&\rL|1|N\r")]


def test_a_session_without_frames_says_nothing() -> None:
    line = Line()

    assert line.hears(ENQ, EOT, ENQ, EOT) == ACK + ACK
    assert line.tells() == []
    assert not line.link.begun


# ---- sessions that do not end as they should


def test_what_was_kept_remains_when_no_further_frame_comes_for_half_a_minute() -> None:
    line = Line()
    line.hears(ENQ, frame(1, HEADER), frame(2, RESULT))

    assert line.waits(29.9) == b""
    assert line.tells() == []
    line.waits(0.2)
    assert line.tells() == [Odd(Fault.UNFINISHED), Remains(HEADER + RESULT)]
    assert line.link.state is State.NEUTRAL


def test_a_new_session_in_the_middle_of_one_begins_anew_and_mixes_nothing() -> None:
    line = Line()
    line.hears(ENQ, frame(1, HEADER), frame(2, RESULT))

    assert line.hears(ENQ) == ACK
    assert line.tells() == [Odd(Fault.UNFINISHED), Remains(HEADER + RESULT)]
    line.hears(frame(1, HEADER), frame(2, LAST), EOT)
    assert line.tells() == [Session(HEADER + LAST)]


def test_what_was_kept_remains_when_the_line_breaks() -> None:
    line = Line()
    line.hears(ENQ, frame(1, HEADER))
    line.disk = None
    line.hears(frame(2, RESULT))

    line.breaks()

    assert line.tells() == [Odd(Fault.UNFINISHED), Remains(HEADER + RESULT)]
    assert line.disk_says(True) == b""
    assert line.hears(EOT, ENQ) == b""
    assert line.breaks() == b""
    assert line.tells() == []
    assert line.link.deadline is None


@pytest.mark.parametrize("end", ["silence", "enq", "break"])
def test_a_message_with_its_last_record_is_whole_though_the_eot_was_lost(end: str) -> None:
    line = Line()
    line.hears(ENQ, frame(1, HEADER), frame(2, LAST))

    match end:
        case "silence":
            line.waits(31.0)
        case "enq":
            line.hears(ENQ)
        case _:
            line.breaks()

    assert line.tells() == [Session(HEADER + LAST)]


def test_eot_after_a_refused_frame_is_no_end_but_a_sender_that_has_given_up() -> None:
    line = Line()
    line.hears(ENQ, frame(1, HEADER))
    for _ in range(6):
        assert line.hears(frame(2, RESULT)[:-4] + b"00\r\n") == NAK

    line.hears(EOT)

    assert line.tells()[-2:] == [Odd(Fault.UNFINISHED), Remains(HEADER)]


def test_eot_of_a_sender_that_has_waited_for_its_ack_in_vain_is_no_end() -> None:
    line = Line()
    line.hears(ENQ, frame(1, HEADER))
    line.waits(15.0)

    line.hears(EOT)

    assert line.tells() == [Odd(Fault.UNFINISHED), Remains(HEADER)]


def test_a_session_without_a_last_record_is_whole_by_its_eot() -> None:
    line = Line()
    line.hears(ENQ, frame(1, HEADER), EOT)
    assert line.tells() == [Session(HEADER)]


def test_a_record_that_only_begins_with_l_is_not_the_last_one() -> None:
    line = Line()
    line.hears(ENQ, frame(1, HEADER), frame(2, b"LAB|1\r"))
    line.waits(31.0)
    assert line.tells() == [Odd(Fault.UNFINISHED), Remains(HEADER + b"LAB|1\r")]


def test_eot_in_the_middle_of_a_record_is_no_end() -> None:
    line = Line()
    line.hears(ENQ, frame(1, HEADER), frame(2, b"R|1|^^^G", b"\x17"), EOT)
    assert line.tells() == [Odd(Fault.UNFINISHED), Remains(HEADER + b"R|1|^^^G")]


def test_an_enq_that_comes_twice_at_once_is_answered_once() -> None:
    assert Line().hears(ENQ + ENQ) == ACK
    assert Line().hears(ENQ, ENQ, after_s=0.01) == ACK
    assert Line().hears(ENQ, ENQ, after_s=15.0) == ACK + ACK


def test_bytes_between_sessions_are_counted_and_told_when_they_are_no_noise() -> None:
    line = Line()
    assert line.hears(b"\r\n" * 100 + b"noises") == b""
    assert line.tells() == []
    assert not line.link.called

    line.hears(b"\x0bMSH|^~\\&|LAB|HOSPITAL|", b"HIS\r")

    assert line.tells() == [Odd(Fault.STRANGE)]
    assert line.link.skipped == 206 + 27
    assert line.hears(ENQ) == ACK
    assert line.link.called


# ---- sending


def test_records_travel_in_a_frame_each_and_long_ones_in_several() -> None:
    line = Line(Link(max_bytes=1_000, frame_bytes=10))

    assert line.sends(b"H|\\^&\rC|1|0123456789\rL|1\r") == ENQ
    assert line.hears(ACK) == frame(1, b"H|\\^&\r")
    assert line.hears(ACK) == frame(2, b"C|1|012345", b"\x17")
    assert line.hears(ACK) == frame(3, b"6789\r")
    assert line.hears(ACK) == frame(4, b"L|1\r")
    assert line.tells() == []
    assert line.hears(ACK) == EOT
    assert line.tells() == [Sent()]
    assert not line.link.sending


def test_a_busy_far_end_is_asked_again_after_ten_seconds_and_not_for_ever() -> None:
    line = Line()
    assert line.sends(HEADER) == ENQ
    for _ in range(5):
        assert line.hears(NAK) == b""
        assert line.waits(9.9) == b""
        assert line.waits(0.1) == ENQ

    assert line.hears(NAK) == b""

    assert line.tells() == [NotSent(Reason.BUSY)]
    assert line.waits(100.0) == b""


def test_a_far_end_that_says_nothing_is_asked_twice() -> None:
    line = Line()
    assert line.sends(HEADER) == ENQ

    assert line.waits(14.9) == b""
    assert line.waits(0.2) == EOT
    assert line.waits(1.0) == ENQ
    assert line.waits(15.0) == EOT

    assert line.tells() == [NotSent(Reason.NO_ANSWER)]


def test_a_refused_frame_is_sent_six_times_at_once() -> None:
    line = Line()
    line.sends(HEADER + LAST)
    line.hears(ACK)

    for _ in range(5):
        assert line.hears(NAK) == frame(1, HEADER)
    assert line.hears(NAK) == EOT

    assert line.tells() == [NotSent(Reason.REFUSED)]


def test_each_frame_has_its_own_six_chances_and_what_stands_before_leaves_a_doubt() -> None:
    line = Line()
    line.sends(HEADER + LAST)
    line.hears(ACK)
    for _ in range(5):
        line.hears(NAK)
    assert line.hears(ACK) == frame(2, LAST)
    for _ in range(5):
        assert line.hears(NAK) == frame(2, LAST)
    assert line.hears(NAK) == EOT
    assert line.tells() == [NotSent(Reason.REFUSED, in_doubt=True)]


def test_a_frame_without_an_answer_ends_the_session_in_doubt() -> None:
    line = Line()
    line.sends(HEADER)
    line.hears(ACK)

    assert line.waits(14.9) == b""
    assert line.waits(0.2) == EOT
    assert line.tells() == [NotSent(Reason.NO_ANSWER, in_doubt=True)]


def test_an_answer_that_was_there_before_the_frame_is_none_to_it() -> None:
    line = Line()
    line.sends(HEADER + LAST)

    assert line.hears(ACK + ACK) == frame(1, HEADER)
    assert line.hears(b"\x00\x7fnoise") == b""
    assert line.hears(ACK) == frame(2, LAST)


def test_eot_for_ack_is_a_wish_to_speak_that_is_granted() -> None:
    line = Line()
    line.sends(HEADER + LAST)
    line.hears(ACK)

    assert line.hears(EOT) == EOT
    assert line.tells() == [NotSent(Reason.INTERRUPTED, in_doubt=True)]
    assert line.sends(HEADER + LAST) == b""
    assert line.hears(ENQ) == ACK
    assert line.hears(frame(1, LAST), EOT) == ACK + ENQ  # and as soon as it has spoken it is our turn again


def test_who_interrupts_and_then_says_nothing_is_asked_again_after_fifteen_seconds() -> None:
    line = Line()
    line.sends(HEADER + LAST)
    line.hears(ACK, EOT)
    line.sends(HEADER + LAST)
    assert line.waits(14.9) == b""
    assert line.waits(0.2) == ENQ


def test_eot_for_ack_to_the_last_frame_is_an_ack() -> None:
    line = Line()
    line.sends(HEADER)
    line.hears(ACK)

    assert line.hears(EOT) == EOT
    assert line.tells() == [Sent()]


def test_when_both_ask_the_computer_yields_until_the_instrument_has_spoken() -> None:
    line = Line()
    assert line.sends(HEADER) == ENQ

    assert line.hears(ENQ) == b""
    assert line.hears(ENQ, after_s=1.0) == ACK
    assert line.hears(frame(1, LAST)) == ACK
    assert line.hears(EOT) == ENQ
    assert line.hears(ACK) == frame(1, HEADER)


def test_when_both_ask_and_the_instrument_thinks_better_of_it_the_computer_asks_after_twenty_seconds() -> None:
    line = Line()
    line.sends(HEADER)
    line.hears(ENQ)
    assert line.waits(19.9) == b""
    assert line.waits(0.2) == ENQ


def test_when_both_ask_the_instrument_asks_again_after_a_second() -> None:
    line = Line(Link(max_bytes=1_000, instrument=True))
    line.sends(HEADER)
    line.hears(ENQ)
    assert line.waits(0.9) == b""
    assert line.waits(0.2) == ENQ


def test_nothing_is_sent_while_the_far_end_speaks() -> None:
    line = Line()
    line.hears(ENQ, frame(1, LAST))

    assert line.sends(HEADER) == b""
    assert line.link.sending
    assert line.hears(EOT) == ENQ
    with pytest.raises(ValueError):
        line.sends(HEADER)


def test_a_session_that_follows_at_once_goes_before_ours() -> None:
    line = Line()
    line.hears(ENQ, frame(1, LAST))
    line.sends(HEADER)

    assert line.hears(EOT + ENQ) == ACK


@pytest.mark.parametrize("character", sorted(set(range(1, 7)) | set(range(16, 24))))
def test_a_message_with_characters_of_the_link_is_not_sent(character: int) -> None:
    line, message = Line(), HEADER + b"C|1|" + bytes((character,)) + b"\r"

    assert not is_sendable(message)
    assert line.sends(message) == b""
    assert line.tells() == [NotSent(Reason.RESTRICTED)]


def test_line_ends_of_any_kind_are_no_characters_of_the_link() -> None:
    message = HEADER[:-1] + b"\r\nC|1|\x07\t\x0b\x0c\x1b~\x7f\xff\n"

    assert is_sendable(message)
    assert Line().sends(message) == ENQ


@pytest.mark.parametrize("nothing", [b"", b"\r\n\r"])
def test_a_message_without_records_is_not_sent(nothing: bytes) -> None:
    line = Line()
    assert line.sends(nothing) == b""
    assert line.tells() == [NotSent(Reason.EMPTY)]


# ---- the end


def test_a_link_that_is_stopped_refuses_a_session_and_lets_the_one_under_way_end() -> None:
    line = Line()
    line.hears(ENQ, frame(1, HEADER))

    assert line.stops() == b""
    assert line.hears(frame(2, LAST), EOT) == ACK
    assert line.tells() == [Session(HEADER + LAST)]
    assert line.hears(ENQ) == NAK
    assert line.sends(HEADER) == b""
    assert line.tells() == [NotSent(Reason.CLOSED)]


def test_a_link_that_is_stopped_sends_what_it_has_begun_and_nothing_that_waits() -> None:
    sending, waiting = Line(), Line()
    sending.sends(HEADER)
    waiting.hears(ENQ)
    waiting.sends(HEADER)

    sending.stops()
    waiting.stops()

    assert sending.hears(ACK, ACK) == frame(1, HEADER) + EOT
    assert sending.tells() == [Sent()]
    assert waiting.tells() == [NotSent(Reason.CLOSED)]


def test_a_line_that_breaks_tells_what_was_being_sent() -> None:
    asking, sending = Line(), Line()
    asking.sends(HEADER)
    sending.sends(HEADER)
    sending.hears(ACK)

    asking.breaks()
    sending.breaks()

    assert asking.tells() == [NotSent(Reason.CLOSED)]
    assert sending.tells() == [NotSent(Reason.CLOSED, in_doubt=True)]


# ---- any bytes

pieces_of_the_protocol = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([ENQ, ACK, NAK, EOT, b"\x02", b"\x03", b"\x17", b"\r\n"]),
    st.builds(
        frame, st.integers(0, 9), st.sampled_from([HEADER, RESULT, LAST, b""]), st.sampled_from([b"\x03", b"\x17"])
    ),
)


@given(
    st.lists(
        st.one_of(
            pieces_of_the_protocol,
            st.booleans(),
            st.floats(0.0, 40.0),
            st.sampled_from(["send", "tick"]),
        ),
        max_size=60,
    )
)
def test_no_bytes_raise_anything_and_every_piece_is_given_once(steps: list[bytes | bool | float | str]) -> None:
    link, now = Link(max_bytes=200, frame_bytes=7), 1.0
    pieces, given_bytes, unsettled = b"", b"", b""

    def heed(events: list[Event]) -> None:
        nonlocal given_bytes, unsettled
        for event in events:
            match event:
                case Keep(piece):
                    unsettled = piece
                case Session(message) | Remains(message):
                    given_bytes += message

    for step in steps:
        match step:
            case bytes():
                heed(link.received(step, now))
            case bool():
                pieces, unsettled = pieces + (unsettled if step else b""), b""
                heed(link.kept(step, now))
            case "send" if not link.sending:
                heed(link.send(HEADER, now))
            case str():
                heed(link.tick(now))
            case _:
                now += step
    pieces += unsettled
    heed(link.close(now))

    assert given_bytes == pieces
    assert link.buffered == 0
