"""Answers to the server wait for the link as long as anybody can be waiting for them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agent.commands.owed import KEEP_BYTES, KEEP_S, Owed
from agent.protocol.envelope import LogsResponse, PushResponse


class Server:
    """The far end of a link that comes and goes; `now` is its clock."""

    def __init__(self) -> None:
        self.live = True
        self.now = 0.0
        self.heard: list[dict[str, Any]] = []

    def send(self, frames: list[bytes]) -> None:
        assert self.live
        self.heard += [json.loads(frame) for frame in frames]

    @property
    def callbacks(self) -> list[str]:
        return [frame["callback"] for frame in self.heard]


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def owed(server: Server) -> Owed:
    return Owed(live=lambda: server.live, send=server.send, max_frame_bytes=lambda: 4_096, now=lambda: server.now)


def an_answer(callback: str, body: str = "OK") -> PushResponse:
    return PushResponse(remote="mllp://lab:2575", callback=callback, content_type="text/plain", body=body)


def test_an_answer_leaves_at_once_while_there_is_a_link(owed: Owed, server: Server) -> None:
    assert owed.answer(an_answer("1")) is True
    assert server.callbacks == ["1"]


def test_what_could_not_leave_is_sent_in_order_when_the_link_is_back_and_once(owed: Owed, server: Server) -> None:
    server.live = False
    assert [owed.answer(an_answer(callback)) for callback in "123"] == [False] * 3
    server.live = True
    owed.live()
    owed.live()
    assert server.callbacks == ["1", "2", "3"]


def test_what_nobody_can_be_waiting_for_any_more_is_dropped(owed: Owed, server: Server) -> None:
    server.live = False
    owed.answer(an_answer("old"))
    server.now = 1.0
    owed.answer(an_answer("young"))
    server.live, server.now = True, KEEP_S + 0.5
    owed.live()
    assert server.callbacks == ["young"]


def test_what_is_kept_is_bounded_and_the_newest_stays(owed: Owed, server: Server) -> None:
    server.live = False
    body = "x" * 3_900
    count = 2 * KEEP_BYTES // len(body)
    for number in range(count):
        owed.answer(an_answer(str(number), body))
    server.live = True
    owed.live()
    assert server.callbacks[-1] == str(count - 1)
    assert sum(len(frame["body"]) for frame in server.heard) <= KEEP_BYTES


def test_an_answer_that_the_server_would_not_take_becomes_one_that_says_so(owed: Owed, server: Server) -> None:
    # a frame above the server's limit would end the connection, and with it everybody else's answers
    owed.answer(an_answer("1", "x" * 5_000))
    owed.answer(LogsResponse(logs=[{"msg": "x" * 5_000}], callback="2"))
    push, logs = server.heard
    assert (push["type"], push["statusCode"], push["remote"]) == ("agent:transmit:response", 400, "mllp://lab:2575")
    assert "server.max_frame_bytes" in push["body"]
    assert (logs["type"], logs["callback"]) == ("agent:error", "2")
