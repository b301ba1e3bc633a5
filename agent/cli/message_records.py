"""The records of an analyser's session taken apart into named values.

Secret: what the fields of ASTM E1394 (CLSI LIS2-A2) are called, and which of them a stranger may see.
Promise: any bytes can be looked at, and nothing of them is left out. What is masked keeps its length and its
punctuation; names, numbers and results of a patient are nowhere in it, wherever an analyser has put them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from string import punctuation
from typing import Final

from agent.cli.message_parts import Segment, Value, masked
from agent.protocol.charset import UnknownCharset, codec_for, name_of, read

_TITLES: Final = {
    "H": "Message Header",
    "P": "Patient",
    "O": "Order",
    "R": "Result",
    "C": "Comment",
    "Q": "Query",
    "S": "Scientific",
    "M": "Manufacturer's Own",
    "L": "Terminator",
}
# By record, from field 2 on: field 1 is the letter of the record itself.
_NAMES: Final = {
    "H": (
        "Delimiters", "Message Control ID", "Access Password", "Sender", "Sender Address", "Reserved",
        "Sender Telephone", "Sender Characteristics", "Receiver", "Comment", "Processing ID", "Version",
        "Message Date/Time",
    ),
    "P": (
        "Sequence Number", "Patient ID, Practice", "Patient ID, Laboratory", "Patient ID, Third", "Patient Name",
        "Mother's Maiden Name", "Date of Birth", "Sex", "Race or Ethnic Origin", "Address", "Reserved", "Telephone",
        "Attending Physician", "Special Field 1", "Special Field 2", "Height", "Weight", "Diagnosis", "Medications",
        "Diet", "Practice Field 1", "Practice Field 2", "Admission and Discharge Dates", "Admission Status", "Location",
        "Alternative Diagnostic Code, Nature", "Alternative Diagnostic Code", "Religion", "Marital Status",
        "Isolation Status", "Language", "Hospital Service", "Hospital Institution", "Dosage Category",
    ),
    "O": (
        "Sequence Number", "Sample ID", "Sample ID of the Instrument", "Test", "Priority", "Ordered Date/Time",
        "Collection Date/Time", "Collection End Date/Time", "Collection Volume", "Collector", "Action Code",
        "Danger Code", "Clinical Information", "Sample Received Date/Time", "Sample Type and Source",
        "Ordering Physician", "Physician's Telephone", "User Field 1", "User Field 2", "Laboratory Field 1",
        "Laboratory Field 2", "Reported or Changed Date/Time", "Charge", "Instrument Section", "Report Type",
        "Reserved", "Place of Collection", "Nosocomial Infection Flag", "Sample Service", "Sample Institution",
    ),
    "R": (
        "Sequence Number", "Test", "Value", "Units", "Reference Range", "Abnormal Flag", "Nature of Abnormality Test",
        "Result Status", "Units or Range Changed", "Operator", "Test Started Date/Time", "Test Completed Date/Time",
        "Instrument",
    ),
    "C": ("Sequence Number", "Source", "Text", "Type"),
    "Q": (
        "Sequence Number", "First ID", "Last ID", "Test", "Nature of Time Limits", "Results From Date/Time",
        "Results To Date/Time", "Requesting Physician", "Physician's Telephone", "User Field 1", "User Field 2",
        "Status Code",
    ),
    "S": ("Sequence Number",),
    "M": ("Sequence Number",),
    "L": ("Sequence Number", "Termination Code"),
}  # fmt: skip
_TEST: Final = ("Universal Code", "Universal Name", "Kind of Code", "Manufacturer's Code")
_PERSON: Final = ("Family Name", "Given Name", "Middle Name", "Suffix", "Title")
_COMPONENTS: Final = {
    ("P", 6): _PERSON,
    ("O", 5): _TEST,
    ("R", 3): _TEST,
    ("Q", 3): ("Patient ID", "Sample ID"),
    ("Q", 4): ("Patient ID", "Sample ID"),
    ("Q", 5): _TEST,
}
# a letter of the standard before a delimiter, or alone: what else begins a line is no record
_RECORD: Final = re.compile(r"[HPORCQSML](?![A-Za-z0-9])", re.IGNORECASE)
_NUMBER: Final = re.compile(r"\d{1,4}", re.ASCII)
_VERSION: Final = re.compile(r"1|(E\s?1394|LIS0?2)(-[A-Z0-9]{1,3})?", re.ASCII | re.IGNORECASE)
_PROCESSING: Final = frozenset("PTDQ")
_TERMINATIONS: Final = frozenset("NTREQIF")
_HEADER_FIELDS: Final = 14
_OPEN_HEADER_FIELDS: Final = frozenset((2, 3, 5, 10, 12, 13, 14))  # the others are prose, addresses and a password

_Masking = Callable[[int, str], str]  # field number and value → what may be shown


def text_of_session(body: bytes, encoding: str | None = None) -> tuple[str, str]:
    """The text of all records, and what it was read as. `encoding` is that of a remote; a channel's own is not written
    in the spool, so that UTF-8 is tried, and ISO 8859-1 is what is left."""
    why = ""
    if encoding is not None:
        try:
            codec = codec_for(encoding)
        except UnknownCharset:
            why = ", as the remote's URL names no character set that is known"
        else:
            return read(body, codec, "backslashreplace"), f"{name_of(codec)}, as the remote's URL says"
    try:
        return body.decode(), f"{name_of('utf-8')}{why}"
    except UnicodeDecodeError:
        return body.decode("latin-1"), f"ISO-8859-1{why or ', for it is no UTF-8'}"


def records_of(text: str, *, mask: bool = False) -> list[Segment]:
    """The records of a session with the names of their fields; `mask`: as a stranger may see them."""
    lines = [line for line in re.split(r"[\r\n]+", text) if line]
    dialect = _Dialect.of(lines[0] if lines else "")
    counted: Counter[str] = Counter()
    found = []
    for line in lines:
        if dialect.field and _RECORD.match(line) and line[1:2] in ("", dialect.field):
            name = line[0].upper()
            counted[name] += 1
            masking = _masking(name, line, dialect, counted[name]) if mask else None
            found.append(_record(name, line, dialect, masking))
        else:
            found.append(Segment("", "not a record", (Value("", "", masked(line) if mask else line),)))
    return found


@dataclass(frozen=True, slots=True)
class _Dialect:
    """The delimiters that the header names, each empty where there is none (E1394 §6.4)."""

    field: str = ""
    repetition: str = ""
    component: str = ""

    @classmethod
    def of(cls, head: str) -> _Dialect:
        if head[:1] not in ("H", "h") or len(head) < 2 or head[1] not in punctuation:
            return cls()
        delimiters = head[2:].split(head[1], 1)[0]
        return cls(head[1], delimiters[:1], delimiters[1:2])


def _record(name: str, line: str, dialect: _Dialect, masking: _Masking | None) -> Segment:
    values = []
    for number, field in enumerate(line.split(dialect.field)[1:], 2):
        parts = [(f"{name}-2", "", field)] if (name, number) == ("H", 2) else _parts(name, number, field, dialect)
        for path, part, value in parts:
            title = " / ".join(filter(None, (_field_name(name, number), part)))
            values.append(Value(path, title, value if masking is None else masking(number, value)))
    return Segment(name, _TITLES[name], tuple(values))


def _field_name(record: str, number: int) -> str:
    names = _NAMES[record]
    return names[number - 2] if number - 2 < len(names) else ""


def _parts(record: str, number: int, field: str, dialect: _Dialect) -> Iterator[tuple[str, str, str]]:
    """(path, name of the part, value) of everything in a field that is not empty."""
    names = _COMPONENTS.get((record, number), ())
    repetitions = _split(field, dialect.repetition)
    for nth, repetition in enumerate(repetitions, 1):
        path = f"{record}-{number}({nth})" if len(repetitions) > 1 else f"{record}-{number}"
        components = _split(repetition, dialect.component)
        for c, value in enumerate(components, 1):
            if not value:
                continue
            if len(components) > 1:
                yield f"{path}.{c}", names[c - 1] if c <= len(names) else "", value
            else:
                yield path, "", value


def _split(text: str, delimiter: str) -> list[str]:
    return text.split(delimiter) if delimiter else [text]


def _masking(name: str, line: str, dialect: _Dialect, nth: int) -> _Masking:
    """What is left of the values of the `nth` record of this kind."""
    fields = ["", *line.split(dialect.field)]
    # with line ends missing, the next records have run into the header, and no field of it is what it seems
    whole = (
        len(fields) - 1 in (_HEADER_FIELDS - 1, _HEADER_FIELDS)
        and _VERSION.fullmatch(fields[13]) is not None
        and fields[12] in ("", *_PROCESSING)
    )

    def may_be_seen(number: int, value: str) -> bool:
        match name:
            case "H":
                return (whole and number in _OPEN_HEADER_FIELDS) or (number == 2 and not any(map(str.isalnum, value)))
            case "L" if number == 3:
                return value in _TERMINATIONS
            case _:
                # a number counts the records of its kind, so what is greater is somebody's number
                return number == 2 and _NUMBER.fullmatch(value) is not None and 1 <= int(value) <= nth

    return lambda number, value: value if may_be_seen(number, value) else masked(value)
