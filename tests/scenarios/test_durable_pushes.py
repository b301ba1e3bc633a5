"""Durable $push: what was stored for a remote reaches it, in order, whatever happens to the agent, the remote or the
disk; twice only where nobody can know, and marked then."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from ward_agents import AgentProcess
from ward_building import Ward
from ward_disks import small_disk
from ward_messages import adt
from ward_remotes import Pushed, Remote, silence
from ward_servers import ScriptedServer


@pytest.fixture
async def server(ward: Ward) -> ScriptedServer:
    return await ward.server()


@pytest.fixture
async def agent(ward: Ward, server: ScriptedServer) -> AgentProcess:
    agent = await ward.running_agent(server)
    await server.until_live()
    return agent


@pytest.fixture
async def remote(ward: Ward) -> Remote:
    return await ward.remote()


def durable(remote: Remote, **more: object) -> str:
    return remote.url(durable="true", autoRetryBaseDelayMs=50, autoRetryMaxDelayMs=200, **more)


async def listed(agent: AgentProcess, *words: str) -> list[dict[str, Any]]:
    """`agent messages list --json`, oldest first."""
    _, output = await agent.ask("messages", "list", "--json", *words)
    found: list[dict[str, Any]] = json.loads(output)["messages"]
    return found[::-1]


async def stored(agent: AgentProcess, count: int) -> None:
    """Until so many messages wait on disk for remotes."""
    await agent.until(lambda status: sum(client["stored"] for client in status["clients"]) == count)


async def test_a_durable_push_is_answered_when_the_remote_answers_however_often_it_had_to_be_tried(
    agent: AgentProcess, server: ScriptedServer, remote: Remote
) -> None:
    # given a remote that is away
    await remote.go()
    callback = await server.push(durable(remote), adt("P-1"))
    await agent.until(lambda status: any(client["failed"].get("refused", 0) > 1 for client in status["clients"]))
    assert not server.answers_to(callback)
    # when it comes, then it gets the message, and the server its answer
    await remote.come()
    answer = await server.answer_to(callback)
    assert (answer["statusCode"], answer["remote"]) == (200, durable(remote))
    assert "MSA|AA|P-1" in answer["body"]
    (row,) = await listed(agent)
    assert (row["direction"], row["state"], row["controlId"], row["ambiguous"]) == ("out", "processed", "P-1", False)
    assert row["attempts"] > 2


async def test_who_does_not_wait_hears_as_soon_as_the_message_is_stored(
    agent: AgentProcess, server: ScriptedServer, remote: Remote
) -> None:
    await remote.go()
    callback = await server.push(durable(remote), adt("P-1"), waitForResponse=False)
    answer = await server.answer_to(callback)
    assert answer["statusCode"] == 202
    assert "stored" in answer["body"]
    (row,) = await listed(agent)
    assert (row["direction"], row["controlId"]) == ("out", "P-1")
    # and the remote's own answer comes later, for nobody in particular, as from every agent
    await remote.come()
    await server.until(lambda: any("MSA|AA|P-1" in str(frame.get("body")) for frame in server.frames))
    assert len(server.answers_to(callback)) == 1


async def test_what_waits_survives_kill_minus_nine_and_arrives_in_order(
    agent: AgentProcess, server: ScriptedServer, remote: Remote
) -> None:
    # given thirty messages that are stored, the first of them written and unanswered
    remote.script = silence
    callbacks = [
        await server.push(durable(remote, ackTimeoutMs=60_000), adt(f"P-{number:02}"), f"callback-{number}")
        for number in range(30)
    ]
    await remote.until_heard("P-00")
    await stored(agent, 30)
    # when the agent is killed and started again, and the remote answers
    await agent.kill()

    async def accept(pushed: Pushed) -> None:
        await pushed.answer()

    remote.script = accept
    await agent.start()
    # then each arrives, in order, and only the one that nobody could know about arrives twice
    for number, callback in enumerate(callbacks):
        assert f"MSA|AA|P-{number:02}" in (await server.answer_to(callback))["body"]
    assert remote.ids == ["P-00", *(f"P-{number:02}" for number in range(30))]
    rows = await listed(agent, "--limit", "100")
    assert [(row["controlId"], row["ambiguous"]) for row in rows] == [
        (f"P-{number:02}", number == 0) for number in range(30)
    ]


async def test_more_than_memory_keeps_waits_on_disk_and_stays_in_order(
    agent: AgentProcess, server: ScriptedServer, remote: Remote
) -> None:
    await remote.go()
    url = durable(remote)
    for number in range(700):
        await server.push(url, adt(f"P-{number:03}"), waitForResponse=False)
    await stored(agent, 700)
    await remote.come()
    await remote.until_heard("P-699", within_s=60)
    assert remote.ids == [f"P-{number:03}" for number in range(700)]
    await stored(agent, 0)


async def test_one_remote_that_is_away_holds_up_no_other(
    ward: Ward, agent: AgentProcess, server: ScriptedServer, remote: Remote
) -> None:
    away = await ward.remote()
    await away.go()
    waiting = [await server.push(durable(away), adt(f"A-{number}")) for number in range(10)]
    well = [await server.push(durable(remote), adt(f"W-{number}")) for number in range(50)]
    for callback in well:
        await server.answer_to(callback)
    assert not any(server.answers_to(callback) for callback in waiting)


async def test_a_remote_that_refuses_a_message_has_answered_it_and_one_that_cannot_commit_has_not(
    agent: AgentProcess, server: ScriptedServer, remote: Remote
) -> None:
    # given a remote that refuses the first message, and cannot commit the second one at first
    async def odd(pushed: Pushed) -> None:
        if pushed.control_id == "P-1":
            await pushed.answer("AR")
        else:
            await pushed.answer("CE" if remote.ids.count("P-2") < 3 else "AA")

    remote.script = odd
    first, second = [await server.push(durable(remote), adt(control_id)) for control_id in ("P-1", "P-2")]
    assert "MSA|AR|P-1" in (await server.answer_to(first))["body"]
    assert "MSA|AA|P-2" in (await server.answer_to(second))["body"]
    assert remote.ids == ["P-1", "P-2", "P-2", "P-2"]
    assert [row["state"] for row in await listed(agent)] == ["rejected", "processed"]


async def test_what_is_ambiguous_is_left_to_a_person_unless_delivery_is_guaranteed(
    agent: AgentProcess, server: ScriptedServer, remote: Remote
) -> None:
    # given a remote that takes the first message without a word
    async def first_silent(pushed: Pushed) -> None:
        if pushed.control_id != "P-1":
            await pushed.answer()

    remote.script = first_silent
    url = durable(remote, retryMode="normal", ackTimeoutMs=300)
    first, second = [await server.push(url, adt(control_id)) for control_id in ("P-1", "P-2")]
    # then it is held, the server hears why, and the next one goes
    assert "no acknowledgement within 0.3 s" in (await server.answer_to(first))["body"]
    assert "MSA|AA|P-2" in (await server.answer_to(second))["body"]
    assert remote.ids == ["P-1", "P-2"]
    rows = await listed(agent)
    assert [(row["state"], row["ambiguous"]) for row in rows] == [("held", True), ("processed", False)]


async def test_the_tries_of_a_bounded_policy_end(agent: AgentProcess, server: ScriptedServer, remote: Remote) -> None:
    await remote.go()
    url = durable(remote, retryMode="normal", autoRetryMaxAttempts=3)
    answer = await server.answer_to(await server.push(url, adt("P-1")))
    assert answer["statusCode"] == 400
    assert "connection refused" in answer["body"]
    (row,) = await listed(agent, "--state", "problem")
    assert (row["state"], row["attempts"], row["direction"]) == ("failed", 3, "out")


async def test_the_server_can_make_every_remote_durable(ward: Ward, server: ScriptedServer, remote: Remote) -> None:
    server.settings = {"outboundDurable": True}
    agent = await ward.running_agent(server)
    await server.until(lambda: server.configuration_reads > 0)
    await server.until_live()
    await server.answer_to(await server.push(remote.url(), adt("P-1")))
    await server.answer_to(await server.push(remote.url(durable="false"), adt("P-2")))
    assert [row["controlId"] for row in await listed(agent)] == ["P-1"]


async def test_a_stop_leaves_on_disk_what_was_not_sent_and_makes_nothing_ambiguous(
    agent: AgentProcess, server: ScriptedServer, remote: Remote
) -> None:
    await remote.go()
    for number in range(5):
        await server.push(durable(remote), adt(f"P-{number}"), waitForResponse=False)
    await stored(agent, 5)
    agent.terminate()
    assert await agent.ended() == 0
    await remote.come()
    await agent.start()
    await remote.until_heard("P-4")
    assert remote.ids == [f"P-{number}" for number in range(5)]
    await stored(agent, 0)
    assert not any(row["ambiguous"] for row in await listed(agent))


async def test_both_directions_stand_in_one_list(ward: Ward, server: ScriptedServer, remote: Remote) -> None:
    port = ward.port()
    server.channel("adt", port)
    agent = await ward.running_agent(server)
    device = await ward.device(port)
    await device.ask(adt("IN-1"))
    await server.answer_to(await server.push(durable(remote), adt("OUT-1")))
    assert [(row["direction"], row["controlId"]) for row in await listed(agent)] == [("in", "IN-1"), ("out", "OUT-1")]
    assert [row["controlId"] for row in await listed(agent, "--direction", "out")] == ["OUT-1"]
    assert [row["controlId"] for row in await listed(agent, "--direction", "in")] == ["IN-1"]
    # and each direction knows nothing of the other's control ids
    assert str(await device.ask(adt("OUT-1"))) == "AA OUT-1"
    assert len(server.heard) == 2


async def test_the_hub_says_ok_only_when_the_message_is_stored(ward: Ward, remote: Remote) -> None:
    # given the embedded server with an agent, and a durable remote that is away
    hub = await ward.hub()
    await remote.go()
    device = await hub.put_resource({"resourceType": "Device", "url": durable(remote)})
    agent = await ward.running_agent(hub)
    await hub.wait_for_agent()
    async with aiohttp.ClientSession() as http:
        form = {"grant_type": "client_credentials", "client_id": hub.client_id, "client_secret": hub.client_secret}
        async with http.post(hub.base_url + "oauth2/token", data=form) as granted:
            token = (await granted.json())["access_token"]

        async def push(control_id: str, **more: object) -> tuple[int, str]:
            request = {
                "destination": f"Device/{device['id']}",
                "contentType": "x-application/hl7-v2+er7",
                "body": adt(control_id).decode(),
                **more,
            }
            url = f"{hub.base_url}fhir/R4/Agent/{hub.agent_id}/$push"
            async with http.post(url, json=request, headers={"Authorization": f"Bearer {token}"}) as answer:
                return answer.status, await answer.text()

        # when somebody pushes without waiting for the answer, then it is on disk once they are told
        status, _ = await push("P-1")
        assert status == 200
        await agent.kill()
        assert [row["controlId"] for row in await listed(agent)] == ["P-1"]
        # and with no agent there is no promise
        status, text = await push("P-2", waitTimeout=300)
        assert (status, "Timeout" in text) == (400, True)
        await remote.come()
        await agent.start()
        await remote.until_heard("P-1")


async def test_a_full_disk_refuses_durable_pushes_and_no_others(
    ward: Ward, server: ScriptedServer, short_path: Path
) -> None:
    remote = await ward.remote()
    with small_disk(short_path / "disk", size_mib=24) as disk:
        agent = await ward.running_agent(server, AGENT_SPOOL_DIR=str(disk.path))
        await server.until_live()
        disk.fill()
        await agent.until(lambda status: not status["spool"]["writable"])
        answer = await server.answer_to(await server.push(durable(remote), adt("P-1")))
        assert "not stored" in answer["body"]
        assert (await server.answer_to(await server.push(remote.url(), adt("P-2"))))["statusCode"] == 200
        assert remote.ids == ["P-2"]


async def test_a_push_that_comes_again_after_an_unknown_end_is_only_sent_when_asked(
    agent: AgentProcess, server: ScriptedServer, remote: Remote
) -> None:
    # given a guaranteed remote that swallows a message once
    async def once_silent(pushed: Pushed) -> None:
        if remote.ids.count(pushed.control_id) > 1:
            await pushed.answer()

    remote.script = once_silent
    callback = await server.push(durable(remote, ackTimeoutMs=300), adt("P-1"))
    assert "MSA|AA|P-1" in (await server.answer_to(callback))["body"]
    (row,) = await listed(agent)
    assert (row["ambiguous"], row["state"], remote.ids) == (True, "processed", ["P-1", "P-1"])
    assert len(server.answers_to(callback)) == 1
    async with asyncio.timeout(5):
        await stored(agent, 0)
