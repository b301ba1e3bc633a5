"""`agent channel …` in a process of its own, about a daemon and a hub that run in this one."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.hub import Hub


@dataclass(frozen=True, slots=True)
class Answer:
    """What the command left behind."""

    status: int
    out: str
    err: str

    @property
    def facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads(self.out)
        return facts


@dataclass(frozen=True, slots=True)
class Desk:
    """`folder`: where the agent's data directory `agent` is."""

    folder: Path
    hub: Hub | None = None

    async def types(self, *words: str, stdin: str = "") -> Answer:
        done = await asyncio.to_thread(self._run, words, stdin)
        return Answer(done.returncode, done.stdout, done.stderr)

    def _run(self, words: tuple[str, ...], stdin: str) -> subprocess.CompletedProcess[str]:
        env = {"PATH": "/nowhere", "PYTHONPATH": os.pathsep.join(sys.path), "HOME": str(self.folder), "COLUMNS": "120"}
        if self.hub is not None:
            env |= {
                "AGENT_BASE_URL": self.hub.base_url,
                "AGENT_CLIENT_ID": self.hub.client_id,
                "AGENT_CLIENT_SECRET": self.hub.client_secret,
                "AGENT_ID": self.hub.agent_id,
            }
        command = [sys.executable, "-P", "-m", "agent", "channel", *words, "--data-dir", str(self.folder / "agent")]
        return subprocess.run(
            command, env=env, cwd=self.folder, input=stdin, capture_output=True, text=True, timeout=60, check=False
        )

    def writes(self, name: str, content: object) -> str:
        """A file of JSON; its path."""
        path = self.folder / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return str(path)


def agent_of(agent_id: str, *names: str) -> dict[str, Any]:
    channels = [{"name": name, "endpoint": {"reference": f"Endpoint/{name}"}} for name in names]
    return {"resourceType": "Agent", "id": agent_id, "status": "active", "name": "ward", "channel": channels}


def endpoint(name: str, address: str) -> dict[str, Any]:
    return {"resourceType": "Endpoint", "id": name, "status": "active", "address": address}


def document(agent_id: str, **channels: str) -> dict[str, Any]:
    """A configuration as a person writes it."""
    return {
        "agent": agent_of(agent_id, *channels),
        "endpoints": [endpoint(name, address) for name, address in channels.items()],
    }
