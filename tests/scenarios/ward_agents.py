"""The agent as the ward has it: a process of its own, seen only from the outside.

Secret: how the daemon is started, ended, killed and looked at.
Promise: `start` returns when the daemon says READY; whatever a scenario does, no process is left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import psutil

import agent

WITHIN_S = 15.0
REPOSITORY = Path(agent.__file__).parent.parent


class FarEnd(Protocol):
    """What an agent must know of its server."""

    @property
    def base_url(self) -> str: ...
    @property
    def client_id(self) -> str: ...
    @property
    def client_secret(self) -> str: ...
    @property
    def agent_id(self) -> str: ...


def environment_of(far_end: FarEnd, folder: Path) -> dict[str, str]:
    """What both the daemon and the commands about it are told; nothing of this machine's own settings."""
    return {
        "PATH": os.environ.get("PATH", ""),
        "PYTHONPATH": str(REPOSITORY),
        "HOME": str(folder),
        "AGENT_BASE_URL": far_end.base_url,
        "AGENT_CLIENT_ID": far_end.client_id,
        "AGENT_CLIENT_SECRET": far_end.client_secret,
        "AGENT_ID": far_end.agent_id,
        "AGENT_DIAGNOSTICS_LISTEN": "off",
    }


class AgentProcess:
    """`python -m agent run`. `data_dir` holds everything it writes."""

    def __init__(self, folder: Path, far_end: FarEnd, more: Mapping[str, str]) -> None:
        self.folder = folder
        self.data_dir = folder / "data"
        self._environment = {**environment_of(far_end, folder), **more}
        self._stderr = folder / "stderr.txt"
        self._process: asyncio.subprocess.Process | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start, and wait until it is ready: listening by the last good configuration, if there is one."""
        with contextlib.closing(_notifications(self.folder / "notify")) as ready:
            await self.begin(NOTIFY_SOCKET=str(self.folder / "notify"))
            try:
                async with asyncio.timeout(WITHIN_S):
                    while b"READY=1" not in await asyncio.get_running_loop().sock_recv(ready, 4096):
                        pass
            except TimeoutError:
                raise AssertionError(f"the agent did not get ready: {self.complaints()}") from None

    async def begin(self, **environment: str) -> None:
        """Start it, ready or not."""
        with self._stderr.open("ab") as stderr:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "agent", "run", "--data-dir", str(self.data_dir)),
                cwd=self.folder,
                env={**self._environment, **environment},
                stderr=stderr,
            )

    async def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()

    def terminate(self) -> None:
        """SIGTERM, as a service manager ends it."""
        assert self._process is not None
        self._process.terminate()

    def hang_up(self) -> None:
        """SIGHUP: reload."""
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    async def ended(self, *, within_s: float = WITHIN_S) -> int:
        """Its exit status, once it has ended. Raises TimeoutError."""
        assert self._process is not None
        async with asyncio.timeout(within_s):
            return await self._process.wait()

    async def leave(self) -> None:
        """The scenario is over."""
        if self.running:
            await self.kill()

    @property
    def rss_bytes(self) -> int:
        assert self._process is not None
        return int(psutil.Process(self._process.pid).memory_info().rss)

    async def ask(self, *words: str) -> tuple[int, str]:
        """`agent …` about this agent: exit status and what it printed."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "agent", *words, "--data-dir", str(self.data_dir)),
            cwd=self.folder,
            env=self._environment,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(WITHIN_S):
                output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode is not None
        return process.returncode, output.decode()

    async def status(self) -> dict[str, Any]:
        """`agent status --json`."""
        _, output = await self.ask("status", "--json")
        status: dict[str, Any] = json.loads(output)
        return status

    async def findings(self) -> dict[str, str]:
        """What the status screen warns of: text by code."""
        return {found["code"]: found["text"] for found in (await self.status())["findings"]}

    async def until(self, true: Callable[[dict[str, Any]], bool], *, within_s: float = WITHIN_S) -> dict[str, Any]:
        """Ask for the status until `true(status)`; that status. Raises AssertionError with the last one."""
        status: dict[str, Any] = {}
        try:
            async with asyncio.timeout(within_s):
                while True:
                    if true(status := await self.status()):
                        return status
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"it never came to be; the last status: {status}") from None

    def main_log(self) -> str:
        return "".join(path.read_text() for path in sorted((self.data_dir / "logs").glob("*-main-*")))

    def channel_log(self) -> str:
        return "".join(path.read_text() for path in sorted((self.data_dir / "logs").glob("*-channels-*")))

    def complaints(self) -> str:
        """What stands on stderr."""
        return self._stderr.read_text() if self._stderr.exists() else ""


def _notifications(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    ready = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    ready.bind(str(path))
    ready.setblocking(False)
    return ready
