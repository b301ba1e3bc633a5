"""What becomes of a message when something is known about it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from flow_far_ends import SPEC, Desk, adt, at_the_desk

from agent.spec import AckMode, ChannelSpec, RetryMode, RetryPolicy
from agent.store.row import AckState, State

ENHANCED = dataclasses.replace(SPEC, ack_mode=AckMode.ENHANCED)


def trying(mode: RetryMode, **policy: int) -> ChannelSpec:
    return dataclasses.replace(SPEC, retry=RetryPolicy(mode, **policy))


async def test_none_tries_once(desk: Desk) -> None:
    desk.open(trying(RetryMode.NONE))
    device = desk.device()
    desk.send(device, adt())
    [frame] = await desk.hears(1)
    desk.server.answer(frame, 503, "restarting")
    assert device.codes == ["AE"]
    assert device.acks[0].text.startswith(b"given up after 1 try: server answered 503: restarting")
    row = await desk.row()
    assert (row.state, row.status, row.attempts) == (State.FAILED, 503, 1)


@pytest.mark.parametrize("mode", [RetryMode.NORMAL, RetryMode.GUARANTEED])
async def test_tries_end_at_their_limit(desk: Desk, mode: RetryMode) -> None:
    desk.open(trying(mode, max_attempts=3))
    device = desk.device()
    desk.send(device, adt())
    for attempt in range(1, 4):
        frame = (await desk.hears(attempt))[-1]
        assert (frame.callback or "").partition("#")[2] == ("" if attempt == 1 else str(attempt))
        desk.server.answer(frame, 500)
        desk.clock.s += 60
        desk.dispatcher.pump()
    assert device.codes == ["AE"]
    assert (await desk.row()).state is State.FAILED


async def test_guaranteed_goes_on_until_it_is_done(desk: Desk) -> None:
    desk.open()
    device = desk.device()
    desk.send(device, adt())
    for attempt in range(1, 15):
        frame = (await desk.hears(attempt))[-1]
        desk.server.answer(frame, 500)
        desk.clock.s += 60
        desk.dispatcher.pump()
    desk.server.answer((await desk.hears(15))[-1])
    assert device.codes == ["AA"]


async def test_a_refusal_is_not_repeated(desk: Desk) -> None:
    desk.open()
    device = desk.device()
    desk.send(device, adt("M1"), adt("M2"))
    [frame] = await desk.hears(1)
    desk.server.answer(frame, 422, {"issue": [{"diagnostics": "no such patient"}]})
    assert device.codes == ["AE"]
    assert device.acks[0].text.startswith(b"server answered 422: no such patient (ref ")
    await desk.hears(2)
    assert (await desk.row("M1")).state is State.REJECTED


async def test_429_waits_as_long_as_the_server_says(desk: Desk) -> None:
    desk.open()
    desk.send(desk.device(), adt())
    [frame] = await desk.hears(1)
    desk.server.answer(frame, 429, retry_after=30)
    desk.clock.s += 29
    desk.dispatcher.pump()
    await desk.hears(1)
    desk.clock.s += 1
    desk.dispatcher.pump()
    await desk.hears(2)


async def test_a_message_that_waits_for_its_next_try_holds_up_its_own_key_only(desk: Desk) -> None:
    desk.open()
    one, other = desk.device("10.0.0.1:1"), desk.device("10.0.0.2:1")
    desk.send(one, adt("A1"), adt("A2"))
    [frame] = await desk.hears(1)
    desk.server.answer(frame, 503)
    desk.send(other, adt("B1"))
    await desk.hears(2)
    assert desk.server.ids == ["A1", "B1"]
    desk.clock.s += 60
    desk.dispatcher.pump()
    await desk.hears(3)
    assert desk.server.ids == ["A1", "B1", "A1"]


async def test_the_pause_before_the_next_try_survives_a_restart(tmp_path: Path) -> None:
    async with at_the_desk(tmp_path / "spool.db") as desk:
        desk.open()
        desk.send(desk.device(), adt())
        [frame] = await desk.hears(1)
        desk.server.answer(frame, 429, retry_after=100)
    async with at_the_desk(tmp_path / "spool.db") as desk:
        desk.open()
        await desk.hears(0)
        desk.clock.s += 100
        desk.dispatcher.pump()
        await desk.hears(1)


# ---- what may have arrived


@pytest.mark.parametrize("mode", [RetryMode.NONE, RetryMode.NORMAL])
async def test_a_link_lost_in_flight_leaves_the_message_to_a_person(desk: Desk, mode: RetryMode) -> None:
    desk.open(trying(mode))
    device = desk.device()
    desk.send(device, adt())
    await desk.hears(1)
    desk.server.lose()
    assert device.codes == ["AE"]
    desk.server.back()
    await desk.hears(1)
    row = await desk.row()
    assert (row.state, row.ambiguous) == (State.HELD, True)


@pytest.mark.parametrize(
    ("mode", "state", "frames"), [(RetryMode.GUARANTEED, State.INFLIGHT, 1), (RetryMode.NORMAL, State.HELD, 0)]
)
async def test_what_the_last_process_left_in_flight(tmp_path: Path, mode: RetryMode, state: State, frames: int) -> None:
    async with at_the_desk(tmp_path / "spool.db") as desk:
        desk.open(trying(mode))
        desk.send(desk.device(), adt("M1"), adt("M2"))
        await desk.hears(1)
    async with at_the_desk(tmp_path / "spool.db") as desk:
        desk.open(trying(mode))
        await desk.bell.until(lambda: len(desk.server.heard) >= 1)
        row = await desk.row("M1")
        assert (row.state, row.ambiguous) == (state, True)
        assert desk.server.ids.count("M1") == frames
        if frames:
            assert (desk.server.heard[0].callback or "").endswith("#2")
            desk.server.answer(desk.server.heard[0])
        await desk.hears(1 + frames)
        assert desk.server.ids[-1] == "M2"


async def test_no_answer_in_time_is_tried_again_and_marked(desk: Desk) -> None:
    desk.open(trying(RetryMode.NORMAL, max_attempts=3))
    desk.send(desk.device(), adt())
    [first] = await desk.hears(1)
    desk.clock.s += 61
    desk.dispatcher.expire()
    desk.clock.s += 2
    desk.dispatcher.pump()
    _, second = await desk.hears(2)
    assert second.callback == f"{first.callback}#2"
    assert (await desk.row()).ambiguous


# ---- too large


async def test_a_message_above_the_servers_limit_is_refused_once_and_not_sent_for_ever(desk: Desk) -> None:
    desk.open(dataclasses.replace(SPEC, name="big"))
    desk.open()
    culprit, bystander = desk.device("10.0.0.1:1", "big"), desk.device("10.0.0.2:1")
    desk.send(bystander, adt("SMALL"))
    desk.send(culprit, adt("LARGE", extra="x" * 100_000), channel="big")
    await desk.hears(2)
    desk.server.lose(too_large=True)
    assert culprit.codes == ["AR"]
    assert desk.dispatcher.too_large is not None
    assert "maxJsonSize" in desk.dispatcher.too_large.remedy
    desk.server.back()
    await desk.hears(3)
    assert desk.server.ids[-1] == "SMALL"
    row = await desk.row("LARGE", "big")
    assert (row.state, row.status) == (State.REJECTED, 413)


async def test_a_small_message_is_suspected_only_the_second_time(desk: Desk) -> None:
    desk.open()
    device = desk.device()
    desk.send(device, adt())
    await desk.hears(1)
    desk.server.lose(too_large=True)
    desk.server.back()
    await desk.hears(2)
    assert device.heard == []
    desk.server.lose(too_large=True)
    assert device.codes == ["AR"]


async def test_an_enhanced_sender_hears_of_a_failure_after_its_commit_acknowledgement(desk: Desk) -> None:
    desk.open(dataclasses.replace(trying(RetryMode.NONE), ack_mode=AckMode.ENHANCED))
    device = desk.device()
    desk.send(device, adt())
    [frame] = await desk.hears(1)
    desk.server.answer(frame, 500)
    assert device.codes == ["CA"]
    assert [message for message in device.told if b"MSA|AE|M1|given up" in message]


# ---- known later


@pytest.mark.parametrize("status", [200, 400])
async def test_a_late_yes_to_what_was_given_up_is_noted(desk: Desk, status: int) -> None:
    desk.open(trying(RetryMode.NONE))
    device = desk.device()
    desk.send(device, adt())
    [frame] = await desk.hears(1)
    desk.clock.s += 61
    desk.dispatcher.expire()
    assert device.codes == ["AE"]
    await desk.stored()
    desk.server.answer(frame, status, None if status == 200 else "no")
    row = await desk.row()
    assert row.state is (State.PROCESSED if status == 200 else State.FAILED)
    assert row.ack is AckState.DELIVERED, "what its sender heard stays what it heard"
    # and a repeat is answered with it, or tried anew
    desk.send(device, adt())
    await desk.stored()
    assert device.codes == (["AE", "AA"] if status == 200 else ["AE"])
