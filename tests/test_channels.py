"""Which listeners are wanted, which run, and how the one becomes the other without a sender noticing."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.channels import Channels
from agent.errors import ConfigError
from agent.flow.answers import Answers
from agent.flow.dispatcher import Dispatcher, Window
from agent.flow.intake import Intake, Limits
from agent.flow.lanes import Lane
from agent.flow.replies import Replies
from agent.flow.voice import Voice
from agent.metrics import ChannelMetrics
from agent.net.inlet import Room
from agent.protocol.envelope import TransmitRequest, TransmitResponse, decode_from_agent
from agent.protocol.hl7 import read_ack
from agent.protocol.mllp import wrap
from agent.spec import AckMode, ChannelSpec, LineSpec
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
            unanswered=64,
            room=Room(1 << 26),
            retry_s=0.02,
            sweep_s=0.02,
        )

    def _make_intake(self, lane: Lane) -> Intake:
        return Intake(
            lane,
            spool=self.spool,
            dispatcher=self.dispatcher,
            answers=self.answers,
            limits=Limits(),
            now_ms=lambda: time.time_ns() // 1_000_000,
            on_refusal=lambda *_: None,
        )

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


@pytest.fixture
async def hall(tmp_path: Path) -> AsyncIterator[Hall]:
    hall = Hall()
    events = SpoolEvents(hall.durable, hall.dispatcher.claimed, hall.refused, hall.dispatcher.unclaimed, lambda _: None)
    async with Spool.open(tmp_path / "spool.db", events, min_free_bytes=0) as hall.spool:
        hall.dispatcher.connect(hall.spool, hall.server)
        yield hall
        await hall.channels.close(drain_s=0.0)


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

    async def code(self) -> str:
        async with asyncio.timeout(WITHIN_S):
            ack = read_ack((await self.reader.readuntil(b"\x1c\r"))[1:-2])
        assert ack is not None
        return ack.code

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


async def until(so: object) -> None:
    """Poll: what is waited for happens inside another event loop callback, without a sound."""
    assert callable(so)
    async with asyncio.timeout(WITHIN_S):
        while not so():
            await asyncio.sleep(0.005)


# ---- starting


async def test_channels_listen_and_serve(hall: Hall) -> None:
    await hall.channels.apply([spec("adt"), spec("oru", ack_mode=AckMode.ENHANCED)])
    for name in ("adt", "oru"):
        async with device(hall.port(name)) as sender:
            assert await sender.is_served("M1")
    assert {frame.channel for frame in hall.server.heard} == {"adt", "oru"}


async def test_any_port_is_another_port_for_each_channel(hall: Hall) -> None:
    await hall.channels.apply([spec("a"), spec("b")])
    assert hall.port("a") != hall.port("b")


async def test_nothing_is_changed_when_one_address_cannot_be_had(hall: Hall) -> None:
    # given a channel at work, and a change of everything in which one port is taken
    await hall.channels.apply([spec("adt")])
    port, new = hall.port("adt"), free_port()
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        taken = stranger.getsockname()[1]
        async with device(port) as sender:
            wanted = [spec("adt", new), spec("x", taken), spec("y", 0, "192.0.2.1")]
            with pytest.raises(ConfigError) as caught:
                await hall.channels.apply(wanted)
            # then every problem is told, and the sender notices nothing
            assert [finding.where for finding in caught.value.findings] == ["x", "y"]
            assert await sender.is_served("M1")
    assert set(hall.channels.by_name) == {"adt"}
    assert hall.port("adt") == port
    assert await refuses(new)
    assert hall.channels.findings() == []


async def test_a_taken_port_does_not_keep_the_others_from_starting_and_is_had_later(hall: Hall) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        taken = stranger.getsockname()[1]
        await hall.channels.apply([spec("adt"), spec("oru", taken)], partial=True)
        [finding] = hall.channels.findings()
        assert (finding.code, finding.where) == ("channel.cannot-listen", "oru")
        async with device(hall.port("adt")) as sender:
            assert await sender.is_served("M1")
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(hall.channels.run())
            # when the other program lets go of it
            stranger.close()
            await until(lambda: hall.channels.by_name["oru"].inlet is not None)
            running.cancel()
    assert hall.channels.findings() == []
    async with device(taken) as sender:
        assert await sender.is_served("M2")


async def test_a_listener_that_died_is_brought_back_and_its_connections_stay(hall: Hall) -> None:
    await hall.channels.apply([spec("adt", free_port())])
    port = hall.port("adt")
    async with device(port) as sender:
        assert await sender.is_served("M1")
        listener = hall.channels.by_name["adt"].inlet
        assert listener is not None
        listener.stop_accepting()
        assert await refuses(port)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(hall.channels.run())
            await until(lambda: listener.listening)
            running.cancel()
        assert not await refuses(port)
        assert await sender.is_served("M2")


# ---- changing


async def test_other_parameters_on_the_same_address_keep_every_connection(hall: Hall) -> None:
    await hall.channels.apply([spec("adt")])
    port = hall.port("adt")
    async with device(port) as sender:
        assert await sender.is_served("M1")
        await hall.channels.apply([spec("adt", ack_mode=AckMode.ENHANCED, line=LineSpec(max_message_bytes=200))])
        sender.send("M2")
        assert await sender.code() == "CA"
        assert hall.port("adt") == port
        # and the new size limit holds for it too
        assert await sender.code() == "AA"
        sender.writer.write(wrap(message("M3") + b"x" * 1_000))
        assert await sender.code() == "CR"


async def test_a_port_that_moves_to_another_channel_is_never_closed(hall: Hall) -> None:
    port = free_port()
    await hall.channels.apply([spec("old", port)])
    async with device(port) as sender:
        assert await sender.is_served("M1")
        before = hall.channels.by_name["old"].inlet
        await hall.channels.apply([spec("new", port)])
        assert hall.channels.by_name["new"].inlet is before
        assert await sender.hears_the_end() == b""
    async with device(port) as sender:
        assert await sender.is_served("M2")
    assert [frame.channel for frame in hall.server.heard] == ["old", "new"]
    await until(lambda: hall.metrics("new").connections == 0)
    assert hall.metrics("old").connections == 0
    assert hall.metrics("new").connections_total == 1


async def test_two_channels_swap_their_ports_in_one_change(hall: Hall) -> None:
    one, two = free_port(), free_port()
    await hall.channels.apply([spec("a", one), spec("b", two)])
    await hall.channels.apply([spec("a", two), spec("b", one)])
    for port, name, control_id in ((one, "b", "M1"), (two, "a", "M2")):
        async with device(port) as sender:
            assert await sender.is_served(control_id)
        assert hall.server.heard[-1].channel == name


async def test_whoever_has_to_leave_gets_the_answer_it_is_owed_first(hall: Hall) -> None:
    port = free_port()
    await hall.channels.apply([spec("old", port)])
    hall.server.answers = False
    async with device(port) as sender:
        sender.send("M1")
        await until(lambda: hall.server.heard)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(hall.channels.apply([spec("new", port)]))
            await until(lambda: "new" in hall.channels.by_name)
            hall.server.accept(hall.server.heard[0])
            assert await sender.code() == "AA"
        assert await sender.hears_the_end() == b""


async def test_an_address_that_narrows_on_its_port_takes_over_at_once(hall: Hall) -> None:
    # both cannot be bound at one time, so the old one has to give way first
    port = free_port()
    await hall.channels.apply([spec("adt", port, "0.0.0.0")])
    await hall.channels.apply([spec("adt", port, "127.0.0.1")])
    async with device(port) as sender:
        assert await sender.is_served("M1")


async def test_an_address_that_cannot_take_over_leaves_the_old_one_listening(hall: Hall) -> None:
    # given a stranger on another address of the port: nobody can have all of it, even when we give way
    with socket.create_server(("127.0.0.2", 0)) as stranger:
        port = stranger.getsockname()[1]
        await hall.channels.apply([spec("adt", port)])
        async with device(port) as sender:
            for host in ("0.0.0.0", "192.0.2.1"):
                with pytest.raises(ConfigError):
                    await hall.channels.apply([spec("adt", port, host)])
            assert await sender.is_served("M1")
        async with device(port) as sender:
            assert await sender.is_served("M2")
        assert hall.channels.findings() == []


async def test_a_channel_that_is_taken_away_stops_listening_and_parks_its_messages(hall: Hall) -> None:
    await hall.channels.apply([spec("adt"), spec("oru")])
    port = hall.port("oru")
    hall.server.live = hall.server.writable = False
    async with device(port) as sender:
        sender.send("M1")
        await until(lambda: hall.spool.tally.open_of["oru"])
        await hall.channels.apply([spec("adt")])
        assert await refuses(port)
        assert await sender.hears_the_end() == b""
    lane = hall.dispatcher.lanes["oru"]
    assert lane.spec is None
    # when it comes back, they go
    hall.server.live = hall.server.writable = True
    await hall.channels.apply([spec("adt"), spec("oru")])
    await until(lambda: [frame.channel for frame in hall.server.heard] == ["oru"])


async def test_the_same_again_changes_nothing(hall: Hall) -> None:
    wanted = [spec("adt"), spec("oru")]
    await hall.channels.apply(wanted)
    listeners = [channel.inlet for channel in hall.channels.by_name.values()]
    async with device(hall.port("adt")) as sender:
        await hall.channels.apply(wanted)
        assert [channel.inlet for channel in hall.channels.by_name.values()] == listeners
        assert await sender.is_served("M1")


async def test_changes_come_one_after_the_other(hall: Hall) -> None:
    one, two = free_port(), free_port()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(hall.channels.apply([spec("adt", one)]))
        tasks.create_task(hall.channels.apply([spec("adt", two)]))
    assert hall.port("adt") == two
    assert await refuses(one)


# ---- the disk, and the end


async def test_a_crowded_disk_stops_the_senders_that_crowd_it_until_it_has_caught_up(hall: Hall) -> None:
    await hall.channels.apply([spec("adt")])
    async with device(hall.port("adt")) as sender:
        hall.crowded = True
        sender.send("M1")
        assert await sender.code() == "AA"
        sender.send("M2")
        [connection] = hall.channels.by_name["adt"].inlet.connections  # type: ignore[union-attr]
        assert connection._gated
        hall.crowded = False
        hall.channels.relieve()
        assert await sender.code() == "AA"


async def test_closing_answers_what_was_taken_and_refuses_newcomers(hall: Hall) -> None:
    await hall.channels.apply([spec("adt")])
    port = hall.port("adt")
    hall.server.answers = False
    async with device(port) as sender, asyncio.TaskGroup() as tasks:
        sender.send("M1")
        await until(lambda: hall.server.heard)
        tasks.create_task(hall.channels.close(drain_s=WITHIN_S))
        await asyncio.sleep(0)
        assert await refuses(port)
        hall.server.accept(hall.server.heard[0])
        assert await sender.code() == "AA"
        assert await sender.hears_the_end() == b""
