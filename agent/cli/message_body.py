"""What a message says, whatever it is made of.

Secret: which way of taking apart belongs to which content.
Promise: what stands in the head, on the screen and in the script's object comes from one look at the bytes; masked, no
part of it names a patient.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, assert_never

from agent.cli.amounts import size
from agent.cli.lines import Line, Span, Tone
from agent.cli.message_bytes import byte_lines, masked_bytes, reading_of
from agent.cli.message_object import Element, element_segments, object_path, read_about, veiled
from agent.cli.message_parts import Segment, segments_of, text_of
from agent.cli.message_records import records_of, text_of_session
from agent.cli.message_view import segment_lines
from agent.store.ledger import Entry
from agent.store.row import Content, State


@dataclass(frozen=True, slots=True)
class Told:
    """`head`: what the head of a message says of its content; `lines`: the content, in a window so many cells wide
    (None: as wide as it takes); `facts`: the same for a script."""

    head: tuple[Span, ...]
    lines: Callable[[int | None], list[Line]]
    facts: dict[str, Any]


def body_of(content: Content, body: bytes, encoding: str | None, *, mask: bool) -> Told:
    """A message or its answer. `encoding`: as the URL of a remote names it."""
    match content:
        case Content.HL7:
            text, read_as = text_of(body, encoding)
            return _segmented("segments", segments_of(text, mask=mask), body, (text, read_as), mask=mask)
        case Content.ASTM:
            text, read_as = text_of_session(body, encoding)
            return _segmented("records", records_of(text, mask=mask), body, (text, read_as), mask=mask)
        case Content.BYTES | Content.DICOM:
            return _bytes(body, mask=mask)
        case _ as never:
            assert_never(never)


def dicom_body(about: bytes, folder: Path, entry: Entry, *, mask: bool) -> Told:
    """What is known of an object. `folder`: where objects are kept until the server has them."""
    path = object_path(folder, entry.control_id)
    taken = entry.state is State.PROCESSED
    gone = "its file is gone, for the server has the object" if taken else "its file is not there"
    place: tuple[Span, ...] = ((gone, Tone.PLAIN if taken else Tone.WARNING),)
    size_bytes = None
    if path is not None:
        size_bytes = path.stat().st_size
        place = ((size(size_bytes), Tone.PLAIN), (str(path), Tone.PLAIN))
    facts = {"object": None if path is None else {"path": str(path), "sizeBytes": size_bytes}}
    found = read_about(about)
    if found is None:
        told = _bytes(about, mask=mask)
        return Told((*place, *told.head), told.lines, facts | told.facts)
    association, elements = found
    segments = element_segments(association, elements, mask=mask)
    shown = [_element_facts(element, mask=mask) for element in elements if element.tag]
    return Told(
        (*place, (f"{len(shown)} elements", Tone.PLAIN)),
        partial(segment_lines, segments),
        {**facts, "association": association, "elements": shown},
    )


def raw_lines(content: Content, body: bytes, encoding: str | None) -> list[str] | None:
    """The bytes as lines of text for a terminal; None where they are none."""
    match content:
        case Content.HL7:
            text, _ = text_of(body, encoding)
        case Content.ASTM:
            text, _ = text_of_session(body, encoding)
        case Content.DICOM:
            text = body.decode("utf-8", "backslashreplace")
        case Content.BYTES:
            found = reading_of(body)
            if found is None:
                return None
            text, _ = found
        case _ as never:
            assert_never(never)
    return re.split(r"\r\n|\r|\n", text.rstrip("\r\n"))


def _segmented(name: str, segments: list[Segment], body: bytes, read: tuple[str, str], *, mask: bool) -> Told:
    text, read_as = read
    shown = [
        {
            "name": segment.name,
            "title": segment.title,
            "fields": [{"path": value.path, "name": value.name, "value": value.value} for value in segment.fields],
        }
        for segment in segments
    ]
    return Told(
        (_amount(body), (f"read as {read_as}", Tone.PLAIN)),
        partial(segment_lines, segments),
        {"charset": read_as, name: shown} | ({} if mask else {"raw": text}),
    )


def _bytes(body: bytes, *, mask: bool) -> Told:
    shown = masked_bytes(body) if mask else body
    if shown is None:
        hidden = "they are no text, and all of them are hidden"
        return Told((_amount(body), (hidden, Tone.PLAIN)), lambda _: [], {"hex": None, "text": None})
    found = reading_of(shown)
    head: tuple[Span, ...] = (_amount(body),)
    if found is not None:
        head += ((f"read as {found[1]}", Tone.PLAIN),)
    facts = {"hex": shown.hex(), "text": None if found is None else found[0]}
    return Told(head, partial(byte_lines, shown), facts)


def _amount(body: bytes) -> Span:
    return f"{len(body):,} bytes", Tone.PLAIN


def _element_facts(element: Element, *, mask: bool) -> dict[str, str]:
    return {
        "path": element.path,
        "keyword": element.keyword,
        "vr": element.vr,
        "value": veiled(element) if mask else element.value,
    }
