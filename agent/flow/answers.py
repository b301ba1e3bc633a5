"""What the sender hears about a message, and whether it does.

Secret: whose words go back, in which charset, and what is said when the server's words are no acknowledgement of this
message.
Promise: the answer belongs to the message (its MSA-2 names it), a negative answer never turns into a positive one,
and what was said is written into the row.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Final, assert_never

from agent.flow.bodies import echo_of
from agent.flow.replies import Replies
from agent.flow.terms import Terms, forwards, is_positive, terms_of
from agent.flow.verdict import Accepted, Refused
from agent.flow.voice import Voice, header_of
from agent.protocol.charset import reads_by_bytes, write_exactly
from agent.protocol.hl7 import Header, NotHl7, normalize, read_ack
from agent.spec import AckMode, ChannelSpec
from agent.store.row import AckState, Content, Row

_PASSED_ON: Final = 4_096
NO_ACK_OF_ITS_OWN: Final = "Accepted by the server without an acknowledgement of its own"


ContentLog = Callable[[str, str, str, int, bytes], None]
"""Where messages and answers may be written, the channel log: (event, channel, remote, row id, content)."""


class Answers:
    """Turns verdicts into words for the sender, and delivers them."""

    def __init__(self, replies: Replies, voice: Voice, content_log: ContentLog | None = None) -> None:
        self.replies = replies
        self.voice = voice
        self._content_log = content_log
        self._passed_on: dict[bytes, None] = {}  # MSH-10 of the server's answers that enhanced senders heard lately

    def codec(self, row: Row) -> str:
        """The Python codec that the sender of `row` speaks."""
        return header_of(row, _encoding(row))[1]

    def give(self, row: Row, verdict: Accepted | Refused) -> None:
        """Answer the sender of `row` as its channel's mode says; fills ack, ack_code and answer."""
        if row.content is not Content.HL7:
            self._echo(row, verdict)
            return
        code, row.answer = self._words(row, verdict)
        if self._content_log is not None:
            self._content_log("message.answered", row.channel, row.remote, row.id, row.answer)
        # whoever still waits asked for this answer, also if the channel's mode has changed meanwhile
        if not self.replies.answer(row, row.answer):
            terms = stored_terms(row, row.lane.spec)
            if terms.commit is not None and not forwards(terms.application, code):
                row.ack = AckState.NOT_OWED
                self.replies.no_later_word(row)
                return
            if terms.commit is None or not self.replies.tell(row, row.answer):
                row.ack = AckState.UNDELIVERED
                return
            self._remember(row.answer)
        row.ack = AckState.DELIVERED
        row.ack_code = code
        if is_positive(code):
            row.lane.metrics.acknowledged += 1
        else:
            row.lane.metrics.rejected += 1

    def _echo(self, row: Row, verdict: Accepted | Refused) -> None:
        """A sender that knows no acknowledgements gets the server's own words, or nothing."""
        row.ack = AckState.NOT_OWED
        try:
            row.answer = echo_of(row, row.lane.spec, verdict.body or "") if isinstance(verdict, Accepted) else None
        except ValueError:
            row.ack = AckState.UNDELIVERED
            row.reason = "the server's answer cannot be written in the bytes of this channel"
        if row.answer is None:
            self.replies.waive(row)
            self.replies.no_later_word(row)
            return
        if self._content_log is not None:
            self._content_log("message.answered", row.channel, row.remote, row.id, row.answer)
        if self.replies.answer(row, row.answer) or self.replies.tell(row, row.answer):
            row.ack = AckState.DELIVERED
            row.lane.metrics.acknowledged += 1
        else:
            row.ack = AckState.UNDELIVERED

    def concern(self, message: bytes) -> bool:
        """Whether an ACK message of an enhanced sender acknowledges what we told it. Answering that would go on for
        ever; a commit acknowledgement is never acknowledged at all (HL7 v2.5.1 §2.9.3)."""
        ack = read_ack(message)
        return ack is not None and (
            ack.code.startswith("C") or self.voice.is_ours(ack.control_id) or ack.control_id in self._passed_on
        )

    def _remember(self, answer: bytes) -> None:
        with contextlib.suppress(NotHl7):
            self._passed_on[Header.of(answer).control_id] = None
        if len(self._passed_on) > _PASSED_ON:
            del self._passed_on[next(iter(self._passed_on))]

    def keep(self, row: Row, verdict: Accepted) -> None:
        """Have the answer ready for a sender that asks again; nobody waits for it now."""
        if row.content is Content.HL7:
            _, row.answer = self._words(row, verdict)

    def _words(self, row: Row, verdict: Accepted | Refused) -> tuple[str, bytes]:
        match verdict:
            case Accepted(body=body):
                return self._servers_words(row, body)
            case Refused(code=code, reason=reason):
                return code, self.voice.answer(row, code, reason, _encoding(row))
            case _ as never:
                assert_never(never)

    def _servers_words(self, row: Row, body: str | None) -> tuple[str, bytes]:
        """The server's acknowledgement, or ours with its code if its own cannot be given to this sender as it is."""
        speakable = True
        codec = "utf-8"
        try:
            if body is None or body.isascii():
                answer = (body or "").encode()
            else:
                codec = self.codec(row)
                answer = write_exactly(body, codec)
        except UnicodeEncodeError:
            assert body is not None
            answer = body.encode("utf-8", "replace")
            speakable = False
        ack = read_ack(answer if body is None or reads_by_bytes(codec) else body.encode("utf-8", "replace"))
        if ack is None:
            return "AA", self.voice.answer(row, "AA", NO_ACK_OF_ITS_OWN, _encoding(row))
        if not speakable or b"\x1c" in answer or b"\x0b" in answer:
            words = "the server's own words do not fit the sender's charset or framing"
        elif ack.control_id != row.control_id:
            words = "as answered by the server, which named another message"
        else:
            return ack.code, normalize(answer)
        return ack.code, self.voice.answer(row, ack.code, words, _encoding(row))


def stored_terms(row: Row, spec: ChannelSpec | None) -> Terms:
    """The terms of a stored message, by what its channel is now."""
    if spec is None or spec.ack_mode is not AckMode.AUTO:
        return terms_of(spec, None)
    return terms_of(spec, header_of(row, spec.encoding)[0])


def _encoding(row: Row) -> str | None:
    return row.lane.spec.encoding if row.lane is not None and row.lane.spec is not None else None
