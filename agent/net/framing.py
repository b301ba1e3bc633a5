"""What a connection does with its bytes, by what its channel speaks.

Secret: everything in which MLLP and a byte stream differ on a connection: the framer, the framing of answers, what is
said at once, which other protocols can be told apart from it, and how a sender is told.
Promise: a `Framing` holds the state of one connection and no socket; `heed` changes what holds from the next message
on.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from agent.protocol.bytestream import Responder, StreamFramer
from agent.protocol.forensics import Evidence, Oddity, examine, examine_stream, farewell, frame_oddity
from agent.protocol.mllp import Framer, wrap
from agent.spec import ByteStream, LineSpec, Wire


class Framing(ABC):
    """How one connection speaks.

    `can_refuse`: the protocol has an answer that says no. `hears_all`: more than the framer has to see what comes, even
    once it is known who speaks. `others`: whoever proves to speak one of these is sent away.
    """

    __slots__ = ()

    can_refuse: ClassVar[bool]
    hears_all: ClassVar[bool]
    others: ClassVar[tuple[Oddity, ...]]
    framer: Framer | StreamFramer

    @abstractmethod
    def wrap(self, message: bytes) -> bytes:
        """An answer as it is written."""

    @abstractmethod
    def heed(self, line: LineSpec, wire: Wire) -> None:
        """The terms of the channel have changed; `wire` is of the same kind."""

    @abstractmethod
    def at_once(self, data: bytes) -> bytes:
        """What is written for this read before anybody has looked at it."""

    @abstractmethod
    def examine(self, evidence: Evidence) -> Oddity | None:
        """Why there is no message, as in `forensics`."""

    @abstractmethod
    def greets(self, message: bytes) -> Oddity | None:
        """What is odd about the first message."""

    def farewell(self, oddity: Oddity) -> bytes:
        """The last word to one of `others`, in its own protocol."""
        return farewell(oddity)


class MllpFraming(Framing):
    """HL7 v2 between 0x0B and 0x1C 0x0D."""

    __slots__ = ("framer",)

    can_refuse = True
    hears_all = False
    others = (Oddity.HTTP, Oddity.TLS_ON_PLAIN)

    def __init__(self, line: LineSpec) -> None:
        self.framer: Framer = Framer(line.max_message_bytes)

    wrap = staticmethod(wrap)  # as quick as the function itself: it is called once an answer

    def heed(self, line: LineSpec, wire: Wire) -> None:
        self.framer.max_bytes = line.max_message_bytes

    def at_once(self, data: bytes) -> bytes:
        return b""

    def examine(self, evidence: Evidence) -> Oddity | None:
        return examine(evidence)

    def greets(self, message: bytes) -> Oddity | None:
        return frame_oddity(message)


class StreamFraming(Framing):
    """Any bytes up to an end character; answers are written as they are."""

    __slots__ = ("_responder", "_start", "framer")

    can_refuse = False
    hears_all = True
    others = (Oddity.TLS_ON_PLAIN,)

    def __init__(self, line: LineSpec, wire: ByteStream) -> None:
        self.framer: StreamFramer = StreamFramer(wire.start, wire.end, line.max_message_bytes)
        self._responder = Responder(wire.responses)
        self._start = wire.start

    def wrap(self, message: bytes) -> bytes:
        return message

    def heed(self, line: LineSpec, wire: Wire) -> None:
        self.framer.max_bytes = line.max_message_bytes
        if isinstance(wire, ByteStream):
            self.framer.delimit(wire.start, wire.end)
            self._responder.learn(wire.responses)
            self._start = wire.start

    def at_once(self, data: bytes) -> bytes:
        return self._responder.answers(data)

    def examine(self, evidence: Evidence) -> Oddity | None:
        return examine_stream(evidence, self._start, self._responder.answered_bytes)

    def greets(self, message: bytes) -> Oddity | None:
        return None


def framing_of(line: LineSpec, wire: Wire) -> Framing:
    """How a connection of such a channel speaks; ASTM and DICOM have connections of their own."""
    return StreamFraming(line, wire) if isinstance(wire, ByteStream) else MllpFraming(line)
