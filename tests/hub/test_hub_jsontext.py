"""Any text is JSON that we can hold, or is refused."""

from __future__ import annotations

import copy
import json

import pytest
from hub_strangers import Line
from hypothesis import given
from hypothesis import strategies as st

from agent.hub.jsontext import MAX_DEPTH, BadJson, read_json


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "truncated"),
        ("{x", "malformed"),
        (b'"\xff"', "not UTF-8"),
        ("[" * 500_000, "nested deeper"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "nested deeper"),
        ('{"n": 1e999}', "out of range"),
    ],
)
def test_what_is_no_json_is_refused(text: str | bytes, reason: str) -> None:
    with pytest.raises(BadJson, match=reason):
        read_json(text)


def test_the_deepest_allowed_can_be_copied_and_compared() -> None:
    value = read_json("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    assert copy.deepcopy(value) == value


@given(st.text() | st.binary())
def test_any_text_is_read_as_the_standard_library_reads_it_or_refused(text: str | bytes) -> None:
    try:
        value = read_json(text)
    except BadJson:
        return
    assert json.loads(text) == value


async def test_a_body_of_brackets_does_not_end_the_socket(agent_line: Line) -> None:
    heard = await agent_line.ask(agent_line.message(contentType="application/json", body="[" * 100_000))
    assert heard["type"] == "agent:error"
    assert (await agent_line.ask(agent_line.message()))["statusCode"] == 200
