"""A DICOM channel when something breaks: what modalities hear, and that nothing is kept by halves or lost."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from dicom_far_ends import Archive, an_object, archive, as_file, modality, run, stores
from net_far_ends import on_both_loops
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE, ImplementationClassUIDNotification, MaximumLengthNotification
from pynetdicom.presentation import build_context

from agent.net.partfile import PENDING_BYTES, WEIGH_BYTES
from agent.protocol import dicomlink as link
from agent.protocol.forensics import Oddity
from agent.spec import LineSpec


class Bytes:
    """A modality that sends what it is told to, right or wrong."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def command(self, field: int = link.C_STORE, *, data_set: bool = True, uid: bytes = b"1.2.3\0") -> None:
        elements = b"".join(
            tag.to_bytes(4, "little")[2:] + tag.to_bytes(4, "little")[:2] + len(value).to_bytes(4, "little") + value
            for tag, value in [
                (0x0002, b"1.2.840.10008.5.1.4.1.1.7\0"),
                (0x0100, field.to_bytes(2, "little")),
                (0x0110, b"\1\0"),
                (0x0800, b"\0\0" if data_set else b"\1\1"),
                (0x1000, uid),
            ]
        )
        self.fragment(3, elements)

    def fragment(self, control: int, data: bytes, context: int = 1) -> None:
        value = (len(data) + 2).to_bytes(4, "big") + bytes((context, control)) + data
        self.writer.write(link.pdu(link.Pdu.P_DATA, value))

    async def hears(self) -> tuple[int, bytes]:
        """Type and content of the next PDU."""
        async with asyncio.timeout(30):
            head = await self.reader.readexactly(6)
            return head[0], await self.reader.readexactly(int.from_bytes(head[2:], "big"))

    async def hears_status(self) -> int:
        kind, content = await self.hears()
        assert kind == link.Pdu.P_DATA
        at = content.index(b"\0\0\0\x09\x02\0\0\0") + 8
        return int.from_bytes(content[at : at + 2], "little")


@asynccontextmanager
async def associated(ward: Archive) -> AsyncIterator[Bytes]:
    request = A_ASSOCIATE()
    request.application_context_name = "1.2.840.10008.3.1.1.1"
    request.calling_ae_title, request.called_ae_title = "ROUGH", "ARCHIVE"
    context = build_context(SecondaryCaptureImageStorage, ExplicitVRLittleEndian)
    context.context_id = 1
    request.presentation_context_definition_list = [context]
    length, uid = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received, uid.implementation_class_uid = 16_382, "1.2.3"
    request.user_information = [length, uid]
    pdu = A_ASSOCIATE_RQ()
    pdu.from_primitive(request)
    reader, writer = await asyncio.open_connection("127.0.0.1", ward.inlet.port)
    writer.write(pdu.encode())
    peer = Bytes(reader, writer)
    assert (await peer.hears())[0] == link.Pdu.ASSOCIATE_AC
    try:
        yield peer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


# The middle of an object


@pytest.mark.parametrize("goodbye", ["abort", "close", "reset"])
async def test_an_object_that_breaks_off_leaves_nothing_behind(tmp_path: Path, goodbye: str) -> None:
    async with archive(tmp_path / "objects") as ward:
        async with associated(ward) as peer:
            peer.command()
            peer.fragment(0, bytes(100_000))
            await ward.until(lambda: ward.parts)
            if goodbye == "abort":
                peer.writer.write(link.abort())
            elif goodbye == "reset":
                peer.writer.transport.abort()
        await ward.until(lambda: ward.closed)
        await ward.until(lambda: not ward.parts)
    assert ward.objects == []


async def test_an_object_that_stands_still_is_given_up(tmp_path: Path) -> None:
    line = LineSpec(frame_timeout_s=120.0, max_message_bytes=0)
    async with archive(tmp_path / "objects", line=line) as ward, associated(ward) as peer:
        peer.command()
        peer.fragment(0, bytes(1000))
        await ward.until(lambda: ward.opened[0].evidence(0, over=False).open_bytes)
        ward.sweep(after_s=119.0)
        assert ward.oddities == []
        ward.sweep(after_s=121.0)
        assert ward.oddities == [Oddity.TOO_SLOW]
        assert (await peer.hears())[0] == link.Pdu.ABORT
        await ward.until(lambda: ward.closed and not ward.parts)
    assert ward.objects == []


