"""The document that the document system sends."""

from __future__ import annotations

import re

from agent.ward.document import pdf


def test_the_cross_reference_table_points_at_every_object() -> None:
    document = pdf(["first line", "second (line) \\ with é"])
    table = int(re.search(rb"startxref\n(\d+)\n%%EOF\n$", document)[1])
    assert document[table:].startswith(b"xref\n0 7\n")
    places = [int(place) for place in re.findall(rb"(\d{10}) 00000 n \n", document[table:])]
    assert [document[place:].split(b" obj", 1)[0] for place in places] == [b"%d 0" % n for n in range(1, 7)]


def test_the_stream_has_the_length_it_claims_and_brackets_are_escaped() -> None:
    document = pdf(["a (bracket", "and a \\"])
    length = int(re.search(rb"/Length (\d+)", document)[1])
    content = document.split(b"stream\n", 1)[1].split(b"\nendstream", 1)[0]
    assert len(content) == length
    assert b"(a \\(bracket) Tj" in content
    assert b"(and a \\\\) Tj" in content


def test_the_same_lines_give_the_same_bytes() -> None:
    assert pdf(["x"]) == pdf(["x"]) != pdf(["y"])
