"""What stands around Medplum's tools in these tests: an agent as a service runs it, and a laboratory to push to.

Secret: how the agent is started and ended, and how python-hl7 serves MLLP.
Promise: when a block is left nothing of it runs any more, and an agent that did not end well makes the test fail.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from hl7.mllp import HL7StreamReader, HL7StreamWriter, start_hl7_server

import agent
from agent.hub import Hub

WITHIN_S = 20.0
REPOSITORY = Path(agent.__file__).parent.parent


@asynccontextmanager
async def an_agent(hub: Hub, folder: Path) -> AsyncIterator[None]:
    """`agent run` for the hub's ready-made agent, which has no channels, connected while the block runs."""
    await hub.put_agent("ward", {}, agent_id=hub.agent_id)
    folder.mkdir()
    complaints = folder / "stderr.txt"
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "PYTHONPATH": str(REPOSITORY),
        "HOME": str(folder),
        "AGENT_BASE_URL": hub.base_url,
        "AGENT_CLIENT_ID": hub.client_id,
        "AGENT_CLIENT_SECRET": hub.client_secret,
        "AGENT_ID": hub.agent_id,
        "AGENT_DIAGNOSTICS_LISTEN": "off",
    }
    with complaints.open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "agent", "run", "--data-dir", str(folder / "data")),
            cwd=folder,
            env=environment,
            stderr=stderr,
        )
    try:
        await hub.wait_for_agent(within_s=WITHIN_S)
        yield
        process.terminate()
        async with asyncio.timeout(WITHIN_S):
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert (process.returncode, "Traceback" in complaints.read_text()) == (0, False), complaints.read_text()


class Laboratory:
    """An MLLP receiver by python-hl7. `heard`: every message as text; `says`: MSA-1 of what it answers."""

    def __init__(self, place: socket.socket) -> None:
        self.port: int = place.getsockname()[1]
        self.says = "AA"
        self.heard: list[str] = []
        self._place = place
        self._arrived = asyncio.Event()
        self._writers: set[HL7StreamWriter] = set()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """It listens while the block runs."""
        server = await start_hl7_server(self._converse, sock=self._place, encoding="utf-8")
        try:
            yield
        finally:
            server.close()
            for writer in tuple(self._writers):
                writer.close()
            await server.wait_closed()

    async def has_heard(self, count: int = 1) -> None:
        """Until so many messages have come. Raises TimeoutError."""
        async with asyncio.timeout(WITHIN_S):
            while len(self.heard) < count:
                self._arrived.clear()
                await self._arrived.wait()

    async def _converse(self, reader: HL7StreamReader, writer: HL7StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while True:
                message = await reader.readmessage()
                self.heard.append(str(message))
                self._arrived.set()
                writer.writemessage(message.create_ack(self.says))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()


@contextmanager
def a_laboratory() -> Iterator[Laboratory]:
    """One that is away until it is opened: its port is its own, and whoever connects there is refused."""
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        yield Laboratory(place)
