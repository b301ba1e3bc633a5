"""Received messages can be counted, found, read back, and stay bounded."""

from __future__ import annotations

import asyncio

import pytest
from hub_strangers import ADT_A01, Api, Line, Lobby

from agent.hub import Hub
from agent.hub.inbox import header_of


async def test_messages_are_listed_by_what_is_known_of_them(api: Api, agent_line: Line) -> None:
    other = ADT_A01.replace("MSG00001", "MSG00002")
    await agent_line.ask(agent_line.message(callback="one"))
    await agent_line.ask(agent_line.message(callback="two", body=other))
    listed = (await api.call("GET", "hub/messages")).json
    assert listed["total"] == 2
    first = listed["messages"][0]
    assert first == {
        "id": 1,
        "received": first["received"],
        "agent": api.hub.agent_id,
        "channel": "hl7",
        "remote": "10.0.0.7:50123",
        "contentType": "x-application/hl7-v2+er7",
        "callback": "one",
        "controlId": "MSG00001",
        "messageType": "ADT^A01^ADT_A01",
        "sizeBytes": len(ADT_A01),
        "statusCode": 200,
    }
    for query, ids in (
        ("controlId=MSG00002", [2]),
        ("channel=hl7&_count=1&_offset=1", [2]),
        ("channel=other", []),
        (f"agent={api.hub.agent_id}", [1, 2]),
        ("callback=one", [1]),
        ("since=2000-01-01T00:00:00Z", [1, 2]),
        ("since=2999", []),
    ):
        found = (await api.call("GET", f"hub/messages?{query}")).json["messages"]
        assert [message["id"] for message in found] == ids, query
    assert (await api.call("GET", "hub/messages?bogus=1")).problem == "Unknown search parameter: bogus"
    assert (await api.call("GET", "hub/messages?_count=x")).status == 400


async def test_a_message_is_read_back_as_it_came(api: Api, agent_line: Line) -> None:
    body = ADT_A01 + "\rOBX|1|TX|||Größe 漢字 \U0001f600 \x00 end"
    answer = (await agent_line.ask(agent_line.message(body=body)))["body"]
    message = (await api.call("GET", "hub/messages/1")).json
    assert (message["body"], message["answer"]) == (body, answer)
    assert message["sizeBytes"] == len(body.encode())
    for missing in ("2", "999999999999999999", "x"):
        assert (await api.call("GET", f"hub/messages/{missing}")).status == 404


async def test_never_more_than_so_many_are_kept(lobby: Lobby) -> None:
    hub = await lobby.hub(keep_messages=300)
    line = await lobby.line(await lobby.api(hub), hub.agent_id)
    for _ in range(2_000):
        await line.say(line.message())
    for _ in range(2_000):
        await line.hear()
    await line.ask(line.message(callback="last"))  # its commit comes after the pruning
    kept = hub.messages(count=5_000)
    assert 300 <= len(kept) <= 301
    assert kept[-1].callback == "last"


async def test_ids_go_on_after_a_restart(lobby: Lobby) -> None:
    async with Hub.open(lobby.folder, ("127.0.0.1", 0)) as first:
        line = await lobby.line(await lobby.api(first), first.agent_id)
        await line.ask(line.message())
    second = await lobby.hub()
    line = await lobby.line(await lobby.api(second), second.agent_id)
    await line.ask(line.message())
    assert [message.id for message in second.messages()] == [1, 2]
    assert second.received == 1


async def test_somebody_may_wait_for_messages(hub: Hub, agent_line: Line) -> None:
    with pytest.raises(TimeoutError):
        await hub.wait_for_messages(1, within_s=0.01)
    async with asyncio.TaskGroup() as both:
        both.create_task(hub.wait_for_messages(2))
        for _ in range(2):
            await agent_line.say(agent_line.message())
    await hub.wait_for_messages(2)


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n", ""])
def test_the_header_is_read_whatever_ends_the_segment(end: str) -> None:
    header = header_of(f"MSH|^~\\&|A|B|C|D|2026||ADT^A01|7|P|2.5{end}PID|1")
    assert (header.control_id, header.trigger) == (b"7", b"A01")
