"""The whole daemon with a whole hub: wired as it is run, seen from the outside."""

from __future__ import annotations

import asyncio
import errno
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from daemon_at_home import a_daemon, ask, listens, port_of, settings_for, until

from agent.errors import ConfigError, StoreError
from agent.hub import Hub
from agent.process import run


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Hub]:
    async with Hub.open(tmp_path / "hub", ("127.0.0.1", 0), channel_address="mllp://127.0.0.1:0") as hub:
        yield hub


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


async def test_a_message_goes_to_the_server_and_its_answer_back(tmp_path: Path, hub: Hub) -> None:
    async with a_daemon(settings_for(tmp_path / "agent", hub.base_url, hub)) as daemon:
        port = await listens(daemon)
        acks = await ask(port, "M1", "M2", "M1")
        assert [(ack.code, ack.control_id) for ack in acks] == [("AA", b"M1"), ("AA", b"M2"), ("AA", b"M1")]
        metrics = daemon.channels.metrics["hl7"]
        assert (metrics.received, metrics.delivered, metrics.duplicates) == (3, 2, 1)


async def test_listeners_are_open_from_the_last_good_configuration_with_the_server_away(tmp_path: Path) -> None:
    port = free_port()
    options = {"channels.ack_timeout_s": 0}
    async with Hub.open(tmp_path / "hub", ("127.0.0.1", 0), channel_address=f"mllp://127.0.0.1:{port}") as hub:
        hub_address = hub.base_url
        settings = settings_for(tmp_path / "agent", hub_address, hub, **options)
        async with a_daemon(settings) as daemon:
            await listens(daemon)
            await until(lambda: settings.paths.last_good.exists())
    # when it starts again and nobody answers
    async with a_daemon(settings) as daemon, asyncio.TaskGroup() as tasks:
        await listens(daemon)
        waiting = tasks.create_task(ask(port, "M1"))
        await until(lambda: daemon.spool.tally.open_of["hl7"] == 1)
        assert "server.away" in {finding.code for finding in daemon.vitals.findings()}
        # then what it took is delivered when the server is back
        hub_port = int(hub_address.rstrip("/").rpartition(":")[2])
        async with Hub.open(tmp_path / "hub", ("127.0.0.1", hub_port)):
            daemon.uplink.reconnect_soon()
            assert [ack.code for ack in await waiting] == ["AA"]


async def test_a_reload_that_fails_changes_nothing_and_says_why(tmp_path: Path, hub: Hub) -> None:
    async with a_daemon(settings_for(tmp_path / "agent", hub.base_url, hub)) as daemon:
        port = await listens(daemon)
        await hub.put_agent(
            "ward", {"hl7": "mllp://127.0.0.1:0", "bad": "carrier-pigeon://roof"}, agent_id=hub.agent_id
        )
        with pytest.raises(ConfigError, match="pigeon"):
            await daemon.steering.reload()
        assert port_of(daemon) == port
        assert [ack.code for ack in await ask(port, "M1")] == ["AA"]


async def test_what_is_read_unasked_never_takes_away_a_channel_that_runs(tmp_path: Path, hub: Hub) -> None:
    async with a_daemon(settings_for(tmp_path / "agent", hub.base_url, hub)) as daemon:
        port = await listens(daemon)
        # given somebody who spoils the channel's address while nobody listens to the server
        await hub.put_agent("ward", {"hl7": "carrier-pigeon://roof"}, agent_id=hub.agent_id)
        await daemon.steering._look()
        # then it goes on as it was, and a finding says why
        assert port_of(daemon) == port
        assert [ack.code for ack in await ask(port, "M1")] == ["AA"]
        assert [f for f in daemon.vitals.findings() if "pigeon" in str(f)]
        # and a mended one is taken, with nothing more to say
        await hub.put_agent("ward", {"hl7": "mllp://127.0.0.1:0", "lab": "mllp://127.0.0.1:0"}, agent_id=hub.agent_id)
        await daemon.steering._look()
        assert await listens(daemon, "lab")
        assert not [f for f in daemon.vitals.findings() if "pigeon" in str(f)]


async def test_a_certificate_that_is_missing_takes_no_running_channel_away_unasked(tmp_path: Path, hub: Hub) -> None:
    port = free_port()
    await hub.put_agent("ward", {"hl7": f"mllp://127.0.0.1:{port}"}, agent_id=hub.agent_id)
    missing = {"tls.lab.certificate_file": str(tmp_path / "lab.pem")}
    async with a_daemon(settings_for(tmp_path / "agent", hub.base_url, hub, **missing)) as daemon:
        await listens(daemon)
        await hub.put_agent("ward", {"hl7": f"mllps://127.0.0.1:{port}?tls=lab"}, agent_id=hub.agent_id)
        await daemon.steering._look()
        assert [ack.code for ack in await ask(port, "M1")] == ["AA"]
        assert [f for f in daemon.vitals.findings() if "lab.pem" in str(f) and f.where == "hl7"]


async def test_one_bad_channel_keeps_no_other_from_the_last_good_configuration(tmp_path: Path, hub: Hub) -> None:
    # given an agent with a channel that this version does not carry
    port = free_port()
    channels = {"hl7": f"mllp://127.0.0.1:{port}", "images": "dicom://127.0.0.1:104"}
    await hub.put_agent("ward", channels, agent_id=hub.agent_id)
    settings = settings_for(tmp_path / "agent", hub.base_url, hub)
    async with a_daemon(settings) as daemon:
        await listens(daemon)
        await until(lambda: settings.paths.last_good.exists())
    # when it starts again with the server away, then the good one listens
    away = settings_for(tmp_path / "agent", "http://127.0.0.1:1/", hub)
    async with a_daemon(away) as daemon:
        assert await listens(daemon) == port


