"""A DICOM channel and real modalities: what is kept, what they hear, and who may come in."""

from __future__ import annotations

import asyncio
import json
import socket
from ipaddress import ip_network
from pathlib import Path

import psutil
import pydicom
import pytest
from certificates import Authority
from dicom_far_ends import an_object, archive, as_file, modality, run, stores
from net_far_ends import on_both_loops
from pydicom.encaps import encapsulate
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    MRImageStorage,
    SecondaryCaptureImageStorage,
)
from pynetdicom.sop_class import Verification

from agent.net.tls import Identity
from agent.protocol.forensics import Oddity
from agent.spec import Dicom, LineSpec

FIND = "1.2.840.10008.5.1.4.1.2.1.1"
PRIVATE, UNHEARD_OF = "1.2.276.0.99999.1", "1.2.840.10008.5.1.4.1.1.99999"


# What comes


async def test_an_echo_is_answered(tmp_path: Path) -> None:
    async with archive(tmp_path / "objects") as ward:
        code, said = await run("echoscu", "-v", "127.0.0.1", ward.inlet.port)
        assert code == 0, said
        assert "Received Echo Response (Success)" in said
    assert ward.objects == []


@on_both_loops
async def test_an_object_of_dcmtk_is_a_file_on_disk_before_it_is_acknowledged(tmp_path: Path) -> None:
    sent = an_object(PatientName="Müller^Jörg", SpecificCharacterSet="ISO_IR 100")
    async with archive(tmp_path / "objects") as ward:
        code, said = await run(
            "storescu", "-v", "-aet", "CT1", "-aec", "PACS", "127.0.0.1", ward.inlet.port, as_file(sent, tmp_path / "x")
        )
        assert code == 0, said
        assert "Received Store Response (Success)" in said

        [received] = ward.objects
        assert (received.calling_ae_title, received.called_ae_title) == ("CT1", "PACS")
        assert (received.sop_class_uid, received.sop_instance_uid) == (sent.SOPClassUID, sent.SOPInstanceUID)
        assert received.remote.startswith("127.0.0.1:")
        assert ward.parts == [received.path]
        assert received.path.suffix == ".part"
        assert received.path.stat().st_size == received.size_bytes
        assert received.path.stat().st_mode & 0o077 == 0
        assert pydicom.dcmread(received.path) == sent
        told = json.loads(received.dataset)
        assert told["00020010"] == {"vr": "UI", "Value": [ExplicitVRLittleEndian]}
        assert told["00100010"] == {"vr": "PN", "Value": [{"Alphabetic": "Müller^Jörg"}]}
        assert told["00280010"] == {"vr": "US", "Value": [64]}
        assert "7FE00010" not in told
        [association] = ward.opened
        assert (association.frames, association.unanswered) == (1, 0)
        await ward.until(lambda: ward.closed == ward.opened)
    assert (ward.turned_away, ward.oddities) == ([], [])


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
)
async def test_each_transfer_syntax_is_kept_as_it_came(tmp_path: Path, syntax: str) -> None:
    sent = an_object()
    file = as_file(sent, tmp_path / "x.dcm", syntax)
    async with archive(tmp_path / "objects") as ward, modality(ward, (SecondaryCaptureImageStorage, syntax)) as scu:
        assert (await stores(scu, file)).Status == 0x0000
        [received] = ward.objects
        kept = pydicom.dcmread(received.path)
        assert kept.file_meta.TransferSyntaxUID == syntax
        assert kept == pydicom.dcmread(file)
        assert json.loads(received.dataset)["00100020"]["Value"] == ["PATID1234"]


async def test_compressed_pixels_are_kept_as_they_came(tmp_path: Path) -> None:
    picture = encapsulate([b"\xff\xd8" + bytes(3000) + b"\xff\xd9"])
    sent = an_object(PixelData=picture)
    sent["PixelData"].is_undefined_length = True
    file = as_file(sent, tmp_path / "x.dcm", JPEGBaseline8Bit)
    async with archive(tmp_path / "objects") as ward:
        code, said = await run("storescu", "-v", "-xy", "127.0.0.1", ward.inlet.port, file)
        assert code == 0, said
        [received] = ward.objects
        assert pydicom.dcmread(received.path).PixelData == picture
        assert set(json.loads(received.dataset)) >= {"00100010", "00280103"}


async def test_every_storage_class_is_taken_also_private_and_future_ones(tmp_path: Path) -> None:
    classes = [CTImageStorage, MRImageStorage, PRIVATE, UNHEARD_OF]
    contexts = [(each, [ExplicitVRLittleEndian, ImplicitVRLittleEndian]) for each in classes]
    async with archive(tmp_path / "objects") as ward, modality(ward, *contexts) as scu:
        for number, each in enumerate(classes):
            assert (await stores(scu, an_object(f"1.2.{number}", SOPClassUID=each))).Status == 0x0000
        assert [received.sop_class_uid for received in ward.objects] == classes


