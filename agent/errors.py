"""What can go wrong, named by whose move it is.

Secret: which party must act on a failure. A caller never looks at a message text to decide; it looks at the family.
Promise: every error says in one sentence what happened (`str(error)`) and, where a person can help, what to do
(`hint`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class AgentError(Exception):
    """Base of everything that this program expects to go wrong. `hint` is the remedy, one sentence, or empty."""

    hint: str = ""

    def __init__(self, text: str, *, hint: str = "") -> None:
        super().__init__(text)
        if hint:
            self.hint = hint


class PeerError(AgentError):
    """A sender broke the protocol: it hears a negative acknowledgement, nothing else changes.

    `loggable` is the text for our own log where the text for the sender quotes what it sent.
    """

    def __init__(self, text: str, *, hint: str = "", loggable: str = "") -> None:
        super().__init__(text, hint=hint)
        self.loggable = loggable or text


class LinkError(AgentError):
    """The network or the far end is away: wait and try again. `retry_after_s` where the far end said how long."""

    def __init__(self, text: str, *, hint: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(text, hint=hint)
        self.retry_after_s = retry_after_s


class StoreError(AgentError):
    """The disk does not keep what it is given: stop accepting until it does."""


class Severity(StrEnum):
    """How much a finding matters: `error` needs a person, `warning` will, `info` is good to know."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a person should know, with what to do about it.

    `code` is stable and dotted (`spool.full`, `channel.port-taken`, `settings.unknown-key`); `where` names the channel,
    the key or the file; `text` says what is so; `remedy` says what to do. No patient data in any of them.
    """

    code: str
    severity: Severity
    text: str
    remedy: str = ""
    where: str = ""

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        remedy = f" — {self.remedy}" if self.remedy else ""
        return f"{place}{self.text}{remedy}"


class ConfigError(AgentError):
    """A person must change a setting. Carries every problem found, not only the first."""

    def __init__(self, findings: tuple[Finding, ...] | list[Finding]) -> None:
        self.findings = tuple(findings)
        super().__init__("; ".join(str(finding) for finding in self.findings))
