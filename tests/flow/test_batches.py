"""A batch in one frame: its messages are stored together and answered as the channel says."""

from __future__ import annotations

import dataclasses

import pytest
from flow_far_ends import SPEC, Desk, adt

from agent.protocol.batch import split
from agent.protocol.hl7 import Header, read_ack
from agent.spec import AckMode, BatchAck, DuplicateBehavior
from agent.store.row import State

AS_ONE = dataclasses.replace(SPEC, batch_ack=BatchAck.BATCH)


def batch(*messages: bytes, count: int | None = None, file: bool = False) -> bytes:
    """BHS, the messages, BTS; within FHS and FTS if it is a file."""
    trailer = b"BTS|%d\r" % (len(messages) if count is None else count)
    body = b"BHS|^~\\&|LAB1|GHH|EHR|GHH|20261122101500||||B77\r" + b"".join(messages) + trailer
    return b"FHS|^~\\&|LAB1|GHH|EHR|GHH|20261122101500||||F1\r" + body + b"FTS|1\r" if file else body


@pytest.mark.parametrize("file", [False, True])
async def test_each_message_is_delivered_and_answered_for_itself(desk: Desk, file: bool) -> None:
    lane = desk.open()
    device = desk.device()
    desk.send(device, batch(adt("M1"), adt("M2"), adt("M3"), file=file))
    for number in range(3):
        desk.server.answer((await desk.hears(number + 1))[number])
    assert desk.server.ids == ["M1", "M2", "M3"]
    assert [(ack.code, ack.control_id) for ack in device.acks] == [("AA", b"M1"), ("AA", b"M2"), ("AA", b"M3")]
    assert (device.owed, lane.metrics.received) == (0, 3)


async def test_the_messages_of_a_batch_share_one_commit(desk: Desk) -> None:
    desk.open()
    device = desk.device()
    await desk.stored()
    before = desk.spool.commits
    desk.send(device, batch(*(adt(f"M{number}") for number in range(50))))
    await desk.bell.until(lambda: desk.spool.tally.open_of["adt"] == 50)
    assert desk.spool.commits == before + 1


async def test_one_batch_of_answers_when_the_last_is_there(desk: Desk) -> None:
    desk.open(AS_ONE)
    device = desk.device()
    desk.send(device, batch(adt("M1"), adt("M2"), file=True))
    desk.server.answer((await desk.hears(1))[0])
    assert device.heard == []
    desk.server.answer((await desk.hears(2))[1], status=422, body="no such patient")
    [answer] = device.heard
    answered = split(answer)
    acks = [read_ack(message) for message in answered.messages]
    assert [(ack.code, ack.control_id) for ack in acks if ack] == [("AA", b"M1"), ("AE", b"M2")]
    assert answered.groups[0].header is not None
    assert answered.groups[0].header.split(b"|")[11] == b"B77"  # BHS-12: which batch is answered
    assert device.owed == 0


async def test_a_message_that_is_refused_has_its_place_in_the_answer(desk: Desk) -> None:
    desk.open(AS_ONE)
    device = desk.device()
    broken = adt("M1").replace(b"EVERYMAN", b"EV\xffRYMAN")
    desk.send(device, batch(broken, adt("M2")))
    desk.server.answer((await desk.hears(1))[0])
    [answer] = device.heard
    assert [ack.code for ack in map(read_ack, split(answer).messages) if ack] == ["AR", "AA"]


async def test_commit_acknowledgements_are_gathered_and_later_words_are_not(desk: Desk) -> None:
    desk.open(dataclasses.replace(AS_ONE, ack_mode=AckMode.ENHANCED))
    device = desk.device()
    desk.send(device, batch(adt("M1"), adt("M2")))
    frames = await desk.hears(1)
    [answer] = device.heard
    assert [ack.code for ack in map(read_ack, split(answer).messages) if ack] == ["CA", "CA"]
    desk.server.answer(frames[0])
    desk.server.answer((await desk.hears(2))[1])
    assert [ack.code for ack in map(read_ack, device.told) if ack] == ["AA", "AA"]


async def test_at_the_deadline_the_batch_is_answered_whatever_is_missing(desk: Desk) -> None:
    desk.open(AS_ONE)
    device = desk.device()
    desk.send(device, batch(adt("M1"), adt("M2")))
    desk.server.answer((await desk.hears(1))[0])
    await desk.hears(2)
    desk.clock.s += 25
    desk.replies.expire()
    [answer] = device.heard
    assert [ack.code for ack in map(read_ack, split(answer).messages) if ack] == ["AA", "AE"]


async def test_a_batch_that_is_not_whole_is_refused_as_a_whole(desk: Desk) -> None:
    desk.open()
    device = desk.device()
    desk.send(device, batch(adt("M1"), adt("M2"), count=3))
    await desk.stored()
    [ack] = device.acks
    assert (ack.code, ack.control_id) == ("AR", b"B77")
    header = Header.of(device.heard[0])
    assert (header.sending_application, header.receiving_application) == (b"EHR", b"LAB1")
    assert desk.spool.tally.open_of["adt"] == 0


async def test_a_batch_that_says_that_there_is_nothing_is_accepted(desk: Desk) -> None:
    lane = desk.open()  # §2.10.3: for a sender that must report regularly
    device = desk.device()
    desk.send(device, batch())
    [ack] = device.acks
    assert (ack.code, ack.control_id, lane.metrics.received, device.owed) == ("AA", b"B77", 0, 0)


async def test_a_batch_that_comes_again_is_answered_again_and_delivered_once(desk: Desk) -> None:
    desk.open(AS_ONE)
    device = desk.device()
    for _ in range(2):
        desk.send(device, batch(adt("M1"), adt("M2")))
    for number in range(2):
        desk.server.answer((await desk.hears(number + 1))[number])
    assert len(device.heard) == 2
    for answer in device.heard:
        assert [ack.code for ack in map(read_ack, split(answer).messages) if ack] == ["AA", "AA"]
    assert (await desk.row("M1")).state is State.PROCESSED


async def test_a_rejecting_channel_refuses_the_repeated_messages_of_a_batch(desk: Desk) -> None:
    desk.open(dataclasses.replace(AS_ONE, duplicates=DuplicateBehavior.REJECT))
    device = desk.device()
    desk.send(device, batch(adt("M1"), adt("M1")))
    desk.server.answer((await desk.hears(1))[0])
    [answer] = device.heard
    assert [ack.code for ack in map(read_ack, split(answer).messages) if ack] == ["AA", "AR"]


async def test_a_sender_that_leaves_takes_its_answer_with_it(desk: Desk) -> None:
    desk.open(AS_ONE)
    device = desk.device()
    desk.send(device, batch(adt("M1"), adt("M2")))
    desk.hangs_up(device)
    desk.replies.expire()
    assert desk.replies.owed == 0
    for number in range(2):
        desk.server.answer((await desk.hears(number + 1))[number])
    assert (await desk.row("M2")).state is State.PROCESSED