@pytest.mark.parametrize(
    "wrong",
    [
        lambda peer: peer.fragment(0, b"data without a command"),
        lambda peer: (peer.command(), peer.command()),
        lambda peer: peer.fragment(3, b"\x08\0\x10\0\2\0\0\0no"),
        lambda peer: peer.fragment(3, b"\0\0"),
        lambda peer: peer.fragment(3, b"", context=9),
        lambda peer: peer.command(link.C_STORE | link.RESPONSE),
        lambda peer: peer.fragment(1, bytes(70_000)),
        lambda peer: peer.writer.write(b"\x04\0\0\0\0\x04\0\0\0\x09"),
        lambda peer: peer.writer.write(b"\x09\0\0\0\0\0"),
        lambda peer: peer.writer.write(link.released()),
    ],
)
async def test_whoever_breaks_the_protocol_is_aborted_and_the_next_one_is_served(tmp_path: Path, wrong: object) -> None:
    async with archive(tmp_path / "objects") as ward:
        async with associated(ward) as peer:
            wrong(peer)  # type: ignore[operator]
            assert (await peer.hears())[0] == link.Pdu.ABORT
        await ward.until(lambda: ward.closed and not ward.parts)
        assert (await run("echoscu", "127.0.0.1", ward.inlet.port))[0] == 0
    assert ward.objects == []


async def test_requests_that_cannot_be_done_are_answered_with_their_status(tmp_path: Path) -> None:
    async with archive(tmp_path / "objects") as ward, associated(ward) as peer:
        peer.command(data_set=False)
        assert await peer.hears_status() == link.CANNOT_UNDERSTAND
        peer.command(uid=b"")
        peer.fragment(2, bytes(100))
        assert await peer.hears_status() == link.CANNOT_UNDERSTAND
        peer.command(0x0020)
        peer.fragment(2, bytes(100))
        assert await peer.hears_status() == link.UNRECOGNIZED_OPERATION
        peer.command(link.C_ECHO, data_set=False)
        assert await peer.hears_status() == link.CLASS_NOT_SUPPORTED
        peer.command(link.C_CANCEL, data_set=False)
        peer.command()
        peer.fragment(2, b"no elements")
        assert await peer.hears_status() == link.SUCCESS
        assert len(ward.parts) == 1


async def test_what_cannot_be_read_is_kept_all_the_same(tmp_path: Path) -> None:
    async with archive(tmp_path / "objects") as ward, associated(ward) as peer:
        peer.command()
        peer.fragment(0, b"\x08\0\x60\0CS\2\0OT" + b"\x10\0\x10\0??")
        peer.fragment(2, b"garbage")
        assert await peer.hears_status() == link.SUCCESS
        [received] = ward.objects
        assert received.path.read_bytes().endswith(b"??garbage")
        assert b'"00020003":{"vr":"UI","Value":["1.2.3"]}' in received.dataset
        assert b'"00080060":{"vr":"CS","Value":["OT"]}' in received.dataset


