"""`stats`: counters and percentiles, for the server's $stats.

Secret: none; the numbers and their names are `agent.status`'s.
Promise: the answer is the `stats` object of `agent:stats:response`, without patient data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from agent.commands.serve import Command
from agent.protocol.envelope import StatsRequest, StatsResponse
from agent.status import StatusReport, wire_stats


def stats(report: Callable[[], StatusReport]) -> Command:
    """Both doors."""

    async def answer(_: Mapping[str, Any]) -> dict[str, Any]:
        return wire_stats(report())

    return Command("stats", answer, StatsRequest, lambda found, callback: StatsResponse(stats=found, callback=callback))
