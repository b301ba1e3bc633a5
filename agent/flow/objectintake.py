"""Take DICOM objects, each as a file.

Secret: what of an object stands in the spool (what it is about) and what beside it (the file), and in which order the
two become durable.
Promise: a C-STORE succeeds only when the file is in its place and the row that names it is committed. An object that
is refused leaves nothing behind.

Power loss in between leaves a file that no row names, or a part: neither was acknowledged, and the next start sweeps
them away.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol

from agent.errors import AgentError
from agent.flow.lanes import Lane
from agent.flow.reception import Means, Reception
from agent.flow.replies import Sender
from agent.protocol import dicomjson
from agent.protocol.mllp import BrokenFrame
from agent.store.row import Content, Row


class Received(Protocol):
    """One object, whole and on the platter, as whoever received it hands it over."""

    @property
    def path(self) -> Path: ...

    @property
    def size_bytes(self) -> int: ...

    @property
    def calling_ae_title(self) -> str: ...

    @property
    def called_ae_title(self) -> str: ...

    @property
    def dataset(self) -> bytes: ...


class Shelf(Protocol):
    """Where objects stay until the server has them."""

    def adopt(self, part: Path, number: int, done: Callable[[OSError | None], None]) -> None: ...

    def discard(self, number: int) -> None: ...


Kept = Callable[[str], None]


class ObjectIntake(Reception):
    """The door of a storage provider. The number of an object is the control id of its row."""

    def __init__(self, lane: Lane, means: Means, objects: Shelf) -> None:
        super().__init__(lane, means)
        self._objects = objects
        self._numbers = itertools.count(means.now_ms() * 1_000)  # never the same twice, not even after a restart
        self._storing: dict[int, tuple[int, Kept]] = {}  # by row id: the object, and who wants to know

    @property
    def at_commit(self) -> bool:
        return True

    def store(self, received: Received, kept: Kept) -> None:
        """Take an object over; `kept` hears, later, why it is not safe, or an empty text."""
        metrics = self._lane.metrics
        metrics.received += 1
        metrics.bytes_in += received.size_bytes
        spool = self._spool
        about = dicomjson.about(received.calling_ae_title, received.called_ae_title, received.dataset)
        refusal: tuple[str, AgentError] | None = None
        if spool.trouble is not None:
            refusal = "disk", spool.trouble
        elif (too_large := self._too_large(len(about), about.decode())) is not None:
            refusal = "too-large-for-server", too_large
        if refusal is not None:
            self._refuse(refusal[0], refusal[1], kept)
            return
        number = next(self._numbers)
        self._objects.adopt(received.path, number, partial(self._adopted, number, about, received, kept))

    def receive(self, sender: Sender, frames: list[bytes]) -> None:
        raise NotImplementedError("objects come as files")

    def broken(self, sender: Sender, error: BrokenFrame) -> None:
        raise NotImplementedError("objects come as files")

    def durable(self, rows: list[Row]) -> None:
        for row in rows:
            waiting = self._storing.pop(row.id, None)
            if waiting is not None:
                row.ack_code = "0000"
                self._lane.metrics.acknowledged += 1
                waiting[1]("")

    def refused(self, rows: list[Row], error: AgentError) -> None:
        for row in rows:
            waiting = self._storing.pop(row.id, None)
            if waiting is not None:
                number, kept = waiting
                self._objects.discard(number)
                self._refuse("disk", error, kept)

    def late(self, row: Row) -> bytes | None:
        return None

    def mended(self) -> None:
        """Nothing waits here: what could not be stored was refused."""

    def _adopted(self, number: int, about: bytes, received: Received, kept: Kept, trouble: OSError | None) -> None:
        if trouble is not None:
            why = AgentError(f"the object could not be kept: {trouble.strerror or trouble}")
            self._refuse("disk", why, kept)
            return
        name = b"%d" % number
        row = Row(
            self._spool.next_id(),
            self._lane.name,
            received.calling_ae_title,
            name,
            name,
            b"",
            self._now_ms(),
            about,
            content=Content.DICOM,
        )
        self._storing[row.id] = number, kept
        self._store(row)

    def _refuse(self, kind: str, why: AgentError, kept: Kept) -> None:
        self._lane.metrics.rejected += 1
        self._note_refusal(kind, why)
        kept(str(why))
