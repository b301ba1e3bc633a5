"""What travels on a DICOM association: read back by pynetdicom, and safe from whatever comes."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import decode, encode
from pynetdicom.pdu import A_ABORT_RQ, A_ASSOCIATE_RJ, A_RELEASE_RP, P_DATA_TF

from agent.protocol import dicomlink as link
from agent.protocol.dicomlink import Command, Pdu, Unintelligible

STORE = Command(link.C_STORE, 7, "1.2.840.10008.5.1.4.1.1.7", "1.2.3.4", has_data_set=True)


def fragments_of(pdus: bytes) -> list[link.Fragment]:
    buffer, found = bytearray(pdus), []
    while (taken := link.take_pdu(buffer)) is not None:
        assert taken[0] is Pdu.P_DATA
        found += list(link.fragments(taken[1]))
    assert not buffer
    return found


def test_pdus_are_taken_one_by_one_however_they_were_cut() -> None:
    buffer = bytearray()
    taken = []
    for byte in link.released() + link.pdu(Pdu.P_DATA, b"abc") + link.abort():
        buffer.append(byte)
        if (found := link.take_pdu(buffer)) is not None:
            taken.append(found)
    assert taken == [(Pdu.RELEASE_RP, bytes(4)), (Pdu.P_DATA, b"abc"), (Pdu.ABORT, bytes(4))]


def test_a_request_of_pynetdicom_is_read() -> None:
    request = C_STORE()
    request.MessageID, request.Priority = 7, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = STORE.sop_class_uid, STORE.sop_instance_uid
    request.DataSet = io.BytesIO(b"data")
    message = C_STORE_RQ()
    message.primitive_to_message(request)
    command = encode(message.command_set, True, True)
    assert command is not None
    assert link.read_command(command) == STORE


@pytest.mark.parametrize("peer_pdu_bytes", [0, 16_382, 32])
def test_an_answer_is_read_by_pynetdicom_in_pieces_that_it_takes(peer_pdu_bytes: int) -> None:
    pdus = link.answer(STORE, 3, 0xA700, "not stored: no space left", peer_pdu_bytes=peer_pdu_bytes)
    pieces = fragments_of(pdus)
    assert [piece.last for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert {(piece.context, piece.command) for piece in pieces} == {(3, True)}
    assert not peer_pdu_bytes or all(len(piece.data) + 6 <= peer_pdu_bytes for piece in pieces)
    answer = decode(io.BytesIO(b"".join(bytes(piece.data) for piece in pieces)), True, True)
    assert answer.CommandField == 0x8001
    assert answer.MessageIDBeingRespondedTo == 7
    assert answer.CommandDataSetType == 0x0101
    assert answer.Status == 0xA700
    assert answer.ErrorComment == "not stored: no space left"
    assert (answer.AffectedSOPClassUID, answer.AffectedSOPInstanceUID) == (STORE.sop_class_uid, STORE.sop_instance_uid)
    assert answer.CommandGroupLength == sum(len(piece.data) for piece in pieces) - 12


def test_rejection_release_and_abort_are_read_by_pynetdicom() -> None:
    rejection, release, abort = A_ASSOCIATE_RJ(), A_RELEASE_RP(), A_ABORT_RQ()
    rejection.decode(link.rejected(2, 3, 2))
    assert rejection.reason_str == "Local limit exceeded"
    release.decode(link.released())
    abort.decode(link.abort(link.UNEXPECTED_PDU))
    assert (abort.source, abort.reason_diagnostic) == (2, 2)
    abort.decode(link.abort())
    assert (abort.source, abort.reason_diagnostic) == (0, 0)
    data = P_DATA_TF()
    data.decode(link.answer(STORE, 1, 0))
    assert len(data.presentation_data_value_items) == 1


def test_a_length_that_nobody_sends_is_not_believed() -> None:
    with pytest.raises(Unintelligible):
        link.take_pdu(bytearray(b"\x04\0\xff\xff\xff\xff"))


@given(st.binary())
def test_whatever_comes_is_a_pdu_or_not_yet_or_unintelligible(data: bytes) -> None:
    buffer = bytearray(data)
    try:
        while (taken := link.take_pdu(buffer)) is not None:
            assert isinstance(taken[0], Pdu)
    except Unintelligible:
        pass


@given(st.binary())
def test_whatever_a_pdu_holds_is_fragments_or_unintelligible(data: bytes) -> None:
    try:
        found = list(link.fragments(data))
    except Unintelligible:
        return
    assert sum(len(piece.data) + 6 for piece in found) == len(data)


@given(
    st.binary()
    | st.lists(st.tuples(st.integers(0, 0xFFFF), st.binary(max_size=6))).map(
        lambda elements: b"".join(
            b"\0\0%b%b%b" % (tag.to_bytes(2, "little"), len(value).to_bytes(4, "little"), value)
            for tag, value in elements
        )
    )
)
def test_whatever_a_command_holds_it_is_read_or_unintelligible(data: bytes) -> None:
    try:
        command = link.read_command(data)
    except Unintelligible:
        return
    assert link.answer(command, 1, 0, "x" * 100)
