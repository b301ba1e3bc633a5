"""By which configuration the daemon runs, and when that changes."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent.channels import Channels
from agent.configuration import Configuration
from agent.errors import AgentError, ConfigError, LinkError, Severity
from agent.flow.answers import Answers
from agent.flow.dispatcher import Dispatcher, Window
from agent.flow.intake import Intake
from agent.flow.lanes import Lane
from agent.flow.reception import Limits, Means
from agent.flow.replies import Replies
from agent.flow.voice import Voice
from agent.inlets import Openings
from agent.net.inlet import Room
from agent.net.rest import ServerRefused
from agent.proposal import StaleBasis
from agent.settings import ChannelDefaults
from agent.spec import ChannelSpec
from agent.steering import Steering
from agent.store.spool import Spool, SpoolEvents

AGENT_ID = "2f0f3ac2-8ad4-4b5a-9a4b-3d9d47a1f9b1"
WITHIN_S = 10.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


class Server:
    """The resources, a gate before they are given out, and who has asked."""

    def __init__(self) -> None:
        self.channels: dict[str, str] = {}
        self.version = 1
        self.reads = 0
        self.open = asyncio.Event()
        self.open.set()
        self.asked = asyncio.Event()
        self.trouble: AgentError | None = None

    async def get(self, path: str) -> dict[str, Any]:
        kind, _, name = path.removeprefix("fhir/R4/").partition("/")
        if kind == "Agent":
            self.reads += 1
            self.asked.set()
            await self.open.wait()
            if self.trouble is not None:
                raise self.trouble
            return self.document()["agent"]
        return self.document()["endpoints"][f"Endpoint/{name}"]

    def document(self, **channels: str) -> dict[str, Any]:
        """The resources of these channels, or of the server's own."""
        wanted = channels or self.channels
        return {
            "agent": {
                "resourceType": "Agent",
                "id": AGENT_ID,
                "status": "active",
                "meta": {"versionId": str(self.version)},
                "channel": [{"name": n, "endpoint": {"reference": f"Endpoint/{n}"}} for n in wanted],
            },
            "endpoints": {
                f"Endpoint/{name}": {"resourceType": "Endpoint", "id": name, "status": "active", "address": address}
                for name, address in wanted.items()
            },
        }


class Silent:
    """A link that is down."""

    live = writable = False

    def send(self, frames: list[bytes]) -> None:
        raise AssertionError("nothing is sent")


class Bridge:
    """A steering at work, with real channels."""

    def __init__(self, folder: Path) -> None:
        self.server = Server()
        self.spool: Spool
        self.answers = Answers(Replies(lambda row: None, time.monotonic), Voice())
        self.dispatcher = Dispatcher(
            answers=self.answers,
            token=lambda: "",
            agent_id=AGENT_ID,
            window=Window(),
            now=time.monotonic,
            now_ms=lambda: 0,
        )
        self.channels = Channels(
            dispatcher=self.dispatcher,
            replies=self.answers.replies,
            make_intake=self._make_intake,
            crowded=lambda: False,
            openings=Openings(Room(0), 64, folder / "objects"),
        )
        self.last_good = folder / "last-good.json"
        self.configuration = Configuration(
            AGENT_ID, self.last_good, get=self.server.get, defaults=lambda: self.defaults
        )
        self.defaults = ChannelDefaults()
        self.steering = Steering(self.configuration, self.channels)

    def _make_intake(self, lane: Lane, spec: ChannelSpec) -> Intake:
        return Intake(
            lane, Means(self.spool, self.dispatcher, self.answers, Limits(), lambda: 0, on_refusal=lambda *_: None)
        )

    @property
    def listening(self) -> dict[str, int]:
        return {n: each.inlet.port for n, each in self.channels.by_name.items() if each.inlet is not None}

    @property
    def codes(self) -> list[str]:
        return [finding.code for finding in self.steering.findings()]

    async def reads(self, number: int) -> None:
        """Until the server was asked so often."""
        async with asyncio.timeout(WITHIN_S):
            while self.server.reads < number:
                self.server.asked.clear()
                await self.server.asked.wait()