async def test_the_console_hears_nothing_of_what_modalities_send(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    elements = b"\x08\0\x05\0CS\x0c\0NO SUCH SET " + b"\x10\0\x10\0PN\x0e\0EVERYMAN^ADAM\xe9"
    elements += b"\x10\0\x30\x10DS\x0e\0EVERYMAN^ADAM " + b"\x10\0\x40\0CS\x0e\0everyman^adam!"
    async with archive(tmp_path / "objects") as ward, associated(ward) as peer:
        peer.command(uid=b"01.no uid at all")
        peer.fragment(2, elements)
        assert await peer.hears_status() == link.SUCCESS
        assert b"EVERYMAN^ADAM" in ward.objects[0].dataset
        assert ward.objects[0].sop_instance_uid == "01.no uid at all"
    heard = capfd.readouterr()
    assert heard.out + heard.err == ""
    assert recwarn.list == []


# The disk


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file of this process may grow beyond a megabyte."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_no_object_is_handed_over_before_it_is_on_the_platter(tmp_path: Path) -> None:
    on_the_platter = threading.Event()
    async with archive(tmp_path / "objects") as ward, associated(ward) as peer:
        ward.inlet.sync = lambda _: on_the_platter.wait() and None
        peer.command()
        peer.fragment(2, bytes(100))
        await ward.until(lambda: ward.opened[0].frames)
        assert (await run("echoscu", "127.0.0.1", ward.inlet.port))[0] == 0
        assert ward.objects == []
        on_the_platter.set()
        assert await peer.hears_status() == link.SUCCESS
        assert len(ward.objects) == 1


async def test_an_object_that_is_on_the_platter_too_late_is_deleted_and_nobody_hears_of_it(tmp_path: Path) -> None:
    on_the_platter = threading.Event()
    async with archive(tmp_path / "objects") as ward:
        ward.inlet.sync = lambda _: on_the_platter.wait() and None
        async with associated(ward) as peer:
            peer.command()
            peer.fragment(2, bytes(100))
            await ward.until(lambda: ward.opened[0].frames)
            ward.opened[0].close()
            assert await peer.hears_status() == link.OUT_OF_RESOURCES
        await ward.until(lambda: ward.closed)
        assert len(ward.parts) == 1
        on_the_platter.set()
        await ward.until(lambda: not ward.parts)
    assert ward.objects == []


async def test_what_cannot_be_brought_to_the_platter_is_refused(tmp_path: Path) -> None:
    def fails(_: int) -> None:
        raise OSError(5, "Input/output error")

    async with archive(tmp_path / "objects") as ward, modality(ward) as scu:
        ward.inlet.sync = fails
        answer = await stores(scu, an_object())
        assert (answer.Status, answer.ErrorComment) == (0xA700, "not stored: Input/output error")
        await ward.until(lambda: not ward.parts)
    assert ward.objects == []


@pytest.mark.usefixtures("small_files")
async def test_a_disk_that_takes_no_more_refuses_the_object_and_keeps_no_part(tmp_path: Path) -> None:
    async with archive(tmp_path / "objects") as ward, modality(ward) as scu:
        answer = await stores(scu, an_object(PixelData=bytes(3_000_000)))
        assert answer.Status == 0xA700
        assert answer.ErrorComment == "not stored: File too large"
        await ward.until(lambda: not ward.parts)
        assert (await stores(scu, an_object())).Status == 0x0000
    assert len(ward.objects) == 1


async def test_a_folder_that_cannot_be_written_to_refuses_the_object(tmp_path: Path) -> None:
    (tmp_path / "objects").write_text("a file where the folder should be")
    async with archive(tmp_path / "objects" / "in") as ward, modality(ward) as scu:
        answer = await stores(scu, an_object())
        assert answer.Status == 0xA700
        assert answer.ErrorComment.startswith("not stored: ")
        assert ward.objects == []


async def test_a_part_that_vanishes_is_not_acknowledged(tmp_path: Path) -> None:
    async with archive(tmp_path / "objects") as ward, associated(ward) as peer:
        peer.command()
        peer.fragment(0, bytes(100_000))
        await ward.until(lambda: ward.parts)
        ward.parts[0].unlink()
        peer.fragment(2, bytes(100))
        assert await peer.hears_status() == link.OUT_OF_RESOURCES
    assert ward.objects == []


@pytest.mark.parametrize("mends", [True, False])
async def test_a_disk_that_stands_still_holds_up_its_sender_and_nobody_else(tmp_path: Path, mends: bool) -> None:
    mended = threading.Event()
    async with archive(tmp_path / "objects") as ward, associated(ward) as peer:
        peer.command()
        peer.fragment(0, bytes(1000))
        await ward.until(lambda: ward.inlet.writers)
        [writer] = ward.inlet.writers
        writer._orders.put(lambda: mended.wait() and None)
        for _ in range(400):
            peer.fragment(0, bytes(50_000))
        peer.fragment(2, bytes(1000))
        await ward.until(lambda: writer.pending_bytes > PENDING_BYTES)
        assert (await run("echoscu", "127.0.0.1", ward.inlet.port))[0] == 0
        assert writer.pending_bytes < PENDING_BYTES + link.MAX_PDU_BYTES
        if mends:
            mended.set()
            assert await peer.hears_status() == link.SUCCESS
            assert ward.objects[0].size_bytes > 20_002_000
            assert writer.pending_bytes == 0
        else:
            ward.sweep(after_s=119.0)
            assert ward.inlet.connections
            ward.sweep(after_s=121.0)
            await ward.until(lambda: ward.closed)
            mended.set()
            await ward.until(lambda: not ward.parts)
            assert ward.objects == []


async def test_an_object_that_is_too_large_is_refused_and_the_association_stands(tmp_path: Path) -> None:
    line = LineSpec(max_message_bytes=100_000)
    async with archive(tmp_path / "objects", line=line) as ward, modality(ward) as scu:
        answer = await stores(scu, an_object(PixelData=bytes(300_000)))
        assert (answer.Status, answer.ErrorComment) == (0xA700, "this channel takes objects of 100000 bytes at most")
        assert (await stores(scu, an_object())).Status == 0x0000
        assert ward.oddities == [Oddity.TOO_BIG]
        await ward.until(lambda: len(ward.parts) == 1)


# Whoever keeps it


@on_both_loops
async def test_no_success_before_it_is_kept_and_nobody_else_waits(tmp_path: Path) -> None:
    async with archive(tmp_path / "objects") as ward, modality(ward) as scu:
        ward.verdict = None
        answer = asyncio.gather(stores(scu, an_object()))
        await ward.until(lambda: ward.waiting)
        assert ward.opened[0].unanswered == 1
        assert (await run("echoscu", "127.0.0.1", ward.inlet.port))[0] == 0
        assert not answer.done()
        ward.waiting[0]("")
        assert [each.Status for each in await answer] == [0x0000]
        assert ward.opened[0].unanswered == 0


async def test_what_is_not_kept_is_refused_with_the_reason_and_deleted(tmp_path: Path) -> None:
    async with archive(tmp_path / "objects") as ward, modality(ward) as scu:
        ward.verdict = "the disk of the spool is full\\and has been for a while, says the store of this host"
        answer = await stores(scu, an_object())
        assert answer.Status == 0xA700
        assert answer.ErrorComment == "the disk of the spool is full/and has been for a while, says the"[:64]
        await ward.until(lambda: not ward.parts)
        ward.verdict = ""
        assert (await stores(scu, an_object())).Status == 0x0000


async def test_whoever_keeps_nothing_in_time_is_not_waited_for(tmp_path: Path) -> None:
    async with archive(tmp_path / "objects") as ward:
        ward.inlet.kept_within_s = 0.05
        ward.verdict = None
        async with modality(ward) as scu:
            assert (await stores(scu, an_object())).Status == 0xA700
            ward.waiting[0]("")  # late: nobody hears of it
            ward.verdict = ""
            assert (await stores(scu, an_object())).Status == 0x0000


async def test_an_object_that_waits_is_refused_when_the_inlet_closes(tmp_path: Path) -> None:
    async with archive(tmp_path / "objects") as ward:
        ward.verdict = None
        async with associated(ward) as peer:
            peer.command()
            peer.fragment(2, bytes(100))
            await ward.until(lambda: ward.waiting)
            await ward.inlet.close()
            assert await peer.hears_status() == link.OUT_OF_RESOURCES
            assert (await peer.hears())[0] == link.Pdu.ABORT
            for thread in threading.enumerate():
                if thread.name.startswith("dicom:"):
                    thread.join(5.0)
                    assert not thread.is_alive()
            ward.waiting[0]("too late, and refused")
            await ward.until(lambda: not ward.parts)


async def test_the_object_that_comes_is_finished_before_its_association_is_dismissed(tmp_path: Path) -> None:
    async with archive(tmp_path / "objects") as ward, associated(ward) as peer:
        peer.command()
        peer.fragment(0, bytes(1000))
        await ward.until(lambda: ward.parts)
        leaving = asyncio.gather(ward.inlet.dismiss(ward.inlet.connections, drain_s=30.0))
        peer.fragment(2, bytes(1000))
        assert await peer.hears_status() == link.SUCCESS
        assert (await peer.hears())[0] == link.Pdu.ABORT
        await leaving
        assert len(ward.objects) == 1


async def test_a_cut_in_the_middle_of_an_object_leaves_no_part(tmp_path: Path) -> None:
    async with archive(tmp_path / "objects") as ward, associated(ward) as peer:
        peer.command()
        peer.fragment(0, bytes(1000))
        await ward.until(lambda: ward.parts)
        ward.inlet.cut()
        await ward.until(lambda: ward.closed and not ward.parts)
    assert ward.objects == []


async def test_dcmtk_tells_its_user_that_the_object_was_refused(tmp_path: Path) -> None:
    async with archive(tmp_path / "objects") as ward:
        ward.verdict = "no"
        file = as_file(an_object(), tmp_path / "x.dcm")
        code, said = await run("storescu", "-v", "127.0.0.1", ward.inlet.port, file)
        assert code != 0
        assert "Refused: OutOfResources" in said


async def test_an_object_does_not_take_what_the_disk_has_to_spare_for_messages(tmp_path: Path) -> None:
    async with archive(tmp_path / "objects") as ward, modality(ward) as scu:
        ward.inlet.spare_bytes = lambda: 1 << 62
        answer = await stores(scu, an_object())
        assert answer.Status == 0xA700
        assert "No space left" in answer.ErrorComment
        assert (ward.objects, ward.parts) == ([], [])


async def test_a_large_object_is_stopped_when_the_disk_gets_short_in_the_middle_of_it(tmp_path: Path) -> None:
    asked = 0

    def spare() -> int:
        nonlocal asked
        asked += 1
        return 1 if asked == 1 else 1 << 62

    async with archive(tmp_path / "objects") as ward:
        ward.inlet.spare_bytes = spare
        async with modality(ward) as scu:
            answer = await stores(scu, an_object(PixelData=bytes(WEIGH_BYTES + (1 << 20))))
        assert answer.Status == 0xA700
        assert asked == 2
        assert (ward.objects, ward.parts) == ([], [])
