"""The vocabulary of a stored message: its row, its way, its two fates, and what the disk can do to us.

Secret: which numbers stand for what in the file. They are part of the schema: never renumber, only add.
Promise: a Row describes one message completely; what is only true while a process runs is marked so.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Any


class Direction(IntEnum):
    """Whither a message goes."""

    IN = 0  # from a device to the server
    OUT = 1  # from the server to a remote


class Content(IntEnum):
    """What the bytes of a message are."""

    HL7 = 0  # an HL7 v2 message
    BYTES = 1  # whatever came between two characters
    ASTM = 2  # the records of one session (E1394), each with its CR
    DICOM = 3  # the JSON about one object, without the reference of its Binary; the object is a file of its own


class State(IntEnum):
    """What became of a message on its way: to the server, or out to a remote. Below 10 it is still ours to deliver."""

    QUEUED = 0  # stored, never written to a socket since
    INFLIGHT = 1  # handed to the socket, or about to be: a crash here makes it ambiguous
    PROCESSED = 10  # the server said 2xx; the remote accepted it
    REJECTED = 11  # the server, or the remote, refused it for good
    FAILED = 12  # tried as often as the policy allows
    HELD = 13  # ambiguous, and the policy leaves the decision to a person

    @property
    def finished(self) -> bool:
        return self >= State.PROCESSED


class AckState(IntEnum):
    """What became of the answer that is owed: to the device that sent the message, or to the server that pushed it."""

    PENDING = 0
    DELIVERED = 1  # written to the connection that asked; the server was told
    UNDELIVERED = 2  # the connection had gone; the link to the server was away
    NOT_OWED = 3  # the mode forwards no answer for this message; the server does not wait for one


class Repeat(IntEnum):
    """Why a message carries a control id that was seen before."""

    NO = 0
    CONFLICT = 1  # other bytes under a used id
    RETRIED = 2  # the same bytes again after a negative answer


class Trouble(StrEnum):
    """What a disk can do to us."""

    FULL = "full"
    LOW = "low"
    READ_ONLY = "read-only"
    DAMAGED = "damaged"
    UNAVAILABLE = "unavailable"


class Row:
    """One message: bytes as received, where they came from, and how far they got.

    `received_ms` and `due_ms` are milliseconds since the epoch; `seq` is the MSH-13 number given to it or None.
    `answer` is the acknowledgement for the sender, encoded and unframed, once there is one. `lane` to `sent_at` live in
    memory only and belong to `flow`; `durable` and `kept` belong to the spool. `control_id` is MSH-10 and
    `message_type` MSH-9 of an HL7 message; other contents have a name of our own there, so that a repetition is known,
    and no type.

    OUT: `channel` is the remote's URL, `remote` its host and port for people, `body` the bytes as they go there,
    `answer` and `ack_code` its acknowledgement and MSA-1, and `callback` the server's, "" if it does not wait.
    """

    __slots__ = (
        "ack",
        "ack_code",
        "ambiguous",
        "answer",
        "attempts",
        "body",
        "callback",
        "channel",
        "content",
        "control_id",
        "direction",
        "due_ms",
        "durable",
        "epoch",
        "header",
        "id",
        "kept",
        "lane",
        "message_type",
        "order_key",
        "reason",
        "received_ms",
        "remote",
        "repeat",
        "sent_at",
        "seq",
        "size",
        "state",
        "status",
        "text",
    )
    state: State
    ack: AckState
    lane: Any  # where it waits for the server
    header: Any  # its MSH, until it is acknowledged
    text: str | None  # its body decoded, while that is cheaper than doing it again
    epoch: int  # how many barriers stand before it in its lane
    sent_at: float  # loop time of the last hand-over to the socket
    durable: bool  # its commit has returned
    kept: State  # its state in the file

    def __init__(
        self,
        id: int,  # noqa: A002
        channel: str,
        remote: str,
        order_key: bytes,
        control_id: bytes,
        message_type: bytes,
        received_ms: int,
        body: bytes,
        seq: int | None = None,
        repeat: Repeat = Repeat.NO,
        *,
        direction: Direction = Direction.IN,
        callback: str = "",
        content: Content = Content.HL7,
    ) -> None:
        self.id = id
        self.channel = channel
        self.remote = remote
        self.order_key = order_key
        self.control_id = control_id
        self.message_type = message_type
        self.received_ms = received_ms
        self.body = body
        self.size = len(body)
        self.seq = seq
        self.repeat = repeat
        self.direction = direction
        self.callback = callback
        self.content = content
        self.state = State.QUEUED
        self.ack = AckState.PENDING
        self.ack_code = ""
        self.attempts = 0
        self.ambiguous = False
        self.due_ms = 0
        self.status: int | None = None
        self.reason = ""
        self.answer: bytes | None = None
        self.lane = None
        self.header = None
        self.text = None
        self.epoch = 0
        self.sent_at = 0.0
        self.durable = False

    def __repr__(self) -> str:
        return f"<Row {self.id} {self.channel} {self.state.name.lower()} attempts={self.attempts}>"
