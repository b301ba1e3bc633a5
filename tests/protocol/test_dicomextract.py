"""What is small in a data set is copied, and the rest is not even read."""

from __future__ import annotations

import io

import pytest
from dicom_data import an_image, file_of, items
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.filereader import read_dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGBaseline8Bit

from agent.protocol.dicomextract import BIG_ENDIAN, ELEMENT_BYTES, EXPLICIT, EXTRACT_BYTES, IMPLICIT, Extract, extract


def of(data: bytes, syntax: str = EXPLICIT) -> Extract:
    return extract(io.BytesIO(data), syntax)


def behind_the_head(file: io.BytesIO) -> io.BytesIO:
    file.seek(140)
    file.seek(int.from_bytes(file.read(4), "little"), 1)
    return file


class Counting(io.BytesIO):
    """A file that knows how much was read of it."""

    was_read = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.was_read += len(data)
        return data


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_a_small_data_set_is_the_same_but_for_its_pixels(syntax: str) -> None:
    item = Dataset()
    item.CodeValue = "a"
    sent = an_image(ReferencedStudySequence=items(item, item))
    found = extract(behind_the_head(file_of(sent, syntax)), syntax)
    assert found.whole
    read = read_dataset(io.BytesIO(found.data), syntax == IMPLICIT, syntax != BIG_ENDIAN)
    del sent.PixelData
    assert read == sent


def test_large_values_are_not_read() -> None:
    pixels = b"\xe0\x7f\x10\0OW\0\0" + (10_000_000).to_bytes(4, "little")
    file = Counting(b"\x08\0\x60\0CS\2\0OT" + pixels + bytes(10_000_000) + b"\xfc\xff\xfc\xffOB\0\0\2\0\0\0ab")
    found = extract(file, EXPLICIT)
    assert found == Extract(b"\x08\0\x60\0CS\2\0OT\xfc\xff\xfc\xffOB\0\0\2\0\0\0ab", EXPLICIT, whole=True)
    assert file.was_read < 100


def test_pixels_are_left_out_however_few() -> None:
    few = b"\xe0\x7f\x10\0OW\0\0\2\0\0\0ab"
    assert of(few) == Extract(b"", EXPLICIT, whole=True)
    assert of(b"\xe0\x7f\x10\0\2\0\0\0ab", IMPLICIT) == Extract(b"", IMPLICIT, whole=True)


def test_encapsulated_pixels_are_stepped_over() -> None:
    sent = an_image(PixelData=encapsulate([bytes(3000), bytes(3000)]))
    sent["PixelData"].is_undefined_length = True
    sent.DigitalSignaturesSequence = items(Dataset())
    found = extract(behind_the_head(file_of(sent, JPEGBaseline8Bit)), JPEGBaseline8Bit)
    assert found.whole
    assert found.data.endswith(b"\xfa\xff\xfa\xffSQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
                               b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0")  # fmt: skip


def test_an_unknown_sequence_is_implicit_inside() -> None:
    data = b"\x09\0\x10\x10UN\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + b"\x08\0\0\1\2\0\0\0ab"
    data += b"\xfe\xff\x0d\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0"
    assert of(data) == Extract(data, EXPLICIT, whole=True)


def test_a_sequence_that_is_too_large_is_left_out_whole_and_what_follows_is_there() -> None:
    item = b"\xfe\xff\x00\xe0" + (50_008).to_bytes(4, "little") + b"\x09\0\x10\x10LT" + (50_000).to_bytes(2, "little")
    item += b"x" * 50_000
    count = ELEMENT_BYTES // 50_000 + 1
    large = b"\x09\0\x11\x11SQ\0\0" + (count * len(item)).to_bytes(4, "little") + item * count
    before, after = b"\x08\0\x60\0CS\2\0OT", b"\x10\0\x20\0LO\2\0ab"
    assert of(before + large + after) == Extract(before + after, EXPLICIT, whole=True)


def test_all_together_is_bounded_too() -> None:
    value = b"\x09\0\x10\x10LT" + (60_000).to_bytes(2, "little") + b"x" * 60_000
    found = of(value * 50)
    assert found.whole
    assert EXTRACT_BYTES - len(value) < len(found.data) <= EXTRACT_BYTES


@pytest.mark.parametrize(
    "damage",
    [
        b"\x10",
        b"\x10\0\x20\0LO\2",
        b"\x10\0\x20\0LO\4\0ab",
        b"\x10\0\x20\0??\2\0ab",
        b"\xfe\xff\x00\xe0\0\0\0\0",
        b"\xe0\x7f\x10\0OW\0\0\xff\xff\0\0ab",
        b"\x09\0\x11\x11SQ\0\0\xff\xff\xff\xff" * 40,
        b"\x09\0\x11\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff\x10\0\x20\0LO\2\0ab",
    ],
)
def test_damage_ends_the_copy_before_the_element_that_it_is_in(damage: bytes) -> None:
    good = b"\x08\0\x60\0CS\2\0OT"
    assert of(good + damage) == Extract(good, EXPLICIT, whole=False)


@given(st.binary(max_size=400), st.sampled_from((IMPLICIT, EXPLICIT, BIG_ENDIAN, "1.2.840.10008.1.2.1.99", "1.2")))
def test_whatever_comes_the_copy_is_no_longer_than_the_original_and_its_delimiters(data: bytes, syntax: str) -> None:
    found = of(data, syntax)
    if syntax != "1.2.840.10008.1.2.1.99":
        assert len(found.data) <= 4 * len(data)


@given(st.binary(max_size=400), st.sampled_from((IMPLICIT, EXPLICIT, BIG_ENDIAN)))
def test_a_copy_of_a_copy_is_the_same(data: bytes, syntax: str) -> None:
    once = of(data, syntax)
    again = of(once.data, syntax)
    assert again == Extract(once.data, syntax, whole=True)
