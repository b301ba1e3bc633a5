"""A hub on a free port, and strangers who use it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from hub_strangers import Api, Line, Lobby

from agent.hub import Hub


@pytest.fixture
async def lobby(tmp_path: Path) -> AsyncIterator[Lobby]:
    async with AsyncExitStack() as stack:
        yield Lobby(tmp_path / "hub", stack)


@pytest.fixture
async def hub(lobby: Lobby) -> Hub:
    return await lobby.hub()


@pytest.fixture
async def api(lobby: Lobby, hub: Hub) -> Api:
    return await lobby.api(hub)


@pytest.fixture
async def line(lobby: Lobby, api: Api) -> Line:
    """A socket on which nobody said who they are."""
    return await lobby.line(api)


@pytest.fixture
async def agent_line(lobby: Lobby, api: Api) -> Line:
    """The ready-made agent, connected."""
    return await lobby.line(api, api.hub.agent_id)
