"""The server's $fetch-logs: pages of the main log, and clear words for what cannot be given."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import logbook
from agent.commands.logs import logs
from agent.commands.serve import Commands
from agent.errors import AgentError
from agent.logbook import Page
from agent.protocol.envelope import AgentErrorFrame, FromAgent, LogsRequest, LogsResponse, encode
from agent.settings import LogFile, LogSettings

WITHIN_S = 10.0


@pytest.fixture
def book(tmp_path: Path) -> Iterator[logbook.Logbook]:
    with logbook.opened(LogSettings(LogFile("DEBUG", tmp_path), None), stderr=io.StringIO()) as opened:
        yield opened


async def ask(read: Callable[[int, str | None], Page], **args: object) -> dict[str, Any]:
    found: dict[str, Any] = await logs(read).answer(args)
    return found


def numbers(facts: dict[str, Any]) -> list[int]:
    return [line["number"] for line in facts["logs"]]


async def test_the_newest_twenty_come_unless_asked_otherwise(book: logbook.Logbook) -> None:
    for number in range(30):
        logbook.main().info("a", number=number)

    assert len(numbers(await ask(book.read_page))) >= 20
    assert numbers(await ask(book.read_page, limit=1_000)) == list(reversed(range(30)))


async def test_pages_lead_through_everything_once(book: logbook.Logbook) -> None:
    for number in range(300):
        logbook.main().info("a", number=number)

    seen: list[int] = []
    facts = await ask(book.read_page, limit=7)
    while facts["hasMore"]:
        seen += numbers(facts)
        facts = await ask(book.read_page, limit=7, before=facts["nextBefore"])
    seen += numbers(facts)

    assert seen == list(reversed(range(300)))
    assert facts["nextBefore"] is None


async def test_server_and_people_get_the_same_page_in_their_own_form(book: logbook.Logbook) -> None:
    logbook.main().info("a", number=1)
    heard: asyncio.Queue[FromAgent] = asyncio.Queue()
    commands = Commands([logs(book.read_page)], send=heard.put_nowait)
    async with asyncio.timeout(WITHIN_S), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(commands.run())
        commands.take(LogsRequest(limit=1, callback="cb-1"))
        answer = await heard.get()
        facts = await commands.ask("logs", {"limit": 1})
        running.cancel()

    assert isinstance(answer, LogsResponse)
    assert answer == LogsResponse(logs=facts["logs"], callback="cb-1", has_more=False)
    text = encode(answer)
    assert text.startswith(
        b'{"type":"agent:logs:response","statusCode":200,"logs":[{"level":"INFO","msg":"a","timestamp"'
    )
    assert text.endswith(b'"callback":"cb-1","hasMore":false}')


async def test_the_answer_fits_into_a_frame_of_a_million_bytes(book: logbook.Logbook) -> None:
    for number in range(300):
        logbook.main().info("a", number=number, text="ü" * 5_000)
    command = logs(book.read_page)
    assert command.respond is not None

    facts = await command.answer({"limit": 1_000})

    assert 800_000 < len(encode(command.respond(facts, "Agent/" + "x" * 200))) < 1_000_000
    assert facts["hasMore"]


@pytest.mark.parametrize("limit", [0, -1, 1_001, 100_000])
async def test_a_limit_that_cannot_be_given_is_refused_in_the_words_that_clients_know(limit: int) -> None:
    heard: asyncio.Queue[FromAgent] = asyncio.Queue()
    commands = Commands([logs(lambda *_: Page([], None))], send=heard.put_nowait)
    async with asyncio.timeout(WITHIN_S), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(commands.run())
        commands.take(LogsRequest(limit=limit, callback="cb-1"))
        answer = await heard.get()
        running.cancel()

    text = f"Invalid limit: {limit} - must be a valid positive integer less than or equal to 1000"
    assert answer == AgentErrorFrame(text, "cb-1")


@pytest.mark.parametrize("args", [{"limit": True}, {"limit": "DOE^JANE"}, {"limit": 1.5}, {"before": "DOE^JANE"}])
async def test_what_is_no_number_or_no_instant_is_refused_and_not_repeated(args: dict[str, object]) -> None:
    with pytest.raises(AgentError, match=r"^Invalid (limit|before): ") as refused:
        await ask(lambda *_: Page([], None), **args)
    assert "DOE" not in str(refused.value)


@pytest.mark.parametrize(
    ("before", "stamp"),
    [
        ("2026-11-22T07:50:09.294Z", "2026-11-22T07:50:09.294Z"),
        ("2026-11-22T08:50:09.294+01:00", "2026-11-22T07:50:09.294Z"),
        ("2026-11-22T07:50:09Z", "2026-11-22T07:50:09.000Z"),
        ("2026-11-22T07:50:09.2941Z", "2026-11-22T07:50:09.294100Z"),
    ],
)
async def test_any_spelling_of_an_instant_is_understood(before: str, stamp: str) -> None:
    asked: list[str | None] = []

    def read(_: int, instant: str | None) -> Page:
        asked.append(instant)
        return Page([], None)

    await ask(read, before=before)
    assert asked == [stamp]


@pytest.mark.parametrize("before", ["2026-11-22T07:50:09.294", "2026-11-22", "", "9999-12-31T23:59:59.9999-14:00", 7])
async def test_an_instant_without_its_zone_is_refused_rather_than_guessed(before: object) -> None:
    with pytest.raises(AgentError, match=r"as 2026-11-22T07:50:09\.294Z$"):
        await ask(lambda *_: Page([], None), before=before)


@given(st.text() | st.integers() | st.none() | st.floats(), st.text() | st.datetimes().map(str) | st.integers())
def test_whatever_is_asked_is_answered_or_refused(limit: object, before: object) -> None:
    async def asked() -> None:
        try:
            await ask(lambda *_: Page([], None), limit=limit, before=before)
        except AgentError as refused:
            msgspec.json.encode(str(refused))

    asyncio.run(asked())


async def test_a_disk_that_does_not_answer_costs_one_thread_however_often_it_is_asked() -> None:
    hanging, released = threading.Event(), threading.Event()
    reads: list[int] = []

    def read(limit: int, _: str | None) -> Page:
        reads.append(limit)
        hanging.set()
        assert released.wait(WITHIN_S)
        return Page([], None)

    command = logs(read)
    async with asyncio.timeout(WITHIN_S), asyncio.TaskGroup() as tasks:
        first = tasks.create_task(command.answer({"limit": 1}))
        await asyncio.to_thread(hanging.wait, WITHIN_S)
        first.cancel()  # as at the deadline
        await asyncio.wait([first])
        second = tasks.create_task(command.answer({"limit": 2}))
        third = tasks.create_task(command.answer({"limit": 3}))
        for _ in range(5):
            await asyncio.sleep(0)
        assert reads == [1]

        released.set()
        await asyncio.wait([second, third])
    assert sorted(reads) == [1, 2, 3]


async def test_an_error_that_nobody_expects_is_not_hidden() -> None:
    def read(limit: int, _: str | None) -> Page:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await ask(read)
