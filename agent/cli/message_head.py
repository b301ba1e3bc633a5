"""What became of a message, in words.

Secret: in which words the fate of a message is told: on its way to the server, and on its way to a remote; and what an
acknowledgement is on lines that do not speak HL7.
Promise: nothing is wider than the window, and what came from outside cannot steer the terminal. A masked head names no
patient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from agent.cli.amounts import milliseconds
from agent.cli.lines import Line, Span, Tone, paragraph
from agent.cli.message_parts import masked
from agent.cli.message_view import STATE_TONES, decoded, local_time, owed
from agent.store.ledger import Entry
from agent.store.row import AckState, Content, Direction, Repeat, State

_ENDLESS: Final = 1 << 20  # cells of a line in a file
_STATES: Final = {
    State.QUEUED: "queued: it waits for the server",
    State.INFLIGHT: "in flight: handed to the server's connection, and no receipt so far",
    State.PROCESSED: "processed: the server took it",
    State.REJECTED: "rejected: the server refused it for good",
    State.FAILED: "failed: tried as often as the channel's policy allows",
    State.HELD: "held: a person decides whether it is sent again",
}
_STATES_OUT: Final = {
    State.QUEUED: "queued: it waits for the remote",
    State.INFLIGHT: "in flight: written to the remote, or about to be, and not answered so far",
    State.PROCESSED: "processed: the remote accepted it",
    State.REJECTED: "rejected: the remote refused it",
    State.FAILED: "failed: tried as often as the remote's policy allows",
    State.HELD: "held: the remote may have it or not; a person decides whether it is sent again",
}
_ACKS: Final = {
    AckState.PENDING: ("owed to the sender, not sent so far", Tone.PLAIN),
    AckState.DELIVERED: ("delivered to the sender", Tone.PLAIN),
    AckState.UNDELIVERED: ("not delivered: the sender's connection had gone", Tone.WARNING),
    AckState.NOT_OWED: ("none is owed to the sender", Tone.PLAIN),
}
_ACKS_OUT: Final = {
    AckState.PENDING: ("the server waits, and was not told so far", Tone.PLAIN),
    AckState.DELIVERED: ("the server was told", Tone.PLAIN),
    AckState.UNDELIVERED: ("the server was not told: the connection to it was away", Tone.WARNING),
    AckState.NOT_OWED: ("the server does not wait to be told", Tone.PLAIN),
}
_ECHOES: Final = {
    AckState.PENDING: ("the device hears what the server answers, if it does", Tone.PLAIN),
    AckState.DELIVERED: ("the server's answer was written back to the device", Tone.PLAIN),
    AckState.UNDELIVERED: ("the server's answer did not reach the device", Tone.WARNING),
    AckState.NOT_OWED: ("there was nothing to write back to the device", Tone.PLAIN),
}
_RECORDS: Final = {
    AckState.PENDING: ("", Tone.PLAIN),
    AckState.DELIVERED: ("the server's answer was sent to the analyser", Tone.PLAIN),
    AckState.UNDELIVERED: ("the server's answer did not reach the analyser", Tone.WARNING),
    AckState.NOT_OWED: ("", Tone.PLAIN),
}
_KINDS: Final = {
    Content.HL7: "",
    Content.BYTES: "bytes of a stream",
    Content.ASTM: "ASTM session",
    Content.DICOM: "DICOM object",
}
_BODIES: Final = {Content.HL7: "text", Content.BYTES: "bytes", Content.ASTM: "records", Content.DICOM: "object"}
_CODES: Final = {"A": "accepted", "E": "error", "R": "rejected"}
_REPEATS: Final = {
    Repeat.CONFLICT: "its control id was used before, by a message of other bytes",
    Repeat.RETRIED: "the same bytes came before, and were answered negatively",
}


def head_lines(entry: Entry, body: Sequence[Span], *, mask: bool, width: int | None) -> list[Line]:
    """Where a message came from, or goes to, and what became of it. `body`: what is to be said of its content."""
    veil = masked if mask else str
    inbound = entry.direction is Direction.IN
    tone = STATE_TONES.get(entry.state, Tone.PLAIN)
    tries = f"{entry.attempts} attempt{'' if entry.attempts == 1 else 's'}"
    fate = [((_STATES if inbound else _STATES_OUT)[entry.state], tone), (f"{tries}{_next_try(entry)}", Tone.PLAIN)]
    if entry.status:
        fate.insert(1, (f"server status {entry.status}", Tone.PLAIN))
    if entry.settled_ms is not None:
        took = milliseconds(entry.settled_ms - entry.received_ms)
        fate.append((f"settled {local_time(entry.settled_ms):%d %b %H:%M:%S}, {took} after it came", Tone.PLAIN))
    marks = [] if entry.repeat is Repeat.NO else [(_REPEATS[entry.repeat], Tone.WARNING)]
    if entry.ambiguous:
        marks.insert(0, (_ambiguity(entry), Tone.WARNING))
    came = f"{local_time(entry.received_ms):%d %b %Y %H:%M:%S.%f}"[:-3]
    blocks: list[tuple[str, list[Span]]] = [
        (
            "message",
            [
                (str(entry.id), Tone.STRONG),
                (_KINDS[entry.content] or decoded(entry.message_type), Tone.STRONG),
                (decoded(entry.control_id), Tone.STRONG),
            ],
        ),
        (
            "from" if inbound else "to",
            [
                (f"{entry.remote} on channel {entry.channel}" if inbound else entry.channel, Tone.PLAIN),
                (f"received {came}" if inbound else f"pushed by the server {came}", Tone.PLAIN),
            ],
        ),
        ("state", fate),
        ("reason", [(veil(entry.reason), tone)] if entry.reason else []),
        ("mark", marks),
        *(_answers_in(entry) if inbound else _answers_out(entry)),
        ("order", _order(entry, veil) if inbound else []),
        (_BODIES[entry.content], list(body)),
    ]
    return [line for label, parts in blocks if parts for line in paragraph(label, parts, width or _ENDLESS)]


def _ambiguity(entry: Entry) -> str:
    if entry.direction is Direction.IN:
        return "ambiguous: it was sent when the connection broke, so the server may have it twice"
    if entry.state is State.HELD:
        return "ambiguous: it was sent, and no answer came"
    return "ambiguous: a try was not answered, so the remote may have it twice"


def _answers_in(entry: Entry) -> list[tuple[str, list[Span]]]:
    if entry.content is not Content.HL7:
        return [("ack", _by_the_line(entry))]
    words, tone = _ACKS[entry.ack]
    code, code_tone = _code(entry)
    return [("ack", [(f"{code}, {words}" if code else words, tone if code_tone is Tone.PLAIN else code_tone)])]


def _by_the_line(entry: Entry) -> list[Span]:
    """What a sender was told that speaks no HL7."""
    match entry.content:
        case Content.ASTM:
            words = [("each frame was acknowledged as it came", Tone.PLAIN), _RECORDS[entry.ack]]
        case Content.DICOM:
            words = [("success (0000), told as soon as the object was safe", Tone.PLAIN)]
        case _:
            words = [_ECHOES[entry.ack]]
    return [(text, tone) for text, tone in words if text]


def _answers_out(entry: Entry) -> list[tuple[str, list[Span]]]:
    code, tone = _code(entry)
    said = f"{code}, from the remote" if code else "none came" if entry.state.finished else "none so far"
    return [("ack", [(said, tone)]), ("server", [_ACKS_OUT[owed(entry)]])]


def _code(entry: Entry) -> Span:
    """MSA-1 with its meaning; empty if there is none."""
    if not entry.ack_code:
        return "", Tone.PLAIN
    if entry.ack_code == "ACK":
        return "ACK (every frame)", Tone.PLAIN
    meaning = _CODES.get(entry.ack_code[1:], "no code of table 0008")
    return f"{entry.ack_code} ({meaning})", Tone.PLAIN if meaning == "accepted" else Tone.WARNING


def _order(entry: Entry, veil: Callable[[str], str]) -> list[Span]:
    key = veil(decoded(entry.order_key).replace("\x1f", " + "))
    number = [] if entry.seq is None else [(f"MSH-13 given: {entry.seq}", Tone.PLAIN)]
    return [(f"key {key}" if key else "no key", Tone.PLAIN), *number]


def _next_try(entry: Entry) -> str:
    waits = entry.state is State.QUEUED and entry.attempts and entry.due_ms
    return f", the next is due {local_time(entry.due_ms):%d %b %H:%M:%S}" if waits else ""
