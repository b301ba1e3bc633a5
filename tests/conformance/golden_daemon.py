"""The daemon under test as a process of its own, run as a service manager would.

Secret: its command line, its environment, its folder, and the clock that it is given.
Promise: `stop` ends it as a service manager does and `end` in any case; `complaint` says what was wrong with the way
it ended, empty if nothing was.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from pathlib import Path

import golden_clock
from golden_replay import WITHIN_S

import agent

STARTS_WITHIN_S = 60.0  # on a machine that does much else
REPOSITORY = Path(agent.__file__).parent.parent


class DaemonProcess:
    """One `agent run`. With `clock`, `skip` moves its clock on."""

    def __init__(self, folder: Path, *, clock: bool) -> None:
        self.complaint = ""
        self._folder = folder
        self._clock = clock
        self._process: asyncio.subprocess.Process

    async def start(self, base_url: str, client_id: str, client_secret: str, agent_id: str) -> None:
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "PYTHONPATH": str(REPOSITORY),
            "HOME": str(self._folder),
            "AGENT_BASE_URL": base_url,
            "AGENT_CLIENT_ID": client_id,
            "AGENT_CLIENT_SECRET": client_secret,
            "AGENT_ID": agent_id,
            "AGENT_DIAGNOSTICS_LISTEN": "off",
        }
        program = (golden_clock.__file__,) if self._clock else ("-m", "agent")
        with (self._folder / "stderr.txt").open("wb") as stderr:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, *program, "run", "--data-dir", str(self._folder / "data")),
                cwd=self._folder,
                env=environment,
                stdin=asyncio.subprocess.PIPE,
                stderr=stderr,
            )

    def skip(self, seconds: float) -> None:
        """Let this much of its time pass at once, when it has nothing else to do."""
        assert self._clock
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seconds}\n".encode())

    async def started(self) -> None:
        """Until it has started; one that does not is known by its silence."""
        with contextlib.suppress(TimeoutError):
            await self.logs("daemon.started", within_s=STARTS_WITHIN_S)

    async def logs(self, *events: str, within_s: float = WITHIN_S) -> None:
        """Until one of these events is in its main log, or it has ended. Raises TimeoutError."""
        async with asyncio.timeout(within_s):
            while self._process.returncode is None and not any(f'"{event}"' in self._log() for event in events):
                await asyncio.sleep(0.01)  # a log has no bell

    async def stop(self, skip_s: float = 0.0) -> None:
        """SIGTERM, and the end that it should bring, with so much of its time skipped on the way."""
        if self._process.returncode is not None:
            self.complaint = f"the daemon has ended by itself: {self._process.returncode}; {self._stderr()}"
            return
        self._process.terminate()
        if skip_s:
            self.skip(skip_s)
        async with asyncio.timeout(WITHIN_S):
            status = await self._process.wait()
        if status != 0 or "Traceback" in self._stderr():
            self.complaint = f"the daemon ended with {status}; {self._stderr()}"

    async def end(self) -> None:
        """Whatever it is doing."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()

    def _log(self) -> str:
        return "".join(path.read_text() for path in (self._folder / "data" / "logs").glob("*main*"))

    def _stderr(self) -> str:
        return (self._folder / "stderr.txt").read_text()
