"""Promise: whatever the order of reloads, connections of untouched channels live and nothing acknowledged is lost.

Two hundred random sequences of changes to a small hospital's channels, under traffic, and some long ones: channels
come, go, change their parameters, move, swap their ports, widen their addresses, speak something else, and some changes
cannot be had.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import random
import socket
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from channel_hall import Device, Hall, a_hall, device, spec, until
from hypothesis import HealthCheck, settings, strategies
from hypothesis.stateful import RuleBasedStateMachine, rule
from ward_building import Ward, free_port
from ward_messages import adt

from agent.changes import Action
from agent.errors import ConfigError
from agent.net.inlet import Conversation
from agent.spec import AckMode, ByteStream, ChannelSpec, LineSpec, Mllp

STEPS = 50
SEEDS = strategies.integers(0, 1 << 32)
NAMES = [f"c{number}" for number in range(6)]
HOSTS = ["127.0.0.1", "0.0.0.0"]
MODES = [AckMode.ORIGINAL, AckMode.ENHANCED, AckMode.ENHANCED_AA]
DROPS = (Action.REBIND, Action.STOP)


class House:
    """What is in force, what becomes of it, and what its senders saw."""

    def __init__(self, hall: Hall, draw: random.Random) -> None:
        self.hall = hall
        self.draw = draw
        self.ports = [free_port() for _ in range(9)]
        self.wanted: dict[str, ChannelSpec] = {}
        self.dropped: Counter[str] = Counter()  # how often a channel's connections had to go
        self.changing: set[str] = set()
        self.acknowledged: set[str] = set()
        self.complaints: list[str] = []
        self.lived = 0  # connections that outlived a reload
        self._ids = itertools.count()

    # ---- changes

    def next(self) -> dict[str, ChannelSpec]:
        """Another configuration, which can be had."""
        wanted = dict(self.wanted)
        for _ in range(self.draw.randint(1, 3)):
            change = self.draw.choice(
                [self._add, self._remove, self._set, self._move, self._swap, self._rehost, self._speak]
            )
            change(wanted)
        return wanted

    def _free(self, wanted: dict[str, ChannelSpec]) -> int:
        return self.draw.choice([port for port in self.ports if port not in {each.port for each in wanted.values()}])

    def _some(self, wanted: dict[str, ChannelSpec], count: int = 1) -> list[str]:
        return self.draw.sample(sorted(wanted), count) if len(wanted) >= count else []

    def _add(self, wanted: dict[str, ChannelSpec]) -> None:
        missing = [name for name in NAMES if name not in wanted]
        if missing:
            name = self.draw.choice(missing)
            wanted[name] = spec(name, self._free(wanted), self.draw.choice(HOSTS), ack_mode=self.draw.choice(MODES))

    def _remove(self, wanted: dict[str, ChannelSpec]) -> None:
        for name in self._some(wanted) if len(wanted) > 2 else []:
            del wanted[name]

    def _set(self, wanted: dict[str, ChannelSpec]) -> None:
        for name in self._some(wanted):
            line = LineSpec(max_connections=self.draw.randint(20, 99))
            wanted[name] = dataclasses.replace(wanted[name], ack_mode=self.draw.choice(MODES), line=line)

    def _move(self, wanted: dict[str, ChannelSpec]) -> None:
        for name in self._some(wanted):
            wanted[name] = dataclasses.replace(wanted[name], port=self._free(wanted))

    def _swap(self, wanted: dict[str, ChannelSpec]) -> None:
        if pair := self._some(wanted, 2):
            one, two = (wanted[name] for name in pair)
            wanted[one.name] = dataclasses.replace(one, port=two.port)
            wanted[two.name] = dataclasses.replace(two, port=one.port)

    def _rehost(self, wanted: dict[str, ChannelSpec]) -> None:
        for name in self._some(wanted):
            wanted[name] = dataclasses.replace(wanted[name], host=self.draw.choice(HOSTS))

    def _speak(self, wanted: dict[str, ChannelSpec]) -> None:
        for name in self._some(wanted):
            wire = self.draw.choice([Mllp(), Mllp(), ByteStream(start=2, end=3)])
            wanted[name] = dataclasses.replace(wanted[name], wire=wire)

    async def reload(self) -> None:
        """One change that can be had; the senders of what it touches are let off."""
        wanted = self.next()
        channels = self.hall.channels
        before = self.connections
        outlook = await channels.outlook(wanted.values())
        assert outlook.problems == ()
        touched = {change.channel for change in outlook.changes if change.action is not Action.KEEP}
        self.changing |= touched
        self.dropped.update(change.channel for change in outlook.changes if change.action in DROPS)
        done = await channels.apply(wanted.values())
        assert {each.channel: each.action for each in done} == {each.channel: each.action for each in outlook.changes}
        self.wanted = wanted
        self.changing -= touched
        self.lived += len(before & self.connections)

    @property
    def connections(self) -> set[Conversation]:
        inlets = [channel.inlet for channel in self.hall.channels.by_name.values() if channel.inlet is not None]
        return {connection for inlet in inlets for connection in inlet.connections}

    async def reload_in_vain(self) -> None:
        """A change that cannot be had: nothing is touched, so nobody is let off."""
        wanted = self.next()
        with socket.create_server(("127.0.0.1", 0)) as stranger:
            broken = spec("broken", stranger.getsockname()[1])
            with pytest.raises(ConfigError) as caught:
                await self.hall.channels.apply([*wanted.values(), broken])
        assert {finding.where for finding in caught.value.findings} == {"broken"}
        assert {name: channel.spec for name, channel in self.hall.channels.by_name.items()} == self.wanted

    # ---- traffic

    async def send(self, name: str) -> None:
        """A sender that never stops, and connects again when it has to."""
        while True:
            wanted = self.wanted.get(name)
            if wanted is None or not isinstance(wanted.wire, Mllp) or name in self.changing:
                await asyncio.sleep(0.005)
                continue
            drops = self.dropped[name]
            try:
                async with device(wanted.port) as sender:
                    await self._talk(name, sender)
            except (OSError, asyncio.IncompleteReadError) as lost:
                if self.dropped[name] == drops:
                    self.complaints.append(f"{name}: {lost!r}")

    async def _talk(self, name: str, sender: Device) -> None:
        while True:
            control_id = f"{name}-{next(self._ids)}"
            sender.send(control_id)
            answer = await sender.answer()
            while answer.control_id != control_id.encode():  # the application's, of an earlier one
                answer = await sender.answer()
            if answer.code in ("AA", "CA"):
                self.acknowledged.add(control_id)
            await asyncio.sleep(0.002)


async def lived_through(folder: Path, draw: random.Random, steps: int) -> None:
    """A sequence of reloads under traffic, and all that has to be true during it and afterwards."""
    async with a_hall(folder) as hall:
        house = House(hall, draw)
        await house.reload()
        async with asyncio.TaskGroup() as tasks:
            senders = [tasks.create_task(house.send(name)) for name in NAMES for _ in range(2)]
            for _ in range(steps):
                heard = len(hall.server.heard)
                vain = house.draw.random() < 0.2
                await (house.reload_in_vain() if vain else house.reload())
                if any(isinstance(each.wire, Mllp) for each in house.wanted.values()):
                    await until(lambda heard=heard: len(hall.server.heard) > heard + 10)  # type: ignore[misc]
            for sender in senders:
                sender.cancel()
        assert house.lived > steps, "there were connections to be broken"
        assert len(house.acknowledged) > steps
        await nothing_is_lost(house)


async def nothing_is_lost(house: House) -> None:
    """No sender has complained, and when every channel is back, so that nothing waits for one, all is delivered."""
    assert house.complaints == []
    hall = house.hall
    await hall.channels.apply([spec(name, port) for name, port in zip(NAMES, house.ports, strict=False)])
    await until(lambda: house.acknowledged <= {control_id_of(each.body) for each in hall.server.heard})


@pytest.mark.parametrize("seed", range(2))
async def test_no_untouched_connection_breaks_and_no_acknowledged_message_is_lost(tmp_path: Path, seed: int) -> None:
    await lived_through(tmp_path, random.Random(seed), STEPS)


class Reloads(RuleBasedStateMachine):
    """A house at work, and whatever order of reloads hypothesis comes up with; it shrinks the one that fails."""

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.new_event_loop()
        self._folder = tempfile.TemporaryDirectory()
        self._orders: asyncio.Queue[Callable[[House], Awaitable[None]] | None] = asyncio.Queue()
        self._done: asyncio.Queue[Exception | None] = asyncio.Queue()
        self._life = self._loop.create_task(self._live())
        self._in_the_house(House.reload, seed=0)

    async def _live(self) -> None:
        """One task, for what is opened in it is closed in it."""
        async with a_hall(Path(self._folder.name)) as hall:
            house = House(hall, random.Random())
            async with asyncio.TaskGroup() as tasks:
                senders = [tasks.create_task(house.send(name)) for name in NAMES for _ in range(2)]
                while (order := await self._orders.get()) is not None:
                    try:
                        await order(house)
                    except Exception as error:
                        self._done.put_nowait(error)
                    else:
                        self._done.put_nowait(None)
                for sender in senders:
                    sender.cancel()
            await nothing_is_lost(house)

    def _in_the_house(self, order: Callable[[House], Awaitable[None]], seed: int) -> None:
        async def with_traffic(house: House) -> None:
            house.draw = random.Random(seed)
            heard = len(house.hall.server.heard)
            await order(house)
            if any(isinstance(each.wire, Mllp) for each in house.wanted.values()):
                await until(lambda: len(house.hall.server.heard) > heard + 5)
            assert house.complaints == []

        self._orders.put_nowait(with_traffic)
        if (error := self._loop.run_until_complete(self._done.get())) is not None:
            raise error

    @rule(seed=SEEDS)
    def a_reload(self, seed: int) -> None:
        self._in_the_house(House.reload, seed)

    @rule(seed=SEEDS)
    def a_reload_that_cannot_be_had(self, seed: int) -> None:
        self._in_the_house(House.reload_in_vain, seed)

    def teardown(self) -> None:
        try:
            self._orders.put_nowait(None)
            self._loop.run_until_complete(self._life)
        finally:
            self._loop.close()
            self._folder.cleanup()


TestReloads = Reloads.TestCase
TestReloads.settings = settings(
    max_examples=200, stateful_step_count=6, deadline=None, suppress_health_check=list(HealthCheck)
)


async def test_a_real_agent_keeps_an_untouched_connection_through_many_reloads(ward: Ward) -> None:
    # given a sender on a channel that nobody touches, in an agent with three others
    draw = random.Random(7)
    server = await ward.server()
    still, ports = ward.port(), [ward.port() for _ in range(6)]
    server.channel("still", still)
    agent = await ward.running_agent(server)
    device = await ward.device(still)
    for step in range(12):
        # when the others come, go, move and change
        for name in ("a", "b", "c"):
            server.endpoints.pop(name, None)
        for name, port in zip(("a", "b", "c")[: draw.randint(0, 3)], draw.sample(ports, 3), strict=False):
            server.channel(name, port, maxConnections=draw.randint(1, 9))
        await server.until_live()
        await server.links[-1].say({"type": "agent:reloadconfig:request", "callback": f"step-{step}"})
        assert (await server.answer_to(f"step-{step}"))["type"] == "agent:reloadconfig:response"
        # then its connection is the same one, and the others listen where they should
        assert str(await device.ask(adt(f"S-{step}"))) == f"AA S-{step}"
        for endpoint in (server.endpoints[name] for name in ("a", "b", "c") if name in server.endpoints):
            other = await ward.device(int(endpoint["address"].partition("?")[0].rpartition(":")[2]))
            assert str(await other.ask(adt("O-1"))).startswith("AA")
            await other.hang_up()
    (channel,) = [each for each in (await agent.status())["channels"] if each["name"] == "still"]
    assert channel["connectionsTotal"] == 1


def control_id_of(body: str) -> str:
    return body.split("|")[9]
