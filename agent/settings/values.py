"""What a single value of the local configuration may look like.

Secret: how a person writes a URL, a number, a switch or a listening address, and every way to write it wrong.
Promise: a parser returns the finished value or raises `Unfit` with the sentence and the remedy that person needs, and
`schema_of` describes what is best written.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

MASK = "******"


class Secret:
    """A value that must not be seen: `repr` and `str` show a mask, `reveal()` is the only way to it."""

    __slots__ = ("_shown", "_text")

    def __init__(self, text: str, *, shown: str = MASK) -> None:
        self._text = text
        self._shown = shown

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return self._shown

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)


class HostPort(NamedTuple):
    """A listening address. `host` without brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Unfit(ValueError):
    """A value that cannot be used: what is wrong with it, and what to write instead."""

    def __init__(self, text: str, remedy: str) -> None:
        super().__init__(text)
        self.remedy = remedy


Parser = Callable[[object, Path], object]
"""(value as its source gave it, folder that relative paths start from) -> finished value; raises Unfit."""

SWITCH = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
LEVELS = ("DEBUG", "INFO", "WARN", "ERROR", "NONE")
_LEVEL_ALIASES = {"WARNING": "WARN", "TRACE": "DEBUG", "CRITICAL": "ERROR", "FATAL": "ERROR", "OFF": "NONE"}
_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")  # FHIR R4 datatype id


def text(value: object, base: Path) -> str:
    """Any text on one line."""
    if not isinstance(value, str):
        raise Unfit(f"a text is expected, not {_kind(value)}", "put it in quotes")
    if not value.isprintable():
        raise Unfit("the text has a line break or a control character in it", "remove it")
    return value.strip()


def secret(value: object, base: Path) -> Secret:
    return Secret(text(value, base))


def agent_id(value: object, base: Path) -> str:
    """The id of an Agent resource; `Agent/<id>` is understood too."""
    plain = text(value, base).removeprefix("Agent/")
    if not _ID.fullmatch(plain):
        raise Unfit(
            "this is no resource id",
            "take the id from the Agent's page on the server, like 123e4567-e89b-12d3-a456-426614174000",
        )
    return plain


def base_url(value: object, base: Path) -> str:
    """An http(s) URL that ends in a slash, so that `{base_url}fhir/R4/` is right."""
    raw = text(value, base)
    remedy = "write it like https://api.medplum.com/"
    try:
        parts = urlsplit(raw)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise Unfit("this is no URL", remedy) from None
    if parts.scheme in {"ws", "wss"}:
        better = "https" if parts.scheme == "wss" else "http"
        raise Unfit(
            f"the URL starts with {parts.scheme}://", f"start it with {better}://; the agent finds the socket itself"
        )
    if parts.scheme not in {"http", "https"} or not host:
        raise Unfit("the URL has no http:// or https:// with a host after it", remedy)
    if parts.query or parts.fragment:
        raise Unfit("the URL has a '?' or '#' part", "leave away everything from there on")
    if parts.username is not None or parts.password is not None:
        raise Unfit("the URL has a user name or password in it", "use client_id and client_secret for the login")
    return urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/") + "/", "", ""))


def proxy(value: object, base: Path) -> Secret:
    """`http://[user:password@]host:port`; shown without the password."""
    raw = text(value, base)
    try:
        parts = urlsplit(raw)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or parts.scheme != "http":
        raise Unfit("this is no http proxy address", "write it like http://proxy.example.org:3128")
    place = str(HostPort(host, port)) if port else host
    return Secret(raw, shown=f"http://{MASK}@{place}" if parts.username is not None else f"http://{place}")


def path(value: object, base: Path) -> Path:
    """A path; a relative one starts from the folder of the file that names it."""
    return (base / text(value, base)).absolute()


def level(value: object, base: Path) -> str:
    """One of `LEVELS`, in any case, other usual names translated."""
    upper = text(value, base).upper()
    upper = _LEVEL_ALIASES.get(upper, upper)
    if upper not in LEVELS:
        raise Unfit(f"{_shown(value)} is no log level", f"take one of {', '.join(LEVELS)}")
    return upper


