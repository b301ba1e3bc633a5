"""The kinds of address that there are.

Secret: which scheme, with which `mode`, makes which kind, and what each is called.
Promise: every address that can be read is of exactly one kind; a scheme that none can have is named with what exists.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Flag, auto
from typing import Final

from agent.plan.subject import Family


class Kind(Flag):
    """What an address is for; several of them where a table says on which ones something holds."""

    MLLP = auto()
    STREAM = auto()
    ASTM = auto()
    DICOM = auto()
    SERIAL_STREAM = auto()
    SERIAL_ASTM = auto()
    REMOTE = auto()
    ASTM_REMOTE = auto()

    @property
    def words(self) -> tuple[str, ...]:
        """Each of them in lower case, for programs: `stream`, `serial-astm`."""
        return tuple(str(kind.name).lower().replace("_", "-") for kind in Kind if kind in self)


SERIAL: Final = Kind.SERIAL_STREAM | Kind.SERIAL_ASTM
STREAMS: Final = Kind.STREAM | Kind.SERIAL_STREAM
ANALYSERS: Final = Kind.ASTM | Kind.SERIAL_ASTM
SOCKETS: Final = Kind.MLLP | Kind.STREAM | Kind.ASTM | Kind.DICOM
CHANNELS: Final = SOCKETS | SERIAL
REMOTES: Final = Kind.REMOTE | Kind.ASTM_REMOTE
ALL: Final = CHANNELS | REMOTES

_CALLED: Final = (  # the first that has all of them
    (Kind.MLLP, "an MLLP channel"),
    (Kind.STREAM, "a byte stream channel"),
    (Kind.ASTM, "an ASTM channel"),
    (Kind.DICOM, "a DICOM channel"),
    (Kind.SERIAL_STREAM, "a serial byte stream channel"),
    (Kind.SERIAL_ASTM, "a serial ASTM channel"),
    (SERIAL, "a serial channel"),
    (STREAMS, "a byte stream channel"),
    (ANALYSERS, "an ASTM channel"),
    (STREAMS | ANALYSERS, "a byte stream or ASTM channel"),
    (SOCKETS, "a channel with TCP connections"),
    (CHANNELS, "a channel"),
    (Kind.REMOTE, "an MLLP remote"),
    (Kind.ASTM_REMOTE, "an ASTM remote"),
    (REMOTES, "a remote"),
)
_ASTM_BY_MODE: Final = {"tcp": Kind.ASTM, "serial": Kind.SERIAL_ASTM}
_KINDS: Final = {
    Family.CHANNEL: {
        "mllp": Kind.MLLP,
        "mllps": Kind.MLLP,
        "tcp": Kind.STREAM,
        "astm": Kind.ASTM,
        "dicom": Kind.DICOM,
        "serial": Kind.SERIAL_STREAM,
    },
    Family.REMOTE: {"mllp": Kind.REMOTE, "mllps": Kind.REMOTE, "astm": Kind.ASTM_REMOTE},
}
_NO_REMOTE: Final = {
    "tcp": "use mllp:// for HL7 v2, or astm:// for an analyser",
    "serial": "use astm://NAME, where NAME is the channel that has the serial line to the analyser",
    "dicom": "use mllp:// or astm://",
}


@dataclass(frozen=True, slots=True)
class NoScheme:
    """Why an address of this scheme is none. `known`: it is one of ours, in another place."""

    known: bool
    text: str
    remedy: str


def called(kinds: Kind) -> str:
    """For people, with the article; the smallest group that has a name."""
    return next(name for group, name in _CALLED if kinds in group)


def kind_of(family: Family, scheme: str, mode: str) -> Kind | NoScheme:
    """`scheme` in lower case; `mode` as the address has it, empty without one."""
    kinds = _KINDS[family]
    if scheme in kinds:
        by_mode = family is Family.CHANNEL and mode.strip().lower() == "astm"
        return _ASTM_BY_MODE.get(scheme, kinds[scheme]) if by_mode else kinds[scheme]
    if family is Family.REMOTE and scheme in _NO_REMOTE:
        return NoScheme(True, f"messages are not pushed to {scheme}:// addresses", _NO_REMOTE[scheme])
    *others, last = (f"{known}://" for known in kinds)
    remedy = f"use {', '.join(others)} or {last}"
    if scheme.removesuffix("s") in kinds:
        remedy = f"use {scheme.removesuffix('s')}://, which is not encrypted; only mllps:// is"
    return NoScheme(False, f"the scheme {scheme[:20]!a} is unknown", remedy)
