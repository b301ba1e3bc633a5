"""Take what the far end sends while it has the line.

Secret: which frame is the next one, the last one once more, or neither, and what the end of a session proves (ASTM
E1381-95 §6.3 to §6.5).
Promise: each piece comes out once, in order; an answer is due for each frame, but none that nobody waits for any more;
what was kept of a session comes out when it is over, once, whole or as what remains of it.
"""

from __future__ import annotations

import re
from typing import Final, assert_never

from agent.protocol.astmevents import Event, Keep, Odd, Remains, Session
from agent.protocol.astmframe import ACK, ETX, NAK, Fault, Frame, FrameReader, Signal

FRAME_WITHIN_S: Final = 30.0  # §6.5.2.2: for the next frame
PAUSE_S: Final = 5.0  # in the middle of a frame: its rest is lost
LATE_S: Final = 14.0  # from here on the sender may have given up, and take our answer for another one
AGAIN_S: Final = 0.5  # an ENQ so soon after the one before is the same one

_BREAKS: Final = re.compile(rb"[\r\n]+")


class Receiver:
    """One session after the other. `now` is in seconds of one clock.

    `open`: the far end has the line. `called`: it has asked for it at least once. `stopped`: it does not get it any
    more. `answer`: what is to be said to it next; 0: nothing. `heard_at`: when the bytes came that are being read, or
    those of the frame that is being kept.
    """

    def __init__(self, max_bytes: int, events: list[Event]) -> None:
        self.max_bytes = max_bytes
        self.events = events
        self.open = self.called = self.stopped = False
        self.answer = 0
        self.heard_at = 0.0
        self._reader = FrameReader()
        self._message = bytearray()
        self._expected = 1
        self._last: tuple[int, bytes] | None = None  # number and content of the frame that was taken last
        self._keeping: tuple[int, bytes, bytes] | None = None  # number, content, piece
        self._refused = False  # the frame that came last was not taken
        self._acknowledged = False  # and the far end was told so in time
        self._taken_at = 0.0  # the last frame, or ENQ
        self._quiet_since = 0.0
        self._asked_at = 0.0
        self._fresh = False  # nothing has come since ENQ

    @property
    def keeping(self) -> bool:
        """Whether `kept` is waited for, before anything else is read."""
        return self._keeping is not None

    @property
    def buffered(self) -> int:
        piece = self._keeping[2] if self._keeping is not None else b""
        return len(self._message) + len(piece) + self._reader.buffered

    @property
    def skipped(self) -> int:
        return self._reader.skipped

    @property
    def deadline(self) -> float:
        """When to `expire`, of a session that is open."""
        return self.heard_at + PAUSE_S if self._reader.begun else self._quiet_since + FRAME_WITHIN_S

    def kept(self, ok: bool, now: float) -> None:
        """What became of the last Keep."""
        if self._keeping is not None:
            (number, content, piece), self._keeping = self._keeping, None
            if ok:
                self._accept(number, content, piece, now)
            else:
                self._refuse(now)

    def expire(self, now: float) -> None:
        """The far end has taken too long."""
        if self._reader.begun:
            self._reader.drop()
            self._fault(Fault.MALFORMED, now)
        else:
            self._end(said=False)

    def close(self) -> None:
        """The line is gone."""
        if self._keeping is not None:  # it may be on disk, and it is certainly not acknowledged
            self._message += self._keeping[2]
            self._acknowledged, self._keeping = False, None
        if self.open:
            self._end(said=False)
        self.answer = 0

    def _reply(self, answer: int, now: float) -> bool:
        """Whether there is still somebody who waits for it."""
        self._quiet_since = now
        if now - self.heard_at >= LATE_S:
            return False
        self.answer = answer
        return True

    def begin(self, now: float) -> None:
        """ENQ has come."""
        self.called = True
        if self.stopped:
            self._reply(NAK, now)
            return
        self.open = True
        self._message.clear()
        self._expected, self._last = 1, None
        self._refused = self._acknowledged = False
        self._reader.reset()
        self._fresh, self._asked_at, self._taken_at = True, self.heard_at, self.heard_at
        self._reply(ACK, now)

    def _end(self, *, said: bool) -> None:
        """The session is over. `said`: by EOT.

        A sender that gives up says EOT too: after a frame that was refused, or when it has waited for an answer in
        vain. L is the last record of a message (E1394 §13): it is complete with that, also where the EOT was lost.
        """
        message = bytes(self._message)
        final = message[message.rfind(b"\r", 0, -1) + 1 :]
        terminated = final[:1] == b"L" and final.endswith(b"\r") and final[1:2] in (b"\r", message[1:2])
        untroubled = said and not self._refused and self.heard_at - self._taken_at < LATE_S
        complete = terminated and (self._acknowledged or untroubled)
        if complete or (untroubled and self._acknowledged and message.endswith(b"\r")):
            self.events.append(Session(message))
        elif message:
            self.events += (Odd(Fault.UNFINISHED), Remains(message))
        self._message.clear()
        self._reader.drop()
        self.open = False

    def _recall_answer(self) -> None:
        """The far end goes on without the answer that was to be said."""
        if self.answer:
            self.answer, self._acknowledged = 0, False

    def read(self, data: bytes, at: int, now: float) -> int:
        """Go on at `at`; give where to go on after that."""
        at, token = self._reader.read(data, at)
        match token:
            case None:
                return at
            case Frame(number, content):
                self._meet(number, content, now)
            case Fault():
                self._fault(token, now)
            case Signal.EOT:
                self._recall_answer()
                self._end(said=True)
            case Signal.ENQ if self._fresh and self.heard_at - self._asked_at < AGAIN_S:
                return at
            case Signal.ENQ:  # the far end has begun anew
                self._recall_answer()
                self._end(said=False)
                self.begin(now)
            case _ as never:
                assert_never(never)
        self._fresh = self._fresh and token is Signal.ENQ
        return at

    def _meet(self, number: int, content: bytes, now: float) -> None:
        """A frame that is good as such."""
        if (number, content) == self._last:
            self._refused, self._taken_at = False, self.heard_at
            self._acknowledged = self._reply(ACK, now)
            return
        piece = self._piece(content)
        if number != self._expected:
            # one that bears the last number and says something else is not the last one: an analyser that always
            # counts from 1 would lose all but its first frame
            self._fault(Fault.NUMBER, now)
        elif len(self._message) + len(piece) > self.max_bytes:
            self._fault(Fault.TOO_BIG, now)
        elif piece:
            self._keeping = (number, content, piece)
            self.events.append(Keep(piece))
        else:
            self._accept(number, content, piece, now)

    def _piece(self, content: bytes) -> bytes:
        """What a frame adds to the message: records of our own line ends, the last of them open after ETB."""
        text = _BREAKS.sub(b"\r", content[:-1])
        if content[-1] == ETX:
            text = text.rstrip(b"\r") + b"\r"
        return text.lstrip(b"\r") if not self._message or self._message.endswith(b"\r") else text

    def _accept(self, number: int, content: bytes, piece: bytes, now: float) -> None:
        self._message += piece
        self._last, self._expected = (number, content), (number + 1) % 8
        self._refused, self._taken_at = False, self.heard_at
        self._acknowledged = self._reply(ACK, now)

    def _refuse(self, now: float) -> None:
        self._refused = True
        self._reply(NAK, now)

    def _fault(self, fault: Fault, now: float) -> None:
        self.events.append(Odd(fault))
        self._refuse(now)
