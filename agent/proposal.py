"""A configuration that somebody looks at before it is in force.

Secret: what a plan was made from, and in which words its answer is spelt.
Promise: two bases are equal only if the same plan would come out; the facts name every change and every problem.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from agent.changes import Change, Running, compare
from agent.errors import AgentError, Finding, Severity
from agent.outlook import Outlook
from agent.plan import ConfigPlan
from agent.plan.subject import label
from agent.spec import ChannelSpec

_PARTS: Final = ("the configuration itself", "what runs on this host", "this host's settings")


class StaleBasis(AgentError):
    """What a plan was made from is not so any more."""

    hint = "look at the plan again, and apply that one"


@dataclass(frozen=True, slots=True)
class Proposal:
    """`changes` and `problems` of a plan; `applied`: it is in force now. `note`: what else to know, or empty."""

    basis: str
    changes: tuple[Change, ...]
    problems: tuple[Finding, ...]
    applied: bool = False
    note: str = ""

    @property
    def errors(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.problems if finding.severity is Severity.ERROR)

    def facts(self) -> dict[str, Any]:
        """For JSON."""
        names = [change.channel for change in self.changes]
        return {
            "basis": self.basis,
            "changes": [change.facts() for change in self.changes],
            "problems": [_problem(finding, names) for finding in self.problems],
            "applied": self.applied,
            "note": self.note,
        }


def draw_up(
    plan: ConfigPlan, outlook: Outlook, running: Mapping[str, Running], addresses: Mapping[str, str], basis: str
) -> Proposal:
    """The whole answer, from what the resources say and what this host does. `addresses`: of all channels that the
    resources name."""
    known = {spec.name for spec in plan.channels} | set(plan.skipped)
    unreadable = {name: address for name, address in addresses.items() if name not in known}
    changes = compare(running, plan.channels, outlook.failed, unreadable)
    return Proposal(basis, changes, (*plan.findings, *outlook.problems, *outlook.warnings))


def _problem(finding: Finding, names: Iterable[str]) -> dict[str, str]:
    """`where` taken apart: the channel, and what of it."""
    channel, field = "", finding.where
    for name in names:
        shown = label(name)
        if len(shown) >= len(channel) and (finding.where == shown or finding.where.startswith(f"{shown}.")):
            channel, field = name, finding.where[len(shown) + 1 :]
    return {
        "code": finding.code,
        "severity": finding.severity.value,
        "channel": channel,
        "field": field,
        "text": finding.text,
        "remedy": finding.remedy,
    }


def basis_of(digest: str, running: Mapping[str, Running], terms: str) -> str:
    """What a plan is made from: resources, the channels that run, and this host's settings."""
    return "-".join((digest, _mark([running[name].spec for name in sorted(running)]), _mark(terms)))


def _mark(what: list[ChannelSpec] | str) -> str:
    return hashlib.sha256(repr(what).encode("utf-8", "surrogatepass")).hexdigest()[:8]


def check_basis(given: str, now: str) -> None:
    """Raises StaleBasis, saying what has changed."""
    if given == now:
        return
    before, after = given.split("-"), now.split("-")
    if len(before) != len(after):
        raise StaleBasis("this is not the basis of a plan", hint="give the basis that `agent channel plan` printed")
    changed = [part for part, one, other in zip(_PARTS, before, after, strict=True) if one != other]
    raise StaleBasis(f"not applied: {' and '.join(changed)} changed since the plan was made")
