"""What was said about a DICOM object, element by element, and masked for those who must not know the patient."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cli.lines import plain
from agent.cli.message_object import Element, element_segments, object_path, read_about, veiled
from agent.cli.message_view import segment_lines
from agent.protocol import dicomjson
from agent.store.objects import Objects

CT = "1.2.840.10008.5.1.4.1.1.2"
DATASET: dict[str, Any] = {
    "00020010": {"vr": "UI", "Value": ["1.2.840.10008.1.2.1"]},
    "00080016": {"vr": "UI", "Value": [CT]},
    "00080018": {"vr": "UI", "Value": ["1.2.826.0.1.4711"]},
    "00080060": {"vr": "CS", "Value": ["CT"]},
    "00081140": {
        "vr": "SQ",
        "Value": [{"00081155": {"vr": "UI", "Value": [uid]}} for uid in ("1.2.4711.1", "1.2.4711.2")],
    },
    "00091001": {"vr": "UN", "InlineBinary": "AAECAwQFBgc="},
    "00100010": {"vr": "PN", "Value": [{"Alphabetic": "NEMO^ANNA", "Phonetic": "neh-mo"}]},
    "00100020": {"vr": "LO"},
    "00200037": {"vr": "DS", "Value": [1, 0.5, None]},
}  # fmt: skip


def about(dataset: object) -> bytes:
    return dicomjson.about("CT_EAST", "ARCHIVE", json.dumps(dataset).encode())


def read(dataset: object) -> tuple[dict[str, str], list[Element]]:
    found = read_about(about(dataset))
    assert found is not None
    return found


def shown(dataset: object, *, mask: bool = False) -> list[str]:
    association, elements = read(dataset)
    return [
        line.rstrip()
        for line in plain(segment_lines(element_segments(association, elements, mask=mask), None)).splitlines()
    ]


def test_every_element_has_its_tag_keyword_vr_and_value() -> None:
    pytest.importorskip("pydicom")
    lines = [" ".join(line.split()) for line in shown(DATASET)]

    assert lines == [
        "association",
        "calling AE title CT_EAST",
        "called AE title ARCHIVE",
        "dataset",
        "(0002,0010) TransferSyntaxUID UI 1.2.840.10008.1.2.1",
        f"(0008,0016) SOPClassUID UI {CT}",
        "(0008,0018) SOPInstanceUID UI 1.2.826.0.1.4711",
        "(0008,0060) Modality CS CT",
        "(0008,1140) ReferencedImageSequence SQ 2 items",
        "> item 1",
        ">(0008,1155) ReferencedSOPInstanceUID UI 1.2.4711.1",
        "> item 2",
        ">(0008,1155) ReferencedSOPInstanceUID UI 1.2.4711.2",
        "(0009,1001) UN 8 bytes, not shown",
        "(0010,0010) PatientName PN NEMO^ANNA==neh-mo",
        "(0010,0020) PatientID LO",
        "(0020,0037) ImageOrientationPatient DS 1\\0.5\\",
    ]


def test_a_script_tells_elements_of_items_apart() -> None:
    _, elements = read(DATASET)

    paths = {element.path: element.value for element in elements if element.tag}
    assert (paths["00081140[1].00081155"], paths["00081140[2].00081155"]) == ("1.2.4711.1", "1.2.4711.2")


def test_without_the_dictionary_tags_stand_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydicom.datadict", None)

    assert "(0010,0010) PN NEMO^ANNA==neh-mo" in [" ".join(line.split()) for line in shown(DATASET)]


def test_masked_the_kind_of_an_object_is_seen_and_nothing_of_the_patient() -> None:
    lines = "\n".join(shown(DATASET, mask=True))

    for seen in (CT, "1.2.840.10008.1.2.1", "CT_EAST", "2 items", "item 2", "8 bytes, not shown", "XXXX^XXXX==xxx-xx"):
        assert seen in lines
    assert "4711" not in lines
    assert "NEMO" not in lines


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        ("00080060", "NEMO"),
        ("00080016", "1.2.4711"),
        ("00080016", "1.2.840.10008.4711NEMO"),
        ("00100020", CT),
        ("00081030", "8 bytes, not shown"),
        ("00081030", "item 1"),
    ],
)
def test_a_value_in_the_wrong_place_is_masked(tag: str, value: str) -> None:
    (element,) = read({tag: {"vr": "LO", "Value": [value]}})[1]
    assert veiled(element) != value


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=9),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["vr", "Value", "00100010", "InlineBinary", "BulkDataURI", "x\x1b"]), inner
            )
        ),
    )
)
def test_any_json_at_all_can_be_met(dataset: object) -> None:
    found = read_about(about(dataset))
    if not isinstance(dataset, dict):
        assert found is None
        return
    assert found is not None
    for mask in (False, True):
        lines = plain(segment_lines(element_segments(*found, mask=mask), 80))
        assert lines.replace("\n", "").isprintable()


@pytest.mark.parametrize("body", [b"", b"no json", b"[]", b"{}", b'{"association":{}}', b"\xff", b"[" * 100_000])
def test_what_is_no_such_json_is_nothing(body: bytes) -> None:
    assert read_about(body) is None


def test_sequences_in_sequences_without_end_are_no_failure() -> None:
    deep = b'{"00081140":{"vr":"SQ","Value":[' * 2_000 + b"{}" + b"]}}" * 2_000
    assert read_about(dicomjson.about("A", "B", deep)) is None


async def test_the_file_of_an_object_is_found_where_it_is_kept(tmp_path: Path) -> None:
    objects = Objects(tmp_path)
    kept = objects.path_of(4711)
    await objects.close()
    kept.write_bytes(b"object")

    assert object_path(tmp_path, b"4711") == kept
    assert object_path(tmp_path, b"4712") is None


@pytest.mark.parametrize("control_id", [b"", b"../spool", b"4711.dcm", b"\xff", b"9" * 400, "٣".encode()])
def test_a_name_that_is_no_number_leads_nowhere(tmp_path: Path, control_id: bytes) -> None:
    (tmp_path / "3.dcm").touch()
    assert object_path(tmp_path, control_id) is None
