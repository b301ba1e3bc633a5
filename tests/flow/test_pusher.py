"""A pushed body becomes the bytes that its remote reads, and the remote's answer the text that the server reads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import PeerError
from agent.failures import Failure, Kind
from agent.flow.letters import TAKEN, Answered, NotSent, Unanswered
from agent.flow.pusher import HL7_V2, TAKEN_IN_WORDS, TEXT, message_of, response_to, words_of
from agent.flow.remotequeue import Message
from agent.protocol.hl7 import Header, normalize
from agent.spec import Astm, RemoteSpec

MESSAGE = "MSH|^~\\&|ADT|W7|LAB|H|20260131030000||ADT^A01|P-1|P|2.5.1\rPID|1||4711||Müller^Zoë\r"


def remote(**more: object) -> RemoteSpec:
    return RemoteSpec("mllp://lab:2575", "lab", 2575, **more)  # type: ignore[arg-type]


def declaring(charset: str) -> str:
    return MESSAGE.replace("|P|2.5.1", f"|P|2.5.1||||||{charset}")


def test_a_message_keeps_its_characters_and_its_name() -> None:
    message = message_of(MESSAGE, remote())
    assert message.content == MESSAGE.encode()
    assert (message.control_id, message.message_type) == (b"P-1", b"ADT^A01")


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_lines_end_in_carriage_returns(ends: str) -> None:
    assert message_of(MESSAGE.replace("\r", ends), remote()).content == MESSAGE.encode()


@pytest.mark.parametrize(
    ("encoding", "declared", "codec"),
    [
        (None, "", "utf-8"),
        (None, "8859/1", "latin-1"),
        ("iso-8859-1", "", "latin-1"),
        ("iso-8859-1", "UNICODE UTF-8", "latin-1"),
        ("auto", "8859/15", "iso8859-15"),
    ],
)
def test_the_remotes_encoding_wins_over_what_the_message_declares(
    encoding: str | None, declared: str, codec: str
) -> None:
    text = declaring(declared)
    assert message_of(text, remote(encoding=encoding)).content == text.encode(codec)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "does not begin with an MSH segment"),
        ("hello", "does not begin with an MSH segment"),
        ("PID|1", "does not begin with an MSH segment"),
        ("MSH|^~\\&|A", "Required field missing: MSH.10"),
        (MESSAGE.replace("P-1", ""), "Required field missing: MSH.10"),
        (declaring("KLINGON"), "KLINGON"),
        (MESSAGE.replace("Zoë", "Zoë\ud800"), "(U+D800, in PID-5)"),
    ],
)
def test_what_cannot_be_pushed_is_refused_with_the_reason(text: str, says: str) -> None:
    with pytest.raises(PeerError) as caught:
        message_of(text, remote())
    assert says in str(caught.value)


def test_a_character_that_the_remote_cannot_read_is_named_by_its_place_and_not_replaced() -> None:
    with pytest.raises(PeerError) as caught:
        message_of(MESSAGE.replace("Zoë", "Жанна"), remote(encoding="iso-8859-1"))
    assert "(U+0416, in PID-5) does not exist in ISO-8859-1" in str(caught.value)
    assert "Müller" not in str(caught.value)


@given(st.text(max_size=200))
def test_any_body_becomes_a_message_or_a_refusal(text: str) -> None:
    for body in (text, MESSAGE + text):
        try:
            message = message_of(body, remote())
        except PeerError:
            continue
        assert message.content == normalize(body.encode())
        assert Header.of(message.content).control_id == message.control_id


def test_the_answer_is_the_acknowledgement_in_the_remotes_characters() -> None:
    ack = "MSH|^~\\&|LAB\rMSA|AA|P-1|reçu\r"
    assert words_of(Answered(ack.encode("latin-1"), "AA"), "iso-8859-1") == (200, HL7_V2, ack)


@given(st.binary(max_size=100))
def test_an_acknowledgement_can_be_read_whatever_its_text_is_made_of(text: bytes) -> None:
    status, _, body = words_of(Answered(b"MSH|^~\\&|LAB\rMSA|AA|P-1|" + text, "AA"), None)
    assert status == 200
    assert body.startswith("MSH|^~\\&|LAB\rMSA|AA|P-1|")
    body.encode()  # it can travel as JSON


@pytest.mark.parametrize("kind", [NotSent, Unanswered])
def test_a_failure_is_told_with_its_remedy(kind: type[NotSent | Unanswered]) -> None:
    failure = Failure(Kind.REFUSED, "cannot connect to lab:2575", "check that it runs", loggable="away")
    assert words_of(kind(failure), None) == (400, TEXT, "cannot connect to lab:2575 — check that it runs")


def test_a_durable_message_is_answered_under_the_name_and_callback_that_the_server_gave() -> None:
    response = response_to("mllp://LAB:2575", "cb-1", Answered(b"MSH|^~\\&|LAB\rMSA|AA|P-1", "AA"), None)
    assert (response.remote, response.callback, response.status_code) == ("mllp://LAB:2575", "cb-1", 200)
    assert response_to("mllp://lab", "", Answered(b"MSH|^~\\&|LAB\rMSA|AA|P-1", "AA"), None).callback is None


# ---- analysers

RECORDS = "H|\\^&|||LIS\rP|1||4711||Müller^Zoë\rL|1|N\r"


def analyser(**more: object) -> RemoteSpec:
    return RemoteSpec("astm://sysmex:4000", "sysmex", 4000, wire=Astm(**more))  # type: ignore[arg-type]


@pytest.mark.parametrize("ends", ["\r", "\n", "\r\n", "\r\n\r\n"])
def test_records_travel_with_carriage_returns_however_their_lines_ended(ends: str) -> None:
    assert message_of(RECORDS.replace("\r", ends), analyser()) == Message(RECORDS.encode("latin-1"), b"", b"")
    assert message_of(RECORDS.rstrip("\r"), analyser(codec="utf-8")).content == RECORDS.encode()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "does not begin with a header record"),
        ("P|1", "does not begin with a header record"),
        (MESSAGE, "does not begin with a header record"),
        (RECORDS.replace("4711", "47\x0211"), "a control character that ASTM E1381 does not allow"),
        (RECORDS.replace("P|", "\u0416|"), "character 13 of the message (U+0416, in record 2)"),
        (RECORDS.replace("Zoë", "Zoë\ud800"), "character 34 of the message (U+D800, in record 2)"),
        (
            RECORDS.replace("Zoë", "Жанна"),
            "character 31 of the message (U+0416, in record 2) does not exist in LATIN-1",
        ),
    ],
)
def test_what_no_analyser_can_take_is_refused_with_the_reason(text: str, says: str) -> None:
    with pytest.raises(PeerError) as caught:
        message_of(text, analyser())
    assert says in str(caught.value)
    assert "Müller" not in str(caught.value)


@given(st.text(max_size=200))
def test_any_body_becomes_records_or_a_refusal(text: str) -> None:
    for body in (text, RECORDS + text):
        try:
            message = message_of(body, analyser())
        except PeerError:
            continue
        assert message.content.endswith(b"\r")
        assert b"\n" not in message.content
        assert b"\r\r" not in message.content


def test_an_analyser_that_has_it_is_told_of_in_words() -> None:
    assert words_of(Answered(b"", TAKEN), None) == (200, TEXT, TAKEN_IN_WORDS)
