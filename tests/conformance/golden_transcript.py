"""Read a recorded conversation as a list of lines: who said what, on which connection.

Secret: how tests/data/transcripts spells a recording (its README.md says so too).
Promise: a line is plain text that a person can read, whatever it travelled in; nothing here judges.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent.parent / "data" / "transcripts"
HEARTBEAT_REQUEST = '{"type":"agent:heartbeat:request"}'
HEARTBEAT_RESPONSE = '{"type":"agent:heartbeat:response"'
_LARGE = re.compile(r"\{obx\*(\d+)\}")


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that happened.

    `by`: agent, server, device, remote (whom messages are pushed to), api (a person's tool), raw (a hand-made socket
    client), host (the service manager), fault. `lane`: the connection: `http …`, `ws …`, `device …`, `remote …`, or
    `process`. `kind`: request, response (of HTTP:
    start line, the headers that matter, a blank line, the body), open, opened, frame, bytes, binary, ping, pong,
    close (with a code), cut (without), reset, stop, exit, note.
    """

    by: str
    lane: str
    kind: str
    text: str = ""

    def __str__(self) -> str:
        return f"{self.by} on {self.lane}: {self.kind} {self.text}"

    def saying(self, text: str) -> Line:
        """The same, in other words."""
        return replace(self, text=text)


@dataclass(frozen=True, slots=True)
class Transcript:
    """One scenario. `bots`: what the bots do, by their id; `resources`: as they were at the start."""

    scenario: str
    description: str
    bots: dict[str, str]
    resources: tuple[dict[str, Any], ...]
    lines: tuple[Line, ...]

    def resource(self, kind: str) -> list[dict[str, Any]]:
        return [resource for resource in self.resources if resource["resourceType"] == kind]

    def replies(self) -> list[tuple[Line, Line]]:
        """Every HTTP request with its response."""
        open_: dict[str, Line] = {}
        pairs = []
        for line in self.lines:
            if line.kind == "request":
                open_[line.lane] = line
            elif line.kind == "response":
                pairs.append((open_.pop(line.lane), line))
        return pairs


@cache
def load(scenario: str) -> Transcript:
    """The recording of this name."""
    content = json.loads((FOLDER / f"{scenario}.json").read_text(encoding="utf-8"))
    return Transcript(
        content["scenario"],
        content["description"],
        content["bots"],
        tuple(content["resources"]),
        tuple(Line(by, lane, kind, _whole(text)) for by, lane, kind, text in content["events"]),
    )


def frame_of(line: Line) -> dict[str, Any]:
    """The JSON object in a frame; empty for anything else."""
    if line.kind != "frame" or not line.lane.startswith("ws ") or not line.text.startswith("{"):
        return {}
    try:
        content = json.loads(line.text)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _whole(text: str) -> str:
    """A large message is kept without its observations: `{obx*300}` stands for 300 of them."""
    end = "\\r" if text.startswith("{") else "\r"
    return _LARGE.sub(
        lambda found: "".join(f"{end}OBX|{number}|TX|||{'x' * 990}" for number in range(int(found[1]))), text
    )
