"""Remotes of the ward: systems that the server pushes messages to.

Secret: MLLP as a stranger receives it, over a real socket; nothing of the agent's own code is used to judge the agent.
Promise: `heard` holds every message in the order of arrival, with the connection that it came on; what is answered is
decided by `script` alone; a remote can go away and come back on the same port.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ward_messages import ack_text, control_id_of

WITHIN_S = 10.0


@dataclass(frozen=True, slots=True)
class Pushed:
    """One message as it came. `connection` counts them from 1."""

    writer: asyncio.StreamWriter
    connection: int
    control_id: str
    body: str

    async def say(self, raw: bytes) -> None:
        """Write bytes as they are."""
        self.writer.write(raw)
        with contextlib.suppress(ConnectionError):
            await self.writer.drain()

    async def answer(self, code: str = "AA", *, control_id: str | None = None, text: str = "OK") -> None:
        ack = ack_text(self.control_id if control_id is None else control_id, code, text)
        await self.say(b"\x0b%b\x1c\r" % ack.encode())

    def hang_up(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        self.writer.transport.abort()


Script = Callable[[Pushed], Awaitable[None]]


async def accept(pushed: Pushed) -> None:
    await pushed.answer()


async def silence(pushed: Pushed) -> None:
    """Take the message and never answer."""


class Remote:
    """A listener on loopback. `open` and `most`: connections now, and the most at one time."""

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self.port = port
        self.script: Script = accept
        self.heard: list[Pushed] = []
        self.connections = self.open = self.most = 0
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._changed = asyncio.Event()

    def url(self, **parameters: object) -> str:
        query = "&".join(f"{name}={value}" for name, value in parameters.items())
        scheme = "mllps" if self._tls else "mllp"
        return f"{scheme}://127.0.0.1:{self.port}" + (f"?{query}" if query else "")

    async def come(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=32 << 20, ssl=self._tls)

    async def go(self) -> None:
        """Be away: nobody listens, every connection ends."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for writer in tuple(self._writers):
            writer.transport.abort()
        if server is not None:
            await server.wait_closed()
        await self.until(lambda: not self.open)

    async def until(self, true: Callable[[], bool], *, within_s: float = WITHIN_S) -> None:
        """Until `true()`, looked at whenever something happened here. Raises TimeoutError."""
        async with asyncio.timeout(within_s):
            while not true():
                self._changed.clear()
                await self._changed.wait()

    async def until_heard(self, *control_ids: str, within_s: float = WITHIN_S) -> None:
        wanted = set(control_ids)
        await self.until(lambda: wanted <= set(self.ids), within_s=within_s)

    @property
    def ids(self) -> list[str]:
        """MSH-10 of everything that came, in order."""
        return [pushed.control_id for pushed in self.heard]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        self.most = max(self.most, self.open)
        self._writers.add(writer)
        number = self.connections
        try:
            async with asyncio.TaskGroup() as scripts:
                with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
                    while True:
                        frame = await reader.readuntil(b"\x1c\r")
                        body = frame.removeprefix(b"\x0b")[:-2].decode()
                        pushed = Pushed(writer, number, control_id_of(body), body)
                        self.heard.append(pushed)
                        self._changed.set()
                        scripts.create_task(self._play(pushed))
        finally:
            self.open -= 1
            self._writers.discard(writer)
            self._changed.set()
            writer.close()

    async def _play(self, pushed: Pushed) -> None:
        with contextlib.suppress(ConnectionError):
            await self.script(pushed)
