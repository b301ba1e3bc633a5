"""One connection of a sender: what went out on it and which answer belongs to what.

Secret: how answers find their messages: by MSA-2, in order where an answer names none, and never after the fact. A
message that timed out is remembered, so that its late answer is not taken for the next message's.
Promise: every message that was written ends in the ledger exactly once, whatever the peer does.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from time import perf_counter
from typing import Protocol

from agent.protocol.hl7 import Acknowledgement, Header, NotHl7, read_ack
from agent.protocol.mllp import Framer, wrap
from agent.ward.tally import Ledger

# Control ids remembered on a connection for late answers, and as many for application answers.
REMEMBERED = 65_536
# What is handed to the socket at a time; it says only afterwards that it has enough.
WRITE_BYTES = 65_536


class Supply(Protocol):
    """Where a line gets its messages from, and when."""

    def take(self) -> bytes | None:
        """The next message, None when there are no more for this line."""

    def wait_s(self) -> float:
        """How long the next message has to wait for the agreed rate; 0 = it may go now."""

    def wait(self, resume: Callable[[], None]) -> None:
        """Call `resume` when the next message may go."""


@dataclass(frozen=True, slots=True)
class LineLimits:
    """`pipeline`: messages that may be unanswered at a time. `linger_s`: how long to wait, when everything has been
    answered, for the application answers that CAs announce."""

    pipeline: int
    ack_timeout_s: float
    linger_s: float


@dataclass(slots=True, eq=False)
class _InFlight:
    control_id: bytes
    sent_at: float


class _Remembered:
    """The last control ids of some kind; an id that was sent twice is in it twice."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: OrderedDict[bytes, int] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._counts)

    def add(self, control_id: bytes) -> None:
        self._counts[control_id] = self._counts.get(control_id, 0) + 1
        if len(self._counts) > REMEMBERED:
            self._counts.popitem(last=False)

    def take(self, control_id: bytes) -> bool:
        """Whether the id was there; it is forgotten once."""
        count = self._counts.get(control_id, 0)
        if count > 1:
            self._counts[control_id] = count - 1
        elif count:
            del self._counts[control_id]
        return count > 0

    def take_oldest(self) -> None:
        self.take(next(iter(self._counts)))


class Ending(Enum):
    """Why a line was closed. `CLOSED`: by the peer, politely, owing nothing, after it had answered. `GIVEN_UP`: by us,
    because answers can no longer be told apart. `LOST`: anything else that was not asked for."""

    FINISHED = auto()
    CLOSED = auto()
    GIVEN_UP = auto()
    LOST = auto()
    INTERRUPTED = auto()


