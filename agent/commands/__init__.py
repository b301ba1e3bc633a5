"""What the server and the people of this host may ask of the running daemon: one file per command.

Secret: which commands there are; how one is answered is in its own file, how all are answered in `serve`.
Promise: every request gets an answer, also the one that this version cannot fulfil.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from agent.commands.connections import connections
from agent.commands.logs import logs
from agent.commands.owed import Owed
from agent.commands.ping import Probe, ping
from agent.commands.plan import Propose, plan
from agent.commands.push import push
from agent.commands.reload import reload
from agent.commands.serve import Command, Commands, Request
from agent.commands.stats import stats
from agent.commands.status import status
from agent.logbook import Page
from agent.protocol.envelope import Push, PushResponse
from agent.status import StatusReport

__all__ = ["Command", "Commands", "Owed", "Request", "table"]


def table(
    *,
    report: Callable[[], StatusReport],
    reload_config: Callable[[], Awaitable[None]],
    look: Callable[[int | None], list[dict[str, Any]]],
    carry: Callable[[Push, Callable[[PushResponse], object]], None],
    probe: Probe,
    read_log: Callable[[int, str | None], Page],
    propose: Propose,
) -> tuple[Command, ...]:
    """Every command of this version. `reload_config` raises AgentError if the old configuration stays in force, and
    `propose` where it cannot say what would come of one; `look` gives what the connections of the channels on a port
    (None: of all) have done; `carry` delivers a message to a remote and answers; `probe` connects to a port; `read_log`
    gives a page of the main log."""

    async def echo(host: str, body: str) -> str:
        return await ping(host, body, probe)

    return (
        stats(report),
        reload(reload_config),
        plan(propose),
        status(report),
        connections(look),
        push(carry, echo),
        logs(read_log),
    )
