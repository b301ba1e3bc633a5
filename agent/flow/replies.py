"""How an answer finds the connection that asked, and what happens when it is late.

Secret: the book of debts: which connection waits for which message, until when.
Promise: a connection is answered once for each frame it sent, before the deadline whatever broke, or it had gone; an answer
never reaches a connection that did not ask.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from agent.store.row import Row

_TICK_S: Final = 0.25


class Sender(Protocol):
    """The connection a message came from, as far as flow sees it."""

    remote: str  # ip:port
    since_ms: int  # when it was opened, milliseconds since the epoch
    gone: bool  # nothing written to it will arrive

    def reply(self, message: bytes, frames: int = 1) -> None:
        """Write one framed message. `frames`: how many of its unanswered frames this answers (0 for a later word)."""

    def close_after_reply(self) -> None:
        """Close once everything written has left."""


_Debt = tuple[float, Sender, Row]
_Entry = tuple[dict[int, _Debt], int]


class Replies:
    """Debts by message. `on_late` words the deadline's answer for a row; `now` is the loop's clock in seconds."""

    def __init__(self, on_late: Callable[[Row], bytes], now: Callable[[], float]) -> None:
        self._on_late = on_late
        self._now = now
        self._serial = 0
        # one book per timeout: entries are in order of arrival, so the next deadline is always the first entry
        self._books: dict[float, dict[int, _Debt]] = {}
        self._by_row: dict[int, _Entry | list[_Entry]] = {}
        self._open: dict[tuple[str, str], Sender] = {}

    def opened(self, channel: str, sender: Sender) -> None:
        self._open[channel, sender.remote] = sender

    def closed(self, channel: str, sender: Sender) -> None:
        if self._open.get((channel, sender.remote)) is sender:
            del self._open[channel, sender.remote]

    def tell(self, row: Row, message: bytes) -> bool:
        """Give a later word about `row` to the connection it came from, if that is still the same one."""
        sender = self._open.get((row.channel, row.remote))
        if sender is None or sender.gone or sender.since_ms > row.received_ms:
            return False
        sender.reply(message, frames=0)
        return True

    def owe(self, row: Row, sender: Sender, within_s: float) -> None:
        """`sender` waits for the answer to `row`; 0 = for ever."""
        book = self._books.get(within_s)
        if book is None:
            book = self._books[within_s] = {}
        self._serial = serial = self._serial + 1
        book[serial] = (self._now() + within_s, sender, row)
        before = self._by_row.get(row.id)
        if before is None:
            self._by_row[row.id] = (book, serial)
        elif isinstance(before, tuple):
            self._by_row[row.id] = [before, (book, serial)]
        else:
            before.append((book, serial))

    def answer(self, row: Row, message: bytes) -> bool:
        """Give `message` to everyone who waits for `row`; whether any of them was still there."""
        entry = self._by_row.pop(row.id, None)
        if entry is None:
            return False
        delivered = False
        for book, serial in [entry] if isinstance(entry, tuple) else entry:
            debt = book.pop(serial, None)
            if debt is not None and not debt[1].gone:
                debt[1].reply(message)
                delivered = True
        return delivered

    @property
    def owed(self) -> int:
        return len(self._by_row)

    async def run(self) -> None:
        """Answer in our own name whoever has waited long enough."""
        while True:
            await asyncio.sleep(_TICK_S)
            self.expire()

    def expire(self) -> None:
        now = self._now()
        for within_s, book in self._books.items():
            if not within_s:
                continue
            late: list[tuple[int, Sender, Row]] = []
            for serial, (deadline, sender, row) in book.items():
                if deadline > now:
                    break
                late.append((serial, sender, row))
            for serial, sender, row in late:
                del book[serial]
                self._strike(row.id, serial)
                if not sender.gone:
                    sender.reply(self._on_late(row))

    def _strike(self, row_id: int, serial: int) -> None:
        entry = self._by_row.get(row_id)
        if isinstance(entry, list):
            entry[:] = [one for one in entry if one[1] != serial]
            if entry:
                return
        self._by_row.pop(row_id, None)
