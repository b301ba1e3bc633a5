"""The half of a recording that one agent takes part in, and what can be known of it beforehand.

Secret: which lines are about an agent; what our agent says only when its own clock says so, and after how long.
Promise: the lines stand in their order; nothing is played here.
"""

from __future__ import annotations

import re

from golden_pushes import acknowledged_id, control_id
from golden_transcript import HEARTBEAT_REQUEST, HEARTBEAT_RESPONSE, Line, Transcript

RELOAD = "agent:reloadconfig:request"
HEARTBEAT_S = 10.0
GIVES_UP_S = 10.0  # on a socket that does not open, or whose heartbeats are not answered
CLOSES_IDLE_S = 10.0  # connections to remotes, after the last answer
DRAINS_S = 8.0  # while a remote owes an answer and the agent is stopped
LOGS_IN_AGAIN_S = 40.0  # after a refusal
HEARTBEATS = {  # scenario → how many of them matter
    "heartbeat": 1,
    "heartbeat-missed": 2,
    "push-keepalive": 1,  # it tells that an idle connection is as old as others may get
}
RENEWED_AT_SHARE = 0.85  # of a token's life it has certainly been renewed
_LIFE_S = re.compile(r'"expires_in":(\d+)')


def lines_for_agent(transcript: Transcript, link: str = "agent") -> list[Line]:
    """What one agent takes part in, with the headers that matter to every server.

    Its own heartbeats stand wherever its clock put them: they are left out where they are not the subject, and but for
    the first ones where they are.
    """
    theirs = re.compile({"agent": r"(http|ws) agent-\d+", "agent-2": r"(http|ws) agent-2-\d+"}[link])
    lines = []
    heartbeats = 0
    for line in transcript.lines:
        if line.lane.startswith(("http ", "ws ")) and not theirs.fullmatch(line.lane):
            continue
        request = line.by == "agent" and line.text == HEARTBEAT_REQUEST
        response = line.by == "server" and line.text.startswith(HEARTBEAT_RESPONSE)
        heartbeats += request
        if heartbeats > HEARTBEATS.get(transcript.scenario, 0) and (request or response):
            continue
        if line.by != "note":
            lines.append(line.saying(line.text.replace("\nX-Medplum: extended", "")))
    return lines


def waits(lines: list[Line]) -> list[tuple[Line, float]]:
    """What our agent says, and the stop that it obeys, only after so many seconds of its clock."""
    found: list[tuple[Line, float]] = []
    again_s = 0.0
    muted = False
    unanswered: dict[str, str] = {}  # connection to a remote → the message on it that it has not answered
    stopped = False
    for line in lines:
        match line.by, line.kind:
            case "agent", "frame" if line.text == HEARTBEAT_REQUEST:
                found.append((line, HEARTBEAT_S))
            case "agent", "request" if line.text.startswith("POST /oauth2/token"):
                found += [(line, again_s)] if again_s else []
                again_s = LOGS_IN_AGAIN_S
            case "server", "response" if granted := _LIFE_S.search(line.text):
                again_s = RENEWED_AT_SHARE * float(granted[1])
            case "agent", "cut" if muted:
                found.append((line, GIVES_UP_S))
            case "fault" | "host", "mute" | "stop":
                muted = line.kind == "mute"
                stopped = line.kind == "stop"
                found += [(line, DRAINS_S)] if stopped and unanswered else []
            case "agent", "frame" if line.lane.startswith("remote "):
                unanswered[line.lane] = control_id(line.text)
            case "remote", "frame" if acknowledged_id(line.text) == unanswered.get(line.lane):
                del unanswered[line.lane]
            case "agent", "close" if line.lane.startswith("remote ") and not stopped:
                found += [(line, CLOSES_IDLE_S)] if line.lane not in unanswered else []
    return found


def states(lines: list[Line]) -> list[dict[str, str]]:
    """What the server answers to each request: from the start on, and from each further request to reload on."""
    asked: dict[str, str] = {}
    answers: list[dict[str, str]] = [{}]
    for line in lines:
        if line.by == "server" and RELOAD in line.text:
            answers.append({})
        elif line.kind == "request":
            asked[line.lane] = line.text.partition("\n")[0]
        elif line.kind == "response":
            answers[-1].setdefault(asked[line.lane], line.text)
    return answers
