"""When may we say yes?

Secret: what a frame must be before it is ours (readable, in a known charset, not too large for the server, not a
repetition), and that yes waits for the disk.
Promise: every frame is answered once, but for acknowledgements of our acknowledgements and for senders that want to
hear nothing. A positive acknowledgement leaves only after the commit has returned; what is refused is refused with a
reason and a reference, and was not stored. What is taken of a batch is stored in one commit.
"""

from __future__ import annotations

from agent.errors import AgentError, PeerError
from agent.flow.answers import stored_terms
from agent.flow.batches import BatchAnswer
from agent.flow.commitblocks import COMMITTED, NOT_COMMITTED, CommitBlocks
from agent.flow.lanes import Lane
from agent.flow.reception import Means, Reception
from agent.flow.replies import Sender
from agent.flow.terms import forwards, is_positive, terms_of
from agent.flow.voice import header_of
from agent.protocol.batch import BadBatch, EmptyBatch, is_batch, split
from agent.protocol.charset import UnknownCharset, codec_of, reads_by_bytes
from agent.protocol.forensics import frame_oddity
from agent.protocol.hl7 import Header, NotHl7, read_ack
from agent.protocol.mllp import BrokenFrame
from agent.protocol.text import InvalidBytes, decode, legible, without_mark
from agent.spec import AckMode, BatchAck, ChannelSpec, DuplicateBehavior
from agent.store.row import Repeat, Row, State


