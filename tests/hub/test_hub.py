"""What a new hub begins with, where it listens, and how it refuses to start."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from hub_strangers import Lobby

from agent.errors import LinkError, StoreError
from agent.hub import Hub, Refused


async def test_a_new_hub_has_a_ready_made_agent(lobby: Lobby) -> None:
    hub = await lobby.hub(channel_address="mllp://127.0.0.1:12575")
    agent = hub.resource("Agent", hub.agent_id)
    (channel,) = agent["channel"]
    assert channel["name"] == "hl7"
    _, _, endpoint = channel["endpoint"]["reference"].partition("/")
    assert hub.resource("Endpoint", endpoint)["address"] == "mllp://127.0.0.1:12575"
    _, _, bot = channel["targetReference"]["reference"].partition("/")
    assert hub.resource("Bot", bot)["code"] == "ack"
    assert len(hub.client_secret) >= 32


async def test_two_hubs_share_no_secret(tmp_path: Path) -> None:
    async with (
        Hub.open(tmp_path / "a", ("127.0.0.1", 0)) as one,
        Hub.open(tmp_path / "b", ("127.0.0.1", 0)) as two,
    ):
        assert one.client_secret != two.client_secret
        assert one.base_url != two.base_url


async def test_the_base_url_is_one_that_answers(tmp_path: Path) -> None:
    async with Hub.open(tmp_path, ("0.0.0.0", 0)) as hub:
        assert hub.base_url.startswith("http://127.0.0.1:")
        assert hub.base_url.endswith("/")


async def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(LinkError, match=f"127.0.0.1:{port}") as refused:
            async with Hub.open(tmp_path, ("127.0.0.1", port)):
                pass
    assert "--listen" in refused.value.hint


async def test_a_folder_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="file") as refused:
        async with Hub.open(tmp_path / "file", ("127.0.0.1", 0)):
            pass
    assert "--data-dir" in refused.value.hint


async def test_an_error_of_the_user_of_a_hub_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        async with Hub.open(tmp_path, ("127.0.0.1", 0)):
            raise ZeroDivisionError


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no permission bits")
async def test_nobody_else_can_read_the_folder(hub: Hub, lobby: Lobby) -> None:
    assert lobby.folder.stat().st_mode & 0o077 == 0
    assert (lobby.folder / "token.key").stat().st_mode & 0o077 == 0


async def test_an_agent_is_put_with_its_channels_in_one_go(hub: Hub) -> None:
    first = await hub.put_agent("ward 5", {"adt": "mllp://0.0.0.0:1", "oru": "mllp://0.0.0.0:2"})
    assert [channel["name"] for channel in first["channel"]] == ["adt", "oru"]
    again = await hub.put_agent("ward 5", {"adt": "mllp://0.0.0.0:3"}, agent_id=first["id"])
    assert again["id"] == first["id"]
    assert len(again["channel"]) == 1


async def test_resources_are_checked_as_over_rest(hub: Hub) -> None:
    bad: dict[str, Any] = {"resourceType": "Agent", "name": "x"}
    with pytest.raises(Refused, match=r"Agent\.status"):
        await hub.put_resource(bad)
    with pytest.raises(Refused, match="UUID"):
        await hub.put_resource({"resourceType": "Device", "id": "x"})


async def test_somebody_may_wait_for_an_agent(hub: Hub, lobby: Lobby) -> None:
    with pytest.raises(TimeoutError):
        await hub.wait_for_agent(within_s=0.01)
    await lobby.line(await lobby.api(hub), hub.agent_id)
    await hub.wait_for_agent()
