"""The unmodified Medplum CLI cannot tell the hub from a Medplum server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest
from medplum_cli import Cli

from agent.hub import Hub

pytestmark = pytest.mark.npm


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Hub]:
    """A hub that is quick to give up an agent that does not answer."""
    async with Hub.open(tmp_path / "hub", ("127.0.0.1", 0), operation_timeout_scale=0.4) as hub:
        yield hub


async def play_agents(hub: Hub, stack: AsyncExitStack, *agent_ids: str) -> None:
    """Connect agents that answer heartbeats and reload requests."""
    session = await stack.enter_async_context(aiohttp.ClientSession())
    form = {
        "grant_type": "client_credentials",
        "client_id": hub.client_id,
        "client_secret": hub.client_secret,
    }
    async with session.post(hub.base_url + "oauth2/token", data=form) as response:
        token = (await response.json())["access_token"]
    work = await stack.enter_async_context(asyncio.TaskGroup())

    async def play(socket: aiohttp.ClientWebSocketResponse) -> None:
        async for message in socket:
            frame = json.loads(message.data)
            if frame["type"] == "agent:reloadconfig:request":
                answer = {"type": "agent:reloadconfig:response", "statusCode": 200}
                await socket.send_json({**answer, "callback": frame["callback"]})

    for agent_id in agent_ids:
        socket = await session.ws_connect(hub.base_url.replace("http", "ws", 1) + "ws/agent")
        await socket.send_json({"type": "agent:connect:request", "accessToken": token, "agentId": agent_id})
        await socket.send_json({"type": "agent:heartbeat:response", "version": "7.7.7"})
        await socket.send_json({"type": "agent:heartbeat:request"})
        heard = [await socket.receive_json() for _ in range(2)]
        assert heard[0] == {"type": "agent:connect:response"}
        stack.push_async_callback(socket.close)
        work.create_task(play(socket))


async def test_login_by_client_credentials_is_remembered(logged_in: Cli, hub: Hub) -> None:
    status, printed = await logged_in.run("whoami")
    assert status == 0
    assert hub.base_url in printed
    assert f"Agent client (ClientApplication/{hub.client_id})" in printed


async def test_a_wrong_secret_is_no_login(cli: Cli, hub: Hub) -> None:
    _, printed = await cli.run(
        "login",
        *("--auth-type", "client-credentials", "--base-url", hub.base_url),
        *("--client-id", hub.client_id, "--client-secret", "wrong"),
    )
    assert "Failed to fetch tokens" in printed or "Invalid secret" in printed


async def test_get_reads_and_searches(logged_in: Cli, hub: Hub) -> None:
    agent = await logged_in.json("get", f"Agent/{hub.agent_id}")
    assert agent["channel"][0]["name"] == "hl7"
    bundle = await logged_in.json("get", "Agent?name=AGENT")
    assert [entry["resource"]["id"] for entry in bundle["entry"]] == [hub.agent_id]
    _, printed = await logged_in.run("get", "Agent/00000000-0000-4000-8000-000000000000")
    assert "Not found" in printed


async def test_post_put_patch_delete(logged_in: Cli) -> None:
    created = await logged_in.json("post", "Device", '{"resourceType":"Device","url":"mllp://10.0.0.9:2575"}')
    path = f"Device/{created['id']}"
    replaced = await logged_in.json("put", path, json.dumps({**created, "status": "active"}))
    assert replaced["status"] == "active"
    patch = '[{"op":"replace","path":"/status","value":"inactive"}]'
    assert (await logged_in.json("patch", path, patch))["status"] == "inactive"
    status, _ = await logged_in.run("delete", path)
    assert status == 0
    _, printed = await logged_in.run("get", path)
    assert "Gone" in printed


async def test_agent_status_of_several_agents(logged_in: Cli, hub: Hub) -> None:
    first = (await hub.put_agent("fleet one", {}))["id"]
    second = (await hub.put_agent("fleet two", {}))["id"]
    async with AsyncExitStack() as stack:
        await play_agents(hub, stack, first)
        status, printed = await logged_in.run("agent", "status", first, second)
        assert status == 0
        assert "2 successful response(s)" in printed
        rows = [line for line in printed.splitlines() if "fleet" in line]
        assert ["'connected'" in rows[0], "'7.7.7'" in rows[0]] == [True, True]
        assert "'unknown'" in rows[1]

        one = await logged_in.json("agent", "status", first, "--output", "json")
        assert "connected" in json.dumps(one)
        by_criteria = await logged_in.run("agent", "status", "--criteria", "Agent?name=fleet")
        assert "2 successful response(s)" in by_criteria[1]


async def test_agent_reload_config_of_one_and_of_several(logged_in: Cli, hub: Hub) -> None:
    first = (await hub.put_agent("fleet one", {}))["id"]
    offline = (await hub.put_agent("fleet offline", {}))["id"]
    async with AsyncExitStack() as stack:
        await play_agents(hub, stack, first)
        _, printed = await logged_in.run("agent", "reload-config", first)
        assert "1 successful response(s)" in printed
        _, printed = await logged_in.run("agent", "reload-config", "--criteria", "Agent?name=fleet")
        assert "1 successful response(s)" in printed
        assert "1 failed response(s)" in printed
        (row,) = [line for line in printed.splitlines() if offline in line]
        assert "'Timeout'" in row


async def test_no_agent_matches(logged_in: Cli) -> None:
    status, printed = await logged_in.run("agent", "status", "--criteria", "Agent?name=nobody")
    assert status != 0
    assert "Operation '$bulk-status' failed" in printed
