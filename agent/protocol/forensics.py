"""Tell why bytes are no message.

Secret: how other protocols, half-right senders and load balancers look from the receiving end of an MLLP connection.
Promise: `examine` names what is wrong with a connection or finds nothing odd; `shape` shows what came first without
showing what it said, so that neither can carry patient data to a screen or a log.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

FIRST_BYTES: Final = 64


class Oddity(StrEnum):
    """What is wrong with a connection, as its code in status, statistics and log."""

    TLS_ON_PLAIN = "tls-on-plain-port"
    PLAIN_ON_TLS = "plain-on-tls-port"
    TLS_FAILED = "tls-failed"  # a TLS client with which no agreement was found
    HTTP = "http"
    UTF16 = "utf-16"
    MLLP_RELEASE_2 = "mllp-release-2"
    NO_START = "no-start-block"
    NO_END = "no-end-block"
    END_WITHOUT_CR = "end-block-without-cr"
    LF_LINES = "lf-line-ends"  # taken all the same
    NO_MSH = "no-msh"
    TOO_BIG = "too-big"
    TOO_SLOW = "too-slow"  # begun and not ended in frameTimeoutSecs
    NO_ROOM = "no-room"
    IDLE = "half-open-and-idle"
    NOT_ALLOWED = "not-allowed"
    TOO_MANY = "too-many-connections"
    PROBE = "connect-and-close"  # a load balancer's look: nothing is wrong


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one connection has done so far. Times in seconds.

    `first`: its first bytes (decrypted, if it speaks TLS), FIRST_BYTES at most. `open_head` and `open_tail`: the first
    FIRST_BYTES and the last two bytes of the message that has begun and not ended; empty between messages. `skipped`:
    bytes that came outside of messages. `over`: the connection has ended, by whomever.
    """

    first: bytes
    bytes_in: int
    frames: int
    skipped: int
    open_bytes: int
    open_head: bytes
    open_tail: bytes
    age_s: float
    silent_s: float
    over: bool
    tls: bool
