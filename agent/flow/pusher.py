"""Carry what the server pushes to remotes, and answer each push.

Secret: how a request becomes a message in the remote's character set, be it HL7 v2 or the records of an analyser, and
an outcome the words that the server hears.
Promise: every push is answered exactly once, with the remote's acknowledgement or with a reason. A remote that is slow,
silent or away delays no other. What waits is bounded: by number for each remote, by bytes for all together, of which no
remote has more than half; a push beyond that hears so at once.

A power loss forgets what waits here, and the server's own deadline tells who asked; what must not be forgotten is
durable and goes by way of the outbox.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, assert_never

from agent.errors import ConfigError, PeerError
from agent.failures import Failure, Kind
from agent.flow.bodies import HL7_V2
from agent.flow.letters import TAKEN, Answered, Letter, NotSent, Outcome
from agent.flow.outbox import Outbox
from agent.flow.remotequeue import Message, Parcel
from agent.flow.remotes import Remote, Remotes
from agent.protocol import astm
from agent.protocol.charset import codec_of, name_of, read, write_exactly
from agent.protocol.envelope import Push, PushResponse
from agent.protocol.hl7 import Header, NotHl7, normalize
from agent.protocol.text import legible
from agent.spec import Astm, Mllp, RemoteSpec, ReturnAck

TEXT: Final = "text/plain"
ACCEPTED: Final = 202  # RFC 9110 §15.3.3: taken, and not done yet
TAKEN_IN_WORDS: Final = "the analyser has acknowledged every frame of the message"
_BREAKS: Final = re.compile(r"[\r\n]+")

ContentLog = Callable[[str, str, str, int, bytes], None]
Respond = Callable[[PushResponse], object]
Answer = Callable[[int, str, str], None]  # status, content type, body


@dataclass(frozen=True, slots=True)
class PushLimits:
    """`wait_s`: how long a push waits for a free connection. `waiting_bytes`: of all pushes that are not answered."""

    wait_s: float = 60.0
    waiting_bytes: int = 64 << 20


class CannotPush(PeerError):
    """This request can never be carried; the text is the server's answer."""


class Pusher:
    """One per process. `take` never blocks; its `respond` is called once, perhaps at once."""

    def __init__(
        self,
        remotes: Remotes,
        outbox: Outbox,
        *,
        limits: Callable[[], PushLimits],
        content_log: ContentLog | None = None,
    ) -> None:
        self._remotes = remotes
        self._outbox = outbox
        self._limits = limits
        self._content_log = content_log
        self._loop = asyncio.get_running_loop()
        self._taken_bytes = 0
        self._number = 0

    def take(self, push: Push, respond: Respond) -> None:
        """Deliver one message."""
        answer = partial(_answer, push, respond)
        try:
            remote = self._remotes.find(push.remote or "")
            return_ack = _return_ack(push.return_ack)
            message = message_of(push.body or "", remote.spec)
        except ConfigError as error:
            answer(400, TEXT, "; ".join(map(str, error.findings)))
            return
        except PeerError as error:
            answer(400, TEXT, f"{error} — {error.hint}" if error.hint else str(error))
            return
        self._number += 1
        if remote.spec.durable:
            self._log("push.received", remote.spec, message.content)
            self._store(push, remote, message, return_ack, answer)
            return
        limit_bytes = self._limits().waiting_bytes
        size = len(message.content)
        if self._taken_bytes + size > limit_bytes or (remote.taken_bytes + size) * 2 > limit_bytes:
            failure = _crowded(remote, self._taken_bytes)
            remote.metrics.fail(failure.kind, failure.for_log)
            answer(400, TEXT, str(failure))
            return
        self._taken_bytes += size
        remote.taken_bytes += size
        self._log("push.received", remote.spec, message.content)
        done = partial(self._done, remote, size, self._number, answer)
        remote.pool.push(
            Letter(message.content, message.control_id, return_ack, done, self._loop.time() + self._limits().wait_s)
        )

    @property
    def unanswered_bytes(self) -> int:
        """What waits, or is on its way, in memory alone."""
        return self._taken_bytes

    def _done(self, remote: Remote, size: int, number: int, answer: Answer, outcome: Outcome) -> None:
        self._taken_bytes -= size
        remote.taken_bytes -= size
        self._remotes.note(remote, outcome)
        if isinstance(outcome, Answered) and self._content_log is not None:
            self._content_log("push.answered", remote.spec.url, remote.spec.where, number, outcome.ack)
        answer(*words_of(outcome, remote.spec.encoding))

    def _store(
        self,
        push: Push,
        remote: Remote,
        message: Message,
        return_ack: ReturnAck | None,
        answer: Answer,
    ) -> None:
        waits = push.wait_for_response is not False

        def stored(row_id: int) -> None:
            if not waits:
                answer(ACCEPTED, TEXT, f"stored, and on its way to {remote.spec.where} (ref {row_id})")

        def refused(failure: Failure) -> None:
            self._remotes.note(remote, NotSent(failure))
            answer(400, TEXT, str(failure))

        callback = push.callback if waits and push.callback else ""
        parcel = Parcel(push.remote or "", callback, message, return_ack, stored, refused)
        self._outbox.accept(remote, parcel)

    def _log(self, event: str, spec: RemoteSpec, content: bytes) -> None:
        if self._content_log is not None:
            self._content_log(event, spec.url, spec.where, self._number, content)


