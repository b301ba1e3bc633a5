"""What happens where a recording breaks off because the recorded agent did.

Secret: whose conversation ours is like from there on; another recording's, or its own before.
Promise: nothing is made up: every line that is added was recorded, with other ids or on another connection.
"""

from __future__ import annotations

import re
from dataclasses import replace

from golden_edits import Edit, Lines, Which
from golden_transcript import Line, Transcript, load

_CLIENT_ID = re.compile(r"client_id=([^&]+)")


def goes_on_as(other: str, scenario: str) -> Edit:
    """After the first login of this scenario everything goes as in the other one; the second login is the renewal."""

    def edit(lines: Lines) -> Lines:
        ours, theirs = load(scenario), load(other)
        ids = dict(zip(_ids(theirs), _ids(ours), strict=True))
        rest = [_renamed(one, ids) for one in theirs.lines if one.by != "note"][2:]
        end = next(number for number, one in enumerate(rest) if one.by == "host")
        return [*lines[:2], *rest[:end], *lines[2:4], *rest[end:]]

    return edit


def connects_again(after: Which, lane: str) -> Edit:
    """After such a line the fault is over and the agent is connected on this lane, as it was at first."""

    def edit(lines: Lines) -> Lines:
        first = next(one.lane for one in lines if one.kind == "open" and one.lane.startswith("ws "))
        introduction = [replace(one, lane=lane) for one in lines if one.lane == first and one.kind != "reset"]
        at = next(number for number, one in enumerate(lines) if after(one)) + 1
        return [*lines[:at], Line("fault", "server", "up"), *introduction, *lines[at:], Line("agent", lane, "cut")]

    return edit


def _ids(transcript: Transcript) -> list[str]:
    """The names that belong to one scenario: of its agent and of the client that it logs in as."""
    login = next(found for one in transcript.lines if (found := _CLIENT_ID.search(one.text)))
    return [str(transcript.resource("Agent")[0]["id"]), login[1]]


def _renamed(one: Line, ids: dict[str, str]) -> Line:
    text = one.text.replace("\nX-Medplum: extended", "")
    for theirs, ours in ids.items():
        text = text.replace(theirs, ours)
    return one.saying(text)
