"""`reload`: read the configuration again and run by it.

Secret: how many may wait for one, and how long.
Promise: success is answered only once the new configuration is in force; a failure names every problem found.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from agent.commands.serve import WAITING, Command
from agent.protocol.envelope import ReloadConfigRequest, ReloadConfigResponse

DEADLINE_S: Final = 60.0  # reads of the server's resources, each with a deadline of its own, and ports that move


def reload(reload_config: Callable[[], Awaitable[None]]) -> Command:
    """Both doors. `reload_config` raises AgentError (ConfigError: with all problems) if nothing was changed; whoever
    calls it while it is at work shares one further run, so they all may wait here at one time."""

    async def answer(_: Mapping[str, Any]) -> dict[str, Any]:
        await reload_config()
        return {}

    return Command(
        "reload",
        answer,
        ReloadConfigRequest,
        lambda _, callback: ReloadConfigResponse(callback=callback),
        DEADLINE_S,
        at_once=WAITING,
    )
