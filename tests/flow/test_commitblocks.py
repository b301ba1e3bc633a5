"""MLLP release 2: a byte for what is on the platter, another for what is not."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from flow_far_ends import SPEC, Desk, SickDisk, adt, at_the_desk

from agent.flow.commitblocks import COMMITTED, NOT_COMMITTED
from agent.protocol.hl7 import read_ack
from agent.protocol.mllp import FrameTooLong
from agent.spec import AckMode

RELEASE_2 = dataclasses.replace(SPEC, mllp_release=2)


async def test_the_commit_block_comes_after_the_commit_and_before_the_answer(desk: Desk) -> None:
    desk.open(RELEASE_2)
    device = desk.device()
    desk.send(device, adt())
    assert device.told == []  # nothing is on the platter yet
    [frame] = await desk.hears(1)
    assert (device.told, device.heard) == ([COMMITTED], [])
    desk.server.answer(frame)
    assert (device.told, device.codes) == ([COMMITTED], ["AA"])


async def test_enhanced_mode_says_its_ca_as_well(desk: Desk) -> None:
    desk.open(dataclasses.replace(RELEASE_2, ack_mode=AckMode.ENHANCED))
    device = desk.device()
    desk.send(device, adt())
    await desk.hears(1)
    assert (device.told, device.codes) == ([COMMITTED], ["CA"])


@pytest.mark.parametrize("block", [COMMITTED, NOT_COMMITTED])
async def test_commit_blocks_for_our_answers_are_no_messages(desk: Desk, block: bytes) -> None:
    lane = desk.open(RELEASE_2)
    device = desk.device()
    desk.send(device, block)
    await desk.stored()
    assert (device.heard, device.told, device.owed) == ([], [], 0)
    assert (lane.metrics.received, desk.refusals) == (0, [])
    assert lane.metrics.refused == ({"answer-not-committed": 1} if block == NOT_COMMITTED else {})


async def test_on_a_release_1_channel_such_a_block_is_refused_and_named(desk: Desk) -> None:
    desk.open()
    device = desk.device()
    desk.send(device, COMMITTED)
    assert device.codes == ["AR"]
    assert [oddity.value for oddity in device.oddities] == ["mllp-release-2"]


async def test_what_is_not_taken_is_told_by_one_byte_and_by_nothing_that_may_answer_its_repetition(desk: Desk) -> None:
    lane = desk.open(RELEASE_2)
    device = desk.device()
    desk.send(device, b"hello", adt().replace(b"EVERYMAN", b"EV\xffRYMAN"))
    await desk.stored()
    assert (device.told, device.heard, device.owed) == ([NOT_COMMITTED] * 2, [], 0)
    assert lane.metrics.refused == {"not-hl7": 1, "charset": 1}
    assert len(desk.refusals) == 2


async def test_a_frame_above_the_limit_is_not_committed_and_ends_the_connection(desk: Desk) -> None:
    desk.open(RELEASE_2)
    device = desk.device()
    device.owed += 1
    desk.intakes["adt"].broken(device, FrameTooLong(adt()[:100], 50))
    assert (device.told, device.heard, device.closing) == ([NOT_COMMITTED], [], True)


async def test_a_repetition_is_committed_and_answered_again(desk: Desk) -> None:
    desk.open(RELEASE_2)
    device = desk.device()
    desk.send(device, adt())
    [frame] = await desk.hears(1)
    desk.send(device, adt())
    assert device.told == [COMMITTED] * 2
    desk.server.answer(frame)
    assert device.codes == ["AA", "AA"]
    desk.send(device, adt())
    assert (device.told, device.codes) == ([COMMITTED] * 3, ["AA"] * 3)
    assert len(desk.server.heard) == 1


async def test_what_the_disk_does_not_take_is_not_committed(tmp_path: Path) -> None:
    disk = SickDisk("release-2-disk")
    async with at_the_desk(tmp_path / "spool.db", vfs=disk.name) as desk:
        desk.open(RELEASE_2)
        device = desk.device()
        disk.full = True
        desk.send(device, adt())
        await desk.bell.until(lambda: device.told)
        assert (device.told, device.heard, device.owed) == ([NOT_COMMITTED], [], 0)
        disk.full = False


async def test_a_commit_that_is_too_late_is_told_once_and_recognised_at_the_repetition(desk: Desk) -> None:
    # given a message whose commit has not returned at the deadline
    desk.open(RELEASE_2)
    device = desk.device()
    desk.send(device, adt())
    desk.clock.s += 25
    desk.replies.expire()
    assert (device.told, device.heard, device.owed) == ([NOT_COMMITTED], [], 0)
    # when it is stored after all
    [frame] = await desk.hears(1)
    assert device.told == [NOT_COMMITTED]
    # then its repetition is known
    desk.send(device, adt())
    assert device.told == [NOT_COMMITTED, COMMITTED]
    desk.server.answer(frame)
    assert [ack.code for ack in map(read_ack, device.heard) if ack] == ["AA"]
