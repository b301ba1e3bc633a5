from __future__ import annotations

import asyncio
import json
import os
import stat
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import AgentError, ConfigError
from agent.net.control import Limits, NoAnswer, NotRunning, Refused, ask, open_control
from agent.net.doors import Door, LoopbackDoor

DOORS: list[Door] = [LoopbackDoor()]
if sys.platform != "win32":
    from agent.net.doors import UnixDoor

    DOORS.append(UnixDoor())


@pytest.fixture(params=DOORS, ids=lambda door: type(door).__name__)
def door(request: pytest.FixtureRequest) -> Door:
    chosen: Door = request.param
    return chosen


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control"


async def echo(verb: str, args: dict[str, Any]) -> Any:
    match verb:
        case "refuse":
            raise AgentError("this cannot be done", hint="do that instead")
        case "hang":
            await asyncio.Event().wait()
    return {"verb": verb, "args": args}


def list_dir(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


async def raw(door: Door, path: Path, *lines: bytes) -> list[dict[str, Any]]:
    """What the door answers to bytes of our own making, until it hangs up; `TOKEN` in a line is replaced."""
    reader, writer, token = await door.connect(path, limit_bytes=1 << 20)
    for line in lines:
        writer.write(line.replace(b"TOKEN", token.encode()))
    writer.write_eof()
    answers = [json.loads(line) for line in (await reader.read()).splitlines()]
    writer.close()
    await writer.wait_closed()
    return answers


async def test_a_question_gets_its_answer(door: Door, path: Path) -> None:
    async with open_control(path, echo, door=door):
        assert await ask(path, "stats", {"limit": 3}, door=door) == {"verb": "stats", "args": {"limit": 3}}


async def test_a_refusal_arrives_with_its_remedy(door: Door, path: Path) -> None:
    async with open_control(path, echo, door=door):
        with pytest.raises(Refused, match="this cannot be done") as refused:
            await ask(path, "refuse", door=door)
    assert refused.value.hint == "do that instead"


async def test_no_daemon_is_said_as_such(door: Door, path: Path) -> None:
    with pytest.raises(NotRunning):
        await ask(path, "status", door=door)


async def test_after_the_daemon_stopped_nothing_is_left(door: Door, path: Path) -> None:
    async with open_control(path, echo, door=door):
        assert list_dir(path.parent) == [path.name]
    assert list_dir(path.parent) == []
    with pytest.raises(NotRunning):
        await ask(path, "status", door=door)


@pytest.mark.skipif(sys.platform == "win32", reason="mode bits")
async def test_only_the_owner_may_knock(door: Door, path: Path) -> None:
    async with open_control(path, echo, door=door):
        assert stat.S_IMODE(os.lstat(path).st_mode) == 0o600


async def test_a_second_daemon_is_refused_and_told_who_was_first(door: Door, path: Path) -> None:
    async with open_control(path, echo, door=door):
        with pytest.raises(ConfigError) as taken:
            async with open_control(path, echo, door=door):
                pass
        assert await ask(path, "still", door=door) == {"verb": "still", "args": {}}
    (finding,) = taken.value.findings
    assert finding.code == "control.taken"
    if sys.platform != "darwin":
        assert f"process {os.getpid()}" in finding.text


async def test_what_a_dead_daemon_left_is_replaced(door: Door, path: Path) -> None:
    code = (
        "import asyncio, os, sys; from pathlib import Path; from agent.net import control, doors\n"
        "async def main():\n"
        "    door = getattr(doors, sys.argv[2])()\n"
        "    async with control.open_control(Path(sys.argv[1]), None, door=door): os._exit(9)\n"
        "asyncio.run(main())"
    )
    dying = await asyncio.create_subprocess_exec(sys.executable, "-c", code, str(path), type(door).__name__)
    assert await dying.wait() == 9
    assert list_dir(path.parent) == [path.name]
    with pytest.raises(NotRunning):
        await ask(path, "status", door=door)
    async with open_control(path, echo, door=door):
        assert await ask(path, "new", door=door) == {"verb": "new", "args": {}}


async def test_a_port_that_passed_to_a_stranger_is_not_taken_for_a_living_daemon(path: Path) -> None:
    dead = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
    await dead.wait()
    stranger = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    left = {"port": stranger.sockets[0].getsockname()[1], "token": "t", "pid": dead.pid}
    await asyncio.to_thread(path.write_text, json.dumps(left))
    async with stranger, open_control(path, echo, door=LoopbackDoor()):
        assert await ask(path, "new", door=LoopbackDoor()) == {"verb": "new", "args": {}}


async def test_a_caller_that_has_no_more_questions_still_gets_the_last_byte(door: Door, path: Path) -> None:
    async def long(verb: str, args: dict[str, Any]) -> Any:
        return "x" * 10_000_000

    async with open_control(path, long, door=door):
        (answer,) = await raw(door, path, b'{"verb":"x","token":"TOKEN"}\n')
    assert len(answer["ok"]) == 10_000_000


async def test_a_door_that_cannot_be_made_is_a_setting_to_change(door: Door, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as failed:
        async with open_control(tmp_path / "missing" / "control", echo, door=door):
            pass
    assert failed.value.findings[0].code == "control.not-opened"


def test_a_damaged_token_file_is_no_daemon(path: Path) -> None:
    path.write_bytes(b'{"port": ')
    with pytest.raises(NotRunning):
        asyncio.run(ask(path, "status", door=LoopbackDoor()))


async def test_a_caller_without_the_token_learns_nothing(path: Path) -> None:
    async with open_control(path, echo, door=LoopbackDoor()):
        answers = await raw(LoopbackDoor(), path, b'{"verb":"status"}\n', b'{"verb":"status","token":"guess"}\n')
    assert [set(answer) for answer in answers] == [{"error"}, {"error"}]


async def test_several_questions_on_one_connection_are_answered_in_order(door: Door, path: Path) -> None:
    async with open_control(path, echo, door=door):
        answers = await raw(door, path, *(b'{"verb":"%d","token":"TOKEN"}\n' % n for n in range(5)))
    assert [answer["ok"]["verb"] for answer in answers] == ["0", "1", "2", "3", "4"]


@given(line=st.binary(max_size=200).filter(lambda line: b"\n" not in line))
def test_babble_gets_one_answer_and_the_next_question_too(line: bytes) -> None:
    async def scene(folder: Path) -> None:
        path = folder / "control"
        async with open_control(path, echo, door=LoopbackDoor()):
            babbled, asked = await raw(LoopbackDoor(), path, line + b"\n", b'{"verb":"x","token":"TOKEN"}\n')
        assert set(babbled) == {"error"}
        assert asked["ok"]["verb"] == "x"

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(scene(Path(folder)))


async def test_an_endless_question_is_cut_off(door: Door, path: Path) -> None:
    async with open_control(path, echo, door=door, limits=Limits(question_bytes=1000)):
        answers = await raw(door, path, b'{"verb":"' + b"x" * 3000 + b'"}\n')
        assert answers == [{"error": {"text": "a question is at most 1000 bytes long", "hint": ""}}]
        assert await ask(path, "next", door=door) == {"verb": "next", "args": {}}


async def test_a_caller_that_says_nothing_is_shown_the_door(door: Door, path: Path) -> None:
    async with open_control(path, echo, door=door, limits=Limits(ask_within_s=0.05)):
        reader, writer, _ = await door.connect(path, limit_bytes=1000)
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()


async def test_a_caller_that_does_not_take_its_answer_is_dropped(door: Door, path: Path) -> None:
    async def flood(verb: str, args: dict[str, Any]) -> Any:
        return "x" * 10_000_000

    async with open_control(path, flood, door=door, limits=Limits(take_within_s=0.05, callers=1)):
        _, writer, token = await door.connect(path, limit_bytes=1000)
        writer.write(json.dumps({"verb": "x", "token": token}).encode() + b"\n")
        async with asyncio.timeout(5):
            while True:
                try:
                    assert await ask(path, "y", door=door) == "x" * 10_000_000
                    break
                except (Refused, NoAnswer):  # the one place is taken until the first caller is dropped
                    continue
        writer.transport.abort()


async def test_a_crowd_is_told_to_wait_its_turn(door: Door, path: Path) -> None:
    async with open_control(path, echo, door=door, limits=Limits(callers=2)):
        first = [await door.connect(path, limit_bytes=1000) for _ in range(2)]
        for reader, writer, token in first:
            writer.write(json.dumps({"verb": "here", "token": token}).encode() + b"\n")
            await reader.readline()
        with pytest.raises(Refused, match="too many callers"):
            await ask(path, "status", door=door)
        for _, writer, _ in first:
            writer.close()
            await writer.wait_closed()


async def test_an_answer_that_takes_too_long_is_given_up_with_a_reason(door: Door, path: Path) -> None:
    async with open_control(path, echo, door=door, limits=Limits(answer_within_s=0.05)):
        with pytest.raises(Refused, match=r"not done within 0\.05 s"):
            await ask(path, "hang", door=door)


async def test_a_daemon_that_hangs_does_not_hang_its_caller(door: Door, path: Path) -> None:
    async with open_control(path, echo, door=door):
        with pytest.raises(NoAnswer, match=r"within 0\.05 s"):
            await ask(path, "hang", timeout_s=0.05, door=door)


async def test_a_daemon_that_stops_hangs_up_on_whoever_waits(door: Door, path: Path) -> None:
    asked = asyncio.Event()

    async def never(verb: str, args: dict[str, Any]) -> Any:
        asked.set()
        await asyncio.Event().wait()

    async def impatient() -> None:
        with pytest.raises(NoAnswer, match="hung up"):
            await ask(path, "status", door=door)

    async with asyncio.TaskGroup() as group, asyncio.timeout(5):
        async with open_control(path, never, door=door):
            caller = group.create_task(impatient())
            await asked.wait()
        await caller


async def test_a_mistake_in_the_daemon_is_not_hidden(door: Door, path: Path) -> None:
    async def broken(verb: str, args: dict[str, Any]) -> Any:
        raise RuntimeError("a bug")

    async def daemon() -> None:
        async with open_control(path, broken, door=door):
            with pytest.raises(NoAnswer):
                await ask(path, "status", door=door)
            await asyncio.Event().wait()

    with pytest.raises(ExceptionGroup) as raised:
        await daemon()
    assert raised.group_contains(RuntimeError, match="a bug")


async def test_what_goes_wrong_in_the_daemon_itself_is_not_wrapped(door: Door, path: Path) -> None:
    async def daemon() -> None:
        async with open_control(path, echo, door=door):
            raise AgentError("the disk is gone")

    with pytest.raises(AgentError, match="the disk is gone"):
        await daemon()
    assert list_dir(path.parent) == []


async def test_a_cancelled_daemon_closes_its_door(door: Door, path: Path) -> None:
    opened = asyncio.Event()

    async def daemon() -> None:
        async with open_control(path, echo, door=door):
            opened.set()
            await asyncio.Event().wait()

    async with asyncio.TaskGroup() as group, asyncio.timeout(5):
        task = group.create_task(daemon())
        await opened.wait()
        task.cancel()
    assert task.cancelled()
    assert list_dir(path.parent) == []