async def test_what_is_no_storage_is_turned_down_and_the_rest_of_the_association_stands(tmp_path: Path) -> None:
    contexts = ((FIND, ImplicitVRLittleEndian), (SecondaryCaptureImageStorage, ExplicitVRLittleEndian))
    async with archive(tmp_path / "objects") as ward, modality(ward, *contexts) as scu:
        assert [context.abstract_syntax for context in scu.accepted_contexts] == [SecondaryCaptureImageStorage]
        assert [context.result for context in scu.rejected_contexts] == [3]
        assert (await stores(scu, an_object())).Status == 0x0000


async def test_echoes_and_objects_share_an_association(tmp_path: Path) -> None:
    contexts = ((Verification, ImplicitVRLittleEndian), (SecondaryCaptureImageStorage, ExplicitVRLittleEndian))
    async with archive(tmp_path / "objects") as ward, modality(ward, *contexts) as scu:
        for number in range(3):
            assert (await asyncio.to_thread(scu.send_c_echo)).Status == 0x0000
            assert (await stores(scu, an_object(f"1.2.{number}"))).Status == 0x0000
        assert ward.opened[0].frames == 3


async def test_two_hundred_megabytes_pass_without_being_in_memory(tmp_path: Path) -> None:
    file = as_file(an_object(), tmp_path / "x.dcm")
    size = 200 * 1024 * 1024
    with file.open("r+b") as growing:  # the pixels are the last element: its length, and then zeros
        growing.seek(-64 * 64 - 4, 2)
        growing.write(size.to_bytes(4, "little"))
        growing.truncate(growing.tell() + size)
    process, most = psutil.Process(), 0
    async with archive(tmp_path / "objects") as ward:
        before = process.memory_info().rss
        sending = asyncio.gather(run("storescu", "127.0.0.1", ward.inlet.port, file))
        while not sending.done():
            most = max(most, process.memory_info().rss - before)
            await asyncio.sleep(0.02)
        [(code, said)] = await sending
        assert code == 0, said
        [received] = ward.objects
        assert received.size_bytes > size
        assert "00280010" in json.loads(received.dataset)
    assert most < 48 * 1024 * 1024


async def test_many_modalities_at_once_disturb_each_other_not(tmp_path: Path) -> None:
    files = [as_file(an_object(f"1.2.3.{number}"), tmp_path / f"{number}.dcm") for number in range(12)]
    async with archive(tmp_path / "objects") as ward:
        results = await asyncio.gather(
            *(run("storescu", "127.0.0.1", ward.inlet.port, *files[begin : begin + 3]) for begin in range(0, 12, 3))
        )
        assert [code for code, _ in results] == [0, 0, 0, 0]
        assert {received.sop_instance_uid for received in ward.objects} == {f"1.2.3.{number}" for number in range(12)}
        assert len(ward.parts) == 12


# Who may come in


async def test_another_called_ae_title_is_rejected_as_not_recognized(tmp_path: Path) -> None:
    async with archive(tmp_path / "objects", wire=Dicom(ae_title="PACS")) as ward:
        code, said = await run("echoscu", "-v", "-aec", "OTHER", "127.0.0.1", ward.inlet.port)
        assert code != 0
        assert "Result: Rejected Permanent, Source: Service User" in said
        assert "Reason: Called AE Title Not Recognized" in said
        assert [oddity for _, oddity in ward.turned_away] == [Oddity.AE_TITLE]
        assert ward.opened == []
        assert (await run("echoscu", "-aec", "PACS", "127.0.0.1", ward.inlet.port))[0] == 0


async def test_another_calling_ae_title_is_rejected_as_not_recognized(tmp_path: Path) -> None:
    async with archive(tmp_path / "objects", wire=Dicom(calling=("CT1", "MR1"))) as ward:
        _, said = await run("echoscu", "-v", "-aet", "CT9", "127.0.0.1", ward.inlet.port)
        assert "Reason: Calling AE Title Not Recognized" in said
        assert (await run("echoscu", "-aet", "MR1", "127.0.0.1", ward.inlet.port))[0] == 0


async def test_new_titles_hold_from_the_next_association_on(tmp_path: Path) -> None:
    async with archive(tmp_path / "objects") as ward, modality(ward, called="OLD") as scu:
        ward.inlet.wire = Dicom(ae_title="NEW")
        assert (await stores(scu, an_object())).Status == 0x0000
        assert (await run("echoscu", "-aec", "OLD", "127.0.0.1", ward.inlet.port))[0] != 0
        assert (await run("echoscu", "-aec", "NEW", "127.0.0.1", ward.inlet.port))[0] == 0


