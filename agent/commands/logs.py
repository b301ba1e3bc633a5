"""`logs`: the main log, page by page, for the server's $fetch-logs.

Secret: what may be asked for, and that one page is read at a time, however often it is asked for.
Promise: pages of the main log only, newest first; who asks for what cannot be given is told what can. The files are
read without holding up anything else, and a disk that does not answer costs one thread.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from datetime import datetime
from typing import Any, Final

from agent.commands.serve import Command
from agent.errors import AgentError
from agent.logbook import Page
from agent.loglines import cursor_of
from agent.protocol.envelope import FromAgent, LogsRequest, LogsResponse

LINES: Final = 20
MOST_LINES: Final = 1_000


def logs(read: Callable[[int, str | None], Page]) -> Command:
    """Both doors. `read(limit, before)` gives a page that fits into a frame; it reads files, so a thread calls it."""
    reading: asyncio.Future[Page] | None = None

    async def page(limit: int, before: str | None) -> Page:
        nonlocal reading
        while reading is not None and not reading.done():
            await asyncio.wait([reading])
        reading = _aside(lambda: read(limit, before))
        return await asyncio.shield(reading)  # given up at the deadline, it still has its thread

    async def answer(args: Mapping[str, Any]) -> dict[str, Any]:
        found = await page(_limit(args.get("limit")), _before(args.get("before")))
        return {"logs": found.lines, "hasMore": found.next_before is not None, "nextBefore": found.next_before}

    def respond(found: dict[str, Any], callback: str | None) -> FromAgent:
        return LogsResponse(
            logs=found["logs"], callback=callback, has_more=found["hasMore"], next_before=found["nextBefore"]
        )

    return Command("logs", answer, LogsRequest, respond)


def _aside(work: Callable[[], Page]) -> asyncio.Future[Page]:
    """In a thread that the end of the process does not wait for, as it would for those of the loop's executor."""
    done: Future[Page] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # not swallowed: whoever waits hears of it
            done.set_exception(error)

    threading.Thread(target=run, name="logs", daemon=True).start()
    return asyncio.wrap_future(done)


def _limit(value: object) -> int:
    if value is None:
        return LINES
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST_LINES:
        return value
    shown = value if isinstance(value, int) else type(value).__name__  # a text may hold anything, and this is logged
    raise AgentError(f"Invalid limit: {shown} - must be a valid positive integer less than or equal to {MOST_LINES}")


def _before(value: object) -> str | None:
    """An instant (FHIR R4 datatypes), as lines are stamped. What is none is not quoted: a text may hold anything."""
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(str(value))
        if moment.tzinfo is None:
            raise ValueError
        return cursor_of(moment)
    except (ValueError, OverflowError):
        raise AgentError(
            "Invalid before: it is no instant - must be a timestamp with its time zone, as 2026-11-22T07:50:09.294Z"
        ) from None
