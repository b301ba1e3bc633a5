"""`status`: everything about the daemon, for the people of this host.

Secret: none; the report is `agent.status`'s.
Promise: the answer is the object of `agent status --json`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from agent.commands.serve import Command
from agent.status import StatusReport, to_builtins


def status(report: Callable[[], StatusReport]) -> Command:
    """The local door only: the server has `stats`."""

    async def answer(_: Mapping[str, Any]) -> dict[str, Any]:
        return to_builtins(report())

    return Command("status", answer)
