"""Promise 5: a reload touches only what changed, a failing one nothing at all; and a stop answers what was taken."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from ward_building import Ward
from ward_devices import Device, refused
from ward_messages import adt
from ward_servers import Asked, ScriptedServer, accept

STOP_WITHIN_S = 10.0


class Hesitant:
    """A server that answers when it is told to."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()

    async def __call__(self, asked: Asked) -> None:
        await self.go_on.wait()
        await asked.accept()


async def closed(port: int, *, within_s: float = 10.0) -> None:
    """Until nobody listens on this port."""
    async with asyncio.timeout(within_s):
        while True:
            if await refused(port):
                return
            await asyncio.sleep(0.02)


# ---- stop


async def test_a_stop_answers_the_message_that_is_on_its_way(ward: Ward) -> None:
    # given a message in flight
    server = await ward.server()
    port = ward.port()
    server.channel("adt", port)
    hesitant = server.script = Hesitant()
    agent = await ward.running_agent(server)
    device = await ward.device(port)
    await device.send(adt("A-1"))
    await server.until_heard("A-1")

    # when the agent is told to stop
    agent.terminate()
    await closed(port)

    # then it accepts nobody any more, but the sender hears the server's answer before it ends well
    hesitant.go_on.set()
    assert str(await device.hear()) == "AA A-1"
    await device.ended()
    assert await agent.ended(within_s=STOP_WITHIN_S) == 0

    # and nothing is left for the next start
    server.script = accept
    await agent.start()
    again = await ward.device(port)
    assert str(await again.ask(adt("A-2"))) == "AA A-2"
    assert server.attempts("A-1") == [1]


@pytest.mark.parametrize("enhanced", ["true", "aa"])
async def test_a_stop_waits_for_deliveries_on_their_way_also_when_their_senders_wait_for_nothing(
    ward: Ward, enhanced: str
) -> None:
    # given messages in flight whose senders had their answer at commit, and more behind them
    server = await ward.server()
    port = ward.port()
    server.channel("adt", port, enhanced=enhanced, logicalChannelKey="PID-3.1")
    hesitant = server.script = Hesitant()
    agent = await ward.running_agent(server)
    device = await ward.device(port)
    for number in range(20):
        assert (await device.ask(adt(f"A-{number:02d}", key=f"P{number % 10}"))).code in ("CA", "AA")
    await server.until(lambda: len(server.heard) == 10)

    # when the agent is told to stop, and the server answers a moment later
    agent.terminate()
    await closed(port)
    hesitant.go_on.set()
    assert await agent.ended(within_s=STOP_WITHIN_S) == 0

    # then a planned restart makes nothing ambiguous: no message is delivered twice
    server.script = accept
    await agent.start()
    await server.until_heard(*(f"A-{number:02d}" for number in range(20)))
    assert [asked.control_id for asked in server.heard if asked.attempt > 1] == []
    assert len(server.heard) == 20


async def test_a_stop_ends_in_time_though_the_server_never_answers(ward: Ward) -> None:
    # given a message that the server will never answer
    server = await ward.server()
    port = ward.port()
    server.channel("adt", port, ackTimeoutSecs=2)
    server.script = Hesitant()
    agent = await ward.running_agent(server)
    device = await ward.device(port)
    await device.send(adt("A-1"))
    await server.until_heard("A-1")

    # when the agent is told to stop
    agent.terminate()

    # then the sender hears at its deadline that the message is kept, and the agent ends within 10 s, well
    assert str(await device.hear()) == "AE A-1"
    assert await agent.ended(within_s=STOP_WITHIN_S) == 0

    # and the message is delivered after the next start, marked as ambiguous
    server.script = accept
    await agent.start()
    await server.until(lambda: server.attempts("A-1") == [1, 2])


