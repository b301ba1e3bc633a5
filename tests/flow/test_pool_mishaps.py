"""The sentences about messages that got no acknowledgement."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.failures import Failure, Kind
from agent.flow import mishaps
from agent.flow.mishaps import QUOTED_CHARS, Traces, quoted

WHERE = "[2001:db8::1]:2575"
NAME = b"EVERYMAN"
ALL = [
    mishaps.queue_full(WHERE, 1),
    mishaps.waited(WHERE, 3_599.99, before=0, in_flight=5),
    mishaps.stopping(WHERE),
    mishaps.stopped(WHERE),
    mishaps.silent(WHERE, 0.25, Traces()),
    mishaps.silent(WHERE, 30.0, Traces(committed_by="CA", noise=NAME)),
    mishaps.silent(WHERE, 30.0, Traces(committed_by="0x06")),
    mishaps.silent(WHERE, 30.0, Traces(begun_bytes=1, noise=NAME)),
    mishaps.silent(WHERE, 30.0, Traces(noise=NAME)),
    mishaps.closed(WHERE, Traces()),
    mishaps.closed(WHERE, Traces(committed_by="CA")),
    mishaps.closed(WHERE, Traces(begun_bytes=7)),
    mishaps.closed(WHERE, Traces(noise=NAME)),
    mishaps.no_ack(WHERE, NAME),
    mishaps.not_committed(WHERE),
    mishaps.contradicted(WHERE),
    mishaps.unnamed_refusal(WHERE, 2),
    mishaps.wrong_id(WHERE, NAME, NAME),
    mishaps.no_id(WHERE, 1),
    mishaps.unframed(WHERE, NAME),
]


@pytest.mark.parametrize("failure", ALL, ids=lambda failure: failure.text[:60])
def test_every_sentence_names_the_remote_and_a_remedy_and_can_be_read(failure: Failure) -> None:
    assert WHERE in failure.text
    assert WHERE in failure.for_log
    assert failure.remedy
    assert not re.search(r"\de[+-]|\s\s|\.$|\n|\b1 (messages|bytes)\b|\b[02-9] (message|byte)\b", str(failure))
    assert NAME.decode() not in failure.for_log


@given(st.binary(max_size=300), st.binary(max_size=300))
@example(b"\x1b[31mM1\r\n", b"M\x00")
@example("MÜLLER".encode("latin-1"), "Mädchen".encode())
def test_what_is_quoted_of_a_control_id_is_short_and_printable_and_never_in_the_log(theirs: bytes, ours: bytes) -> None:
    failure = mishaps.wrong_id(WHERE, theirs, ours)
    assert str(failure).isprintable()
    assert len(failure.text) <= 140 + 2 * QUOTED_CHARS + len(WHERE)
    assert failure.for_log == mishaps.wrong_id(WHERE, b"", b"").for_log


def test_a_short_control_id_is_quoted_whole() -> None:
    assert quoted(b"M" * QUOTED_CHARS) == f"'{'M' * QUOTED_CHARS}'"
    assert quoted(b"M" * (QUOTED_CHARS + 1)) == f"'{'M' * (QUOTED_CHARS - 1)}…'"
    assert quoted("Ä".encode() * QUOTED_CHARS) == f"'{'Ä' * QUOTED_CHARS}'"


@given(st.binary(max_size=64))
def test_no_letter_or_digit_of_an_answer_gets_into_a_sentence(content: bytes) -> None:
    # given content that can be told from the words of a sentence
    secret = bytes(0x80 + byte % 0x80 for byte in content) + b"Zqj7"
    for failure in (mishaps.no_ack(WHERE, secret), mishaps.unframed(WHERE, secret[-16:])):
        assert "Zqj" not in str(failure)
        assert str(failure).isascii() or not re.search(r"[\x80-\xff]", str(failure))


@given(st.binary(max_size=16), st.integers(0, 9), st.sampled_from(["", "CA", "0x06"]))
def test_whatever_a_remote_did_there_is_a_sentence_for_it(noise: bytes, begun_bytes: int, committed_by: str) -> None:
    traces = Traces(committed_by, begun_bytes, noise)
    network = Failure(Kind.RESET, f"{WHERE} reset the connection")
    for failure in (
        mishaps.silent(WHERE, 30.0, traces),
        mishaps.lost(WHERE, None, traces),
        mishaps.lost(WHERE, network, traces),
    ):
        assert failure.kind in (Kind.SILENT, Kind.CLOSED, Kind.RESET, Kind.UNFRAMED)
        assert (failure.kind is Kind.UNFRAMED) is (bool(noise) and not begun_bytes and not committed_by)
        assert str(failure).isprintable()
