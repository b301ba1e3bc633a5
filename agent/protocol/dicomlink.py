"""Read and write what travels on a DICOM association once it stands.

Secret: PDUs and the values in them (PS3.8 §9.3), and command sets, which are always implicit VR little endian (PS3.7
§6.3.1).
Promise: bytes that are no such thing raise Unintelligible, and nothing else; no length that a peer names is believed
beyond MAX_PDU_BYTES.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from agent.errors import PeerError

MAX_PDU_BYTES: Final = 1_048_576  # of any PDU: association requests may be long, and some senders overrun
OFFERED_PDU_BYTES: Final = 65_536  # what we ask senders to keep to
HEAD_BYTES: Final = 6

C_STORE, C_ECHO, C_CANCEL = 0x0001, 0x0030, 0x0FFF
RESPONSE: Final = 0x8000

SUCCESS: Final = 0x0000
CLASS_NOT_SUPPORTED: Final = 0x0122  # PS3.7 annex C.5.6
UNRECOGNIZED_OPERATION: Final = 0x0211
OUT_OF_RESOURCES: Final = 0xA700  # PS3.4 table B.2-1
CANNOT_UNDERSTAND: Final = 0xC000

_COMMENT_CHARS: Final = 64  # of a value of VR LO
_NO_DATA_SET: Final = 0x0101
_PDU = struct.Struct(">BBL")
_ELEMENT = struct.Struct("<HHL")


class Unintelligible(PeerError):
    """The peer does not speak DICOM, or not as agreed. `reason`: for an A-ABORT (PS3.8 table 9-26)."""

    def __init__(self, text: str, *, reason: int) -> None:
        super().__init__(text, hint="check what is connected to this port, and its version")
        self.reason = reason


class Pdu(IntEnum):
    """Types of PDUs."""

    ASSOCIATE_RQ = 1
    ASSOCIATE_AC = 2
    ASSOCIATE_RJ = 3
    P_DATA = 4
    RELEASE_RQ = 5
    RELEASE_RP = 6
    ABORT = 7


UNRECOGNIZED_PDU, UNEXPECTED_PDU, INVALID_PARAMETER = 1, 2, 6  # reasons of an abort


@dataclass(frozen=True, slots=True)
class Fragment:
    """A piece of a command or of a data set. `last`: of it."""

    context: int
    command: bool
    last: bool
    data: memoryview


@dataclass(frozen=True, slots=True)
class Command:
    """A request of the peer. `field`: C_STORE, C_ECHO or another; UIDs are empty where there are none."""

    field: int
    message_id: int
    sop_class_uid: str
    sop_instance_uid: str
    has_data_set: bool


def take_pdu(buffer: bytearray) -> tuple[Pdu, bytes] | None:
    """Take the first PDU out of what came: its type and its content; None while it is not all there."""
    if not buffer:
        return None
    if not 1 <= buffer[0] <= 7:
        raise Unintelligible("the first byte is of no PDU", reason=UNRECOGNIZED_PDU)
    if len(buffer) < HEAD_BYTES:
        return None
    kind, _, length = _PDU.unpack_from(buffer)
    if length > MAX_PDU_BYTES:
        raise Unintelligible(f"a PDU of {length} bytes", reason=INVALID_PARAMETER)
    if len(buffer) < HEAD_BYTES + length:
        return None
    content = bytes(memoryview(buffer)[HEAD_BYTES : HEAD_BYTES + length])
    del buffer[: HEAD_BYTES + length]
    return Pdu(kind), content


def fragments(content: bytes) -> Iterator[Fragment]:
    """The presentation data values of a P-DATA-TF PDU (PS3.8 §9.3.5)."""
    view = memoryview(content)
    at = 0
    while at < len(view):
        length = int.from_bytes(view[at : at + 4], "big")
        if length < 2 or at + 4 + length > len(view):
            raise Unintelligible("a data value does not fit its PDU", reason=INVALID_PARAMETER)
        control = view[at + 5]
        yield Fragment(view[at + 4], bool(control & 1), bool(control & 2), view[at + 6 : at + 4 + length])
        at += 4 + length


def read_command(data: bytes | bytearray) -> Command:
    """A whole command set."""
    elements: dict[int, bytes] = {}
    at = 0
    while at < len(data):
        if at + _ELEMENT.size > len(data):
            raise Unintelligible("a command set ends in the middle of an element", reason=INVALID_PARAMETER)
        group, element, length = _ELEMENT.unpack_from(data, at)
        at += _ELEMENT.size
        if group != 0 or at + length > len(data):
            raise Unintelligible("what should be a command set is none", reason=INVALID_PARAMETER)
        elements[element] = bytes(data[at : at + length])
        at += length
    field, message_id, data_set = (_number(elements, element) for element in (0x0100, 0x0110, 0x0800))
    if field is None or (message_id is None and field != C_CANCEL and not field & RESPONSE):
        raise Unintelligible("a command without its field or its number", reason=INVALID_PARAMETER)
    return Command(
        field,
        message_id or 0,
        _text(elements.get(0x0002) or elements.get(0x0003, b"")),  # affected, or requested
        _text(elements.get(0x1000) or elements.get(0x1001, b"")),
        data_set is not None and data_set != _NO_DATA_SET,
    )


def answer(command: Command, context: int, status: int, comment: str = "", *, peer_pdu_bytes: int = 0) -> bytes:
    """The response to a request as PDUs none of which is longer than the peer takes; 0: any length."""
    elements = _element(0x0002, _padded(command.sop_class_uid, b"\0")) if command.sop_class_uid else b""
    elements += _element(0x0100, struct.pack("<H", command.field | RESPONSE))
    elements += _element(0x0120, struct.pack("<H", command.message_id))
    elements += _element(0x0800, struct.pack("<H", _NO_DATA_SET))
    elements += _element(0x0900, struct.pack("<H", status))
    if comment:
        elements += _element(0x0902, _padded(comment[:_COMMENT_CHARS].replace("\\", "/"), b" "))
    if command.sop_instance_uid:
        elements += _element(0x1000, _padded(command.sop_instance_uid, b"\0"))
    elements = _element(0x0000, struct.pack("<L", len(elements))) + elements
    room = max(peer_pdu_bytes - 6, 8) if peer_pdu_bytes else len(elements)
    pdus = b""
    for at in range(0, len(elements), room):
        piece = elements[at : at + room]
        control = 3 if at + room >= len(elements) else 1
        pdus += pdu(Pdu.P_DATA, struct.pack(">LBB", len(piece) + 2, context, control) + piece)
    return pdus


def pdu(kind: Pdu, content: bytes) -> bytes:
    """One PDU."""
    return _PDU.pack(kind, 0, len(content)) + content


def abort(reason: int | None = None) -> bytes:
    """An A-ABORT: by us as a user, or by the provider with a reason (PS3.8 §9.3.8)."""
    return pdu(Pdu.ABORT, bytes((0, 0, 0 if reason is None else 2, reason or 0)))


def released() -> bytes:
    """An A-RELEASE-RP (PS3.8 §9.3.7)."""
    return pdu(Pdu.RELEASE_RP, bytes(4))


def rejected(result: int, source: int, reason: int) -> bytes:
    """An A-ASSOCIATE-RJ (PS3.8 §9.3.4)."""
    return pdu(Pdu.ASSOCIATE_RJ, bytes((0, result, source, reason)))


def _number(elements: dict[int, bytes], element: int) -> int | None:
    value = elements.get(element, b"")
    return int.from_bytes(value, "little") if len(value) == 2 else None


def _text(value: bytes) -> str:
    return value.decode("ascii", "replace").strip("\0 ")


def _padded(text: str, filler: bytes) -> bytes:
    value = text.encode("ascii", "replace")
    return value + filler if len(value) % 2 else value


def _element(element: int, value: bytes) -> bytes:
    return _ELEMENT.pack(0, element, len(value)) + value
