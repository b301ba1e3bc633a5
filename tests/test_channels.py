"""Which listeners are wanted, which run, and how the one becomes the other without a sender noticing."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from channel_hall import WITHIN_S, Hall, a_hall, device, free_port, message, refuses, spec, until

from agent.changes import Action
from agent.errors import ConfigError, Severity
from agent.protocol.mllp import wrap
from agent.spec import AckMode, Astm, ByteStream, LineSpec, SerialSpec


@pytest.fixture
async def hall(tmp_path: Path) -> AsyncIterator[Hall]:
    async with a_hall(tmp_path) as hall:
        yield hall


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
        # when the other program lets go of it
        stranger.close()
        await until(lambda: hall.channels.by_name["oru"].inlet is not None)
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
        await until(lambda: listener.listening)
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
        await hall.channels.apply([spec("new", port)])
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


# ---- ports that move between channels that cannot share a door


async def serves_by_name(hall: Hall, ports: dict[str, int], serial: str) -> None:
    """Each channel has its own port."""
    for name, port in ports.items():
        async with device(port) as sender:
            assert await sender.is_served(f"{serial}-{name}")
        assert hall.server.heard[-1].channel == name


async def test_two_channels_swap_their_ports_and_their_addresses(hall: Hall) -> None:
    # given channels on all addresses and on one of them, so that neither door can be the other's
    one, two = free_port(), free_port()
    await hall.channels.apply([spec("a", one, "0.0.0.0"), spec("b", two)])
    # when each gets the other's port
    changes = await hall.channels.apply([spec("a", two, "0.0.0.0"), spec("b", one)])
    # then both are served there
    assert [change.action for change in changes] == [Action.REBIND, Action.REBIND]
    await serves_by_name(hall, {"a": two, "b": one}, "M")


async def test_a_chain_of_ports_moves_in_one_change(hall: Hall) -> None:
    ports = [free_port() for _ in range(4)]
    hosts = ["0.0.0.0", "127.0.0.1", "0.0.0.0"]
    await hall.channels.apply([spec(f"c{n}", ports[n], hosts[n]) for n in range(3)])
    await hall.channels.apply([spec(f"c{n}", ports[n + 1], hosts[n]) for n in range(3)])
    await serves_by_name(hall, {f"c{n}": ports[n + 1] for n in range(3)}, "M")
    assert await refuses(ports[0])


async def test_one_channel_takes_over_from_several(hall: Hall) -> None:
    port = free_port()
    await hall.channels.apply([spec("a", port, "127.0.0.1"), spec("b", port, "127.0.0.2")])
    await hall.channels.apply([spec("all", port, "0.0.0.0")])
    await serves_by_name(hall, {"all": port}, "M")


async def test_a_channel_that_speaks_another_protocol_on_its_port_gets_another_door(hall: Hall) -> None:
    port = free_port()
    await hall.channels.apply([spec("adt", port)])
    before = hall.channels.by_name["adt"]
    async with device(port) as sender:
        assert await sender.is_served("M1")
        await hall.channels.apply([spec("adt", port, wire=ByteStream(end=13))])
        assert await sender.hears_the_end() == b""
    after = hall.channels.by_name["adt"]
    assert after.intake is not before.intake
    assert after.inlet is not before.inlet
    assert after.inlet is not None
    assert isinstance(after.inlet.wire, ByteStream)
    assert not await refuses(port)


async def test_nobody_gives_a_port_up_for_a_change_that_cannot_be(hall: Hall) -> None:
    # given a port that would have to be given up, and another that a stranger holds
    port = free_port()
    await hall.channels.apply([spec("adt", port)])
    door = hall.channels.by_name["adt"].inlet
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        taken = stranger.getsockname()[1]
        with pytest.raises(ConfigError) as caught:
            await hall.channels.apply([spec("adt", port, "0.0.0.0"), spec("x", taken)])
    # then it was never closed
    assert [finding.where for finding in caught.value.findings] == ["x"]
    assert hall.channels.by_name["adt"].inlet is door
    assert door is not None
    assert door.listening


async def test_a_change_that_is_called_off_gives_every_port_back(hall: Hall) -> None:
    # given a change that has taken a port away from its channel when it is called off
    port, other = free_port(), free_port()
    await hall.channels.apply([spec("adt", port), spec("lab", other)])
    door = hall.channels.by_name["adt"].inlet
    assert door is not None
    async with device(port) as sender:
        async with asyncio.TaskGroup() as tasks:
            change = tasks.create_task(hall.channels.apply([spec("adt", port, "0.0.0.0"), spec("lab", other)]))
            while door.listening and not change.done():
                await asyncio.sleep(0)
            change.cancel()
        assert change.cancelled()
        # then the old one listens, and its connection lives
        assert hall.channels.by_name["adt"].inlet is door
        assert door.listening
        assert await sender.is_served("M1")
    await serves_by_name(hall, {"adt": port, "lab": other}, "N")


# ---- every problem at once, and by whom


async def test_the_holder_of_a_port_is_named(hall: Hall) -> None:
    program = (
        "import socket,sys; s=socket.create_server(('127.0.0.1',0)); print(s.getsockname()[1],flush=True); input()"
    )
    stranger = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert stranger.stdout is not None
    assert stranger.stdin is not None
    taken = int(await stranger.stdout.readline())
    outlook = await hall.channels.outlook([spec("adt", taken)])
    [problem] = outlook.problems
    assert f"process {stranger.pid}" in problem.text
    assert [change.action for change in outlook.changes] == [Action.FAILED]
    stranger.stdin.write(b"\n")
    await stranger.wait()


async def test_a_dry_run_tells_what_the_change_then_does_and_changes_nothing(hall: Hall) -> None:
    ports = [free_port() for _ in range(4)]
    await hall.channels.apply([spec(name, port) for name, port in zip("abcd", ports, strict=True)])
    wanted = [spec("a", ports[0]), spec("b", ports[1], encoding="latin-1"), spec("c", free_port()), spec("e", 0)]
    async with device(ports[2]) as sender:
        assert await sender.is_served("M1")
        outlook = await hall.channels.outlook(wanted)
        assert await sender.is_served("M2")
        assert set(hall.channels.by_name) == set("abcd")
        assert [(change.channel, change.action.value, change.dropped) for change in outlook.changes] == [
            ("a", "keep", 0),
            ("b", "re-parameter", 0),
            ("c", "rebind", 1),
            ("e", "start", 0),
            ("d", "stop", 0),
        ]
        assert await hall.channels.apply(wanted) == outlook.changes


async def test_a_serial_device_that_is_not_there_is_only_a_warning(hall: Hall) -> None:
    device_spec = spec("lab", 0, "/dev/no-such-tty", wire=Astm(), serial=SerialSpec("/dev/no-such-tty"))
    outlook = await hall.channels.outlook([device_spec])
    assert outlook.problems == ()
    [warning] = outlook.warnings
    assert (warning.code, warning.where, warning.severity) == ("channel.device-absent", "lab", Severity.WARNING)


async def test_a_port_of_this_agent_that_is_no_channels_is_said_to_be_its_own(hall: Hall) -> None:
    with socket.create_server(("127.0.0.1", 0)) as health:
        [problem] = (await hall.channels.outlook([spec("adt", health.getsockname()[1])])).problems
    assert "this agent itself listens there" in problem.text
    assert "diagnostics.listen" in problem.remedy


# ---- coming back


async def test_a_listener_that_died_is_a_finding_while_it_is_down(hall: Hall) -> None:
    await hall.channels.apply([spec("adt", free_port())])
    port, listener = hall.port("adt"), hall.channels.by_name["adt"].inlet
    assert listener is not None
    # given somebody who takes the port as soon as the listener has died
    listener.stop_accepting()
    await asyncio.sleep(0)
    with socket.create_server(("127.0.0.1", port)):
        await until(hall.channels.findings)
        [finding] = hall.channels.findings()
        assert finding.where == "adt"
        assert finding.severity is Severity.ERROR
    await until(lambda: listener.listening)
    assert hall.channels.findings() == []
    async with device(port) as sender:
        assert await sender.is_served("M1")


async def test_a_port_that_stays_taken_is_tried_less_and_less_often(hall: Hall) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        await hall.channels.apply([spec("adt", stranger.getsockname()[1])], partial=True)
        waits: list[float] = []
        while len(waits) < 4:
            await until(lambda: "adt" in hall.channels._outages)
            outage = hall.channels._outages["adt"]
            due = outage.due
            await until(lambda outage=outage, due=due: outage.due != due)
            waits.append(outage.due - due)
        assert waits[-1] > waits[0]


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
