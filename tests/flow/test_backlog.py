"""Which stored messages are in memory, and how the others come back from the file."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import pytest
from flow_far_ends import SPEC, Desk, SickDisk, adt, at_the_desk

from agent.flow import backlog
from agent.flow.dispatcher import Window
from agent.protocol.envelope import TransmitResponse
from agent.protocol.hl7 import KeySpec
from agent.spec import AckMode
from agent.store.row import State

ENHANCED = dataclasses.replace(SPEC, ack_mode=AckMode.ENHANCED)
BY_PATIENT = dataclasses.replace(ENHANCED, order_key=KeySpec.parse("PID-3.1"))
MANY = 2_500


async def fill(desk: Desk, number: int, remote: str = "10.0.0.1:1", *, prefix: str = "M") -> None:
    """That many messages of one device are stored."""
    device = desk.device(remote)
    for begin in range(0, number, 500):
        frames = [adt(f"{prefix}{n}", patient=f"{n % 97}") for n in range(begin, min(begin + 500, number))]
        desk.send(device, *frames)
        await desk.stored()


async def test_a_long_backlog_waits_in_the_file_and_goes_in_order(desk: Desk) -> None:
    # given the server away while thousands arrive
    desk.server.lose()
    lane = desk.open(ENHANCED)
    await fill(desk, MANY)
    assert lane.rows <= backlog.WAITING_ROWS
    assert lane.spilled
    # when it is back, they all go, oldest first, and memory stays small
    desk.server.answers_at_once = True
    desk.server.back()
    most = 0
    while (seen := len(desk.server.heard)) < MANY:
        await desk.bell.until(lambda: len(desk.server.heard) > seen)
        most = max(most, lane.rows)
    await desk.stored()
    await desk.stored()
    assert desk.server.ids == [f"M{n}" for n in range(MANY)]
    assert most <= backlog.WAITING_ROWS + backlog.PAGE_ROWS
    assert not lane.spilled
    assert desk.spool.tally.by_state[State.PROCESSED] == MANY


async def test_a_backlog_by_patient_keeps_each_patients_order(desk: Desk) -> None:
    desk.server.lose()
    desk.open(BY_PATIENT)
    await fill(desk, MANY // 2)
    desk.server.answers_at_once = True
    desk.server.back()
    await desk.bell.until(lambda: len(desk.server.heard) >= MANY // 2)
    numbers = [int(name[1:]) for name in desk.server.ids]
    assert sorted(numbers) == list(range(MANY // 2)), "each of them once"
    for patient in range(97):
        mine = [n for n in numbers if n % 97 == patient]
        assert mine == sorted(mine)


async def test_a_backlog_survives_a_restart_in_order(tmp_path: Path) -> None:
    async with at_the_desk(tmp_path / "spool.db") as desk:
        desk.server.lose()
        desk.open(ENHANCED)
        await fill(desk, 1_500)
    async with at_the_desk(tmp_path / "spool.db") as desk:
        desk.server.answers_at_once = True
        desk.open(ENHANCED)
        desk.send(desk.device(), adt("NEW"))
        await desk.bell.until(lambda: len(desk.server.heard) == 1_501)
        assert desk.server.ids == [*(f"M{n}" for n in range(1_500)), "NEW"]


async def test_newcomers_queue_behind_what_waits_in_the_file(desk: Desk) -> None:
    desk.server.lose()
    desk.open(ENHANCED)
    await fill(desk, 1_500)
    desk.server.answers_at_once = True
    desk.server.back()
    desk.send(desk.device(), adt("NEW"))
    await desk.bell.until(lambda: len(desk.server.heard) == 1_501)
    assert desk.server.ids[-1] == "NEW"


async def test_large_messages_wait_in_the_file_too(desk: Desk) -> None:
    desk.limits.frame_bytes = 4 << 20
    desk.server.lose()
    lane = desk.open(ENHANCED)
    device = desk.device()
    for number in range(80):
        desk.send(device, adt(f"M{number}", extra="x" * 1_000_000))
        await desk.stored()
    assert lane.bytes <= backlog.MEMORY_BYTES + 1_100_000
    desk.server.answers_at_once = True
    desk.server.back()
    await desk.bell.until(lambda: len(desk.server.heard) == 80)
    assert desk.server.ids == [f"M{n}" for n in range(80)]


async def test_one_refused_message_does_not_fill_the_page_for_all(desk: Desk) -> None:
    # given a sender whose first message the server cannot take now, with far more than a page behind it
    lane = desk.open(ENHANCED)
    desk.send(desk.device("10.0.0.1:1"), adt("POISON"))
    [poison] = await desk.hears(1)
    desk.server.lose()
    desk.server.back()
    poison = (await desk.hears(2))[-1]
    await fill(desk, 2_000, "10.0.0.1:1", prefix="A")
    desk.server.answer(poison, 429, retry_after=800)
    # and another sender behind all that
    desk.send(other := desk.device("10.0.0.2:1"), *(adt(f"B{n}") for n in range(700)))
    desk.server.answers_at_once = True
    await desk.stored()
    # then the other one's messages go
    for _ in range(700):
        if len(desk.server.heard) >= 702:
            break
        desk.dispatcher.pump()
        await desk.stored()
    assert desk.server.ids[2:] == [f"B{n}" for n in range(700)]
    assert lane.rows <= backlog.WAITING_ROWS + 10, "what sleeps does not fill the memory either"
    assert len(other.heard) == 700
    # and when the first is taken at last, everything behind it follows in order
    desk.clock.s += 800
    desk.dispatcher.pump()
    await desk.bell.until(lambda: len(desk.server.heard) == 2_703)
    assert desk.server.ids[702:] == ["POISON", *(f"A{n}" for n in range(2_000))]


async def test_a_merge_in_the_file_is_not_passed_by_what_it_joins(desk: Desk) -> None:
    # given a patient who sleeps, one message of his passed over in the file, and his merge behind that
    lane = desk.open(BY_PATIENT)
    device = desk.device()
    desk.send(device, adt("M1", patient="P1"))
    [first] = await desk.hears(1)
    desk.server.answer(first, 429, retry_after=100)
    lane.spilled = True
    desk.send(device, adt("M2", patient="P1"))
    await desk.stored()
    assert lane.deferred
    desk.send(device, adt("MERGE", patient="P2", event="A40"))
    desk.send(device, adt("M4", patient="P3"))
    await desk.stored()
    await desk.hears(1)
    # when he is taken at last
    desk.server.answers_at_once = True
    desk.clock.s += 100
    desk.dispatcher.pump()
    await desk.bell.until(lambda: len(desk.server.heard) == 5)
    # then everything goes in the order of arrival
    assert desk.server.ids == ["M1", "M1", "M2", "MERGE", "M4"]
    assert not lane.deferred


async def test_what_is_done_but_not_yet_written_so_is_not_read_again(desk: Desk) -> None:
    # given two senders whose messages sleep, and one message between them that was passed over
    lane = desk.open(ENHANCED)
    one, other = desk.device("10.0.0.1:1"), desk.device("10.0.0.2:1")
    desk.send(one, adt("A1"))
    [first] = await desk.hears(1)
    desk.server.answer(first, 429, retry_after=100)
    lane.spilled = True
    desk.send(one, adt("A2"))
    desk.send(other, adt("B1"))
    [_, second] = await desk.hears(2)
    desk.server.answer(second, 429, retry_after=100)
    await desk.stored()
    # when the server says yes to both after all
    desk.dispatcher.answered(
        [TransmitResponse(frame.channel, frame.remote, callback=frame.callback) for frame in (second, first)]
    )
    # then reading goes back to the one that was passed over, and takes none of the others
    await desk.hears(3)
    desk.clock.s += 200
    desk.dispatcher.pump()
    await desk.hears(3)
    assert desk.server.ids == ["A1", "B1", "A2"]


async def test_what_was_passed_over_is_found_again_when_keys_change_their_meaning(desk: Desk) -> None:
    lane = desk.open(ENHANCED)
    device = desk.device()
    desk.send(device, adt("M1", patient="P1"))
    [first] = await desk.hears(1)
    desk.server.answer(first, 429, retry_after=100)
    lane.spilled = True
    desk.send(device, adt("M2", patient="P2"))
    await desk.stored()
    assert lane.deferred
    desk.open(BY_PATIENT)
    desk.server.answers_at_once = True
    desk.clock.s += 100
    desk.dispatcher.pump()
    await desk.bell.until(lambda: len(desk.server.heard) == 3)
    assert desk.server.ids == ["M1", "M1", "M2"]


async def test_keys_that_change_while_messages_wait_in_the_file_are_read_anew(desk: Desk) -> None:
    desk.server.lose()
    lane = desk.open(ENHANCED)
    lane.spilled = True
    desk.send(desk.device(), adt("M1", patient="P1"), adt("M2", patient="P2"), adt("M3", patient="P1"))
    await desk.stored()
    desk.open(BY_PATIENT)
    desk.server.back()
    await desk.hears(2)
    assert desk.server.ids == ["M1", "M2"]
    desk.server.answer(desk.server.heard[0])
    await desk.hears(3)


async def test_a_disk_that_does_not_answer_means_later_not_nothing(tmp_path: Path) -> None:
    async with at_the_desk(tmp_path / "spool.db") as desk:
        desk.server.lose()
        desk.open(ENHANCED)
        await fill(desk, 1_600)
    disk = SickDisk("sick-reads")
    async with at_the_desk(tmp_path / "spool.db", vfs=disk.name) as desk, asyncio.TaskGroup() as tasks:
        health = tasks.create_task(desk.spool.run())
        # when the file cannot be read as it should be
        disk.unreadable = True
        lane = desk.open(ENHANCED)
        lane.recovered = True
        desk.dispatcher.pump()
        await desk.bell.until(lambda: desk.spool.stuck)
        assert lane.spilled
        assert lane.unread
        # then everything goes once it can
        disk.unreadable = False
        await desk.bell.until(lambda: not desk.spool.stuck)
        desk.server.answers_at_once = True
        desk.dispatcher.pump()
        await desk.bell.until(lambda: len(desk.server.heard) == 1_600)
        assert desk.server.ids == [f"M{n}" for n in range(1_600)]
        health.cancel()


async def test_what_was_in_flight_is_looked_for_until_the_disk_answers(tmp_path: Path) -> None:
    async with at_the_desk(tmp_path / "spool.db") as desk:
        desk.open()
        desk.send(desk.device(), adt())
        await desk.hears(1)
    disk = SickDisk("sick-recovery")
    async with at_the_desk(tmp_path / "spool.db", vfs=disk.name) as desk:
        disk.unreadable = True
        lane = desk.open()
        assert not lane.recovered
        assert desk.server.heard == []
        disk.unreadable = False
        desk.dispatcher.pump()
        assert lane.recovered
        await desk.hears(1)


@pytest.mark.parametrize("mode", [ENHANCED, BY_PATIENT])
async def test_a_flood_behind_a_full_window_stays_bounded(tmp_path: Path, mode: object) -> None:
    async with at_the_desk(tmp_path / "spool.db", window=Window(frames=50)) as desk:
        lane = desk.open(mode)  # type: ignore[arg-type]
        await fill(desk, MANY)
        assert lane.rows <= backlog.WAITING_ROWS + 50