def switch(value: object, base: Path) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and (known := SWITCH.get(value.strip().lower())) is not None:
        return known
    raise Unfit(f"{_shown(value)} is neither true nor false", "write true or false")


def listen(value: object, base: Path) -> HostPort | None:
    """`host:port`, `[ipv6]:port` or `port` (then loopback); `off` or false for none."""
    if value is False:
        return None
    raw = str(value) if isinstance(value, int) else text(value, base)
    if raw.lower() in {"off", "none", "false"}:
        return None
    host, _, port = raw.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not port.isascii() or not port.isdigit() or not int(port) <= 65_535 or (":" in host and not bracketed):
        raise Unfit(f"{_shown(value)} is no listening address", "write it like 127.0.0.1:8640, [::1]:8640 or off")
    return HostPort(host.strip("[]") or "127.0.0.1", int(port))


@dataclass(frozen=True, slots=True)
class Choice:
    """One of these words, in any case."""

    allowed: tuple[str, ...]

    def __call__(self, value: object, base: Path) -> str:
        lower = text(value, base).lower()
        if lower not in self.allowed:
            raise Unfit(f"{_shown(value)} is none of the choices", f"take one of {', '.join(self.allowed)}")
        return lower


@dataclass(frozen=True, slots=True)
class Number:
    """A number between two bounds, both included. `unit` is for the sentence only."""

    low: float
    high: float
    unit: str = ""
    whole: bool = True

    def __call__(self, value: object, base: Path) -> int | float:
        number = self._read(value)
        if number is None:
            raise Unfit(f"{_shown(value)} is no {'whole ' if self.whole else ''}number", f"write a number {self.range}")
        if not self.low <= number <= self.high:
            raise Unfit(f"{number} is out of range", f"write a number {self.range}")
        return number

    def _read(self, value: object) -> int | float | None:
        if isinstance(value, str):
            try:
                value = int(value) if self.whole else float(value)
            except ValueError:
                return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        if self.whole:
            return int(value) if float(value).is_integer() else None
        return float(value)

    @property
    def range(self) -> str:
        return f"from {self.low:,g} to {self.high:,g}{' ' + self.unit if self.unit else ''}"


_SCHEMAS: dict[Parser, dict[str, object]] = {
    text: {"type": "string"},
    secret: {"type": "string"},
    agent_id: {"type": "string", "pattern": "^((Agent/)?[A-Za-z0-9.-]{1,64})?$"},
    base_url: {"type": "string", "pattern": "^(https?://[^/?#@]+(/[^?#]*)?)?$"},
    proxy: {"type": "string", "pattern": "^(http://[^/?#]+/?)?$"},
    path: {"type": "string"},
    level: {"enum": [*LEVELS, *(name.lower() for name in LEVELS)]},
    switch: {"type": "boolean"},
    listen: {
        "anyOf": [
            {"type": "string", "pattern": r"^((.*:)?[0-9]{1,5}|off|)$"},
            {"type": "integer", "minimum": 0, "maximum": 65_535},
            {"const": False},
        ]
    },
}


def schema_of(parser: Parser) -> dict[str, object]:
    """What the value looks like in TOML, as keywords of JSON Schema 2020-12; the empty text counts as not given."""
    match parser:
        case Number():
            kind = "integer" if parser.whole else "number"
            return {"type": kind, "minimum": parser.low, "maximum": parser.high}
        case Choice():
            return {"enum": list(parser.allowed)}
        case _:
            return dict(_SCHEMAS[parser])


def _kind(value: object) -> str:
    kinds: dict[type, str] = {
        bool: "true or false",
        int: "a number",
        float: "a number",
        list: "a list",
        dict: "a table",
    }
    return kinds.get(type(value), "a date")


def _shown(value: object) -> str:
    """A wrong value back to the person who wrote it, cut short."""
    raw = str(value)
    return f"'{raw[:60]}…'" if len(raw) > 60 else f"'{raw}'"
