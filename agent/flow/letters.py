"""Say what goes to a remote, what may become of it, and what a connection to a remote is.

Secret: none of its own; it is the vocabulary between those who want a message delivered, the pool that delivers it, and
the room that owns the sockets.
Promise: the three outcomes tell apart what matters for trying again: answered, certainly not received, and written with
nobody knowing what became of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from agent.failures import Failure
from agent.spec import RemoteSpec, ReturnAck

TAKEN: Final = "ACK"  # the code of an analyser that has acknowledged every frame


@dataclass(frozen=True, slots=True)
class Answered:
    """The remote acknowledged the message, or refused it. `ack`: as received, unframed. `code`: its MSA-1; ACK and no
    `ack` where an analyser has acknowledged every frame (ASTM E1381), which is all that it ever says."""

    ack: bytes
    code: str


@dataclass(frozen=True, slots=True)
class NotSent:
    """The remote certainly did not get the message, or says that it did not take it."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Unanswered:
    """The message was written, and nobody knows what became of it. `committed`: the remote has said that it has it."""

    failure: Failure
    committed: bool = False


Outcome = Answered | NotSent | Unanswered


@dataclass(slots=True, eq=False)
class Letter:
    """One message to a remote. Power loss forgets it: who must not lose it keeps it on disk until `done`.

    `control_id`: its MSH-10, in the bytes of the message; none for an analyser. `return_ack` None: as the remote's spec
    says. `done` is called exactly once, on the loop, never from inside the call that pushed the letter. `begin_by`: the
    loop time after which it is no use to write it; infinity where it may wait for ever.
    """

    message: bytes
    control_id: bytes
    return_ack: ReturnAck | None
    done: Callable[[Outcome], None]
    begin_by: float = math.inf


class Line(Protocol):
    """One connection to a remote, as far as flow sees it."""

    @property
    def noise(self) -> bytes:
        """The first bytes, 16 at most, that stood in no frame since the last `send`."""

    @property
    def begun(self) -> int:
        """Bytes of an answer that has begun and not ended."""

    def send(self, message: bytes) -> None:
        """Write one message at once; it is framed here."""

    def close(self) -> None:
        """Close politely; `closed` is told later, also where the remote does not read."""

    def abort(self) -> None:
        """Close at once; `closed` is told later."""


class LineEvents(Protocol):
    """Who is told what happens on a line: on the loop, never from inside `dial` or a method of the line.

    A line tells either `failed`, once and as the only word, or `opened`, then anything, then `closed` once. After
    `close` or `abort` it tells nothing but its end.
    """

    def opened(self, line: Line) -> None:
        """TCP, and TLS where it is spoken, are through."""

    def failed(self, line: Line, failure: Failure) -> None:
        """It never opened."""

    def heard(self, line: Line, frames: list[bytes]) -> None:
        """Whole answers, unframed."""

    def noisy(self, line: Line) -> None:
        """Bytes that stand in no frame have come; told once for each message that was sent."""

    def closed(self, line: Line, failure: Failure | None) -> None:
        """The connection is gone. None: we closed it, or the remote did so politely."""


Dial = Callable[[RemoteSpec, LineEvents], Line]
"""Begin to connect, at once and without ever raising."""


class AstmLine(Protocol):
    """One connection to an analyser, as far as flow sees it; it carries one session after the other."""

    def post(self, message: bytes, done: Callable[[Failure | None], None]) -> None:
        """Send these records as a session of their own, when the line is free for it. `done` hears on the loop, later
        and once: None when every frame was acknowledged; else why that is not so, and `in_doubt` if the analyser may
        have some of it."""


class AstmCall(AstmLine, Protocol):
    """A connection to an analyser that we made for what is pushed to it."""

    def close(self) -> None:
        """Close politely; `closed` is told later."""

    def abort(self) -> None:
        """Close at once, or connect no further; nothing but `closed`, or `failed`, is told later."""


class AstmCallEvents(Protocol):
    """Who is told what happens on a call: on the loop, never from inside `call` or a method of the AstmCall.

    It tells either `failed`, once and as the only word, or `opened`, then `closed` once, and before that what became of
    all that was posted.
    """

    def opened(self, call: AstmCall) -> None:
        """Sessions can be posted."""

    def failed(self, call: AstmCall, failure: Failure) -> None:
        """It never opened."""

    def rang(self, call: AstmCall) -> None:
        """The analyser wants to send something here, and is not heard."""

    def closed(self, call: AstmCall) -> None:
        """The connection is gone, by whomever."""


Call = Callable[[RemoteSpec, AstmCallEvents], AstmCall]
"""Begin to connect to an analyser, at once and without ever raising."""


@dataclass(frozen=True, slots=True)
class Served:
    """A channel of ours serves this analyser. `lines`: its connections that are ready, the newest first; perhaps none
    at the moment."""

    channel: str
    lines: tuple[AstmLine, ...]


Serving = Callable[[RemoteSpec], Served | None]
"""Which channel that speaks ASTM serves an analyser: the one of that name where the spec has a `line`, else one that
dials its host and port. None: there is none."""
