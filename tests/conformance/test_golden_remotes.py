"""A remote of a replay hears what the agent sends it on which connection, and answers on that one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from golden_names import Names
from golden_remotes import Remotes, listeners
from golden_replay import Ear
from golden_transcript import Line

WITHIN_S = 5.0
FIRST, SECOND, THIRD = "MSH|first", "MSH|second é", "MSH|third"
PUSH = Line(
    "server",
    "ws agent-2",
    "frame",
    '{"type":"agent:transmit:request","remote":"mllp://127.0.0.1:28001?encoding=latin-1"}',
)
LINES = [
    PUSH,
    Line("agent", "remote 28001-1", "open"),
    Line("agent", "remote 28001-2", "open"),
    Line("agent", "remote 28001-1", "frame", FIRST),
    Line("agent", "remote 28001-2", "frame", SECOND),
    Line("remote", "remote 28001-2", "frame", "MSA|AA"),
    Line("agent", "remote 28001-2", "frame", THIRD),
]


@dataclass
class Ward:
    """The remotes of a replay, and the agent's way to them."""

    remotes: Remotes
    ear: Ear
    names: Names

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, _, port = self.names.to_actual("127.0.0.1:28001").partition(":")
        return await asyncio.open_connection(host, int(port))

    async def heard(self, lane: str) -> tuple[str, str]:
        line = await self.ear.next(lane, WITHIN_S)
        assert (line.by, line.lane) == ("agent", lane)
        return line.kind, line.text


@asynccontextmanager
async def ward(listening: set[str]) -> AsyncIterator[Ward]:
    ear, names = Ear(), Names()
    remotes = Remotes(LINES, ear, names)
    async with remotes.open(listening):
        yield Ward(remotes, ear, names)


@pytest.fixture
async def listening() -> AsyncIterator[Ward]:
    async with ward({"28001"}) as there:
        yield there


async def test_a_connection_is_known_by_its_first_message_whenever_it_was_opened(listening: Ward) -> None:
    _, second = await listening.connect()
    _, first = await listening.connect()
    second.write(b"\x0b" + SECOND.encode("latin-1") + b"\x1c\r")
    first.write(b"\x0b" + FIRST.encode("latin-1") + b"\x1c\r")

    assert await listening.heard("remote 28001-1") == ("open", "")
    assert await listening.heard("remote 28001-1") == ("frame", FIRST)
    assert await listening.heard("remote 28001-2") == ("open", "")
    assert await listening.heard("remote 28001-2") == ("frame", SECOND)
    first.close()
    second.close()


async def test_an_answer_goes_to_the_connection_of_the_recording_in_its_charset(listening: Ward) -> None:
    reader, writer = await listening.connect()
    writer.write(b"\x0b" + SECOND.encode("latin-1") + b"\x1c\r")
    await listening.heard("remote 28001-2")

    listening.remotes.play(Line("remote", "remote 28001-2", "frame", "MSA|AA|é"))

    assert await reader.readuntil(b"\x1c\r") == b"\x0bMSA|AA|\xe9\x1c\r"
    writer.close()


async def test_a_connection_that_is_closed_unused_is_the_next_one_of_the_recording(listening: Ward) -> None:
    _, writer = await listening.connect()
    writer.close()

    assert await listening.heard("remote 28001-1") == ("open", "")
    assert await listening.heard("remote 28001-1") == ("close", "")


async def test_a_connection_more_than_recorded_and_bytes_without_a_frame_are_heard(listening: Ward) -> None:
    for lane in ("remote 28001-1", "remote 28001-2", "remote 28001-beyond"):
        _, writer = await listening.connect()
        writer.write(b"GET /")
        writer.close()
        assert await listening.heard(lane) == ("open", "")
        assert await listening.heard(lane) == ("bytes", "GET /")
        assert await listening.heard(lane) == ("close", "")


async def test_the_end_that_the_remote_made_is_no_news(listening: Ward) -> None:
    reader, writer = await listening.connect()
    writer.write(b"\x0b" + FIRST.encode() + b"\x1c\r")
    await listening.heard("remote 28001-1")

    listening.remotes.play(Line("remote", "remote 28001-1", "close"))

    assert await reader.read() == b""
    writer.close()
    assert [line.kind for line in listening.ear.rest()] == ["frame"]


async def both(ward: Ward) -> tuple[asyncio.StreamWriter, asyncio.StreamWriter]:
    """Two connections that have had their first message and its opening heard."""
    writers = []
    for lane, message in (("remote 28001-1", FIRST), ("remote 28001-2", SECOND)):
        _, writer = await ward.connect()
        writer.write(b"\x0b" + message.encode("latin-1") + b"\x1c\r")
        assert await ward.heard(lane) == ("open", "")
        assert await ward.heard(lane) == ("frame", message)
        writers.append(writer)
    first, second = writers
    return first, second


async def test_connections_that_owe_nothing_are_alike(listening: Ward) -> None:
    first, second = await both(listening)
    for lane in ("remote 28001-1", "remote 28001-2"):
        listening.remotes.play(Line("remote", lane, "frame", "MSA|AA"))

    first.write(b"\x0b" + THIRD.encode() + b"\x1c\r")

    assert await listening.heard("remote 28001-2") == ("frame", THIRD)
    second.close()
    assert await listening.heard("remote 28001-1") == ("close", "")
    first.close()


async def test_a_message_behind_an_unanswered_one_is_where_it_is(listening: Ward) -> None:
    first, second = await both(listening)
    listening.remotes.play(Line("remote", "remote 28001-2", "frame", "MSA|AA"))

    first.write(b"\x0b" + THIRD.encode() + b"\x1c\r")

    assert await listening.heard("remote 28001-1") == ("frame", THIRD)
    first.close()
    second.close()


async def test_a_message_that_should_have_waited_for_an_answer_is_early(listening: Ward) -> None:
    first, second = await both(listening)

    second.write(b"\x0b" + THIRD.encode() + b"\x1c\r")

    assert await listening.heard("remote 28001-2") == ("early", THIRD)
    first.close()
    second.close()


async def test_where_nobody_listened_nobody_listens() -> None:
    assert listeners([PUSH]) == set()
    async with ward(listeners([PUSH])) as nobody:
        with pytest.raises(ConnectionRefusedError):
            await nobody.connect()
