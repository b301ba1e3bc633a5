from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.cli.lines import Tone, cells_of, clean, fitted, paragraph, plain

anything = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@given(anything, st.integers(0, 40), st.booleans())
def test_what_is_fitted_has_exactly_its_width(text: str, cells: int, left: bool) -> None:
    assert cells_of(fitted(clean(text), cells, left=left)) == cells


def test_a_name_too_long_keeps_both_its_ends() -> None:
    assert fitted("cardiology-main-building-adt", 16, left=True) == "cardiol..ing-adt"


def test_a_wide_character_takes_two_cells() -> None:
    assert cells_of("放射線科") == 8
    assert cells_of(fitted("放射線科-main-building", 9, left=True)) == 9


@given(anything)
def test_nothing_from_outside_can_steer_the_terminal(text: str) -> None:
    assert clean(text).isprintable()


@given(st.lists(anything, min_size=1, max_size=5), st.integers(30, 120))
def test_a_paragraph_keeps_to_its_width(texts: list[str], width: int) -> None:
    narrow = [clean(text) for text in texts if cells_of(clean(text)) == len(clean(text))]
    lines = paragraph("server", [(text, Tone.PLAIN) for text in narrow], width)
    assert all(cells_of(line) <= width for line in plain(lines).split("\n"))


def test_parts_stand_side_by_side_where_they_fit() -> None:
    parts = [("https://server.example/", Tone.PLAIN), ("live", Tone.GOOD)]
    assert plain(paragraph("server", parts, 80)) == "server  https://server.example/  live"
    assert plain(paragraph("server", parts, 34)) == "server  https://server.example/\n        live"
