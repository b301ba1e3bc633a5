"""Promises 2 and 3: what was acknowledged arrives, in order, whatever kills the agent; twice only if marked."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from typing import Any

from ward_building import Ward
from ward_devices import Station

from agent.hub import Hub
from agent.hub.inbox import Kept

KILLS = 10
SEED = 20260131


def accepted_by(stations: list[Station]) -> int:
    return sum(len(station.accepted) for station in stations)


def arrivals(hub: Hub) -> list[Kept]:
    """Everything the server has received, repetitions too, in the order of arrival."""
    return hub.messages(count=1_000_000)


def first_arrivals(received: list[Kept]) -> dict[str, list[str]]:
    """By sender: control ids in the order in which each was seen first."""
    order: dict[str, list[str]] = defaultdict(list)
    for control_id in dict.fromkeys(str(kept.control_id) for kept in received):
        order[control_id.rpartition("-")[0]].append(control_id)
    return order


def has_nothing_open(status: dict[str, Any]) -> bool:
    counts = status["spool"]["countsByState"]
    return bool(counts["queued"] + counts["inflight"] == 0)


def is_marked(kept: Kept) -> bool:
    return "#" in str(kept.callback)


async def test_kill_minus_nine_in_a_loop_under_load(ward: Ward) -> None:
    # given stations of both modes that number their messages and never give up, each with an address of its own
    original, enhanced = ward.port(), ward.port()
    hub = await ward.hub(
        original=f"mllp://0.0.0.0:{original}?ackTimeoutSecs=5",
        enhanced=f"mllp://0.0.0.0:{enhanced}?enhanced=true&ackTimeoutSecs=5",
    )
    agent = await ward.running_agent(hub)
    progress = asyncio.Event()
    stations = [Station(f"original{n}", original, f"127.0.0.{10 + n}", progress) for n in range(4)]
    stations += [Station(f"enhanced{n}", enhanced, f"127.0.0.{20 + n}", progress) for n in range(3)]
    enough = asyncio.Event()
    chance = random.Random(SEED)

    # when the agent is killed again and again in the middle of it
    async with asyncio.TaskGroup() as tasks:
        for station in stations:
            tasks.create_task(station.work(enough), name=station.name)
        for _ in range(KILLS):
            at_least = accepted_by(stations) + chance.randrange(5, 400)
            while accepted_by(stations) < at_least:  # the load decides the moment
                progress.clear()
                await progress.wait()
            await asyncio.sleep(chance.uniform(0, 0.003))  # between any two lines of the agent, not only after an ACK
            await agent.kill()
            await agent.start()
        enough.set()

    # then nothing that was acknowledged is missing at the server
    accepted = {control_id for station in stations for control_id in station.accepted}
    async with asyncio.timeout(20):
        while not accepted <= {kept.control_id for kept in arrivals(hub)}:
            await hub.wait_for_messages(hub.received + 1)
    counts = (await agent.until(has_nothing_open))["spool"]["countsByState"]
    received = arrivals(hub)
    assert min(len(station.accepted) for station in stations) > KILLS

    # and each sender's messages came in its order
    for sender, order in first_arrivals(received).items():
        assert order == sorted(order), f"{sender} is out of order"

    # and what came more than once is marked as a repetition
    seen: set[str] = set()
    for kept in received:
        assert str(kept.control_id) not in seen or is_marked(kept), f"{kept.control_id} came twice without a mark"
        seen.add(str(kept.control_id))

    # and nothing is left behind: every message has an outcome
    assert counts["processed"] >= len(accepted)
    assert {state: number for state, number in counts.items() if state != "processed" and number} == {}
