"""What the value of one option may look like.

Secret: how a switch, a number, a charset, a field path, a list of networks or an AE title is written on an address or
in an Agent.setting, and every way to write it wrong.
Promise: a parser answers any value with the finished one or with `Unusable`, and raises nothing else; a form describes
what its parser takes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_interface, ip_network
from typing import Any, Final

from agent.protocol.charset import UnknownCharset, codec_for
from agent.protocol.fhir import SettingValue
from agent.protocol.hl7 import KeySpec
from agent.spec import Astm

Network = IPv4Network | IPv6Network
_LATIN_1: Final = Astm().codec
_AE_TITLE: Final = re.compile(r"[ -\[\]-~]{1,16}")
_MAPPED_PREFIX = 96  # ::ffff:0:0/96 stands for IPv4 (RFC 4291 §2.5.5.2), and a sender is looked up by its IPv4 address


class Unusable(ValueError):
    """A value that an option cannot take; the text says what it takes, `remedy` what was probably meant."""

    def __init__(self, text: str, remedy: str = "correct it") -> None:
        super().__init__(text)
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Form:
    """One way to write a value. `type` is a word of JSON Schema; a range and choices where there are some."""

    parse: Callable[[SettingValue], Any]
    type: str = "string"
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()


def switch() -> Form:
    def parse(value: SettingValue) -> bool:
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.strip().lower() in {"true", "false"}:
            return value.strip().lower() == "true"
        raise Unusable("true or false is expected")

    return Form(parse, "boolean")


def whole(low: int, high: int) -> Form:
    def parse(value: SettingValue) -> int:
        try:
            number = int(value) if isinstance(value, str) else value
        except ValueError:
            number = None
        if isinstance(number, bool) or number is None or number != number // 1 or not low <= number <= high:
            raise Unusable(f"a whole number from {low} to {high} is expected")
        return int(number)

    return Form(parse, "integer", low, high)


def decimal(low: float, high: float) -> Form:
    def parse(value: SettingValue) -> float:
        try:
            number = None if isinstance(value, bool) else float(value)
        except ValueError:
            number = None
        if number is None or not low <= number <= high:  # a NaN is in no range
            raise Unusable(f"a number from {low:g} to {high:g} is expected")
        return number

    return Form(parse, "number", low, high)


def one_of(choices: Mapping[str, Any], remedy: str = "correct it") -> Form:
    """A word, whatever its case, and what it stands for."""
    by_word = {word.lower(): meaning for word, meaning in choices.items()}
    expected = f"one of {', '.join(choices)} is expected" if len(choices) > 1 else f"only {next(iter(choices))} can be"

    def parse(value: SettingValue) -> Any:
        word = str(value).strip().lower()
        if word not in by_word:
            raise Unusable(expected, remedy)
        return by_word[word]

    return Form(parse, choices=tuple(choices))


def text(value: SettingValue) -> str:
    return str(value)


def encoding(value: SettingValue) -> str | None:
    """A charset label that is known, or None for `auto` and the empty text: MSH-18 decides."""
    label = str(value).strip()
    if label.lower() in {"", "auto"}:
        return None
    _codec(label, "write a code of HL7 table 0211 such as UNICODE UTF-8 or 8859/1")
    return label


def order_key(value: SettingValue) -> KeySpec | None:
    """Field paths; the empty text takes an agent-wide key away from one channel."""
    spec = str(value).strip()
    if not spec:
        return None
    try:
        return KeySpec.parse(spec)
    except ValueError as malformed:
        raise Unusable(str(malformed)) from None


def networks(value: SettingValue) -> tuple[Network, ...]:
    """Networks (RFC 4632, RFC 4291 §2.3) and single addresses, separated by commas; each counts once."""
    return tuple(dict.fromkeys(_network(entry.strip()) for entry in str(value).split(",")))


def _network(entry: str) -> Network:
    example = "a list like 10.1.2.0/24,192.168.7.5,fd00::/8 is expected"
    _, slash, prefix = entry.partition("/")
    if "%" in entry or (slash and not prefix.isdigit()):  # no zones and no masks
        raise Unusable(example)
    try:
        network, address = ip_network(entry, strict=False), ip_interface(entry).ip
    except ValueError:
        raise Unusable(example) from None
    if slash and address != network.network_address:
        text = f"{entry} names an address and not a network"
        raise Unusable(text, f"write {network} for the network, or {address} for the one address")
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    if mapped is not None and network.prefixlen >= _MAPPED_PREFIX:
        return IPv4Network((mapped, network.prefixlen - _MAPPED_PREFIX))
    return network


def invalid_bytes(value: SettingValue) -> str | None:
    """`fallback:<charset>` gives its Python codec; `reject` is None."""
    word, colon, name = str(value).strip().partition(":")
    match word.strip().lower(), bool(colon):
        case "reject", False:
            return None
        case "fallback", True:
            return _codec(name.strip(), "write it like fallback:windows-1252")
        case _:
            raise Unusable("reject or fallback:<charset> is expected")


def _codec(name: str, remedy: str) -> str:
    try:
        return codec_for(name)
    except UnknownCharset as unknown:
        raise Unusable(str(unknown), remedy) from None


def analyser_encoding(value: SettingValue) -> str:
    """The Python codec of records whose charset no record tells, in one spelling."""
    codec = _codec(str(value).strip(), "write it like latin-1, windows-1252 or utf-8")
    return _LATIN_1 if codec == codec_for(_LATIN_1) else codec


def body_encoding(value: SettingValue) -> str | None:
    """`hex` is None; a charset gives its Python codec."""
    word = str(value).strip()
    return None if word.lower() == "hex" else _codec(word, "write hex, or a charset like utf-8")


def ae_title(value: SettingValue) -> str:
    """An application entity (PS3.5 §6.2, VR AE): spaces around it mean nothing, one of spaces alone is none."""
    title = str(value).strip(" ")
    if not _AE_TITLE.fullmatch(title):
        raise Unusable("an AE title of 1 to 16 characters of ASCII without a backslash is expected")
    return title


def ae_titles(value: SettingValue) -> tuple[str, ...]:
    """Separated by commas; each counts once."""
    return tuple(dict.fromkeys(ae_title(entry) for entry in str(value).split(",")))
