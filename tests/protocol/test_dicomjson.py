"""What a server reads about a DICOM object."""

from __future__ import annotations

import base64
import io
import json
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pydicom
import pytest
from dicom_data import an_image, file_of, items
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from agent.protocol.dicomjson import SHOWN_BYTES, about, dataset_json, file_head, transmit_body

RECORDED = Path(__file__).parent.parent / "data" / "recorded_dicom_object.json"
SYNTAXES = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)


def told(file: io.BytesIO, *, whole: bool = True) -> dict[str, Any]:
    found = dataset_json(file)
    assert found.whole is whole
    content = json.loads(found.text)
    assert isinstance(content, dict)
    return content


# The body, and the head of a file


def test_a_body_has_association_data_set_and_binary_in_this_order() -> None:
    stored = about("GOLDENSCU", "MEDPLUM", b'{"00080060":{"vr":"CS","Value":["OT"]}}')
    body = transmit_body(stored, "Binary/6257fafc-da22-4176-962d-aafc3a8ddc3a")
    assert body == (
        '{"association":{"callingAeTitle":"GOLDENSCU","calledAeTitle":"MEDPLUM"},'
        '"dataset":{"00080060":{"vr":"CS","Value":["OT"]}},'
        '"binary":{"reference":"Binary/6257fafc-da22-4176-962d-aafc3a8ddc3a"}}'
    )


@given(st.text(), st.text(), st.text())
def test_whatever_the_titles_are_the_body_is_json(calling: str, called: str, reference: str) -> None:
    if any("\ud800" <= character <= "\udfff" for character in calling + called + reference):
        return
    body = json.loads(transmit_body(about(calling, called, b"{}"), reference))
    assert body["association"] == {"callingAeTitle": calling, "calledAeTitle": called}
    assert body["binary"] == {"reference": reference}


def test_a_head_makes_a_file_that_pydicom_reads() -> None:
    head = file_head(sop_class_uid="1.2.3", sop_instance_uid="1.2.3.44", transfer_syntax=ExplicitVRLittleEndian)
    read = pydicom.dcmread(io.BytesIO(head + b"\x08\0\x60\0CS\2\0OT"))
    assert read.file_meta.MediaStorageSOPClassUID == "1.2.3"
    assert read.file_meta.MediaStorageSOPInstanceUID == "1.2.3.44"
    assert read.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert read.file_meta.FileMetaInformationGroupLength == len(head) - 144
    assert read.Modality == "OT"


def test_a_recorded_object_is_told_as_the_recording_tells_it() -> None:
    recording = json.loads(RECORDED.read_text())
    file = base64.b64decode(recording["file"]) + bytes(recording["pixels"])
    recorded = recording["dataset"]
    for element in recorded.values():
        element.pop("_rawValue", None)
    recorded["00020001"] = {"vr": "OB", "InlineBinary": "AAE="}  # the recorded agent loses it
    assert told(io.BytesIO(file)) == recorded


# Data sets


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("undefined", [False, True])
def test_every_transfer_syntax_says_the_same(syntax: str, undefined: bool) -> None:
    inner = Dataset()
    inner.CodeValue, inner.PatientName = "a", "Jörg"
    code = Dataset()
    code.ConceptNameCodeSequence = items(inner, undefined=undefined)
    code.TextValue = "x" * 70_000  # makes the sequence a large value too
    code.add_new(0x00091010, "OB", bytes(5_000))
    empty = Dataset()
    sent = an_image(SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Jörg", WindowCenter="1.5")
    sent.ReferencedStudySequence = items(code, empty, undefined=undefined)
    sent["ReferencedStudySequence"].is_undefined_length = undefined
    sent.add_new(0x00280106, "US", 7)

    content = told(file_of(sent, syntax))

    assert content["00100010"] == {"vr": "PN", "Value": [{"Alphabetic": "Müller^Jörg"}]}
    assert content["00281050"] == {"vr": "DS", "Value": [1.5]}
    assert content["00280106"] == {"vr": "US", "Value": [7]}
    [first, second] = content["00081110"]["Value"]
    assert first == {
        "0040A043": {
            "vr": "SQ",
            "Value": [
                {
                    "00080100": {"vr": "SH", "Value": ["a"]},
                    "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Jörg"}]},
                }
            ],
        }
    }
    assert second == {}
    assert content["00020010"] == {"vr": "UI", "Value": [syntax]}
    assert "7FE00010" not in content


