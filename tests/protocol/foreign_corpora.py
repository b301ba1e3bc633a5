"""HL7 that others wrote: samples of two libraries, and messages made after hl7apy's tables of the standard.

Secret: how hl7apy writes down the structures of a version, and what must be left out of its judgement, with the reason.
Promise: the same message for the same version, structure and seed; whatever is required is there, and some of what is
optional.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import hl7apy
from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.core import Message
from hl7apy.parser import parse_segments

FOLDER = Path(__file__).parents[1] / "data" / "foreign"
VERSIONS = sorted(hl7apy.SUPPORTED_LIBRARIES)

_VALUES = {
    "NM": ("7", "-1.5", "0"),
    "SI": ("1", "2"),
    "DT": ("20260101", "2026"),
    "TM": ("1200", "235959"),
    "DTM": ("20260101", "20260101120000"),
    "TN": ("(555)555-5555",),
    "TX": ("first\\.br\\second", "a \\T\\ b"),
    "FT": ("\\H\\high\\N\\", "plain"),
    "ST": ("word", "two words", "caf\u00e9", "a\\F\\b"),
}


@cache
def samples() -> dict[str, bytes]:
    """The messages in the packages' own test data, by `package/name`."""
    found = {}
    for corpus in sorted(FOLDER.glob("*.json")):
        for name, text in json.loads(corpus.read_text(encoding="utf-8")).items():
            found[f"{corpus.stem}/{name}"] = text.encode("utf-8")
    return found


def structures(version: str) -> list[str]:
    """The names of the message structures that hl7apy knows of a version."""
    return sorted(hl7apy.load_library(version).MESSAGES)


class Writer:
    """Writes messages of one version as its tables in hl7apy have them."""

    def __init__(self, version: str, seed: int = 0) -> None:
        self.version = version
        self._library = hl7apy.load_library(version)
        self._tables: dict[str, Any] = getattr(self._library, "TABLES", {})
        self._random = random.Random(f"{version} {seed}")

    def message(self, structure: str, control_id: str) -> str:
        """One message, its segments ended by CR."""
        msh, *others = self._library.MESSAGES[structure][1]
        assert msh[0] == "MSH"
        when = "20260101120000^S" if self.version == "2.1" else "20260101120000"  # the precision is required there
        segments = [f"MSH|^~\\&|SND|FAC 1|RCV|FAC 2|{when}||{self._type(structure)}|{control_id}|P|{self.version}"]
        for child in others:
            segments += self._part(child, depth=0)
        return "\r".join(segments) + "\r"

    def _type(self, structure: str) -> str:
        code, _, event = structure.partition("_")
        if not event:
            return code
        return f"{code}^{event}" if self.version < "2.3.1" else f"{code}^{event}^{structure}"

    def _times(self, cardinality: tuple[int, int], depth: int) -> int:
        least, most = cardinality
        if most == 0:
            return 0
        if least == 0:
            return int(self._random.random() < 0.4 / (depth + 1))
        return least + int(most == -1 and self._random.random() < 0.2)

    def _part(self, child: Any, depth: int) -> Iterator[str]:
        name, reference, cardinality, kind = child
        for _ in range(self._times(cardinality, depth)):
            if kind == "SEG":
                if len(name) == 3:  # ANYHL7SEGMENT stands for a choice of all
                    yield self._segment(name, reference)
            elif reference[0] == "choice":
                yield from self._part((*self._random.choice(reference[1])[:2], (1, 1), "SEG"), depth + 1)
            else:
                lines = [line for grandchild in reference[1] for line in self._part(grandchild, depth + 1)]
                # a required group of optional segments needs one of them to be there
                yield from lines or self._part((*reference[1][0][:2], (1, 1), reference[1][0][3]), depth + 1)

    def _segment(self, name: str, reference: Any) -> str:
        fields = {}
        for known in (reference or ())[1:]:  # of some segments hl7apy knows the name only
            for field, value, cardinality, _ in known:
                written = [self._value(value, "^") for _ in range(self._times(cardinality, 1))]
                fields[_number(field)] = "~".join(written)
        return f"{name}|{_in_their_places(fields, '|')}"

    def _value(self, reference: Any, divider: str) -> str:
        kind, parts, datatype, _, table, _ = reference
        if kind == "leaf" or not parts:
            return self._leaf(datatype, table)
        pieces = {}
        for order, (name, component, (least, most), _) in enumerate(parts):
            wanted = most != 0 and (least or order == 0 or self._random.random() < 0.3)
            if wanted and (divider == "^" or component[0] == "leaf"):
                pieces[_number(name)] = self._value(component, "&")
        return _in_their_places(pieces, divider)

    def _leaf(self, datatype: str | None, table: str | None) -> str:
        if datatype is None or datatype.upper() == "WD":
            return ""
        codes = [code for code in self._tables.get(table, ("", ()))[1] if code.isalnum()]
        if codes and datatype in ("ID", "IS"):
            return str(self._random.choice(codes))
        return self._random.choice(_VALUES.get(datatype, _VALUES["ST"]))


def _number(name: str) -> int:
    """Which field or component it is; of some the tables leave out what was withdrawn."""
    return int(name.rpartition("_")[2])


def _in_their_places(pieces: dict[int, str], divider: str) -> str:
    filled = {number: piece for number, piece in pieces.items() if piece}
    return divider.join(filled.get(number, "") for number in range(1, max(filled, default=0) + 1))


def judge(message: str, version: str, structure: str) -> None:
    """Let hl7apy parse and validate a message strictly. Raises what it has to say against it.

    The structure is named to it: by itself it reads it from MSH-9.3, which versions before 2.3.1 do not have.
    """
    strict = VALIDATION_LEVEL.STRICT
    reference = hl7apy.load_reference(structure, "Message", version)
    segments = parse_segments(message, version, None, strict, reference, find_groups=True)
    parsed = Message(structure, version=version, validation_level=strict)
    parsed.children = segments
    parsed.validate()
