"""Which `[tls.NAME]` of this host an address means.

Secret: how a name on an address finds a table whose name the environment may write in another way.
Promise: a name that fits no table, or two alike, is an error and never a guess.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from agent.errors import Finding, Severity
from agent.plan.options import nearest
from agent.plan.subject import Subject, label
from agent.settings.shape import folded
from agent.spec import TlsSpec

DEFAULT: Final = "default"


def tls_of(
    subject: Subject,
    named: str | None,
    unnamed: tuple[str, ...],
    *,
    secure: bool,
    ours: Mapping[str, TlsSpec],
    problems: list[Finding],
) -> TlsSpec | None:
    """The table that `tls=` names; without it the first of `unnamed` that there is. None: there is none, or no TLS."""
    if not secure:
        if named is not None:
            text, remedy = "it has no effect: mllp:// is not encrypted", "write mllps://, or remove it"
            problems.append(subject.finding("tls-unused", Severity.WARNING, text, remedy, "tls"))
        return None
    if named is None:
        return next((spec for name in unnamed if (spec := _find(name, ours)) is not None), None)
    spec = _find(named, ours)
    if spec is None:
        meant = nearest(named, ours)
        advice = f"did you mean {meant}?" if meant else "correct the name, or add it to this host's config.toml;"
        remedy = f"{advice} {what_we_have(ours)}"
        text = f"this host has no [tls.{label(named)}] in its configuration"
        problems.append(subject.finding("tls-unknown", Severity.ERROR, text, remedy, "tls"))
    return spec


def what_we_have(ours: Mapping[str, TlsSpec]) -> str:
    return f"this host has {', '.join(ours)}" if ours else "this host has none"


def _find(name: str, ours: Mapping[str, TlsSpec]) -> TlsSpec | None:
    """By its name; else the only one that differs from it as the environment may write it."""
    if name in ours:
        return ours[name]
    alike = [spec for own, spec in ours.items() if folded(own) == folded(name)]
    return alike[0] if len(alike) == 1 else None
