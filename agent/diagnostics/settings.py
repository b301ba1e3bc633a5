"""The local settings.

Secret: none; what is wrong with them is found where they are read.
Promise: the same findings as at a start, and where the settings come from.
"""

from __future__ import annotations

from typing import Final

from agent.diagnostics.check import Looked
from agent.diagnostics.host import Host, Running
from agent.errors import Finding, Severity

_ANOTHER_WAY: Final = Finding(
    "settings.not-the-agents",
    Severity.INFO,
    "the running agent was given settings that this command was not",
    "name the agent's file with --config, or run this with the environment of its service",
)


async def look(host: Host) -> Looked:
    errors = sum(finding.severity is Severity.ERROR for finding in host.told)
    places = ", ".join(dict.fromkeys(_place(source) for source in host.sources.values() if source != "default"))
    if errors:
        another_way = (_ANOTHER_WAY,) if isinstance(host.daemon, Running) else ()
        return Looked(f"cannot be used: {errors} problem{'s' * (errors != 1)}", (*host.told, *another_way))
    return Looked(f"complete, from {places}" if places else "complete", host.told)


def _place(source: str) -> str:
    """Many arguments, and many variables, are one place."""
    match source.partition(" ")[0]:
        case "argument":
            return "the command line"
        case "environment":
            return "the environment"
        case _:
            return source
