"""The side of a DICOM connection that is there before its first object: TLS, PDUs, and whether there is an association.

Secret: transports, and in which order an association begins and ends (PS3.8 §9.2).
Promise: whoever is turned away is told why in DICOM, as far as it speaks it; what is no DICOM is seen by its first
bytes. An association is told of as a connection once it stands, and not before.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final, cast

from agent.net.dicomterms import TOO_MANY, Rejection, Terms, negotiate
from agent.net.keepalive import keep_alive
from agent.net.tlswire import TlsFailure, TlsWire, begins_tls
from agent.protocol import dicomlink as link
from agent.protocol.dicomlink import Pdu, Unintelligible
from agent.protocol.forensics import FIRST_BYTES, Evidence, Oddity, examine, shape
from agent.spec import Dicom, LineSpec

if TYPE_CHECKING:
    from agent.net.dicom import DicomInlet

REQUEST_WITHIN_S: Final = 30.0  # the ARTIM timer (PS3.8 §9.1.4)
_OTHER_PROTOCOLS: Final = (Oddity.HTTP, Oddity.TLS_ON_PLAIN)


class DicomPeer(asyncio.Protocol, ABC):
    """One peer. `remote`: ip:port; `peer`: its address alone. `frames`: objects that came whole; `unanswered`: 1 while
    one comes or waits. `failure`: why there was no TLS, in a sentence. `gone`: nothing written will arrive."""

    def __init__(self, inlet: DicomInlet) -> None:
        self.remote = self.peer = self.failure = ""
        self.gone = False
        self.frames = self.unanswered = self.bytes_in = 0
        self.oddity: Oddity | None = None
        self._inlet = inlet
        self._events = inlet.events
        self._transport: asyncio.Transport
        self._tls: TlsWire | None = None
        self._terms: Terms | None = None
        self._one_too_many = False
        self._buffer = bytearray()
        self._overdue: asyncio.TimerHandle | None = None
        self._ours = False  # it was we who ended it
        self._first = b""
        self._odd: set[Oddity] = set()
        self._born = self._heard = time.monotonic()

    @abstractmethod
    def _data(self, terms: Terms, content: bytes) -> None:
        """What a P-DATA-TF PDU holds. Raises Unintelligible."""

    @property
    @abstractmethod
    def _waiting(self) -> bool:
        """Whether no further PDU may be taken now."""

    @property
    @abstractmethod
    def _open_bytes(self) -> int:
        """How much has come of an object that is not whole."""

    @abstractmethod
    def _regulate(self) -> None:
        """Read from the peer, or not."""

    # ---- what the transport tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        inlet = self._inlet
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one by conduct, not by descent
        self.remote, self.peer = inlet.ends(transport)
        unwanted = inlet.admits(self.peer)
        if unwanted is Oddity.TOO_MANY and not inlet.crowded:
            self._one_too_many = True  # it is told so in its own protocol
        elif unwanted is not None:
            self._ours = self.gone = True
            self._transport.abort()
            self._events.turned_away(self.remote, unwanted)
            return
        inlet.arriving.add(self)
        self.heed(inlet.line)
        self._tls = inlet.secure()
        self._overdue = asyncio.get_running_loop().call_later(REQUEST_WITHIN_S, self._leave, link.abort())

    def data_received(self, data: bytes) -> None:
        self.bytes_in += len(data)
        self._heard = time.monotonic()
        if self.gone or (self._tls is not None and not (data := self._unseal(self._tls, data))):
            return
        if len(self._first) < FIRST_BYTES:
            self._first = (self._first + data)[:FIRST_BYTES]
        self._buffer += data
        self._advance()

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone = True
        self._stop_clock()
        if self in self._inlet.arriving:
            self._inlet.arriving.discard(self)
            if not self._ours and not self.bytes_in:
                self._events.turned_away(self.remote, Oddity.PROBE)
        elif self in self._inlet.connections:
            self._inlet.forget(self)
            self._events.closed(self)

    # ---- what every conversation can do

    @property
    def ready(self) -> bool:
        """Whether objects can come."""
        return self.established and not self.gone

    @property
    def established(self) -> bool:
        """Whether an association was agreed on."""
        return self._terms is not None

    @property
    def first_shape(self) -> str:
        """How its first bytes looked, without what they said."""
        return shape(self._first)

    def evidence(self, now: float, over: bool) -> Evidence:
        """What it has done so far. `now` is of `time.monotonic`."""
        return Evidence(
            first=self._first,
            bytes_in=self.bytes_in,
            frames=self.frames,
            skipped=0,
            open_bytes=self._open_bytes,
            open_head=b"",
            open_tail=b"",
            age_s=now - self._born,
            silent_s=now - self._heard,
            over=over,
            tls=self._tls is not None,
        )

    def odd(self, oddity: Oddity) -> None:
        """Something is odd about it. Told once."""
        if oddity not in self._odd:
            self._odd.add(oddity)
            self.oddity = oddity
            self._events.odd(self, oddity)

    @abstractmethod
    def finish(self) -> None:
        """Take no further object, and close once the one that comes is answered."""

    @abstractmethod
    def close(self) -> None:
        """Answer what waits, and close."""

    @abstractmethod
    def sweep(self, now: float) -> None:
        """Some time has passed: has it been silent, or busy with one object, for too long?"""

    def close_after_reply(self) -> None:
        """Take no further object, and close once the one that comes is answered."""
        self.finish()

    def abort(self) -> None:
        """Close at once."""
        self._ours = self.gone = True
        self._transport.abort()

    def heed(self, line: LineSpec) -> None:
        """The terms of its channel have changed; those of the association stand."""
        connection = self._transport.get_extra_info("socket")
        if connection is not None:
            keep_alive(connection, line.keepalive_s)

    def reply(self, message: bytes) -> None:
        raise NotImplementedError("an object is answered through `kept`")

    def tell(self, message: bytes) -> bool:
        """A sender of objects reads nothing that it did not ask for."""
        return False

    def waive(self) -> None:
        raise NotImplementedError("every object is answered")

    def expect(self, more: int) -> None:
        raise NotImplementedError("an object has one answer")

    def flush(self) -> None:
        """Nothing gathers: answers are written at once."""

    def ungate(self) -> None:
        """Nothing to do: it waits for the disk with every object."""

    # ---- PDUs

    def _advance(self) -> None:
        try:
            while not self._waiting and not self.gone and (taken := link.take_pdu(self._buffer)) is not None:
                self._pdu(*taken)
        except Unintelligible as error:
            if self._terms is None:
                found = examine(self.evidence(time.monotonic(), over=False))
                self._events.turned_away(self.remote, found if found in _OTHER_PROTOCOLS else Oddity.NOT_DICOM)
            self._leave(link.abort(error.reason))
        self._regulate()

    def _pdu(self, kind: Pdu, content: bytes) -> None:
        match kind:
            case Pdu.ASSOCIATE_RQ if self._terms is None:
                self._negotiate(content)
            case Pdu.P_DATA if self._terms is not None:
                self._data(self._terms, content)
            case Pdu.RELEASE_RQ if self._terms is not None:
                self._leave(link.released())
            case Pdu.ABORT:
                self._leave(b"")
            case _:
                raise Unintelligible("this PDU does not belong here", reason=link.UNEXPECTED_PDU)

    def _negotiate(self, content: bytes) -> None:
        wire = self._inlet.wire
        assert isinstance(wire, Dicom)
        terms = negotiate(content, wire)
        if self._one_too_many:
            self._events.turned_away(self.remote, Oddity.TOO_MANY)
            self._leave(TOO_MANY)
            return
        if isinstance(terms, Rejection):
            self._events.turned_away(self.remote, Oddity.AE_TITLE)
            self._leave(terms.answer)
            return
        self._stop_clock()
        self._terms = terms
        self._inlet.arriving.discard(self)
        self._inlet.connections.add(self)
        self._events.opened(self)
        self._send(terms.acceptance)

    # ---- bytes out, and the end

    def _send(self, data: bytes) -> None:
        if data and not self._transport.is_closing():
            self._transport.write(self._tls.wrap(data) if self._tls is not None and self._tls.established else data)

    def _leave(self, farewell: bytes) -> None:
        """The last word, and the end. An object that has not come whole is dropped."""
        if self.gone:
            return
        self._send(farewell)
        self._ours = self.gone = True
        if self._tls is not None and (out := self._tls.close_notify()):
            self._transport.write(out)
        self._transport.close()

    def _unseal(self, tls: TlsWire, data: bytes) -> bytes:
        if self.bytes_in == len(data) and not begins_tls(data):
            self._first = data[:FIRST_BYTES]
            self._events.turned_away(self.remote, Oddity.PLAIN_ON_TLS)
            self._leave(b"")
            return b""
        plain = b""
        try:
            plain = tls.feed(data)
        except TlsFailure as failure:
            self.failure = str(failure)
            if self._terms is None:
                self._events.turned_away(self.remote, Oddity.TLS_FAILED)
            self._ours = self.gone = True
        if out := tls.outgoing():
            self._transport.write(out)
        if self.gone or tls.ended:
            self._transport.close()
        return plain

    def _stop_clock(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None
