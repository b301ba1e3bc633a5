"""Look everywhere where an agent tells people or machines how it is, for a patient's name.

Secret: which places these are. Promise: an agent that was looked at has ended, politely.
"""

from __future__ import annotations

import asyncio
import json

import aiohttp
from ward_agents import AgentProcess
from ward_messages import PATIENT_WORDS
from ward_servers import ScriptedServer


def assert_nobody_in(text: str, where: str) -> None:
    for word in PATIENT_WORDS:
        place = text.find(word)
        assert place < 0, f"{where} names the patient: …{text[max(0, place - 160) : place + 40]}…"


async def assert_nobody_is_named(agent: AgentProcess, server: ScriptedServer, metrics_url: str) -> None:
    """Neither people nor machines that look at the agent are told who the patient is."""
    verbs = (("status",), ("status", "--json"), ("channel", "list"), ("channel", "plan", "--from-server"))
    for words, (_, shown) in zip(verbs, await asyncio.gather(*(agent.ask(*words) for words in verbs)), strict=True):
        assert_nobody_in(shown, " ".join(words))
    async with aiohttp.ClientSession() as http:
        for path in ("metrics", "readyz", "healthz"):
            async with http.get(metrics_url + path) as answer:
                assert_nobody_in(await answer.text(), path)
    await server.until_live()
    said = len(server.frames)
    await server.links[-1].say({"type": "agent:stats:request", "callback": "stats"})
    await server.links[-1].say({"type": "agent:logs:request", "limit": 1000, "callback": "logs"})
    await server.until(lambda: {"stats", "logs"} <= {frame.get("callback") for frame in server.frames[said:]})
    about_us = [frame for frame in server.frames if frame.get("callback") in ("stats", "logs")]
    assert_nobody_in(json.dumps(about_us), "what the server is told about the agent")
    agent.terminate()
    await agent.ended()
    assert_nobody_in(agent.main_log(), "the main log")
    assert_nobody_in(agent.complaints(), "the console")
