"""Promise 1: no positive acknowledgement before the message is on the platter: written, fsynced, committed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from ward_building import Ward
from ward_devices import Device
from ward_disks import SickDisk, sick_disk
from ward_messages import Heard, adt
from ward_resident import resident_agent
from ward_servers import ScriptedServer

MODES = pytest.mark.parametrize(
    ("enhanced", "yes", "no", "later"),
    [
        pytest.param("false", "AA", "AE", [], id="original"),
        pytest.param("true", "CA", "CE", ["AA"], id="enhanced"),
        pytest.param("aa", "AA", "AE", [], id="enhanced-aa"),
    ],
)
DEADLINE_S = 1
QUIET_S = 0.2  # outcomes are committed within 50 ms


@pytest.fixture
def disk() -> Iterator[SickDisk]:
    with sick_disk() as disk:
        yield disk


@pytest.fixture
async def server(ward: Ward) -> ScriptedServer:
    return await ward.server()


async def stalled(disk: SickDisk) -> None:
    """Until an fsync is held up."""
    assert await asyncio.to_thread(disk.wait_for_stalled)


async def quiet(disk: SickDisk) -> None:
    """Until outcomes of earlier messages are on the disk too, so that the next fsync is the next message's."""
    before = -1
    while before != disk.syncs:
        before = disk.syncs
        await asyncio.sleep(QUIET_S)


async def silent(device: Device, *, for_s: float) -> None:
    """Nothing is said on this connection for so long."""
    with pytest.raises(TimeoutError):
        await device.hear(within_s=for_s)


def codes(heard: list[Heard], control_id: str) -> list[str]:
    return [each.code for each in heard if each.control_id == control_id]


@MODES
async def test_the_yes_comes_when_the_disk_has_it_and_not_before(
    ward: Ward, disk: SickDisk, server: ScriptedServer, enhanced: str, yes: str, no: str, later: list[str]
) -> None:
    # given an agent on a disk that does not finish an fsync
    port = ward.port()
    server.channel("adt", port, enhanced=enhanced, ackTimeoutSecs=20)
    async with resident_agent(server, ward.folder):
        device = await ward.device(port)
        assert (await device.ask(adt("A-1"))).code == yes
        for code in later:
            assert (await device.hear()).code == code
        await quiet(disk)
        disk.stall()

        # when a message comes
        await device.send(adt("A-2"))
        await stalled(disk)

        # then neither its sender nor the server hears anything while the disk is at it
        await silent(device, for_s=0.5)
        assert server.attempts("A-2") == []

        # and once the disk is through, the sender hears yes, once
        before = disk.syncs
        disk.resume()
        assert str(await device.hear()) == f"{yes} A-2"
        assert disk.syncs > before
        await server.until_heard("A-2")
        await device.send(adt("A-3"))
        await device.hear_until("A-3", answers=1 + len(later))
        assert codes(device.heard, "A-2") == [yes, *later]
        assert server.attempts("A-2") == [1]


@MODES
async def test_at_the_deadline_a_stalled_disk_means_no_and_a_repetition_gets_the_yes(
    ward: Ward, disk: SickDisk, server: ScriptedServer, enhanced: str, yes: str, no: str, later: list[str]
) -> None:
    # given an agent on a disk that does not finish an fsync, and a sender of little patience
    port = ward.port()
    server.channel("adt", port, enhanced=enhanced, ackTimeoutSecs=DEADLINE_S)
    async with resident_agent(server, ward.folder):
        device = await ward.device(port)
        assert (await device.ask(adt("A-1"))).code == yes
        for code in later:
            assert (await device.hear()).code == code
        await quiet(disk)
        disk.stall()

        # when a message comes and the deadline passes
        await device.send(adt("A-2"))
        await stalled(disk)
        refusal = await device.hear(within_s=DEADLINE_S + 2)

        # then its sender hears no, with a reason and a reference
        assert (refusal.code, refusal.control_id) == (no, "A-2")
        assert "disk" in refusal.text
        assert "(ref " in refusal.text

        # and when the disk is through after all, the message is delivered, but no yes follows the no
        disk.resume()
        await server.until_heard("A-2")
        await device.send(adt("A-3"))
        await device.hear_until("A-3", answers=1 + len(later))
        assert codes(device.heard, "A-2") == [no]

        # and who repeats it gets the yes, without a second delivery
        await device.send(adt("A-2"))
        repeated = [await device.hear() for _ in range(1 + len(later))]
        assert [str(each) for each in repeated] == [f"{code} A-2" for code in (yes, *later)]
        assert server.attempts("A-2") == [1]


async def test_many_senders_share_the_fsync_that_they_wait_for(
    ward: Ward, disk: SickDisk, server: ScriptedServer
) -> None:
    # given a disk that is slow in the middle of an fsync
    port = ward.port()
    server.channel("adt", port, enhanced="aa", ackTimeoutSecs=20)
    async with resident_agent(server, ward.folder):
        devices = [await ward.device(port) for _ in range(20)]
        assert (await devices[0].ask(adt("first"))).code == "AA"
        await quiet(disk)
        disk.stall()
        await devices[0].send(adt("A-0"))
        await stalled(disk)

        # when everybody sends meanwhile, and the disk goes on
        for number, device in enumerate(devices[1:], 1):
            await device.send(adt(f"A-{number}"))
        await silent(devices[0], for_s=0.3)
        await silent(devices[-1], for_s=0.1)
        before = disk.syncs
        disk.resume()
        heard = [str(await device.hear()) for device in devices]

        # then one more fsync is enough for all of them, and nobody heard yes before his own
        assert heard == [f"AA A-{number}" for number in range(20)]
        assert disk.syncs - before <= 6