def message_of(body: str, spec: RemoteSpec) -> Message:
    """The message as it goes to the remote: HL7 v2, or records (E1394) for an analyser, each with its CR.

    Raises CannotPush, UnknownCharset.
    """
    match spec.wire:
        case Mllp():
            return _hl7_of(body, spec)
        case Astm(codec=codec):
            return _records_of(body, codec)
        case _ as never:
            assert_never(never)


def _hl7_of(body: str, spec: RemoteSpec) -> Message:
    try:
        header = Header.of(body.encode("utf-8", "surrogatepass"))
    except NotHl7 as error:
        raise CannotPush(f"the body cannot be pushed: {error}", hint="push an HL7 v2 message") from None
    if not header.control_id:
        hint = "an acknowledgement finds its message by the message control ID"
        raise CannotPush("Required field missing: MSH.10", hint=hint)
    codec = codec_of(header, spec.encoding)
    try:
        content = normalize(write_exactly(body, codec))
    except UnicodeEncodeError:
        raise _unwritable(body, codec) from None
    return Message(content, header.control_id.decode().encode(codec), header.message_type)


def _unwritable(text: str, codec: str) -> CannotPush:
    """Name the place of the first character that the remote's set lacks."""
    start = next(at for at, character in enumerate(text) if not _writes(character, codec))
    segment_start = max(text.rfind("\r", 0, start), text.rfind("\n", 0, start)) + 1
    before, separator = text[segment_start:start], text[3]
    place = f", in {before[:3]}-{before.count(separator) + (before[:3] == 'MSH')}" if before[3:4] == separator else ""
    return CannotPush(
        f"character {start + 1} of the message (U+{ord(text[start]):04X}{place}) does not exist in {name_of(codec)}",
        hint="set encoding on the remote's address, or name in MSH-18 what the remote reads",
    )


def _records_of(body: str, codec: str) -> Message:
    if not astm.is_records(body):
        raise CannotPush(
            "the body cannot be pushed to an analyser: it does not begin with a header record (H and its delimiters)",
            hint="push the records of one message as text, each on a line of its own",
        )
    try:
        content = astm.normalized(body, codec)
    except UnicodeEncodeError as error:
        place = _place_of(body, error.start)
        raise CannotPush(
            f"{place} does not exist in {name_of(codec)}",
            hint="set encoding on the remote's address to what the analyser reads",
        ) from None
    if not astm.is_sendable(content):
        raise CannotPush(
            "the message holds a control character that ASTM E1381 does not allow in one (§6.6)",
            hint="leave out all but printable characters, tabs and the ends of records",
        )
    return Message(content, b"", b"")


def _place_of(body: str, at: int) -> str:
    record = sum(map(bool, _BREAKS.split(body[: at + 1])))
    return f"character {at + 1} of the message (U+{ord(body[at]):04X}, in record {record})"


def _writes(character: str, codec: str) -> bool:
    try:
        write_exactly(character, codec)
    except UnicodeEncodeError:
        return False
    return True


def words_of(outcome: Outcome, encoding: str | None) -> tuple[int, str, str]:
    """Status, content type and body of the server's answer."""
    if isinstance(outcome, Answered):
        if outcome.code == TAKEN:
            return 200, TEXT, TAKEN_IN_WORDS
        return 200, HL7_V2, text_of(outcome.ack, encoding)
    return 400, TEXT, str(outcome.failure)


def response_to(remote: str, callback: str, outcome: Outcome, spec: RemoteSpec | None) -> PushResponse:
    """What the server hears of a durable message that has come to its end."""
    status, content_type, body = words_of(outcome, spec.encoding if spec is not None else None)
    return PushResponse(
        remote=remote, callback=callback or None, content_type=content_type, status_code=status, body=body
    )


def text_of(ack: bytes, encoding: str | None) -> str:
    """An acknowledgement as text; what cannot be read is U+FFFD, for its code and its message are plain ASCII."""
    try:
        return legible(ack, codec_of(Header.of(ack), encoding))
    except PeerError:
        return read(normalize(ack), "utf-8", "replace")


def _return_ack(wanted: object) -> ReturnAck | None:
    if wanted is None or wanted == "":
        return None
    try:
        return ReturnAck(str(wanted).lower())
    except ValueError:
        raise CannotPush(
            f"Invalid value for returnAck; expected: 'first' or 'application', received: {str(wanted)[:40]}"
        ) from None


def _crowded(remote: Remote, taken_bytes: int) -> Failure:
    return Failure(
        Kind.QUEUE_FULL,
        f"{remote.metrics.waiting + remote.metrics.pending} messages for {remote.spec.where} are not answered yet, "
        f"and all that is under way takes {taken_bytes >> 20} MiB",
        "push more slowly, or make the remote durable, so that what waits is kept on disk",
    )


def _answer(push: Push, respond: Respond, status: int, content_type: str, body: str) -> None:
    respond(
        PushResponse(
            channel=push.channel,
            remote=push.remote,
            callback=push.callback,
            content_type=content_type,
            status_code=status,
            body=body,
        )
    )
