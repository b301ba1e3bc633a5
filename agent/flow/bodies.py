"""What of a stored message the server gets to read.

Secret: the content type and the text that each content of a message has on the wire (PROTOCOL §3).
Promise: the text depends on the bytes as they were received and on the channel as it is now; what the channel's present
encoding cannot read raises PeerError and nothing else.
"""

from __future__ import annotations

from typing import Final, assert_never

from agent.errors import PeerError
from agent.protocol import astm, bytestream, dicomjson
from agent.protocol.hl7 import Header, with_sequence_number
from agent.protocol.text import decode
from agent.spec import Astm, ByteStream, ChannelSpec
from agent.store.row import Content, Row

HL7_V2: Final = "x-application/hl7-v2+er7"
CONTENT_TYPES: Final = {
    Content.HL7: HL7_V2,
    Content.BYTES: "application/octet-stream",
    Content.ASTM: "x-application/astm-e1394",
    Content.DICOM: "application/json",
}


def body_text(row: Row, spec: ChannelSpec | None, reference: str | None) -> str:
    """The body of a transmit request. `reference`: the Binary that a DICOM object was uploaded as."""
    match row.content:
        case Content.HL7:
            return _hl7(row, spec)
        case Content.BYTES:
            wire = spec.wire if spec is not None else None
            return text_of_bytes(row.body, wire if isinstance(wire, ByteStream) else ByteStream(end=0))
        case Content.ASTM:
            wire = spec.wire if spec is not None else None
            return text_of_records(row.body, wire if isinstance(wire, Astm) else Astm())
        case Content.DICOM:
            return dicomjson.transmit_body(row.body, reference or "")
        case _ as never:
            assert_never(never)


def text_of_bytes(body: bytes, wire: ByteStream) -> str:
    """Raises PeerError where its charset cannot read them."""
    return bytestream.body_of(
        body,
        strip=wire.strip,
        strip_controls=wire.strip_controls,
        keep_controls=wire.keep_controls,
        codec=wire.body_codec,
    )


def text_of_records(body: bytes, wire: Astm) -> str:
    """Raises PeerError where the channel's charset cannot read them."""
    try:
        return body.decode(wire.codec)
    except UnicodeDecodeError as error:
        text = f"a byte of the records is no {wire.codec}"
        raise PeerError(text, hint="name the analyser's charset with encoding= on the channel") from error


def _hl7(row: Row, spec: ChannelSpec | None) -> str:
    header = row.header or Header.of(row.body)
    encoding, fallback = (spec.encoding, spec.fallback_charset) if spec is not None else (None, None)
    text = row.text or decode(row.body, header, encoding, fallback).text
    if row.seq is not None:
        text = with_sequence_number(text.encode(), row.seq).decode()
    return text


def echo_of(row: Row, spec: ChannelSpec | None, body: str) -> bytes | None:
    """What of the server's answer goes back to a sender that knows no acknowledgement; None: nothing.

    Raises ValueError where the answer was meant for it and cannot be written in its bytes.
    """
    wire = spec.wire if spec is not None else None
    match wire:
        case ByteStream() if row.content is Content.BYTES and not wire.ignore_response and body:
            return bytestream.bytes_of(body, wire.body_codec)
        case Astm() if row.content is Content.ASTM and not wire.ignore_response and astm.is_records(body):
            return astm.normalized(body, wire.codec)
        case _:
            return None
