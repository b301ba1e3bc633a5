"""When may we say yes?

Secret: what a frame must be before it is ours (readable, in a known charset, not too large for the server, not a
repetition), and that yes waits for the disk.
Promise: every frame is answered once, but for acknowledgements of our acknowledgements. A positive acknowledgement
leaves only after the commit has returned; what is refused is refused with a reason and a reference, and was not
stored.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, assert_never

from agent.errors import AgentError, PeerError
from agent.flow.answers import Answers, ContentLog, forwards, is_positive
from agent.flow.dispatcher import Dispatcher
from agent.flow.lanes import Lane
from agent.flow.replies import Sender
from agent.flow.voice import header_of
from agent.protocol.charset import UnknownCharset, codec_of
from agent.protocol.envelope import TransmitRequest, encode
from agent.protocol.hl7 import Header, NotHl7, normalize, read_ack
from agent.protocol.mllp import FrameTooLong
from agent.spec import AckMode, ChannelSpec, DuplicateBehavior
from agent.store.row import Repeat, Row, State
from agent.store.spool import Spool

_ESCAPED_GROWTH: Final = 6  # JSON writes a control character as \\u00XX
_FRAME_OVERHEAD: Final = 512  # everything in a frame but token and body


@dataclass(slots=True)
class Limits:
    """`frame_bytes`: the largest frame that the server takes."""

    frame_bytes: int = 1_048_576


class Intake:
    """The door of one channel. `receive` takes the frames of one socket read."""

    def __init__(
        self,
        lane: Lane,
        *,
        spool: Spool,
        dispatcher: Dispatcher,
        answers: Answers,
        limits: Limits,
        now_ms: Callable[[], int],
        on_refusal: Callable[[str, str, str], None],
        content_log: ContentLog | None = None,
    ) -> None:
        self._lane = lane
        self._spool = spool
        self._dispatcher = dispatcher
        self._answers = answers
        self._replies = answers.replies
        self._voice = answers.voice
        self._limits = limits
        self._now_ms = now_ms
        self._on_refusal = on_refusal
        self._content_log = content_log
        self._references = itertools.count(now_ms())  # never the same twice, not even after a restart

    def receive(self, sender: Sender, frames: list[bytes]) -> None:
        """Each frame: stored (the answer follows), answered again, or refused."""
        lane = self._lane
        metrics = lane.metrics
        for body in frames:
            metrics.received += 1
            metrics.bytes_in += len(body)
            try:
                header = Header.of(body)
            except NotHl7 as error:
                self._refuse(sender, None, error, "R")
                continue
            self._take(sender, header, body)

    def too_long(self, sender: Sender, error: FrameTooLong) -> None:
        """A frame outgrew the channel's limit: its sender hears so, and the connection ends, for its tail follows."""
        try:
            header = Header.of(error.head)
        except NotHl7:
            header = None
        self._lane.metrics.received += 1
        self._refuse(sender, header, error, "R")
        sender.close_after_reply()

    def _take(self, sender: Sender, header: Header, body: bytes) -> None:
        lane, spool = self._lane, self._spool
        spec = lane.spec
        if spec is None:
            self._refuse(sender, header, PeerError("this channel is switched off"), "R")
            return
        if header.message_type[:3] == b"ACK" and spec.ack_mode is not AckMode.ORIGINAL and self._answers.concern(body):
            sender.waive()
            return
        if spool.trouble is not None:
            self._refuse(sender, header, spool.trouble, "E")
            return
        try:
            text = normalize(body).decode(codec_of(header, spec.encoding))
        except UnknownCharset as error:
            self._refuse(sender, header, error, "R")
            return
        except UnicodeDecodeError as error:
            reason = f"byte {error.start + 1} (0x{error.object[error.start]:02x}) is not {error.encoding}"
            self._refuse(sender, header, PeerError(reason, hint="declare the charset in MSH-18 or on the channel"), "R")
            return
        repeat = Repeat.NO
        if header.control_id:
            known = spool.known(lane.name, header.control_id)
            if known is not None:
                lane.metrics.duplicates += 1
                if spec.duplicates is DuplicateBehavior.REJECT:
                    duplicate = PeerError(f"duplicate of a message received before (ref {known.id})")
                    self._refuse(sender, header, duplicate, "R")
                    return
                if known.body != body:
                    repeat = Repeat.CONFLICT
                elif self._again(sender, known, spec):
                    return
                else:
                    repeat = Repeat.RETRIED
        frame_bytes = self._limits.frame_bytes
        if len(body) * _ESCAPED_GROWTH > frame_bytes and self._too_large(text):
            too_large = PeerError(
                f"a message of {len(body)} bytes is more than the server takes in one frame ({frame_bytes} bytes)",
                hint="raise the server's limit and server.max_frame_bytes",
            )
            self._refuse(sender, header, too_large, "R")
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
        self._dispatcher.arrive(lane, row)
        spool.put(row)
        if self._content_log is not None:
            self._content_log("message.received", row.channel, row.remote, row.id, body)

    def _again(self, sender: Sender, known: Row, spec: ChannelSpec) -> bool:
        """The same bytes once more. True if they are answered from what we know; False if they deserve a new try."""
        finished = known.state.finished
        if finished and not (known.state is State.PROCESSED and _was_positive(known)):
            return False
        match spec.ack_mode:
            case AckMode.ORIGINAL:
                if not finished or known.answer is None:
                    self._replies.owe(known, sender, spec.ack_timeout_s)
                    return True
                sender.reply(known.answer)
            case AckMode.ENHANCED | AckMode.ENHANCED_AA:
                if not known.durable:
                    self._replies.owe(known, sender, spec.ack_timeout_s)
                    return True
                sender.reply(self._commit_ack(known, spec))
                if spec.ack_mode is AckMode.ENHANCED:
                    if not finished:
                        self._replies.follow(known, sender)
                    elif known.answer is not None and forwards(spec.app_ack, "AA"):
                        sender.tell(known.answer)
            case _ as never:
                assert_never(never)
        self._lane.metrics.acknowledged += 1
        return True

    def durable(self, rows: list[Row]) -> None:
        """These rows of this channel are on the platter: the modes that promise only that say so now."""
        spec = self._lane.spec
        if spec is None or spec.ack_mode is AckMode.ORIGINAL:
            return
        code = "CA" if spec.ack_mode is AckMode.ENHANCED else "AA"
        for row in rows:
            if self._replies.answer(row, self._commit_ack(row, spec)):
                row.ack_code = code
                self._lane.metrics.acknowledged += 1

    def refused(self, rows: list[Row], error: AgentError) -> None:
        """These rows could not be stored: their senders hear it and keep them."""
        for row in rows:
            header, codec = header_of(row, self._encoding)
            reference = self._reference()
            answer = self._voice.say(header, self._code("E"), f"not stored: {error} (ref {reference})", codec)
            if self._replies.answer(row, answer):
                self._lane.metrics.rejected += 1
            self._on_refusal(self._lane.name, reference, str(error))

    def late(self, row: Row) -> bytes:
        """The deadline has come: what a sender hears that waited for `row` in vain."""
        self._lane.metrics.timeouts += 1
        self._lane.metrics.rejected += 1
        if row.durable:
            row.ack_code = "AE"
            words = "stored, not yet answered by the server; it will be delivered"
            return self._voice.answer(row, "AE", words, self._encoding)
        spec = self._lane.spec
        if spec is not None and spec.ack_mode is AckMode.ENHANCED:
            self._replies.hush(row)
        header, codec = header_of(row, self._encoding)
        return self._voice.say(header, self._code("E"), f"not stored yet: the disk is slow (ref {row.id})", codec)

    def _commit_ack(self, row: Row, spec: ChannelSpec) -> bytes:
        header, codec = header_of(row, spec.encoding)
        if spec.ack_mode is AckMode.ENHANCED:
            return self._voice.say(header, "CA", "Commit Accept", codec)
        return self._voice.say(header, "AA", "OK", codec)

    @property
    def _encoding(self) -> str | None:
        return self._lane.spec.encoding if self._lane.spec is not None else None

    def _code(self, letter: str) -> str:
        """E or R in the words of the mode: CE and CR are for senders that speak enhanced mode."""
        spec = self._lane.spec
        return ("C" if spec is not None and spec.ack_mode is AckMode.ENHANCED else "A") + letter

    def _reference(self) -> str:
        return f"n{next(self._references)}"

    def _refuse(self, sender: Sender, header: Header | None, error: AgentError, letter: str) -> None:
        reference = self._reference()
        text = f"{error}; {error.hint} (ref {reference})" if error.hint else f"{error} (ref {reference})"
        try:
            codec = codec_of(header, self._encoding) if header else "utf-8"
        except UnknownCharset:
            codec = "utf-8"
        sender.reply(self._voice.say(header, self._code(letter), text, codec))
        self._lane.metrics.rejected += 1
        self._on_refusal(self._lane.name, reference, error.loggable if isinstance(error, PeerError) else str(error))

    def _too_large(self, text: str) -> bool:
        frame = encode(TransmitRequest("", self._lane.name, "", "", text, ""))
        return len(frame) + self._dispatcher.token_bytes + _FRAME_OVERHEAD > self._limits.frame_bytes


def _was_positive(row: Row) -> bool:
    ack = read_ack(row.answer) if row.answer is not None else None
    return ack is not None and is_positive(ack.code)