async def test_one_association_too_many_is_told_so_and_the_others_go_on(tmp_path: Path) -> None:
    async with (
        archive(tmp_path / "objects", line=LineSpec(max_connections=1)) as ward,
        modality(ward) as scu,
    ):
        _, said = await run("echoscu", "-v", "127.0.0.1", ward.inlet.port)
        assert "Result: Rejected Transient, Source: Service Provider (Presentation Related)" in said
        assert "Reason: Local Limit Exceeded" in said
        assert [oddity for _, oddity in ward.turned_away] == [Oddity.TOO_MANY]
        assert (await stores(scu, an_object())).Status == 0x0000


async def test_a_host_that_is_not_allowed_is_not_answered(tmp_path: Path) -> None:
    line = LineSpec(allow=(ip_network("10.0.0.0/8"),))
    async with archive(tmp_path / "objects", line=line) as ward:
        assert (await run("echoscu", "127.0.0.1", ward.inlet.port))[0] != 0
        assert [oddity for _, oddity in ward.turned_away] == [Oddity.NOT_ALLOWED]


async def test_both_families_reach_it(tmp_path: Path) -> None:
    async with archive(tmp_path / "objects", host="::") as ward:
        assert (await run("echoscu", "127.0.0.1", ward.inlet.port))[0] == 0
        assert ward.opened[0].peer == "127.0.0.1"


async def test_tls_is_spoken_where_the_channel_has_a_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    identity = Identity.load(authority.issue().spec(), dials=False)
    file = as_file(an_object(), tmp_path / "x.dcm")
    async with archive(tmp_path / "objects", identity=identity) as ward:
        certificate = "+cf", authority.file
        code, said = await run("storescu", "-v", "+tla", *certificate, "127.0.0.1", ward.inlet.port, file)
        assert code == 0, said
        assert len(ward.objects) == 1
        assert (await run("echoscu", "127.0.0.1", ward.inlet.port))[0] != 0
        assert [oddity for _, oddity in ward.turned_away] == [Oddity.PLAIN_ON_TLS]


@pytest.mark.parametrize(
    ("first", "oddity"),
    [
        (b"GET / HTTP/1.1\r\nHost: pacs\r\n\r\n", Oddity.HTTP),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", Oddity.TLS_ON_PLAIN),
        (b"\x0bMSH|^~\\&|A|B\r\x1c\r", Oddity.NOT_DICOM),
        (b"\x01\x00\xff\xff\xff\xff", Oddity.NOT_DICOM),
        (b"\x04\x00\x00\x00\x00\x00", Oddity.NOT_DICOM),
        (b"\x01\x00\x00\x00\x00\x44" + bytes(68), Oddity.NOT_DICOM),
        (b"", Oddity.PROBE),
    ],
)
async def test_what_is_no_dicom_is_sent_away_and_named(tmp_path: Path, first: bytes, oddity: Oddity) -> None:
    async with archive(tmp_path / "objects") as ward:
        reader, writer = await asyncio.open_connection("127.0.0.1", ward.inlet.port)
        writer.write(first)
        if not first:
            writer.close()
        await ward.until(lambda: ward.turned_away)
        assert [each for _, each in ward.turned_away] == [oddity]
        assert not first or (await reader.read())[:1] == b"\x07"
        writer.close()
        assert ward.opened == []


# Coming to an end


async def test_a_port_is_free_at_once_and_associations_live_on(tmp_path: Path) -> None:
    async with archive(tmp_path / "objects") as ward, modality(ward) as scu:
        port = ward.inlet.port
        assert ward.inlet.listening
        ward.inlet.stop_accepting()
        assert not ward.inlet.listening
        with socket.create_server(("127.0.0.1", port)):
            assert (await stores(scu, an_object())).Status == 0x0000


async def test_a_silent_association_is_ended_after_the_idle_timeout(tmp_path: Path) -> None:
    line = LineSpec(idle_timeout_s=60.0)
    async with archive(tmp_path / "objects", line=line) as ward, modality(ward) as scu:
        ward.sweep(after_s=59.0)
        assert (await stores(scu, an_object())).Status == 0x0000
        ward.sweep(after_s=61.0)
        await ward.until(lambda: ward.closed)
        assert ward.oddities == [Oddity.IDLE]
        await asyncio.to_thread(scu.join, 10.0)
        assert scu.is_aborted


async def test_dismissed_associations_end_and_the_modality_is_told(tmp_path: Path) -> None:
    async with archive(tmp_path / "objects") as ward, modality(ward) as scu:
        await ward.inlet.dismiss(ward.inlet.connections, drain_s=5.0)
        assert ward.closed == ward.opened
        await asyncio.to_thread(scu.join, 10.0)
        assert scu.is_aborted


async def test_an_association_that_was_never_asked_for_ends_with_the_inlet(tmp_path: Path) -> None:
    async with archive(tmp_path / "objects") as ward:
        reader, writer = await asyncio.open_connection("127.0.0.1", ward.inlet.port)
        await ward.until(lambda: ward.inlet.arriving)
    assert await reader.read() == b""
    writer.close()
    assert ward.turned_away == []
