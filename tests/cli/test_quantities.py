"""Numbers on the command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cli.quantities import port, positive, seconds, whole


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [(whole, "1", 1), (whole, "50000", 50000), (port, "0", 0), (port, "65535", 65535), (positive, "0.5", 0.5),
     (positive, "20", 20), (seconds, "0", 0), (seconds, "1.5", 1.5)],
)  # fmt: skip
def test_a_number(read: Callable[[str], float], text: str, value: float) -> None:
    assert read(text) == value


@pytest.mark.parametrize(
    ("read", "text"),
    [(whole, "0"), (whole, "-1"), (whole, "1.5"), (whole, "many"), (port, "65536"), (port, "-1"), (port, "hl7"),
     (positive, "0"), (positive, "-2"), (positive, "nan"), (positive, "inf"), (seconds, "-1"), (seconds, "soon")],
)  # fmt: skip
def test_what_makes_no_sense_is_a_usage_error(read: Callable[[str], float], text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"is no|too small"):
        read(text)


@pytest.mark.parametrize("read", [whole, port, positive, seconds])
@given(text=st.text(max_size=12))
def test_any_text_is_a_number_or_a_usage_error(read: Callable[[str], float], text: str) -> None:
    with suppress(argparse.ArgumentTypeError):
        assert read(text) >= 0
