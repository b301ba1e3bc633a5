"""DICOM files for the tests of the protocol room, as pydicom writes them."""

from __future__ import annotations

import io
from typing import Any

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage


def an_image(**elements: Any) -> Dataset:
    """A secondary capture with 4 KB of pixels."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = SecondaryCaptureImageStorage, "1.2.826.0.1.3680043.8.498.1"
    dataset.Modality, dataset.PatientName, dataset.PatientID = "OT", "EVERYMAN^ADAM", "PATID1234"
    dataset.Rows = dataset.Columns = 64
    dataset.BitsAllocated, dataset.PixelRepresentation = 8, 0
    dataset.PixelData = bytes(64 * 64)
    for name, value in elements.items():
        setattr(dataset, name, value)
    return dataset


def items(*datasets: Dataset, undefined: bool = False) -> Sequence:
    """A sequence; `undefined`: its items end with delimiters instead of beginning with lengths."""
    sequence = Sequence(datasets)
    for dataset in sequence:
        dataset.is_undefined_length_sequence_item = undefined
    return sequence


def file_of(dataset: Dataset, syntax: str = ExplicitVRLittleEndian) -> io.BytesIO:
    """A whole file, at its begin."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    file = io.BytesIO()
    pydicom.dcmwrite(file, dataset, enforce_file_format=True)
    file.seek(0)
    return file
