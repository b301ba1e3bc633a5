"""`connections`: what the connections of each channel have done, for a person who asks why there is no message.

Secret: none; what is kept of a connection is `agent.channel`'s.
Promise: transport facts only: who, when, how many bytes, how they began; never what they said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from agent.commands.serve import Command
from agent.errors import AgentError


def connections(look: Callable[[int | None], list[dict[str, Any]]]) -> Command:
    """The local door only. `look(port)` gives the channels of one port, None: of all."""

    async def answer(args: Mapping[str, Any]) -> dict[str, Any]:
        port = args.get("port")
        if port is not None and (not isinstance(port, int) or isinstance(port, bool) or not 0 < port < 65_536):
            raise AgentError("'port' is no number from 1 to 65535")
        return {"channels": look(port)}

    return Command("connections", answer)
