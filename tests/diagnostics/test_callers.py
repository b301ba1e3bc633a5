"""Why bytes that arrive at a port are no messages: the daemon's facts in plain words."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from diagnostics_far_ends import NOT_RUNNING, a_channel, a_host, a_stranger, free_port, running
from hypothesis import given
from hypothesis import strategies as st

from agent.diagnostics import callers
from agent.diagnostics.callers import Door, PortStory, Recent, Sighting, look_at_port
from agent.diagnostics.host import Daemon, Unheard
from agent.errors import AgentError, Finding, Severity
from agent.net.control import open_control

TLS = {
    "oddity": "tls-on-plain-port",
    "peer": "10.1.2.3",
    "count": 12,
    "firstAt": "2020-01-02T03:04:05.000Z",
    "lastAt": "2020-01-02T03:12:08.000Z",
    "first": "16 03 01 …",
    "severity": "warning",
    "text": "the sender speaks TLS, and this port takes messages unencrypted",
    "remedy": "switch TLS off in the sender",
}
PROBE = {**TLS, "oddity": "connect-and-close", "peer": "10.1.2.9", "severity": "info", "text": "a look", "first": ""}
HEARD_AT = datetime.fromisoformat(TLS["lastAt"])  # type: ignore[arg-type]


def a_connection(peer: str, frames: int, **more: Any) -> dict[str, Any]:
    facts = {"peer": peer, "frames": frames, "bytes": 100 * frames, "silentSeconds": 3.2, "oddity": None, "over": False}
    return {**facts, "text": "", "remedy": "", **more}


def a_door(port: int, **more: Any) -> dict[str, Any]:
    return {"name": "adt", "address": f"mllp://127.0.0.1:{port}", "port": port, "connections": 1, **more}


@asynccontextmanager
async def a_story(
    folder: Path, port: int, *doors: dict[str, Any], daemon: Daemon | None = None, **given: object
) -> AsyncIterator[PortStory]:
    """What is told of a port by a daemon that knows these channels there."""
    host = a_host(folder, daemon=daemon or running(a_channel("adt", port)), **given)

    async def answer(verb: str, args: dict[str, Any]) -> Any:
        assert (verb, args) == ("connections", {"port": port})
        return {"channels": list(doors)}

    host.paths.data_dir.mkdir()
    async with open_control(host.paths.control, answer):
        yield await look_at_port(host, port)


async def test_a_sender_that_speaks_tls_is_told_with_count_time_bytes_and_remedy(tmp_path: Path) -> None:
    async with a_story(tmp_path, 2575, a_door(2575, sightings=[TLS])) as story:
        [caller] = story.callers
        [finding] = story.findings

    assert story.headline.startswith("Port 2575: channel adt (mllp://127.0.0.1:2575), listening, 1 connection open.")
    assert (caller.peer, caller.severity, caller.remedy) == (
        "10.1.2.3",
        Severity.WARNING,
        "switch TLS off in the sender",
    )
    assert caller.text == (
        f"connected 12 times, last {HEARD_AT.astimezone():%Y-%m-%d %H:%M:%S}:"
        " the sender speaks TLS, and this port takes messages unencrypted (first bytes 16 03 01 …)"
    )
    assert (finding.code, finding.severity, finding.where) == ("wire.tls-on-plain-port", Severity.WARNING, "adt")
    assert finding.text == f"10.1.2.3 {caller.text}"


async def test_senders_that_behave_take_one_line_each_after_the_odd_ones(tmp_path: Path) -> None:
    recent = [
        a_connection("10.1.2.4:4000", 312),
        a_connection("10.1.2.5:4000", 2, over=True),
        a_connection("10.1.2.5:4001", 3, over=True),
        a_connection("10.1.2.6:4000", 0, bytes=7, openBytes=7),
        a_connection("10.1.2.3:4000", 0, oddity="tls-on-plain-port"),
        a_connection("fe80::1:4000", 1),
    ]
    async with a_story(tmp_path, 2575, a_door(2575, recent=recent, sightings=[PROBE, TLS])) as story:
        told = [(caller.peer, caller.text) for caller in story.callers]

    assert [peer for peer, _ in told] == [
        "10.1.2.3",
        "10.1.2.9",
        "10.1.2.4",
        "10.1.2.5",
        "10.1.2.6",
        "fe80::1",
    ]
    assert [text for _, text in told[2:]] == [
        "312 messages, open, silent for 3 s",
        "5 messages, in 2 connections, closed",
        "0 messages, open, silent for 3 s, 7 bytes of a message under way",
        "1 message, open, silent for 3 s",
    ]


async def test_what_was_odd_and_taken_all_the_same_counts_its_messages(tmp_path: Path) -> None:
    lines = {**TLS, "oddity": "lf-line-ends", "text": "lines end in LF", "severity": "info", "first": "", "count": 1}
    recent = [a_connection("10.1.2.3:4000", 7, oddity="lf-line-ends")]
    async with a_story(tmp_path, 2575, a_door(2575, recent=recent, sightings=[lines])) as story:
        [caller] = story.callers
    assert caller.text.startswith("connected once at ")
    assert caller.text.endswith("lines end in LF; 7 messages came")


async def test_a_port_to_which_nobody_came_says_since_when(tmp_path: Path) -> None:
    async with a_story(tmp_path, 2575, a_door(2575, recent=[], sightings=[])) as story:
        [finding] = story.findings
    assert (finding.code, finding.severity, finding.where) == ("port.nobody-came", Severity.WARNING, "adt")
    assert finding.text.startswith("nobody has connected to this port since the agent started at ")
    assert "firewall" in finding.remedy


async def test_a_channel_that_dials_has_reached_nobody(tmp_path: Path) -> None:
    door = a_door(2575, address="mllp://10.0.0.9:2575?mode=client")
    async with a_story(tmp_path, 2575, door) as story:
        [finding] = story.findings
    assert "the sending system listens" in finding.remedy


async def test_a_channel_that_does_not_listen_says_why_and_who_has_the_port(tmp_path: Path) -> None:
    with a_stranger() as (port, pid):
        told = Finding("channel.cannot-listen", Severity.ERROR, "the port is taken", "free it", "adt")
        daemon = running(a_channel("adt", port, "failed", last_error="the port is taken"), findings=(told,))
        async with a_story(tmp_path, port, a_door(port), daemon=daemon) as story:
            first = story.findings[0]
    assert (first.code, first.severity, first.remedy) == ("port.not-listening", Severity.ERROR, "free it")
    assert f"process {pid}" in first.text


async def test_the_agent_itself_is_not_said_to_be_in_its_own_way(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as ours:
        port = ours.getsockname()[1]
        daemon = running(a_channel("adt", port, last_error="the last answer was not taken"))
        async with a_story(tmp_path, port, a_door(port), daemon=daemon) as story:
            assert story.findings[0].text == "the last answer was not taken"


ODDITIES = st.sampled_from(["http", "tls-on-plain-port", "no-start-block"])
PEERS = st.one_of(st.sampled_from(["10.0.0.1:1", "10.0.0.1:2", "10.0.0.2:1", "::1:9"]), st.text(max_size=8))
RECENT = st.builds(Recent, peer=PEERS, frames=st.integers(0, 9), over=st.booleans(), oddity=st.none() | ODDITIES)
SIGHTINGS = st.builds(Sighting, oddity=ODDITIES, peer=PEERS, last_at=st.datetimes().map(str) | st.text(max_size=20))


@given(st.lists(RECENT), st.lists(SIGHTINGS))
def test_every_sender_that_the_daemon_remembers_is_told_of_once(recent: list[Recent], seen: list[Sighting]) -> None:
    told = list(callers._callers(Door("adt", recent=tuple(recent), sightings=tuple(seen)), datetime.now(UTC)))

    behaved = [caller.peer for caller in told if caller.severity is None]
    assert sorted(caller.peer for caller in told if caller.severity is not None) == sorted(s.peer for s in seen)
    assert len(behaved) == len(set(behaved))
    assert set(behaved) == {callers._host(connection) for connection in recent if connection.oddity is None}
    assert all(caller.text for caller in told)


async def test_two_channels_of_one_port_are_both_told(tmp_path: Path) -> None:
    other = {**a_door(2575), "name": "lab", "address": "mllp://127.0.0.2:2575"}
    async with a_story(tmp_path, 2575, a_door(2575), other) as story:
        assert "channel adt (" in story.headline
        assert "channel lab (" in story.headline
        assert [finding.where for finding in story.findings] == ["adt", "lab"]


async def test_a_port_of_somebody_else_names_him_and_our_own(tmp_path: Path) -> None:
    with a_stranger() as (port, pid):
        async with a_story(tmp_path, port, daemon=running(a_channel("adt", 2575))) as story:
            [finding] = story.findings
            [holder] = story.holders
    assert (finding.code, finding.severity, holder.pid) == ("port.no-channel", Severity.ERROR, pid)
    assert f"process {pid}" in finding.text
    assert "adt (mllp://127.0.0.1:2575)" in finding.remedy


async def test_a_port_of_nobody_says_so(tmp_path: Path) -> None:
    port = free_port()
    async with a_story(tmp_path, port) as story:
        assert story.findings[0].text == f"no channel of this agent has port {port}: nobody listens there"


@pytest.mark.parametrize(
    ("daemon", "code"),
    [(NOT_RUNNING, "port.agent-down"), (Unheard(AgentError("no answer", hint="restart it")), "port.not-told")],
)
async def test_without_an_answer_of_the_agent_the_holder_is_told_all_the_same(
    tmp_path: Path, daemon: Daemon, code: str
) -> None:
    with a_stranger() as (port, pid):
        story = await look_at_port(a_host(tmp_path, daemon=daemon), port)
    [finding] = story.findings
    assert (finding.code, finding.severity) == (code, Severity.ERROR)
    assert f"process {pid}" in story.headline


async def test_an_agent_that_does_not_know_the_question_is_older(tmp_path: Path) -> None:
    host = a_host(tmp_path, daemon=running())

    async def answer(verb: str, args: dict[str, Any]) -> Any:
        raise AgentError(f"'{verb}' is not available in this version")

    host.paths.data_dir.mkdir()
    async with open_control(host.paths.control, answer):
        story = await look_at_port(host, 2575)
    [finding] = story.findings
    assert (finding.code, finding.remedy) == ("port.not-told", "restart the agent's service")


async def test_an_answer_of_another_shape_is_no_crash(tmp_path: Path) -> None:
    async with a_story(tmp_path, 2575, {"channel": 7}) as story:
        assert [finding.code for finding in story.findings] == ["port.not-told"]
