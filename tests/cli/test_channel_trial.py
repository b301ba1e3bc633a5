"""`agent channel test`, as it is typed, against channels of a real daemon."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from channel_desk import Answer, Desk
from daemon_at_home import a_daemon, listens, message, settings_for, until

from agent.daemon import Daemon
from agent.hub import Hub


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@asynccontextmanager
async def at_work(folder: Path, **channels: str) -> AsyncIterator[tuple[Daemon, Desk]]:
    async with Hub.open(folder / "hub", ("127.0.0.1", 0)) as hub:
        await hub.put_agent("ward", channels, agent_id=hub.agent_id)
        settings = settings_for(folder / "agent", hub.base_url, hub)
        async with a_daemon(settings) as daemon:
            await until(lambda: set(channels) <= set(daemon.channels.by_name))
            await until(settings.paths.last_good.exists)
            yield daemon, Desk(folder, hub)


def answers(answer: Answer) -> list[str]:
    assert (answer.status, answer.facts["ok"]) == (0, True), (answer.out, answer.err)
    steps: list[str] = answer.facts["steps"]
    return steps


async def test_a_channel_that_listens_is_reached_and_nothing_is_delivered(tmp_path: Path) -> None:
    async with at_work(tmp_path, adt="mllp://127.0.0.1:0") as (daemon, desk):
        port = await listens(daemon, "adt")
        steps = answers(await desk.types("test", "adt", "--json"))
        assert steps == [f"connected to 127.0.0.1:{port}", "the connection stays open"]
        assert daemon.channels.metrics["adt"].received == 0
        assert "the connection stays open" in (await desk.types("test", "adt")).out


async def test_a_message_is_sent_and_its_answer_shown(tmp_path: Path) -> None:
    async with at_work(tmp_path, adt="mllp://0.0.0.0:0") as (daemon, desk):
        file = desk.folder / "a01.hl7"
        file.write_bytes(message("M7").replace(b"\r", b"\n"))
        steps = answers(await desk.types("test", "adt", "--message", str(file), "--json"))
        assert steps[-1].startswith("the message was answered AA")
        assert daemon.channels.metrics["adt"].received == 1


async def test_a_message_that_is_refused_is_a_failure_with_its_reason(tmp_path: Path) -> None:
    async with at_work(tmp_path, adt="mllp://127.0.0.1:0?duplicateBehavior=reject") as (_, desk):
        file = desk.folder / "a01.hl7"
        file.write_bytes(message("M7"))
        answers(await desk.types("test", "adt", "--message", str(file), "--json"))
        again = await desk.types("test", "adt", "--message", str(file), "--json")
    assert again.status == 1
    assert again.facts["problem"]["text"].startswith("the message was answered AR")
    assert again.facts["problem"]["remedy"]


async def test_a_byte_stream_is_only_connected_to(tmp_path: Path) -> None:
    async with at_work(tmp_path, monitor="tcp://127.0.0.1:0?startChar=%02&endChar=%03") as (_, desk):
        assert answers(await desk.types("test", "monitor", "--json"))[-1] == "the connection stays open"
        file = desk.folder / "a01.hl7"
        file.write_bytes(message())
        refused = await desk.types("test", "monitor", "--message", str(file), "--json")
        assert "only MLLP channels" in refused.facts["problem"]["text"]


async def test_an_analysers_channel_is_asked_for_a_session_that_is_given_up(tmp_path: Path) -> None:
    async with at_work(tmp_path, lab="astm://127.0.0.1:0") as (daemon, desk):
        assert answers(await desk.types("test", "lab", "--json"))[-1] == "ENQ was answered ACK"
        assert daemon.channels.metrics["lab"].received == 0


async def test_a_dicom_channel_is_echoed(tmp_path: Path) -> None:
    pytest.importorskip("pynetdicom")
    async with at_work(tmp_path, ct="dicom://127.0.0.1:0?aeTitle=WARD") as (_, desk):
        assert answers(await desk.types("test", "ct", "--json"))[-1] == "C-ECHO was answered with success"


async def test_a_sender_that_may_not_come_in_is_told_where_that_is_said(tmp_path: Path) -> None:
    async with at_work(tmp_path, adt="mllp://127.0.0.1:0?allow=192.0.2.0/24") as (_, desk):
        refused = await desk.types("test", "adt")
    assert refused.status == 1
    assert "closed the connection at once" in refused.out
    assert "allow" in refused.out


async def test_a_channel_that_does_not_listen_gives_the_agents_own_words(tmp_path: Path) -> None:
    async with at_work(tmp_path, adt="mllp://192.0.2.1:2575") as (_, desk):
        refused = await desk.types("test", "adt", "--json")
    assert refused.status == 1
    assert (
        "the agent says: 192.0.2.1:2575: this address is not one of this machine's"
        in (refused.facts["problem"]["text"])
    )


async def test_a_channel_that_dials_is_asked_of_the_agent(tmp_path: Path) -> None:
    port = free_port()
    async with at_work(tmp_path, lab=f"mllp://127.0.0.1:{port}?mode=client") as (daemon, desk):
        # given a sender that does not listen
        refused = await desk.types("test", "lab", "--json")
        assert refused.status == 1
        assert f"the agent does not have the connection to 127.0.0.1:{port}" in refused.facts["problem"]["text"]
        # when it does, then the agent has its connection

        async def hold(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            writer.transport.abort()

        async with await asyncio.start_server(hold, "127.0.0.1", port):
            await until(lambda: daemon.channels.by_name["lab"].listening)
            assert answers(await desk.types("test", "lab", "--json")) == [
                f"the agent has the connection to 127.0.0.1:{port}"
            ]


async def test_a_name_that_nobody_has_is_answered_with_the_nearest(tmp_path: Path) -> None:
    async with at_work(tmp_path, adt="mllp://127.0.0.1:0") as (_, desk):
        refused = await desk.types("test", "atd")
    assert refused.status == 1
    assert "there is no channel 'atd'" in refused.err
    assert "did you mean 'adt'?" in refused.err


@pytest.mark.parametrize("content", [b"", b"no message", message("1") + b"\x1c\r\x0b"])
async def test_a_file_that_is_no_message_is_refused(tmp_path: Path, content: bytes) -> None:
    if content.startswith(b"MSH"):
        content = b"\x0b" + message("1") + b"\x1c\r\x0b" + message("2") + b"\x1c\r"
    file = tmp_path / "x.hl7"
    file.write_bytes(content)
    refused = await Desk(tmp_path).types("test", "adt", "--message", str(file))
    assert refused.status == 2
    assert "not one HL7 message" in refused.err
