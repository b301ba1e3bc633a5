"""Promise: a reload that fails tells all problems of all channels, to the server and to people, and breaks nothing."""

from __future__ import annotations

import asyncio
import json

from ward_agents import AgentProcess
from ward_building import Ward
from ward_messages import adt
from ward_servers import ScriptedServer


async def reload(server: ScriptedServer, callback: str) -> dict[str, str]:
    """Ask for a reload as the server does; the answer."""
    await server.until_live()
    await server.links[-1].say({"type": "agent:reloadconfig:request", "callback": callback})
    return await server.answer_to(callback)


async def planned(agent: AgentProcess) -> tuple[int, dict[str, list[dict[str, str]]]]:
    status, out = await agent.ask("channel", "plan", "--from-server", "--apply", "--json")
    return status, json.loads(out)


async def test_every_problem_is_told_to_the_server_and_to_people_and_nothing_breaks(ward: Ward) -> None:
    # given a channel with a sender on it
    server = await ward.server()
    port, taken = ward.port(), ward.port()
    server.channel("adt", port)
    agent = await ward.running_agent(server)
    device = await ward.device(port)
    assert str(await device.ask(adt("A-1"))) == "AA A-1"

    # when a reload meets a port that is taken, a strange scheme, a foreign address and a bad parameter, all at once
    blocker = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", taken)
    async with blocker:
        server.channel("adt", ward.port())
        server.channel("taken", taken)
        server.endpoint("pigeon", "carrier-pigeon://roof")
        server.endpoint("foreign", f"mllp://192.0.2.1:{ward.port()}")
        server.channel("key", ward.port(), logicalChannelKey="PID")
        answer = await reload(server, "reload-1")
        status, plan = await planned(agent)

    # then the server hears of each in one answer
    assert answer["type"] == "agent:error"
    for name in ("taken", "pigeon", "foreign", "key"):
        assert name in answer["body"]
    assert "held by" in answer["body"]
    # and so do people, with a remedy for each
    errors = [problem for problem in plan["problems"] if problem["severity"] == "error"]
    assert status == 1
    assert {problem["channel"] for problem in errors} == {"taken", "pigeon", "foreign", "key"}
    assert all(problem["remedy"] for problem in errors)
    # and it stays a finding, while the connection lives, until a good reload
    assert "configuration.refused" in await agent.findings()
    assert str(await device.ask(adt("A-2"))) == "AA A-2"
    for name in ("taken", "pigeon", "foreign", "key"):
        del server.endpoints[name]
    server.channel("adt", port)
    assert (await reload(server, "reload-2"))["type"] == "agent:reloadconfig:response"
    assert "configuration.refused" not in await agent.findings()
    assert str(await device.ask(adt("A-3"))) == "AA A-3"


async def test_many_reloads_at_once_are_all_answered_once(ward: Ward) -> None:
    server = await ward.server()
    server.channel("adt", ward.port())
    await ward.running_agent(server)
    await server.until_live()
    before = server.configuration_reads
    for number in range(20):
        await server.links[-1].say({"type": "agent:reloadconfig:request", "callback": f"many-{number}"})
    for number in range(20):
        assert (await server.answer_to(f"many-{number}"))["type"] == "agent:reloadconfig:response"
        assert len(server.answers_to(f"many-{number}")) == 1
    assert server.configuration_reads - before < 20
