"""Which message an answer of the server is about.

Secret: callbacks, and what to do without one; which of several tries an answer belongs to.
Promise: an answer never settles another message than its own: a late one, a second one, or one that names nobody we
know, is nobody's. Takes any frame without raising.
"""

from __future__ import annotations

from collections.abc import Mapping

from agent.flow.callbacks import Callbacks
from agent.flow.verdict import TryLater, Verdict
from agent.protocol.envelope import TransmitResponse
from agent.protocol.hl7 import read_ack
from agent.store.row import Row, State
from agent.store.spool import Spool
from agent.store.sqlite import SpoolTrouble


class Receipts:
    """`rows`: the messages in memory, by id; `sent`: those on the socket, in the order of sending."""

    __slots__ = ("_callbacks", "_rows", "_sent", "_spool")

    def __init__(self, callbacks: Callbacks, spool: Spool, rows: Mapping[int, Row], sent: Mapping[int, Row]) -> None:
        self._callbacks = callbacks
        self._spool = spool
        self._rows = rows
        self._sent = sent

    def row_of(self, frame: TransmitResponse, verdict: Verdict) -> Row | None:
        """The row that the verdict settles or sends back, if there is one."""
        callback = frame.callback
        if not callback:
            return self._unnamed(frame)
        named = self._callbacks.read(callback)
        row = self._rows.get(named[0]) if named is not None else None
        if named is None or row is None:
            return None
        attempt = named[1]
        if row.id in self._sent and attempt == row.attempts:
            return row
        # an answer to an earlier try settles the message, but a "later" has been obeyed already
        tried = row.attempts - (row.state is State.INFLIGHT)
        return row if 0 < attempt <= tried and type(verdict) is not TryLater else None

    def given_up(self, frame: TransmitResponse) -> Row | None:
        """The row that a late answer is about, read from the file, if it was given up before the answer came."""
        named = self._callbacks.read(frame.callback) if frame.callback else None
        if named is None or named[0] in self._rows or not 0 < named[0] < 1 << 63:
            return None
        try:
            row = self._spool.shelf.get(named[0])
        except SpoolTrouble:
            return None
        return row if row is not None and row.state in (State.FAILED, State.HELD) else None

    def _unnamed(self, frame: TransmitResponse) -> Row | None:
        """An old server: the sender's address is all there is, and with it the id that the answer names."""
        waiting = [
            row
            for row in self._sent.values()
            if frame.remote in (None, row.remote) and frame.channel in (None, row.channel)
        ]
        ack = read_ack(frame.body.encode("utf-8", "replace")) if isinstance(frame.body, str) else None
        if ack is not None:
            for row in waiting:
                if row.control_id == ack.control_id:
                    return row
            if any(self._spool.known(channel, ack.control_id) for channel in {row.channel for row in waiting}):
                return None  # it names a message that was given up, and must not answer the next one
        return waiting[0] if waiting and frame.remote is not None else None
