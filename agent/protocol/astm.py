"""Carry records between an analyser and a computer system.

Secret: who may speak on a line (ASTM E1381-95 §6, CLSI LIS1-A2 §8), how often and how long something is tried, and how
records stand on it (E1394-97, LIS2-A2).
Promise: a frame is acknowledged only after `kept` has said that it is safe, and never so late that the answer could be
taken for that to something else; what comes out of one session stands in one message. A message of ours that was Sent
has come; one that was NotSent, and not in doubt, has not. No bytes at all raise anything, and every wait has an end.

NEUTRAL → ASKING → SENDING → NEUTRAL for a message of ours, NEUTRAL → RECEIVING → NEUTRAL for one of the far end. Power
loss forgets all of it: what was kept is on disk, and a far end sends again what was not acknowledged.
"""

from __future__ import annotations

import re
from typing import Final, assert_never

from agent.protocol.astmevents import Event, NotSent, Odd, Reason, Say, Sent, State
from agent.protocol.astmframe import ACK, ENQ, EOT, NAK, Fault, frames
from agent.protocol.astmreceiver import Receiver

REPLY_WITHIN_S: Final = 15.0  # E1381 §6.5.2.1: for each answer
BUSY_S: Final = 10.0  # §6.2.3: before a line that was busy is asked for again
YIELD_S: Final = 20.0  # §6.2.7: the computer after both have asked for the line,
INSIST_S: Final = 1.0  # and the instrument
INTERRUPTED_S: Final = 15.0  # §6.3.5: for the far end to say what it had to say
SENT_TIMES: Final = 6  # §6.5.1.2: one frame, until the message is given up
ASKED_TIMES: Final = 6  # for the line, of a far end that is busy
UNHEARD_TIMES: Final = 2  # … and of one that says nothing
_EARLY_BYTES: Final = 1 << 20  # that came before they were asked for
_MOST_STEPS: Final = 1_000  # through one read, between two frames: who waits for answers does not say so much at once
_STRANGE_BYTES: Final = 32  # between sessions: they are no noise any more

_BREAKS: Final = re.compile(rb"[\r\n]+")
_RESTRICTED: Final = re.compile(rb"[\x01-\x06\x0a\x10-\x17]")  # §6.6
_DELIMITER: Final = r"[!-/:-@\[-`{-~]"
_HEADER: Final = re.compile(rf"[\r\n]*H({_DELIMITER})(?:(?!\1){_DELIMITER}){{2,4}}(?:\1|[\r\n]|\Z)")


def records(message: bytes) -> list[bytes]:
    """The records of a message, without the CR that ends each."""
    return [record for record in _BREAKS.split(message) if record]


def is_records(text: str) -> bool:
    """Whether this begins as a message of E1394 does: H and the delimiters (§6.6, §7.1.2)."""
    return _HEADER.match(text) is not None


def normalized(text: str, codec: str) -> bytes:
    """Records that stand on lines of any kind, as they travel: CR after each. Raises UnicodeEncodeError."""
    return b"".join(record + b"\r" for record in records(text.encode(codec)))


def is_sendable(message: bytes) -> bool:
    """Whether these records hold no character that the link keeps for itself (E1381 §6.6)."""
    return _RESTRICTED.search(_BREAKS.sub(b"\r", message)) is None


