"""`reload`: read the configuration again and run by it.

Secret: two requests at the same moment are done one after the other, not at once and not dropped.
Promise: success is answered only once the new configuration is in force; a failure names every problem found.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from agent.commands.serve import Command
from agent.protocol.envelope import ReloadConfigRequest, ReloadConfigResponse

DEADLINE_S = 60.0  # reads of the server's resources, each with a deadline of its own, and listeners that move


def reload(reload_config: Callable[[], Awaitable[None]]) -> Command:
    """Both doors. `reload_config` raises AgentError (ConfigError: with all problems) if nothing was changed."""
    turn = asyncio.Lock()

    async def answer(_: Mapping[str, Any]) -> dict[str, Any]:
        async with turn:
            await reload_config()
        return {}

    return Command(
        "reload", answer, ReloadConfigRequest, lambda _, callback: ReloadConfigResponse(callback=callback), DEADLINE_S
    )