class Line(asyncio.Protocol):
    """A connection that, once filled for the first time, sends as much as its limits and its supply allow.

    `ended` is set when it has stopped sending; `ending` and `reason` then tell why. `closed`: the socket is gone, too.
    """

    _transport: asyncio.Transport

    def __init__(self, supply: Supply, limits: LineLimits, ledger: Ledger) -> None:
        self._supply = supply
        self._limits = limits
        self._ledger = ledger
        self._loop = asyncio.get_running_loop()
        self.ended = asyncio.Event()
        self.closed = asyncio.Event()
        self.ending: Ending | None = None
        self.reason = ""
        self._has_answered = False
        self._framer = Framer()
        self._in_flight: dict[int, _InFlight] = {}
        self._by_id: dict[bytes, list[int]] = {}
        self._number = 0
        self._committed = _Remembered()
        self._expired = _Remembered()
        self._answers_lack_id = False
        self._writable = True
        self._exhausted = False
        self._waiting_for_rate = False
        self._expiry: asyncio.TimerHandle | None = None
        self._linger: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._ledger.connections_open += 1
        self._ledger.connections_opened += 1

    def data_received(self, data: bytes) -> None:
        now = perf_counter()
        for frame in self._framer.feed(data):
            self._hear(frame, now)
        if self._framer.oversized is not None:
            self.end(Ending.LOST, f"the peer's answer is longer than {self._framer.oversized.limit} bytes")
        self.fill()

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self.fill()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._expiry, self._linger):
            if timer is not None:
                timer.cancel()
        self._ledger.connections_open -= 1
        if self.ending is None:
            polite = exc is None and self._has_answered and not self._in_flight
            self.ending = Ending.CLOSED if polite else Ending.LOST
            self.reason = f"connection lost: {exc}" if exc else "connection closed by the peer"
            self._ledger.connections_lost += 1
        self._fail_all()
        self.ended.set()
        self.closed.set()

    def fill(self) -> None:
        """Send what may be sent now."""
        while frames := self._next_frames():
            self._transport.write(b"".join(frames))
            if self._expiry is None:
                self._expiry = self._loop.call_later(self._limits.ack_timeout_s, self._expire)
        if self._exhausted and not self._in_flight and self.ending is None:
            self._linger_or_finish()

    def end(self, ending: Ending, reason: str) -> None:
        """Close the connection from this side; what is unanswered fails for this reason."""
        if self.ending is None:
            self.ending = ending
            self.reason = reason
            self._fail_all()
            self._transport.close()
            self.ended.set()

    def abort(self) -> None:
        """Give up on an orderly end: a peer that does not read must not hold us up."""
        self._transport.abort()

    def _next_frames(self) -> list[bytes]:
        """As many messages as may go now, but no more than is sensible between two looks at the socket."""
        frames: list[bytes] = []
        size_bytes = 0
        while (
            self.ending is None
            and not (self._exhausted or self._waiting_for_rate)
            and self._writable
            and size_bytes < WRITE_BYTES
            and len(self._in_flight) < self._limits.pipeline
        ):
            if self._supply.wait_s() > 0:
                self._waiting_for_rate = True
                self._supply.wait(self._go_on)
                break
            body = self._supply.take()
            if body is None:
                self._exhausted = True
                break
            frames.append(self._enter(body))
            size_bytes += len(body)
        return frames

    def _go_on(self) -> None:
        self._waiting_for_rate = False
        self.fill()

    def _enter(self, body: bytes) -> bytes:
        """Book the message as sent; gives its frame."""
        try:
            control_id = Header.of(body).control_id
        except NotHl7:
            control_id = b""
        self._number += 1
        self._in_flight[self._number] = _InFlight(control_id, perf_counter())
        if control_id:
            self._by_id.setdefault(control_id, []).append(self._number)
        self._ledger.send(len(body))
        return wrap(body)

    def _hear(self, frame: bytes, now: float) -> None:
        ack = read_ack(frame)
        if ack is None:
            if self._in_flight:
                self._ledger.fail(self._settle_oldest().control_id, "the answer is no HL7 acknowledgement")
            else:
                self._ledger.unmatched += 1
        elif ack.control_id:
            self._hear_named(ack, now)
        else:
            self._hear_unnamed(ack, now)

    def _hear_named(self, ack: Acknowledgement, now: float) -> None:
        numbers = self._by_id.get(ack.control_id)
        if numbers:
            self._answer(self._settle(numbers[0]), ack, now)
        elif self._committed and self._committed.take(ack.control_id):
            self._ledger.application_answer(ack.control_id, ack.code, ack.text)
        elif self._expired and self._expired.take(ack.control_id):
            self._ledger.late += 1
        else:
            self._ledger.unmatched += 1

    def _hear_unnamed(self, ack: Acknowledgement, now: float) -> None:
        self._answers_lack_id = True
        if self._expired:
            # It is the answer to the oldest, the one that timed out. From here on nothing is certain any more.
            self._expired.take_oldest()
            self._ledger.late += 1
            self._give_up()
        elif self._in_flight:
            self._answer(self._settle_oldest(), ack, now)
        else:
            self._ledger.unmatched += 1

    def _answer(self, message: _InFlight, ack: Acknowledgement, now: float) -> None:
        self._has_answered = True
        if ack.code == "CA" and message.control_id:
            self._committed.add(message.control_id)
        self._ledger.answer(message.control_id, ack.code, ack.text, now - message.sent_at)

    def _settle_oldest(self) -> _InFlight:
        return self._settle(next(iter(self._in_flight)))

    def _settle(self, number: int) -> _InFlight:
        message = self._in_flight.pop(number)
        if message.control_id:
            numbers = self._by_id[message.control_id]
            numbers.remove(number)
            if not numbers:
                del self._by_id[message.control_id]
        return message

    def _expire(self) -> None:
        """Time out what is overdue, and look again when the next one would be."""
        self._expiry = None
        timeout_s = self._limits.ack_timeout_s
        now = perf_counter()
        expired = False
        while self._in_flight:
            oldest = next(iter(self._in_flight.values()))
            # A millisecond of grace: timers of some systems go off a little early.
            remaining_s = oldest.sent_at + timeout_s - now
            if remaining_s > 0.001:
                self._expiry = self._loop.call_later(remaining_s, self._expire)
                break
            self._settle_oldest()
            self._expired.add(oldest.control_id)
            self._ledger.time_out(oldest.control_id, timeout_s)
            expired = True
        if expired and self._answers_lack_id:
            self._give_up()
        self.fill()

    def _give_up(self) -> None:
        self.end(Ending.GIVEN_UP, "connection given up: after a time-out, answers without MSA-2 cannot be told apart")

    def _fail_all(self) -> None:
        while self._in_flight:
            self._ledger.fail(self._settle_oldest().control_id, f"{self.reason}, before an answer")

    def _linger_or_finish(self) -> None:
        if self._committed and self._limits.linger_s > 0:
            if self._linger is None:
                self._linger = self._loop.call_later(self._limits.linger_s, self._finish)
            return
        self._finish()

    def _finish(self) -> None:
        self.end(Ending.FINISHED, "everything was sent and answered")
