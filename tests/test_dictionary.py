"""The names of a message's parts, as people read them; whatever is asked for, nothing raises."""

from __future__ import annotations

import subprocess
import sys

import hl7apy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.dictionary import (
    component_name,
    field_name,
    is_data_type,
    is_set_id,
    segment_name,
    subcomponent_name,
)

VERSIONS = sorted(hl7apy.SUPPORTED_LIBRARIES)


def segments_of(version: str) -> set[str]:
    return {name for name in hl7apy.load_library(version).SEGMENTS if len(name) == 3}


def test_a_place_has_a_name_at_each_depth() -> None:
    assert segment_name("2.5.1", "PID") == "Patient Identification"
    assert field_name("2.5.1", "PID", 3) == "Patient Identifier List"
    assert component_name("2.5.1", "PID", 3, 1) == "ID Number"
    assert subcomponent_name("2.5.1", "PID", 5, 1, 1) == "Surname"


def test_the_version_of_the_message_decides() -> None:
    assert field_name("2.2", "PID", 3) == "Patient ID Internal ID"
    assert field_name("2.8.2", "PID", 3) == "Patient Identifier List"
    assert (segment_name("2.2", "SPM"), segment_name("2.5", "SPM")) == ("", "Specimen")


@pytest.mark.parametrize("version", VERSIONS)
def test_every_segment_of_every_version_has_a_name(version: str) -> None:
    assert [name for name in segments_of(version) if not segment_name(version, name)] == []


@pytest.mark.parametrize("version", VERSIONS)
def test_nearly_every_field_of_every_version_has_a_name(version: str) -> None:
    fields = [name.rpartition("_") for name in hl7apy.load_library(version).FIELDS]
    nameless = [name for name in fields if not field_name(version, name[0], int(name[2]))]
    assert len(nameless) <= 1  # hl7apy forgot one in 2.3.1 and one in 2.4


@pytest.mark.parametrize(
    ("said", "like"),
    [
        ("2.5.1^DEU^2.6", "2.5.1"),
        ("v2.4", "2.4"),
        ("2.4.1", "2.4"),
        ("2.9", "2.8.2"),
        ("3.0", "2.8.2"),
        ("1.9", "2.1"),
        ("", "2.5.1"),
        ("two", "2.5.1"),
    ],
)
def test_a_version_that_nobody_knows_is_read_as_the_nearest(said: str, like: str) -> None:
    known = segments_of(like)
    for segment in {name for version in VERSIONS for name in segments_of(version)}:
        assert bool(segment_name(said, segment)) == (segment in known)
    assert field_name(said, "PID", 2) == field_name(like, "PID", 2)


def test_what_a_site_made_up_has_no_name() -> None:
    assert segment_name("2.5.1", "ZPI") == ""
    assert field_name("2.5.1", "ZPI", 1) == ""
    assert field_name("2.5.1", "PID", 99) == ""
    assert component_name("2.5.1", "PID", 3, 99) == ""
    assert component_name("2.5.1", "PID", 8, 1) == ""  # a field that has no parts


@pytest.mark.parametrize(
    ("place", "name"),
    [
        (("2.5.1", "PID", 1), "Set ID"),
        (("2.5.1", "MSH", 7), "Date/Time of Message"),
        (("2.5.1", "PID", 19), "SSN Number Patient"),
        (("2.5.1", "OBR", 10), "Collector Identifier"),
        (("2.5.1", "PV1", 44), "Admit Date/Time"),
        (("2.5.1", "DRG", 1), "Diagnostic Related Group"),
    ],
)
def test_names_are_spelt_as_people_write_them(place: tuple[str, str, int], name: str) -> None:
    assert field_name(*place) == name


def test_the_parts_of_an_observation_are_named_by_its_own_data_type() -> None:
    assert component_name("2.5.1", "OBX", 5, 4, data_type="ED") == "Encoding"
    assert component_name("2.5.1", "OBX", 5, 2, data_type="CE") == "Text"
    assert component_name("2.5.1", "OBX", 5, 2) == ""
    assert component_name("2.5.1", "OBX", 5, 2, data_type="no such type") == ""
    # any other field has a data type of its own, and OBX-2 does not speak of it
    assert component_name("2.5.1", "OBX", 3, 2, data_type="ED") == "Text"


def test_set_ids_and_data_types_are_told_from_what_a_person_may_be_called() -> None:
    assert is_set_id("2.5.1", "PID")
    assert not is_set_id("2.5.1", "EVN")
    assert not is_set_id("2.5.1", "ZPI")
    assert all(is_data_type("2.5.1", name) for name in ("ST", "NM", "CE", "ED", "TX", "FT"))
    assert not any(is_data_type("2.5.1", name) for name in ("", "varies", "SMITH", "JO"))


@given(st.text(), st.text(), st.integers(), st.integers(), st.integers(), st.text())
def test_nothing_that_a_message_says_raises(
    version: str, segment: str, field: int, component: int, subcomponent: int, data_type: str
) -> None:
    segment_name(version, segment)
    field_name(version, segment, field)
    component_name(version, segment, field, component, data_type=data_type)
    subcomponent_name(version, segment, field, component, subcomponent, data_type=data_type)
    is_set_id(version, segment)
    is_data_type(version, segment)


def run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip()


def test_hl7apy_is_not_imported_before_a_name_is_asked_for() -> None:
    program = (
        "import sys; import agent.dictionary as d; before = 'hl7apy' in sys.modules;"
        " d.field_name('2.5', 'PID', 3); print(before, 'hl7apy' in sys.modules)"
    )
    assert run(program) == "False True"


def test_without_hl7apy_there_are_no_names_and_no_error() -> None:
    program = (
        "import sys; sys.modules['hl7apy'] = None; import agent.dictionary as d;"
        " print([d.segment_name('2.5', 'PID'), d.field_name('2.5', 'PID', 3), d.is_set_id('2.5', 'PID')])"
    )
    assert run(program) == "['', '', False]"
