"""The unmodified Medplum CLI, as a person has it."""

from __future__ import annotations

import asyncio
import json
import os
import re
from asyncio.subprocess import PIPE
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.hub import Hub

WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Cli:
    """`medplum …` with a home of its own. Each call is a process of its own, as for a person."""

    node: str
    script: Path
    home: Path

    async def run(self, *words: str) -> tuple[int, str]:
        """Exit status, and everything it printed."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MEDPLUM_")}
        environment = {**kept, "HOME": str(self.home), "USERPROFILE": str(self.home), "NO_COLOR": "1"}
        process = await asyncio.create_subprocess_exec(
            self.node, str(self.script), *words, stdout=PIPE, stderr=PIPE, env=environment, cwd=self.home
        )
        try:
            async with asyncio.timeout(WITHIN_S):
                out, err = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode is not None
        return process.returncode, out.decode() + err.decode()

    async def prints(self, *words: str) -> str:
        """What a call that succeeds printed."""
        status, printed = await self.run(*words)
        assert status == 0, printed
        return printed

    async def json(self, *words: str) -> Any:
        """The same, as JSON."""
        return json.loads(await self.prints(*words))

    async def is_refused(self, *words: str) -> str:
        """Why the server refused what a call asked for; it says so only when it is asked to be verbose."""
        status, printed = await self.run("--verbose", *words)
        assert status == 1, printed
        found = re.search(r"\[cause\]: \w+ \[OperationOutcomeError\]: (.*)", printed)
        assert found is not None, printed
        return found[1]

    async def log_in(self, hub: Hub) -> None:
        """From here on it finds base URL and credentials in its own profile."""
        await self.prints(
            "login",
            *("--auth-type", "client-credentials", "--base-url", hub.base_url),
            *("--client-id", hub.client_id, "--client-secret", hub.client_secret),
        )
