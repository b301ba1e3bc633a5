"""Promise 9: a disk that is full, read-only or damaged is a state that the agent tells of and recovers from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ward_agents import AgentProcess
from ward_building import Ward
from ward_devices import Device
from ward_disks import SmallDisk, sick_disk, small_disk
from ward_messages import REFERENCE, Heard, adt
from ward_resident import resident_agent
from ward_servers import ScriptedServer, accept, silence

PAGE_BYTES = 4096
LARGE_BYTES = 60_000


@pytest.fixture
def disk(short_path: Path, request: pytest.FixtureRequest) -> Iterator[SmallDisk]:
    with small_disk(short_path / "disk", size_mib=getattr(request, "param", 24)) as disk:
        yield disk


class Bench:
    """One agent whose data lies on the small disk, with a channel of each mode."""

    def __init__(self, ward: Ward, server: ScriptedServer, agent: AgentProcess, ports: dict[str, int]) -> None:
        self.ward = ward
        self.server = server
        self.agent = agent
        self.ports = ports
        self.number = 0

    async def device(self, mode: str) -> Device:
        return await self.ward.device(self.ports[mode])

    async def ask(self, device: Device, *, size_bytes: int = 0) -> Heard:
        """Send a message with a new number; the first answer about it."""
        self.number += 1
        control_id = f"A-{self.number}"
        await device.send(adt(control_id, size_bytes=size_bytes))
        while (heard := await device.hear()).control_id != control_id:
            pass
        return heard


@pytest.fixture
async def bench(ward: Ward, disk: SmallDisk) -> Bench:
    server = await ward.server()
    ports = {mode: ward.port() for mode in ("false", "true", "aa")}
    for mode, port in ports.items():
        server.channel(f"mode-{mode}", port, enhanced=mode, ackTimeoutSecs=8, autoRetryBaseDelayMs=50)
    agent = await ward.running_agent(server, AGENT_SPOOL_DIR=str(disk.path))
    for port in ports.values():
        await ward.device(port)
    return Bench(ward, server, agent, ports)


def spool_findings(status: dict[str, Any]) -> list[dict[str, str]]:
    return [found for found in status["findings"] if found["code"].startswith("spool.")]


def writable(status: dict[str, Any]) -> bool:
    return bool(status["spool"]["writable"])


def unwritable(status: dict[str, Any]) -> bool:
    return not status["spool"]["writable"]


NO = {"false": "AE", "true": "CE", "aa": "AE"}
YES = {"false": "AA", "true": "CA", "aa": "AA"}


def check_refusal(heard: Heard, mode: str) -> None:
    """Not stored, try again: with a reason and a reference."""
    assert heard.code == NO[mode]
    assert "disk" in heard.text or "spool" in heard.text
    assert REFERENCE.search(heard.text)


@pytest.mark.parametrize("mode", NO)
async def test_a_disk_filled_by_somebody_else(bench: Bench, disk: SmallDisk, mode: str) -> None:
    # given an agent at work, and a disk that somebody fills to the last byte
    device = await bench.device(mode)
    assert (await bench.ask(device)).code == YES[mode]
    disk.fill()

    # when messages come, before and after the agent has noticed it
    heard = [await bench.ask(device, size_bytes=LARGE_BYTES) for _ in range(3)]
    status = await bench.agent.until(unwritable)
    heard.append(await bench.ask(device))

    # then their senders hear no, and why
    for each in heard:
        check_refusal(each, mode)

    # and the agent lives, and says what is wrong and what to do
    assert status["running"] is True
    (found,) = spool_findings(status)
    assert found["severity"] == "error"
    assert "free" in found["remedy"]

    # and when the disk is free again, messages are taken again, by the same process
    pid = status["pid"]
    disk.free()
    status = await bench.agent.until(writable)
    assert status["pid"] == pid
    assert spool_findings(status) == []
    last = await bench.ask(device, size_bytes=LARGE_BYTES)
    assert last.code == YES[mode]
    await bench.server.until_heard(last.control_id)

    # and what was refused was not delivered
    refused = {each.control_id for each in heard}
    assert refused.isdisjoint({asked.control_id for asked in bench.server.heard})


async def test_a_disk_filled_by_the_messages_themselves(bench: Bench) -> None:
    # given a server that does not answer, so that messages pile up
    bench.server.script = silence
    device = await bench.device("aa")

    # when more of them come than the disk holds
    accepted: list[str] = []
    for _ in range(1000):
        heard = await bench.ask(device, size_bytes=LARGE_BYTES)
        if heard.code == "AA":
            accepted.append(heard.control_id)
        else:
            break

    # then at some point senders hear no, with room left to deliver what was accepted
    check_refusal(heard, "aa")
    assert len(accepted) > 100
    assert spool_findings(await bench.agent.status())

    # and all of that is delivered when the server answers again
    bench.server.script = accept
    for asked in list(bench.server.heard):
        await asked.accept()
    await bench.server.until_heard(*accepted, within_s=30)
    assert heard.control_id not in {asked.control_id for asked in bench.server.heard}


async def test_what_was_accepted_before_the_disk_was_full_is_delivered_also_after_a_kill(
    bench: Bench, disk: SmallDisk
) -> None:
    # given messages that were accepted while the server was away, and then a full disk
    await bench.server.go()
    device = await bench.device("aa")
    accepted = [await bench.ask(device) for _ in range(20)]
    assert {heard.code for heard in accepted} == {"AA"}
    disk.fill()
    check_refusal(await bench.ask(device, size_bytes=LARGE_BYTES), "aa")

    # when the agent is killed and started on the full disk, and then the disk is freed and the server comes
    await bench.agent.kill()
    disk.free()
    await bench.agent.start()
    await bench.server.come()

    # then all of them arrive, once, in order
    await bench.server.until_heard(*(heard.control_id for heard in accepted), within_s=20)
    arrived = [asked.control_id for asked in bench.server.heard]
    assert arrived == [heard.control_id for heard in accepted]


async def test_outcomes_that_could_not_be_recorded_while_the_disk_was_full_are_recorded_later(
    bench: Bench, disk: SmallDisk
) -> None:
    # given a message whose answer comes while the disk is full
    bench.server.script = silence
    device = await bench.device("false")
    await device.send(adt("A-answered"))
    await bench.server.until_heard("A-answered")
    disk.fill()
    check_refusal(await bench.ask(await bench.device("false"), size_bytes=LARGE_BYTES), "false")
    bench.server.script = accept
    await bench.server.heard[0].accept()

    # then its sender hears the answer all the same: the message was safe already
    assert str(await device.hear()) == "AA A-answered"

    # and when the disk is free, the outcome is kept, and the message is not delivered again, even after a kill
    disk.free()
    await bench.agent.until(lambda status: status["spool"]["countsByState"]["processed"] == 1)
    await bench.agent.kill()
    await bench.agent.start()
    again = await bench.device("false")
    assert str(await again.ask(adt("A-answered"))) == "AA A-answered"
    assert bench.server.attempts("A-answered") == [1]


async def test_a_disk_that_turns_read_only_and_back(ward: Ward) -> None:
    # given an agent at work on a disk that the system turns read-only under its feet
    server = await ward.server()
    port = ward.port()
    server.channel("adt", port, enhanced="true", appLevelAck="NE", ackTimeoutSecs=8)
    agent = ward.agent(server)
    with sick_disk() as disk:
        async with resident_agent(server, agent.folder):
            device = await ward.device(port)
            assert (await device.ask(adt("A-1"))).code == "CA"
            disk.read_only = True

            # when messages come
            heard = [await device.ask(adt(f"A-{number}")) for number in range(2, 5)]
            status = await agent.until(unwritable)

            # then their senders hear no, and the status says what is wrong and what to do
            for each in heard:
                check_refusal(each, "true")
            (found,) = spool_findings(status)
            assert found["code"] == "spool.read-only"
            assert "write" in found["remedy"]

            # and when it can be written again, messages are taken again
            disk.read_only = False
            await agent.until(writable)
            assert str(await device.ask(adt("A-5"))) == "CA A-5"
            await server.until_heard("A-5")
            assert {asked.control_id for asked in server.heard} == {"A-1", "A-5"}


async def test_with_a_read_only_disk_the_agent_does_not_start_and_says_why(bench: Bench, disk: SmallDisk) -> None:
    # given a disk that is read-only when the agent starts
    device = await bench.device("true")
    assert (await bench.ask(device)).code == "CA"
    await bench.agent.kill()
    disk.remount("ro")

    # when it starts
    await bench.agent.begin()

    # then it ends with one sentence, which names the place and the remedy
    assert await bench.agent.ended() != 0
    complaint = bench.agent.complaints()
    assert str(disk.path) in complaint
    assert "writable" in complaint
    assert len(complaint.strip().splitlines()) <= 2

    # and its supervisor's next try, on a disk that can be written again, goes on where it ended
    disk.remount("rw")
    await bench.agent.start()
    assert (await bench.ask(await bench.device("true"))).code == "CA"


# ---- damage


def spoil_pages(path: Path, pages: range) -> None:
    """Overwrite pages of a file with rubbish, as a dying disk does."""
    with path.open("r+b") as file:
        for page in pages:
            file.seek(page * PAGE_BYTES)
            file.write(os.urandom(PAGE_BYTES))
        os.fsync(file.fileno())


def set_aside(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("spool.damaged-*") if path.suffix == ".db")


async def test_a_file_whose_header_was_overwritten_before_the_start_is_set_aside(bench: Bench, disk: SmallDisk) -> None:
    # given a spool whose first page was overwritten while the agent was down
    device = await bench.device("aa")
    assert (await bench.ask(device)).code == "AA"
    bench.agent.terminate()
    await bench.agent.ended()
    spoil_pages(disk.path / "spool.db", range(1))
    evidence = (disk.path / "spool.db").read_bytes()

    # when the agent starts
    await bench.agent.start()

    # then the damaged file is kept as it was, the finding names it, and messages are taken
    (aside,) = set_aside(disk.path)
    assert aside.read_bytes() == evidence
    (found,) = [each for each in spool_findings(await bench.agent.status()) if each["code"] == "spool.set-aside"]
    assert str(aside) in found["remedy"] + found.get("where", "")
    again = await bench.device("aa")
    last = await bench.ask(again)
    assert last.code == "AA"
    await bench.server.until_heard(last.control_id)


@pytest.mark.parametrize("disk", [128], indirect=True, ids=["roomy"])
@pytest.mark.parametrize(
    "while_running", [pytest.param(False, id="before the start"), pytest.param(True, id="running")]
)
async def test_undelivered_messages_are_rescued_from_what_can_be_read_of_a_damaged_file(
    bench: Bench, disk: SmallDisk, while_running: bool
) -> None:
    # given many accepted messages that wait for a server that is away
    await bench.server.go()
    device = await bench.device("aa")
    accepted = [(await bench.ask(device, size_bytes=LARGE_BYTES // 2)).control_id for _ in range(1200)]

    # when a stretch of the file is overwritten, where messages lie that memory does not hold
    if not while_running:
        bench.agent.terminate()
        await bench.agent.ended()
    pages = (disk.path / "spool.db").stat().st_size // PAGE_BYTES
    assert pages > 8000
    spoil_pages(disk.path / "spool.db", range(pages * 9 // 10, pages * 9 // 10 + 60))
    if not while_running:
        await bench.agent.start()
    await bench.server.come()

    # then the agent lives and goes on taking messages
    again = await bench.device("aa")
    heard = await bench.ask(again)
    while heard.code != "AA":
        check_refusal(heard, "aa")
        heard = await bench.ask(again)
    await bench.server.until_heard(heard.control_id, within_s=30)

    # and what could be read arrives: most of it, in order, and the rest is in the file that was set aside
    await bench.agent.until(
        lambda status: status["spool"]["countsByState"]["queued"] + status["spool"]["countsByState"]["inflight"] == 0,
        within_s=30,
    )
    arrived = list(dict.fromkeys(asked.control_id for asked in bench.server.heard))
    rescued = [control_id for control_id in accepted if control_id in arrived]
    assert [control_id for control_id in arrived if control_id in accepted] == rescued
    assert len(accepted) - 50 <= len(rescued) < len(accepted)
    assert len(set_aside(disk.path)) == 1
    assert "spool.set-aside" in await bench.agent.findings()
