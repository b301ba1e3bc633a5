"""What the sender hears about a message, and whether it does.

Secret: the acknowledgement modes (PROTOCOL §4): whose words go back, in which charset, and what is said when the server's words
are no acknowledgement of this message.
Promise: the answer belongs to the message (its MSA-2 names it), a negative answer never turns into a positive one, and what was
said is written into the row.
"""

from __future__ import annotations

from typing import assert_never

from agent.flow.replies import Replies
from agent.flow.verdict import Accepted, Refused
from agent.flow.voice import Voice, header_of
from agent.protocol.hl7 import read_ack
from agent.spec import AckMode, AppAck
from agent.store.row import AckState, Row

_POSITIVE = ("AA", "CA")
NO_ACK_OF_ITS_OWN = "Accepted by the server without an acknowledgement of its own"


class Answers:
    """Turns verdicts into words for the sender, and delivers them."""

    def __init__(self, replies: Replies, voice: Voice) -> None:
        self.replies = replies
        self.voice = voice

    def codec(self, row: Row) -> str:
        """The Python codec that the sender of `row` speaks."""
        return header_of(row, _encoding(row))[1]

    def give(self, row: Row, verdict: Accepted | Refused) -> None:
        """Answer the sender of `row` as its channel's mode says; fills ack, ack_code and answer."""
        spec = row.lane.spec
        mode = spec.ack_mode if spec else AckMode.ORIGINAL
        code, answer = self._words(row, verdict)
        row.answer = answer
        match mode:
            case AckMode.ORIGINAL:
                heard = self.replies.answer(row, answer)
            case AckMode.ENHANCED:
                assert spec is not None
                if not forwards(spec.app_ack, code):
                    row.ack = AckState.NOT_OWED
                    return
                heard = self.replies.tell(row, answer)
            case AckMode.ENHANCED_AA:
                row.ack = AckState.NOT_OWED
                return
            case _ as never:
                assert_never(never)
        if heard:
            row.ack = AckState.DELIVERED
            row.ack_code = code
            if code in _POSITIVE:
                row.lane.metrics.acknowledged += 1
            else:
                row.lane.metrics.rejected += 1
        else:
            row.ack = AckState.UNDELIVERED

    def _words(self, row: Row, verdict: Accepted | Refused) -> tuple[str, bytes]:
        match verdict:
            case Refused(code=code, reason=reason):
                return code, self.voice.answer(row, code, reason, _encoding(row))
            case Accepted(body=None):
                return "AA", self.voice.answer(row, "AA", NO_ACK_OF_ITS_OWN, _encoding(row))
            case Accepted(body=body):
                assert body is not None
                return self._servers_words(row, body)
            case _ as never:
                assert_never(never)

    def _servers_words(self, row: Row, body: str) -> tuple[str, bytes]:
        """The server's acknowledgement, or ours with its code if its own cannot be given to this sender as it is."""
        try:
            answer = body.encode() if body.isascii() else body.encode(self.codec(row))
        except UnicodeEncodeError:
            answer = body.encode()
            unspeakable = True
        else:
            unspeakable = b"\x1c" in answer or b"\x0b" in answer
        ack = read_ack(answer)
        if ack is None:
            return "AA", self.voice.answer(row, "AA", NO_ACK_OF_ITS_OWN, _encoding(row))
        if unspeakable or ack.control_id != row.control_id:
            words = (
                "the server's own words do not fit the sender's charset" if unspeakable else "as answered by the server"
            )
            return ack.code, self.voice.answer(row, ack.code, words, _encoding(row))
        return ack.code, answer


def forwards(wanted: AppAck, code: str) -> bool:
    """Whether an enhanced channel passes an application acknowledgement with this code on (HL7 table 0155)."""
    match wanted:
        case AppAck.ALWAYS:
            return True
        case AppAck.NEVER:
            return False
        case AppAck.ERROR:
            return code not in _POSITIVE
        case AppAck.SUCCESS:
            return code in _POSITIVE
        case _ as never:
            assert_never(never)


def is_positive(code: str) -> bool:
    return code in _POSITIVE


def _encoding(row: Row) -> str | None:
    return row.lane.spec.encoding if row.lane is not None and row.lane.spec is not None else None
