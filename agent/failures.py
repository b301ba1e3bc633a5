"""Why a message to a remote got no acknowledgement, as a value.

Secret: none of its own; it is the vocabulary between who owns the connection, who decides, and who counts.
Promise: `text` and `remedy` are sentences for the person who pushed; a kind is a fixed word, fit for a counter.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What happened, by what a person would look at first."""

    BAD_MESSAGE = "bad-message"  # not HL7, without MSH-10, or with characters that the remote's charset lacks
    BAD_REMOTE = "bad-remote"  # its address cannot be used
    QUEUE_FULL = "queue-full"
    WAITED = "waited"  # too long for a free connection
    STOPPING = "stopping"  # this agent is
    NOT_STORED = "not-stored"  # a durable message, by our own disk
    DNS = "dns"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    TLS = "tls"
    RESET = "reset"
    CLOSED = "closed"  # by the remote, before its answer
    SILENT = "silent"
    UNFRAMED = "unframed"  # an answer without MLLP framing
    TOO_LONG = "too-long"  # an answer
    NO_ACK = "no-ack"  # an answer that is no acknowledgement
    WRONG_ID = "wrong-id"  # an acknowledgement of another message
    BUSY = "busy"  # an analyser that takes nothing now
    NOT_TAKEN = "not-taken"  # an analyser refused a frame, as often as it was sent
    INTERRUPTED = "interrupted"  # by an analyser, before the end of the message


@dataclass(frozen=True, slots=True)
class Failure:
    """`text` may quote what the remote or the server sent: it is for who asked, never for the main log; `loggable` is
    what the log may say, where that is something else. `in_doubt`: what was written to an analyser before may be there,
    in part or as a whole.
    """

    kind: Kind
    text: str
    remedy: str = ""
    loggable: str = ""
    in_doubt: bool = False

    def __str__(self) -> str:
        return f"{self.text} — {self.remedy}" if self.remedy else self.text

    @property
    def for_log(self) -> str:
        return self.loggable or self.text
