"""Tell a server about a DICOM object: who sent it, and what it says in JSON.

Secret: the JSON model of a data set (PS3.18 annex F), and how much of it goes into one message.
Promise: there is JSON for every file of the DICOM format, UTF-8, small enough for one frame, without pixels and other
bulk data; what cannot be read is left out, and that is said.
"""

from __future__ import annotations

import contextlib
import io
import json
import struct
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import msgspec

from agent.protocol.dicomextract import BULK_BYTES, BULK_VRS, extract

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

SHOWN_BYTES: Final = 600_000  # of all elements, with their quotes escaped: servers take frames of 1 MB
PREAMBLE: Final = bytes(128) + b"DICM"
IMPLEMENTATION_UID: Final = "2.25.98471550376014622911570823761264981107"  # PS3.5 annex B.2
IMPLEMENTATION_NAME: Final = "ONPREM_AGENT"

_GROUP_LENGTH: Final = struct.Struct("<HH2sHL")
_HEAD_BYTES: Final = len(PREAMBLE) + _GROUP_LENGTH.size
_MAX_META_BYTES: Final = 65_536
_ONE_READER: Final = threading.Lock()
_BULK_VRS: Final = frozenset(vr.decode() for vr in BULK_VRS)


@dataclass(frozen=True, slots=True)
class DatasetJson:
    """`text`: UTF-8. `whole`: every element that should be in it could be read."""

    text: bytes
    whole: bool


def about(calling_ae_title: str, called_ae_title: str, dataset: bytes) -> bytes:
    """What is stored with an object: the body for the server without the reference of its Binary. `dataset`: JSON."""
    association = {"callingAeTitle": calling_ae_title, "calledAeTitle": called_ae_title}
    return msgspec.json.encode({"association": association, "dataset": msgspec.Raw(dataset)})


def transmit_body(about: bytes, reference: str) -> str:
    """The body for the server (PROTOCOL §3). `about`: as it was stored; `reference`: `Binary/<id>`."""
    binary = msgspec.json.encode({"reference": reference})
    return (about[:-1] + b',"binary":' + binary + b"}").decode()


def file_head(*, sop_class_uid: str, sop_instance_uid: str, transfer_syntax: str) -> bytes:
    """What a DICOM file has before its data set (PS3.10 §7.1)."""
    elements = _meta(0x0001, b"OB", b"\0\1")
    elements += _meta(0x0002, b"UI", _even(sop_class_uid, b"\0"))
    elements += _meta(0x0003, b"UI", _even(sop_instance_uid, b"\0"))
    elements += _meta(0x0010, b"UI", _even(transfer_syntax, b"\0"))
    elements += _meta(0x0012, b"UI", _even(IMPLEMENTATION_UID, b"\0"))
    elements += _meta(0x0013, b"SH", _even(IMPLEMENTATION_NAME, b" "))
    return PREAMBLE + _GROUP_LENGTH.pack(2, 0, b"UL", 4, len(elements)) + elements


def dataset_json(file: BinaryIO) -> DatasetJson:
    """The elements of a DICOM file (PS3.10), those of group 2 included. Raises what reading the file raises."""
    file.seek(0)
    head = file.read(_HEAD_BYTES)
    length = _GROUP_LENGTH.unpack_from(head, len(PREAMBLE))[-1] if len(head) == _HEAD_BYTES else 0
    if not 0 < length <= _MAX_META_BYTES or not head.startswith(PREAMBLE):
        return DatasetJson(b"{}", whole=False)
    head += file.read(length)
    shown: dict[str, bytes] = {}
    try:
        with _quiet():
            meta = _read(head).file_meta
            whole, syntax = _show(meta, shown), str(meta.TransferSyntaxUID)
    except Exception:  # no list of what the reader raises on damaged bytes is complete
        return DatasetJson(b"{}", whole=False)
    found = extract(file, syntax)
    plain = file_head(sop_class_uid="1", sop_instance_uid="1", transfer_syntax=found.syntax)
    try:
        with _quiet():
            whole = _show(_read(plain + found.data), shown) and found.whole and whole
    except Exception:
        whole = False
    _shorten(shown)
    return DatasetJson(b"{%b}" % b",".join(b'"%b":%b' % (tag.encode(), text) for tag, text in shown.items()), whole)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The reader warns on the console, with values of the data set; and what Python has against that is for one thread
    at a time."""
    with _ONE_READER, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _read(data: bytes) -> Dataset:
    from pydicom import config, dcmread  # an extra: most hosts receive no images

    config.settings.reading_validation_mode = config.IGNORE
    return dcmread(io.BytesIO(data))


def _show(elements: Dataset, shown: dict[str, bytes]) -> bool:
    """The JSON of each element that can be read, by its tag; whether all could."""
    whole = True
    for tag in elements.keys():  # noqa: SIM118 - iterating a data set reads its elements, and one that is damaged ends it
        if tag.element == 0:
            continue  # group lengths say nothing (PS3.5 §7.2)
        try:
            element = elements[tag]
            content = _without_bulk(element.to_json_dict(None, 0))
            if content is not None:
                shown[f"{tag:08X}"] = _json(content)
        except Exception:
            whole = False
    return whole


def _json(content: dict[str, Any]) -> bytes:
    """Raises ValueError for what is not in JSON: not-a-number, or characters without an encoding."""
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _without_bulk(content: dict[str, Any]) -> dict[str, Any] | None:
    """An element of the model without what is bulk in it, at any depth; None where it is bulk itself."""
    if content.get("vr") in _BULK_VRS and len(content.get("InlineBinary", "")) > BULK_BYTES * 4 // 3 + 4:
        return None
    if content.get("vr") == "SQ":
        items = [
            {tag: kept for tag, element in item.items() if (kept := _without_bulk(element)) is not None}
            for item in content.get("Value", [])
        ]
        return {"vr": "SQ", "Value": items} if items else {"vr": "SQ"}
    return content


def _shorten(shown: dict[str, bytes]) -> None:
    """Leave out the largest elements until the rest goes into one message."""
    cost = {tag: len(text) + text.count(b'"') + text.count(b"\\") + 16 for tag, text in shown.items()}
    total = sum(cost.values())
    for tag in sorted(cost, key=cost.__getitem__, reverse=True):
        if total <= SHOWN_BYTES:
            break
        total -= cost[tag]
        del shown[tag]


def _meta(element: int, vr: bytes, value: bytes) -> bytes:
    """One element of group 2: explicit VR, little endian."""
    if vr == b"OB":
        return struct.pack("<HH2sHL", 2, element, vr, 0, len(value)) + value
    return struct.pack("<HH2sH", 2, element, vr, len(value)) + value


def _even(text: str, filler: bytes) -> bytes:
    value = text.encode("ascii", "replace")[:0xFFFE]
    return value + filler if len(value) % 2 else value
