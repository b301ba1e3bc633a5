from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from agent.commands.serve import Command, Commands, NotAvailable, Request, TooLate
from agent.errors import AgentError, ConfigError, Finding, Severity
from agent.protocol.envelope import (
    AgentErrorFrame,
    FromAgent,
    LogsRequest,
    Push,
    StatsRequest,
    StatsResponse,
    UpgradeRequest,
    encode,
)


class Server:
    """The far end: hears what is sent."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[FromAgent] = asyncio.Queue()

    def serving(self, *commands: Command, at_once: int = 4, waiting: int = 64) -> Commands:
        return Commands(commands, send=self.heard.put_nowait, at_once=at_once, waiting=waiting)

    async def hears(self) -> FromAgent:
        async with asyncio.timeout(5):
            return await self.heard.get()


@pytest.fixture
def server() -> Server:
    return Server()


@asynccontextmanager
async def running(commands: Commands) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(commands.run())
        yield
        task.cancel()


def respond(facts: Any, callback: str | None) -> FromAgent:
    return StatsResponse(stats=facts, callback=callback)


async def same(args: Mapping[str, Any]) -> Any:
    return {"asked": dict(args)}


async def for_ever(args: Mapping[str, Any]) -> Any:
    await asyncio.Event().wait()


async def refused(args: Mapping[str, Any]) -> Any:
    raise AgentError("the disk is full", hint="free some space")


async def test_both_doors_lead_to_the_same_command(server: Server) -> None:
    commands = server.serving(Command("logs", same, LogsRequest, respond))
    async with running(commands):
        commands.take(LogsRequest(limit=3, callback="cb-1"))
        assert await server.hears() == StatsResponse(stats={"asked": {"limit": 3, "before": None}}, callback="cb-1")
        assert await commands.ask("logs", {"limit": 3}) == {"asked": {"limit": 3}}


async def test_a_request_without_callback_is_answered_without_one(server: Server) -> None:
    commands = server.serving(Command("stats", same, StatsRequest, respond))
    async with running(commands):
        commands.take(StatsRequest())
        assert encode(await server.hears()) == b'{"type":"agent:stats:response","statusCode":200,"stats":{"asked":{}}}'


async def test_a_refusal_goes_back_with_its_remedy_and_the_callback(server: Server) -> None:
    commands = server.serving(Command("stats", refused, StatsRequest, respond))
    async with running(commands):
        commands.take(StatsRequest(callback="cb-1"))
        assert await server.hears() == AgentErrorFrame(body="the disk is full — free some space", callback="cb-1")
    with pytest.raises(AgentError, match="the disk is full"):
        await commands.ask("stats", {})


async def test_every_problem_of_a_setting_is_told_not_only_the_first(server: Server) -> None:
    async def misconfigured(args: Mapping[str, Any]) -> Any:
        raise ConfigError(
            [
                Finding("a", Severity.ERROR, "no such port", "choose another", "adt.address"),
                Finding("b", Severity.ERROR, "no such scheme", "", "lab.address"),
            ]
        )

    commands = server.serving(Command("stats", misconfigured, StatsRequest, respond))
    async with running(commands):
        commands.take(StatsRequest(callback="cb-1"))
        answer = await server.hears()
    assert isinstance(answer, AgentErrorFrame)
    assert answer.body == "adt.address: no such port — choose another; lab.address: no such scheme"


@pytest.mark.parametrize(
    ("request_", "name"),
    [
        (Push(remote="mllp://10.0.0.9:2575", body="x", callback="cb-1"), "$push"),
        (LogsRequest(callback="cb-1"), "$fetch-logs"),
        (UpgradeRequest(callback="cb-1"), "$upgrade"),
    ],
)
async def test_what_this_version_cannot_do_is_said_and_not_kept_silent(
    server: Server, request_: Request, name: str
) -> None:
    commands = server.serving()
    async with running(commands):
        commands.take(request_)
        answer = await server.hears()
    assert isinstance(answer, AgentErrorFrame)
    assert answer.body.startswith(f"{name} is not available in this version")
    assert answer.callback == "cb-1"


async def test_a_verb_that_nobody_knows_is_refused_at_the_local_door(server: Server) -> None:
    with pytest.raises(NotAvailable, match="'dance' is not available in this version"):
        await server.serving().ask("dance", {})


async def test_a_command_that_hangs_is_answered_at_its_deadline(server: Server) -> None:
    commands = server.serving(Command("stats", for_ever, StatsRequest, respond, deadline_s=0.02))
    async with running(commands):
        commands.take(StatsRequest(callback="cb-1"))
        answer = await server.hears()
        assert isinstance(answer, AgentErrorFrame)
        assert answer.body.startswith("'stats' was not done within 0.02 s")
        assert answer.callback == "cb-1"
        with pytest.raises(TooLate):
            await commands.ask("stats", {})


async def test_only_so_many_run_at_once_and_the_others_wait_their_turn(server: Server) -> None:
    running_now, most = 0, 0
    full, go = asyncio.Event(), asyncio.Event()

    async def counted(args: Mapping[str, Any]) -> Any:
        nonlocal running_now, most
        running_now += 1
        most = max(most, running_now)
        if running_now == 2:
            full.set()
        await go.wait()
        running_now -= 1
        return {}

    commands = server.serving(Command("stats", counted, StatsRequest, respond), at_once=2)
    async with running(commands):
        for number in range(6):
            commands.take(StatsRequest(callback=f"cb-{number}"))
        async with asyncio.timeout(5):
            await full.wait()
        go.set()
        answers = [await server.hears() for _ in range(6)]
    assert most == 2
    assert {answer.callback for answer in answers if isinstance(answer, StatsResponse)} == {
        f"cb-{number}" for number in range(6)
    }


async def test_a_flood_of_requests_is_refused_at_once(server: Server) -> None:
    commands = server.serving(Command("stats", for_ever, StatsRequest, respond), waiting=2)
    for number in range(3):
        commands.take(StatsRequest(callback=f"cb-{number}"))
    answer = server.heard.get_nowait()
    assert isinstance(answer, AgentErrorFrame)
    assert (answer.callback, answer.body) == ("cb-2", "the agent has too many requests to answer — try again later")


async def test_hanging_requests_of_the_server_do_not_hold_up_a_person(server: Server) -> None:
    commands = server.serving(Command("stats", for_ever, StatsRequest, respond), Command("status", same), at_once=1)
    async with running(commands):
        commands.take(StatsRequest())
        async with asyncio.timeout(5):
            assert await commands.ask("status", {}) == {"asked": {}}


@pytest.mark.parametrize("bug", [KeyError("a bug"), TimeoutError("a bug")])
async def test_a_mistake_in_a_command_is_not_hidden(server: Server, bug: Exception) -> None:
    async def broken(args: Mapping[str, Any]) -> Any:
        raise bug

    commands = server.serving(Command("stats", broken, StatsRequest, respond))
    commands.take(StatsRequest())
    with pytest.raises(ExceptionGroup) as raised:
        await commands.run()
    assert raised.group_contains(type(bug), match="a bug")


async def test_a_request_that_is_answered_directly_waits_for_no_worker(server: Server) -> None:
    # given every worker busy
    def at_once(request: Any, send: Any) -> bool:
        send(AgentErrorFrame("directly", request.callback))
        return True

    commands = server.serving(
        Command("stats", for_ever, StatsRequest, respond),
        Command("push", same, Push, respond, direct=at_once),
        at_once=1,
    )
    async with running(commands):
        for _ in range(20):
            commands.take(StatsRequest())
        commands.take(Push(callback="cb-1"))
        assert await server.hears() == AgentErrorFrame("directly", "cb-1")


async def test_commands_with_workers_of_their_own_hold_up_no_others(server: Server) -> None:
    commands = server.serving(
        Command("push", for_ever, Push, respond, at_once=2), Command("stats", same, StatsRequest, respond), at_once=1
    )
    async with running(commands):
        for _ in range(20):
            commands.take(Push())
        commands.take(StatsRequest(callback="cb-1"))
        assert await server.hears() == StatsResponse(stats={"asked": {}}, callback="cb-1")
