"""Find out whom we speak with, before anything that is said counts as HL7.

Secret: where TLS begins and ends on a connection, what first bytes prove, and in which protocol a refusal is said.
Promise: bytes reach the framer decrypted, or not at all; another protocol is recognised by its first bytes and told so
in its own words; each oddity of a connection is told once. What the channel speaks is the business of its `Framing`.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from agent.net.framing import framing_of
from agent.net.keepalive import Silence
from agent.net.tlswire import TlsFailure, TlsWire, begins_tls
from agent.protocol.forensics import FIRST_BYTES, Evidence, Oddity, shape
from agent.protocol.mllp import HEAD_BYTES, BrokenFrame, PlainText

if TYPE_CHECKING:
    from agent.net.inlet import Inlet


class Stranger(asyncio.Protocol, ABC):
    """The side of a connection that is there before its first message. `remote` and `peer` as Inlet.ends has them.
    `unanswered`: frames taken whose answer is still owed. `gone`: nothing written will arrive. `frames`: messages that
    came; `bytes_in`: all that came, decrypted. `failure`: why there was no TLS, in a sentence.
    """

    __slots__ = (
        "_at_ease",
        "_closing",
        "_eof",
        "_events",
        "_first",
        "_framer",
        "_framing",
        "_inlet",
        "_looked",
        "_out",
        "_silence",
        "_tls",
        "_transport",
        "_unsealed",
        "_wire",
        "_wrap",
        "bytes_in",
        "failure",
        "frames",
        "gone",
        "peer",
        "remote",
        "unanswered",
    )

    def __init__(self, inlet: Inlet) -> None:
        self.remote = self.peer = self.failure = ""
        self.gone = False
        self.unanswered = self.bytes_in = self.frames = 0
        self._inlet = inlet
        self._events = inlet.events  # whoever takes over the inlet takes over no connection with it
        self._framing = framing_of(inlet.line, inlet.wire)
        self._framer = self._framing.framer
        self._wrap = self._framing.wrap
        self._out: list[bytes] = []
        self._transport: asyncio.Transport
        self._wire: TlsWire | None = None
        self._tls = False
        self._eof = False
        self._closing = False  # what still comes from it is thrown away
        self._at_ease = False  # plain MLLP, as its first message showed: every read goes straight to the framer
        self._unsealed = False  # plain text where TLS should be, of which the first segment is waited for
        self._first = b""
        self._looked = False  # the first bytes are all there and no other protocol's
        self._silence: Silence

    @abstractmethod
    def odd(self, oddity: Oddity) -> None:
        """Something is odd about it. Told once."""

    @abstractmethod
    def close(self) -> None:
        """Write what there is, and close."""

    @abstractmethod
    def close_after_reply(self) -> None:
        """Take no further frame, and close once everything owed is written."""

    @abstractmethod
    def _break(self, oddity: Oddity, error: BrokenFrame) -> None:
        """The message that has begun is not waited for any longer: one answer, and the end."""

    @property
    def established(self) -> bool:
        """Whether the handshake is through, if there has to be one."""
        return not self._tls if self._wire is None else self._wire.established

    @property
    def first_shape(self) -> str:
        """How its first bytes looked, without what they said."""
        return shape(self._first)

    def evidence(self, now: float, over: bool) -> Evidence:
        """What it has done so far. `now` is of `time.monotonic`."""
        framer = self._framer
        return Evidence(
            first=self._first,
            bytes_in=self.bytes_in,
            frames=self.frames,
            skipped=framer.skipped,
            open_bytes=framer.buffered if framer.begun else 0,
            open_head=framer.head(FIRST_BYTES),
            open_tail=framer.tail(2),
            age_s=self._silence.age_s(now),
            silent_s=self._silence.silent_s(now, self.bytes_in),
            over=over,
            tls=self._tls,
        )

    def _first_look(self, data: bytes) -> bytes:
        """What of a read is for the framer: all, or what TLS gives; nothing if its sender speaks something else."""
        if self._closing:
            return b""
        if self._wire is not None:
            data = self._unseal(data)
        elif self._unsealed:
            self.bytes_in += len(data)
            self._refuse_plain_text(self._framer.feed(data))
            return b""
        if len(self._first) < FIRST_BYTES and not self.frames:
            self._first += data[: FIRST_BYTES - len(self._first)]
        return self._listen(data) if self._framing.hears_all else data

    def _listen(self, data: bytes) -> bytes:
        """A read of a connection on which any bytes may be a message: who speaks has to be known before."""
        if not self._looked:
            self._recognise()
        if self._closing:
            return b""
        if said := self._framing.at_once(data):
            self._write(said if self._wire is None else self._seal(said))
        return data

    def _greet(self, frame: bytes) -> None:
        """The first message is there: it speaks as it should."""
        self._looked = True
        self._at_ease = self._wire is None and not self._closing and not self._framing.hears_all
        if (oddity := self._framing.greets(frame)) is not None:
            self.odd(oddity)

    def _recognise(self) -> None:
        """Send other protocols away, in their own words, as soon as their first bytes prove them."""
        self._looked = len(self._first) >= FIRST_BYTES
        verdict = self._framing.examine(self.evidence(0.0, over=False))
        if verdict in self._framing.others:
            self.odd(verdict)
            self._send_away(self._framing.farewell(verdict))

    def _unseal(self, data: bytes) -> bytes:
        """The plaintext of a read. The handshake has none, and what TLS itself has to say is said at once."""
        wire = self._wire
        assert wire is not None
        shaking = not wire.established
        if shaking and data:
            before, self._first = self._first, (self._first + data[:FIRST_BYTES])[:FIRST_BYTES]
            self.bytes_in += len(data)
            if not begins_tls(self._first):
                self._meet_plain_text(before + data)
                return b""
        try:
            plaintext = wire.feed(data)
        except TlsFailure as failure:
            self._fail(failure)
            return b""
        self._write(wire.outgoing())
        if shaking and wire.established:  # from here on what is decrypted counts
            self._first, self.bytes_in = b"", 0
        if wire.ended and not self._eof:
            # close_notify is an end of file, but what came with it is taken first
            asyncio.get_running_loop().call_soon(self._end_of_stream)
        return plaintext

    def _seal(self, data: bytes) -> bytes:
        assert self._wire is not None
        try:
            return self._wire.wrap(data)
        except TlsFailure as failure:
            self._fail(failure)
            return b""

    def _end_of_stream(self) -> None:
        if not self.gone and not self.eof_received():
            self.close()

    def _fail(self, failure: TlsFailure) -> None:
        """No agreement about TLS; the alert that says so leaves before the connection ends."""
        self.failure = str(failure)
        self.odd(Oddity.TLS_FAILED)
        self.unanswered = 0  # no answer can be sealed any more
        self._out.clear()
        self._send_away(b"")

    def _meet_plain_text(self, data: bytes) -> None:
        """These are its first bytes on a port that takes TLS only."""
        framing = self._framing
        block = framing.can_refuse and data[:1] == b"\x0b"
        verdict = framing.examine(self.evidence(0.0, over=False))
        if framing.can_refuse and verdict is None and len(self._first) < FIRST_BYTES and not block:
            return  # too little to tell from the start of something else
        self._wire = None  # what is said from here on is plain text too
        verdict = Oddity.HTTP if verdict is Oddity.HTTP else Oddity.PLAIN_ON_TLS
        self.odd(verdict)
        if verdict is Oddity.PLAIN_ON_TLS and block:
            self._unsealed = True
            self._refuse_plain_text(self._framer.feed(data))
        else:
            self._send_away(framing.farewell(verdict))

    def _refuse_plain_text(self, frames: list[bytes] | None = None, *, hurry: bool = False) -> None:
        """Answer the plain message once its first segment is there, which the answer needs; `hurry`: at once."""
        head = frames[0][:HEAD_BYTES] if frames else self._framer.head(HEAD_BYTES)
        if frames or hurry or b"\r" in head or len(head) >= HEAD_BYTES:
            self._unsealed = False
            self._break(Oddity.PLAIN_ON_TLS, PlainText(head))

    def _send_away(self, parting: bytes) -> None:
        """Say a last word as it is, without framing, and end."""
        wire = self._wire
        if wire is None:
            self._write(parting)
        elif wire.established and not wire.ended and parting:
            self._write(self._seal(parting))
        else:
            self._write(wire.outgoing())
        self.close_after_reply()

    def _explain_the_end(self) -> None:
        """It went of its own accord: had it anything to say?"""
        if self._wire is not None and not self._wire.established and self._first:
            self.failure = "the other side went away in the middle of the TLS handshake"
            self.odd(Oddity.TLS_FAILED)
        else:
            self._examine(time.monotonic(), over=True)

    def _examine(self, now: float, *, over: bool) -> None:
        verdict = self._framing.examine(self.evidence(now, over))
        if verdict is not None and (self._inlet.visited or verdict is not Oddity.PROBE):
            self.odd(verdict)

    def _write(self, data: bytes) -> None:
        if data and not self.gone and not self._transport.is_closing():
            self._transport.write(data)

    def _say_goodbye(self) -> None:
        if self._wire is not None and not self._transport.is_closing() and (notice := self._wire.close_notify()):
            self._transport.write(notice)
