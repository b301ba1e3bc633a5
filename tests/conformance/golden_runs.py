"""Which recordings are replayed, and several of them at a time.

Secret: most of a replay is waiting, for a process to start or for a clock; what waits longest begins first.
Promise: replays share nothing but the machine.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from differences import rewritten
from golden_agent import AgentStage, lines_for_agent
from golden_hub import HubStage, lines_for_hub
from golden_replay import replay
from golden_transcript import load

AT_ONCE = 5
SLOW = ("heartbeat", "wrong-client-secret", "token-refresh", "reconnect-tcp-drop")  # they wait for clocks
AGENT_REPLAYS = (
    *SLOW,
    "agent-status-off",
    "connect",
    "connect-minimal-access",
    "connect-no-channels",
    "connect-several-channels",
    "endpoint-status-off",
    "inbound-assign-seq-no",
    "inbound-bot-nak",
    "inbound-bot-no-return",
    "inbound-bot-throws",
    "inbound-encoding",
    "inbound-enhanced-aa",
    "inbound-enhanced-applevelack-al",
    "inbound-enhanced-applevelack-er",
    "inbound-enhanced-applevelack-ne",
    "inbound-enhanced-applevelack-su",
    "inbound-enhanced-device-sends-ack",
    "inbound-enhanced-invalid",
    "inbound-enhanced-true",
    "inbound-hl7",
    "inbound-hl7-device-gone",
    "inbound-hl7-out-of-order",
    "inbound-hl7-pipelined",
    "inbound-hl7-two-connections",
    "inbound-large",
    "inbound-line-endings",
    "inbound-no-control-id",
    "inbound-not-hl7",
    "malformed-agent-id",
    "reload-config",
    "server-to-agent-odd-frames",
    "wrong-agent-id",
    "wrong-client-id",
    "wrong-client-id of agent-2",
)


HUB_REPLAYS = (
    "api-unauthorized",
    "bulk-errors",
    "bulk-status",
    "client-to-server-odd-frames",
    "connect",
    "connect-minimal-access",
    "connect-no-channels",
    "connect-several-channels",
    "endpoint-status-off",
    "heartbeat",
    "inbound-bot-nak",
    "inbound-bot-no-return",
    "inbound-bot-throws",
    "inbound-encoding",
    "inbound-enhanced-aa",
    "inbound-hl7",
    "inbound-hl7-out-of-order",
    "inbound-hl7-pipelined",
    "inbound-hl7-two-connections",
    "inbound-large",
    "inbound-line-endings",
    "inbound-no-control-id",
    "malformed-agent-id",
    "reconnect-tcp-drop",
    "status",
    "token-refresh",
    "two-connections-same-agent",
    "wrong-agent-id",
    "wrong-client-id",
    "wrong-client-secret",
)


@dataclass(frozen=True, slots=True)
class Replayed:
    """How our agent did. `read_again`: parts of the configuration that it read twice for one reason."""

    mismatches: list[str]
    read_again: list[str]


async def replay_agents(names: list[str]) -> dict[str, Replayed]:
    """These replays (names of AGENT_REPLAYS); one that breaks off hides no other."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(name: str) -> Replayed:
        scenario, _, link = name.partition(" of ")
        transcript = load(scenario)
        lines = rewritten("agent", scenario, lines_for_agent(transcript, link or "agent"))
        async with gate, AgentStage.open(transcript, lines) as stage:
            mismatches = await replay(transcript, lines, stage)
        return Replayed(mismatches + ([stage.complaint] if stage.complaint else []), stage.read_again)

    done = await asyncio.gather(*(one(name) for name in names), return_exceptions=True)
    return {
        name: Replayed([f"broken off: {how!r}"], []) if isinstance(how, BaseException) else how
        for name, how in zip(names, done, strict=True)
    }


async def replay_hub(scenario: str) -> list[str]:
    """What our hub did not say as recorded."""
    transcript = load(scenario)
    lines = rewritten("server", scenario, lines_for_hub(transcript))
    async with HubStage.open(transcript) as stage:
        return await replay(transcript, lines, stage)
