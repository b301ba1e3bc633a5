"""Tell which answer belongs to which of the letters under way on one connection.

Secret: how answers find their letters: MSA-2 (HL7 v2.5.1 §2.15.8), the commit blocks of MLLP release 2, what may still
come for letters that were given back, and when nobody can tell. No clock of its own and no connection.
Promise: an answer settles the letter that it names, or the only one that it can mean where it names none; a late one
never settles another. Takes any frame without raising.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from agent.failures import Failure
from agent.flow import mishaps
from agent.flow.letters import Answered, Letter, NotSent, Outcome, Unanswered
from agent.protocol.hl7 import Acknowledgement, read_ack
from agent.spec import RemoteSpec, ReturnAck

REMEMBERED: Final = 10_000  # control ids of each kind, for answers that come late

_COMMITTED, _NOT_COMMITTED = b"\x06", b"\x15"  # MLLP release 2


@dataclass(slots=True, eq=False)
class Sent:
    """A letter that is written and not answered. `deadline`: loop time, infinity: no limit. `at`: when it was written,
    by the pool's clock for round trips. `committed_by`: what said that the remote has it, CA or 0x06; empty before."""

    letter: Letter
    at: float
    timeout_s: float
    deadline: float
    wants: ReturnAck
    committed_by: str = ""


@dataclass(slots=True)
class Settled:
    """A letter has come to its end."""

    sent: Sent
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Noted:
    """Nothing ends."""


@dataclass(frozen=True, slots=True)
class Late:
    """It is about a letter that was given back already."""


@dataclass(frozen=True, slots=True)
class Stray:
    """It belongs to nobody here. `why`: what each letter under way is to be told."""

    why: Callable[[Sent], Failure]


Verdict = Settled | Noted | Late | Stray
_NOTED, _LATE = Noted(), Late()


class UnderWay:
    """The letters under way, and what is remembered of those that were. `where`: the remote, for people."""

    __slots__ = ("_finished", "_overdue", "_owing", "_sent", "_where")

    def __init__(self, where: str) -> None:
        self._where = where
        self._sent: dict[bytes, Sent] = {}  # by control id, in the order of writing
        self._owing = _Ids()  # of those committed and given back: an application answer may follow
        self._overdue = _Ids()  # of those given up: any answer may follow
        self._finished = _Ids()  # of those that have had their last answer, and may repeat it

    def __len__(self) -> int:
        return len(self._sent)

    def takes(self, control_id: bytes, limit: int) -> bool:
        """Whether a letter of this id may join, with `limit` at most.

        Not while an answer to an earlier one of the same id may come: nobody could tell whose it is.
        """
        return len(self._sent) < limit and control_id not in self._sent and control_id not in self._owing

    def owes(self, control_id: bytes) -> bool:
        """Whether an answer may come to a letter of this id that was given back already."""
        return control_id in self._owing

    def add(self, letter: Letter, spec: RemoteSpec, now: float, at: float) -> Sent:
        """A letter is written now, by the settings of `spec`. `at`: the same moment, by the clock for round trips."""
        timeout_s = spec.ack_timeout_s
        deadline = now + timeout_s if timeout_s else math.inf
        sent = Sent(letter, at, timeout_s, deadline, letter.return_ack or spec.return_ack)
        self._sent[letter.control_id] = sent
        self._finished.discard(letter.control_id)
        return sent

    def hear(self, frame: bytes) -> Verdict:
        """What a frame means. The letter that it settles is forgotten, but for answers that come late."""
        ack = read_ack(frame)
        if ack is None:
            return self._hear_block(frame)
        sent = self._sent.get(ack.control_id) if ack.control_id else self._sole(ack)
        if sent is not None:
            return self._acknowledge(sent, ack, frame)
        if self._is_late(ack.control_id, ack.code):
            return _LATE
        if ack.control_id:
            return Stray(lambda sent: mishaps.wrong_id(self._where, ack.control_id, sent.letter.control_id))
        count = len(self._sent)
        return Stray(lambda _: mishaps.no_id(self._where, count))

    def give_up(self, now: float) -> list[Sent]:
        """Let those go whose deadline is not after `now`."""
        overdue = [sent for sent in self._sent.values() if sent.deadline <= now]
        for sent in overdue:
            control_id = sent.letter.control_id
            del self._sent[control_id]
            self._overdue.add(control_id)
        return overdue

    def next_due(self) -> float:
        """The next deadline, infinity if there is none."""
        return min((sent.deadline for sent in self._sent.values()), default=math.inf)

    def clear(self) -> list[Sent]:
        """Let all go."""
        letters = list(self._sent.values())
        self._sent.clear()
        return letters

    def _sole(self, ack: Acknowledgement) -> Sent | None:
        """The letter that an acknowledgement without a name must mean, if there is just one such.

        A message that was committed gets no further word about that, but for the application's (§2.9.3).
        """
        may_be_of_another = self._overdue or (self._owing and ack.code[0] == "A")
        if len(self._sent) != 1 or may_be_of_another:
            return None
        return next(iter(self._sent.values()))

    def _acknowledge(self, sent: Sent, ack: Acknowledgement, frame: bytes) -> Verdict:
        control_id = sent.letter.control_id
        if ack.code == "CA":
            if sent.wants is ReturnAck.APPLICATION:
                sent.committed_by = "CA"
                return _NOTED
            self._owing.add(control_id)
        elif sent.committed_by or sent.wants is ReturnAck.FIRST:
            self._finished.add(control_id)
        del self._sent[control_id]
        return Settled(sent, Answered(frame, ack.code))

    def _is_late(self, control_id: bytes, code: str) -> bool:
        """Whether the letter that is named has been given back already; learns what may still follow."""
        if control_id in self._finished:
            return True
        if control_id not in self._owing and control_id not in self._overdue:
            return False
        self._overdue.discard(control_id)
        if code == "CA":
            self._owing.add(control_id)
        else:
            self._owing.discard(control_id)
            self._finished.add(control_id)
        return True

    def _hear_block(self, frame: bytes) -> Verdict:
        """A frame that is no acknowledgement, unless it is a commit block."""
        count = len(self._sent)
        if not count or frame not in (_COMMITTED, _NOT_COMMITTED):
            return Stray(lambda _: mishaps.no_ack(self._where, frame))
        if count > 1:
            if frame == _COMMITTED:
                return _NOTED  # of one that nobody can name; its acknowledgement will
            return Stray(lambda _: mishaps.unnamed_refusal(self._where, count))
        sent = next(iter(self._sent.values()))
        if frame == _COMMITTED:
            sent.committed_by = sent.committed_by or "0x06"
            return _NOTED
        self._sent.clear()
        if sent.committed_by:
            return Settled(sent, Unanswered(mishaps.contradicted(self._where)))
        return Settled(sent, NotSent(mishaps.not_committed(self._where)))


class _Ids:
    """The last control ids of some kind."""

    __slots__ = ("_ids",)

    def __init__(self) -> None:
        self._ids: OrderedDict[bytes, None] = OrderedDict()

    def __contains__(self, control_id: bytes) -> bool:
        return control_id in self._ids

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, control_id: bytes) -> None:
        self._ids[control_id] = None
        if len(self._ids) > REMEMBERED:
            self._ids.popitem(last=False)

    def discard(self, control_id: bytes) -> None:
        self._ids.pop(control_id, None)
