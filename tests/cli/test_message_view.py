"""A message as people see it: what became of it in words, and nothing wider than the window."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cli.lines import Tone, cells_of, plain
from agent.cli.message_head import head_lines
from agent.cli.message_parts import masked, segments_of
from agent.cli.message_view import LONG_CHARS, facts_of, message_table, segment_lines, wrapped
from agent.store.ledger import Entry
from agent.store.row import AckState, Content, Direction, Repeat, State

MSH = "MSH|^~\\&|ADT|WARD|LAB|HOSP|20260101120000||ADT^A01^ADT_A01|MSG1|P|2.5.1"
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC).astimezone()
ENTRY = Entry(
    id=4711,
    channel="adt",
    remote="10.1.1.1:5000",
    order_key=b"WARD\x1fADT",
    control_id=b"MSG1",
    message_type=b"ADT^A01^ADT_A01",
    received_ms=int(NOW.timestamp() * 1_000),
    seq=None,
    repeat=Repeat.NO,
    size_bytes=2_048,
    state=State.PROCESSED,
    ack=AckState.DELIVERED,
    attempts=1,
    ambiguous=False,
    due_ms=0,
    settled_ms=None,
    status=200,
    ack_code="AA",
    reason="",
    answer_bytes=80,
    direction=Direction.IN,
    callback="",
    content=Content.HL7,
)
BODY = ((f"{ENTRY.size_bytes:,} bytes", Tone.PLAIN), ("read as UTF-8", Tone.PLAIN))
SCALE = replace(ENTRY, content=Content.BYTES, message_type=b"", control_id=b"", ack_code="")
ANALYSER = replace(ENTRY, content=Content.ASTM, message_type=b"", ack_code="")
SCANNER = replace(ENTRY, content=Content.DICOM, message_type=b"", ack_code="0000")
URL = "mllp://lab.hospital:2575?durable=true"
OUT = replace(
    ENTRY,
    direction=Direction.OUT,
    channel=URL,
    remote="lab.hospital:2575",
    order_key=b"",
    status=None,
    callback="callback-1",
)


PEOPLE = st.text(alphabet="QZJKqzjk1234ÑßøЖж漢٣'- ", min_size=5, max_size=30).filter(
    lambda name: sum(map(str.isalnum, name)) >= 4 and masked(name) != name and name == name.strip()
)


@given(PEOPLE)
def test_a_patient_is_not_in_what_is_told_of_a_message(person: str) -> None:
    for entry in (ENTRY, OUT):
        entry = replace(entry, state=State.REJECTED, reason=f"no {person} here", order_key=person.encode())

        assert person in plain(head_lines(entry, BODY, mask=False, width=None))
        assert person not in plain(head_lines(entry, BODY, mask=True, width=None))
        assert person not in json.dumps(facts_of(entry), ensure_ascii=False)
        assert person not in plain(message_table([entry], NOW, None))


class TestLayout:
    SEGMENTS = segments_of(f"{MSH}\rPID|1||12345^^^HOSP^MR||NEMO^ANNA\rNTE|1||{'a long remark ' * 12}\r")

    def test_a_value_stands_in_one_line_with_its_place_and_name_in_a_file(self) -> None:
        lines = plain(segment_lines(self.SEGMENTS, None)).splitlines()

        assert "PID  Patient Identification" in lines
        (line,) = [line for line in lines if "PID-3.1" in line]
        assert re.fullmatch(r"  PID-3\.1 +Patient Identifier List / ID Number +12345", line)
        assert sum("remark" in line for line in lines) == 1

    @pytest.mark.parametrize("width", [80, 100, 120])
    def test_on_a_terminal_nothing_is_wider_than_the_window(self, width: int) -> None:
        lines = plain(segment_lines(self.SEGMENTS, width)).splitlines()

        assert max(map(cells_of, lines)) <= width
        assert sum(line.count("remark") for line in lines) == 12

    def test_a_document_is_cut_and_its_length_said(self) -> None:
        segments = segments_of(f"{MSH}\rOBX|1|ED|||^^^Base64^{'QUJD' * 262_144}\r")

        text = plain(segment_lines(segments, 80))

        assert "... 1,048,576 characters" in text
        assert len(text) < 4_000

    def test_a_text_that_can_still_be_read_is_not_cut(self) -> None:
        segments = segments_of(f"{MSH}\rNTE|1||{'x' * LONG_CHARS}\r")

        assert plain(segment_lines(segments, None)).count("x" * LONG_CHARS) == 1

    @given(st.text(), st.integers(1, 40))
    def test_wrapping_loses_nothing(self, text: str, room: int) -> None:
        pieces = wrapped(text, room)

        assert "".join(pieces) == text
        assert all(cells_of(piece) <= max(room, 2) for piece in pieces)

    def test_nothing_that_moves_a_cursor_is_left(self) -> None:
        hostile = "\x1b[2J\x9b31m\u202e\x07"
        entry = replace(
            ENTRY,
            channel=hostile,
            remote=hostile,
            control_id=hostile.encode(),
            message_type=hostile.encode(),
            order_key=hostile.encode(),
            reason=hostile,
            ack_code=hostile,
        )
        for mask in (False, True):
            for direction in Direction:
                entry = replace(entry, direction=direction, callback=hostile)
                lines = head_lines(entry, BODY, mask=mask, width=80)
                lines += segment_lines(segments_of(f"{MSH}\rPID|||{hostile}\r{hostile}\r", mask=mask), 80)
                lines += message_table([entry], NOW, 80)
                assert plain(lines).replace("\n", "").isprintable()


class TestTable:
    def test_a_message_of_today_has_a_time_and_an_older_one_its_date(self) -> None:
        yesterday = replace(ENTRY, received_ms=ENTRY.received_ms - 86_400_000)
        long_ago = replace(ENTRY, received_ms=int((NOW - timedelta(days=400)).timestamp() * 1_000))

        (_, today, day, year) = plain(message_table([ENTRY, yesterday, long_ago], NOW, None)).splitlines()

        assert f" {NOW:%H:%M:%S} " in today
        assert "Nov" not in today
        assert f"{NOW - timedelta(days=1):%d %b %H:%M:%S}" in day
        assert f"{NOW - timedelta(days=400):%d %b %Y %H:%M:%S}" in year

    def test_the_heading_names_every_column(self) -> None:
        (heading, line) = plain(message_table([ENTRY], NOW, None)).splitlines()

        assert heading.split() == [
            "id",
            "received",
            "way",
            "channel",
            "type",
            "control",
            "id",
            "state",
            "tries",
            "ack",
            "size",
        ]
        assert line.split()[0] == "4711"
        assert line.split()[2:] == ["in", "adt", "ADT^A01", "MSG1", "processed", "1", "AA", "2.0", "KiB"]

    def test_what_goes_out_is_listed_with_the_host_and_port_of_its_remote(self) -> None:
        lines = [plain(message_table(page, NOW, None)).splitlines() for page in ([OUT], [OUT, ENTRY], [ENTRY])]

        assert [page[0].split()[3] for page in lines] == ["remote", "channel/remote", "channel"]
        assert lines[1][1].split()[2:4] == ["out", "lab.hospital:2575"]
        assert lines[1][2].split()[2:4] == ["in", "adt"]
        assert "mllp://" not in "".join(lines[1])

    def test_a_narrow_window_leaves_out_the_size_before_a_remote_cannot_be_told_from_another(self) -> None:
        control_id = b"CONTROL-ID-OF-26-CHARACTERS"
        yesterday = replace(ENTRY, received_ms=ENTRY.received_ms - 86_400_000, control_id=control_id)
        page = [
            replace(OUT, remote=f"10.1.2.{end}:2575", ack=AckState.UNDELIVERED, control_id=control_id) for end in (3, 4)
        ]

        (heading, *lines) = plain(message_table([*page, yesterday], NOW, 88)).splitlines()

        assert "size" not in heading
        assert [line.split()[3] for line in lines[:2]] == ["10.1.2.3:2575", "10.1.2.4:2575"]
        assert max(map(cells_of, [heading, *lines])) <= 88

    @pytest.mark.parametrize("width", [72, 80, 120])
    def test_it_fits_the_window_and_the_ids_are_whole(self, width: int) -> None:
        wide = replace(
            ENTRY, channel="a-channel-with-a-long-name", control_id=b"CONTROL-ID-OF-26-CHARACTERS", id=1_234_567
        )
        outbound = replace(OUT, ack=AckState.UNDELIVERED, ambiguous=True, state=State.PROCESSED)

        lines = plain(message_table([wide, ENTRY, outbound], NOW, width)).splitlines()

        assert max(map(cells_of, lines)) <= width
        assert "1234567" in lines[1]

    def test_in_a_file_nothing_is_cut(self) -> None:
        wide = replace(ENTRY, channel="c" * 60, control_id=b"i" * 60)

        text = plain(message_table([wide], NOW, None))

        assert "c" * 60 in text
        assert "i" * 60 in text

    @pytest.mark.parametrize(
        ("entry", "cell", "tone"),
        [
            (replace(ENTRY, state=State.REJECTED), "rejected", Tone.BAD),
            (replace(ENTRY, state=State.FAILED), "failed", Tone.BAD),
            (replace(ENTRY, state=State.HELD), "held", Tone.WARNING),
            (replace(ENTRY, state=State.PROCESSED), "processed", Tone.GOOD),
            (replace(ENTRY, state=State.QUEUED), "queued", Tone.PLAIN),
            (replace(ENTRY, state=State.INFLIGHT), "inflight", Tone.PLAIN),
            (ENTRY, "AA", Tone.PLAIN),
            (replace(ENTRY, ack_code="AE"), "AE", Tone.WARNING),
            (replace(ENTRY, ack=AckState.UNDELIVERED), "AA unsent", Tone.WARNING),
            (replace(ENTRY, ack=AckState.PENDING, ack_code=""), "owed", Tone.PLAIN),
            (replace(ENTRY, ack=AckState.NOT_OWED, ack_code=""), "-", Tone.QUIET),
            (replace(ENTRY, attempts=5), "    5", Tone.WARNING),
            (replace(ENTRY, ambiguous=True), "processed*", Tone.GOOD),
            (replace(OUT, state=State.HELD, ambiguous=True), "held*", Tone.WARNING),
            (OUT, "AA", Tone.PLAIN),
            (replace(OUT, ack_code="AR"), "AR", Tone.WARNING),
            (replace(OUT, ack_code=""), "-", Tone.QUIET),
            (replace(OUT, ack=AckState.UNDELIVERED), "AA untold", Tone.WARNING),
            (replace(OUT, ack=AckState.UNDELIVERED, ack_code=""), "untold", Tone.WARNING),
            (replace(OUT, ack=AckState.PENDING, ack_code=""), "owed", Tone.PLAIN),
            (replace(OUT, ack=AckState.PENDING, ack_code="", callback=""), "-", Tone.QUIET),
            (replace(OUT, ack=AckState.NOT_OWED, callback=""), "AA", Tone.PLAIN),
            (replace(OUT, ack=AckState.NOT_OWED, ack_code="AE", callback=""), "AE", Tone.WARNING),
            (replace(SCALE, ack=AckState.PENDING), "-", Tone.QUIET),
            (replace(SCALE, ack=AckState.NOT_OWED), "-", Tone.QUIET),
            (SCALE, "sent", Tone.PLAIN),
            (replace(SCALE, ack=AckState.UNDELIVERED), "unsent", Tone.WARNING),
            (replace(ANALYSER, ack=AckState.PENDING), "ACK", Tone.PLAIN),
            (replace(ANALYSER, ack=AckState.NOT_OWED), "ACK", Tone.PLAIN),
            (ANALYSER, "sent", Tone.PLAIN),
            (replace(ANALYSER, ack=AckState.UNDELIVERED), "unsent", Tone.WARNING),
            (replace(SCANNER, ack=AckState.PENDING), "0000", Tone.PLAIN),
            (replace(SCANNER, ack=AckState.NOT_OWED), "0000", Tone.PLAIN),
            (replace(OUT, content=Content.ASTM, ack_code="ACK"), "ACK", Tone.PLAIN),
            (SCALE, "bytes", Tone.QUIET),
            (ANALYSER, "astm", Tone.QUIET),
            (SCANNER, "dicom", Tone.QUIET),
        ],
    )
    def test_what_needs_a_person_is_coloured(self, entry: Entry, cell: str, tone: Tone) -> None:
        assert (cell, tone) in [(text.rstrip(), tone) for text, tone in message_table([entry], NOW, None)[1]]

    def test_where_all_speak_hl7_no_line_says_so(self) -> None:
        assert "hl7" not in plain(message_table([ENTRY, OUT], NOW, None))


class TestHead:
    @pytest.mark.parametrize(
        ("entry", "words"),
        [
            (ENTRY, "processed: the server took it  server status 200  1 attempt"),
            (ENTRY, "AA (accepted), delivered to the sender"),
            (ENTRY, "key WARD + ADT"),
            (replace(ENTRY, order_key=b""), "no key"),
            (replace(ENTRY, seq=42), "MSH-13 given: 42"),
            (replace(ENTRY, state=State.HELD), "a person decides"),
            (replace(ENTRY, state=State.QUEUED, attempts=2, due_ms=ENTRY.received_ms), "2 attempts, the next is due"),
            (replace(ENTRY, state=State.QUEUED, attempts=0, status=None), "0 attempts"),
            (replace(ENTRY, ambiguous=True), "the server may have it twice"),
            (replace(ENTRY, repeat=Repeat.CONFLICT), "its control id was used before, by a message of other bytes"),
            (replace(ENTRY, repeat=Repeat.RETRIED), "the same bytes came before, and were answered negatively"),
            (replace(ENTRY, ack=AckState.UNDELIVERED, ack_code="AE"), "AE (error), not delivered"),
            (replace(ENTRY, ack=AckState.PENDING, ack_code=""), "owed to the sender, not sent so far"),
            (replace(ENTRY, ack=AckState.NOT_OWED, ack_code=""), "none is owed to the sender"),
            (replace(ENTRY, settled_ms=ENTRY.received_ms + 55), "55ms after it came"),
            (replace(ENTRY, reason="said no"), "reason  said no"),
        ],
    )
    def test_the_fate_of_a_message_is_told_in_words(self, entry: Entry, words: str) -> None:
        assert words in plain(head_lines(entry, BODY, mask=False, width=None))

    @pytest.mark.parametrize(
        ("entry", "words"),
        [
            (OUT, f"to      {URL}  pushed by the server {NOW:%d %b %Y %H:%M:%S}"),
            (OUT, "state   processed: the remote accepted it  1 attempt"),
            (OUT, "ack     AA (accepted), from the remote"),
            (OUT, "server  the server was told"),
            (replace(OUT, state=State.QUEUED, attempts=0), "queued: it waits for the remote  0 attempts"),
            (replace(OUT, state=State.QUEUED, attempts=2, due_ms=1), "2 attempts, the next is due"),
            (replace(OUT, state=State.INFLIGHT), "in flight: written to the remote, or about to be, and not answered"),
            (replace(OUT, state=State.REJECTED, ack_code="AR"), "rejected: the remote refused it"),
            (replace(OUT, state=State.REJECTED, ack_code="AR"), "AR (rejected), from the remote"),
            (replace(OUT, state=State.FAILED, ack_code=""), "failed: tried as often as the remote's policy allows"),
            (replace(OUT, state=State.FAILED, ack_code=""), "ack     none came"),
            (replace(OUT, state=State.QUEUED, ack_code=""), "ack     none so far"),
            (replace(OUT, state=State.HELD), "held: the remote may have it or not; a person decides"),
            (replace(OUT, state=State.HELD, ambiguous=True), "ambiguous: it was sent, and no answer came"),
            (replace(OUT, ambiguous=True), "ambiguous: a try was not answered, so the remote may have it twice"),
            (replace(OUT, ack=AckState.PENDING), "the server waits, and was not told so far"),
            (replace(OUT, ack=AckState.PENDING, callback=""), "the server does not wait to be told"),
            (replace(OUT, ack=AckState.NOT_OWED, callback=""), "the server does not wait to be told"),
            (replace(OUT, ack=AckState.UNDELIVERED), "the server was not told: the connection to it was away"),
            (replace(OUT, settled_ms=ENTRY.received_ms + 55), "55ms after it came"),
        ],
    )
    def test_the_fate_of_a_message_that_goes_out_is_told_in_words(self, entry: Entry, words: str) -> None:
        shown = plain(head_lines(entry, BODY, mask=False, width=None))

        assert words in shown
        assert "order" not in shown
        assert "channel" not in shown
        assert "sender" not in shown

    @pytest.mark.parametrize(
        ("entry", "words"),
        [
            (SCALE, "message 4711  bytes of a stream"),
            (SCALE, "ack     the server's answer was written back to the device"),
            (replace(SCALE, ack=AckState.PENDING), "the device hears what the server answers, if it does"),
            (replace(SCALE, ack=AckState.UNDELIVERED), "the server's answer did not reach the device"),
            (replace(SCALE, ack=AckState.NOT_OWED), "there was nothing to write back to the device"),
            (SCALE, "bytes   2,048 bytes"),
            (ANALYSER, "message 4711  ASTM session  MSG1"),
            (ANALYSER, "each frame was acknowledged as it came  the server's answer was sent to the analyser"),
            (replace(ANALYSER, ack=AckState.PENDING), "ack     each frame was acknowledged as it came\n"),
            (replace(ANALYSER, ack=AckState.UNDELIVERED), "the server's answer did not reach the analyser"),
            (ANALYSER, "records 2,048 bytes"),
            (SCANNER, "message 4711  DICOM object  MSG1"),
            (SCANNER, "ack     success (0000), told as soon as the object was safe"),
            (SCANNER, "object  2,048 bytes"),
            (replace(OUT, content=Content.ASTM, ack_code="ACK"), "ack     ACK (every frame), from the remote"),
        ],
    )
    def test_lines_that_speak_no_hl7_are_told_in_their_own_words(self, entry: Entry, words: str) -> None:
        assert words in plain(head_lines(entry, BODY, mask=False, width=None))

    @pytest.mark.parametrize("width", [60, 80, 120])
    def test_it_fits_the_window(self, width: int) -> None:
        for entry in (
            ENTRY,
            SCALE,
            ANALYSER,
            SCANNER,
            replace(OUT, channel=f"{URL}&encoding=iso-8859-1&tls={'x' * 100}"),
        ):
            entry = replace(entry, ambiguous=True, reason="a long reason " * 20, settled_ms=ENTRY.received_ms)

            assert max(map(cells_of, plain(head_lines(entry, BODY, mask=False, width=width)).splitlines())) <= width


def test_facts_for_a_script_are_whole_and_name_no_patient() -> None:
    moment = int(datetime(2026, 11, 22, 3, 0, 0, 45_000, tzinfo=UTC).timestamp() * 1_000)
    entry = replace(ENTRY, received_ms=moment, settled_ms=moment + 5, ack=AckState.NOT_OWED, ack_code="")

    facts = facts_of(replace(entry, repeat=Repeat.RETRIED, reason="secret", order_key=b"secret"))

    assert facts == {
        "id": 4711,
        "direction": "in",
        "content": "hl7",
        "channel": "adt",
        "remote": "10.1.1.1:5000",
        "received": "2026-11-22T03:00:00.045Z",
        "type": "ADT^A01^ADT_A01",
        "controlId": "MSG1",
        "state": "processed",
        "status": 200,
        "settled": "2026-11-22T03:00:00.050Z",
        "attempts": 1,
        "ambiguous": False,
        "repeat": "retried",
        "sequenceNumber": None,
        "ack": {"code": None, "state": "not-owed"},
        "callback": None,
        "sizeBytes": 2048,
        "answerBytes": 80,
    }


def test_facts_of_what_goes_out_say_whither_and_who_waits() -> None:
    facts = facts_of(OUT)

    assert (facts["direction"], facts["channel"], facts["remote"]) == ("out", URL, "lab.hospital:2575")
    assert (facts["callback"], facts["ack"]) == ("callback-1", {"code": "AA", "state": "delivered"})
    unasked = facts_of(replace(OUT, callback="", ack=AckState.PENDING, ack_code=""))
    assert (unasked["callback"], unasked["ack"]) == (None, {"code": None, "state": "not-owed"})
