"""What an Endpoint's address says.

Secret: the syntax of `mllp(s)://host:port?parameter=value` and every way to get it wrong.
Promise: `read_address` answers any text with an `Address` or with `BadAddress`, and raises nothing else.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

SUPPORTED = ("mllp", "mllps")
# Transports of the wire (tcp, dicom) and further ones of our own; a channel that names one is refused, not forgotten.
NOT_YET = {
    "tcp": "byte streams",
    "dicom": "DICOM",
    "serial": "serial lines",
    "astm": "ASTM",
}


class BadAddress(ValueError):
    """An address that no channel can have. `code` and `remedy` as in a Finding."""

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


_ANY = "::"
_ANY_V4 = "0.0.0.0"


def read_address(text: str) -> Address:
    """Parse; raises BadAddress."""
    example = "write it like mllp://0.0.0.0:2575"
    stripped = text.strip()
    if not stripped:
        raise BadAddress("channel.address-empty", "the endpoint has no address", example)
    if not stripped.isprintable():
        raise BadAddress("channel.address-unreadable", "the address has a control character in it", example)
    try:
        parts = urlsplit(stripped)
        host = parts.hostname
    except ValueError:
        raise BadAddress("channel.address-unreadable", "the address is no URL", example) from None
    scheme = parts.scheme
    if "://" not in stripped or not scheme:
        raise BadAddress("channel.address-unreadable", "the address has no scheme", example)
    if scheme in NOT_YET:
        raise BadAddress(
            "channel.scheme-unsupported",
            f"{scheme}:// ({NOT_YET[scheme]}) is not carried by this version yet",
            "use mllp://, or leave this channel to an agent that carries it",
        )
    if scheme not in SUPPORTED:
        raise BadAddress("channel.scheme-unknown", f"the scheme {scheme[:20]!a} is unknown", "use mllp:// or mllps://")
    try:
        port = parts.port
    except ValueError:
        raise BadAddress("channel.port-bad", "the port is no number from 0 to 65535", example) from None
    if not host:
        raise BadAddress(
            "channel.host-missing",
            "the address names no host",
            "write 0.0.0.0 for every IPv4 address of this host, :: for every address, or one of its addresses; "
            "with mode=client the sender's host",
        )
    if port is None:
        raise BadAddress("channel.port-missing", "the address names no port", "add one, like :2575, after the host")
    if parts.username is not None:
        raise BadAddress("channel.address-unreadable", "the address has a user name in it", "remove it")
    path = parts.path if parts.path != "/" else ""
    ignored = path + (f"#{parts.fragment}" if parts.fragment else "")
    parameters = parse_qsl(parts.query, keep_blank_values=True)
    return Address(stripped, host, port, tuple(parameters), ignored, scheme == "mllps")


def _listens_on(host: str) -> frozenset[str]:
    if host == "localhost":
        return frozenset({"127.0.0.1", "::1"})
    try:
        return frozenset({str(ipaddress.ip_address(host))})
    except ValueError:
        return frozenset({host})  # a name: what it resolves to is the listener's business


def _only_v6(hosts: frozenset[str]) -> bool:
    return all(":" in host for host in hosts)
