"""How an answer finds the connection that asked, and what happens when it is late.

Secret: the book of debts: which connection waits for which message, until when.
Promise: a connection is answered once for each frame it sent, before the deadline whatever broke, or it had gone; an
answer never reaches a connection that did not ask; who has gone is forgotten with everything that was kept for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from agent.protocol.forensics import Oddity
from agent.store.row import Row

_TICK_S: Final = 0.25


class Sender(Protocol):
    """The connection a message came from, as far as flow sees it."""

    remote: str  # ip:port

    @property
    def gone(self) -> bool:
        """Nothing written to it will arrive."""

    def reply(self, message: bytes) -> None:
        """Write one framed message, the answer to one of its frames."""

    def tell(self, message: bytes) -> bool:
        """Write one framed message that answers no frame; False if it does not read what it is told."""

    def waive(self) -> None:
        """One of its frames gets no answer."""

    def expect(self, more: int) -> None:
        """One of its frames gets so many further answers."""

    def odd(self, oddity: Oddity) -> None:
        """Note what was odd about one of its frames."""

    def close_after_reply(self) -> None:
        """Close once everything written has left."""


_Debt = tuple[float, Sender, Row]
_Book = dict[int, _Debt]
_Entry = tuple[_Book, int]


class Replies:
    """Debts by message. `on_late` words the deadline's answer for a row, if there is one; `now`: a clock in seconds."""

    def __init__(self, on_late: Callable[[Row], bytes | None], now: Callable[[], float]) -> None:
        self._on_late = on_late
        self._now = now
        self._serial = 0
        # one book per timeout: entries are in order of arrival, so the next deadline is always the first entry
        self._books: dict[float, _Book] = {}
        self._by_row: dict[int, _Entry | list[_Entry]] = {}
        # a connection may be told of messages newer than its opening only: addresses are used again, numbers are not
        self._open: dict[tuple[str, str], tuple[Sender, int]] = {}
        self._instead: dict[int, Sender | None] = {}  # who hears the later word about a row, if not its sender
        self._newest = 0
        self._deserted = False

    def begin_after(self, row_id: int) -> None:
        """Messages up to this one are from an earlier process: whoever sent them has gone."""
        self._newest = max(self._newest, row_id)

    def opened(self, channel: str, sender: Sender) -> None:
        self._open[channel, sender.remote] = sender, self._newest

    def closed(self, channel: str, sender: Sender) -> None:
        known = self._open.get((channel, sender.remote))
        if known is not None and known[0] is sender:
            del self._open[channel, sender.remote]
        self._deserted = True

    def follow(self, row: Row, sender: Sender) -> None:
        """`sender` has repeated a message that is not finished: the later word about it is for this connection."""
        self._instead[row.id] = sender

    def hush(self, row: Row) -> None:
        """The sender was told no: a later word about `row` would contradict it."""
        self._instead[row.id] = None

    def no_later_word(self, row: Row) -> None:
        """There will be none about `row`."""
        self._instead.pop(row.id, None)

    def tell(self, row: Row, message: bytes) -> bool:
        """Give a later word about `row` to the connection it came from, if that is still the same one."""
        if row.id in self._instead:
            sender = self._instead.pop(row.id)
        else:
            sender, opened_after = self._open.get((row.channel, row.remote), (None, 0))
            if row.id <= opened_after:
                return False
        return sender is not None and not sender.gone and sender.tell(message)

    def owe(self, row: Row, sender: Sender, within_s: float) -> None:
        """`sender` waits for the answer to `row`; 0 = for ever."""
        row_id = row.id
        book = self._books.get(within_s)
        if book is None:
            book = self._books[within_s] = {}
        self._serial = serial = self._serial + 1
        book[serial] = (self._now() + within_s, sender, row)
        if row_id > self._newest:
            self._newest = row_id
            self._by_row[row_id] = (book, serial)
            return
        before = self._by_row.get(row_id)
        if before is None:
            self._by_row[row_id] = (book, serial)
        elif isinstance(before, tuple):
            self._by_row[row_id] = [before, (book, serial)]
        else:
            before.append((book, serial))

    def answer(self, row: Row, message: bytes) -> bool:
        """Give `message` to everyone who waits for `row`; whether any of them was still there."""
        entry = self._by_row.pop(row.id, None)
        if entry is None:
            return False
        delivered = False
        for book, serial in (entry,) if isinstance(entry, tuple) else entry:
            sender = book.pop(serial)[1]
            if not sender.gone:
                sender.reply(message)
                delivered = True
        return delivered

    def waive(self, row: Row) -> None:
        """Nobody who waits for `row` gets an answer, for none of them wants to hear of it."""
        entry = self._by_row.pop(row.id, None)
        if entry is not None:
            for book, serial in (entry,) if isinstance(entry, tuple) else entry:
                sender = book.pop(serial)[1]
                if not sender.gone:
                    sender.waive()

    def cut(self, row: Row) -> None:
        """Nobody who waits for `row` has a word for its loss: their connections end."""
        entry = self._by_row.pop(row.id, None)
        if entry is not None:
            for book, serial in (entry,) if isinstance(entry, tuple) else entry:
                sender = book.pop(serial)[1]
                if not sender.gone:
                    sender.waive()
                    sender.close_after_reply()

    def owes(self, row: Row) -> bool:
        """Whether anybody waits for the answer to `row`."""
        return row.id in self._by_row

    @property
    def owed(self) -> int:
        """How many messages have somebody waiting for their answer."""
        return len(self._by_row)

    async def run(self) -> None:
        """Answer in our own name whoever has waited long enough."""
        while True:
            await asyncio.sleep(_TICK_S)
            self.expire()

    def expire(self) -> None:
        """Settle the debts whose deadline has come, and strike those to connections that have gone."""
        now = self._now()
        for within_s, book in self._books.items():
            if within_s:
                late: list[int] = []
                for serial, (deadline, _, _) in book.items():
                    if deadline > now:
                        break
                    late.append(serial)
                for serial in late:
                    sender, row = self._strike(book, serial)
                    if sender.gone:
                        continue
                    words = self._on_late(row)
                    if words is None:
                        sender.waive()
                    else:
                        sender.reply(words)
        if self._deserted:
            self._deserted = False
            for book in self._books.values():
                for serial in [serial for serial, (_, sender, _) in book.items() if sender.gone]:
                    self._strike(book, serial)
            self._instead = {
                row_id: sender for row_id, sender in self._instead.items() if sender is None or not sender.gone
            }

    def _strike(self, book: _Book, serial: int) -> tuple[Sender, Row]:
        _, sender, row = book.pop(serial)
        entry = self._by_row[row.id]
        if isinstance(entry, list):
            entry[:] = [one for one in entry if one[1] != serial]
        if not entry or isinstance(entry, tuple):
            del self._by_row[row.id]
        return sender, row