async def test_a_stop_within_ten_seconds_though_senders_hang_and_wait_for_ever(ward: Ward) -> None:
    # given a channel without a deadline, a server that never answers, and idle connections
    server = await ward.server()
    port = ward.port()
    server.channel("adt", port, ackTimeoutSecs=0)
    server.script = Hesitant()
    agent = await ward.running_agent(server)
    await ward.device(port)
    device = await ward.device(port)
    await device.send(adt("A-1"))
    await server.until_heard("A-1")

    # when the agent is told to stop, then it does
    agent.terminate()
    assert await agent.ended(within_s=STOP_WITHIN_S + 1.5) == 0
    with pytest.raises(ConnectionError):
        await device.hear()


# ---- reload


async def reloaded(agent_hang_up: Callable[[], None], server: ScriptedServer) -> None:
    """Reload, until the server was asked for the configuration."""
    before = server.configuration_reads
    agent_hang_up()
    await server.until(lambda: server.configuration_reads > before)


async def still_works(device: Device, control_id: str) -> None:
    """The connection was not broken."""
    assert str(await device.ask(adt(control_id))) == f"AA {control_id}"


async def test_a_reload_adds_a_channel_and_the_others_keep_their_connections(ward: Ward) -> None:
    # given a sender connected to a channel
    server = await ward.server()
    old, new = ward.port(), ward.port()
    server.channel("old", old)
    agent = await ward.running_agent(server)
    device = await ward.device(old)
    await still_works(device, "A-1")

    # when a channel is added on the server and the agent is told to reload
    server.channel("new", new)
    agent.hang_up()

    # then the new channel works, and the old connection still does
    await still_works(await ward.device(new), "B-1")
    await still_works(device, "A-2")
    (channel,) = [each for each in (await agent.status())["channels"] if each["name"] == "old"]
    assert channel["connections"] == channel["connectionsTotal"] == 1


async def test_a_reload_changes_parameters_without_breaking_a_connection(ward: Ward) -> None:
    # given a channel in original mode
    server = await ward.server()
    port = ward.port()
    server.channel("adt", port)
    agent = await ward.running_agent(server)
    device = await ward.device(port)
    await still_works(device, "A-1")

    # when it becomes an enhanced one
    server.channel("adt", port, enhanced="true", appLevelAck="NE")
    agent.hang_up()
    await agent.until(lambda status: "enhanced" in status["channels"][0]["address"])

    # then the connection that there was hears CA from now on
    assert str(await device.ask(adt("A-2"))) == "CA A-2"


async def test_a_reload_stops_a_channel_that_was_removed_and_moves_one_to_another_port(ward: Ward) -> None:
    # given three channels
    server = await ward.server()
    gone, before, after, stays = (ward.port() for _ in range(4))
    server.channel("gone", gone)
    server.channel("moves", before)
    server.channel("stays", stays)
    agent = await ward.running_agent(server)
    device = await ward.device(stays)
    leaver, mover = await ward.device(gone), await ward.device(before)

    # when one is removed and one gets another port
    del server.endpoints["gone"]
    server.channel("moves", after)
    agent.hang_up()

    # then those connections end, the others do not
    await still_works(await ward.device(after), "M-1")
    await leaver.ended()
    await mover.ended()
    assert await refused(gone)
    assert await refused(before)
    await still_works(device, "S-1")


async def test_a_reload_that_fails_leaves_everything_as_it_was(ward: Ward) -> None:
    # given a working channel
    server = await ward.server()
    port, other, taken = ward.port(), ward.port(), ward.port()
    server.channel("adt", port)
    agent = await ward.running_agent(server)
    device = await ward.device(port)
    await still_works(device, "A-1")

    # when the new configuration cannot be run as a whole: one port is taken by another program
    blocker = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", taken)
    async with blocker:
        server.channel("adt", other)
        server.channel("lab", taken)
        await reloaded(agent.hang_up, server)
        await agent.until(lambda _: "configuration.refused" in agent.main_log())

        # then the old listener and its connection are as they were, and the log says what is wrong
        await still_works(device, "A-2")
        await still_works(await ward.device(port), "A-3")
        assert await refused(other)
        refusal = [line for line in agent.main_log().splitlines() if "configuration.refused" in line][-1]
        assert str(taken) in refusal