class Intake(Reception):
    """The door of an HL7 channel. `receive` takes the frames of one socket read."""

    def __init__(self, lane: Lane, means: Means) -> None:
        super().__init__(lane, means)
        self._voice = self._answers.voice
        self._commit_blocks = CommitBlocks()

    @property
    def at_commit(self) -> bool:
        spec = self._lane.spec
        return spec is not None and (spec.ack_mode is not AckMode.ORIGINAL or spec.mllp_release == 2)

    def receive(self, sender: Sender, frames: list[bytes]) -> None:
        """Each frame: stored (the answer follows), answered again, or refused."""
        metrics = self._lane.metrics
        for frame in frames:
            metrics.bytes_in += len(frame)
            body = without_mark(frame)
            try:
                header = Header.of(body)
            except NotHl7 as error:
                self._no_message(sender, body, error)
                continue
            metrics.received += 1
            self._take(sender, header, body, marked=body is not frame)

    def broken(self, sender: Sender, error: BrokenFrame) -> None:
        """A frame began and will not end well: its sender hears so, and the connection ends, for its tail follows."""
        try:
            header = Header.of(without_mark(error.head))
        except NotHl7:
            header = None
        self._lane.metrics.received += 1
        self._refuse(sender, header, error, "E" if error.again else "R", "broken-frame")
        sender.close_after_reply()

    def _no_message(self, sender: Sender, body: bytes, error: NotHl7) -> None:
        """A frame that does not begin with MSH: a batch, a commit block, or nothing that we know."""
        spec = self._lane.spec
        if spec is not None and spec.mllp_release == 2 and body in (COMMITTED, NOT_COMMITTED):
            sender.waive()
            if body == NOT_COMMITTED:
                self._lane.metrics.refuse("answer-not-committed")
            return
        if is_batch(body):
            self._take_batch(sender, body)
            return
        self._lane.metrics.received += 1
        if (oddity := frame_oddity(body)) is not None:
            sender.odd(oddity)
        self._refuse(sender, None, error, "R", "not-hl7")

    def _take_batch(self, sender: Sender, body: bytes) -> None:
        """Each message of a batch as if it had come alone; all of them join the same commit."""
        lane = self._lane
        try:
            batch = split(body)
        except (BadBatch, NotHl7) as error:
            if isinstance(error, EmptyBatch) and error.said:
                sender.reply(self._voice.say(_header_of_batch(body), "AA", str(error)))
                return
            lane.metrics.received += 1
            self._refuse(sender, _header_of_batch(body), error, "R", "bad-batch")
            return
        messages = batch.messages
        if lane.spec is not None and lane.spec.batch_ack is BatchAck.BATCH:
            codec = self._spoken(Header.of(messages[0]))
            answer = BatchAnswer(sender, len(messages), lambda answers: self._voice.say_all(batch, answers, codec))
            senders = answer.senders()
        else:
            sender.expect(len(messages) - 1)
            senders = [sender] * len(messages)
        lane.metrics.received += len(messages)
        for message, whom in zip(messages, senders, strict=True):
            self._take(whom, Header.of(message), message)

    def _take(self, sender: Sender, header: Header, body: bytes, *, marked: bool = False) -> None:
        lane, spool = self._lane, self._spool
        spec = lane.spec
        if spec is None:
            self._refuse(sender, header, PeerError("this channel is switched off"), "R", "channel-off")
            return
        if header.message_type[:3] == b"ACK" and spec.ack_mode is not AckMode.ORIGINAL and self._answers.concern(body):
            sender.waive()
            return
        if spool.trouble is not None:
            self._refuse(sender, header, spool.trouble, "E", "disk")
            return
        try:
            reading = decode(body, header, spec.encoding, spec.fallback_charset, marked=marked)
        except UnknownCharset as error:
            self._refuse(sender, header, error, "R", "charset")
            return
        except InvalidBytes as error:
            codec = self._spoken(header)
            legibly = header if reads_by_bytes(codec) else Header.of_text(legible(body, codec), codec)
            self._refuse(sender, legibly, error, "R", "charset")
            return
        text = reading.text
        if reading.fell_back:
            lane.metrics.fallbacks += 1
        if not reads_by_bytes(reading.codec):
            header = Header.of_text(text, reading.codec)
        repeat = Repeat.NO
        if header.control_id:
            known = spool.known(lane.name, header.control_id)
            if known is not None:
                lane.metrics.duplicates += 1
                if spec.duplicates is DuplicateBehavior.REJECT:
                    duplicate = PeerError(f"duplicate of a message received before (ref {known.id})")
                    self._refuse(sender, header, duplicate, "R", "duplicate")
                    return
                if known.body != body:
                    repeat = Repeat.CONFLICT
                elif self._again(sender, known, spec, header):
                    return
                else:
                    repeat = Repeat.RETRIED
        if (too_large := self._too_large(len(body), text)) is not None:
            self._refuse(sender, header, too_large, "R", "too-large-for-server")
            return
        row = Row(
            spool.next_id(),
            lane.name,
            sender.remote,
            lane.key_of(header, body, sender.remote),
            header.control_id,
            header.message_type,
            self._now_ms(),
            body,
            spool.next_sequence(lane.name) if spec.assign_seq_no else None,
            repeat,
        )
        row.header = header
        row.text = text
        self._replies.owe(row, sender, spec.ack_timeout_s)
        if spec.mllp_release == 2:
            self._commit_blocks.owe(row, sender)
        self._store(row)

    def _again(self, sender: Sender, known: Row, spec: ChannelSpec, header: Header) -> bool:
        """The same bytes once more. True if they are answered from what we know; False if they deserve a new try."""
        finished = known.state.finished
        if finished and not (known.state is State.PROCESSED and _was_positive(known)):
            return False
        if spec.mllp_release == 2:
            self._commit_blocks.owe(known, sender)
        terms = terms_of(spec, header)
        if terms.commit is None:
            if not finished or known.answer is None:
                self._replies.owe(known, sender, spec.ack_timeout_s)
                return True
            sender.reply(known.answer)
        else:
            if not known.durable:
                self._replies.owe(known, sender, spec.ack_timeout_s)
                return True
            if terms.stored:
                sender.reply(self._commit_ack(known, terms.stored, spec))
            else:
                sender.waive()
            if not finished:
                self._replies.follow(known, sender)
            elif known.answer is not None and forwards(terms.application, "AA"):
                sender.tell(known.answer)
        self._lane.metrics.acknowledged += 1
        return True

    def durable(self, rows: list[Row]) -> None:
        """These rows of this channel are on the platter: the modes that promise only that say so now."""
        spec = self._lane.spec
        if spec is None:
            return
        for row in rows:
            if spec.mllp_release == 2:
                self._commit_blocks.stored(row)
            if spec.ack_mode is AckMode.ORIGINAL:
                continue
            terms = stored_terms(row, spec)
            if terms.commit is None:
                continue
            if not terms.stored:
                self._replies.waive(row)
            elif self._replies.answer(row, self._commit_ack(row, terms.stored, spec)):
                row.ack_code = terms.stored
                self._lane.metrics.acknowledged += 1

    def refused(self, rows: list[Row], error: AgentError) -> None:
        """These rows could not be stored: their senders hear it and keep them."""
        for row in rows:
            header, codec = header_of(row, self._encoding)
            reference = self._reference()
            code = self._negative(header, "E")
            if not code:
                self._commit_blocks.refused(row)
                self._replies.waive(row)
            elif self._replies.answer(
                row, self._voice.say(header, code, f"not stored: {error} (ref {reference})", codec)
            ):
                self._lane.metrics.rejected += 1
            self._lane.metrics.refuse("disk")
            self._on_refusal(self._lane.name, reference, str(error))

    def late(self, row: Row) -> bytes | None:
        """The deadline has come: what a sender hears that waited for `row` in vain; None: nothing."""
        self._lane.metrics.timeouts += 1
        self._lane.metrics.rejected += 1
        if row.durable:
            row.ack_code = "AE"
            words = "stored, not yet answered by the server; it will be delivered"
            return self._voice.answer(row, "AE", words, self._encoding)
        header, codec = header_of(row, self._encoding)
        terms = terms_of(self._lane.spec, header)
        if terms.commit is not None and terms.letter == "C":
            self._replies.hush(row)
        code = self._negative(header, "E")
        if not code:
            self._commit_blocks.refused(row)
            return None
        return self._voice.say(header, code, f"not stored yet: the disk is slow (ref {row.id})", codec)

    def mended(self) -> None:
        """Nothing waits here: what could not be stored was refused."""

    def _commit_ack(self, row: Row, code: str, spec: ChannelSpec) -> bytes:
        header, codec = header_of(row, spec.encoding)
        return self._voice.say(header, code, "Commit Accept" if code == "CA" else "OK", codec)

    @property
    def _encoding(self) -> str | None:
        return self._lane.spec.encoding if self._lane.spec is not None else None

    def _spoken(self, header: Header | None) -> str:
        """The codec that a sender speaks; UTF-8 where it names none that we know."""
        try:
            return codec_of(header, self._encoding) if header is not None else "utf-8"
        except UnknownCharset:
            return "utf-8"

    def _negative(self, header: Header | None, letter: str) -> str:
        """MSA-1 for what is not stored, E (may be sent again) or R; empty if the sender hears it by other means."""
        spec = self._lane.spec
        if spec is not None and spec.mllp_release == 2:
            return ""
        return terms_of(spec, header).refused(letter)

    def _refuse(self, sender: Sender, header: Header | None, error: AgentError, letter: str, kind: str) -> None:
        reference = self._reference()
        spec = self._lane.spec
        code = self._negative(header, letter)
        if code:
            text = f"{error}; {error.hint} (ref {reference})" if error.hint else f"{error} (ref {reference})"
            sender.reply(self._voice.say(header, code, text, self._spoken(header)))
            self._lane.metrics.rejected += 1
        else:
            if spec is not None and spec.mllp_release == 2:
                sender.tell(NOT_COMMITTED)
            sender.waive()
        self._note_refusal(kind, error, reference)


def _was_positive(row: Row) -> bool:
    ack = read_ack(row.answer) if row.answer is not None else None
    return ack is not None and is_positive(ack.code)


def _header_of_batch(body: bytes) -> Header | None:
    """What BHS or FHS say of who sends to whom, where MSH would say it; MSH-10 is the batch's own id (field 11)."""
    segment = body[: min((end for end in (body.find(b"\r"), body.find(b"\n")) if end >= 0), default=len(body))]
    fields = segment.split(body[3:4])
    if len(fields) < 2 or not fields[1]:
        return None
    fields += [b""] * (11 - len(fields))
    return Header([*fields[:8], b"", fields[10], b"", b""], body[3:4])
