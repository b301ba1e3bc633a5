"""`agent channel plan`, as it is typed: with a daemon at work and without one."""

from __future__ import annotations

import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from channel_desk import Desk, agent_of, document, endpoint
from daemon_at_home import a_daemon, ask, listens, settings_for

from agent.cli.channel_plan import read_document
from agent.daemon import Daemon
from agent.errors import ConfigError
from agent.hub import Hub


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@asynccontextmanager
async def at_work(folder: Path, **channels: str) -> AsyncIterator[tuple[Daemon, Hub, Desk]]:
    async with Hub.open(folder / "hub", ("127.0.0.1", 0)) as hub:
        await hub.put_agent("ward", channels, agent_id=hub.agent_id)
        async with a_daemon(settings_for(folder / "agent", hub.base_url, hub)) as daemon:
            for name in channels:
                await listens(daemon, name)
            yield daemon, hub, Desk(folder)


def actions(facts: dict[str, Any]) -> dict[str, str]:
    return {change["channel"]: change["action"] for change in facts["changes"]}


async def test_a_file_is_planned_applied_and_replaced_by_the_next_reload(tmp_path: Path) -> None:
    old, new = free_port(), free_port()
    async with at_work(tmp_path, hl7=f"mllp://127.0.0.1:{old}") as (daemon, hub, desk):
        file = desk.writes("new.json", document(hub.agent_id, lab=f"mllp://127.0.0.1:{new}?enhanced=aa"))
        # when it is planned, nothing changes
        shown = await desk.types("plan", file, "--json")
        assert (shown.status, shown.facts["applied"], shown.facts["running"]) == (0, False, True)
        assert actions(shown.facts) == {"lab": "start", "hl7": "stop"}
        assert set(daemon.channels.by_name) == {"hl7"}
        # when just that is applied, it is in force
        done = await desk.types("plan", file, "--apply", "--basis", shown.facts["basis"])
        assert done.status == 0, done.err
        assert "Applied" in done.out
        assert "the next reload" in done.out
        assert [ack.code for ack in await ask(new, "M1")] == ["AA"]
        # and the server's comes back with the next reload
        again = await desk.types("plan", "--from-server", "--apply", "--json")
        assert actions(again.facts) == {"hl7": "start", "lab": "stop"}
        assert [ack.code for ack in await ask(old, "M2")] == ["AA"]


async def test_a_basis_that_is_not_todays_is_refused_saying_what_has_changed(tmp_path: Path) -> None:
    async with at_work(tmp_path, hl7="mllp://127.0.0.1:0") as (_, hub, desk):
        shown = await desk.types("plan", "--from-server", "--json")
        await hub.put_agent("ward", {"lab": "mllp://127.0.0.1:0"}, agent_id=hub.agent_id)
        refused = await desk.types("plan", "--from-server", "--apply", "--basis", shown.facts["basis"])
    assert refused.status == 1
    assert "the configuration itself changed since the plan was made" in refused.err


async def test_every_problem_of_every_channel_is_shown_and_nothing_is_applied(tmp_path: Path) -> None:
    async with at_work(tmp_path, hl7="mllp://127.0.0.1:0") as (daemon, hub, desk):
        with socket.create_server(("127.0.0.1", 0)) as stranger:
            taken = stranger.getsockname()[1]
            wrong = document(
                hub.agent_id,
                pigeon="carrier-pigeon://roof",
                taken=f"mllp://127.0.0.1:{taken}",
                foreign=f"mllp://192.0.2.1:{free_port()}",
                keys=f"mllp://127.0.0.1:{free_port()}?logicalChannelKey=PID",
            )
            refused = await desk.types("plan", "-", "--apply", "--json", stdin=f"{wrong}".replace("'", '"'))
            screen = await desk.types("plan", desk.writes("wrong.json", wrong))
    assert (refused.status, refused.facts["applied"]) == (1, False)
    errors = [problem for problem in refused.facts["problems"] if problem["severity"] == "error"]
    assert {problem["channel"] for problem in errors} == {"pigeon", "taken", "foreign", "keys"}
    assert all(problem["code"] and problem["text"] and problem["remedy"] for problem in errors)
    assert actions(refused.facts) == dict.fromkeys(("pigeon", "taken", "foreign", "keys"), "failed") | {"hl7": "stop"}
    assert set(daemon.channels.by_name) == {"hl7"}
    assert "could not be applied, for 4 problems. Nothing was changed." in screen.out


async def test_without_a_daemon_a_file_is_planned_with_the_checks_of_this_host(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        taken = stranger.getsockname()[1]
        file = desk.writes(
            "new.json", document("", good=f"mllp://127.0.0.1:{free_port()}", bad=f"mllp://127.0.0.1:{taken}")
        )
        shown = await desk.types("plan", file, "--json")
    assert (shown.status, shown.facts["running"]) == (1, False)
    assert actions(shown.facts) == {"good": "start", "bad": "failed"}
    [problem] = shown.facts["problems"]
    assert problem["channel"] == "bad"
    assert sys.platform != "linux" or "process" in problem["text"]


@pytest.mark.parametrize("words", [["--from-server"], ["new.json", "--apply"]])
async def test_without_a_daemon_nothing_can_be_applied_or_read_from_the_server(
    tmp_path: Path, words: list[str]
) -> None:
    desk = Desk(tmp_path)
    desk.writes("new.json", document("", adt="mllp://127.0.0.1:0"))
    refused = await desk.types("plan", *words)
    assert (refused.status, refused.out) == (3, "")
    assert "not running" in refused.err


def test_a_bundle_and_a_pair_are_the_same_configuration(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    pair = document("a", adt="mllp://h:1", lab="mllp://h:2")
    stranger = endpoint("of-another-agent", "mllp://h:3")
    bundle = {
        "resourceType": "Bundle",
        "entry": [{"resource": each} for each in (stranger, *pair["endpoints"], pair["agent"])],
    }
    by_reference = {**pair, "endpoints": {f"Endpoint/{each['id']}": each for each in pair["endpoints"]}}
    read = read_document(desk.writes("pair.json", pair))
    assert read == read_document(desk.writes("bundle.json", bundle))
    assert read == read_document(desk.writes("map.json", by_reference))
    assert set(read["endpoints"]) == {"Endpoint/adt", "Endpoint/lab"}


def test_references_by_full_url_are_found_too(tmp_path: Path) -> None:
    agent = agent_of("a")
    agent["channel"] = [{"name": "adt", "endpoint": {"reference": "urn:uuid:1"}}]
    adt = endpoint("adt", "mllp://h:1")
    bundle = {"resourceType": "Bundle", "entry": [{"fullUrl": "urn:uuid:1", "resource": adt}, {"resource": agent}]}
    assert read_document(Desk(tmp_path).writes("b.json", bundle))["endpoints"] == {"urn:uuid:1": adt}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", r"no JSON \(line 1, column 2"),
        ("[]", "it holds no Agent"),
        ("{}", "it holds no Agent"),
        ('{"resourceType": "Bundle"}', "the Bundle holds 0 Agents"),
        ('{"resourceType": "Bundle", "entry": [3, {"resource": 4}]}', "the Bundle holds 0 Agents"),
        ("\x00\xff", "no JSON"),
    ],
)
def test_a_file_that_holds_no_configuration_is_refused_in_a_sentence(tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(ConfigError, match=says) as caught:
        read_document(str(path))
    assert caught.value.findings[0].remedy


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match=r"no-such-file\.json"):
        read_document("no-such-file.json")
