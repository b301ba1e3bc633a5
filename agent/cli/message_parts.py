"""A message taken apart into named values.

Secret: how bytes become values with a place and a name, and which of them a stranger may see.
Promise: any bytes can be looked at, and nothing of them is left out. What is masked keeps its length and its
punctuation; names, numbers and texts of a patient are nowhere in it, wherever a sender has put them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from string import punctuation
from typing import Final
from urllib.parse import parse_qsl

from agent.dictionary import (
    component_name,
    field_name,
    is_data_type,
    is_set_id,
    segment_name,
    subcomponent_name,
)
from agent.protocol.charset import UnknownCharset, codec_of, name_of, read
from agent.protocol.hl7 import Header, NotHl7

_HEADERS: Final = ("MSH", "FHS", "BHS")  # their field 1 is the separator itself
_SEGMENT: Final = re.compile(r"[A-Za-z][A-Za-z0-9]{2}", re.ASCII)
_VERSION: Final = re.compile(r"\d\.\d(\.\d)?", re.ASCII)
_LAST_MSH: Final = 25  # HL7 v2.8.2 §2.14.9
_MSH_SECURITY: Final = 8
_ACK_CODES: Final = frozenset(("AA", "AE", "AR", "CA", "CE", "CR"))
_ERR_CODED: Final = range(1, 6)  # ERR-1 to ERR-5 say where and what by codes; the rest is prose (§2.14.5)
_ERR_CODE: Final = re.compile(r"\d{1,4}|[EFIW]|HL7\d{4}", re.ASCII)
_SET_ID: Final = re.compile(r"\d{1,4}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Value:
    """One value: `path` as PID-3(2).1, the standard's name for the place or nothing, and the text as it stands."""

    path: str
    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment. A line that is none has no name, and one value that is the line."""

    name: str
    title: str
    fields: tuple[Value, ...]


def text_of(body: bytes, encoding: str | None = None) -> tuple[str, str]:
    """The text, and what it was read as. Bytes that the character set does not have are shown as \\xNN.

    `encoding` is that of a remote. A channel's own is not written in the spool: the message's MSH-18 decides, else it
    is UTF-8.
    """
    codec, why = "utf-8", ""
    teller = "MSH-18" if encoding is None or encoding.lower() == "auto" else "the remote's URL"
    try:
        header = Header.of(body)
        codec = codec_of(header, encoding)
        why = f", as {teller} says" if header.charset or teller != "MSH-18" else ", as MSH-18 says nothing"
    except UnknownCharset:
        why = f", as {teller} names no character set that is known"
    except NotHl7:
        pass
    return read(body, codec, "backslashreplace"), f"{name_of(codec)}{why}"


def encoding_of(url: str) -> str | None:
    """The character set that the URL of a remote names, if it does."""
    parameters = parse_qsl(url.partition("?")[2])
    return next((value for name, value in parameters if name == "encoding"), None)


def segments_of(text: str, *, mask: bool = False) -> list[Segment]:
    """The segments of a message with the names that its version gives them; `mask`: as a stranger may see them."""
    dialect = _Dialect.of(text)
    counted: Counter[str] = Counter()
    segments = []
    for line in filter(None, re.split(r"[\r\n]+", text)):
        name = line.split(dialect.field, 1)[0] if dialect.field else ""
        if _SEGMENT.fullmatch(name):
            counted[name] += 1
            segments.append(_segment(name, line, dialect, _masking(name, dialect, counted[name]) if mask else None))
        else:
            segments.append(Segment("", "not a segment", (Value("", "", masked(line) if mask else line),)))
    return segments


def masked(text: str) -> str:
    """Letters become x or X, digits 9; ASCII punctuation and blanks stay."""
    return "".join(map(_veil, text))


def _veil(char: str) -> str:
    if char.isascii() and not char.isalnum():
        return char
    return "9" if char.isnumeric() else "X" if char.isupper() else "x"


# ---- taking apart

_Masking = Callable[[int, str], str]  # field number and value → what may be shown


@dataclass(frozen=True, slots=True)
class _Dialect:
    """The delimiters of a message, each empty where it has none, and its version."""

    field: str = ""
    component: str = ""
    repetition: str = ""
    subcomponent: str = ""
    version: str = ""

    @classmethod
    def of(cls, text: str) -> _Dialect:
        head = re.split(r"[\r\n]", text, maxsplit=1)[0]
        if head[:3] != "MSH" or len(head) < 5 or head[3] not in punctuation:
            return cls()
        field = head[3]
        fields = head.split(field)
        characters = fields[1]
        component = characters[:1]
        version = fields[11] if len(fields) > 11 else ""
        return cls(
            field, component, characters[1:2], characters[3:4], version.split(component)[0] if component else version
        )


def _segment(name: str, line: str, dialect: _Dialect, masking: _Masking | None) -> Segment:
    is_header = name in _HEADERS
    fields = line.split(dialect.field)[1:]
    data_type = fields[1] if name == "OBX" and len(fields) > 1 else ""
    values = [Value(f"{name}-1", field_name(dialect.version, name, 1), dialect.field)] if is_header else []
    for number, field in enumerate(fields, 2 if is_header else 1):
        if is_header and number == 2:
            delimiters = field if masking is None else masked(field)
            values.append(Value(f"{name}-2", field_name(dialect.version, name, 2), delimiters))
            continue
        for path, title, value in _parts(name, number, field, dialect, data_type):
            values.append(Value(path, title, value if masking is None else masking(number, value)))
    title = segment_name(dialect.version, name)
    if masking is not None and not title and (name[0] != "Z" or not fields):
        name = masked(name)  # no segment of the standard's nor of a site's: a name that begins a line, perhaps
        values = [Value(f"{name}{value.path[3:]}", value.name, value.value) for value in values]
    return Segment(name, title, tuple(values))


def _parts(segment: str, number: int, field: str, dialect: _Dialect, data_type: str) -> Iterator[tuple[str, str, str]]:
    """(path, name, value) of everything in a field that is not empty, as deep as it is divided."""
    version = dialect.version
    repetitions = _split(field, dialect.repetition)
    for nth, repetition in enumerate(repetitions, 1):
        path = f"{segment}-{number}({nth})" if len(repetitions) > 1 else f"{segment}-{number}"
        components = _split(repetition, dialect.component)
        for c, component in enumerate(components, 1):
            subcomponents = _split(component, dialect.subcomponent)
            for s, value in enumerate(subcomponents, 1):
                if not value:
                    continue
                names = [field_name(version, segment, number)]
                place = path
                if len(components) > 1 or len(subcomponents) > 1:
                    place += f".{c}"
                    names.append(component_name(version, segment, number, c, data_type=data_type))
                if len(subcomponents) > 1:
                    place += f".{s}"
                    names.append(subcomponent_name(version, segment, number, c, s, data_type=data_type))
                yield place, " / ".join(filter(None, names)), value


def _split(text: str, delimiter: str) -> list[str]:
    return text.split(delimiter) if delimiter else [text]


# ---- what a stranger may see


def _masking(name: str, dialect: _Dialect, nth: int) -> _Masking:
    """What is left of the values of the `nth` segment of this name."""
    version = dialect.version

    def may_be_seen(number: int, value: str) -> bool:
        match name:
            case "MSH":
                # With line ends missing, the next segments stand behind MSH-12 and have run into it.
                return number != _MSH_SECURITY and (
                    number < 12 or (number <= _LAST_MSH and _VERSION.fullmatch(version) is not None)
                )
            case "MSA":
                return number == 2 or (number == 1 and value in _ACK_CODES)
            case "ERR":
                is_code = _ERR_CODE.fullmatch(value) is not None or segment_name(version, value) != ""
                return number in _ERR_CODED and is_code
            case "OBX" if number == 2:
                return is_data_type(version, value)
            case _:
                # a set id counts the segments, so what is greater is no set id but somebody's number
                return (
                    number == 1
                    and _SET_ID.fullmatch(value) is not None
                    and 1 <= int(value) <= nth
                    and is_set_id(version, name)
                )

    return lambda number, value: value if may_be_seen(number, value) else masked(value)
