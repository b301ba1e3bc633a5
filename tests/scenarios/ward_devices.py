"""Devices of the ward: what sends messages and waits for answers.

Secret: MLLP over a real socket, from a source address of its own where several wards are to be told apart.
Promise: a device hears exactly what was written to it, in order, or says that the connection ended.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field

from ward_messages import Heard, adt

WITHIN_S = 10.0
_KNOCK_EVERY_S = 0.02


class Device:
    """One connection. `heard`: every answer so far."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.heard: list[Heard] = []

    @classmethod
    async def connect(cls, port: int, *, source: str = "127.0.0.1", within_s: float = WITHIN_S) -> Device:
        """Connect as soon as somebody listens. Raises TimeoutError."""
        async with asyncio.timeout(within_s):
            while True:
                try:
                    reader, writer = await asyncio.open_connection(
                        "127.0.0.1", port, local_addr=(source, 0), limit=32 << 20
                    )
                except (ConnectionRefusedError, ConnectionResetError):  # not there yet, or just leaving
                    await asyncio.sleep(_KNOCK_EVERY_S)
                else:
                    return cls(reader, writer)

    @property
    def address(self) -> str:
        host, port = self._writer.get_extra_info("sockname")[:2]
        return f"{host}:{port}"

    async def send(self, *messages: bytes) -> None:
        self._writer.write(b"".join(b"\x0b%b\x1c\r" % message for message in messages))
        await self._writer.drain()

    async def hear(self, *, within_s: float = WITHIN_S) -> Heard:
        """The next answer. Raises TimeoutError, or ConnectionError when the connection has ended."""
        async with asyncio.timeout(within_s):
            try:
                frame = await self._reader.readuntil(b"\x1c\r")
            except asyncio.IncompleteReadError as cut:
                after = " in the middle of an answer" if cut.partial else ""
                raise ConnectionResetError(f"the agent ended the connection{after}") from cut
        assert frame[:1] == b"\x0b", f"bytes between two answers: {frame[:20]!r}"
        heard = Heard.read(frame[1:-2])
        self.heard.append(heard)
        return heard

    async def ask(self, message: bytes, *, within_s: float = WITHIN_S) -> Heard:
        await self.send(message)
        return await self.hear(within_s=within_s)

    async def hear_until(self, control_id: str, *, answers: int = 1, within_s: float = WITHIN_S) -> list[str]:
        """Everything heard from now on, until `answers` answers have come for `control_id`, as `CODE id`.

        Answers on one connection arrive in the order of writing, so the answer to a later message proves what was
        and what was not written before it.
        """
        said: list[str] = []
        async with asyncio.timeout(within_s):
            while sum(word.endswith(f" {control_id}") for word in said) < answers:
                said.append(str(await self.hear(within_s=within_s)))
        return said

    async def ended(self, *, within_s: float = WITHIN_S) -> None:
        """Until the agent has closed the connection, with nothing more said."""
        async with asyncio.timeout(within_s):
            assert await self._reader.read() == b""

    async def hang_up(self) -> None:
        self._writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()


async def refused(port: int) -> bool:
    """Whether nobody listens on this port."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:  # it was about to go
        return False
    writer.transport.abort()
    return False


@dataclass(slots=True)
class Station:
    """A sender that never gives up: numbered messages, one at a time, each repeated until it is accepted.

    `accepted`: control ids with a positive answer, in that order; each sets `progress`.
    """

    name: str
    port: int
    source: str
    progress: asyncio.Event
    accepted: list[str] = field(default_factory=list)

    async def work(self, enough: asyncio.Event) -> None:
        """Until `enough` is set and the last message is accepted."""
        device: Device | None = None
        number = 0
        try:
            while not enough.is_set():
                number += 1
                control_id = f"{self.name}-{number:06d}"
                while not self.accepted or self.accepted[-1] != control_id:
                    try:
                        if device is None:
                            device = await Device.connect(self.port, source=self.source, within_s=30)
                        await device.send(adt(control_id))
                        await self._hear_about(control_id, device)
                    except (ConnectionError, OSError):
                        if device is not None:
                            await device.hang_up()
                        device = None
        finally:
            if device is not None:
                await device.hang_up()

    async def _hear_about(self, control_id: str, device: Device) -> None:
        while True:
            heard = await device.hear(within_s=30)
            if heard.control_id != control_id:
                continue  # the application's later word about an earlier message
            if heard.code in ("AA", "CA"):
                self.accepted.append(control_id)
                self.progress.set()
            return
