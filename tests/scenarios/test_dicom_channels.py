"""DICOM senders, played by DCMTK, as the whole agent carries them: kept, uploaded as a Binary, told to the server."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from pathlib import Path

import pytest
from ward_agents import AgentProcess
from ward_building import Ward
from ward_servers import Asked, ScriptedServer

WITHIN_S = 60.0
STUDY = "1.2.826.0.1.3680043.8.498.2"


def dcmtk(name: str) -> str:
    """One of DCMTK's programs; pynetdicom's of the same names are scripts."""
    for folder in os.get_exec_path():
        found = shutil.which(name, path=folder)
        if found is not None and Path(found).read_bytes()[:2] != b"#!":
            return found
    pytest.fail(f"{name} is not installed: install dcmtk", pytrace=False)


async def run(program: str, *words: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        dcmtk(program), *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(WITHIN_S):
        output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode(errors="replace")


async def an_object(folder: Path, number: int = 1, *, size: int = 64) -> Path:
    """A secondary capture of so many rows and columns, made by DCMTK itself."""
    text = folder / f"{number}.dump"
    rows = "\\".join(["00"] * (size * size))
    text.write_text(
        "(0008,0005) CS [ISO_IR 100]\n"
        "(0008,0016) UI =SecondaryCaptureImageStorage\n"
        f"(0008,0018) UI [1.2.826.0.1.3680043.8.498.1.{number}]\n"
        "(0008,0060) CS [OT]\n"
        "(0010,0010) PN [EVERYMAN^ADAM]\n"
        "(0010,0020) LO [PATID1234]\n"
        f"(0020,000d) UI [{STUDY}]\n"
        "(0020,000e) UI [1.2.826.0.1.3680043.8.498.3]\n"
        "(0028,0002) US 1\n(0028,0004) CS [MONOCHROME2]\n"
        f"(0028,0010) US {size}\n(0028,0011) US {size}\n"
        "(0028,0100) US 8\n(0028,0101) US 8\n(0028,0102) US 7\n(0028,0103) US 0\n"
        f"(7fe0,0010) OB {rows}\n"
    )
    path = folder / f"{number}.dcm"
    _, said = await run("dump2dcm", "+l", "1000000", str(text), str(path))
    assert path.exists(), said
    return path


async def store(port: int, *paths: Path, calling: str = "MODALITY", called: str = "AGENT") -> tuple[int, str]:
    return await run(
        "storescu", "-v", "-aet", calling, "-aec", called, "127.0.0.1", str(port), *[str(path) for path in paths]
    )


@pytest.fixture
async def server(ward: Ward) -> ScriptedServer:
    server = await ward.server()
    server.keeps_bodies = True
    server.script = take
    return server


async def take(asked: Asked) -> None:
    await asked.answer({"received": True})


@pytest.fixture
def port(ward: Ward) -> int:
    return ward.port()


@pytest.fixture
async def agent(ward: Ward, server: ScriptedServer, port: int) -> AgentProcess:
    server.endpoint("pacs", f"dicom://127.0.0.1:{port}?autoRetryBaseDelayMs=50&autoRetryMaxDelayMs=200")
    agent = await ward.running_agent(server)
    await server.until_live()
    await agent.until(lambda status: bool(status["channels"]) and status["channels"][0]["state"] == "listening")
    return agent


async def test_an_echo_is_answered(agent: AgentProcess, port: int) -> None:
    code, said = await run("echoscu", "127.0.0.1", str(port))
    assert code == 0, said


async def test_an_object_becomes_a_binary_and_a_message(
    agent: AgentProcess, server: ScriptedServer, port: int, short_path: Path
) -> None:
    code, said = await store(port, await an_object(short_path))
    assert code == 0, said

    await server.until(lambda: len(server.bodies) == 1)
    told = json.loads(server.bodies[0])
    assert told["association"] == {"callingAeTitle": "MODALITY", "calledAeTitle": "AGENT"}
    assert told["binary"] == {"reference": "Binary/1"}
    assert told["dataset"]["00100010"] == {"vr": "PN", "Value": [{"Alphabetic": "EVERYMAN^ADAM"}]}
    assert "7FE00010" not in told["dataset"]
    asked = server.heard[0]
    assert (asked.channel, asked.remote, asked.content_type) == ("pacs", "MODALITY", "application/json")
    # what was uploaded is a DICOM file that DCMTK reads
    code, dump = await run("dcmdump", str(server.binaries["1"]))
    assert code == 0, dump
    assert "EVERYMAN^ADAM" in dump


async def test_an_object_sent_while_the_server_is_away_survives_a_kill(
    agent: AgentProcess, server: ScriptedServer, port: int, short_path: Path
) -> None:
    await server.go()
    code, said = await store(port, *[await an_object(short_path, number) for number in (1, 2, 3)])
    assert code == 0, said
    await agent.kill()
    await agent.start()
    await server.come()
    await server.until(lambda: len(server.bodies) == 3, within_s=WITHIN_S)
    assert {json.loads(body)["dataset"]["00080018"]["Value"][0][-1] for body in server.bodies} == {"1", "2", "3"}
    await agent.until(lambda status: status["channels"][0]["queued"] == 0)
    folder = agent.data_dir / "objects"
    async with asyncio.timeout(WITHIN_S):
        while list(folder.iterdir()):  # what the server has is on this disk no more
            await asyncio.sleep(0.05)


async def test_an_upload_that_fails_is_tried_again(
    agent: AgentProcess, server: ScriptedServer, port: int, short_path: Path
) -> None:
    server.upload_troubles = [503, 500]
    code, said = await store(port, await an_object(short_path))
    assert code == 0, said
    await server.until(lambda: len(server.bodies) == 1)
    assert list(server.binaries) == ["1"]


async def test_who_is_not_on_the_list_is_not_served(
    agent: AgentProcess, server: ScriptedServer, port: int, short_path: Path
) -> None:
    server.endpoint("pacs", f"dicom://127.0.0.1:{port}?aeTitle=AGENT&callingAeTitles=CT1,CT2")
    await agent.ask("config", "check")
    agent.hang_up()
    await server.until(lambda: server.configuration_reads >= 2)
    path = await an_object(short_path)
    async with asyncio.timeout(WITHIN_S):
        while (await store(port, path))[0] == 0:
            await asyncio.sleep(0.05)
    assert (await store(port, path, calling="CT2"))[0] == 0
    assert (await store(port, path, calling="CT2", called="OTHER"))[0] != 0


async def test_a_person_reads_what_an_object_is_about(
    agent: AgentProcess, server: ScriptedServer, port: int, short_path: Path
) -> None:
    await store(port, await an_object(short_path))
    await server.until(lambda: len(server.bodies) == 1)
    code, shown = await agent.ask("messages", "show", "1")
    assert code == 0
    assert "EVERYMAN^ADAM" in shown
    assert "MODALITY" in shown
