"""What waits for one remote: its first messages in memory, the others in the file alone.

Secret: how much of a long queue is in memory, and how a newcomer stays behind those that are not.
Promise: rows are entered and left in the order in which they came; memory is bounded by a page for each remote.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from agent.errors import Finding
from agent.failures import Failure
from agent.flow.remotes import Remote
from agent.spec import ReturnAck
from agent.store.row import Row

PAGE_ROWS: Final = 200  # of one remote in memory
PAGE_BYTES: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class Message:
    """One message in the character set of its remote. `control_id` and `message_type`: MSH-10 and MSH-9 of an HL7
    message; an analyser's has none."""

    content: bytes
    control_id: bytes
    message_type: bytes


@dataclass(frozen=True, slots=True)
class Parcel:
    """A durable message that the server wants sent. `remote`: what the server calls the remote; `callback`: empty if
    nobody waits for the remote's answer. One of the two is told: `stored`, with the row's number, or `refused`."""

    remote: str
    callback: str
    message: Message
    return_ack: ReturnAck | None
    stored: Callable[[int], None]
    refused: Callable[[Failure], None]


class RemoteQueue:
    """What waits for one remote. `remote` None: its address cannot be used at present, `refused` says why."""

    __slots__ = (
        "aside", "current", "last_id", "parcels", "refused", "remote", "rows", "rows_bytes", "timer", "unread", "url",
    )  # fmt: skip

    def __init__(self, url: str) -> None:
        self.url = url
        self.remote: Remote | None = None
        self.refused: tuple[Finding, ...] = ()
        self.rows: deque[Row] = deque()  # the first ones, in order; those behind them are in the file alone
        self.rows_bytes = 0
        self.current: Row | None = None  # claimed, or in the pool
        self.timer: asyncio.TimerHandle | None = None  # it sleeps until then
        self.parcels: dict[int, Parcel] = {}  # of rows of this process
        self.unread = False  # the file holds rows behind `last_id`
        self.aside: set[int] = set()  # rows on their way to the file that memory does not keep
        self.last_id = 0  # the newest row that memory has, or had

    @property
    def full(self) -> bool:
        """Whether a newcomer has to go to the file, so that it stays behind the others."""
        return self.unread or bool(self.aside) or len(self.rows) >= PAGE_ROWS or self.rows_bytes >= PAGE_BYTES

    def is_empty(self) -> bool:
        return not (self.rows or self.unread or self.aside)

    def enter(self, row: Row) -> None:
        row.lane = self
        self.rows.append(row)
        self.rows_bytes += row.size
        self.last_id = row.id

    def leave(self, row: Row) -> None:
        self.rows.remove(row)
        self.rows_bytes -= row.size
        self.parcels.pop(row.id, None)
