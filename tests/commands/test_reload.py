from __future__ import annotations

import asyncio

import pytest

from agent.commands.reload import reload
from agent.commands.serve import WAITING
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


async def test_as_many_as_may_ask_may_wait_at_one_time() -> None:
    # whoever asks while a reload is at work shares the next one, so they have to reach it
    waiting, go = 0, asyncio.Event()

    async def reload_config() -> None:
        nonlocal waiting
        waiting += 1
        await go.wait()

    command = reload(reload_config)
    assert command.at_once == WAITING
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        asks = [group.create_task(command.answer({})) for _ in range(3)]
        while waiting < 3:
            await asyncio.sleep(0)
        go.set()
    assert [ask.result() for ask in asks] == [{}, {}, {}]


async def test_a_failed_reload_does_not_block_the_next() -> None:
    outcomes = iter([ConfigError([Finding("a", Severity.ERROR, "wrong")]), None])

    async def reload_config() -> None:
        if (failed := next(outcomes)) is not None:
            raise failed

    command = reload(reload_config)
    with pytest.raises(ConfigError):
        await command.answer({})
    assert await command.answer({}) == {}
