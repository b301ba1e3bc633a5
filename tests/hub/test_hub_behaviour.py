"""Bot.code names one of three behaviours, or none."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.hub.behaviour import Acknowledge, BadBehaviour, Behaviour, PythonCallable, Webhook, read_behaviour


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("ack", Acknowledge()),
        (" ack\n", Acknowledge()),
        ("webhook http://10.0.0.1:80/x?y=1", Webhook("http://10.0.0.1:80/x?y=1")),
        ("webhook https://example.org", Webhook("https://example.org")),
        ("python a.b_c:d1", PythonCallable("a.b_c", "d1")),
    ],
)
def test_the_three_spellings(code: str, expected: Behaviour) -> None:
    assert read_behaviour(code) == expected


@pytest.mark.parametrize(
    "code",
    [
        *(None, 7, "", "acks", "ack now", "exports.handler = async function () {}"),
        *("webhook", "webhook ftp://x", "webhook http://a b"),
        *("python", "python a", "python a:b.c", "python 1:a", "python a..b:c"),
    ],
)
def test_everything_else_is_refused_with_the_spellings(code: object) -> None:
    with pytest.raises(BadBehaviour, match=r"`ack`.*`webhook .*`python "):
        read_behaviour(code)


@given(st.text())
def test_any_text_is_read_or_refused(code: str) -> None:
    with contextlib.suppress(BadBehaviour):
        read_behaviour(code)
