"""Keep what is asked for now and answered later: `Prefer: respond-async` (RFC 7240 §4.1), Medplum's AsyncJob.

Secret: how an AsyncJob is kept while it is at work and afterwards, and how long.
Promise: a job that was accepted is on disk and can be read until KEEP younger ones came; it ends completed, or in error
with an OperationOutcome; one that was at work when the hub went away, or whose end the disk did not keep, is in error.

After a power loss nobody is at work on a job that the file shows as accepted: that alone makes it one in error.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4, uuid5

import apsw
import msgspec
import structlog

from agent.errors import StoreError
from agent.hub.clock import instant
from agent.hub.outcomes import NOT_FOUND, TOO_MANY_REQUESTS, Outcome, Refused
from agent.hub.resources import Resource, encode
from agent.hub.store import Store

KEEP = 1_000
AT_ONCE = 1_000  # jobs at work: each may hold a message in memory, and no connection bounds them

ACCEPTED, COMPLETED, ERROR = "accepted", "completed", "error"
INTERRUPTED = Outcome(
    500, "", "exception", "The hub was stopped, or its disk refused the result, before this job ended"
)

Work = Callable[[], Awaitable[Resource]]

log = structlog.get_logger("main")


class Jobs:
    """The asynchronous jobs of a hub."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._last: int = store.read.execute("SELECT max(number) FROM job").get or 0
        self._at_work: dict[str, int] = {}  # id → number, oldest first
        self._group: asyncio.TaskGroup
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """While jobs may be begun; leaving it ends those that are at work."""
        async with asyncio.TaskGroup() as self._group:
            try:
                yield
            finally:
                for task in self._tasks:
                    task.cancel()

    async def begin(self, request: str, work: Work) -> str:
        """Keep a new job and set to work; returns its id. Raises Refused (429), StoreError.

        `request` is the URL that was asked; `work` gives the output, a Parameters resource, or raises Refused.
        """
        if len(self._at_work) >= AT_ONCE:
            raise Refused(TOO_MANY_REQUESTS)
        self._last += 1
        number, id_ = self._last, str(uuid4())
        job: Resource = {
            "resourceType": "AsyncJob",
            "status": ACCEPTED,
            "request": request,
            "requestTime": instant(),
            "id": id_,
            "meta": _meta(),
        }
        self._at_work[id_] = number
        forgotten = min(number - KEEP, next(iter(self._at_work.values())) - 1)  # never one that is at work

        def keep(db: apsw.Connection) -> None:
            db.execute("INSERT INTO job (number, id, content) VALUES (?, ?, ?)", (number, id_, encode(job).decode()))
            db.execute("DELETE FROM job WHERE number <= ?", (forgotten,))

        try:
            await self._store.write(keep)
            task = self._group.create_task(self._do(job, work), name="hub:job")
        except BaseException:
            del self._at_work[id_]
            raise
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return id_

    def read(self, id_: str) -> Resource:
        """The AsyncJob, as it is now. Raises Refused (404)."""
        row = self._store.read.execute("SELECT content FROM job WHERE id = ?", (id_,)).fetchone()
        if row is None:
            raise Refused(NOT_FOUND)
        job: Resource = msgspec.json.decode(row[0])
        if job["status"] == ACCEPTED and id_ not in self._at_work:
            version = str(uuid5(UUID(id_), "interrupted"))  # the same at every look
            meta = {**job["meta"], "versionId": version}
            return {**job, "status": ERROR, "meta": meta, "output": output_of(INTERRUPTED)}
        return job

    async def _do(self, job: Resource, work: Work) -> None:
        id_ = job["id"]
        try:
            try:
                status, output = COMPLETED, await work()
            except Refused as refused:
                status, output = ERROR, output_of(refused.outcome)
            ended = {**job, "status": status, "meta": _meta(), "transactionTime": instant(), "output": output}
            content = encode(ended).decode()
            await self._store.write(
                lambda db: db.execute("UPDATE job SET content = ? WHERE id = ?", (content, id_)) and None
            )
        except StoreError as error:
            log.error("job.unkept", job=id_, error=str(error), hint=error.hint)
        finally:
            del self._at_work[id_]


def output_of(outcome: Outcome, body: str | None = None) -> Resource:
    """What a job says at its end: the outcome, and the body if there is one."""
    parameters: list[dict[str, Any]] = [{"name": "outcome", "resource": outcome.resource()}]
    if body is not None:
        parameters.append({"name": "responseBody", "valueString": body})
    return {"resourceType": "Parameters", "parameter": parameters}


def _meta() -> dict[str, str]:
    return {"versionId": str(uuid4()), "lastUpdated": instant()}
