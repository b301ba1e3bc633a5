"""Agree with a DICOM peer on what may be sent.

Secret: association requests and their answers (PS3.8 §9.3.2 and §9.3.3), through pynetdicom; which SOP classes are for
storage.
Promise: everything that can be stored is agreed on, private and future SOP classes too, in the transfer syntax that
the peer named first; what is no storage and no C-ECHO is turned down by itself, and the rest of the association stands.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final, cast

from pydicom import config
from pydicom.uid import UID
from pynetdicom import sop_class
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
)
from pynetdicom.presentation import AllStoragePresentationContexts, PresentationContext

from agent.protocol.dicomjson import IMPLEMENTATION_NAME, IMPLEMENTATION_UID
from agent.protocol.dicomlink import INVALID_PARAMETER, OFFERED_PDU_BYTES, Pdu, Unintelligible, pdu, rejected
from agent.spec import Dicom

VERIFICATION: Final = "1.2.840.10008.1.1"
APPLICATION_CONTEXT: Final = "1.2.840.10008.3.1.1.1"
_STORAGE: Final = frozenset(str(context.abstract_syntax) for context in AllStoragePresentationContexts)
_ACCEPTED, _NO_REASON, _CLASS_NOT_SUPPORTED = 0, 2, 3  # PS3.8 table 9-18

config.settings.reading_validation_mode = config.IGNORE  # it warns on the console, with what peers sent
for _name in ("pynetdicom", "pydicom"):
    # what these say holds names and values of peers, and the console is nobody's log
    logging.getLogger(_name).propagate = False
    logging.getLogger(_name).addHandler(logging.NullHandler())

TOO_MANY: Final = rejected(2, 3, 2)  # for now: local limit exceeded


@dataclass(frozen=True, slots=True)
class Terms:
    """What was agreed. `contexts`: by their number, SOP class and transfer syntax. `peer_pdu_bytes`: the longest PDU
    that the peer takes, 0 for any."""

    calling_ae_title: str
    called_ae_title: str
    contexts: dict[int, tuple[str, str]]
    peer_pdu_bytes: int
    acceptance: bytes


@dataclass(frozen=True, slots=True)
class Rejection:
    """There is no association. `answer`: the A-ASSOCIATE-RJ; `unknown_title`: for the AE titles."""

    answer: bytes
    unknown_title: bool


def negotiate(content: bytes, wire: Dicom) -> Terms | Rejection:
    """Answer an association request; `content`: of its PDU. Raises Unintelligible."""
    try:
        request = A_ASSOCIATE_RQ()
        request.decode(pdu(Pdu.ASSOCIATE_RQ, content))
        calling, called = request.calling_ae_title.strip(), request.called_ae_title.strip()
        application = str(request.application_context_name)
        proposed = [
            (
                cast("int", context.context_id),
                str(context.abstract_syntax),
                [str(syntax) for syntax in context.transfer_syntax],
            )
            for context in request.presentation_context
        ]
        user = request.user_information
        peer_pdu_bytes = cast("int", user.maximum_length) if user is not None else 0
    except Exception as error:  # no list of what the library raises on other bytes is complete
        raise Unintelligible("an association request that cannot be read", reason=INVALID_PARAMETER) from error
    if not request.protocol_version & 1:
        return Rejection(rejected(1, 2, 2), unknown_title=False)
    if application != APPLICATION_CONTEXT:
        return Rejection(rejected(1, 1, 2), unknown_title=False)
    if wire.calling and calling not in wire.calling:
        return Rejection(rejected(1, 1, 3), unknown_title=True)
    if wire.ae_title is not None and called != wire.ae_title:
        return Rejection(rejected(1, 1, 7), unknown_title=True)
    try:
        results = [_result(*context) for context in proposed]
        acceptance = _accept(calling, called, results)
    except Exception as error:
        raise Unintelligible("an association request that cannot be answered", reason=INVALID_PARAMETER) from error
    agreed = {
        number: (abstract, syntaxes[0])
        for (number, abstract, syntaxes), result in zip(proposed, results, strict=True)
        if result.result == _ACCEPTED
    }
    return Terms(calling, called, agreed, peer_pdu_bytes, acceptance)


def _result(number: int, abstract: str, syntaxes: list[str]) -> PresentationContext:
    result = PresentationContext()
    result.context_id = number
    result.abstract_syntax = UID(abstract)
    result.transfer_syntax = [UID(syntaxes[0])] if syntaxes else [UID("1.2.840.10008.1.2")]
    if not syntaxes:
        result.result = _NO_REASON
    else:
        result.result = _ACCEPTED if abstract == VERIFICATION or _is_storage(abstract) else _CLASS_NOT_SUPPORTED
    return result


def _is_storage(abstract: str) -> bool:
    """Whether objects of this class can be kept; a class that nobody has heard of is taken for one of storage."""
    uid = UID(abstract)
    return abstract in _STORAGE or uid.is_private or not hasattr(sop_class, uid.keyword or "-")


def _accept(calling: str, called: str, results: list[PresentationContext]) -> bytes:
    primitive = A_ASSOCIATE()
    primitive.application_context_name = UID(APPLICATION_CONTEXT)
    primitive.calling_ae_title, primitive.called_ae_title = calling, called
    primitive.result, primitive.result_source = 0, 1
    primitive.presentation_context_definition_results_list = results
    length, class_uid, version = (
        MaximumLengthNotification(),
        ImplementationClassUIDNotification(),
        ImplementationVersionNameNotification(),
    )
    length.maximum_length_received = OFFERED_PDU_BYTES
    class_uid.implementation_class_uid = UID(IMPLEMENTATION_UID)
    version.implementation_version_name = IMPLEMENTATION_NAME
    primitive.user_information = [length, class_uid, version]
    acceptance = A_ASSOCIATE_AC()
    acceptance.from_primitive(primitive)
    return acceptance.encode()
