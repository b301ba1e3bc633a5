"""Read and write the few parts of an HL7 v2 message that a carrier needs.

Secret: delimiters, segments, MSH and acknowledgements (HL7 v2.5.1 §2.5 to §2.9, §2.15), and how to reach a
field without parsing the message. Promise: bytes that are not asked about are neither decoded nor changed, and
no text that goes into an acknowledgement can break its structure or its framing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

from agent.errors import PeerError
from agent.protocol.charset import write

STANDARD_SEPARATOR = b"|"
STANDARD_ENCODING_CHARACTERS = b"^~\\&"
STANDARD_VERSION = b"2.5.1"

# §2.5.4 leaves the delimiters to the sender. A letter, a blank or a control there is a sign of plain text.
DELIMITERS = frozenset(bytes((char,)) for char in b"!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
_WITHOUT_STRUCTURES = frozenset((b"2.1", b"2.2", b"2.3"))  # MSH-9.3 came with v2.3.1
_ACK_CODES = frozenset((b"AA", b"AE", b"AR", b"CA", b"CE", b"CR"))
_LINK_OR_MERGE = frozenset(b"A18 A24 A30 A34 A35 A36 A37 A39 A40 A41 A42 A43 A44 A45 A46 A47 A49 A50 A51".split())
_LINE_END = re.compile(r"[\r\n]")
_ERRORS = {  # table 0357
    "100": "Segment sequence error",
    "101": "Required field missing",
    "102": "Data type error",
    "103": "Table value not found",
    "200": "Unsupported message type",
    "201": "Unsupported event code",
    "202": "Unsupported processing id",
    "203": "Unsupported version id",
    "204": "Unknown key identifier",
    "205": "Duplicate key identifier",
    "206": "Application record locked",
    "207": "Application internal error",
}


class NotHl7(PeerError):
    """No readable MSH: nobody can tell what the message is, or answer it by name. `hint` says what to change."""


class _Field:
    """One field of MSH, picked from the split segment when asked for."""

    __slots__ = ("index",)

    def __init__(self, number: int) -> None:
        self.index = number - 1  # MSH-1 is the separator itself, so MSH-n is piece n-1 of the split

    def __get__(self, header: Header, owner: type[Header]) -> bytes:
        fields = header.fields
        return fields[self.index] if len(fields) > self.index else b""


class Header:
    """What MSH says, as the bytes that were sent; a field that is missing is empty.

    `fields` is the segment split once at its separator: `fields[n - 1]` is MSH-n, for n from 2. `transcoded`: the
    Python codec of a sender whose MSH could not be split by bytes; its fields are UTF-8 then. Empty: they are as sent.
    """

    __slots__ = ("control_id", "encoding_characters", "fields", "message_type", "separator", "transcoded")

    sending_application = _Field(3)
    sending_facility = _Field(4)
    receiving_application = _Field(5)
    receiving_facility = _Field(6)
    processing_id = _Field(11)
    version = _Field(12)
    sequence_number = _Field(13)
    accept_ack = _Field(15)  # when the sender wants a commit acknowledgement (table 0155)
    application_ack = _Field(16)  # when the sender wants an application acknowledgement (table 0155)
    charset = _Field(18)  # with all its repetitions (table 0211)

    def __init__(self, fields: list[bytes], separator: bytes, transcoded: str = "") -> None:
        self.fields = fields
        self.separator = separator
        self.transcoded = transcoded
        self.encoding_characters = fields[1]
        self.message_type = fields[8] if len(fields) > 8 else b""
        self.control_id = fields[9] if len(fields) > 9 else b""

    @classmethod
    def of(cls, message: bytes) -> Self:
        """Read the first segment, which ends in CR, LF or CRLF. Raises NotHl7.

        Nothing may stand before MSH, not even a line end or a byte order mark: a server refuses such a message
        later, when its sender has gone.
        """
        separator = message[3:4]
        if message[:3] != b"MSH" or separator not in DELIMITERS:
            raise NotHl7("the message does not begin with an MSH segment", hint=_why_no_header(message))
        fields = message[: _segment_end(message, 4)].split(separator)
        if not fields[1]:
            raise NotHl7(
                "the MSH segment is too short: it names no encoding characters",
                hint="let the sender fill MSH-2, usually with ^~\\&",
            )
        return cls(fields, separator)

    @classmethod
    def of_text(cls, text: str, codec: str) -> Self:
        """Read the first segment of a decoded message that came in `codec`. Raises NotHl7.

        For sets in which a part of a character may look like a delimiter (`reads_by_bytes`).
        """
        end = _LINE_END.search(text, 4)
        header = cls.of((text[: end.start()] if end else text).encode("utf-8", "replace"))
        header.transcoded = codec
        return header

    @property
    def code(self) -> bytes:
        """MSH-9.1, as ADT."""
        return self.message_type.split(self.encoding_characters[:1], 1)[0]

    @property
    def trigger(self) -> bytes:
        """MSH-9.2, as A01."""
        return _piece(self.message_type, self.encoding_characters[:1], 2)


def build_ack(
    header: Header | None,
    code: str,
    *,
    text: str = "",
    control_id: bytes,
    when: str,
    encoding: str = "utf-8",
    error: str = "",
) -> bytes:
    """The acknowledgement of a message, every segment ended by CR, in the message's delimiters, version and codec.

    `code`: MSA-1 (table 0008). `text`: MSA-3, escaped here. `control_id`: MSH-10 of the acknowledgement itself.
    `when`: MSH-7, an HL7 time stamp. `encoding`: Python codec of the text, a superset of ASCII as `codec_for`
    gives it; a transcoded header has its own. `error`: a code of table 0357 adds an ERR segment (§2.15.5). Without a
    header the answer goes to nobody by name, in standard delimiters, and MSA-2 is empty.
    """
    transcoded = header.transcoded if header is not None else ""
    if transcoded:
        encoding = "utf-8"
    if header is None:
        separator, encoding_characters = STANDARD_SEPARATOR, STANDARD_ENCODING_CHARACTERS
        message_type, acknowledged, fields = b"ACK", b"", [b""] * 18
    else:
        separator, encoding_characters = header.separator, header.encoding_characters
        message_type, acknowledged, fields = b"ACK", header.control_id, header.fields
        if len(fields) < 18:
            fields = fields + [b""] * (18 - len(fields))
        if trigger := header.trigger:
            structure = () if fields[11] in _WITHOUT_STRUCTURES else (b"ACK",)
            message_type = encoding_characters[:1].join((b"ACK", trigger, *structure))
    version = fields[11] or STANDARD_VERSION
    msh = [b"MSH", encoding_characters, fields[4], fields[5], fields[2], fields[3], when.encode(), b""]
    msh += (message_type, control_id, fields[10] or b"P", version)
    if fields[17]:
        msh += (b"", b"", b"", b"", b"", fields[17])
    explanation = _escape(text, separator + encoding_characters[:5], encoding) if text else b""
    segments = [
        separator.join(msh).rstrip(b"\x1c"),  # an echoed field that ends in 0x1C would end the frame with its CR
        separator.join((b"MSA", code.encode(), acknowledged, explanation)),
    ]
    if error:
        segments.append(_err(separator, encoding_characters, version, error, explanation))
    segments.append(b"")
    acknowledgement = b"\r".join(segments)
    return write(acknowledgement.decode("utf-8", "replace"), transcoded) if transcoded else acknowledgement


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """MSA-1 (AA, AE, AR, CA, CE or CR), MSA-2 and MSA-3 as they were sent, escapes and all."""

    code: str
    control_id: bytes
    text: bytes


def read_ack(message: bytes) -> Acknowledgement | None:
    """MSA-1 to MSA-3 of a message, None if it is no acknowledgement. Takes any bytes without raising."""
    separator = message[3:4]
    if message[:3] != b"MSH" or separator not in DELIMITERS:
        return None
    fields = _find_segment(message, b"MSA" + separator).split(separator, 4)
    if len(fields) < 2 or fields[1] not in _ACK_CODES:
        return None
    fields += (b"", b"")
    return Acknowledgement(fields[1].decode(), fields[2], fields[3])


def normalize(message: bytes) -> bytes:
    """Every run of CR and LF becomes one CR, as the server expects; the same object if there is nothing to do."""
    if b"\n" not in message and b"\r\r" not in message:
        return message
    message = message.replace(b"\n", b"\r")
    while b"\r\r" in message:  # each pass halves the runs, so the whole stays linear
        message = message.replace(b"\r\r", b"\r")
    return message


def with_sequence_number(message: bytes, number: int) -> bytes:
    """The message with MSH-13 set to `number`, missing fields padded, all else untouched. Raises NotHl7."""
    header = Header.of(message)
    fields = header.fields + [b""] * (13 - len(header.fields))
    fields[12] = b"%d" % number
    return header.separator.join(fields) + message[_segment_end(message, 4) :]


def is_link_or_merge(header: Header) -> bool:
    """Whether an ADT message ties patients, accounts or visits together, or unties them (chapter 3)."""
    return header.code == b"ADT" and header.trigger in _LINK_OR_MERGE


_PATH = re.compile(r"([A-Z][A-Z0-9]{2})-([1-9]\d{0,2})(?:\.([1-9]\d{0,2})(?:\.([1-9]\d{0,2}))?)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class FieldPath:
    """A place in a message: first segment of that name, first repetition. Numbers from 1; component 0: all of it."""

    segment: bytes
    field: int
    component: int = 0
    subcomponent: int = 0

    @classmethod
    def parse(cls, spec: str) -> Self:
        """Read `SEG-field[.component[.subcomponent]]`, as PID-3.1. Raises ValueError with a sentence."""
        match = _PATH.fullmatch(spec)
        if match is None:
            raise ValueError(
                f"{spec!r} is no field path: write SEG-field[.component[.subcomponent]] counted from 1, as PID-3.1"
            )
        segment, *numbers = match.groups(default="0")
        path = cls(segment.encode(), *map(int, numbers))
        if path.segment == b"MSH" and path.field < 3 and path.component:
            raise ValueError(f"{spec!r} has no parts, as MSH-1 and MSH-2 are the delimiters: write MSH-{path.field}")
        return path

    def read(self, message: bytes) -> bytes:
        """The bytes at this place; empty where there are none, or no MSH that names the delimiters."""
        separator = message[3:4]
        if message[:3] != b"MSH" or separator not in DELIMITERS:
            return b""
        encoding_characters = message[4 : _segment_end(message, 4)].split(separator, 1)[0]
        if self.segment == b"MSH":
            if self.field < 3:
                return separator if self.field == 1 else encoding_characters
            segment, index = message[: _segment_end(message, 4)], self.field - 1
        else:
            segment, index = _find_segment(message, self.segment + separator), self.field
        fields = segment.split(separator, index + 1)
        if len(fields) <= index:
            return b""
        value = _piece(fields[index], encoding_characters[1:2], 1)
        if self.component:
            value = _piece(value, encoding_characters[:1], self.component)
        if self.subcomponent:
            value = _piece(value, encoding_characters[3:4], self.subcomponent)
        return value


@dataclass(frozen=True, slots=True)
class KeySpec:
    """What keeps messages in order among themselves: equal values at these places. `text` is the spec as written."""

    text: str
    paths: tuple[FieldPath, ...]

    @classmethod
    def parse(cls, spec: str) -> Self:
        """Read field paths between commas, as `MSH-4,MSH-9.2`. Raises ValueError if any of them is malformed."""
        return cls(spec, tuple(FieldPath.parse(part.strip()) for part in spec.split(",")))

    def read(self, message: bytes) -> bytes:
        """The key: different values give different keys; a message that has none of them has the empty key."""
        values = [path.read(message) for path in self.paths]
        if len(values) == 1:
            return values[0]
        if not any(values):
            return b""
        # 0x1F joins; inside a value it is escaped, so that no two patients ever share a key by accident.
        return b"\x1f".join(value.replace(b"\x1e", b"\x1e0").replace(b"\x1f", b"\x1e1") for value in values)


def _segment_end(message: bytes, start: int) -> int:
    """Where the segment ends that `start` lies in: the next CR or LF, else the end of the message."""
    end = message.find(b"\r", start)
    if end < 0:
        end = len(message)
    newline = message.find(b"\n", start, end)
    return end if newline < 0 else newline


def _find_segment(message: bytes, opening: bytes) -> bytes:
    """The first segment that begins with `opening` (name and separator), without its end; empty if none does."""
    start = message.find(opening, 4)
    while start >= 0:
        if message[start - 1] in b"\r\n":
            return message[start : _segment_end(message, start)]
        start = message.find(opening, start + 1)
    return b""


def _piece(value: bytes, delimiter: bytes, number: int) -> bytes:
    """Piece `number`, from 1, of a value; a delimiter that the message does not have divides nothing."""
    pieces = value.split(delimiter, number) if delimiter else [value]
    return pieces[number - 1] if len(pieces) >= number else b""


def _why_no_header(message: bytes) -> str:
    """The remedy for bytes that should have been MSH, told from their kind and without quoting them."""
    if not message:
        return "let the sender leave out empty frames"
    if message.startswith(b"\xef\xbb\xbf"):
        return "let the sender leave out the byte order mark before MSH"
    if message[:2] in (b"\xff\xfe", b"\xfe\xff") or message[:4] in (b"M\0S\0", b"\0M\0S"):
        return "let the sender write UTF-8 or an 8-bit character set: UTF-16 cannot travel in MLLP"
    if message.startswith((b"FHS", b"BHS")):
        return "let the sender send single messages instead of a batch"
    if message.startswith(b"MSH"):
        return "let the sender put its field separator, usually |, right behind MSH"
    if message[:64].lstrip().startswith(b"MSH"):
        return "let the sender leave out the blanks or line ends before MSH"
    return "let the sender begin each message with MSH, or give it a channel for the protocol that it speaks"


def _escape(text: str, delimiters: bytes, encoding: str) -> bytes:
    """Text for a field (§2.7): delimiters as escape sequences, or as blanks if there is no escape character."""
    escaped = text.translate(_escapes(delimiters))
    if not escaped.isascii():
        # Part of a character may look like a delimiter (Big5, Shift JIS) or switch the character set (ISO 2022).
        harmful = frozenset(delimiters + bytes(range(0x20)))
        escaped = "".join(
            "?" if not char.isascii() and harmful.intersection(char.encode(encoding, "replace")) else char
            for char in escaped
        )
    return escaped.encode(encoding, "replace")


@lru_cache(maxsize=64)  # dialects are few, and a sender that invents some must not fill the memory
def _escapes(delimiters: bytes) -> dict[int, str]:
    """Translation table: controls to blanks, each delimiter to its sequence. `delimiters`: MSH-1 and MSH-2."""
    table = dict.fromkeys((*range(0x20), 0x7F), " ")
    escape = delimiters[3:4]
    usable = escape in DELIMITERS and delimiters.count(escape) == 1
    for delimiter, letter in zip(delimiters, "FSRETP", strict=False):
        if bytes((delimiter,)) in DELIMITERS:
            table.setdefault(delimiter, f"{escape.decode()}{letter}{escape.decode()}" if usable else " ")
    return table


def _err(separator: bytes, encoding_characters: bytes, version: bytes, error: str, text: bytes) -> bytes:
    """ERR: since version 2.5 code, severity and sentence in ERR-3, 4 and 8; before, the code in ERR-1.4."""
    code, name = error.encode(), _ERRORS.get(error, "").encode()
    component, subcomponent = encoding_characters[:1], encoding_characters[3:4]
    if version < b"2.5":
        coded = subcomponent.join((code, name, b"HL70357")) if subcomponent else code
        return separator.join((b"ERR", component * 3 + coded))
    coded = component.join((code, name, b"HL70357"))
    return separator.join((b"ERR", b"", b"", coded, b"E", b"", b"", b"", text))
