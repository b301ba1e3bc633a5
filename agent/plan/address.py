"""What an address says: an Endpoint's, or the one of a remote.

Secret: the syntax of `scheme://host:port?parameter=value`, of `serial:///device` and of `astm://channel`, and every way
to get them wrong.
Promise: `read_address` answers any text with an `Address` or with `BadAddress`, and raises nothing else; what is wrong
with it is told at once.
"""

from __future__ import annotations

import ipaddress
import posixpath
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, unquote, unquote_plus, urlsplit

from agent.plan.kind import SERIAL, Kind, NoScheme, kind_of
from agent.plan.subject import Family, label


@dataclass(frozen=True, slots=True)
class Flaw:
    """`code` without the family, and `remedy`, as in a Finding."""

    code: str
    text: str
    remedy: str


class BadAddress(ValueError):
    """An address that no channel or no remote can have. `rest`: what could be read of it, for its parameters."""

    def __init__(self, flaws: list[Flaw], rest: Address | None = None) -> None:
        super().__init__("; ".join(flaw.text for flaw in flaws))
        self.flaws = tuple(flaws)
        self.rest = rest


@dataclass(frozen=True, slots=True)
class Parameter:
    """`value` is percent-decoded as UTF-8; `raw` is what stands in the address."""

    name: str
    value: str
    raw: str


@dataclass(frozen=True, slots=True)
class Address:
    """`host` without brackets, of a serial line its device; port 0 takes a free one. `parameters` in order, repeated
    ones too. `channel`: the name of one of our channels, which the address of an analyser may have in place of a host.
    """

    text: str
    kind: Kind
    scheme: str
    host: str
    port: int = 0
    parameters: tuple[Parameter, ...] = ()
    ignored: str = ""  # a path or fragment, which mean nothing here
    channel: str = ""

    @property
    def secure(self) -> bool:
        """TLS, as mllps:// says."""
        return self.scheme == "mllps"

    @property
    def device(self) -> str:
        """The serial port, else empty."""
        return self.host if self.kind in SERIAL else ""

    def collides_with(self, other: Address) -> bool:
        """Whether both cannot listen at one time. `0.0.0.0` is every IPv4 address, `::` every address at all."""
        if self.device or other.device:
            return bool(self.device) and _one_way(self.device) == _one_way(other.device)
        if self.port != other.port or self.port == 0:
            return False
        mine, theirs = _listens_on(self.host), _listens_on(other.host)
        both = mine | theirs
        return bool(mine & theirs) or _ANY in both or (_ANY_V4 in both and not (_only_v6(mine) or _only_v6(theirs)))


_ANY = "::"
_ANY_V4 = "0.0.0.0"
_HOST_AND_PORT: Final = re.compile(r"\[[^\[\]:]*:[^\[\]]*\](:.*)?|[^\[\]]*")  # RFC 3986 §3.2.2: brackets are for IPv6
_COM_PORT: Final = re.compile(r"COM[0-9]{1,4}", re.IGNORECASE)
_OWNER: Final = {Family.CHANNEL: "the endpoint", Family.REMOTE: "the remote"}
_EXAMPLES: Final = {
    Kind.MLLP: "write it like mllp://0.0.0.0:2575",
    Kind.STREAM: "write it like tcp://0.0.0.0:4000?startChar=%02&endChar=%03",
    Kind.ASTM: "write it like astm://0.0.0.0:4001",
    Kind.DICOM: "write it like dicom://0.0.0.0:11112",
    Kind.SERIAL_STREAM: "write it like serial:///dev/ttyUSB0?baudRate=9600&endChar=%0D, or serial://COM3?…",
    Kind.SERIAL_ASTM: "write it like serial:///dev/ttyUSB0?mode=astm&baudRate=9600, or serial://COM3?mode=astm",
    Kind.REMOTE: "write mllp://host:port, with an IPv6 address in brackets",
    Kind.ASTM_REMOTE: "write astm://host:port, or astm://NAME with the name of one of our channels",
}
_HOSTS: Final = {
    Family.CHANNEL: "write 0.0.0.0 for every IPv4 address of this host, :: for every address, or one of its addresses; "
    "with mode=client the sender's host",
    Family.REMOTE: "write host and port, with the name or the address of the remote",
}


