"""The filter never denies what it was given, and seldom claims what it was not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.store.seen import Seen


@given(st.lists(st.tuples(st.text(max_size=5), st.binary(max_size=8)), max_size=50))
def test_what_was_added_is_never_denied(ids: list[tuple[str, bytes]]) -> None:
    seen = Seen()
    for one in ids:
        seen.add(*one)
    seen.filled()
    assert all(seen.maybe(*one) for one in ids)


def test_until_it_is_filled_it_denies_nothing() -> None:
    assert Seen().maybe("adt", b"never")


def test_one_new_id_in_a_hundred_is_taken_for_an_old_one() -> None:
    seen = Seen()
    for number in range(200_000):
        seen.add("adt", b"%d" % number)
    seen.filled()
    mistaken = sum(seen.maybe("lab", b"%d" % number) for number in range(20_000))
    assert mistaken < 200


def test_it_is_crowded_by_what_came_after_it_was_filled() -> None:
    seen = Seen()
    seen.added = 5_000_000
    seen.filled()
    assert not seen.crowded
    seen.added = 10_000_001
    assert seen.crowded
