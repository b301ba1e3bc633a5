"""A recorded conversation with a remote is told as our agent holds it, and loses nothing by that."""

from __future__ import annotations

from collections import Counter

import pytest
from golden_edits import line
from golden_pushes import acknowledged_id, control_id, one_in_flight, told, until_stopped
from golden_transcript import FOLDER, Line, frame_of, load

PUSHING = sorted(  # where each message has its own acknowledgement, and only that
    path.stem
    for path in FOLDER.glob("*.json")
    if any(one.by == "remote" and one.kind == "frame" for one in load(path.stem).lines)
    and path.stem not in ("push-remote-enhanced", "push-remote-wrong-control-id")
)


def shared(scenario: str) -> list[Line]:
    return one_in_flight(list(load(scenario).lines))


def with_remotes(lines: list[Line], kind: str) -> list[Line]:
    return [one for one in lines if one.lane.startswith("remote ") and one.kind == kind]


@pytest.mark.parametrize("scenario", PUSHING)
def test_every_message_is_pushed_answered_and_told_once_as_recorded(scenario: str) -> None:
    def said(lines: list[Line]) -> Counter[tuple[str, str]]:
        mine = [*with_remotes(lines, "frame"), *(one for one in lines if one.lane.startswith("ws "))]
        return Counter((one.by, one.text) for one in mine)

    assert said(shared(scenario)) == said(list(load(scenario).lines))


@pytest.mark.parametrize("scenario", PUSHING)
def test_a_connection_has_one_unanswered_message_and_there_are_no_more_than_recorded(scenario: str) -> None:
    lines = shared(scenario)
    under_way: dict[str, str] = {}
    for one in with_remotes(lines, "frame"):
        if one.by == "agent":
            assert one.lane not in under_way
            under_way[one.lane] = control_id(one.text)
        else:
            assert under_way.pop(one.lane) == acknowledged_id(one.text)
    assert len(with_remotes(lines, "open")) <= len(with_remotes(list(load(scenario).lines), "open"))


@pytest.mark.parametrize("scenario", PUSHING)
def test_a_message_goes_out_after_it_was_asked_for_and_is_told_after_its_answer(scenario: str) -> None:
    lines = shared(scenario)
    places = {(one.by, text): at for at, one in enumerate(lines) if (text := str(frame_of(one).get("body", one.text)))}
    for one in with_remotes(lines, "frame"):
        if one.by == "agent":
            assert places["server", one.text] < places["agent", one.text]
        else:
            assert places["remote", one.text] < places["agent", one.text]


def test_pushes_one_after_another_share_a_connection() -> None:
    assert [one.lane for one in with_remotes(shared("push-wait"), "frame")] == ["remote 28001-1"] * 4
    assert len(with_remotes(shared("push-wait"), "open")) == 1
    assert len(with_remotes(shared("push-wait"), "close")) == 1


def test_the_sixth_of_six_messages_waits_for_the_first_answer() -> None:
    written = [one for one in with_remotes(shared("push-concurrent"), "frame") if one.by == "agent"]
    assert len({one.lane for one in written[:5]}) == 5
    assert written[5].lane == written[0].lane


def test_a_connection_closed_early_is_closed_behind_the_stop() -> None:
    closed, stop = Line("agent", "remote 28001-1", "close"), Line("host", "process", "stop")
    other = Line("agent", "ws agent-2", "cut")
    assert until_stopped([closed, stop, other]) == [stop, closed, other]


def test_a_refusal_is_told_with_the_names_of_the_request() -> None:
    asked = Line(
        "server", "ws agent-2", "frame", '{"type":"agent:transmit:request","remote":"mllp://x","callback":"a"}'
    )
    (_, answer) = told(line("server"), 'no "host"')([asked])
    assert answer.text == (
        '{"type":"agent:transmit:response","remote":"mllp://x","callback":"a",'
        '"contentType":"text/plain","statusCode":400,"body":"no \\"host\\""}'
    )