def test_bulk_data_is_left_out_and_short_binary_values_stay() -> None:
    sent = an_image()
    sent.add_new(0x00091010, "OB", b"\1" * 1024)
    sent.add_new(0x00091011, "OB", b"\1" * 1026)
    sent.add_new(0x00091012, "UN", b"ab")
    content = told(file_of(sent))
    assert content["00091012"] == {"vr": "UN", "InlineBinary": "YWI="}
    assert "00091010" in content
    assert "00091011" not in content


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_bulk_data_is_left_out_of_items_too(syntax: str) -> None:
    item = Dataset()
    item.add_new(0x54001010, "OW", bytes(4_000))
    item.WaveformSampleInterpretation = "SS"
    content = told(file_of(an_image(WaveformSequence=items(item)), syntax))
    assert content["54000100"]["Value"] == [{"54001006": {"vr": "CS", "Value": ["SS"]}}]


def test_a_data_set_that_would_not_go_into_a_frame_loses_its_largest_elements() -> None:
    frames = []
    for number in range(14_000):
        frame = Dataset()
        frame.InStackPositionNumber = number
        frames.append(frame)
    sent = an_image(PerFrameFunctionalGroupsSequence=items(*frames))
    found = dataset_json(file_of(sent))
    assert len(json.dumps(found.text.decode())) < SHOWN_BYTES * 1.1
    content = json.loads(found.text)
    assert "52009230" not in content
    assert content["00100020"]["Value"] == ["PATID1234"]


def test_values_that_json_does_not_know_are_left_out_and_that_is_said() -> None:
    content = told(file_of(an_image(ExaminedBodyThickness=None, DistanceSourceToDetector="1.5")))
    assert content["00181110"] == {"vr": "DS", "Value": [1.5]}
    sent = an_image()
    sent.add_new(0x00189073, "FD", float("nan"))
    content = told(file_of(sent), whole=False)
    assert "00189073" not in content
    assert content["00100020"]["Value"] == ["PATID1234"]


def test_an_element_that_cannot_be_read_does_not_take_the_others_with_it() -> None:
    file = file_of(an_image(InstanceNumber="7"))
    broken = file.getvalue().replace(b"IS\x02\x007 ", b"IS\x02\x00?!")
    content = told(io.BytesIO(broken), whole=False)
    assert "00200013" not in content
    assert content["00280010"]["Value"] == [64]


def test_a_file_that_ends_too_early_tells_what_came_before() -> None:
    file = file_of(an_image()).getvalue()
    content = told(io.BytesIO(file[:-3000]), whole=False)
    assert content["00280010"]["Value"] == [64]


@pytest.mark.parametrize("content", [b"", b"no dicom at all", bytes(128) + b"DICM", bytes(200)])
def test_what_is_no_file_of_dicom_has_no_elements(content: bytes) -> None:
    assert told(io.BytesIO(content), whole=False) == {}


def test_many_threads_at_once_warn_nobody_and_leave_warnings_as_they_were(recwarn: pytest.WarningsRecorder) -> None:
    sent = b"\x08\0\x05\0CS\x0c\0NO SUCH SET \x10\0\x10\0PN\x0e\0EVERYMAN^ADAM\xe9\x10\0\x30\x10DS\x04\0ADAM" * 50
    file = file_head(sop_class_uid="1.2", sop_instance_uid="1.2.3", transfer_syntax=ExplicitVRLittleEndian) + sent
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: dataset_json(io.BytesIO(file)), range(64)))
    assert len(set(found)) == 1
    assert warnings.filters == before
    assert recwarn.list == []


@given(st.binary(max_size=300), st.sampled_from(SYNTAXES))
def test_whatever_comes_there_is_json(content: bytes, syntax: str) -> None:
    head = file_head(sop_class_uid="1.2", sop_instance_uid="1.2.3", transfer_syntax=syntax)
    found = dataset_json(io.BytesIO(head + content))
    assert json.loads(found.text)["00020003"]["Value"] == ["1.2.3"]


@given(st.integers(0, 3000), st.binary(min_size=1, max_size=8), st.sampled_from(SYNTAXES))
def test_however_a_file_is_damaged_there_is_json(at: int, damage: bytes, syntax: str) -> None:
    item = Dataset()
    item.CodeValue = "a"
    file = bytearray(file_of(an_image(ReferencedStudySequence=items(item, undefined=True)), syntax).getvalue())
    file[at : at + len(damage)] = damage
    assert isinstance(json.loads(dataset_json(io.BytesIO(bytes(file))).text), dict)
