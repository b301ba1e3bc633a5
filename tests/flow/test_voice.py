"""What we say to a sender in our own name."""

from __future__ import annotations

from flow_far_ends import adt
from hypothesis import given
from hypothesis import strategies as st

from agent.flow.voice import Voice, header_of
from agent.protocol.hl7 import Header, NotHl7, read_ack
from agent.store.row import Row

AT = 1_795_000_000.5


def stored(body: bytes) -> Row:
    return Row(12, "adt", "10.0.0.1:40001", b"", b"M1", b"ADT", 0, body)


def test_every_acknowledgement_has_a_control_id_of_its_own_and_a_time() -> None:
    voice = Voice(lambda: AT)
    said = [Header.of(voice.say(Header.of(adt()), "AA", "OK")) for _ in range(3)]
    assert len({header.control_id for header in said}) == 3
    assert {header.fields[6] for header in said} == {b"20261118110640+0000"}


def test_control_ids_do_not_begin_again_with_the_process() -> None:
    first = Header.of(Voice(lambda: AT).say(None, "AR", "")).control_id
    second = Header.of(Voice(lambda: AT + 1).say(None, "AR", "")).control_id
    assert int(second) > int(first)


def test_an_answer_names_the_message_and_how_a_person_finds_it() -> None:
    ack = read_ack(Voice(lambda: AT).answer(stored(adt("M1")), "AE", "busy", None))
    assert ack is not None
    assert (ack.code, ack.control_id, ack.text) == ("AE", b"M1", b"busy (ref 12)")


def test_an_answer_speaks_the_senders_charset() -> None:
    body = adt().replace(b"|2.5.1\r", b"|2.5.1||||||8859/1\r")
    assert "größer".encode("latin-1") in Voice(lambda: AT).answer(stored(body), "AE", "größer", None)
    assert "größer".encode() in Voice(lambda: AT).answer(stored(adt()), "AE", "größer", None)


def test_a_message_without_a_readable_header_is_answered_in_standard_form() -> None:
    header, codec = header_of(stored(b""), None)
    assert (header, codec) == (None, "utf-8")
    assert read_ack(Voice(lambda: AT).answer(stored(b""), "AE", "busy", None)) is not None


@given(st.binary(max_size=60), st.text(max_size=30))
def test_whatever_was_received_can_be_answered(tail: bytes, text: str) -> None:
    row = stored(b"MSH|" + tail)
    try:
        row.header = Header.of(row.body)
    except NotHl7:
        row.header = None
    answer = Voice(lambda: AT).answer(row, "AE", text, None)
    ack = read_ack(answer)
    assert ack is not None
    assert ack.code == "AE"
    assert b"\x0b" not in answer or b"\x0b" in tail
    assert b"\x1c\r" not in answer
