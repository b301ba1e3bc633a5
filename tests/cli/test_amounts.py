from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cli.amounts import age, count, milliseconds, size


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (9_999, "9999"), (12_345, "12k"), (999_999, "1000k"), (1_234_567, "1.2M"), (5_000_000_000, "5.0G")],
)
def test_a_count_is_short(number: int, text: str) -> None:
    assert count(number) == text


@pytest.mark.parametrize(
    ("duration_ms", "text"),
    [(-1, "-"), (0.83, "0.8ms"), (12.4, "12ms"), (1_500, "1.5s"), (45_000, "45s"), (750_000, "12min")],
)
def test_a_round_trip_is_told_in_the_unit_that_fits(duration_ms: float, text: str) -> None:
    assert milliseconds(duration_ms) == text


@pytest.mark.parametrize(
    ("duration_s", "text", "short"),
    [
        (-5, "0 s", "0s"),
        (7.9, "7 s", "7s"),
        (725, "12 min 5 s", "12min"),
        (7_260, "2 h 1 min", "2h"),
        (273_784, "3 d 4 h", "3d"),
    ],
)
def test_an_age_has_two_units_or_one(duration_s: float, text: str, short: str) -> None:
    assert age(duration_s) == text
    assert age(duration_s, short=True) == short


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 B"), (512, "512 B"), (4_096, "4.0 KiB"), (976_224_256, "931 MiB"), (10**13, "9.1 TiB")],
)
def test_a_size_has_binary_units(size_bytes: int, text: str) -> None:
    assert size(size_bytes) == text


@given(st.integers(0, 999_000_000))
def test_a_count_fits_its_column(number: int) -> None:
    assert len(count(number)) <= 5


@given(st.floats(0, 3e8, allow_nan=False))
def test_a_round_trip_fits_its_column(duration_ms: float) -> None:
    assert len(milliseconds(duration_ms)) <= 6
