"""Name what happens on the line between an analyser and a computer system.

Secret: none of its own; it is the vocabulary between the link (protocol/astm.py) and whoever owns the line.
Promise: each case says what has to be done with it; nothing else has to.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from agent.protocol.astmframe import Fault


class State(StrEnum):
    """Who has the line: nobody, we as soon as the far end agrees, we, or the far end."""

    NEUTRAL = "neutral"
    ASKING = "asking"
    SENDING = "sending"
    RECEIVING = "receiving"


class Reason(StrEnum):
    """Why a message was not sent."""

    BUSY = "busy"  # every time that the far end was asked for the line
    NO_ANSWER = "no-answer"
    REFUSED = "refused"  # one frame, as often as it was sent
    INTERRUPTED = "interrupted"  # by the far end, which wants the line
    RESTRICTED = "restricted"  # it holds characters that no message may (§6.6)
    EMPTY = "empty"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Say:
    """Write these bytes."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Keep:
    """A good frame brought this: put it on disk, and say `kept`. All pieces together are the message."""

    piece: bytes


@dataclass(frozen=True, slots=True)
class Session:
    """A session is over, and this is all that came: records, CR after each."""

    message: bytes


@dataclass(frozen=True, slots=True)
class Remains:
    """What was kept of a session whose end will not come. The far end should send it once more, from the beginning."""

    message: bytes


@dataclass(frozen=True, slots=True)
class Sent:
    """Every frame of our message was acknowledged."""


@dataclass(frozen=True, slots=True)
class NotSent:
    """`in_doubt`: the far end may have some of our message, or all of it."""

    reason: Reason
    in_doubt: bool = False


@dataclass(frozen=True, slots=True)
class Odd:
    """Something is wrong with what the far end does. Told each time."""

    what: Fault


Event = Say | Keep | Session | Remains | Sent | NotSent | Odd
