"""Channels on real sockets and a real spool, with a server that accepts everything, and senders for them."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from agent.channels import Channels
from agent.flow.answers import Answers
from agent.flow.byteintake import ByteIntake
from agent.flow.dispatcher import Dispatcher, Window
from agent.flow.intake import Intake
from agent.flow.lanes import Lane
from agent.flow.reception import Limits, Means, Reception
from agent.flow.replies import Replies
from agent.flow.voice import Voice
from agent.inlets import Openings
from agent.metrics import ChannelMetrics
from agent.net.inlet import Room
from agent.protocol.envelope import TransmitRequest, TransmitResponse, decode_from_agent
from agent.protocol.hl7 import Acknowledgement, read_ack
from agent.protocol.mllp import wrap
from agent.spec import ByteStream, ChannelSpec
from agent.store.row import Row
from agent.store.spool import Spool, SpoolEvents
from agent.store.sqlite import SpoolTrouble

WITHIN_S = 10.0


class Server:
    """A server that accepts everything, as soon as it is let."""

    def __init__(self) -> None:
        self.live = self.writable = True
        self.answers = True
        self.heard: list[TransmitRequest] = []
        self.dispatcher: Dispatcher

    def send(self, frames: list[bytes]) -> None:
        for frame in map(decode_from_agent, frames):
            assert isinstance(frame, TransmitRequest)
            self.heard.append(frame)
            if self.answers:
                asyncio.get_running_loop().call_soon(self.accept, frame)

    def accept(self, frame: TransmitRequest) -> None:
        self.dispatcher.answered([TransmitResponse(frame.channel, frame.remote, callback=frame.callback)])


class Hall:
    """Channels on real sockets and a real spool."""

    def __init__(self) -> None:
        self.server = Server()
        self.replies = Replies(lambda row: self.channels.by_name[row.channel].intake.late(row), time.monotonic)
        self.answers = Answers(self.replies, Voice())
        self.dispatcher = Dispatcher(
            answers=self.answers,
            token=lambda: "token",
            agent_id="agent",
            window=Window(),
            now=time.monotonic,
            now_ms=lambda: time.time_ns() // 1_000_000,
        )
        self.server.dispatcher = self.dispatcher
        self.spool: Spool
        self.crowded = False
        self.channels = Channels(
            dispatcher=self.dispatcher,
            replies=self.replies,
            make_intake=self._make_intake,
            crowded=lambda: self.crowded,
            openings=Openings(Room(1 << 26), 64, Path("objects")),
            retry_s=0.02,
            sweep_s=0.02,
        )

    def _make_intake(self, lane: Lane, spec: ChannelSpec) -> Reception:
        means = Means(
            spool=self.spool,
            dispatcher=self.dispatcher,
            answers=self.answers,
            limits=Limits(),
            now_ms=lambda: time.time_ns() // 1_000_000,
            on_refusal=lambda *_: None,
        )
        return ByteIntake(lane, means) if isinstance(spec.wire, ByteStream) else Intake(lane, means)

    def durable(self, rows: list[Row]) -> None:
        self.dispatcher.durable(rows)
        self.channels.durable(rows)

    def refused(self, rows: list[Row], trouble: SpoolTrouble) -> None:
        self.dispatcher.refused(rows)
        self.channels.refused(rows, trouble)

    def port(self, name: str) -> int:
        listener = self.channels.by_name[name].inlet
        assert listener is not None
        return listener.port

    def metrics(self, name: str) -> ChannelMetrics:
        return self.channels.metrics[name]


@asynccontextmanager
async def a_hall(folder: Path) -> AsyncIterator[Hall]:
    """At work for the block."""
    hall = Hall()
    events = SpoolEvents(hall.durable, hall.dispatcher.claimed, hall.refused, hall.dispatcher.unclaimed, lambda _: None)
    async with Spool.open(folder / "spool.db", events, min_free_bytes=0) as hall.spool:
        hall.dispatcher.connect(hall.spool, hall.server)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(hall.channels.run())
            try:
                yield hall
                await hall.channels.close(drain_s=0.0)
            finally:
                hall.channels.cut()
                running.cancel()


def spec(name: str, port: int = 0, host: str = "127.0.0.1", **more: object) -> ChannelSpec:
    return dataclasses.replace(ChannelSpec(name, f"mllp://{host}:{port}", host, port), **more)  # type: ignore[arg-type]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def message(control_id: str = "M1") -> bytes:
    return f"MSH|^~\\&|ADT1|GHH|LAB|GHH|20261122101500||ADT^A01|{control_id}|P|2.5.1\rPID|1||P1\r".encode()


class Device:
    """A sender with an ordinary TCP client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, control_id: str = "M1") -> None:
        self.writer.write(wrap(message(control_id)))

    async def answer(self) -> Acknowledgement:
        async with asyncio.timeout(WITHIN_S):
            ack = read_ack((await self.reader.readuntil(b"\x1c\r"))[1:-2])
        assert ack is not None
        return ack

    async def code(self) -> str:
        return (await self.answer()).code

    async def is_served(self, control_id: str) -> bool:
        self.send(control_id)
        return await self.code() in ("AA", "CA")

    async def hears_the_end(self) -> bytes:
        async with asyncio.timeout(WITHIN_S):
            return await self.reader.read()


@asynccontextmanager
async def device(port: int, host: str = "127.0.0.1") -> AsyncIterator[Device]:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        yield Device(reader, writer)
    finally:
        writer.transport.abort()


async def refuses(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return True
    writer.transport.abort()
    return False


async def until(so: Callable[[], object]) -> None:
    """Poll: what is waited for happens inside another event loop callback, without a sound."""
    async with asyncio.timeout(WITHIN_S):
        while not so():
            await asyncio.sleep(0.005)