@pytest.fixture
async def bridge(tmp_path: Path) -> AsyncIterator[Bridge]:
    """Running by an empty configuration that it has read."""
    bridge = Bridge(tmp_path)
    d = bridge.dispatcher
    events = SpoolEvents(d.durable, d.claimed, lambda rows, _: d.refused(rows), d.unclaimed, lambda _: None)
    async with Spool.open(tmp_path / "spool.db", events, min_free_bytes=0) as bridge.spool:
        d.connect(bridge.spool, Silent())
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(bridge.channels.run()), tasks.create_task(bridge.steering.follow())]
            await bridge.reads(1)
            await bridge.steering.reload()
            bridge.server.reads = 0
            yield bridge
            await bridge.channels.close(drain_s=0.0)
            for task in running:
                task.cancel()


# ---- reloads


async def test_whoever_asks_while_a_reload_runs_shares_one_further_run(bridge: Bridge) -> None:
    # given a reload that waits for the server
    bridge.server.open.clear()
    async with asyncio.timeout(WITHIN_S), asyncio.TaskGroup() as group:
        group.create_task(bridge.steering.reload())
        await bridge.reads(1)
        # when ten more ask, the configuration having changed meanwhile
        port = free_port()
        bridge.server.channels = {"adt": f"mllp://127.0.0.1:{port}"}
        for _ in range(10):
            group.create_task(bridge.steering.reload())
        await asyncio.sleep(0)
        bridge.server.open.set()
    # then all of them are answered by one, and it is in force
    assert bridge.server.reads == 2
    assert bridge.listening == {"adt": port}


async def test_whoever_gives_up_on_a_reload_does_not_call_it_off(bridge: Bridge) -> None:
    bridge.server.open.clear()
    port = free_port()
    bridge.server.channels = {"adt": f"mllp://127.0.0.1:{port}"}
    async with asyncio.timeout(WITHIN_S), asyncio.TaskGroup() as group:
        impatient = group.create_task(bridge.steering.reload())
        await bridge.reads(1)
        impatient.cancel()
        patient = group.create_task(bridge.steering.reload())
        await asyncio.sleep(0)
        bridge.server.open.set()
    assert impatient.cancelled()
    assert patient.result() is None
    assert bridge.listening == {"adt": port}


async def test_a_failure_is_told_to_all_who_share_it_and_the_next_reload_works(bridge: Bridge) -> None:
    bridge.server.channels = {"adt": "carrier-pigeon://roof"}
    bridge.server.open.clear()
    async with asyncio.timeout(WITHIN_S), asyncio.TaskGroup() as group:
        asks = [group.create_task(_error_of(bridge.steering.reload())) for _ in range(3)]
        await bridge.reads(1)
        bridge.server.open.set()
    assert all("pigeon" in str(ask.result()) for ask in asks)
    bridge.server.channels = {"adt": f"mllp://127.0.0.1:{free_port()}"}
    await bridge.steering.reload()
    assert list(bridge.listening) == ["adt"]


async def _error_of(asking: Any) -> AgentError:
    with pytest.raises(AgentError) as caught:
        await asking
    return caught.value


async def test_problems_of_the_plan_and_of_this_host_are_told_in_one_answer(bridge: Bridge) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        taken = stranger.getsockname()[1]
        bridge.server.channels = {
            "pigeon": "carrier-pigeon://roof",
            "taken": f"mllp://127.0.0.1:{taken}",
            "foreign": f"mllp://192.0.2.1:{free_port()}",
            "good": f"mllp://127.0.0.1:{free_port()}",
        }
        with pytest.raises(ConfigError) as caught:
            await bridge.steering.reload()
    assert {str(finding.where).partition(".")[0] for finding in caught.value.findings} == {
        "pigeon",
        "taken",
        "foreign",
    }
    assert all(finding.remedy for finding in caught.value.findings)
    assert bridge.listening == {}


async def test_a_refused_reload_is_a_finding_until_a_good_one(bridge: Bridge) -> None:
    bridge.server.channels = {"adt": "carrier-pigeon://roof"}
    await _error_of(bridge.steering.reload())
    assert bridge.codes[0] == "configuration.refused"
    assert any("pigeon" in finding.text for finding in bridge.steering.findings())
    bridge.server.channels = {}
    await bridge.steering.reload()
    assert bridge.codes == []


async def test_a_server_that_refuses_to_give_it_out_is_a_finding_and_one_that_is_away_is_none_of_ours(
    bridge: Bridge,
) -> None:
    bridge.server.trouble = ServerRefused("you may not read this agent", status=403)
    assert "may not read" in str(await _error_of(bridge.steering.reload()))
    assert "configuration.unread" in bridge.codes
    bridge.server.trouble = None
    await bridge.steering.reload()
    bridge.server.trouble = LinkError("the server is away")
    await _error_of(bridge.steering.reload())
    assert bridge.codes == []