async def test_agent_status_off_closes_every_channel_and_active_opens_them_again(ward: Ward) -> None:
    # given a working agent
    server = await ward.server()
    port = ward.port()
    server.channel("adt", port)
    agent = await ward.running_agent(server)
    device = await ward.device(port)
    await still_works(device, "A-1")

    # when a person switches the agent off on the server
    server.status = "off"
    agent.hang_up()

    # then its channels are closed, and the status says why
    await closed(port)
    await device.ended()
    status = await agent.status()
    assert status["running"] is True
    assert "agent.off" in {found["code"] for found in status["findings"]}

    # and a push is refused in the words of the wire
    await server.links[-1].say(
        {"type": "agent:transmit:request", "remote": "mllp://127.0.0.1:1", "body": "MSH|^~\\&|", "callback": "push-1"}
    )
    await server.until(lambda: any(frame.get("callback") == "push-1" for frame in server.frames))
    (answer,) = [frame for frame in server.frames if frame.get("callback") == "push-1"]
    assert (answer["type"], answer["body"]) == ("agent:error", "Agent.status is currently set to off")

    # and active opens them again
    server.status = "active"
    agent.hang_up()
    await still_works(await ward.device(port), "A-2")


async def test_agent_status_off_stays_off_across_a_restart_without_the_server(ward: Ward) -> None:
    # given an agent that was switched off
    server = await ward.server()
    port = ward.port()
    server.channel("adt", port)
    agent = await ward.running_agent(server)
    await ward.device(port)
    server.status = "off"
    agent.hang_up()
    await closed(port)

    # when it is started again while the server is away
    agent.terminate()
    assert await agent.ended() == 0
    await server.go()
    await agent.start()

    # then it does not listen
    assert await refused(port)


async def test_an_endpoint_that_is_off_does_not_listen_and_its_neighbour_does(ward: Ward) -> None:
    # given two channels
    server = await ward.server()
    off, on = ward.port(), ward.port()
    server.channel("off", off)
    server.channel("on", on)
    agent = await ward.running_agent(server)
    device = await ward.device(on)
    await ward.device(off)

    # when one endpoint is switched off
    server.endpoints["off"]["status"] = "off"
    agent.hang_up()

    # then nobody listens there, the neighbour's connection lives, and the status shows both
    await closed(off)
    await still_works(device, "A-1")
    states = {channel["name"]: channel["state"] for channel in (await agent.status())["channels"]}
    assert states == {"off": "off", "on": "listening"}


async def test_messages_of_a_channel_that_was_switched_off_wait_for_it(ward: Ward) -> None:
    # given messages of a channel that the server has not answered
    server = await ward.server()
    port, other = ward.port(), ward.port()
    server.channel("adt", port, enhanced="aa", autoRetryBaseDelayMs=100)
    server.channel("lab", other)

    async def busy(asked: Asked) -> None:
        await asked.answer("busy", 503)

    server.script = busy
    agent = await ward.running_agent(server)
    device = await ward.device(port)
    for number in range(3):
        assert (await device.ask(adt(f"A-{number}"))).code == "AA"
    await server.until_heard("A-0")

    # when its endpoint is switched off, and later on again
    server.endpoints["adt"]["status"] = "off"
    agent.hang_up()
    await closed(port)
    assert "channel.not-configured" in await agent.findings()
    server.script = accept
    before = len(server.heard)
    await still_works(await ward.device(other), "B-1")
    assert {asked.control_id for asked in server.heard[before:]} == {"B-1"}
    server.endpoints["adt"]["status"] = "active"
    agent.hang_up()

    # then they are delivered, in order
    await server.until_heard("A-0", "A-1", "A-2")
    firsts = list(dict.fromkeys(asked.control_id for asked in server.heard if asked.channel == "adt"))
    assert firsts == ["A-0", "A-1", "A-2"]
