"""What a finding of the plan is about: a channel or a remote.

Secret: how each is named to people, and where the name of a parameter stands.
Promise: a finding is one line that a terminal can show, whatever the server wrote; of a remote it names host and port
and never the whole address.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from agent.errors import Finding, Severity


class Family(StrEnum):
    """Whose address it is, an Endpoint's or a Device's; the first word of its findings' codes."""

    CHANNEL = "channel"
    REMOTE = "remote"


@dataclass(frozen=True, slots=True)
class Subject:
    """`name`: of a channel, as the server wrote it; host:port of a remote, empty where it cannot be read."""

    family: Family
    name: str

    def finding(self, code: str, severity: Severity, text: str, remedy: str, parameter: str = "") -> Finding:
        """About one parameter, or about the whole address. `code` without the family."""
        code, parameter = f"{self.family}.{code}", label(parameter)
        match self.family:
            case Family.CHANNEL:
                return Finding(code, severity, text, remedy, f"{label(self.name)}.{parameter or 'address'}")
            case Family.REMOTE:
                text = f"{parameter}: {text}" if parameter else text
                return Finding(code, severity, text, remedy, f"remote {self.name}".rstrip())
            case _:
                assert_never(self.family)


def label(name: str) -> str:
    """A name that somebody else wrote, fit for one line of a screen."""
    return "".join(character if character.isprintable() else "?" for character in name[:60])


def strictly(finding: Finding) -> Finding:
    """As strictConfigValidation has it: every warning is an error."""
    return dataclasses.replace(finding, severity=Severity.ERROR) if finding.severity is Severity.WARNING else finding
