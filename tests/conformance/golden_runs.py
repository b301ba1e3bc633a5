"""Which recordings are replayed, and several of them at a time.

Secret: most of a replay is waiting, for a process to start or for a clock; what waits longest begins first.
Promise: replays share nothing but the machine.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache

from differences import LEFT_OUT, rewritten
from golden_agent import AgentStage
from golden_agent_lines import lines_for_agent
from golden_hub import HubStage, lines_for_hub
from golden_replay import replay
from golden_transcript import FOLDER, load

AT_ONCE = 5
SLOW = (  # they wait for clocks
    "reconnect-server-unreachable",
    "ws-upgrade-timeout",
    "heartbeat-missed",
    "inbound-messages-per-min",
    "reconnect-tcp-drop",
    "start-server-down",
)


def _replays(party: str) -> tuple[str, ...]:
    """Every recording that this party takes part in, `of` whom if it is not the first agent; slow ones first."""
    names = []
    for path in sorted(FOLDER.glob("*.json"), key=lambda path: (path.stem not in SLOW, path.stem)):
        scenario = path.stem
        if any(left.party == party and scenario in left.scenarios for left in LEFT_OUT):
            continue
        if party == "server":
            names.append(scenario)
        else:
            lanes = {line.lane.rpartition("-")[0] for line in load(scenario).lines if line.by == "agent"}
            names += [scenario] + ([f"{scenario} of agent-2"] if "http agent-2" in lanes else [])
    return tuple(names)


AGENT_REPLAYS = _replays("agent")
HUB_REPLAYS = _replays("server")


@dataclass(frozen=True, slots=True)
class Replayed:
    """How our agent did.

    `read_again`: parts of the configuration that it read twice for one reason. `transmitted_s`: when each message went
    to the server, counted from the first that a device sent. `pages`: of its log, each with the number of lines that
    the server asked for and the time stamps of those that it got.
    """

    mismatches: list[str]
    read_again: list[str]
    transmitted_s: list[float]
    pages: list[tuple[int, list[str]]]


def lacking(name: str) -> str:
    """What this machine lacks for a replay of the agent; empty if nothing."""
    hosts = {"ping": ["127.0.0.1"], "ping-errors": ["127.0.0.1", "::1"]}.get(name, [])
    return ", ".join(f"no answer to a ping of {host}" for host in hosts if not _answers(host))


@cache
def _answers(host: str) -> bool:
    program = shutil.which("ping")
    return program is not None and subprocess.run([program, "-c", "1", host], capture_output=True).returncode == 0


async def replay_agents(names: list[str]) -> dict[str, Replayed]:
    """These replays (names of AGENT_REPLAYS); one that breaks off hides no other."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(name: str) -> Replayed:
        scenario, _, link = name.partition(" of ")
        transcript = load(scenario)
        lines = rewritten("agent", scenario, lines_for_agent(transcript, link or "agent"))
        async with gate, AgentStage.open(transcript, lines) as stage:
            mismatches = await replay(transcript, lines, stage)
        mismatches += [stage.complaint] if stage.complaint else []
        return Replayed(mismatches, stage.read_again, stage.transmitted_s, stage.pages)

    done = await asyncio.gather(*(one(name) for name in names), return_exceptions=True)
    return {
        name: Replayed([f"broken off: {how!r}"], [], [], []) if isinstance(how, BaseException) else how
        for name, how in zip(names, done, strict=True)
    }


async def replay_hub(scenario: str) -> list[str]:
    """What our hub did not say as recorded."""
    transcript = load(scenario)
    lines = rewritten("server", scenario, lines_for_hub(transcript))
    async with HubStage.open(transcript) as stage:
        return await replay(transcript, lines, stage)
