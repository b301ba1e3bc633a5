"""What an oddity on the wire means, in words for a person at three in the morning.

Secret: the words, and which oddities somebody must act on.
Promise: every oddity has one sentence that says what is so and one that says what to do; none of them is an error, for
a port scanner must not wake anybody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from agent.errors import Severity
from agent.protocol.forensics import Oddity


@dataclass(frozen=True, slots=True)
class Explanation:
    """An oddity for a person at three in the morning: one sentence what is so, and one what to do about it."""

    severity: Severity
    text: str
    remedy: str


def _info(text: str, remedy: str) -> Explanation:
    return Explanation(Severity.INFO, text, remedy)


def _warning(text: str, remedy: str) -> Explanation:
    return Explanation(Severity.WARNING, text, remedy)


EXPLANATIONS: Final[Mapping[Oddity, Explanation]] = MappingProxyType(
    {
        Oddity.TLS_ON_PLAIN: _warning(
            "the sender speaks TLS, and this port takes messages unencrypted",
            "switch TLS off in the sender, or give the channel an mllps:// address",
        ),
        Oddity.PLAIN_ON_TLS: _warning(
            "the sender speaks unencrypted, and this port takes TLS only",
            "switch TLS on in the sender, or give the channel an mllp:// address",
        ),
        Oddity.TLS_FAILED: _warning(
            "the sender speaks TLS, but the two sides did not agree on how",
            "let the sender trust this channel's certificate, speak TLS 1.2 or 1.3, and show its own where it must",
        ),
        Oddity.HTTP: _warning(
            "an HTTP client speaks to this port, which takes HL7 over MLLP",
            "give the browser, the monitoring or the application at that address another port",
        ),
        Oddity.UTF16: _warning(
            "the sender writes UTF-16, two bytes a character, which cannot travel in MLLP",
            "let the sender write UTF-8, and name it UNICODE UTF-8 in MSH-18",
        ),
        Oddity.MLLP_RELEASE_2: _warning(
            "the sender writes the commit blocks of MLLP release 2, and this channel speaks release 1",
            "add mllpRelease=2 to the channel's address, or switch the sender to MLLP release 1",
        ),
        Oddity.NO_START: _warning(
            "bytes arrive outside of messages: the start block 0x0B is missing before them",
            "switch MLLP framing on in the sender, or give it a channel for the protocol that it speaks",
        ),
        Oddity.NO_END: _warning(
            "a message began and stopped before its end block 0x1C 0x0D",
            "let the sender end each message with 0x1C 0x0D; if it does, look for a network that loses its packets",
        ),
        Oddity.END_WITHOUT_CR: _warning(
            "a message ends in 0x1C, and the 0x0D that belongs behind it is missing",
            "let the sender end each message with 0x1C 0x0D, also known as <FS><CR>",
        ),
        Oddity.LF_LINES: _info(
            "the sender ends its segments with LF, and the standard wants CR; its messages are taken all the same",
            "nothing has to be done; let the sender end segments with 0x0D when it is next worked on",
        ),
        Oddity.NO_MSH: _warning(
            "what comes inside the start and end blocks does not begin with an MSH segment",
            "let the sender begin each message with MSH, or give it a channel for the protocol that it speaks",
        ),
        Oddity.TOO_BIG: _warning(
            "a message is longer than this channel takes",
            "raise maxMessageBytes of this channel, or let the sender split the message",
        ),
        Oddity.TOO_SLOW: _warning(
            "a message began and was not complete in time",
            "let the sender end each message as its protocol asks (MLLP: 0x1C 0x0D), or raise frameTimeoutSecs",
        ),
        Oddity.NO_ROOM: _warning(
            "too many long messages were under way at one time, and this one had to be sent again",
            "nothing, if it was once; if it stays like this, raise limits.unfinished_bytes",
        ),
        Oddity.IDLE: _info(
            "the connection was silent for idleTimeoutSecs and was closed, as its sender may be long gone",
            "nothing, if the sender connects again by itself; else raise idleTimeoutSecs of this channel",
        ),
        Oddity.NOT_ALLOWED: _warning(
            "this address is not among those that may connect to the channel",
            "add it to `allow` of this channel if it is a sender of yours; else find out who it is",
        ),
        Oddity.TOO_MANY: _warning(
            "the channel has as many connections as it may have, and this one was turned away",
            "let the sender close connections that it does not use, or raise maxConnections of this channel",
        ),
        Oddity.PROBE: _info(
            "somebody connects and leaves without a word, as load balancers and monitoring do; nothing is wrong",
            "nothing has to be done",
        ),
        Oddity.OUTSIDE: _warning(
            "bytes arrive outside of messages: the start character of this channel is missing before them",
            "set startChar of this channel to what each message begins with, or leave it out",
        ),
        Oddity.UNFINISHED: _warning(
            "a message began and stopped before the end character of this channel",
            "set endChar of this channel to what each message ends with; if it is that already, the line loses bytes",
        ),
        Oddity.ASTM_CHECKSUM: _warning(
            "a frame of the analyser came with a checksum that does not fit it, and was asked for again",
            "nothing, if it was once; else check the cable, the settings of the line, and how the analyser counts",
        ),
        Oddity.ASTM_NUMBER: _warning(
            "the analyser numbers its frames otherwise than 1, 2, … 7, 0, 1 from the beginning of each session",
            "nothing, if it was once; else let the analyser number its frames as ASTM E1381 says",
        ),
        Oddity.ASTM_NOT_TAKEN: _warning(
            "the analyser did not take what the server answered: it was busy, refused it several times, or went away",
            "switch the host interface of the analyser to both directions, or set ignoreResponse=true on the channel",
        ),
        Oddity.ASTM_UNFINISHED: _warning(
            "the analyser began a session and did not end it with EOT; what was acknowledged of it is kept",
            "look whether the analyser was switched off or its line broken; it should send the session again",
        ),
        Oddity.NOT_ASTM: _warning(
            "what arrives is not ASTM E1381: no ENQ before it, or no frames of STX and ETX after that",
            "switch the analyser's interface to ASTM, or take mode=astm out of the channel's address",
        ),
        Oddity.AE_TITLE: _warning(
            "an association was asked for under an AE title that this channel does not take",
            "correct the AE titles in the sender, or aeTitle and callingAeTitles in the channel's address",
        ),
        Oddity.NOT_DICOM: _warning(
            "what arrives is no DICOM association",
            "let only DICOM senders connect to this port; TLS needs to be on for both sides or for none",
        ),
        Oddity.UNREADABLE_OBJECT: _warning(
            "an object was kept whole, but not everything in it could be read, so the server is told less about it",
            "look at the object with the sender's vendor; the file that was uploaded is as it was sent",
        ),
    }
)
