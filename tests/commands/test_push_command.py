"""$push: a message goes its own way at once, a ping waits for its turn, and each is answered with its callback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from agent.commands.push import PING, PINGS_AT_ONCE, push
from agent.commands.serve import Commands
from agent.errors import PeerError
from agent.protocol.envelope import AgentErrorFrame, FromAgent, Push, PushResponse

HL7 = "x-application/hl7-v2+er7"


class Stage:
    """The command with its far ends: `carried` messages, `pinging` hosts, and what the server heard."""

    def __init__(self) -> None:
        self.carried: list[Push] = []
        self.pinging: list[tuple[str, str]] = []
        self.go_on = asyncio.Event()
        self.heard: asyncio.Queue[FromAgent] = asyncio.Queue()
        self.commands = Commands([push(self._carry, self._ping)], send=self.heard.put_nowait)

    def _carry(self, request: Push, respond: object) -> None:
        self.carried.append(request)

    async def _ping(self, host: str, body: str) -> str:
        self.pinging.append((host, body))
        if host == "nowhere":
            raise PeerError("there is no such host", hint="correct it")
        await self.go_on.wait()
        return f"{host} is there"

    async def hears(self) -> FromAgent:
        async with asyncio.timeout(5):
            return await self.heard.get()


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    stage = Stage()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(stage.commands.run())
        yield stage
        running.cancel()


@pytest.mark.parametrize("content_type", [HL7, "text/plain", None])
async def test_everything_but_a_ping_is_a_message(stage: Stage, content_type: str | None) -> None:
    request = Push("mllp://lab:2575", content_type, "MSH|…", "cb-1")
    stage.commands.take(request)
    assert stage.carried == [request]


async def test_a_ping_is_answered_with_what_was_seen(stage: Stage) -> None:
    stage.go_on.set()
    stage.commands.take(Push("10.1.2.3", PING, "PING 2", "cb-1"))
    assert await stage.hears() == PushResponse(
        remote="10.1.2.3", callback="cb-1", content_type=PING, body="10.1.2.3 is there"
    )
    assert stage.pinging == [("10.1.2.3", "PING 2")]


async def test_a_ping_that_cannot_be_is_answered_with_the_reason(stage: Stage) -> None:
    stage.commands.take(Push("nowhere", PING, None, "cb-1"))
    assert await stage.hears() == PushResponse(
        remote="nowhere",
        callback="cb-1",
        content_type="text/plain",
        status_code=400,
        body="there is no such host — correct it",
    )


async def test_a_request_without_a_remote_is_an_error(stage: Stage) -> None:
    stage.commands.take(Push(None, HL7, "MSH|…", "cb-1"))
    assert await stage.hears() == AgentErrorFrame("Missing remote address", "cb-1")


async def test_any_number_of_pings_holds_up_no_message(stage: Stage) -> None:
    for number in range(3 * PINGS_AT_ONCE):
        stage.commands.take(Push(f"10.0.0.{number}", PING, None, str(number)))
    stage.commands.take(Push("mllp://lab:2575", HL7, "MSH|…", "cb-1"))
    assert len(stage.carried) == 1
    stage.go_on.set()
    answered = {getattr(await stage.hears(), "callback", None) for _ in range(3 * PINGS_AT_ONCE)}
    assert answered == {str(number) for number in range(3 * PINGS_AT_ONCE)}
