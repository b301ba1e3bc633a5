"""`plan`: what would come of a configuration, and, if that is wanted, have it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from agent.changes import Action, Change
from agent.commands.plan import NotAPlan, plan
from agent.errors import Finding, Severity
from agent.proposal import Proposal

DOCUMENT = {"agent": {"resourceType": "Agent"}, "endpoints": {"Endpoint/1": {"resourceType": "Endpoint"}}}


class Desk:
    """Whoever is asked for a plan."""

    def __init__(self) -> None:
        self.asked: list[tuple[Mapping[str, Any] | None, bool, str | None]] = []

    async def propose(self, document: Mapping[str, Any] | None, *, apply: bool, basis: str | None) -> Proposal:
        self.asked.append((document, apply, basis))
        changes = (Change("lab.1", Action.REBIND, "mllp://h:2", was="mllp://h:1", fields=("port",), dropped=2),)
        problems = (Finding("x.y", Severity.ERROR, "it is wrong", "mend it", "lab.1.address.port"),)
        return Proposal("b-a-s", changes, problems, note="a note")


async def test_the_answer_holds_every_change_and_every_problem() -> None:
    assert await plan(Desk().propose).answer({}) == {
        "basis": "b-a-s",
        "changes": [
            {
                "channel": "lab.1",
                "action": "rebind",
                "address": "mllp://h:2",
                "was": "mllp://h:1",
                "fields": ["port"],
                "connectionsKept": 0,
                "connectionsDropped": 2,
            }
        ],
        "problems": [
            {
                "code": "x.y",
                "severity": "error",
                "channel": "lab.1",
                "field": "address.port",
                "text": "it is wrong",
                "remedy": "mend it",
            }
        ],
        "applied": False,
        "note": "a note",
    }


async def test_a_plan_is_of_the_server_or_of_resources_and_applied_only_on_request() -> None:
    desk = Desk()
    answer = plan(desk.propose).answer
    await answer({})
    await answer({"source": "server", "apply": True, "basis": "b"})
    await answer({"source": DOCUMENT})
    assert desk.asked == [(None, False, None), (None, True, "b"), (DOCUMENT, False, None)]


@pytest.mark.parametrize(
    "args",
    [
        {"source": "elsewhere"},
        {"source": 3},
        {"source": {"agent": {}}},
        {"source": {"agent": [], "endpoints": {}}},
        {"source": {"agent": {}, "endpoints": {"Endpoint/1": None}}},
        {"apply": "yes"},
        {"basis": 7},
    ],
)
async def test_what_is_no_question_for_a_plan_is_refused_in_a_sentence(args: dict[str, Any]) -> None:
    desk = Desk()
    with pytest.raises(NotAPlan) as caught:
        await plan(desk.propose).answer(args)
    assert caught.value.hint
    assert desk.asked == []


def test_only_people_of_this_host_may_ask() -> None:
    assert plan(Desk().propose).request is None
