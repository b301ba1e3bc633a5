"""What is known of a DICOM object, and where it is.

Secret: the DICOM JSON model (PS3.18 annex F), and how an object file is found by its message.
Promise: any body can be looked at: what is no such JSON is nothing, not an error. Nothing is read of the object itself.
What is masked shows of what kind an object is, and nothing else of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from agent.cli.message_parts import Segment, Value, masked

_TAG: Final = re.compile(r"[0-9A-Fa-f]{8}", re.ASCII)
_NUMBER: Final = re.compile(r"\d{1,20}", re.ASCII)
_KEYWORD_CELLS: Final = 36
# of these a stranger sees the values that the standard defines: classes, transfer syntaxes, kinds of equipment
_UID: Final = re.compile(r"1\.2\.840\.10008(\.\d{1,6}){1,9}", re.ASCII)
_DEFINED: Final = frozenset(("00020002", "00020010", "00080016"))
_MODALITY: Final = "00080060"
_MODALITIES: Final = frozenset(
    ("CR", "CT", "DX", "ECG", "ES", "IO", "KO", "MG", "MR", "NM", "OT", "PR", "PT", "PX", "RF", "RTDOSE", "RTIMAGE",
     "RTPLAN", "RTSTRUCT", "SEG", "SM", "SR", "US", "XA")
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Element:
    """One element: `path` is its tag, behind those of the sequences that it stands in; `value` as people write it.

    Without a tag: where an item of a sequence begins. `ours`: the value is no value but what we say of it.
    """

    path: str
    depth: int
    tag: str
    keyword: str
    vr: str
    value: str
    ours: bool = False


def object_path(folder: Path, control_id: bytes) -> Path | None:
    """Where the object of a message is, if it is there. `control_id`: the number by which objects are kept."""
    number = control_id.decode("ascii", "replace")
    if not _NUMBER.fullmatch(number):
        return None
    path = folder / f"{int(number)}.dcm"
    return path if path.is_file() else None


def read_about(body: bytes) -> tuple[dict[str, str], list[Element]] | None:
    """The facts of the association, and every element; None where the body is not what we store of an object."""
    try:
        match msgspec.json.decode(body):
            case {"association": dict(association), "dataset": dict(dataset)}:
                texts = {str(name): _text(value) for name, value in association.items()}
                return texts, list(_elements(dataset, "", 0))
            case _:
                return None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def element_segments(association: Mapping[str, str], elements: list[Element], *, mask: bool) -> list[Segment]:
    """The same as named values for the screen; an element is its tag, keyword, VR and value."""
    called = tuple(Value("", _AE_TITLES.get(name, name), value) for name, value in association.items())
    cells = min(max((len(element.keyword) for element in elements), default=0), _KEYWORD_CELLS)
    shown = tuple(
        Value(
            f"{'>' * element.depth}{_bracketed(element.tag, mask=mask)}",
            f"{element.keyword:<{cells}} {element.vr}" if element.tag else "",
            veiled(element) if mask else element.value,
        )
        for element in elements
    )
    return [Segment("association", "", called), Segment("dataset", "", shown)]


_AE_TITLES: Final = {"callingAeTitle": "calling AE title", "calledAeTitle": "called AE title"}


def veiled(element: Element) -> str:
    """The value of an element as a stranger may see it."""
    value = element.value
    is_defined = element.tag in _DEFINED and _UID.fullmatch(value) is not None
    is_modality = element.tag == _MODALITY and value in _MODALITIES
    return value if element.ours or is_defined or is_modality else masked(value)


def _elements(dataset: Mapping[str, Any], above: str, depth: int) -> Iterator[Element]:
    for name, element in dataset.items():
        tag = str(name)
        path = f"{above}{tag}"
        content = element if isinstance(element, dict) else {}
        vr = content.get("vr")
        vr = vr if isinstance(vr, str) else ""
        values = content.get("Value")
        values = values if isinstance(values, list) else []
        items = [item for item in values if isinstance(item, dict)] if vr == "SQ" else []
        said = f"{len(items)} item{'' if len(items) == 1 else 's'}" if vr == "SQ" else _bulk(content)
        value = "\\".join(map(_text, values)) if said is None else said
        yield Element(path, depth, tag, _keyword(tag), vr, value, ours=said is not None)
        for number, item in enumerate(items, 1):
            yield Element(f"{path}[{number}]", depth + 1, "", "", "", f"item {number}", ours=True)
            yield from _elements(item, f"{path}[{number}].", depth + 1)


def _bulk(content: Mapping[str, Any]) -> str | None:
    """What is said of a value that is not in the dataset as text."""
    encoded = content.get("InlineBinary")
    return f"{len(encoded.rstrip('=')) * 3 // 4:,} bytes, not shown" if isinstance(encoded, str) else None


def _text(value: Any) -> str:
    """A value as DICOM writes it: several parts of a name, its alphabet and its ideograms, behind one another by =."""
    match value:
        case None:
            return ""
        case str():
            return value
        case dict():
            return "=".join(_text(value.get(group)) for group in ("Alphabetic", "Ideographic", "Phonetic")).rstrip("=")
        case _:
            return str(value)


def _bracketed(tag: str, *, mask: bool) -> str:
    if _TAG.fullmatch(tag):
        return f"({tag[:4]},{tag[4:]})".lower()
    return masked(tag) if mask else tag


def _keyword(tag: str) -> str:
    """The standard's keyword of a tag, where its dictionary is installed."""
    if not _TAG.fullmatch(tag):
        return ""
    try:
        from pydicom.datadict import keyword_for_tag  # an extra: most hosts receive no images
    except ImportError:
        return ""
    return str(keyword_for_tag(int(tag, 16)))
