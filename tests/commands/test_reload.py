from __future__ import annotations

import asyncio

import pytest

from agent.commands.reload import reload
from agent.errors import ConfigError, Finding, Severity
from agent.protocol.envelope import ReloadConfigRequest, ReloadConfigResponse


async def test_success_is_answered_once_the_new_configuration_is_in_force() -> None:
    in_force = False

    async def reload_config() -> None:
        nonlocal in_force
        in_force = True

    command = reload(reload_config)
    assert await command.answer({}) == {}
    assert in_force
    assert command.request is ReloadConfigRequest
    assert command.respond is not None
    assert command.respond({}, "cb-1") == ReloadConfigResponse(callback="cb-1")


async def test_a_failure_carries_every_problem() -> None:
    problems = [Finding(code, Severity.ERROR, "wrong") for code in ("a", "b")]

    async def reload_config() -> None:
        raise ConfigError(problems)

    with pytest.raises(ConfigError) as failed:
        await reload(reload_config).answer({})
    assert list(failed.value.findings) == problems


async def test_two_requests_are_done_one_after_the_other() -> None:
    steps: list[str] = []
    first_began, go = asyncio.Event(), asyncio.Event()

    async def reload_config() -> None:
        steps.append("begin")
        first_began.set()
        await go.wait()
        steps.append("end")

    command = reload(reload_config)

    async def ask() -> None:
        await command.answer({})

    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(ask())
        group.create_task(ask())
        await first_began.wait()
        go.set()
    assert steps == ["begin", "end", "begin", "end"]


async def test_a_failed_reload_does_not_block_the_next() -> None:
    outcomes = iter([ConfigError([Finding("a", Severity.ERROR, "wrong")]), None])

    async def reload_config() -> None:
        if (failed := next(outcomes)) is not None:
            raise failed

    command = reload(reload_config)
    with pytest.raises(ConfigError):
        await command.answer({})
    assert await command.answer({}) == {}
