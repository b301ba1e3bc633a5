"""Promise 10: a flood against a server that does not keep up costs disk, not memory; then it arrives in order, once."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from ward_agents import AgentProcess
from ward_building import Ward
from ward_devices import Device
from ward_messages import adt
from ward_servers import Asked, Link, ScriptedServer

MIB = 1 << 20
LIMIT_BYTES = 240 * MIB  # a window of 32 MiB on its way, 48 MiB that wait in memory, and their copies
SENDERS = 24
PIPELINE = 16


class Peak:
    """The most memory that the agent was seen with."""

    def __init__(self, agent: AgentProcess) -> None:
        self._agent = agent
        self.bytes = 0

    async def watch(self) -> None:
        while True:
            self.bytes = max(self.bytes, self._agent.rss_bytes)
            await asyncio.sleep(0.02)


@asynccontextmanager
async def watched(agent: AgentProcess) -> AsyncIterator[Peak]:
    peak = Peak(agent)
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(peak.watch())
        try:
            yield peak
        finally:
            watching.cancel()


async def flood(device: Device, name: str, number: int, size_bytes: int) -> None:
    """Send as fast as the agent takes it, `PIPELINE` messages ahead; every one must be accepted."""
    for first in range(0, number, PIPELINE):
        some = range(first, min(first + PIPELINE, number))
        await device.send(*(adt(f"{name}-{index:05d}", size_bytes=size_bytes) for index in some))
        for index in some:
            assert str(await device.hear(within_s=60)) == f"CA {name}-{index:05d}"


class Stalled:
    """A server that takes messages and answers nothing until `go_on`."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()

    async def __call__(self, asked: Asked) -> None:
        await self.go_on.wait()
        await asked.accept()


async def not_reading(server: ScriptedServer) -> Link:
    """Let the server not even read from its socket."""
    await server.until_live()
    (link,) = server.links
    link.hold()
    return link


@pytest.mark.parametrize(
    ("deaf", "number", "size_bytes", "key"),
    [
        pytest.param(False, 160, 64 * 1024, "", id="no answers"),
        pytest.param(False, 160, 64 * 1024, "MSH-10", id="no answers, as many in flight as may be"),
        pytest.param(True, 160, 64 * 1024, "MSH-10", id="not even reading, as many in flight as may be"),
        pytest.param(False, 600, 2_000, "", id="small messages"),
    ],
)
async def test_a_flood_against_a_stalled_server_stays_within_fixed_memory(
    ward: Ward, deaf: bool, number: int, size_bytes: int, key: str
) -> None:
    # given a server that is stalled
    server = await ward.server()
    port = ward.port()
    server.channel("adt", port, enhanced="true", appLevelAck="NE", ackTimeoutSecs=60, logicalChannelKey=key)
    stalled = server.script = Stalled()
    agent = await ward.running_agent(server)
    devices = [await ward.device(port, source=f"127.0.2.{1 + index}") for index in range(SENDERS)]
    link = await not_reading(server) if deaf else None

    async with watched(agent) as peak:
        # when many senders send as fast as they are let
        async with asyncio.TaskGroup() as senders:
            for index, device in enumerate(devices):
                senders.create_task(flood(device, f"S{index:02d}", number, size_bytes))
        spool = (await agent.status())["spool"]
        assert spool["sizeBytes"] > SENDERS * number * size_bytes
        assert spool["countsByState"]["processed"] == 0

        # and the server comes back to life
        if link is not None:
            link.resume()
        stalled.go_on.set()
        await server.until(lambda: len(server.heard) >= SENDERS * number, within_s=60)

    # then the agent's memory stayed within its limit, all the time
    assert peak.bytes < LIMIT_BYTES, f"{peak.bytes / MIB:.0f} MiB"

    # and everything arrived once, in the order of each sender
    order: dict[str, list[str]] = defaultdict(list)
    for asked in server.heard:
        order[asked.control_id[:3]].append(asked.control_id)
        assert asked.attempt == 1
    if key:
        order = {sender: sorted(control_ids) for sender, control_ids in order.items()}
    assert order == {
        f"S{index:02d}": [f"S{index:02d}-{each:05d}" for each in range(number)] for index in range(SENDERS)
    }
