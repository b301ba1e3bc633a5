"""The server's end of /ws/agent says what the recorded server says, and stays bounded and fair."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from pathlib import Path
from typing import Any

import aiohttp
import hub_bots
import pytest
from hub_strangers import ADT_A01, Api, Line, Lobby

from agent.hub import Hub
from agent.hub.hub import channel_for, endpoint_for

RECORDED = json.loads((Path(__file__).parent / "data" / "odd_frames.json").read_text(encoding="utf-8"))["exchanges"]
OUR_OWN_WORDS = re.compile(
    r"is not valid JSON|Cannot read properties of null|in JSON at position|Unexpected end of JSON|"
    r"buildAck is not a function"
)
ACK_OF_NOW = re.compile(r"\|\d{14}\.\d{3}\|\|ACK\^A01\^ACK\|\d+\|")


def essence(text: str) -> str:
    """A frame without what differs between two moments and what only JavaScript says."""
    frame = json.loads(text)
    if OUR_OWN_WORDS.search(json.dumps(frame.get("body"))):
        frame["body"] = "own words"
    return ACK_OF_NOW.sub("|now||ACK^A01^ACK|id|", json.dumps(frame))


async def recorded_agent(hub: Hub) -> str:
    """The agent of the recording, with its four bots."""
    channels = []
    for name, code in (
        ("adt", "ack"),
        ("thrower", "python hub_bots:throws"),
        ("silent", "python hub_bots:silent"),
        ("json", "python hub_bots:echo"),
    ):
        bot = await hub.put_resource({"resourceType": "Bot", "name": name, "code": code})
        endpoint = await hub.put_resource(endpoint_for(name, "mllp://0.0.0.0:2575"))
        channels.append(channel_for(name, endpoint, bot))
    agent = await hub.put_resource({"resourceType": "Agent", "name": "agent", "status": "active", "channel": channels})
    return str(agent["id"])


async def test_every_odd_frame_gets_the_recorded_answer(hub: Hub, line: Line) -> None:
    agent_id = await recorded_agent(hub)
    for exchange in RECORDED:
        sent = exchange["sent"].replace("<access-token>", line.token).replace("<agent-id>", agent_id)
        await line.say(sent)
        if exchange["heard"] is None:
            continue  # if anything came, the next exchange would hear it instead of its own answer
        heard = await line.hear_text()
        recorded = exchange["heard"].replace("<agent-id>", agent_id)
        if "heartbeat:response" not in recorded:
            recorded_essence = essence(recorded)
            if '"own words"' in recorded_essence:
                frame = json.loads(heard)
                assert frame.pop("body")
                assert frame == {key: value for key, value in json.loads(recorded).items() if key != "body"}
            else:
                assert essence(heard) == recorded_essence


async def test_frames_have_the_key_order_of_the_recordings(agent_line: Line) -> None:
    await agent_line.say(agent_line.message())
    keys = list(json.loads(await agent_line.hear_text()))
    assert keys == ["type", "channel", "remote", "contentType", "statusCode", "body", "callback"]


async def test_a_callback_comes_back_unchanged_whatever_it_looks_like(agent_line: Line) -> None:
    for callback in ("Agent/x#attempt2", "ünï\u0000code", "x" * 5_000):
        assert (await agent_line.ask(agent_line.message(callback=callback)))["callback"] == callback


async def test_no_acknowledgement_while_the_disk_stalls(hub: Hub, agent_line: Line) -> None:
    disk = threading.Event()
    hub._store.later(lambda _: disk.wait(10))
    await agent_line.say(agent_line.message())
    assert (await agent_line.ask({"type": "agent:heartbeat:request"}))["type"] == "agent:heartbeat:response"
    assert hub.received == 0
    disk.set()
    assert (await agent_line.hear())["type"] == "agent:transmit:response"


async def test_what_cannot_be_stored_is_a_503(hub: Hub, agent_line: Line) -> None:
    pages = await hub._store.write(lambda db: db.execute("PRAGMA page_count").get)
    await hub._store.write(lambda db: db.execute(f"PRAGMA max_page_count={pages}").get)
    frame = await agent_line.ask(agent_line.message(body=ADT_A01 + "x" * 100_000))
    assert frame["statusCode"] == 503
    await hub._store.write(lambda db: db.execute("PRAGMA max_page_count=1000000").get)
    assert (await agent_line.ask(agent_line.message()))["statusCode"] == 200
    assert len(hub.messages()) == 1


async def test_an_acknowledged_message_is_in_the_inbox(hub: Hub, agent_line: Line) -> None:
    await agent_line.ask(agent_line.message(callback="one"))
    (kept,) = hub.messages(callback="one")
    opened = hub.message(kept.id)
    assert opened is not None
    assert opened.body == ADT_A01
    assert kept.control_id == "MSG00001"
    assert kept.message_type == "ADT^A01^ADT_A01"
    assert kept.status_code == 200
    assert kept.remote == "10.0.0.7:50123"
    assert opened.answer is not None
    assert "MSA|AA|MSG00001|OK" in opened.answer


async def test_a_repeated_message_is_kept_twice(hub: Hub, agent_line: Line) -> None:
    for _ in range(2):
        await agent_line.ask(agent_line.message(callback="same"))
    assert len(hub.messages(callback="same")) == 2


async def test_a_frame_over_the_limit_closes_the_socket_with_1009(lobby: Lobby) -> None:
    hub = await lobby.hub(max_frame_bytes=2_000)
    line = await lobby.line(await lobby.api(hub), hub.agent_id)
    overhead = len(json.dumps(line.message(body="")))
    head = ADT_A01.replace("\r", "\\r")[:200]
    await line.say(line.message(body="MSH|^~\\&|" + "x" * (2_000 - overhead - 10)))  # a backslash is two characters
    assert (await line.hear())["type"] == "agent:transmit:response"
    await line.say(line.message(body=head + "x" * 2_000))
    assert await line.closed() == aiohttp.WSCloseCode.MESSAGE_TOO_BIG
    assert len(hub.messages()) == 1


async def test_heartbeats_go_to_live_agents_only_and_teach_the_version(lobby: Lobby) -> None:
    hub = await lobby.hub(heartbeat_s=0.05)
    api = await lobby.api(hub)
    stranger, agent = await lobby.line(api), await lobby.line(api, hub.agent_id)
    assert hub.presence().version == "unknown"

    assert await agent.hear() == {"type": "agent:heartbeat:request"}
    await agent.say({"type": "agent:heartbeat:response", "version": "9.8.7"})
    await agent.say({"type": "agent:heartbeat:request"})
    answers = [await agent.hear()]
    while answers[-1]["type"] == "agent:heartbeat:request":
        answers.append(await agent.hear())
    assert set(answers[-1]) == {"type", "version"}
    assert hub.presence().version == "9.8.7"
    assert (await stranger.ask("null"))["type"] == "agent:error"  # and no heartbeat before it


async def test_an_agent_that_answers_no_heartbeat_is_dropped(lobby: Lobby) -> None:
    hub = await lobby.hub(heartbeat_s=0.05)
    agent = await lobby.line(await lobby.api(hub), hub.agent_id)
    await agent.closed()
    assert hub.presence().status == "disconnected"


async def test_two_sockets_of_one_agent_both_count(lobby: Lobby, api: Api) -> None:
    hub = api.hub
    first, second = await lobby.line(api, hub.agent_id), await lobby.line(api, hub.agent_id)
    await first.socket.close()
    assert hub.presence().status == "connected"
    await second.socket.close()
    assert hub.presence().status == "disconnected"


async def test_a_refused_introduction_leaves_a_live_agent_live(agent_line: Line) -> None:
    assert await agent_line.introduce("not-a-uuid") == {"type": "agent:error", "body": "Not found"}
    assert (await agent_line.ask(agent_line.message()))["statusCode"] == 200


async def test_a_token_is_judged_at_every_message(api: Api, agent_line: Line) -> None:
    client = api.hub.resource("ClientApplication", api.hub.client_id)
    await api.hub.put_resource({**client, "secret": "another"})
    assert await agent_line.ask(agent_line.message()) == {"type": "agent:error", "body": "Invalid access token"}


async def test_a_slow_target_does_not_hold_up_another_message(hub: Hub, api: Api, lobby: Lobby) -> None:
    agent = await hub.put_agent("slow", {"hl7": "mllp://0.0.0.0:1"}, code="python hub_bots:waits_on_the_loop")
    line = await lobby.line(api, agent["id"])
    hub_bots.gate.loop = asyncio.Event()
    await line.say(line.message(contentType="text/plain", body="wait", callback="first"))
    await line.say(line.message(contentType="text/plain", body="go", callback="second"))
    assert (await line.hear())["callback"] == "second"
    hub_bots.gate.loop.set()
    assert (await line.hear())["callback"] == "first"


async def settled(hub: Hub) -> int:
    """Status of the first message, once its target is done with it."""
    async with asyncio.timeout(10):
        while not (messages := hub.messages()) or messages[0].status_code is None:
            await hub.put_resource({"resourceType": "Basic"})  # each write comes after the settlement before it
    return messages[0].status_code


async def test_a_target_ends_its_work_though_the_agent_is_gone(hub: Hub, api: Api, lobby: Lobby) -> None:
    agent = await hub.put_agent("gone", {"hl7": "mllp://0.0.0.0:1"}, code="python hub_bots:waits_on_the_loop")
    line = await lobby.line(api, agent["id"])
    hub_bots.gate.loop = asyncio.Event()
    await line.say(line.message(contentType="text/plain", body="wait"))
    await hub.wait_for_messages(1)
    assert hub.messages()[0].status_code is None
    await line.socket.close()
    hub_bots.gate.loop.set()
    assert await settled(hub) == 200


async def test_a_stored_message_meets_its_target_though_the_agent_is_gone(hub: Hub, api: Api, lobby: Lobby) -> None:
    agent = await hub.put_agent("gone", {"hl7": "mllp://0.0.0.0:1"}, code="python hub_bots:shout")
    line = await lobby.line(api, agent["id"])
    disk = threading.Event()
    hub._store.later(lambda _: disk.wait(10))
    await line.say(line.message(contentType="text/plain", body="x"))
    await line.ask({"type": "agent:heartbeat:request"})
    await line.socket.close()
    disk.set()
    assert await settled(hub) == 200


async def test_a_flood_is_answered_completely(hub: Hub, agent_line: Line) -> None:
    count = 6_000  # more than may be under way at once

    async def send() -> None:
        for number in range(count):
            await agent_line.say(agent_line.message(callback=str(number)))

    async with asyncio.TaskGroup() as both:
        both.create_task(send())
        callbacks = {(await agent_line.hear())["callback"] for _ in range(count)}
    assert len(callbacks) == count
    assert hub.received == count


async def test_dropped_sockets_end_without_a_goodbye(hub: Hub, agent_line: Line) -> None:
    hub.drop_sockets()
    assert await agent_line.closed() == aiohttp.WSCloseCode.ABNORMAL_CLOSURE


async def test_a_hub_that_ends_says_goodbye(lobby: Lobby) -> None:
    async with asyncio.TaskGroup() as farewell, Hub.open(lobby.folder, ("127.0.0.1", 0)) as hub:
        line = await lobby.line(await lobby.api(hub), hub.agent_id)
        code = farewell.create_task(line.closed())
    assert code.result() == aiohttp.WSCloseCode.GOING_AWAY


async def test_a_test_may_send_any_text_to_an_agent(hub: Hub, agent_line: Line) -> None:
    assert hub.send_text(hub.agent_id, "this is no frame") == 1
    assert await agent_line.hear_text() == "this is no frame"
    assert hub.send_text("00000000-0000-4000-8000-000000000000", "x") == 0


@pytest.mark.parametrize("path", ["ws/nonsense", "ws", "agent"])
async def test_other_paths_are_no_socket(api: Api, path: str) -> None:
    reply = await api.call("GET", path)
    assert reply.status == 404


def test_the_sample_holds_the_whole_recording() -> None:
    heard: list[Any] = [exchange["heard"] for exchange in RECORDED]
    assert len(heard) == 42
    assert heard.count(None) == 4
