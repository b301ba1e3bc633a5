"""The way in as a whole: what earlier processes left behind."""

from __future__ import annotations

import asyncio
from pathlib import Path

from daemon_at_home import WITHIN_S, a_daemon, settings_for, until

from agent.hub import Hub
from agent.store.drafts import Drafts

HEADER = b"H|\\^&\r"


async def a_draft(folder: Path, channel: str) -> None:
    """An analyser has heard ACK for a frame, and then the power went."""
    drafts = Drafts(folder)
    kept: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    drafts.begin(channel, "10.0.0.9:4000").add(HEADER, kept.set_result)
    async with asyncio.timeout(WITHIN_S):
        assert await kept
    await drafts.close()


async def test_a_session_that_broke_off_waits_for_its_channel_and_goes_when_that_is_back(tmp_path: Path) -> None:
    await a_draft(tmp_path / "data" / "drafts", "lab")
    async with Hub.open(tmp_path / "hub", ("127.0.0.1", 0)) as hub:
        await hub.put_agent("ward", {}, agent_id=hub.agent_id)
        async with a_daemon(settings_for(tmp_path / "data", hub.base_url, hub)) as daemon:
            await until(lambda: daemon.uplink.live and daemon.steering.plan is not None)
            (told,) = [f for f in daemon.vitals.report().findings if f.code == "draft.not-configured"]
            assert (told.where, told.text.split()[0]) == ("lab", "1")

            await hub.put_agent("ward", {"lab": "astm://127.0.0.1:0"}, agent_id=hub.agent_id)
            await daemon.steering.reload()

            await until(lambda: hub.messages(channel="lab"))
            opened = hub.message(hub.messages(channel="lab")[0].id)
            assert opened is not None
            assert opened.body == HEADER.decode()
            assert not [f for f in daemon.vitals.report().findings if f.code.startswith("draft.")]


async def test_a_draft_that_cannot_be_read_is_set_aside_and_told(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "drafts"
    await a_draft(folder, "lab")
    (draft,) = folder.iterdir()
    content = bytearray(draft.read_bytes())
    content[4] ^= 0xFF
    draft.write_bytes(content)
    async with Hub.open(tmp_path / "hub", ("127.0.0.1", 0)) as hub:
        await hub.put_agent("ward", {}, agent_id=hub.agent_id)
        async with a_daemon(settings_for(tmp_path / "data", hub.base_url, hub)) as daemon:
            await until(lambda: daemon.uplink.live)
            (told,) = [f for f in daemon.vitals.report().findings if f.code == "draft.unread"]
            assert told.where.endswith(".bad")
            assert Path(told.where).exists()


async def test_an_object_that_no_message_names_is_deleted(tmp_path: Path) -> None:
    object_ = an_object(tmp_path)
    async with (
        Hub.open(tmp_path / "hub", ("127.0.0.1", 0)) as hub,
        a_daemon(settings_for(tmp_path / "data", hub.base_url, hub)),
    ):
        await until(lambda: not object_.exists())


async def test_beside_a_damaged_spool_it_is_kept_and_told(tmp_path: Path) -> None:
    # given an object that was acknowledged, whose message may be what could not be read of the spool
    object_ = an_object(tmp_path)
    damaged = tmp_path / "data" / "spool.damaged-1.db"
    damaged.write_bytes(b"what is left of it")
    async with Hub.open(tmp_path / "hub", ("127.0.0.1", 0)) as hub:
        settings = settings_for(tmp_path / "data", hub.base_url, hub)
        # then it is not deleted, and somebody is told
        async with a_daemon(settings) as daemon:
            await until(lambda: [f for f in daemon.vitals.report().findings if f.code == "objects.unnamed"])
        assert object_.exists()
        # until somebody has looked
        damaged.unlink()
        async with a_daemon(settings):
            await until(lambda: not object_.exists())


async def test_a_folder_of_objects_that_cannot_be_read_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "objects").write_text("a file, where the folder should be")
    async with (
        Hub.open(tmp_path / "hub", ("127.0.0.1", 0)) as hub,
        a_daemon(settings_for(tmp_path / "data", hub.base_url, hub)) as daemon,
    ):
        await until(lambda: daemon.uplink.live and daemon.steering.plan is not None)


def an_object(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "objects"
    folder.mkdir(parents=True)
    (folder / "1795392147411000.dcm").write_bytes(b"DICM")
    return folder / "1795392147411000.dcm"
