"""Which message an answer of the server is about."""

from __future__ import annotations

import dataclasses

import pytest
from flow_far_ends import SPEC, Desk, ack_for, adt, at_the_desk
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.protocol.envelope import TransmitRequest, TransmitResponse
from agent.spec import RetryMode, RetryPolicy
from agent.store.row import State


async def tried_twice(desk: Desk) -> list[TransmitRequest]:
    """A message on its second try."""
    desk.open()
    device = desk.device()
    desk.send(device, adt())
    [first] = await desk.hears(1)
    desk.clock.s += 61
    desk.dispatcher.expire()
    desk.clock.s += 2
    desk.dispatcher.pump()
    _, second = await desk.hears(2)
    return [first, second]


async def test_a_late_yes_to_the_first_try_settles_the_message(desk: Desk) -> None:
    first, second = await tried_twice(desk)
    desk.server.answer(first)
    assert desk.dispatcher.in_flight == 0
    desk.server.answer(second)
    row = await desk.row()
    assert (row.state, desk.dispatcher.lanes["adt"].metrics.delivered) == (State.PROCESSED, 1)


async def test_a_late_later_to_the_first_try_does_not_begin_a_third(desk: Desk) -> None:
    first, second = await tried_twice(desk)
    desk.server.answer(first, 503)
    assert desk.dispatcher.in_flight == 1
    desk.clock.s += 60
    desk.dispatcher.pump()
    await desk.hears(2)
    desk.server.answer(second)
    assert (await desk.row()).state is State.PROCESSED


async def test_a_yes_while_the_message_sleeps_wakes_the_next(desk: Desk) -> None:
    desk.open()
    device = desk.device()
    desk.send(device, adt("M1"), adt("M2"))
    [first] = await desk.hears(1)
    desk.server.answer(first, 429, retry_after=600)
    desk.server.answer(first)
    assert device.codes == ["AA"]
    await desk.hears(2)
    assert desk.server.ids == ["M1", "M2"]


async def test_a_yes_while_the_next_try_is_on_its_way_to_the_disk_stops_it(desk: Desk) -> None:
    desk.open()
    device = desk.device()
    desk.send(device, adt())
    [first] = await desk.hears(1)
    desk.server.answer(first, 503)
    desk.clock.s += 60
    desk.dispatcher.pump()  # claims
    desk.server.answer(first)
    assert device.codes == ["AA"]
    await desk.hears(1)
    assert (await desk.row()).state is State.PROCESSED


async def test_a_yes_to_what_was_never_sent_is_not_believed(desk: Desk) -> None:
    # given a first message in flight and a second that waits behind it
    desk.open()
    desk.send(desk.device(), adt("M1"), adt("M2"))
    [first] = await desk.hears(1)
    assert first.callback is not None
    prefix, number = first.callback[:-12], int(first.callback[-12:], 16)
    desk.server.answer(first, callback=f"{prefix}{number + 1:012x}")
    assert (await desk.row("M2")).state is State.QUEUED
    # nor to what is on its way to the disk only
    desk.send(desk.device("10.0.0.2:1"), adt("M3"))
    desk.server.answer(first, callback=f"{prefix}{number + 2:012x}")
    await desk.hears(2)
    assert desk.server.ids == ["M1", "M3"]


# ---- old servers


async def test_without_a_callback_the_address_and_the_id_find_the_sender(desk: Desk) -> None:
    desk.open()
    one, other = desk.device("10.0.0.1:1"), desk.device("10.0.0.2:1")
    desk.send(one, adt("A1"))
    desk.send(other, adt("B1"))
    first, second = await desk.hears(2)
    desk.server.answer(second, callback=None)
    desk.server.answer(first, callback=None)
    assert (one.codes, other.codes) == (["AA"], ["AA"])


async def test_without_a_callback_the_id_tells_messages_of_one_address_apart(desk: Desk) -> None:
    desk.open(dataclasses.replace(SPEC, order_key=None))
    device = desk.device()
    desk.open(dataclasses.replace(SPEC, name="other"))
    desk.send(device, adt("A1"))
    desk.send(device, adt("A2"), channel="other")
    first, second = await desk.hears(2)
    desk.server.answer(second, channel=None, callback="")
    assert [ack.control_id for ack in device.acks] == [b"A2"]
    desk.server.answer(first, channel=None, remote=None, callback=None)
    assert [ack.control_id for ack in device.acks] == [b"A2", b"A1"]


async def test_words_without_an_id_answer_the_oldest_of_that_address(desk: Desk) -> None:
    desk.open()
    device = desk.device()
    desk.send(device, adt())
    [frame] = await desk.hears(1)
    desk.server.answer(frame, 400, "no", callback=None, remote=None)
    assert device.heard == []
    desk.server.answer(frame, 400, "no", callback=None)
    assert device.codes == ["AE"]


async def test_a_late_answer_without_a_callback_does_not_answer_the_next_message(desk: Desk) -> None:
    # given a message that was given up, and the next one of its sender in flight
    desk.open(dataclasses.replace(SPEC, retry=RetryPolicy(RetryMode.NONE)))
    device = desk.device()
    desk.send(device, adt("M1"), adt("M2"))
    [first] = await desk.hears(1)
    desk.clock.s += 61
    desk.dispatcher.expire()
    _, second = await desk.hears(2)
    # when the answer to the first comes after all
    desk.server.answer(first, callback=None)
    # then the second still waits for its own
    assert device.codes == ["AE"]
    desk.server.answer(second, callback=None)
    assert [(ack.code, ack.control_id) for ack in device.acks] == [("AE", b"M1"), ("AA", b"M2")]


async def test_an_answer_that_names_nobody_we_know_is_for_who_waits(desk: Desk) -> None:
    desk.open()
    device = desk.device()
    desk.send(device, adt())
    [frame] = await desk.hears(1)
    desk.server.answer(frame, body=ack_for(adt("XYZ").decode()), callback=None)
    assert [(ack.code, ack.control_id) for ack in device.acks] == [("AA", b"M1")]


texts = st.none() | st.text(max_size=20) | st.sampled_from(("adt", "10.0.0.1:40001"))
responses = st.builds(
    TransmitResponse,
    channel=texts,
    remote=texts,
    content_type=texts,
    status_code=st.integers() | st.sampled_from((200, 400, 429, 503)),
    body=st.none() | st.text(max_size=40) | st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2),
    callback=texts
    | st.integers(0, 2**70).map(lambda n: f"ours{n:x}")
    | st.sampled_from(("ours1#2", "ours2", "ours2#0")),
    retry_after=st.none() | st.integers() | st.text(max_size=5),
)


@settings(max_examples=40)
@given(st.lists(responses, max_size=8))
async def test_whatever_the_server_says_nothing_breaks(
    tmp_path_factory: pytest.TempPathFactory, said: list[TransmitResponse]
) -> None:
    async with at_the_desk(tmp_path_factory.mktemp("any") / "spool.db") as desk:
        desk.open()
        device = desk.device()
        desk.send(device, adt("M1"), adt("M2"))
        [frame] = await desk.hears(1)
        assert frame.callback is not None
        prefix = frame.callback[:-12]
        for response in said:
            callback = response.callback and response.callback.replace("ours", prefix)
            ours = TransmitResponse(
                response.channel, response.remote, None, response.status_code, response.body, callback,
                response.retry_after,
            )  # fmt: skip
            desk.dispatcher.answered([ours])
            await desk.stored()
        for lane in desk.dispatcher.lanes.values():
            assert lane.metrics.pending == desk.dispatcher.in_flight
