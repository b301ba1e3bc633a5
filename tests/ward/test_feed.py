"""The messages of the simulated hospital, judged by hl7apy's HL7 v2.5.1 dictionary."""

from __future__ import annotations

import base64
import re
from contextlib import suppress
from itertools import islice
from pathlib import Path

import pytest
from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.exceptions import ValidationError
from hl7apy.parser import parse_message
from hl7apy.validation import Validator

from agent.protocol.charset import codec_of
from agent.protocol.hl7 import FieldPath, Header
from agent.ward.feed import CHARSETS, Hospital, Message, feeds, load
from agent.ward.story import Event, System

# hl7apy takes the alternatives of ORM_O01's order detail (OBR or RQD or RXO …) for a list in which all are required.
ALTERNATIVES = re.compile(r"Error: Missing required child ORM_O01_OBRRQDRQ1RXOODSODT_SUPPGRP\.(RQD|RQ1|RXO|ODS|ODT)$")
# It takes ED.5 for a string of 199 characters at most; in v2.5.1 it is text (TX) of up to 65536.
DOCUMENT = re.compile(r"(\^Base64\^)([A-Za-z0-9+/=]+)")


def complaints(body: bytes, report: Path) -> list[str]:
    """Errors and warnings (table values, lengths) of the independent judge."""
    text = DOCUMENT.sub(r"\1JVBERi0=", body.decode())
    parsed = parse_message(text, validation_level=VALIDATION_LEVEL.STRICT, find_groups=True)
    with suppress(ValidationError):  # the first one; the report has all of them
        Validator.validate(parsed, report_file=str(report))
    return [line for line in report.read_text().splitlines() if not ALTERNATIVES.match(line)]


@pytest.mark.parametrize("event", Event)
def test_every_kind_of_message_is_valid_hl7(event: Event, tmp_path: Path) -> None:
    some = islice((m for m in Hospital(5).messages() if m.kind == event), 3)
    assert [complaints(message.body, tmp_path / "report") for message in some] == [[], [], []]


def test_a_load_message_is_valid_hl7(tmp_path: Path) -> None:
    # of this size because hl7apy takes TX for a string of 199 characters at most
    assert complaints(next(load(1, 700)).body, tmp_path / "report") == []


def test_a_message_says_about_itself_what_its_body_says() -> None:
    for message in islice(Hospital(5).messages(), 200):
        header = Header.of(message.body)
        assert header.message_type.startswith(message.kind.encode())
        assert header.control_id == message.control_id.encode()
        assert len(header.control_id) <= 20
        assert header.sending_facility == b"EXAMPLE HOSPITAL"
        assert message.body.endswith(b"\r")
        assert b"\n" not in message.body


def test_the_same_seed_gives_the_same_bytes_and_another_gives_other_control_ids() -> None:
    def first(seed: int) -> list[Message]:
        return list(islice(Hospital(seed).messages(), 300))

    assert first(1) == first(1)
    ids = [message.control_id for seed in (1, 2, 3) for message in first(seed)]
    assert len(set(ids)) == len(ids)


def test_a_system_tells_alone_what_it_tells_among_the_others() -> None:
    together = list(islice(Hospital(9).messages(), 400))
    for system in System:
        mine = [message for message in together if message.control_id.startswith(system.name[:3])]
        assert mine
        assert list(islice(Hospital(9).messages(system), len(mine))) == mine


def test_all_systems_speak_of_the_same_person_by_the_same_number_and_name() -> None:
    name_of: dict[bytes, bytes] = {}
    systems_of: dict[bytes, set[bytes]] = {}
    for message in islice(Hospital(4).messages(), 500):
        number, name = FieldPath.parse("PID-3.1").read(message.body), FieldPath.parse("PID-5.1").read(message.body)
        assert name_of.setdefault(number, name) == name
        systems_of.setdefault(number, set()).add(Header.of(message.body).sending_application)
    assert {b"ADTSYS", b"LABSYS", b"SCHEDSYS", b"DOCSYS"} in systems_of.values()


def test_a_document_message_carries_a_pdf() -> None:
    message = next(m for m in Hospital(2).messages(System.DOCUMENTS))
    encoded = DOCUMENT.search(message.body.decode())[2]
    document = base64.b64decode(encoded, validate=True)
    assert document.startswith(b"%PDF-")
    assert document.endswith(b"%%EOF\n")
    assert 4_000 < len(encoded) < 8_000


@pytest.mark.parametrize("codec", CHARSETS)
def test_msh_18_names_the_character_set_that_the_names_are_written_in(codec: str) -> None:
    messages = list(islice(Hospital(6, codec=codec).messages(), 200))
    assert {codec_of(Header.of(message.body), None) for message in messages} == {codec}
    text = "".join(message.body.decode(codec) for message in messages)
    assert "CÉLINE" in text


@pytest.mark.parametrize("lanes", [1, 2, 3, 4, 9])
def test_no_system_speaks_on_two_connections(lanes: int) -> None:
    speaking: dict[tuple[bytes, bytes], int] = {}
    ids: set[str] = set()
    for lane, feed in enumerate(feeds(1, lanes)):
        for message in islice(feed, 60):
            header = Header.of(message.body)
            speaker = (header.sending_application, header.sending_facility)
            assert speaking.setdefault(speaker, lane) == lane
            assert message.control_id not in ids
            ids.add(message.control_id)
    assert len(speaking) == max(lanes, len(System))


@pytest.mark.parametrize("size_bytes", [700, 1024, 100_000])
def test_load_messages_have_the_size_asked_for_and_unique_ids(size_bytes: int) -> None:
    messages = list(islice(load(1, size_bytes), 50))
    assert {len(message.body) for message in messages} == {size_bytes}
    assert len({Header.of(message.body).control_id for message in messages}) == 50
    assert all(Header.of(message.body).control_id == message.control_id.encode() for message in messages)


def test_a_load_message_cannot_be_smaller_than_an_admission() -> None:
    with pytest.raises(ValueError, match="100 bytes are too few: an admission takes 5"):
        load(1, 100)