def read_address(text: str, family: Family) -> Address:
    """Parse; raises BadAddress."""
    example = _EXAMPLES[Kind.MLLP if family is Family.CHANNEL else Kind.REMOTE]
    stripped = text.strip()
    if not stripped:
        raise BadAddress([Flaw("address-empty", f"{_OWNER[family]} has no address", example)])
    if not stripped.isprintable():
        raise BadAddress([Flaw("address-unreadable", "the address has a control character in it", example)])
    try:
        parts = urlsplit(stripped)
    except ValueError:
        raise BadAddress([Flaw("address-unreadable", "the address is no URL", example)]) from None
    if "://" not in stripped or not parts.scheme:
        raise BadAddress([Flaw("address-unreadable", "the address has no scheme", example)])
    parameters = _parameters(parts.query)
    mode = next((parameter.value for parameter in parameters if parameter.name == "mode"), "")
    kind = kind_of(family, parts.scheme, mode)
    if isinstance(kind, NoScheme):
        code = "scheme-unsupported" if kind.known else "scheme-unknown"
        raise BadAddress([Flaw(code, kind.text, kind.remedy)])
    flaws: list[Flaw] = []
    host, port, channel, path = "", 0, "", parts.path if parts.path != "/" else ""
    if parts.username is not None:
        flaws.append(Flaw("address-unreadable", "the address has a user name in it", "remove it"))
    elif kind in SERIAL:
        host, path = _device(parts, flaws), ""
    elif kind is Kind.ASTM_REMOTE and parts.netloc and not re.search(r"[:\[\]]", parts.netloc):
        channel = _channel(parts.netloc, flaws)
    else:
        host, port = _host_and_port(parts, family, _EXAMPLES[kind], flaws)
    ignored = path + (f"#{parts.fragment}" if parts.fragment else "")
    address = Address(stripped, kind, parts.scheme, host, port, parameters, ignored, channel)
    if flaws:
        raise BadAddress(flaws, address)
    return address


def _parameters(query: str) -> tuple[Parameter, ...]:
    """As HTML forms write them: parts between `&`, `+` for a space."""
    pairs = (part.partition("=") for part in query.split("&") if part)
    return tuple(Parameter(unquote_plus(name), unquote_plus(raw), raw) for name, _, raw in pairs)


def _host_and_port(parts: SplitResult, family: Family, example: str, flaws: list[Flaw]) -> tuple[str, int]:
    if not _HOST_AND_PORT.fullmatch(parts.netloc):
        flaws.append(Flaw("address-unreadable", "the address has brackets in a wrong place", example))
        return "", 0
    host, port = parts.hostname or "", None
    if not host:
        flaws.append(Flaw("host-missing", "the address names no host", _HOSTS[family]))
    try:
        port = parts.port
    except ValueError:
        flaws.append(Flaw("port-bad", "the port is no number from 0 to 65535", example))
    else:
        if port is None:
            flaws.append(Flaw("port-missing", "the address names no port", f"add one after the host; {example}"))
    return host, port or 0


def _device(parts: SplitResult, flaws: list[Flaw]) -> str:
    """A path of this host, or a COM port in either place."""
    example = _EXAMPLES[Kind.SERIAL_STREAM]
    place, path = parts.netloc, unquote(parts.path)
    if not path.isprintable():
        flaws.append(Flaw("address-unreadable", "the device has a control character in its name", example))
    elif not place and _COM_PORT.fullmatch(path.removeprefix("/")):
        return path.removeprefix("/").upper()
    elif _COM_PORT.fullmatch(place) and path in {"", "/"}:
        return place.upper()
    elif place:
        meant = f"/{place}{path}" if path else f"/dev/{place}"
        text = f"{label(place + path)} is no serial port: a device has three slashes before it, or is COM1, COM2, …"
        flaws.append(Flaw("device-bad", text, f"did you mean serial://{label(meant)}?"))
    elif path in {"", "/"}:
        flaws.append(Flaw("device-missing", "the address names no serial port", example))
    else:
        return path
    return ""


def _channel(written: str, flaws: list[Flaw]) -> str:
    example = _EXAMPLES[Kind.ASTM_REMOTE]
    try:
        name = unquote(written, errors="strict")
    except UnicodeDecodeError:
        name = ""
    if not name.strip() or not name.isprintable():
        flaws.append(Flaw("address-unreadable", "the address names neither a host nor a channel", example))
        return ""
    if _is_ip(name):
        flaws.append(Flaw("port-missing", "the address names no port", f"add one after the host; {example}"))
    return name


def is_no_place(host: str) -> bool:
    """0.0.0.0 and ::, in all their spellings: to listen on, not to connect to (RFC 6890 §2.2.2)."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return address.is_unspecified or (mapped is not None and mapped.is_unspecified)


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _one_way(device: str) -> str:
    return device if _COM_PORT.fullmatch(device) else posixpath.normpath(device)


def _listens_on(host: str) -> frozenset[str]:
    if host == "localhost":
        return frozenset({"127.0.0.1", "::1"})
    try:
        return frozenset({str(ipaddress.ip_address(host))})
    except ValueError:
        return frozenset({host})  # a name: what it resolves to is the listener's business


def _only_v6(hosts: frozenset[str]) -> bool:
    return all(":" in host for host in hosts)