class Link:
    """One end of a line. `now` is of any one clock, in seconds, and never goes back.

    `instrument`: we are the analyser, which has precedence. `frame_bytes`: text of one frame that we send.
    """

    def __init__(self, *, max_bytes: int, frame_bytes: int = 240, instrument: bool = False) -> None:
        self.frame_bytes = frame_bytes
        self._instrument = instrument
        self._state = State.NEUTRAL  # as long as the far end does not have the line
        self._events: list[Event] = []
        self._receiver = Receiver(max_bytes, self._events)
        self._early: list[tuple[float, bytes]] = []  # came while a frame was being kept
        self._closed = False
        self._outside = 0  # bytes that belong to nothing
        self._strange = 0  # those between sessions since the last ENQ
        self._frames: list[bytes] = []  # of our message
        self._at = 0  # the frame that is to be acknowledged
        self._times = 0  # it was sent
        self._asked = self._unheard = 0
        self._not_before = 0.0
        self._since = 0.0  # the far end owes an answer

    @property
    def state(self) -> State:
        return State.RECEIVING if self._receiver.open else self._state

    @property
    def begun(self) -> bool:
        """Whether the far end has the line."""
        return self._receiver.open

    @property
    def called(self) -> bool:
        """Whether the far end has asked for the line at least once."""
        return self._receiver.called

    @property
    def max_bytes(self) -> int:
        """Of a message; longer ones are refused to the far end."""
        return self._receiver.max_bytes

    @max_bytes.setter
    def max_bytes(self, most: int) -> None:
        self._receiver.max_bytes = most

    @property
    def buffered(self) -> int:
        """Bytes held of what is not complete."""
        return self._receiver.buffered + sum(len(data) for _, data in self._early)

    @property
    def skipped(self) -> int:
        """Bytes that belonged to nothing."""
        return self._outside + self._receiver.skipped

    @property
    def sending(self) -> bool:
        """Whether a message of ours is under way, or waits for the line."""
        return bool(self._frames)

    @property
    def deadline(self) -> float | None:
        """When to `tick`; None: only the far end, `kept` or `send` brings anything new."""
        receiver = self._receiver
        if self._closed or receiver.keeping:
            return None
        match self.state:
            case State.RECEIVING:
                return receiver.deadline
            case State.ASKING | State.SENDING:
                return self._since + REPLY_WITHIN_S
            case State.NEUTRAL:
                return self._not_before if self._frames and not receiver.stopped else None
            case _ as never:
                assert_never(never)

    def received(self, data: bytes, now: float) -> list[Event]:
        """Bytes of the far end, however they were cut."""
        if self._closed:
            return []
        self._expire(now)
        self._take(data, now, now)
        return self._outcome(now)

    def kept(self, ok: bool, now: float) -> list[Event]:
        """What became of the last Keep. Only now is its frame acknowledged, or asked for once more."""
        receiver = self._receiver
        if not receiver.keeping:
            return []
        receiver.kept(ok, now)
        early, self._early = self._early, []
        for heard_at, data in early:
            self._take(data, heard_at, now)
        return self._outcome(now)

    def send(self, message: bytes, now: float) -> list[Event]:
        """Ask for the line, as soon as it is free, and send this. One message at a time: see `sending`."""
        if self._frames:
            raise ValueError("a message is under way already")
        if self._closed or self._receiver.stopped:
            return [NotSent(Reason.CLOSED)]
        parts = frames(records(message), self.frame_bytes)
        if not parts:
            return [NotSent(Reason.EMPTY)]
        if not is_sendable(message):
            return [NotSent(Reason.RESTRICTED)]
        self._frames, self._at, self._times, self._asked, self._unheard = parts, 0, 0, 0, 0
        return self._outcome(now)

    def tick(self, now: float) -> list[Event]:
        """Time has passed."""
        self._expire(now)
        return self._outcome(now)

    def stop(self, now: float) -> list[Event]:
        """Give the line to nobody any more, nor ask for it. What is under way goes on."""
        self._receiver.stopped = True
        if self.state not in (State.ASKING, State.SENDING):
            self._give_up(Reason.CLOSED)
        return self._outcome(now)

    def close(self, now: float) -> list[Event]:
        """The line is gone."""
        if not self._closed:
            self._give_up(Reason.CLOSED, in_doubt=self.state is State.SENDING)
            self._receiver.close()
            self._closed, self._state = True, State.NEUTRAL
            self._early.clear()
        return self._outcome(now)

    # ---- both ways

    def _outcome(self, now: float) -> list[Event]:
        receiver = self._receiver
        if receiver.answer:
            self._say(receiver.answer)
            receiver.answer = 0
        if self._frames and self.state is State.NEUTRAL and now >= self._not_before and not receiver.stopped:
            self._state, self._since = State.ASKING, now
            self._say(ENQ)
        events = self._events.copy()
        self._events.clear()
        return events

    def _say(self, byte: int) -> None:
        self._events.append(Say(bytes((byte,))))

    def _expire(self, now: float) -> None:
        """What has taken too long."""
        if self.deadline is None or now < self.deadline:
            return
        match self.state:
            case State.RECEIVING:
                self._receiver.expire(now)
                self._note_end(now)
            case State.ASKING:
                self._say(EOT)
                self._unheard += 1
                self._stand_back(now, INSIST_S, Reason.NO_ANSWER if self._unheard >= UNHEARD_TIMES else None)
            case State.SENDING:
                self._abandon(Reason.NO_ANSWER, in_doubt=True)
            case State.NEUTRAL:
                pass
            case _ as never:
                assert_never(never)

    def _take(self, data: bytes, heard_at: float, now: float) -> None:
        receiver, at, steps = self._receiver, 0, 0
        while at < len(data):
            if receiver.keeping:
                self._put_aside(data[at:], heard_at)
                return
            steps += 1
            if steps > _MOST_STEPS:
                self._outside += len(data) - at
                return
            receiver.heard_at = heard_at
            match self.state:
                case State.NEUTRAL:
                    at = self._wait(data, at, now)
                case State.RECEIVING:
                    at = receiver.read(data, at, now)
                    self._note_end(now)
                case State.ASKING:
                    at = self._hear_about_line(data, at, now)
                case State.SENDING:
                    at = self._hear_about_frame(data, at, now)
                case _ as never:
                    assert_never(never)

    def _put_aside(self, data: bytes, heard_at: float) -> None:
        room = _EARLY_BYTES - sum(len(early) for _, early in self._early)
        self._outside += max(0, len(data) - room)
        if room > 0:
            self._early.append((heard_at, data[:room]))

    def _wait(self, data: bytes, at: int, now: float) -> int:
        """Nobody has the line: only ENQ means anything."""
        found = data.find(ENQ, at)
        stop = found if found >= 0 else len(data)
        self._outside += stop - at
        self._strange += len(data[at:stop].strip(b"\0\t\n\r "))
        if self._strange >= _STRANGE_BYTES:
            self._strange = 0
            self._events.append(Odd(Fault.STRANGE))
        if found < 0:
            return stop
        self._strange = 0
        self._receiver.begin(now)
        return found + 1

    def _note_end(self, now: float) -> None:
        if not self._receiver.open:
            self._not_before = now  # what we waited for has happened

    # ---- sending

    def _hear_about_line(self, data: bytes, at: int, now: float) -> int:
        match data[at]:
            case 0x06:  # ACK
                self._state = State.SENDING
                self._transmit(now)
                # an answer to the frame cannot have come before it
                self._outside += len(data) - at - 1
                return len(data)
            case 0x15:  # NAK
                self._asked += 1
                self._stand_back(now, BUSY_S, Reason.BUSY if self._asked >= ASKED_TIMES else None)
            case 0x05:  # ENQ: both have asked at once, and neither gets an answer
                self._asked += 1
                wait_s = INSIST_S if self._instrument else YIELD_S
                self._stand_back(now, wait_s, Reason.BUSY if self._asked >= ASKED_TIMES else None)
            case _:
                self._outside += 1
        return at + 1

    def _hear_about_frame(self, data: bytes, at: int, now: float) -> int:
        answer = data[at]
        if answer not in (ACK, NAK, EOT):
            self._outside += 1
            return at + 1
        if answer == NAK and self._times >= SENT_TIMES:
            self._abandon(Reason.REFUSED, in_doubt=self._at > 0)
        elif answer == NAK:
            self._transmit(now)
        else:
            self._at, self._times = self._at + 1, 0
            if self._at == len(self._frames):
                self._say(EOT)
                self._frames, self._state = [], State.NEUTRAL
                self._events.append(Sent())
            elif answer == EOT:
                self._abandon(Reason.INTERRUPTED, in_doubt=True)
                self._not_before = now + INTERRUPTED_S
            else:
                self._transmit(now)
        self._outside += len(data) - at - 1
        return len(data)

    def _transmit(self, now: float) -> None:
        self._times += 1
        self._since = now
        self._events.append(Say(self._frames[self._at]))

    def _stand_back(self, now: float, wait_s: float, reason: Reason | None) -> None:
        """The line is not ours now. With a `reason` that was the last time."""
        self._state, self._not_before = State.NEUTRAL, now + wait_s
        if reason is not None:
            self._give_up(reason)

    def _abandon(self, reason: Reason, *, in_doubt: bool) -> None:
        self._say(EOT)
        self._state = State.NEUTRAL
        self._give_up(reason, in_doubt=in_doubt)

    def _give_up(self, reason: Reason, *, in_doubt: bool = False) -> None:
        if self._frames:
            self._frames = []
            self._events.append(NotSent(reason, in_doubt))
