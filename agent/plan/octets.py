"""Bytes in an address: control characters and sequences of them, percent-encoded.

Secret: how `%05:%06,%03:%06` stands for bytes, and which of its commas and colons separate.
Promise: a parser answers the text of an address with bytes or with `Unusable`, and raises nothing else.

`%E9` is the byte 0xE9, and so is `%C3%A9`, which is how programs that know text only write it. Where a comma or a colon
stands in the text as it is, the percent-encoded ones belong to the bytes; where none does, they separate, since
programs that build queries encode all of them.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_to_bytes

from agent.plan.values import Unusable
from agent.protocol.fhir import SettingValue

_SURROGATES: Final = 0xDC00  # where `surrogateescape` puts a byte that is no UTF-8 (PEP 383)
_STRAY_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_ESCAPED: Final = {",": re.compile("%2C", re.IGNORECASE), ":": re.compile("%3A", re.IGNORECASE)}


def one_byte(raw: SettingValue) -> int:
    byte = _bytes(str(raw))
    if len(byte) != 1:
        raise Unusable("one character is expected", "write it like %0D")
    return byte[0]


def sequences(raw: SettingValue) -> tuple[bytes, ...]:
    """Between commas; each counts once."""
    return tuple(dict.fromkeys(_sequence(part, "write it like %05,%0D%0A") for part in _split(str(raw), ",")))


def control_characters(raw: SettingValue) -> tuple[int, ...]:
    """Bytes below 0x20, with or without commas between them; each counts once."""
    octets = b"".join(sequences(raw))
    if any(octet >= 0x20 for octet in octets):
        raise Unusable("characters below 0x20 are expected, which alone would be left out", "write it like %0D,%0A")
    return tuple(dict.fromkeys(octets))


def responses(raw: SettingValue) -> tuple[tuple[bytes, bytes], ...]:
    """Pairs `sequence:answer` between commas, in order."""
    pairs = []
    example = "write it like %05:%06,%03:%06"
    for part in _split(str(raw), ",:"):
        sequence, colon, answer = part.partition(":")
        if not colon or ":" in answer:
            raise Unusable("pairs of a sequence and its answer are expected, with a colon between them", example)
        pairs.append((_sequence(sequence, example), _sequence(answer, example)))
    return tuple(dict.fromkeys(pairs))


def _split(raw: str, separators: str) -> list[str]:
    """Between commas, the colons standing as they are; both as the text itself shows what separates."""
    if not any(separator in raw for separator in separators):
        for separator in separators:
            raw = _ESCAPED[separator].sub(separator, raw)
    return raw.split(",")


def _sequence(raw: str, example: str) -> bytes:
    octets = _bytes(raw)
    if not octets:
        raise Unusable("a sequence in it is empty", example)
    return octets


def _bytes(raw: str) -> bytes:
    if _STRAY_PERCENT.search(raw):
        raise Unusable("it has a % without two hexadecimal digits after it", "write the sign itself as %25")
    octets = unquote_to_bytes(raw.replace("+", " ").encode("utf-8", "surrogatepass"))
    numbers = [ord(character) for character in octets.decode("utf-8", "surrogateescape")]
    try:
        return bytes(number - _SURROGATES if number >= _SURROGATES else number for number in numbers)
    except ValueError:
        raise Unusable("a character in it is no single byte", "write bytes like %05 or %E9") from None
