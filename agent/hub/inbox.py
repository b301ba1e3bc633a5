"""Keep the messages that agents delivered, so that people and tests can count and read them.

Secret: the message table and how it is bounded.
Promise: a message is told of as received only when it is on disk; every transmit is a row of its own, repeats
included; never more than `keep` messages stay, the oldest go first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import apsw

from agent.errors import StoreError
from agent.hub.clock import instant
from agent.hub.outcomes import Refused, bad_request
from agent.hub.store import Store
from agent.protocol.hl7 import Header

INSERT = (
    "INSERT INTO message (id, received, agent, channel, remote, content_type, callback, control_id, message_type, body,"
    " status, answer) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
COLUMNS = (
    "id, received, agent, channel, remote, content_type, callback, control_id, message_type,"
    " length(CAST(body AS BLOB)), status"
)
FILTERS = {
    "channel": "channel = ?",
    "agent": "agent = ?",
    "controlId": "control_id = ?",
    "callback": "callback = ?",
    "since": "received >= ?",
}
PRUNE_EVERY = 1_000


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message as it came in one transmit frame. `header` is its MSH, None for what is no HL7."""

    agent: str
    channel: str
    remote: str | None
    content_type: str | None
    callback: str | None
    body: str
    header: Header | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """A message as it lies in the inbox. `status_code` and `answer` are None while its target is at work."""

    id: int
    received: str
    agent: str
    channel: str
    remote: str | None
    content_type: str | None
    callback: str | None
    control_id: str | None
    message_type: str | None
    size_bytes: int
    status_code: int | None

    def shown(self) -> dict[str, Any]:
        """As JSON for `GET /hub/messages`: camelCase names."""
        return {_camel(name): value for name, value in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class Opened:
    """A kept message with its content: `body` as received, `answer` as sent back."""

    message: Kept
    body: str
    answer: str | None


class Inbox:
    """The received messages. `received`: how many since the hub started."""

    def __init__(self, store: Store, keep: int) -> None:
        self._store = store
        self._keep = keep
        self._unpruned = 0
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self.received = 0
        self._last_id: int = store.read.execute("SELECT max(id) FROM message").get or 0

    def put(
        self, delivery: Delivery, kept: Callable[[StoreError | None], None], status: int | None, answer: str | None
    ) -> int:
        """Keep a message under the id returned; `kept` is called after the commit, with what went wrong or None."""
        header = delivery.header
        self._last_id += 1
        row = (
            self._last_id,
            instant(),
            delivery.agent,
            delivery.channel,
            delivery.remote,
            delivery.content_type,
            delivery.callback,
            header.control_id.decode() if header else None,
            header.message_type.decode() if header else None,
            delivery.body,
            status,
            answer,
        )

        def committed(error: StoreError | None) -> None:
            if error is None:
                self._count()
            kept(error)

        self._store.append(row, committed)
        return self._last_id

    def settle(self, message_id: int, status: int, answer: str | None) -> None:
        """Note what the target said about a message, with one of the next commits."""

        def job(db: apsw.Connection) -> None:
            db.execute("UPDATE message SET status = ?, answer = ? WHERE id = ?", (status, answer, message_id))

        self._store.later(job)

    def list(self, query: Mapping[str, str]) -> tuple[list[Kept], int]:
        """A page, oldest first, and the number of all that match. `_count` (100), `_offset`, and FILTERS."""
        where, args = ["1"], []
        for name, value in query.items():
            if name in FILTERS:
                where.append(FILTERS[name])
                args.append(value)
            elif name not in ("_count", "_offset"):
                raise Refused(bad_request(f"Unknown search parameter: {name}"))
        count, offset = (_number(query, name, default) for name, default in (("_count", 100), ("_offset", 0)))
        condition = " AND ".join(where)
        total = self._store.read.execute(f"SELECT count(*) FROM message WHERE {condition}", args).get
        sql = f"SELECT {COLUMNS} FROM message WHERE {condition} ORDER BY id LIMIT ? OFFSET ?"
        return [Kept(*row) for row in self._store.read.execute(sql, (*args, count, offset))], total

    def open(self, message_id: int) -> Opened | None:
        """One message with its content, None if there is none of that id (any more)."""
        sql = f"SELECT {COLUMNS}, body, answer FROM message WHERE id = ?"
        row = self._store.read.execute(sql, (message_id,)).fetchone()
        return Opened(Kept(*row[:-2]), row[-2], row[-1]) if row else None

    async def wait(self, count: int) -> None:
        """Until `count` messages were received since the start."""
        if self.received >= count:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((count, waiter))
        await waiter

    def _count(self) -> None:
        self.received += 1
        if self._waiting:
            for count, waiter in self._waiting:
                if count <= self.received and not waiter.done():
                    waiter.set_result(None)
            self._waiting = [pair for pair in self._waiting if not pair[1].done()]
        self._unpruned += 1
        if self._unpruned >= PRUNE_EVERY:
            self._unpruned = 0
            self._store.later(self._prune)

    def _prune(self, db: apsw.Connection) -> None:
        db.execute("DELETE FROM message WHERE id <= (SELECT max(id) FROM message) - ?", (self._keep,))


def header_of(body: str) -> Header:
    """MSH of an HL7 body. Raises NotHl7."""
    return Header.of(body[: _first_segment(body)].encode("utf-8", "replace"))


def _first_segment(body: str) -> int:
    ends = [end for end in (body.find("\r"), body.find("\n")) if end >= 0]
    return min(ends, default=len(body))


def _number(query: Mapping[str, str], name: str, default: int) -> int:
    value = query.get(name)
    if value is None:
        return default
    if not (value.isascii() and value.isdigit() and len(value) < 10):
        raise Refused(bad_request(f"Invalid value for {name}: expected a whole number"))
    return int(value)


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)
