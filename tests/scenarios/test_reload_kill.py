"""Promise: kill -9 at any moment of a reload leaves an agent that starts and listens, by the old or the new state."""

from __future__ import annotations

import asyncio

import pytest
from test_stop_and_reload import refused
from ward_building import Ward

CHANNELS = 12


@pytest.mark.parametrize("after_s", [0.0, 0.005, 0.02, 0.05, 0.2])
async def test_an_agent_killed_in_a_reload_starts_by_the_old_or_the_new_configuration(
    ward: Ward, after_s: float
) -> None:
    # given an agent at work, and a configuration in which every channel has another port
    server = await ward.server()
    old, new = ([ward.port() for _ in range(CHANNELS)] for _ in range(2))
    for number, port in enumerate(old):
        server.channel(f"c{number}", port)
    agent = await ward.running_agent(server)
    await (await ward.device(old[-1])).hang_up()
    reads = server.configuration_reads
    for number, port in enumerate(new):
        server.channel(f"c{number}", port)

    # when it is killed in the middle of the reload
    agent.hang_up()
    await server.until(lambda: server.configuration_reads > reads)
    await asyncio.sleep(after_s)  # each time at another moment
    await agent.kill()

    # then it starts with the server away, and listens by one of the two, whole
    await server.go()
    await agent.start()
    listens = {port for port in (*old, *new) if not await refused(port)}
    assert listens in (set(old), set(new))
