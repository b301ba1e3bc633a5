"""What is agreed on with a DICOM peer, and what comes of requests that are none."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGLosslessSV1
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RJ

from agent.net.dicomterms import APPLICATION_CONTEXT, VERIFICATION, Rejection, Terms, negotiate
from agent.protocol.dicomlink import OFFERED_PDU_BYTES, Unintelligible
from agent.spec import Dicom

STORAGE_COMMITMENT = "1.2.840.10008.1.20.1"


def item(kind: int, content: bytes) -> bytes:
    return bytes((kind, 0)) + len(content).to_bytes(2, "big") + content


def context(number: int, abstract: str, *syntaxes: str) -> bytes:
    inside = item(0x30, abstract.encode()) + b"".join(item(0x40, syntax.encode()) for syntax in syntaxes)
    return item(0x20, bytes((number, 0, 0, 0)) + inside)


def request(
    *contexts: bytes,
    called: bytes = b"PACS",
    calling: bytes = b"CT1",
    version: int = 1,
    application: str = APPLICATION_CONTEXT,
    peer_pdu_bytes: int = 16_384,
) -> bytes:
    """The content of an A-ASSOCIATE-RQ (PS3.8 §9.3.2)."""
    user = item(0x51, peer_pdu_bytes.to_bytes(4, "big")) + item(0x52, b"1.2.3")
    titles = called.ljust(16) + calling.ljust(16)
    head = version.to_bytes(2, "big") + bytes(2) + titles + bytes(32)
    return head + item(0x10, application.encode()) + b"".join(contexts) + item(0x50, user)


CT = context(1, CTImageStorage, JPEGLosslessSV1, ExplicitVRLittleEndian)


def agreed(content: bytes, wire: Dicom | None = None) -> Terms:
    terms = negotiate(content, wire or Dicom())
    assert isinstance(terms, Terms)
    return terms


def reason(content: bytes, wire: Dicom | None = None) -> tuple[str, str, str]:
    terms = negotiate(content, wire or Dicom())
    assert isinstance(terms, Rejection)
    answer = A_ASSOCIATE_RJ()
    answer.decode(terms.answer)
    return answer.result_str, answer.source_str, answer.reason_str


def test_the_first_transfer_syntax_of_each_context_is_agreed_on() -> None:
    terms = agreed(request(CT, context(3, VERIFICATION, ImplicitVRLittleEndian)))
    assert (terms.calling_ae_title, terms.called_ae_title, terms.peer_pdu_bytes) == ("CT1", "PACS", 16_384)
    assert terms.contexts == {1: (CTImageStorage, JPEGLosslessSV1), 3: (VERIFICATION, ImplicitVRLittleEndian)}


def test_the_answer_repeats_the_contexts_and_says_what_we_take() -> None:
    answer = A_ASSOCIATE_AC()
    answer.decode(agreed(request(CT, context(3, STORAGE_COMMITMENT, ImplicitVRLittleEndian))).acceptance)
    assert [(each.context_id, each.result) for each in answer.presentation_context] == [(1, 0), (3, 3)]
    assert answer.presentation_context[0].transfer_syntax == JPEGLosslessSV1
    assert answer.user_information is not None
    assert answer.user_information.maximum_length == OFFERED_PDU_BYTES
    assert (answer.called_ae_title, answer.calling_ae_title) == ("PACS", "CT1")


@pytest.mark.parametrize("abstract", ["1.2.276.0.99999.1", "1.2.840.10008.5.1.4.1.1.99999", "1.02.no-uid"])
def test_a_class_that_nobody_has_heard_of_is_taken_for_storage(abstract: str) -> None:
    assert agreed(request(context(1, abstract, ImplicitVRLittleEndian))).contexts[1][0] == abstract


def test_a_context_without_a_transfer_syntax_is_turned_down_by_itself() -> None:
    assert set(
        agreed(request(context(1, CTImageStorage), context(3, CTImageStorage, "1.2.840.10008.1.2"))).contexts
    ) == {3}


def test_titles_are_compared_whole_and_without_their_filling() -> None:
    wire = Dicom(ae_title="PACS", calling=("CT1", "CT2"))
    assert agreed(request(CT), wire).calling_ae_title == "CT1"
    assert reason(request(CT, called=b"PAC"), wire)[2] == "Called AE title not recognised"
    assert reason(request(CT, called=b"pacs"), wire)[2] == "Called AE title not recognised"
    assert reason(request(CT, calling=b"CT10"), wire)[2] == "Calling AE title not recognised"


def test_other_versions_and_applications_are_rejected_for_good() -> None:
    result, source, why = reason(request(CT, version=2))
    assert (result, why) == ("Rejected (Permanent)", "Protocol version not supported")
    assert source == "DUL service-provider (ACSE related)"
    assert reason(request(CT, application="1.2.3"))[2] == "Application context name not supported"


@given(st.binary(max_size=200))
@example(b"")
@example(request(CT)[:-1])
@example(request(CT, calling=b"\xff\xff"))
@example(request(CT, called=b""))
def test_whatever_comes_is_answered_or_unintelligible(content: bytes) -> None:
    try:
        terms = negotiate(content, Dicom())
    except Unintelligible:
        return
    assert isinstance(terms, Terms | Rejection)


@given(st.integers(0, 200), st.binary(min_size=1, max_size=4))
def test_however_a_request_is_damaged_it_is_answered_or_unintelligible(at: int, damage: bytes) -> None:
    content = bytearray(request(CT, context(3, VERIFICATION, ImplicitVRLittleEndian)))
    content[at : at + len(damage)] = damage
    try:
        terms = negotiate(bytes(content), Dicom())
    except Unintelligible:
        return
    assert isinstance(terms, Terms | Rejection)
