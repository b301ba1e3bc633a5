"""DICOM objects: kept as a file and a row, uploaded, and only then told to the server."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from flow_far_ends import SPEC, WITHIN_S, Bell, Desk, SickDisk, at_the_desk

from agent.errors import LinkError
from agent.flow.objectintake import ObjectIntake
from agent.flow.reception import Limits
from agent.flow.uploads import NotWanted, Uploads
from agent.spec import Dicom, RetryMode, RetryPolicy
from agent.store.objects import Objects
from agent.store.row import Content, State

PACS = dataclasses.replace(SPEC, name="pacs", address="dicom://127.0.0.1:104", wire=Dicom())
DATASET = b'{"00080018":{"vr":"UI","Value":["1.2.3"]}}'


@dataclass(frozen=True)
class Arrival:
    """An object as the DICOM room hands it over."""

    path: Path
    size_bytes: int = 6
    calling_ae_title: str = "MODALITY"
    called_ae_title: str = "AGENT"
    dataset: bytes = DATASET


class BinaryServer:
    """Takes uploads, as it is told to."""

    def __init__(self, bell: Bell) -> None:
        self.contents: list[bytes] = []
        self.trouble: list[Exception] = []
        self.slow = asyncio.Event()
        self.slow.set()
        self._bell = bell

    async def upload(self, path: Path) -> str:
        await self.slow.wait()
        if self.trouble:
            self._bell.ring()
            raise self.trouble.pop(0)
        self.contents.append(path.read_bytes())
        self._bell.ring()
        return f"Binary/{len(self.contents)}"


class Archive:
    """A desk with a DICOM channel, its objects and a server that takes them."""

    def __init__(self, desk: Desk, folder: Path) -> None:
        self.desk = desk
        self.folder = folder
        self.objects = Objects(folder)
        self.server = BinaryServer(desk.bell)
        self.uploads = Uploads(self.objects, self.server.upload)
        self.said: list[str] = []
        self._count = 0

    def arrives(self, content: bytes = b"object") -> None:
        self._count += 1
        self.folder.mkdir(exist_ok=True)
        part = self.folder / f"{self._count}.part"
        part.write_bytes(content)
        intake = self.desk.intakes["pacs"]
        assert isinstance(intake, ObjectIntake)
        intake.store(Arrival(part, len(content)), self._answer)

    def _answer(self, why: str) -> None:
        self.said.append(why)
        self.desk.bell.ring()

    async def answers(self, count: int = 1) -> list[str]:
        await self.desk.bell.until(lambda: len(self.said) >= count)
        return self.said

    async def files_are(self, kinds: list[str]) -> None:
        async with asyncio.timeout(WITHIN_S):
            while self.files != kinds:
                await asyncio.sleep(0.01)

    @property
    def files(self) -> list[str]:
        return sorted(path.suffix for path in self.folder.iterdir()) if self.folder.exists() else []


@contextlib.asynccontextmanager
async def an_archive(tmp_path: Path, *, vfs: str | None = None) -> AsyncIterator[Archive]:
    async with at_the_desk(tmp_path / "spool.db", vfs=vfs) as desk:
        archive = Archive(desk, tmp_path / "objects")
        desk.objects = archive.objects
        desk.dispatcher.uploads = archive.uploads
        desk.open(PACS)
        async with asyncio.TaskGroup() as tasks:
            working = tasks.create_task(archive.uploads.run())
            yield archive
            working.cancel()
        await archive.objects.close()


@pytest.fixture
async def archive(tmp_path: Path) -> AsyncIterator[Archive]:
    async with an_archive(tmp_path) as archive:
        yield archive


async def test_an_object_is_kept_uploaded_and_told_to_the_server_in_this_order(archive: Archive) -> None:
    archive.server.slow.clear()
    archive.arrives()
    # kept, before the server has anything of it
    assert await archive.answers() == [""]
    await archive.desk.hears(0)
    # uploaded, and then the message
    archive.server.slow.set()
    (frame,) = await archive.desk.hears(1)
    assert archive.server.contents == [b"object"]
    assert (frame.content_type, frame.remote) == ("application/json", "MODALITY")
    assert json.loads(frame.body or "") == {
        "association": {"callingAeTitle": "MODALITY", "calledAeTitle": "AGENT"},
        "dataset": json.loads(DATASET),
        "binary": {"reference": "Binary/1"},
    }


async def test_an_object_that_the_server_has_leaves_no_file(archive: Archive) -> None:
    archive.arrives()
    (frame,) = await archive.desk.hears(1)
    archive.desk.server.answer(frame, body={"received": True})
    await archive.desk.stored()
    await archive.files_are([])
    row = archive.desk.spool.shelf.get(1)
    assert row is not None
    assert (row.state, row.content, row.ack_code) == (State.PROCESSED, Content.DICOM, "0000")


async def test_an_upload_that_fails_is_tried_again_by_the_channel_s_policy(archive: Archive) -> None:
    archive.server.trouble = [LinkError("the server is away"), LinkError("still away")]
    archive.arrives()
    await archive.answers()
    await archive.desk.bell.until(lambda: len(archive.server.trouble) == 1)
    archive.desk.clock.s += 120
    await _pumped(archive, lambda: not archive.server.trouble)
    archive.desk.clock.s += 120
    await _pumped(archive, lambda: bool(archive.server.contents))
    (frame,) = await archive.desk.hears(1)
    assert frame.callback is not None
    assert archive.server.contents == [b"object"]


async def test_a_try_of_the_message_does_not_upload_again(archive: Archive) -> None:
    archive.arrives()
    (frame,) = await archive.desk.hears(1)
    archive.desk.server.answer(frame, status=503, body="later")
    archive.desk.clock.s += 120
    archive.desk.dispatcher.pump()
    _, again = await archive.desk.hears(2)
    assert again.body == frame.body
    assert archive.server.contents == [b"object"]


async def test_an_object_that_the_server_refuses_is_kept_for_a_person(archive: Archive) -> None:
    archive.server.trouble = [NotWanted("too large", status=413)]
    archive.arrives()
    await archive.desk.bell.until(lambda: archive.said == [""] and not archive.server.trouble)
    row = await archive.desk.row(_name(archive), channel="pacs")
    await archive.desk.stored()
    row = await archive.desk.row(_name(archive), channel="pacs")
    assert (row.state, row.status) == (State.REJECTED, 413)
    assert "too large" in row.reason
    assert archive.files == [".dcm"]
    await archive.desk.hears(0)


async def test_without_retries_a_failed_upload_ends_the_message_as_failed(archive: Archive) -> None:
    archive.desk.open(dataclasses.replace(PACS, retry=RetryPolicy(mode=RetryMode.NONE)))
    archive.server.trouble = [LinkError("the server is away")]
    archive.arrives()
    await archive.desk.bell.until(lambda: not archive.server.trouble and archive.said == [""])
    await archive.desk.stored()
    row = await archive.desk.row(_name(archive), channel="pacs")
    assert row.state is State.FAILED
    assert archive.files == [".dcm"]


async def test_many_objects_go_side_by_side(archive: Archive) -> None:
    for number in range(50):
        archive.arrives(b"object %d" % number)
    assert await archive.answers(50) == [""] * 50
    frames = await archive.desk.hears(50)
    references = {json.loads(frame.body or "")["binary"]["reference"] for frame in frames}
    assert len(references) == 50


async def test_a_gap_between_messages_begins_when_one_goes_and_not_when_its_object_does(archive: Archive) -> None:
    archive.desk.open(dataclasses.replace(PACS, messages_per_min=60))
    archive.arrives()
    archive.arrives()
    await archive.desk.hears(1)
    assert await archive.answers(2) == ["", ""]
    archive.desk.clock.s += 1
    archive.desk.dispatcher.pump()
    await archive.desk.bell.until(lambda: len(archive.server.contents) == 2)
    archive.desk.clock.s += 1
    await archive.desk.stored()
    archive.desk.dispatcher.pump()
    await archive.desk.hears(2)


async def test_what_waits_is_uploaded_after_a_restart(tmp_path: Path) -> None:
    async with an_archive(tmp_path) as archive:
        archive.desk.server.live = archive.desk.server.writable = False
        archive.arrives()
        assert await archive.answers() == [""]
    async with an_archive(tmp_path) as archive:
        (frame,) = await archive.desk.hears(1)
        assert json.loads(frame.body or "")["binary"] == {"reference": "Binary/1"}
        assert archive.server.contents == [b"object"]


async def test_a_full_disk_refuses_the_object_and_leaves_nothing_of_it(tmp_path: Path) -> None:
    disk = SickDisk("full-for-objects")
    async with an_archive(tmp_path, vfs=disk.name) as archive:
        disk.full = True
        archive.arrives()
        (why,) = await archive.answers()
        assert "disk is full" in why
        archive.arrives()
        _, again = await archive.answers(2)
        assert "disk is full" in again
        disk.full = False
        await archive.files_are([".part"])  # the second one's: who wrote it deletes it


async def test_facts_that_no_frame_of_the_server_takes_refuse_the_object(archive: Archive) -> None:
    archive.desk.intakes.clear()
    archive.desk.limits = Limits(frame_bytes=64)
    archive.desk.open(PACS)
    archive.arrives()
    (why,) = await archive.answers()
    assert "more than the server takes" in why


async def _pumped(archive: Archive, so: object) -> None:
    archive.desk.dispatcher.pump()
    await archive.desk.bell.until(so)  # type: ignore[arg-type]


def _name(archive: Archive) -> str:
    (name,) = {path.stem for path in archive.folder.glob("*.dcm")}
    return name
