"""What the server wants us to be, and what we go by while it is away."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from agent.configuration import Configuration
from agent.errors import AgentError, ConfigError, LinkError
from agent.net.rest import ServerRefused
from agent.protocol.fhir import Endpoint
from agent.settings import ChannelDefaults

AGENT_ID = "2f0f3ac2-8ad4-4b5a-9a4b-3d9d47a1f9b1"


def agent_resource(*endpoints: str, status: str = "active") -> dict[str, Any]:
    channels = [{"name": f"c{n}", "endpoint": {"reference": ref}} for n, ref in enumerate(endpoints)]
    return {"resourceType": "Agent", "id": AGENT_ID, "status": status, "name": "ward", "channel": channels}


def endpoint(number: int, port: int = 2575) -> dict[str, Any]:
    return {
        "resourceType": "Endpoint",
        "id": f"e{number}",
        "status": "active",
        "address": f"mllp://127.0.0.1:{port + number}",
    }


class Server:
    """Resources by path; an exception where reading one fails. `most`: how many reads there were at one time."""

    def __init__(self, resources: dict[str, dict[str, Any] | AgentError]) -> None:
        self.resources = resources
        self.reads: list[str] = []
        self.most = 0
        self._now = 0

    async def get(self, path: str) -> dict[str, Any]:
        self.reads.append(path)
        self._now += 1
        self.most = max(self.most, self._now)
        await asyncio.sleep(0)
        self._now -= 1
        found = self.resources.get(path.removeprefix("fhir/R4/"))
        if found is None:
            raise ServerRefused("there is no such resource", status=404)
        if isinstance(found, AgentError):
            raise found
        return found


def configuration(server: Server, folder: Path) -> Configuration:
    return Configuration(AGENT_ID, folder / "last-good.json", get=server.get, defaults=ChannelDefaults)


async def test_agent_and_endpoints_are_read_whole(tmp_path: Path) -> None:
    references = [f"Endpoint/e{n}" for n in range(40)]
    server = Server(
        {f"Agent/{AGENT_ID}": agent_resource(*references)} | {ref: endpoint(n) for n, ref in enumerate(references)}
    )
    desired = configuration(server, tmp_path)
    plan = desired.plan(await desired.read())
    assert [channel.port for channel in plan.channels] == [2575 + n for n in range(40)]
    assert 1 < server.most <= 16, "side by side, but not all at once"


async def test_an_endpoint_of_two_channels_is_read_once(tmp_path: Path) -> None:
    server = Server({f"Agent/{AGENT_ID}": agent_resource("Endpoint/e0", "Endpoint/e0"), "Endpoint/e0": endpoint(0)})
    await configuration(server, tmp_path).read()
    assert server.reads.count("fhir/R4/Endpoint/e0") == 1


async def test_an_endpoint_that_cannot_be_read_is_that_channels_problem(tmp_path: Path) -> None:
    server = Server({f"Agent/{AGENT_ID}": agent_resource("Endpoint/e0", "Endpoint/e1"), "Endpoint/e0": endpoint(0)})
    desired = configuration(server, tmp_path)
    plan = desired.plan(await desired.read())
    assert [channel.name for channel in plan.channels] == ["c0"]
    [error] = plan.errors
    assert error.code == "channel.endpoint-unreadable"
    assert "Endpoint/e1 cannot be read: there is no such resource" in error.text


async def test_a_resource_that_is_no_endpoint_is_that_channels_problem(tmp_path: Path) -> None:
    server = Server({f"Agent/{AGENT_ID}": agent_resource("Endpoint/e0"), "Endpoint/e0": {"resourceType": "Patient"}})
    desired = configuration(server, tmp_path)
    plan = desired.plan(await desired.read())
    assert plan.channels == ()
    assert len(plan.errors) == 1


async def test_a_network_that_breaks_while_reading_leaves_nothing_half_read(tmp_path: Path) -> None:
    server = Server(
        {
            f"Agent/{AGENT_ID}": agent_resource("Endpoint/e0", "Endpoint/e1"),
            "Endpoint/e0": LinkError("the server is away", retry_after_s=7.0),
            "Endpoint/e1": endpoint(1),
        }
    )
    with pytest.raises(LinkError, match="the server is away") as caught:
        await configuration(server, tmp_path).read()
    assert caught.value.retry_after_s == 7.0


async def test_an_agent_that_is_not_there_or_no_agent_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ServerRefused):
        await configuration(Server({}), tmp_path).read()
    with pytest.raises(ConfigError):
        await configuration(Server({f"Agent/{AGENT_ID}": {"resourceType": "Patient"}}), tmp_path).read()


async def test_an_agent_that_is_off_asks_for_nothing_more(tmp_path: Path) -> None:
    server = Server({f"Agent/{AGENT_ID}": agent_resource("Endpoint/e0", status="off")})
    desired = configuration(server, tmp_path)
    plan = desired.plan(await desired.read())
    assert plan.off
    assert len(server.reads) == 1


async def test_the_last_good_configuration_is_there_without_a_server(tmp_path: Path) -> None:
    server = Server({f"Agent/{AGENT_ID}": agent_resource("Endpoint/e0"), "Endpoint/e0": endpoint(0)})
    first = configuration(server, tmp_path)
    resources = await first.read()
    assert isinstance(resources.endpoints["Endpoint/e0"], Endpoint)
    await first.keep(resources)
    again = configuration(Server({}), tmp_path)
    plan = again.recall()
    assert plan is not None
    assert plan.channels == first.plan(resources).channels
    assert again.saved_at == first.saved_at


async def test_nothing_kept_is_nothing_recalled(tmp_path: Path) -> None:
    desired = configuration(Server({}), tmp_path)
    assert desired.recall() is None
    assert desired.finding is None


async def test_a_kept_copy_that_cannot_be_read_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "last-good.json").write_bytes(b"{half")
    desired = configuration(Server({}), tmp_path)
    assert desired.recall() is None
    assert desired.finding is not None


async def test_another_agents_copy_is_not_ours(tmp_path: Path) -> None:
    server = Server({f"Agent/{AGENT_ID}": agent_resource("Endpoint/e0"), "Endpoint/e0": endpoint(0)})
    first = configuration(server, tmp_path)
    await first.keep(await first.read())
    other = Configuration("other", tmp_path / "last-good.json", get=server.get, defaults=ChannelDefaults)
    assert other.recall() is None
