"""Answer a batch as one.

Secret: how the answers to the messages of one frame are gathered (HL7 v2.5.1 §2.10.3).
Promise: the sender of a batch hears one batch of answers, in the order of its messages, when the last of them is
there; each message keeps a fate and a deadline of its own.
"""

from __future__ import annotations

from collections.abc import Callable

from agent.flow.replies import Sender
from agent.protocol.forensics import Oddity


class BatchAnswer:
    """The answer that a batch of so many messages is owed. `word` makes one of the answers to them, in their order."""

    def __init__(self, sender: Sender, messages: int, word: Callable[[list[bytes]], bytes]) -> None:
        self.sender = sender
        self._word = word
        self._answers = [b""] * messages
        self._missing = messages

    def senders(self) -> list[Sender]:
        """Whom to answer for each message."""
        return [_Place(self, number) for number in range(len(self._answers))]

    def take(self, number: int, answer: bytes) -> None:
        """One message is answered; empty: it gets no answer."""
        self._answers[number] = answer
        self._missing -= 1
        if not self._missing:
            self.sender.reply(self._word(self._answers))


class _Place:
    """The sender of one message of a batch."""

    __slots__ = ("_number", "_whole", "remote")

    def __init__(self, whole: BatchAnswer, number: int) -> None:
        self._whole = whole
        self._number = number
        self.remote = whole.sender.remote

    @property
    def gone(self) -> bool:
        return self._whole.sender.gone

    def reply(self, message: bytes) -> None:
        self._whole.take(self._number, message)

    def waive(self) -> None:
        self._whole.take(self._number, b"")

    def tell(self, message: bytes) -> bool:
        return self._whole.sender.tell(message)

    def expect(self, more: int) -> None:
        self._whole.sender.expect(more)

    def odd(self, oddity: Oddity) -> None:
        self._whole.sender.odd(oddity)

    def close_after_reply(self) -> None:
        self._whole.sender.close_after_reply()
