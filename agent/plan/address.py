"""What an address says: an Endpoint's, or the one of a remote.

Secret: the syntax of `mllp(s)://host:port?parameter=value` and every way to get it wrong.
Promise: `read_address` answers any text with an `Address` or with `BadAddress`, and raises nothing else.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from agent.plan.subject import Family

SUPPORTED = ("mllp", "mllps")
# Transports of the wire (tcp, dicom) and further ones of our own; who names one is refused, not forgotten.
NOT_YET = {
    "tcp": "byte streams",
    "dicom": "DICOM",
    "serial": "serial lines",
    "astm": "ASTM",
}


class BadAddress(ValueError):
    """An address that no channel or no remote can have. `code` without the family, and `remedy`, as in a Finding."""

    def __init__(self, code: str, text: str, remedy: str) -> None:
        super().__init__(text)
        self.code = code
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Address:
    """`host` without brackets; port 0 takes a free one. `parameters` in order, percent-decoded, repeated ones too.

    `secure`: TLS, as mllps:// says.
    """

    text: str
    host: str
    port: int
    parameters: tuple[tuple[str, str], ...]
    ignored: str = ""  # a path or fragment, which mean nothing here
    secure: bool = False

    def collides_with(self, other: Address) -> bool:
        """Whether both cannot listen at one time. `0.0.0.0` is every IPv4 address, `::` every address at all."""
        if self.port != other.port or self.port == 0:
            return False
        mine, theirs = _listens_on(self.host), _listens_on(other.host)
        both = mine | theirs
        return bool(mine & theirs) or _ANY in both or (_ANY_V4 in both and not (_only_v6(mine) or _only_v6(theirs)))


@dataclass(frozen=True, slots=True)
class _Words:
    """What differs in what a person hears."""

    holder: str
    example: str
    host: str
    instead: str


_WORDS: Final = {
    Family.CHANNEL: _Words(
        "the endpoint",
        "write it like mllp://0.0.0.0:2575",
        "write 0.0.0.0 for every IPv4 address of this host, :: for every address, or one of its addresses; "
        "with mode=client the sender's host",
        "use mllp://, or leave this channel to an agent that carries it",
    ),
    Family.REMOTE: _Words(
        "the remote",
        "write mllp://host:port, with an IPv6 address in brackets",
        "write mllp://host:port, with the name or the address of the remote",
        "use mllp://, or push by an agent that carries it",
    ),
}
_HOST_AND_PORT: Final = re.compile(r"\[[^\[\]:]*:[^\[\]]*\](:.*)?|[^\[\]]*")  # RFC 3986 §3.2.2: brackets are for IPv6
_ANY = "::"
_ANY_V4 = "0.0.0.0"


def read_address(text: str, family: Family) -> Address:
    """Parse; raises BadAddress."""
    words = _WORDS[family]
    stripped = text.strip()
    if not stripped:
        raise BadAddress("address-empty", f"{words.holder} has no address", words.example)
    if not stripped.isprintable():
        raise BadAddress("address-unreadable", "the address has a control character in it", words.example)
    try:
        parts = urlsplit(stripped)
        host = parts.hostname
    except ValueError:
        raise BadAddress("address-unreadable", "the address is no URL", words.example) from None
    scheme = parts.scheme
    if "://" not in stripped or not scheme:
        raise BadAddress("address-unreadable", "the address has no scheme", words.example)
    if scheme in NOT_YET:
        text = f"{scheme}:// ({NOT_YET[scheme]}) is not carried by this version yet"
        raise BadAddress("scheme-unsupported", text, words.instead)
    if scheme not in SUPPORTED:
        text, remedy = f"the scheme {scheme[:20]!a} is unknown", "use mllp:// or mllps://"
        raise BadAddress("scheme-unknown", text, remedy)
    if not _HOST_AND_PORT.fullmatch(parts.netloc.rpartition("@")[2]):
        raise BadAddress("address-unreadable", "the address has brackets in a wrong place", words.example)
    try:
        port = parts.port
    except ValueError:
        raise BadAddress("port-bad", "the port is no number from 0 to 65535", words.example) from None
    if not host:
        raise BadAddress("host-missing", "the address names no host", words.host)
    if port is None:
        remedy = "add one, like :2575, after the host"
        raise BadAddress("port-missing", "the address names no port", remedy)
    if parts.username is not None:
        raise BadAddress("address-unreadable", "the address has a user name in it", "remove it")
    path = parts.path if parts.path != "/" else ""
    ignored = path + (f"#{parts.fragment}" if parts.fragment else "")
    parameters = parse_qsl(parts.query, keep_blank_values=True)
    return Address(stripped, host, port, tuple(parameters), ignored, scheme == "mllps")


def is_no_place(host: str) -> bool:
    """0.0.0.0 and ::, in all their spellings: to listen on, not to connect to (RFC 6890 §2.2.2)."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return address.is_unspecified or (mapped is not None and mapped.is_unspecified)


def _listens_on(host: str) -> frozenset[str]:
    if host == "localhost":
        return frozenset({"127.0.0.1", "::1"})
    try:
        return frozenset({str(ipaddress.ip_address(host))})
    except ValueError:
        return frozenset({host})  # a name: what it resolves to is the listener's business


def _only_v6(hosts: frozenset[str]) -> bool:
    return all(":" in host for host in hosts)
