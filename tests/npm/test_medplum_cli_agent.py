"""The unmodified Medplum CLI pushes and pings through a hub and an agent, as it does through Medplum's own."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from medplum_cli import Cli
from npm_far_ends import Laboratory, a_laboratory, an_agent

from agent.hub import Hub

pytestmark = pytest.mark.npm


@pytest.fixture
def closed() -> Iterator[Laboratory]:
    """A laboratory that is away."""
    with a_laboratory() as laboratory:
        yield laboratory


@pytest.fixture
async def laboratory() -> AsyncIterator[Laboratory]:
    """A laboratory that listens."""
    with a_laboratory() as laboratory:
        async with laboratory.open():
            yield laboratory


@pytest.fixture
async def agent_id(logged_in: Cli, hub: Hub, tmp_path: Path) -> AsyncIterator[str]:
    """The id of an agent that is connected."""
    async with an_agent(hub, tmp_path / "agent"):
        yield hub.agent_id


async def device(hub: Hub, url: str) -> str:
    """The id of a new Device with this address."""
    created = await hub.put_resource({"resourceType": "Device", "url": url})
    return str(created["id"])


def admission(control_id: str) -> str:
    return f"MSH|^~\\&|ADT|WARD|LAB|HOSP|20260101120000||ADT^A01|{control_id}|P|2.5\rPID|1||4711^^^MR||TEST^ANNA"


def acknowledgement(printed: str) -> list[str]:
    """MSA-1 and MSA-2 of what was printed, which is one message and nothing else."""
    header, msa = printed.strip("\r\n").split("\r")
    assert header.startswith("MSH|^~\\&|LAB|HOSP|ADT|WARD|"), printed
    return msa.split("|")[1:3]


# ---- push


async def test_a_message_goes_to_the_device_and_its_acknowledgement_is_printed(
    logged_in: Cli, hub: Hub, agent_id: str, laboratory: Laboratory
) -> None:
    target = await device(hub, f"mllp://127.0.0.1:{laboratory.port}")
    printed = await logged_in.prints("agent", "push", target, admission("CLI-1"), agent_id)
    assert acknowledgement(printed) == ["AA", "CLI-1"]
    assert laboratory.heard == [admission("CLI-1") + "\r"]


async def test_a_refusal_of_the_device_is_its_answer(
    logged_in: Cli, hub: Hub, agent_id: str, laboratory: Laboratory
) -> None:
    laboratory.says = "AR"
    target = await device(hub, f"mllp://127.0.0.1:{laboratory.port}")
    printed = await logged_in.prints("agent", "push", target, admission("CLI-1"), "--criteria", "Agent?name=ward")
    assert acknowledgement(printed) == ["AR", "CLI-1"]


async def test_nobody_waits_for_the_device_if_so_wished(
    logged_in: Cli, hub: Hub, agent_id: str, laboratory: Laboratory
) -> None:
    target = await device(hub, f"mllp://127.0.0.1:{laboratory.port}")
    printed = await logged_in.prints("agent", "push", target, admission("CLI-1"), agent_id, "--no-wait")
    assert "OperationOutcome" in printed
    assert "id: 'ok'" in printed
    await laboratory.has_heard()


async def test_a_message_for_a_durable_device_that_is_away_is_stored_and_delivered_when_it_is_back(
    logged_in: Cli, hub: Hub, agent_id: str, closed: Laboratory
) -> None:
    # when a message is pushed to a device that is away, then the CLI hears that it is stored
    target = await device(hub, f"mllp://127.0.0.1:{closed.port}?durable=true&autoRetryBaseDelayMs=100")
    printed = await logged_in.prints("agent", "push", target, admission("CLI-1"), agent_id, "--no-wait")
    assert f"stored, and on its way to 127.0.0.1:{closed.port} (ref 1)" in printed
    # and the device hears it once it is back
    async with closed.open():
        await closed.has_heard()
        assert closed.heard == [admission("CLI-1") + "\r"]


async def test_a_device_that_is_away_is_told_in_the_agents_words(
    logged_in: Cli, hub: Hub, agent_id: str, closed: Laboratory
) -> None:
    target = await device(hub, f"mllp://127.0.0.1:{closed.port}")
    said = await logged_in.is_refused("agent", "push", target, admission("CLI-1"), agent_id)
    assert said.startswith(f"cannot connect to 127.0.0.1:{closed.port}: connection refused")
    status, printed = await logged_in.run("agent", "push", target, admission("CLI-1"), agent_id)
    assert (status, printed) == (1, "Error: Unexpected response from agent while pushing message to agent\n")


async def test_what_is_no_message_is_told_in_the_agents_words(
    logged_in: Cli, hub: Hub, agent_id: str, laboratory: Laboratory
) -> None:
    target = await device(hub, f"mllp://127.0.0.1:{laboratory.port}")
    said = await logged_in.is_refused("agent", "push", target, "good morning", agent_id)
    assert "the message does not begin with an MSH segment" in said
    assert laboratory.heard == []


async def test_a_push_that_is_answered_later_is_a_job_that_the_cli_can_read(
    logged_in: Cli, hub: Hub, agent_id: str, laboratory: Laboratory
) -> None:
    # when the CLI asks not to be kept waiting
    request = {
        "destination": f"Device/{await device(hub, f'mllp://127.0.0.1:{laboratory.port}')}",
        "contentType": "x-application/hl7-v2+er7",
        "body": admission("CLI-1"),
        "waitForResponse": True,
    }
    accepted = await logged_in.json("post", f"Agent/{agent_id}/$push", json.dumps(request), "--prefer-async")
    # then it can ask for the outcome where it was told to, once the device has heard the message
    assert accepted["id"] == "accepted"
    await laboratory.has_heard()
    place = accepted["issue"][0]["diagnostics"].removeprefix(hub.base_url)
    job = {"status": "accepted"}
    while job["status"] == "accepted":
        job = await logged_in.json("get", place)
    assert job["status"] == "completed"
    assert "MSA|AA|CLI-1" in json.dumps(job["output"])


# ---- ping


async def test_ping_prints_what_the_systems_ping_said_on_the_agents_host(logged_in: Cli, agent_id: str) -> None:
    printed = await logged_in.prints("agent", "ping", "127.0.0.1", agent_id)
    assert "1 packets transmitted, 1 received" in printed


async def test_ping_as_often_as_the_count_says(logged_in: Cli, agent_id: str) -> None:
    printed = await logged_in.prints("agent", "ping", "127.0.0.1", agent_id, "--count", "3")
    assert "3 packets transmitted, 3 received" in printed
    said = await logged_in.is_refused("agent", "ping", "127.0.0.1", agent_id, "--count", "101")
    assert said == 'Unable to ping 127.0.0.1 "101" times. A whole number from 1 to 100 is expected.'


async def test_pinging_a_device_connects_to_its_port(
    logged_in: Cli, hub: Hub, agent_id: str, laboratory: Laboratory
) -> None:
    target = await device(hub, f"mllp://127.0.0.1:{laboratory.port}")
    printed = await logged_in.prints("agent", "ping", f"Device/{target}", agent_id, "--count", "2")
    assert printed.count(f"TCP 127.0.0.1:{laboratory.port}: connected, time=") == 2
    assert "2 connections tried, 2 made" in printed
    assert laboratory.heard == []


async def test_pinging_a_device_that_is_away_is_told_in_the_agents_words(
    logged_in: Cli, hub: Hub, agent_id: str, closed: Laboratory
) -> None:
    target = await device(hub, f"mllp://127.0.0.1:{closed.port}")
    said = await logged_in.is_refused("agent", "ping", f"Device/{target}", agent_id)
    assert said.startswith(f"cannot connect to 127.0.0.1:{closed.port}: connection refused")
