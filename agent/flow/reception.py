"""Receive what comes by one channel, whatever it speaks.

Secret: which parts every kind of channel needs to take a message: its lane, the spool, the dispatcher, those who wait.
Promise: none of its own; what a kind of channel promises stands in its module.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from agent.errors import AgentError, PeerError
from agent.flow.answers import Answers, ContentLog
from agent.flow.dispatcher import Dispatcher
from agent.flow.lanes import Lane
from agent.flow.replies import Sender
from agent.protocol.envelope import TransmitRequest, encode
from agent.protocol.mllp import BrokenFrame
from agent.store.row import Row
from agent.store.spool import Spool

_ESCAPED_GROWTH: Final = 6  # JSON writes a control character as \\u00XX
_FRAME_OVERHEAD: Final = 512  # everything in a frame but token and body


@dataclass(slots=True)
class Limits:
    """`frame_bytes`: the largest frame that the server takes."""

    frame_bytes: int = 1_048_576


@dataclass(frozen=True, slots=True)
class Means:
    """What a reception works with. `on_refusal` hears channel, reference and reason of what was not taken; `now_ms`:
    milliseconds since the epoch."""

    spool: Spool
    dispatcher: Dispatcher
    answers: Answers
    limits: Limits
    now_ms: Callable[[], int]
    on_refusal: Callable[[str, str, str], None]
    content_log: ContentLog | None = None


class Reception(ABC):
    """The door of one channel."""

    def __init__(self, lane: Lane, means: Means) -> None:
        self._lane = lane
        self._spool = means.spool
        self._dispatcher = means.dispatcher
        self._answers = means.answers
        self._replies = means.answers.replies
        self._limits = means.limits
        self._now_ms = means.now_ms
        self._on_refusal = means.on_refusal
        self._content_log = means.content_log
        self._references = itertools.count(means.now_ms())  # never the same twice, not even after a restart

    @property
    @abstractmethod
    def at_commit(self) -> bool:
        """Whether it has something to say as soon as a message is on the platter."""

    @abstractmethod
    def receive(self, sender: Sender, frames: list[bytes]) -> None:
        """Each message of one socket read: stored, or refused."""

    @abstractmethod
    def broken(self, sender: Sender, error: BrokenFrame) -> None:
        """A message began and will not end well; the connection ends, for its tail follows."""

    @abstractmethod
    def durable(self, rows: list[Row]) -> None:
        """These rows of this channel are on the platter."""

    @abstractmethod
    def refused(self, rows: list[Row], error: AgentError) -> None:
        """These rows could not be stored."""

    @abstractmethod
    def late(self, row: Row) -> bytes | None:
        """The deadline has come: what a sender hears that waited for `row` in vain; None: nothing."""

    @abstractmethod
    def mended(self) -> None:
        """The disk takes messages again."""

    def _reference(self) -> str:
        return f"n{next(self._references)}"

    def _note_refusal(self, kind: str, error: AgentError, reference: str = "") -> None:
        self._lane.metrics.refuse(kind)
        reason = error.loggable if isinstance(error, PeerError) else str(error)
        self._on_refusal(self._lane.name, reference or self._reference(), reason)

    def _store(self, row: Row) -> None:
        """Have a row stored and handed over."""
        self._dispatcher.arrive(self._lane, row)
        self._spool.put(row)
        if self._content_log is not None:
            self._content_log("message.received", row.channel, row.remote, row.id, row.body)

    def _too_large(self, size: int, text: str) -> PeerError | None:
        """Why the server would not take this body in one frame, if it would not. `size`: of the message as it came."""
        limit = self._limits.frame_bytes
        if len(text) * _ESCAPED_GROWTH <= limit:
            return None
        frame = encode(TransmitRequest("", self._lane.name, "", "", text, ""))
        if len(frame) + self._dispatcher.token_bytes + _FRAME_OVERHEAD <= limit:
            return None
        return PeerError(
            f"a message of {size} bytes is more than the server takes in one frame ({limit} bytes)",
            hint="raise the server's limit and server.max_frame_bytes",
        )
