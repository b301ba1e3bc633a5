"""Say why a message got no acknowledgement, in a sentence for the person who pushed it.

Secret: the words, and how another protocol looks where an answer was due.
Promise: every sentence names the remote and, where a person can help, the remedy. What the remote wrote is quoted only
where a person needs it to find the message (control ids), cut and printable, and never in the text for the log.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from agent.failures import Failure, Kind
from agent.protocol.forensics import Oddity, frame_oddity, shape

QUOTED_CHARS: Final = 40
_BLANK: Final = b"\0\t\n\r "
_TLS_RECORD: Final = re.compile(rb"[\x14-\x17]\x03[\x00-\x04]")  # RFC 8446 §5.1: a refusal is an alert, 0x15
_MAYBE: Final = "; it may have received the message"


@dataclass(frozen=True, slots=True)
class Traces:
    """What a remote has done towards an answer that is missing.

    `committed_by`: what said that it has the message, CA or 0x06; empty: nothing. `begun_bytes`: of an answer whose end
    is missing. `noise`: the first 16 bytes at most that stood in no frame since the last message.
    """

    committed_by: str = ""
    begun_bytes: int = 0
    noise: bytes = b""


def queue_full(where: str, waiting: int) -> Failure:
    """As many messages wait as may."""
    return Failure(
        Kind.QUEUE_FULL,
        f"{_count(waiting, 'message')} already {'waits' if waiting == 1 else 'wait'} for {where}, and no more may",
        "push more slowly, raise maxClients of the remote, or look why it answers slowly",
    )


def waited(where: str, waited_s: float, *, before: int, in_flight: int) -> Failure:
    """No connection became free in time. `before`: how many waited when this one came; `in_flight`: unanswered now."""
    return Failure(
        Kind.WAITED,
        f"the message waited {round(waited_s, 1):g} s for a free connection to {where}: "
        f"{_count(before, 'message')} stood before it when it came, and {_count(in_flight, 'answer')} had not come",
        "raise maxClients of the remote, or look why it answers slowly",
    )


def stopping(where: str) -> Failure:
    """It was not written, as this agent is stopping."""
    return Failure(Kind.STOPPING, f"this agent is stopping, and sends nothing more to {where}", "push it again later")


def stopped(where: str) -> Failure:
    """It was written, and this agent went without waiting for the answer."""
    return Failure(
        Kind.STOPPING, f"this agent stopped before {where} had answered{_MAYBE}", "find out there before pushing again"
    )


def silent(where: str, timeout_s: float, traces: Traces) -> Failure:
    """No acknowledgement came in time."""
    if traces.begun_bytes:
        return Failure(
            Kind.SILENT,
            f"{where} sent {_count(traces.begun_bytes, 'byte')} of an answer but not its end (0x1C 0x0D) "
            f"within {timeout_s:g} s",
            "let it end each answer with 0x1C 0x0D; if it does, look for a network that loses its packets",
        )
    if traces.committed_by:
        return Failure(
            Kind.SILENT,
            f"{where} has committed the message ({traces.committed_by}) but sent no application acknowledgement "
            f"within {timeout_s:g} s",
            _remedy_for(traces),
        )
    if traces.noise:
        return unframed(where, traces.noise)
    return Failure(
        Kind.SILENT,
        f"{where} sent no acknowledgement within {timeout_s:g} s{_MAYBE}",
        "look whether it takes messages; if it needs longer, raise ackTimeoutMs of the remote",
    )


def closed(where: str, traces: Traces) -> Failure:
    """The remote closed the connection politely, owing an answer."""
    if traces.begun_bytes:
        return Failure(
            Kind.CLOSED,
            f"{where} closed the connection in the middle of its answer, "
            f"after {_count(traces.begun_bytes, 'byte')}{_MAYBE}",
            "let it end each answer with 0x1C 0x0D before it closes",
        )
    if traces.committed_by:
        return Failure(
            Kind.CLOSED,
            f"{where} has committed the message ({traces.committed_by}) and closed the connection without an "
            "application acknowledgement",
            _remedy_for(traces),
        )
    if traces.noise:
        return unframed(where, traces.noise)
    return Failure(
        Kind.CLOSED, f"{where} closed the connection without answering{_MAYBE}", "look into its log why it closed"
    )


def lost(where: str, failure: Failure | None, traces: Traces) -> Failure:
    """The connection went while an answer was owed. `failure`: what the network said, None for a polite end."""
    if failure is None:
        return closed(where, traces)
    if failure.kind is Kind.RESET and traces.noise and not traces.begun_bytes and not traces.committed_by:
        # who speaks another protocol complains in that, and resets the connection because it left our bytes unread
        return unframed(where, traces.noise)
    return failure


def no_ack(where: str, frame: bytes) -> Failure:
    """A frame came that is no acknowledgement."""
    match frame_oddity(frame):
        case None | Oddity.LF_LINES:
            what = "a message without MSA-1 and MSA-2"
        case Oddity.HTTP:
            what = "HTTP in an MLLP frame"
        case Oddity.UTF16:
            what = "UTF-16, which cannot travel in MLLP"
        case _:
            what = f"{_count(len(frame), 'byte')} that are no HL7 message" if frame else "an empty frame"
    return Failure(
        Kind.NO_ACK,
        f"{where} answered with {what} instead of an acknowledgement{_MAYBE}",
        "check that the system at this address takes HL7 v2 messages and answers each with an ACK",
    )


def not_committed(where: str) -> Failure:
    """The negative commit block of MLLP release 2: the message was not taken."""
    return Failure(Kind.NO_ACK, f"{where} says that it did not take the message (0x15)", "push it again later")


def contradicted(where: str) -> Failure:
    """Both commit blocks for one message."""
    return Failure(
        Kind.NO_ACK,
        f"{where} said first that it has the message (0x06) and then that it has not (0x15)",
        "find out there before pushing again",
    )


def unnamed_refusal(where: str, in_flight: int) -> Failure:
    """The negative commit block while several messages were unanswered."""
    return Failure(
        Kind.WRONG_ID,
        f"{where} did not take one of {in_flight} messages (0x15) and does not say which one",
        "set inFlight=1 for the remote: MLLP release 2 knows one message at a time",
    )


def wrong_id(where: str, theirs: bytes, ours: bytes) -> Failure:
    """An acknowledgement of a message that is not under way there."""
    return Failure(
        Kind.WRONG_ID,
        f"{where} acknowledged message {quoted(theirs)} (MSA-2) while {quoted(ours)} waits for its answer{_MAYBE}",
        "let it copy MSH-10 of each message into MSA-2 of its answer",
        loggable=f"{where} acknowledged another message (MSA-2) than the one that waits for its answer",
    )


def no_id(where: str, in_flight: int) -> Failure:
    """An acknowledgement without MSA-2 that may belong to more than one message."""
    several = f"{in_flight} messages wait for an answer" if in_flight > 1 else "another message may be meant"
    return Failure(
        Kind.WRONG_ID,
        f"{where} sent an acknowledgement that names no message (MSA-2 is empty) while {several}",
        "let it copy MSH-10 of each message into MSA-2 of its answer; until it does, set inFlight=1 for the remote",
    )


def unframed(where: str, noise: bytes) -> Failure:
    """Bytes outside of any frame stand where the answer was due. `noise`: the first 16 of them at most."""
    said = noise.strip(_BLANK)
    remedy = "check that the system at this address takes HL7 v2 over MLLP"
    if _TLS_RECORD.match(said) or frame_oddity(said) is Oddity.TLS_ON_PLAIN:
        what, remedy = "it speaks TLS", "write mllps:// instead of mllp:// if it takes HL7 over TLS"
    elif frame_oddity(said) is Oddity.HTTP:
        what, remedy = "it speaks HTTP", "give the remote the port on which the system takes HL7 over MLLP"
    elif frame_oddity(said) is Oddity.UTF16:
        what = "it writes UTF-16"
    elif said.startswith(b"MSH"):
        what = "an HL7 message (MSH) without start and end block"
        remedy = "switch MLLP framing on for the answers of that system"
    else:
        what = f"it begins with {_count(len(noise), 'byte')} of something else ({shape(noise)})"
    return Failure(Kind.UNFRAMED, f"{where} answers without MLLP framing (0x0B … 0x1C 0x0D): {what}{_MAYBE}", remedy)


def quoted(control_id: bytes) -> str:
    """A control id for a person: QUOTED_CHARS printable characters at most, in quotation marks."""
    text = "".join(
        char if char.isprintable() else "?" for char in control_id[: 4 * QUOTED_CHARS].decode("utf-8", "replace")
    )
    return f"'{text if len(text) <= QUOTED_CHARS else text[: QUOTED_CHARS - 1] + '…'}'"


def _remedy_for(traces: Traces) -> str:
    if traces.committed_by == "CA":
        return "add returnAck=first to the remote if CA is all that it sends"
    return "let it acknowledge each message on the connection that it came on; 0x06 is no acknowledgement in HL7"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing if number == 1 else thing + 's'}"
