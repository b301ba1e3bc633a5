"""What our hub answers where the recorded server had nothing to say, or said no.

Secret: how such an answer is made from what the recording has of the resources.
Promise: the form of every answer is the recorded one; only that it is given is ours.
"""

from __future__ import annotations

import json
from typing import Any

from golden_edits import Edit, Lines, instead, line
from golden_transcript import Line, frame_of, load

_FHIR_200 = "200\nContent-Type: application/fhir+json; charset=utf-8\n\n"
_OF_THE_MOMENT = ("author", "compartment", "lastUpdated", "versionId")
_STATS = '{"live":true,"ping":12}'


def readable(scenario: str) -> Edit:
    """Whoever asks for the agent of this scenario gets it."""

    def edit(lines: Lines) -> Lines:
        asked = line("agent", "http ", "request", "GET /fhir/R4/Agent/")
        lanes = {one.lane for one in lines if asked(one)}
        resource = load(scenario).resource("Agent")[0]
        granted = next(response for request, response in load(scenario).replies() if "/oauth2/token" in request.text)
        project = json.loads(granted.text.partition("\n\n")[2])["project"]["reference"].removeprefix("Project/")
        meta = {"project": project, **dict.fromkeys(_OF_THE_MOMENT, "<moment>")}
        found = _FHIR_200 + json.dumps({**resource, "meta": meta}, sort_keys=True)
        refused = line("server", "http ", "response", "^403")
        return instead(lambda one: refused(one) and one.lane in lanes, lambda one: (one.saying(found),))(lines)

    return edit


def asks_for_stats(lines: Lines) -> Lines:
    """Each $stats becomes a frame to the agent, and what the agent says becomes the answer."""
    agent = _agent(lines)
    stats = {"parameter": [{"name": "stats", "valueString": _STATS}], "resourceType": "Parameters"}
    parts = [{"name": "agent", "resource": agent}, {"name": "result", "resource": stats}]
    entry = {"resource": {"parameter": parts, "resourceType": "Parameters"}}
    bundle = {"entry": [entry], "resourceType": "Bundle", "type": "collection"}
    answers: dict[str, dict[str, Any]] = {}
    done: Lines = []
    for one in lines:
        if one.by == "api" and one.kind == "request":
            answers[one.lane] = bundle if "/Agent/$stats" in one.text else stats
            callback = f'"callback":"Agent/{agent["id"]}-00000000-0000-4000-8000-{len(answers):012}"'
            asked = f'{{"type":"agent:stats:request",{callback}}}'
            told = f'{{"type":"agent:stats:response","statusCode":200,"stats":{_STATS},{callback}}}'
            done += [one, Line("server", "ws agent-2", "frame", asked), Line("agent", "ws agent-2", "frame", told)]
        elif one.lane in answers:
            done.append(one.saying(_FHIR_200 + json.dumps(answers[one.lane], sort_keys=True)))
        else:
            done.append(one)
    return done


def waits_when_told_so(lines: Lines) -> Lines:
    """A $push that asks to wait with a valueBoolean is answered with what the agent says to its callback."""
    asked = line("api", "http ", "request", r'"waitForResponse", "valueBoolean": true')
    pushed = line("server", "ws ", "frame", '"agent:transmit:request"')
    told = line("agent", "ws ", "frame", '"agent:transmit:response"')
    lanes = [one.lane for one in lines if asked(one)]
    callback = f'"callback":"Agent/{_agent(lines)["id"]}-00000000-0000-4000-8000-000000000001"'
    done: Lines = []
    for one in lines:
        if one.kind == "response" and one.lane in lanes:
            continue
        waited_for = lanes and (pushed(one) or told(one)) and "callback" not in frame_of(one)
        done.append(one.saying(f"{one.text[:-1]},{callback}}}") if waited_for else one)
        if waited_for and told(one):
            frame = frame_of(one)
            head = f"200\nContent-Type: {frame['contentType']}; charset=utf-8"
            done.append(Line("server", lanes.pop(0), "response", f"{head}\n\n{frame['body']}"))
    return done


def _agent(lines: Lines) -> dict[str, Any]:
    """The Agent resource as it was read, with as much of its meta as others are shown."""
    read = line("server", "http agent", "response", '"resourceType": "Agent"')
    agent: dict[str, Any] = json.loads(next(one.text.partition("\n\n")[2] for one in lines if read(one)))
    return {**agent, "meta": {name: agent["meta"][name] for name in ("lastUpdated", "versionId")}}
