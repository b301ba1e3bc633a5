"""The far ends of DICOM tests: whoever takes objects over, and modalities: DCMTK's own programs and pynetdicom."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage
from pynetdicom import AE
from pynetdicom.association import Association as Scu

from agent.net.binding import bind
from agent.net.dicom import DicomInlet
from agent.net.inlet import Conversation, InletEvents, ReceivedObject, Room
from agent.net.tls import Identity
from agent.protocol.forensics import Oddity
from agent.protocol.mllp import BrokenFrame
from agent.spec import Dicom, LineSpec

WITHIN_S = 30.0
NAME = "EVERYMAN^ADAM"


class Archive:
    """Whoever a DICOM inlet tells. It keeps every object at once, unless `verdict` says otherwise: a text why not, or
    None to say nothing until `waiting` is answered."""

    inlet: DicomInlet

    def __init__(self) -> None:
        self.objects: list[ReceivedObject] = []
        self.waiting: list[Callable[[str], None]] = []
        self.verdict: str | None = ""
        self.opened: list[Conversation] = []
        self.closed: list[Conversation] = []
        self.oddities: list[Oddity] = []
        self.turned_away: list[tuple[str, Oddity]] = []
        self._rung = asyncio.Event()

    @property
    def events(self) -> InletEvents:
        return InletEvents(
            self._never,
            self._broken,
            self._opened,
            self._closed,
            lambda: False,
            self._odd,
            self._turned,
            store=self._store,
        )

    @property
    def parts(self) -> list[Path]:
        """What lies in the folder."""
        return sorted(self.inlet.folder.iterdir()) if self.inlet.folder.exists() else []

    async def until(self, so: Callable[[], object]) -> None:
        """Wait until `so` holds, looked at whenever something was heard and a hundred times a second besides."""
        async with asyncio.timeout(WITHIN_S):
            while not so():
                self._rung.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.01):
                        await self._rung.wait()

    def sweep(self, after_s: float) -> None:
        """As if this much time had passed."""
        self.inlet.sweep(time.monotonic() + after_s)

    def _store(self, received: ReceivedObject, kept: Callable[[str], None]) -> None:
        self.objects.append(received)
        if self.verdict is None:
            self.waiting.append(kept)
        else:
            kept(self.verdict)
        self._rung.set()

    def _never(self, conversation: Conversation, frames: list[bytes]) -> None:
        raise AssertionError("objects come as files")

    def _broken(self, conversation: Conversation, error: BrokenFrame) -> None:
        raise AssertionError("objects come as files")

    def _opened(self, conversation: Conversation) -> None:
        self.opened.append(conversation)
        self._rung.set()

    def _closed(self, conversation: Conversation) -> None:
        assert conversation in self.opened, "nobody has heard of it before"
        self.closed.append(conversation)
        self._rung.set()

    def _odd(self, conversation: Conversation, oddity: Oddity) -> None:
        self.oddities.append(oddity)
        self._rung.set()

    def _turned(self, peer: str, oddity: Oddity) -> None:
        self.turned_away.append((peer, oddity))
        self._rung.set()


@asynccontextmanager
async def archive(
    folder: Path,
    *,
    line: LineSpec | None = None,
    wire: Dicom | None = None,
    identity: Identity | None = None,
    host: str = "127.0.0.1",
) -> AsyncIterator[Archive]:
    """A DICOM inlet on a free port; afterwards none of its threads is left."""
    ward = Archive()
    ward.inlet = inlet = DicomInlet(
        await bind(host, 0, "dicom"),
        line=line or LineSpec(max_message_bytes=0),
        identity=identity,
        room=Room(0),
        wire=wire or Dicom(),
        folder=folder,
    )
    inlet.events = ward.events
    await inlet.start()
    try:
        yield ward
    finally:
        await inlet.close()
        assert not inlet.connections
        await ward.until(lambda: not inlet.arriving and not inlet.writers)


def an_object(uid: str = "1.2.826.0.1.3680043.8.498.1", **elements: Any) -> Dataset:
    """A small secondary capture image."""
    dataset = Dataset()
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = uid
    dataset.Modality = "OT"
    dataset.PatientName = NAME
    dataset.PatientID = "PATID1234"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.826.0.1.3680043.8.498.2", "1.2.826.0.1.3680043.8.498.3"
    dataset.Rows = dataset.Columns = 64
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PixelData = bytes(64 * 64)
    for name, value in elements.items():
        setattr(dataset, name, value)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset


def as_file(dataset: Dataset, path: Path, transfer_syntax: str = ExplicitVRLittleEndian) -> Path:
    """The same as a DICOM file, its pixels as they are."""
    dataset.file_meta.TransferSyntaxUID = transfer_syntax
    content = io.BytesIO()
    pydicom.dcmwrite(content, dataset, enforce_file_format=True)
    path.write_bytes(content.getvalue())
    return path


def dcmtk(name: str) -> str:
    """One of DCMTK's programs; pynetdicom's of the same names are scripts."""
    for folder in [*os.environ.get("PATH", os.defpath).split(os.pathsep), "/usr/bin"]:
        found = shutil.which(name, path=folder)
        if found is not None:
            with open(found, "rb") as program:
                if program.read(2) != b"#!":
                    return found
    pytest.fail(f"{name} is not installed: install dcmtk", pytrace=False)


async def run(program: str, *arguments: object) -> tuple[int, str]:
    """One of DCMTK's programs to its end: exit code, and all it said."""
    process = await asyncio.create_subprocess_exec(
        dcmtk(program), *map(str, arguments), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(WITHIN_S * 2):
        said, _ = await process.communicate()
    return process.returncode or 0, said.decode(errors="replace")


@asynccontextmanager
async def modality(
    ward: Archive, *contexts: tuple[str, str | list[str]], ae_title: str = "MODALITY", called: str = "ARCHIVE"
) -> AsyncIterator[Scu]:
    """A modality of pynetdicom that has asked for an association."""
    entity = AE(ae_title=ae_title)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = WITHIN_S
    for abstract, syntaxes in contexts or ((SecondaryCaptureImageStorage, ExplicitVRLittleEndian),):
        entity.add_requested_context(abstract, syntaxes)
    scu = await asyncio.to_thread(entity.associate, "127.0.0.1", ward.inlet.port, ae_title=called)
    try:
        yield scu
    finally:
        if scu.is_established:
            await asyncio.to_thread(scu.release)
        await asyncio.to_thread(scu.join, WITHIN_S)


async def stores(scu: Scu, dataset: Dataset | Path) -> Dataset:
    """The answer to one C-STORE."""
    answer: Dataset = await asyncio.to_thread(scu.send_c_store, dataset)
    return answer
