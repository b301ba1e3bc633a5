"""Bring the object of a message to the server before the message goes.

Secret: how many uploads run at once, and what an upload that failed means for its message.
Promise: a message whose object is not on the server is not sent; an object is uploaded once for all tries of its
message, also after a restart, as far as the disk has kept the note of it; an upload that fails is one try of the
message, by the channel's own policy. Nothing of an object is in memory.

Power loss in the middle of an upload leaves the message QUEUED: it is uploaded again, and the server may have a Binary
that nobody refers to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, Protocol

from agent.errors import AgentError, LinkError
from agent.flow.verdict import Refused, TryLater
from agent.store.row import Content, Row

AT_ONCE: Final = 4
WAITING: Final = 32


class Objects(Protocol):
    """Where the objects of messages are, by their numbers."""

    def path_of(self, number: int) -> Path: ...

    def reference_of(self, number: int) -> str | None: ...

    def note_reference(self, number: int, reference: str) -> None: ...

    def discard(self, number: int) -> None: ...


class NotWanted(AgentError):
    """The server will not take this object, however often it is asked. `status`: HTTP's."""

    def __init__(self, text: str, *, status: int, hint: str = "") -> None:
        super().__init__(text, hint=hint)
        self.status = status


Done = Callable[[Row, Refused | TryLater | None], None]


class Uploads:
    """`upload` brings one file to the server and gives its reference; it raises AgentError, NotWanted for good."""

    def __init__(self, objects: Objects, upload: Callable[[Path], Awaitable[str]], *, at_once: int = AT_ONCE) -> None:
        self._objects = objects
        self._upload = upload
        self._at_once = at_once
        self._known: dict[int, str] = {}  # references, by number of the object
        self._waiting: asyncio.Queue[tuple[Row, Done]] = asyncio.Queue()

    @property
    def full(self) -> bool:
        """Whether no further message should be begun."""
        return self._waiting.qsize() >= WAITING

    def reference(self, row: Row) -> str | None:
        """What the object of `row` is on the server; None: it has to be uploaded first."""
        number = int(row.control_id)
        found = self._known.get(number) or self._objects.reference_of(number)
        if found is not None:
            self._known[number] = found
        return found

    def lacks(self, row: Row) -> bool:
        """Whether an object has to be uploaded before `row` can go."""
        return row.content is Content.DICOM and self.reference(row) is None

    def begin(self, row: Row, done: Done) -> None:
        """Upload the object of `row`; `done` hears on the loop, later, why that failed, or None."""
        self._waiting.put_nowait((row, done))

    def settled(self, row: Row) -> None:
        """The server has the message, and with it all that refers to the object."""
        number = int(row.control_id)
        self._known.pop(number, None)
        self._objects.discard(number)

    async def run(self) -> None:
        """Upload until cancelled."""
        async with asyncio.TaskGroup() as workers:
            for number in range(self._at_once):
                workers.create_task(self._work(), name=f"upload:{number}")

    async def _work(self) -> None:
        while True:
            row, done = await self._waiting.get()
            number = int(row.control_id)
            try:
                reference = await self._upload(self._objects.path_of(number))
            except NotWanted as refused:
                done(row, Refused(refused.status, "", f"the object was refused: {refused}"))
            except LinkError as away:
                done(row, TryLater(None, f"the object could not be uploaded: {away}", away.retry_after_s))
            except AgentError as failed:
                done(row, TryLater(None, f"the object could not be uploaded: {failed}"))
            else:
                self._known[number] = reference
                self._objects.note_reference(number, reference)
                done(row, None)
