"""One look at everything: a running daemon, reported."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from daemon_at_home import a_daemon, ask, listens, settings_for, until

from agent import __version__
from agent.daemon import Daemon
from agent.hub import Hub
from agent.status import ChannelState
from agent.store.row import State


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Hub]:
    async with Hub.open(tmp_path / "hub", ("127.0.0.1", 0), channel_address="mllp://127.0.0.1:0") as hub:
        yield hub


@pytest.fixture
async def daemon(tmp_path: Path, hub: Hub) -> AsyncIterator[Daemon]:
    async with a_daemon(settings_for(tmp_path / "agent", hub.base_url, hub)) as daemon:
        await listens(daemon)
        await until(lambda: daemon.uplink.live)
        yield daemon


def codes(daemon: Daemon) -> set[str]:
    return {finding.code for finding in daemon.vitals.findings()}


async def test_a_daemon_at_work_says_what_it_has_done(daemon: Daemon, hub: Hub) -> None:
    await ask(daemon.channels.by_name["hl7"].inlet.port, "M1", "M2")  # type: ignore[union-attr]
    await until(lambda: not daemon.spool.tally.open_of["hl7"])
    report = daemon.vitals.report()
    assert (report.version, report.running, report.pid) == (__version__, True, os.getpid())
    assert (report.server.url, report.server.live, report.server.agent_id) == (hub.base_url, True, hub.agent_id)
    [channel] = report.channels
    assert (channel.name, channel.state, channel.received, channel.acknowledged) == (
        "hl7",
        ChannelState.LISTENING,
        2,
        2,
    )
    assert (channel.queued, channel.oldest_queued_seconds) == (0, None)
    assert report.spool.writable
    assert report.spool.counts_by_state["processed"] == 2
    assert report.spool.size_bytes > 0
    assert report.memory_bytes > 0
    assert codes(daemon) <= {"channel.port-any"}
    assert daemon.vitals.unready() == []


async def test_a_port_that_cannot_be_had_is_a_finding_and_not_ready(daemon: Daemon, hub: Hub) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        taken = stranger.getsockname()[1]
        channels = {"hl7": "mllp://127.0.0.1:0", "lab": f"mllp://127.0.0.1:{taken}"}
        await hub.put_agent("ward", channels, agent_id=hub.agent_id)
        await daemon.steering._look()
        assert "channel.cannot-listen" in codes(daemon)
        assert daemon.vitals.unready() == ["channel lab does not listen"]
        states = {channel.name: channel.state for channel in daemon.vitals.report().channels}
        assert states == {"hl7": ChannelState.LISTENING, "lab": ChannelState.FAILED}


async def test_a_channel_that_was_taken_away_is_seen_as_long_as_something_waits_for_it(
    tmp_path: Path, hub: Hub
) -> None:
    settings = settings_for(tmp_path / "agent", "http://127.0.0.1:1/", hub, **{"channels.ack_timeout_s": 1})
    # given a message that was stored for a channel of the last configuration
    async with a_daemon(settings_for(tmp_path / "agent", hub.base_url, hub)) as daemon:
        await listens(daemon)
        await until(lambda: daemon.configuration.saved_at is not None)
    async with a_daemon(settings) as daemon:
        await ask(await listens(daemon), "M1")
        # when its configuration goes
        await daemon.channels.apply([])
        # then it is off, with what waits for it and since when
        [channel] = daemon.vitals.report().channels
        assert (channel.state, channel.queued) == (ChannelState.OFF, 1)
        assert channel.oldest_queued_seconds is not None
        assert "channel.not-configured" in codes(daemon)
    settings.paths.last_good.unlink()
    async with a_daemon(settings) as daemon:
        await until(lambda: "hl7" in daemon.dispatcher.lanes)
        [channel] = daemon.vitals.report().channels
        assert (channel.state, channel.queued) == (ChannelState.OFF, 1)
        assert channel.oldest_queued_seconds is not None, "also when none of it is in memory"


async def test_a_channel_that_was_taken_away_empty_is_gone(daemon: Daemon) -> None:
    await daemon.channels.apply([])
    assert daemon.vitals.report().channels == ()


async def test_a_channel_that_is_switched_off_on_the_server_is_off(daemon: Daemon, hub: Hub) -> None:
    agent = hub.resource("Agent", hub.agent_id)
    reference = agent["channel"][0]["endpoint"]["reference"]
    await hub.put_resource({**hub.resource(*reference.split("/")), "status": "off"})
    await daemon.steering.reload()
    [channel] = daemon.vitals.report().channels
    assert (channel.name, channel.state) == ("hl7", ChannelState.OFF)


async def test_a_server_that_is_away_is_a_finding_with_a_remedy(tmp_path: Path, hub: Hub) -> None:
    async with a_daemon(settings_for(tmp_path / "agent", "http://127.0.0.1:1/", hub)) as daemon:
        await until(lambda: daemon.uplink.last_error)
        assert all(finding.remedy for finding in daemon.vitals.findings())
        assert codes(daemon) & {"server.away", "server.unreachable", "credentials.unreachable"}
        assert not daemon.vitals.report().server.live


async def test_what_waits_for_a_person_is_a_finding(daemon: Daemon) -> None:
    daemon.spool.tally.by_state[State.HELD] += 3
    assert "spool.held" in codes(daemon)
    daemon.spool.tally.by_state[State.HELD] -= 3