async def test_what_is_in_force_is_kept_with_its_versions_and_what_was_refused_is_not(bridge: Bridge) -> None:
    good = {"adt": f"mllp://127.0.0.1:{free_port()}"}
    bridge.server.channels, bridge.server.version = good, 7
    await bridge.steering.reload()
    kept = bridge.last_good.read_bytes()
    assert b'"versionId": "7"' in kept
    bridge.server.channels, bridge.server.version = {"adt": "carrier-pigeon://roof"}, 8
    await _error_of(bridge.steering.reload())
    assert bridge.last_good.read_bytes() == kept


# ---- plans


async def test_a_plan_of_the_server_changes_nothing(bridge: Bridge) -> None:
    bridge.server.channels = {"adt": f"mllp://127.0.0.1:{free_port()}"}
    kept = bridge.last_good.read_bytes()
    proposal = await bridge.steering.propose(None, apply=False, basis=None)
    assert [(change.channel, change.action) for change in proposal.changes] == [("adt", "start")]
    assert not proposal.applied
    assert bridge.listening == {}
    assert bridge.last_good.read_bytes() == kept


async def test_a_plan_is_applied_as_it_was_shown(bridge: Bridge) -> None:
    port = free_port()
    document = bridge.server.document(adt=f"mllp://127.0.0.1:{port}")
    shown = await bridge.steering.propose(document, apply=False, basis=None)
    done = await bridge.steering.propose(document, apply=True, basis=shown.basis)
    assert done.applied
    assert done.changes == shown.changes
    assert bridge.listening == {"adt": port}
    # and it is the last good one, until the server's is read again, as the answer says
    assert str(port).encode() in bridge.last_good.read_bytes()
    assert "the next reload" in done.note
    await bridge.steering.reload()
    assert bridge.listening == {}


@pytest.mark.parametrize("changed", ["the configuration itself", "what runs on this host", "this host's settings"])
async def test_a_plan_whose_basis_has_changed_is_refused_saying_what(bridge: Bridge, changed: str) -> None:
    bridge.server.channels = {"adt": f"mllp://127.0.0.1:{free_port()}"}
    shown = await bridge.steering.propose(None, apply=False, basis=None)
    match changed:
        case "the configuration itself":
            bridge.server.version += 1
        case "what runs on this host":
            document = bridge.server.document(other=f"mllp://127.0.0.1:{free_port()}")
            assert (await bridge.steering.propose(document, apply=True, basis=None)).applied
        case _:
            bridge.defaults = ChannelDefaults(max_connections=3)
    before = bridge.listening
    with pytest.raises(StaleBasis, match=changed):
        await bridge.steering.propose(None, apply=True, basis=shown.basis)
    assert bridge.listening == before


async def test_a_basis_that_is_none_is_refused(bridge: Bridge) -> None:
    with pytest.raises(StaleBasis, match="not the basis of a plan"):
        await bridge.steering.propose(None, apply=True, basis="yesterday")


async def test_a_channel_that_runs_and_whose_new_configuration_is_wrong_is_not_said_to_stop(bridge: Bridge) -> None:
    bridge.server.channels = {"adt": f"mllp://127.0.0.1:{free_port()}"}
    await bridge.steering.reload()
    bridge.server.channels = {"adt": "carrier-pigeon://roof"}
    proposal = await bridge.steering.propose(None, apply=True, basis=None)
    [change] = proposal.changes
    assert (change.action, change.address) == ("failed", "carrier-pigeon://roof")
    assert not proposal.applied
    [problem] = proposal.facts()["problems"]
    assert (problem["channel"], problem["severity"]) == ("adt", "error")
    assert list(bridge.listening) == ["adt"]


async def test_the_configuration_of_another_agent_is_not_applied(bridge: Bridge) -> None:
    document = bridge.server.document(adt=f"mllp://127.0.0.1:{free_port()}")
    document["agent"]["id"] = "somebody-else"
    proposal = await bridge.steering.propose(document, apply=True, basis=None)
    assert [(each.code, each.severity) for each in proposal.errors] == [("configuration.other-agent", Severity.ERROR)]
    assert not proposal.applied
