"""`agent channel list`, as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

from channel_desk import Desk
from daemon_at_home import a_daemon, listens, settings_for, until

from agent.hub import Hub


async def test_every_channel_is_listed_with_the_daemon_at_work_and_down(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    async with Hub.open(tmp_path / "hub", ("127.0.0.1", 0)) as hub:
        channels = {"adt": "mllp://127.0.0.1:0", "lab": "mllp://127.0.0.1:0?enhanced=aa"}
        await hub.put_agent("ward", channels, agent_id=hub.agent_id)
        settings = settings_for(tmp_path / "agent", hub.base_url, hub)
        async with a_daemon(settings) as daemon:
            await listens(daemon, "lab")
            await until(settings.paths.last_good.exists)
            # given a daemon at work
            at_work = await desk.types("list", "--json")
            assert at_work.status == 0, at_work.err
            assert [(each["name"], each["kind"], each["state"]) for each in at_work.facts["channels"]] == [
                ("adt", "mllp", "listening"),
                ("lab", "mllp", "listening"),
            ]
            # then the editions of what is in force stand beside them
            versions = at_work.facts["configuration"]["versions"]
            mine = hub.resource("Agent", hub.agent_id)
            assert versions[f"Agent/{hub.agent_id}"] == {
                "versionId": mine["meta"]["versionId"],
                "lastUpdated": mine["meta"]["lastUpdated"],
            }
            assert len(versions) == 3
            screen = (await desk.types("list")).out
            assert "mllp://127.0.0.1:0?enhanced=aa" in screen
            assert at_work.facts["configuration"]["digest"] in screen
    # when it is down, the ones that it kept are listed
    down = await desk.types("list", "--json")
    assert down.status == 3
    assert [(each["name"], each["state"]) for each in down.facts["channels"]] == [("adt", "down"), ("lab", "down")]
    assert down.facts["running"] is False
    assert "not running" in down.err


async def test_a_channel_that_does_not_listen_is_told_with_its_problem(tmp_path: Path) -> None:
    async with Hub.open(tmp_path / "hub", ("127.0.0.1", 0)) as hub:
        await hub.put_agent("ward", {"adt": "mllp://192.0.2.1:2575"}, agent_id=hub.agent_id)
        async with a_daemon(settings_for(tmp_path / "agent", hub.base_url, hub)) as daemon:
            await until(lambda: "adt" in daemon.channels.by_name)
            answer = await Desk(tmp_path).types("list")
    assert answer.status == 1
    assert "failed" in answer.out
    assert "adt: 192.0.2.1:2575: this address is not one of this machine's" in answer.out


async def test_what_a_channel_speaks_and_over_what_is_read_in_full(tmp_path: Path) -> None:
    async with Hub.open(tmp_path / "hub", ("127.0.0.1", 0)) as hub:
        address = f"serial://{tmp_path}/tty?mode=astm"
        await hub.put_agent("ward", {"lab": address}, agent_id=hub.agent_id)
        settings = settings_for(tmp_path / "agent", hub.base_url, hub)
        async with a_daemon(settings) as daemon:
            await until(lambda: "lab" in daemon.channels.by_name and settings.paths.last_good.exists())
            at_work = await Desk(tmp_path).types("list")
        down = await Desk(tmp_path).types("list")
    assert "astm serial connecting" in at_work.out
    assert "astm serial down" in down.out


async def test_where_nothing_was_ever_configured_the_list_says_so(tmp_path: Path) -> None:
    answer = await Desk(tmp_path).types("list")
    assert answer.status == 3
    assert "No channel is configured here yet." in answer.out
    assert json.loads((await Desk(tmp_path).types("list", "--json")).out)["configuration"] is None
