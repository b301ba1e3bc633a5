"""$push under way: nobody waits for somebody else, answers find their push, and memory stays bounded."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import aiohttp
import pytest
from hub_pushes import ACK, LAB, answered, asked, device, nothing_was_said, push, push_and_answer, pushing
from hub_strangers import ADT_A01, Api, Line, Lobby

from agent.hub.sockets import UNWRITTEN_BYTES

AT_ONCE = 200


async def impatient(lobby: Lobby) -> Api:
    """A hub whose waits are a hundredth as long."""
    return await lobby.api(await lobby.hub(operation_timeout_scale=0.01))


async def test_two_hundred_pushes_are_under_way_at_once(lobby: Lobby, api: Api, agent_line: Line) -> None:
    lab = await device(api.hub, url=LAB)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as many, asyncio.TaskGroup() as work:
        crowd = Api(api.hub, many)
        crowd.token = api.token
        replies = [work.create_task(push(crowd, asked(lab, body=f"{ADT_A01}\rZZZ|{n}"))) for n in range(AT_ONCE)]
        frames = [await agent_line.hear() for _ in range(AT_ONCE)]  # all are here before the first is answered
        for frame in reversed(frames):
            await agent_line.say(answered(frame, body=f"{ACK}|{frame['body'].rpartition('|')[2]}"))
    assert [reply.result().raw.decode() for reply in replies] == [f"{ACK}|{n}" for n in range(AT_ONCE)]


async def test_no_answer_in_time_is_a_timeout(lobby: Lobby) -> None:
    api = await impatient(lobby)
    line = await lobby.line(api, api.hub.agent_id)
    async with pushing(api, asked(await device(api.hub, url=LAB), waitTimeout=100)) as reply:
        assert (await line.hear())["body"] == ADT_A01
    assert (reply.result().status, reply.result().problem) == (400, "Timeout")


async def test_a_wait_of_nothing_still_sends(api: Api, agent_line: Line) -> None:
    reply = await push(api, asked(await device(api.hub, url=LAB), waitTimeout=0))
    assert (reply.status, reply.problem) == (400, "Timeout")
    assert (await agent_line.hear())["body"] == ADT_A01


async def test_a_late_answer_goes_nowhere(lobby: Lobby) -> None:
    api = await impatient(lobby)
    line = await lobby.line(api, api.hub.agent_id)
    lab = await device(api.hub, url=LAB)
    async with pushing(api, asked(lab, waitTimeout=100)):
        late = await line.hear()
    await line.say(answered(late, body="too late"))
    _, reply = await push_and_answer(api, line, asked(lab))
    assert reply.raw.decode() == ACK


async def test_an_answer_that_nobody_asked_for_goes_nowhere(api: Api, agent_line: Line) -> None:
    lab = await device(api.hub, url=LAB)
    await push(api, asked(lab, waitForResponse=False))
    await agent_line.say(answered(await agent_line.hear(), body="nobody waits"))
    async with pushing(api, asked(lab)) as reply:
        frame = await agent_line.hear()
        for callback in (None, "", "Agent/x-1", f"{frame['callback']}#2"):
            await agent_line.say(answered(frame, callback=callback, body="for somebody else"))
        await agent_line.say(answered(frame))
        await agent_line.say(answered(frame, body="said twice"))
    assert reply.result().raw.decode() == ACK
    await nothing_was_said(agent_line)


async def test_an_agent_that_is_away_gets_nothing_later(lobby: Lobby) -> None:
    api = await impatient(lobby)
    lab = await device(api.hub, url=LAB)
    at_once = await push(api, asked(lab, waitForResponse=False))
    waited = await push(api, asked(lab, waitTimeout=100))
    assert (at_once.status, at_once.problem) == (200, "All OK")
    assert (waited.status, waited.problem) == (400, "Timeout")
    await nothing_was_said(await lobby.line(api, api.hub.agent_id))


async def test_an_answer_may_come_on_the_next_socket(lobby: Lobby, api: Api, agent_line: Line) -> None:
    async with pushing(api, asked(await device(api.hub, url=LAB))) as reply:
        frame = await agent_line.hear()
        await agent_line.socket.close()
        again = await lobby.line(api, api.hub.agent_id)
        await again.say(answered(frame))
    assert reply.result().raw.decode() == ACK


async def test_two_sockets_are_both_told_and_the_first_answer_wins(lobby: Lobby, api: Api) -> None:
    lines = [await lobby.line(api, api.hub.agent_id) for _ in range(2)]
    async with pushing(api, asked(await device(api.hub, url=LAB))) as reply:
        first, second = [await line.hear() for line in lines]
        await lines[1].say(answered(second, body="first"))
        await nothing_was_said(lines[1])
        await lines[0].say(answered(first, body="second"))
    assert first == second
    assert reply.result().raw.decode() == "first"


# ---- an agent that does not read


class Deaf:
    """An agent that has connected and reads nothing until it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, api: Api) -> Deaf:
        host, _, port = api.hub.base_url.removeprefix("http://").rstrip("/").partition(":")
        plain = socket.socket()
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        plain.setblocking(False)
        await asyncio.get_running_loop().sock_connect(plain, (host, int(port)))
        reader, writer = await asyncio.open_connection(sock=plain, limit=65_536)
        writer.write(
            b"GET /ws/agent HTTP/1.1\r\nHost: hub\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        await reader.readuntil(b"\r\n\r\n")
        hello = {"type": "agent:connect:request", "accessToken": api.token, "agentId": api.hub.agent_id}
        text = json.dumps(hello).encode()
        mask_of_zeroes = b"\0\0\0\0"
        writer.write(b"\x81\xfe" + len(text).to_bytes(2, "big") + mask_of_zeroes + text)
        deaf = cls(reader, writer)
        assert await deaf.hear() == {"type": "agent:connect:response"}
        return deaf

    def say_goodbye(self) -> None:
        self.writer.write(b"\x88\x80\0\0\0\0")

    async def hear(self) -> Any:
        """The next frame (RFC 6455 §5.2, from a server: never masked)."""
        async with asyncio.timeout(10):
            head = await self._reader.readexactly(2)
            size = head[1]
            if size > 125:
                size = int.from_bytes(await self._reader.readexactly(2 if size == 126 else 8), "big")
            return json.loads(await self._reader.readexactly(size))


@pytest.fixture
async def patient(lobby: Lobby) -> Api:
    return await lobby.api(await lobby.hub(operation_timeout_scale=0.1))


async def fill(api: Api, destination: str) -> int:
    """Push without waiting until the hub takes no more; how many it took."""
    taken = 0
    while True:
        content = asked(destination, body=f"{taken:6}" + "x" * 900_000, waitForResponse=False, waitTimeout=2_000)
        reply = await push(api, content)
        if reply.status != 200:
            assert reply.problem == "Timeout"
            return taken
        taken += 1
        assert taken < 10 * UNWRITTEN_BYTES / 900_000


async def test_an_agent_that_does_not_read_gets_no_more_than_fits_and_all_of_that(patient: Api) -> None:
    lab = await device(patient.hub, url=LAB)
    deaf = await Deaf.connect(patient)
    taken = await fill(patient, lab)
    assert taken > UNWRITTEN_BYTES / 1_000_000
    refused = await push(patient, asked(lab, waitTimeout=1_000))
    assert refused.problem == "Timeout"

    async with pushing(patient, asked(lab, body="waits for room", waitForResponse=False, waitTimeout=50_000)) as reply:
        heard = [await deaf.hear() for _ in range(taken)]
    assert [int(frame["body"][:6]) for frame in heard] == list(range(taken))
    assert reply.result().status == 200
    assert (await deaf.hear())["body"] == "waits for room"
    deaf.writer.close()


async def test_a_deaf_socket_does_not_hold_up_the_other(lobby: Lobby, patient: Api) -> None:
    lab = await device(patient.hub, url=LAB)
    deaf = await Deaf.connect(patient)
    await fill(patient, lab)
    line = await lobby.line(patient, patient.hub.agent_id)
    _, reply = await push_and_answer(patient, line, asked(lab))
    assert reply.raw.decode() == ACK
    deaf.writer.close()


@pytest.mark.parametrize("in_good_order", [True, False])
async def test_who_waits_for_a_deaf_socket_goes_on_when_it_leaves(
    lobby: Lobby, patient: Api, in_good_order: bool
) -> None:
    lab = await device(patient.hub, url=LAB)
    deaf = await Deaf.connect(patient)
    await fill(patient, lab)
    async with pushing(patient, asked(lab, waitTimeout=55_000)) as reply:
        while not patient.hub._roster._waiting:
            await asyncio.sleep(0.001)
        line = await lobby.line(patient, patient.hub.agent_id)
        if in_good_order:
            deaf.say_goodbye()
        else:
            deaf.writer.transport.abort()
        await line.say(answered(await line.hear()))
    assert reply.result().raw.decode() == ACK
    deaf.writer.close()
