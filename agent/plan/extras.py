"""The optional libraries that some channels need.

Secret: which library carries which kind of channel, and the name of the extra that brings it.
Promise: a channel whose library is missing says so before anything is opened; nothing is imported to find out.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Final

from agent.errors import Finding, Severity
from agent.plan.kind import SERIAL, Kind
from agent.plan.subject import Subject

_EXTRAS: Final = ((SERIAL, "serial", "serial", "pyserial"), (Kind.DICOM, "dicom", "pynetdicom", "pynetdicom"))


def is_installed(module: str) -> bool:
    return find_spec(module) is not None


def missing_extra(subject: Subject, kind: Kind, have: Callable[[str], bool]) -> list[Finding]:
    """`have`: whether a module can be imported."""
    return [
        subject.finding(
            "extra-missing",
            Severity.ERROR,
            f"this host has not installed {library}, which a channel of this kind needs",
            f"pip install onprem-agent[{extra}]",
        )
        for kinds, extra, module, library in _EXTRAS
        if kind in kinds and not have(module)
    ]