async def test_a_reload_that_succeeds_adds_what_is_new(tmp_path: Path, hub: Hub) -> None:
    async with a_daemon(settings_for(tmp_path / "agent", hub.base_url, hub)) as daemon:
        await listens(daemon)
        await hub.put_agent(
            "ward",
            {"hl7": "mllp://127.0.0.1:0", "lab": "mllp://127.0.0.1:0?enhanced=aa"},
            agent_id=hub.agent_id,
        )
        await daemon.steering.reload()
        assert [ack.code for ack in await ask(await listens(daemon, "lab"), "M1")] == ["AA"]


async def test_an_agent_that_is_switched_off_closes_its_channels_and_says_so(tmp_path: Path, hub: Hub) -> None:
    async with a_daemon(settings_for(tmp_path / "agent", hub.base_url, hub)) as daemon:
        await listens(daemon)
        await hub.put_resource({**hub.resource("Agent", hub.agent_id), "status": "off"})
        await daemon.steering.reload()
        assert daemon.channels.by_name == {}
        assert "agent.off" in {finding.code for finding in daemon.vitals.findings()}


async def test_a_hang_up_reads_the_local_settings_again(tmp_path: Path, hub: Hub) -> None:
    settings = settings_for(tmp_path / "agent", hub.base_url, hub)
    changed = settings_for(tmp_path / "agent", hub.base_url, hub, **{"limits.window_frames": 7})
    async with a_daemon(settings, lambda: changed) as daemon:
        await listens(daemon)
        await daemon.hang_up()
        assert "settings.restart" in {finding.code for finding in daemon.vitals.findings()}
        assert len(daemon.channels.by_name) == 1


async def test_a_stop_answers_what_was_taken(tmp_path: Path, hub: Hub) -> None:
    async with asyncio.TaskGroup() as tasks:
        async with a_daemon(settings_for(tmp_path / "agent", hub.base_url, hub)) as daemon:
            port = await listens(daemon)
            await until(lambda: daemon.uplink.live)
            waiting = [tasks.create_task(ask(port, f"M{number}")) for number in range(20)]
            await until(lambda: daemon.channels.metrics["hl7"].received == 20)
        assert [(await task)[0].code for task in waiting] == ["AA"] * 20


async def test_two_daemons_never_share_a_data_directory(tmp_path: Path, hub: Hub) -> None:
    settings = settings_for(tmp_path / "agent", hub.base_url, hub)
    async with a_daemon(settings) as daemon:
        await listens(daemon)
        with pytest.raises(ExceptionGroup) as caught:
            async with a_daemon(settings):
                pass
        assert caught.group_contains(ConfigError, match="another agent uses the data directory", depth=None)


async def test_the_command_ends_when_it_is_told_to_and_raises_one_error_if_it_cannot_start(
    tmp_path: Path, hub: Hub
) -> None:
    settings = settings_for(tmp_path / "agent", hub.base_url, hub)
    stop = asyncio.Event()
    stop.set()
    await run(settings, {}, lambda: settings, stop=stop)
    settings.paths.spool.unlink()
    settings.paths.spool.mkdir()
    with pytest.raises(StoreError, match="spool"):
        await run(settings, {}, lambda: settings, stop=stop)


async def test_an_unexpected_exception_in_a_callback_ends_the_process(tmp_path: Path, hub: Hub) -> None:
    class Bug(Exception):
        pass

    def fails() -> None:
        raise Bug

    async def meets_a_bug() -> None:
        async with a_daemon(settings_for(tmp_path / "agent", hub.base_url, hub)) as daemon:
            await listens(daemon)
            asyncio.get_running_loop().call_soon(fails)
            await until(lambda: daemon._crash is not None)

    with pytest.raises(ExceptionGroup) as caught:
        await meets_a_bug()
    assert caught.group_contains(Bug, depth=None)


async def test_a_peer_that_went_away_at_a_bad_moment_ends_nothing(tmp_path: Path, hub: Hub) -> None:
    async with a_daemon(settings_for(tmp_path / "agent", hub.base_url, hub)) as daemon:
        port = await listens(daemon)
        loop = asyncio.get_running_loop()
        loop.call_exception_handler({"message": "reset", "exception": ConnectionResetError(errno.ECONNRESET, "reset")})
        assert [ack.code for ack in await ask(port, "M1")] == ["AA"]


async def test_no_message_content_reaches_the_main_log(tmp_path: Path, hub: Hub) -> None:
    settings = settings_for(tmp_path / "agent", hub.base_url, hub)
    async with a_daemon(settings) as daemon:
        port = await listens(daemon)
        await ask(port, "SECRET-ID")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"\x0bPID|SECRET-PATIENT\x1c\r")
        await reader.readuntil(b"\x1c\r")
        writer.close()
    logs = list(settings.log.main.dir.glob("*main*"))
    assert logs
    for log in logs:
        text = log.read_text()
        assert "SECRET" not in text
        assert {"daemon.started", "daemon.stopped", "message.refused"} <= {
            json.loads(line)["msg"] for line in text.splitlines()
        }
