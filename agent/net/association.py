"""One DICOM association: requests become objects on disk, and what became of them goes back.

Secret: which status says what to a modality (PS3.4 §B.2.3, PS3.7 annex C), and where an object is meanwhile.
Promise: a C-STORE is answered with success only after `kept` has said that the object is safe; every C-STORE that came
whole is answered while the association stands; an object that did not come whole leaves nothing behind, and nobody
hears of it. What is held in memory of an object is PENDING_BYTES and one PDU at most.

A request: command → data set, written as it comes → file on the platter → handed over → kept, or not → answered. Power
loss before `kept` leaves a part, which the next start sweeps away; the sender has heard no success.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from agent.net.dicompeer import DicomPeer
from agent.net.dicomterms import VERIFICATION, Terms
from agent.net.inlet import ReceivedObject
from agent.net.partfile import PENDING_BYTES, PartWriter, Written
from agent.protocol import dicomlink as link
from agent.protocol.dicomjson import file_head
from agent.protocol.dicomlink import Command, Unintelligible
from agent.protocol.forensics import Oddity

if TYPE_CHECKING:
    from agent.net.dicom import DicomInlet

_COMMAND_BYTES = 65_536


@dataclass(slots=True, eq=False)
class _Request:
    """A request whose data set comes, or waits. `refused`: status and comment, if it will not be kept."""

    command: Command
    context: int
    refused: tuple[int, str] | None = None
    path: Path = field(default_factory=Path)
    size_bytes: int = 0


class Association(DicomPeer):
    """What a modality does once its association stands."""

    def __init__(self, inlet: DicomInlet) -> None:
        super().__init__(inlet)
        self._command = bytearray()
        self._request: _Request | None = None
        self._storing = False  # the disk has the request, or whoever is to keep it
        self._writer: PartWriter | None = None
        self._paused = False  # we do not read
        self._finishing = False  # the request that has begun is the last one

    @property
    def _waiting(self) -> bool:
        return self._storing

    @property
    def _open_bytes(self) -> int:
        return self._request.size_bytes if self._request is not None else 0

    def connection_lost(self, exc: Exception | None) -> None:
        if self._writer is not None:
            self._writer.end()
        super().connection_lost(exc)

    def finish(self) -> None:
        """Take no further object, and close once the one that comes is answered."""
        self._finishing = True
        if self._request is None:
            self.close()

    def close(self) -> None:
        """Answer what waits, and close."""
        if self._storing and self._request is not None and not self.gone:
            self._answer(self._request, link.OUT_OF_RESOURCES, "the receiver is closing; send the object again")
        self._leave(link.abort())

    def sweep(self, now: float) -> None:
        """Some time has passed: has it been silent, or busy with one object, for too long?"""
        line, silent_s = self._inlet.line, now - self._heard
        if self._storing or self.gone:
            return
        if self._paused:
            if silent_s >= self._inlet.kept_within_s:  # the disk does not take what has come
                self._leave(link.abort())
        elif self._request is not None or self._buffer or self._command:
            if 0 < line.frame_timeout_s <= silent_s:
                self.odd(Oddity.TOO_SLOW)
                self._leave(link.abort())
        elif 0 < line.idle_timeout_s <= silent_s:
            self.odd(Oddity.IDLE)
            self._leave(link.abort())

    # ---- what comes

    def _data(self, terms: Terms, content: bytes) -> None:
        pieces: list[memoryview] = []
        for fragment in link.fragments(content):
            if fragment.context not in terms.contexts or self._storing:
                raise Unintelligible("this data value does not belong here", reason=link.UNEXPECTED_PDU)
            if fragment.command:
                self._command += fragment.data
                if len(self._command) > _COMMAND_BYTES or self._request is not None:
                    raise Unintelligible("a command that does not belong here", reason=link.UNEXPECTED_PDU)
                if fragment.last:
                    command = link.read_command(self._command)
                    self._command.clear()
                    self._begin(terms, fragment.context, command)
                continue
            pieces.append(fragment.data)
            if fragment.last:
                self._take(pieces)
                pieces = []
                self._end()
        if pieces:
            self._take(pieces)

    def _begin(self, terms: Terms, context: int, command: Command) -> None:
        if command.field == link.C_CANCEL:
            return  # there is nothing to be cancelled: it overtook its answer
        sop_class, transfer_syntax = terms.contexts[context]
        request = _Request(command, context, _refusal(command, sop_class))
        if not command.has_data_set:
            self._answer(request, *(request.refused or (link.SUCCESS, "")))
            return
        self._request, self.unanswered = request, 1
        if request.refused is None:
            request.path = self._inlet.folder / f"{uuid4().hex}.part"
            head = file_head(
                sop_class_uid=command.sop_class_uid,
                sop_instance_uid=command.sop_instance_uid,
                transfer_syntax=transfer_syntax,
            )
            self._disk.begin(request.path, head)

    def _take(self, pieces: list[memoryview]) -> None:
        """Pieces of the data set."""
        request, limit = self._request, self._inlet.line.max_message_bytes
        if request is None:
            raise Unintelligible("a data set without a command", reason=link.UNEXPECTED_PDU)
        request.size_bytes += sum(map(len, pieces))
        if request.refused is not None:
            return
        if 0 < limit < request.size_bytes:
            request.refused = link.OUT_OF_RESOURCES, f"this channel takes objects of {limit} bytes at most"
            self.odd(Oddity.TOO_BIG)
            self._disk.drop()
            return
        self._disk.write(b"".join(pieces))

    def _end(self) -> None:
        """The data set has come whole."""
        request = self._request
        assert request is not None
        if request.refused is not None:
            self._settle(request, *request.refused)
            return
        self.frames += 1
        self._storing = True
        late = link.OUT_OF_RESOURCES, "not stored in time; send the object again"
        self._overdue = asyncio.get_running_loop().call_later(self._inlet.kept_within_s, self._settle, request, *late)
        self._disk.finish(lambda outcome: self._written(request, outcome))

    # ---- what becomes of it

    def _written(self, request: _Request, outcome: Written | OSError) -> None:
        if isinstance(outcome, OSError):
            self._settle(request, link.OUT_OF_RESOURCES, f"not stored: {outcome.strerror or outcome}")
            return
        terms, command = self._terms, request.command
        assert terms is not None
        if self.gone or request is not self._request:
            self._discard(request.path)  # whoever sent it has heard that it was refused, or nothing
            return
        received = ReceivedObject(
            request.path,
            outcome.size_bytes,
            self.remote,
            terms.calling_ae_title,
            terms.called_ae_title,
            command.sop_class_uid,
            command.sop_instance_uid,
            outcome.dataset.text,
        )
        if not outcome.dataset.whole:
            self.odd(Oddity.UNREADABLE_OBJECT)
        self._events.store(received, lambda why: self._kept(request, why))

    def _kept(self, request: _Request, why: str) -> None:
        if why:
            self._discard(request.path)
        self._settle(request, link.OUT_OF_RESOURCES if why else link.SUCCESS, why)

    def _settle(self, request: _Request, status: int, comment: str) -> None:
        """Answer, unless it is answered or nobody hears it, and go on."""
        if request is not self._request or self.gone:
            return
        waited = self._storing
        self._answer(request, status, comment)
        if self._finishing:
            self._leave(link.abort())
        elif waited:
            self._heard = time.monotonic()
            self._advance()

    def _answer(self, request: _Request, status: int, comment: str) -> None:
        assert self._terms is not None
        if request is self._request:
            self._request, self.unanswered, self._storing = None, 0, False
            self._stop_clock()
        peer_pdu_bytes = self._terms.peer_pdu_bytes
        self._send(link.answer(request.command, request.context, status, comment, peer_pdu_bytes=peer_pdu_bytes))

    # ---- the disk

    @property
    def _disk(self) -> PartWriter:
        if self._writer is None or self._writer.over:
            inlet = self._inlet
            self._writer = PartWriter(f"dicom:{self.remote}", self._regulate, inlet.sync, inlet.spare_bytes)
            self._inlet.writers.add(self._writer)
        return self._writer

    def _discard(self, path: Path) -> None:
        """Nobody has taken over the file."""
        self._disk.discard(path)
        if self.gone:
            self._disk.end()

    def _regulate(self) -> None:
        """Read from the peer, or not."""
        pending = self._writer.pending_bytes if self._writer is not None else 0
        wanted = not self._storing and pending <= (PENDING_BYTES // 2 if self._paused else PENDING_BYTES)
        if wanted is not self._paused or self.gone or self._transport.is_closing():
            return
        self._paused = not wanted
        if wanted:
            self._heard = time.monotonic()
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()


def _refusal(command: Command, sop_class: str) -> tuple[int, str] | None:
    """Status and comment for what cannot be done, before its data set is looked at. Raises Unintelligible."""
    if command.field & link.RESPONSE:
        raise Unintelligible("an answer to nothing", reason=link.UNEXPECTED_PDU)
    match command.field, sop_class == VERIFICATION:
        case (link.C_ECHO, True):
            return None if not command.has_data_set else (link.UNRECOGNIZED_OPERATION, "")
        case (link.C_STORE, False):
            if not command.sop_instance_uid or not command.sop_class_uid:
                return link.CANNOT_UNDERSTAND, "the request names no SOP class or no SOP instance"
            return None if command.has_data_set else (link.CANNOT_UNDERSTAND, "the request comes without a data set")
        case (link.C_ECHO | link.C_STORE, _):
            return link.CLASS_NOT_SUPPORTED, ""
        case _:
            return link.UNRECOGNIZED_OPERATION, ""
