"""By which name the server knows a message."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.flow.callbacks import Callbacks
from agent.store.row import Row

AGENT = "2f0f3ac2-8ad4-4b5a-9a4b-3d9d47a1f9b1"
names = Callbacks(AGENT, "00112233445566778899aabb")


def tried(row_id: int, attempts: int) -> Row:
    row = Row(row_id, "adt", "10.0.0.1:4000", b"", b"M1", b"ADT", 0, b"MSH|")
    row.attempts = attempts
    return row


def test_the_first_try_looks_like_the_existing_agents_callback() -> None:
    assert names.of(tried(255, 1)) == f"Agent/{AGENT}-00112233-4455-4667-a788-0000000000ff"


def test_later_tries_carry_their_number() -> None:
    assert names.of(tried(255, 3)).endswith("0000000000ff#3")


@given(st.integers(1, 2**48 - 1), st.integers(1, 10**6))
def test_a_callback_names_its_message_and_its_try(row_id: int, attempts: int) -> None:
    assert names.read(names.of(tried(row_id, attempts))) == (row_id, attempts)


def test_another_spools_callback_is_not_ours() -> None:
    other = Callbacks(AGENT, "ff112233445566778899aabb")
    assert names.read(other.of(tried(255, 1))) is None


@given(st.text())
def test_whatever_stands_behind_the_prefix_reads_as_something_or_nothing(rest: str) -> None:
    read = names.read(names.of(tried(1, 1))[:-12] + rest)
    assert read is None or all(isinstance(number, int) for number in read)
