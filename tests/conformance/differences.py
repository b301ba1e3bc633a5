"""Where we mean to be different from the recorded agent and server, each with the reason.

This table is documentation and the tests read it. Every recording in tests/data/transcripts is rewritten by the
entries that name its scenario; what comes out is what our agent (party `agent`) and our hub (party `server`) must say,
word for word. An entry that changes no recording fails the tests, and so does one that we do not live up to.

The entries stand in `differences_of_agent`, `differences_of_pushes` and `differences_of_hub`. At the end of this file:
which recordings one of the two takes no part in.
"""

from __future__ import annotations

from differences_of_agent import OF_THE_AGENT
from differences_of_hub import OF_THE_HUB
from differences_of_pushes import OF_PUSHES
from golden_difference import LeftOut
from golden_edits import Lines

DIFFERENCES = (*OF_THE_AGENT, *OF_PUSHES, *OF_THE_HUB)


def rewritten(party: str, scenario: str, lines: Lines) -> Lines:
    """The recording of this scenario as we want it."""
    for difference in DIFFERENCES:
        if difference.applies_to(party, scenario):
            lines = difference.edit(lines)
    return lines


LEFT_OUT: tuple[LeftOut, ...] = (
    LeftOut(
        "agent",
        ("agent-offline", "api-unauthorized", "client-to-server-odd-frames", "push-agent-offline"),
        "No agent takes part in these: a tool or a hand-made client talks to the server.",
    ),
    LeftOut(
        "server",
        ("server-to-agent-odd-frames",),
        "What is odd in it was handed to the agent through the server, which says none of it by itself.",
    ),
)
