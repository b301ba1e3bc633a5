"""Hand every stored message to the server, in order: the window, the turns, and the link."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import pytest
from flow_far_ends import SPEC, Desk, SickDisk, adt, at_the_desk, control_id_of

from agent.flow.dispatcher import Window
from agent.protocol.hl7 import KeySpec
from agent.spec import AckMode, RetryMode, RetryPolicy
from agent.store.row import State

ENHANCED = dataclasses.replace(SPEC, ack_mode=AckMode.ENHANCED)
BY_PATIENT = dataclasses.replace(ENHANCED, order_key=KeySpec.parse("PID-3.1"))


def of_patients(number: int, *, first: int = 1) -> list[bytes]:
    return [adt(f"M{n}", patient=f"P{n}") for n in range(first, first + number)]


async def test_nothing_is_on_the_socket_before_the_disk_has_it(desk: Desk) -> None:
    desk.open()
    desk.send(desk.device(), adt())
    assert desk.server.heard == []
    await desk.hears(1)
    assert (await desk.row()).state is State.INFLIGHT


async def test_a_request_says_what_the_server_needs(desk: Desk) -> None:
    desk.open()
    desk.send(desk.device("10.0.0.9:4711"), adt())
    [frame] = await desk.hears(1)
    assert (frame.channel, frame.remote, frame.access_token) == ("adt", "10.0.0.9:4711", "token")
    assert frame.content_type == "x-application/hl7-v2+er7"
    assert frame.body == adt().decode()


async def test_one_sender_is_carried_one_at_a_time_and_senders_side_by_side(desk: Desk) -> None:
    desk.open()
    one, other = desk.device("10.0.0.1:1"), desk.device("10.0.0.2:1")
    desk.send(one, adt("A1"), adt("A2"))
    desk.send(other, adt("B1"), adt("B2"))
    await desk.hears(2)
    assert sorted(desk.server.ids) == ["A1", "B1"]
    desk.server.answer(desk.server.heard[0])
    await desk.hears(3)
    assert desk.server.ids[2] == "A2" if desk.server.ids[0] == "A1" else "B2"


async def test_max_workers_is_how_many_keys_go_at_once(desk: Desk) -> None:
    desk.open(dataclasses.replace(BY_PATIENT, max_workers=2))
    desk.send(desk.device(), *of_patients(5))
    await desk.hears(2)
    for answered in range(5):
        desk.server.answer(desk.server.heard[answered])
        await desk.hears(min(5, answered + 3))
    assert desk.server.ids == ["M1", "M2", "M3", "M4", "M5"]


async def test_a_full_window_rests_until_an_answer(tmp_path: Path) -> None:
    async with at_the_desk(tmp_path / "spool.db", window=Window(frames=4)) as desk:
        desk.open(BY_PATIENT)
        desk.send(desk.device(), *of_patients(4))
        await desk.hears(2)  # half of the window is one channel's share
        assert desk.dispatcher._alarm is None, "an alarm for the present would call itself for ever"
        desk.server.answer(desk.server.heard[0])
        await desk.hears(3)


async def test_the_window_counts_bytes_too(tmp_path: Path) -> None:
    async with at_the_desk(tmp_path / "spool.db", window=Window(bytes=8_000)) as desk:
        desk.open(BY_PATIENT)
        desk.send(desk.device(), *(adt(f"M{n}", patient=f"P{n}", extra="x" * 3_000) for n in range(4)))
        await desk.hears(2)
        desk.server.answer(desk.server.heard[0])
        await desk.hears(3)


@pytest.mark.parametrize("window", [Window(frames=4), Window(frames=1), Window(bytes=2_000)])
async def test_a_stuck_channel_keeps_the_window_from_no_other(tmp_path: Path, window: Window) -> None:
    # given channels whose messages the server never answers
    async with at_the_desk(tmp_path / "spool.db", window=window) as desk:
        for name in ("a", "b", "c"):
            desk.open(dataclasses.replace(BY_PATIENT, name=name))
            device = desk.device(channel=name)
            desk.send(device, *(adt(f"M{n}", patient=f"P{n}", extra="x" * 900) for n in range(6)), channel=name)
        await desk.stored()
        # then one that it answers goes on as if they were not there
        desk.open(dataclasses.replace(BY_PATIENT, name="healthy"))
        device = desk.device(channel="healthy")
        desk.send(device, *of_patients(10), channel="healthy")
        for _ in range(10):
            await desk.bell.until(lambda: any(frame.channel == "healthy" for frame in desk.server.heard))
            frame = next(frame for frame in desk.server.heard if frame.channel == "healthy")
            desk.server.heard.remove(frame)
            desk.server.answer(frame)
        assert len(device.told) == 10


async def test_channels_take_turns(tmp_path: Path) -> None:
    async with at_the_desk(tmp_path / "spool.db", window=Window(frames=4)) as desk:
        desk.server.lose()
        for name in ("a", "b"):
            desk.open(dataclasses.replace(BY_PATIENT, name=name))
            desk.send(desk.device(channel=name), *of_patients(20), channel=name)
        await desk.stored()
        desk.server.answers_at_once = True
        desk.server.back()
        await desk.hears(40)
        first_half = [frame.channel for frame in desk.server.heard[:20]]
        assert abs(first_half.count("a") - first_half.count("b")) <= 2


async def test_the_gap_between_two_deliveries_is_kept(desk: Desk) -> None:
    desk.open(dataclasses.replace(BY_PATIENT, messages_per_min=60.0))
    desk.send(desk.device(), *of_patients(3))
    await desk.hears(1)
    desk.clock.s += 0.9
    desk.dispatcher.pump()
    await desk.hears(1)
    desk.clock.s += 0.1
    desk.dispatcher.pump()
    await desk.hears(2)


async def test_an_alarm_ends_the_gap_by_itself(desk: Desk) -> None:
    desk.open(dataclasses.replace(BY_PATIENT, messages_per_min=600.0))
    desk.send(desk.device(), *of_patients(2))
    await desk.hears(1)
    assert desk.dispatcher._alarm is not None
    desk.clock.s += 0.1
    await desk.hears(2)


async def test_a_slow_network_is_waited_for(desk: Desk) -> None:
    desk.open()
    desk.server.writable = False
    desk.send(desk.device(), adt())
    await desk.hears(0)
    desk.server.writable = True
    desk.dispatcher.pump()
    await desk.hears(1)


# ---- the link comes and goes


async def test_messages_wait_for_the_link(desk: Desk) -> None:
    desk.server.lose()
    desk.open()
    device = desk.device()
    desk.send(device, adt())
    assert (await desk.row()).state is State.QUEUED
    desk.server.back()
    [frame] = await desk.hears(1)
    assert frame.callback is not None
    assert "#" not in frame.callback
    desk.server.answer(frame)
    assert device.codes == ["AA"]


async def test_a_link_lost_between_arrival_and_commit_costs_no_attempt(desk: Desk) -> None:
    desk.open()
    desk.send(desk.device(), adt())
    desk.server.lose()
    row = await desk.row()
    await desk.stored()
    row = await desk.row()
    assert (row.state, row.attempts, row.ambiguous) == (State.QUEUED, 0, False)
    desk.server.back()
    [frame] = await desk.hears(1)
    assert frame.callback is not None
    assert "#" not in frame.callback


async def test_a_link_lost_between_claim_and_commit_costs_no_attempt(desk: Desk) -> None:
    desk.server.lose()
    desk.open()
    desk.send(desk.device(), adt())
    await desk.stored()
    desk.server.back()  # claims
    desk.server.lose()
    await desk.stored()
    await desk.stored()
    row = await desk.row()
    assert (row.state, row.attempts) == (State.QUEUED, 0)
    desk.server.back()
    await desk.hears(1)


async def test_a_link_lost_in_flight_sends_again_under_a_marked_name(desk: Desk) -> None:
    desk.open()
    device = desk.device()
    desk.send(device, adt("M1"), adt("M2"))
    [first] = await desk.hears(1)
    desk.server.lose()
    desk.server.back()
    _, again = await desk.hears(2)
    assert desk.server.ids == ["M1", "M1"], "order holds across the loss"
    assert again.callback == f"{first.callback}#2"
    assert (await desk.row()).ambiguous
    desk.server.answer(again)
    assert device.codes == ["AA"]
    assert desk.dispatcher.lanes["adt"].metrics.retried == 1


async def test_the_link_is_back_before_the_commit_returns(desk: Desk) -> None:
    desk.open()
    desk.send(desk.device(), adt())
    desk.server.lose()
    desk.server.back()
    await desk.hears(1)


# ---- the disk


async def test_claims_that_a_sick_disk_refuses_wait_for_a_well_one(tmp_path: Path) -> None:
    disk = SickDisk("sick-claims")
    async with at_the_desk(tmp_path / "spool.db", vfs=disk.name) as desk, asyncio.TaskGroup() as tasks:
        health = tasks.create_task(desk.spool.run())
        desk.server.lose()
        desk.open()
        device = desk.device()
        desk.send(device, adt())
        await desk.stored()
        disk.full = True
        desk.server.back()
        await desk.bell.until(lambda: desk.spool.stuck)
        assert desk.server.heard == []
        disk.full = False
        await desk.bell.until(lambda: not desk.spool.stuck)
        desk.dispatcher.pump()
        [frame] = await desk.hears(1)
        desk.server.answer(frame)
        assert device.codes == ["AA"]
        health.cancel()


# ---- which channels there are


async def test_a_parked_channel_keeps_its_messages_until_it_is_back(desk: Desk) -> None:
    lane = desk.open(BY_PATIENT)
    desk.send(desk.device(), *of_patients(2), adt("M3", patient="P1"))
    await desk.hears(2)
    desk.dispatcher.configure("adt", None, lane.metrics)
    desk.server.answer(desk.server.heard[0])
    await desk.hears(2)
    # when it is configured again, what is in flight stays so and the rest goes
    desk.open(BY_PATIENT)
    await desk.hears(3)
    assert desk.server.ids == ["M1", "M2", "M3"]
    for frame in desk.server.heard[1:]:
        desk.server.answer(frame)
    await desk.stored()
    assert [(await desk.row(f"M{n}")).state for n in (1, 2, 3)] == [State.PROCESSED] * 3


async def test_a_channel_that_blinks_sends_nothing_twice(desk: Desk) -> None:
    # given a message that is done, though the file does not know it yet
    lane = desk.open()
    desk.send(desk.device(), adt())
    [frame] = await desk.hears(1)
    desk.server.answer(frame)
    desk.dispatcher.configure("adt", None, lane.metrics)
    desk.open()
    await desk.hears(1)
    assert (await desk.row()).state is State.PROCESSED


async def test_keys_that_change_their_meaning_let_what_waits_go_first(desk: Desk) -> None:
    desk.open(ENHANCED)
    device = desk.device()
    desk.send(device, adt("M1", patient="P1"), adt("M2", patient="P2"))
    await desk.hears(1)
    desk.open(BY_PATIENT)
    desk.send(device, adt("M3", patient="P1"), adt("M4", patient="P2"))
    for answered in range(4):
        await desk.bell.until(lambda wanted=answered: len(desk.server.heard) > wanted)  # type: ignore[misc]
        desk.server.answer(desk.server.heard[answered])
    assert desk.server.ids == ["M1", "M2", "M3", "M4"]


async def test_an_encoding_that_cannot_read_what_waits_leaves_it_to_a_person(desk: Desk) -> None:
    # given a Latin-1 message that waits, and a channel that turns to ASCII
    desk.server.lose()
    desk.open(dataclasses.replace(SPEC, encoding="iso-8859-1"))
    device = desk.device()
    desk.send(device, adt().replace(b"ADAM", b"AD\xc4M"), adt("M2"))
    await desk.stored()
    desk.open(dataclasses.replace(SPEC, encoding="us-ascii"))
    desk.server.back()
    # then it is held, its sender knows, and the next one goes
    [frame] = await desk.hears(1)
    assert control_id_of(frame) == "M2"
    assert (await desk.row("M1")).state is State.HELD
    assert device.codes == ["AE"]


async def test_the_tick_counts_as_lost_what_is_not_answered(tmp_path: Path) -> None:
    async with at_the_desk(tmp_path / "spool.db", window=Window(answer_within_s=60.0)) as desk:
        desk.open(dataclasses.replace(SPEC, retry=RetryPolicy(RetryMode.NONE)))
        device = desk.device()
        desk.send(device, adt())
        await desk.hears(1)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(desk.dispatcher.run())
            desk.clock.s += 61
            await desk.bell.until(lambda: device.heard)
            running.cancel()
        assert b"no answer from the server in 60 s" in device.acks[0].text


async def test_a_response_that_is_not_ours_changes_nothing(desk: Desk) -> None:
    desk.open()
    desk.send(desk.device(), adt())
    [frame] = await desk.hears(1)
    for callback in ("Agent/other-1", "-", "\0", f"{frame.callback}0", f"{frame.callback}#2", "Agent/" + "9" * 99):
        desk.server.answer(frame, callback=callback)
    assert desk.dispatcher.in_flight == 1
    desk.server.answer(frame)
    desk.server.answer(frame)
    assert desk.dispatcher.in_flight == 0
    assert desk.dispatcher.lanes["adt"].metrics.delivered == 1


# ---- the end


async def test_a_drain_waits_for_what_is_in_flight_and_begins_only_what_a_sender_waits_for(desk: Desk) -> None:
    # given two messages of one sender that waits, and two of one that had its answer at commit
    desk.open()
    desk.open(dataclasses.replace(ENHANCED, name="enhanced"))
    waiting = desk.device("10.0.0.1:1")
    desk.send(waiting, adt("W1"), adt("W2"))
    desk.send(desk.device("10.0.0.2:1", "enhanced"), adt("E1"), adt("E2"), channel="enhanced")
    first, second = await desk.hears(2)
    async with asyncio.TaskGroup() as tasks:
        draining = tasks.create_task(desk.dispatcher.drain())
        await desk.stored()
        assert not draining.done()
        desk.server.answer(first)
        desk.server.answer(second)
        [_, _, third] = await desk.hears(3)
        assert control_id_of(third) == "W2"
        desk.server.answer(third)
    assert waiting.codes == ["AA", "AA"]
    assert desk.dispatcher.in_flight == 0
    assert (await desk.row("E2", "enhanced")).state is State.QUEUED


@pytest.mark.parametrize("lost", [True, False])
async def test_nothing_in_flight_is_drained_at_once(desk: Desk, lost: bool) -> None:
    desk.open()
    desk.send(desk.device(), adt())
    [frame] = await desk.hears(1)
    if lost:
        desk.server.lose()
    else:
        desk.server.answer(frame)
    async with asyncio.timeout(5):
        await desk.dispatcher.drain()


async def test_a_link_lost_while_draining_ends_it(desk: Desk) -> None:
    desk.open()
    desk.send(desk.device(), adt())
    await desk.hears(1)
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        tasks.create_task(desk.dispatcher.drain())
        await asyncio.sleep(0)
        desk.server.lose()
