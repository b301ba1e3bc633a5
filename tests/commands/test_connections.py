"""`connections`: what the connections of each channel have done."""

from __future__ import annotations

from typing import Any

import pytest

from agent.commands.connections import connections
from agent.errors import AgentError


def look(port: int | None) -> list[dict[str, Any]]:
    channels = [{"name": "adt", "port": 2575}, {"name": "lab", "port": 2576}]
    return [channel for channel in channels if port in (None, channel["port"])]


async def test_all_channels_or_those_of_one_port() -> None:
    command = connections(look)

    assert [found["name"] for found in (await command.answer({}))["channels"]] == ["adt", "lab"]
    assert [found["name"] for found in (await command.answer({"port": 2576}))["channels"]] == ["lab"]
    assert await command.answer({"port": 99}) == {"channels": []}


@pytest.mark.parametrize("port", [0, -1, 65_536, "2575", 2575.0, True])
async def test_what_is_no_port_is_refused(port: object) -> None:
    with pytest.raises(AgentError, match="1 to 65535"):
        await connections(look).answer({"port": port})


def test_the_server_cannot_ask() -> None:
    assert connections(look).request is None
