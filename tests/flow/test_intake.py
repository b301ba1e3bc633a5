"""When may we say yes?"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from flow_far_ends import SPEC, Desk, SickDisk, ack_for, adt, at_the_desk
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.protocol.hl7 import build_ack
from agent.protocol.mllp import FrameTooLong
from agent.spec import AckMode, AppAck, DuplicateBehavior, RetryMode, RetryPolicy
from agent.store.row import AckState, Repeat, State

ENHANCED = dataclasses.replace(SPEC, ack_mode=AckMode.ENHANCED)
ENHANCED_AA = dataclasses.replace(SPEC, ack_mode=AckMode.ENHANCED_AA)
REJECTING = dataclasses.replace(SPEC, duplicates=DuplicateBehavior.REJECT)


# ---- original mode


async def test_the_server_answers_the_sender(desk: Desk) -> None:
    desk.open()
    device = desk.device()
    desk.send(device, adt())
    [frame] = await desk.hears(1)
    assert device.heard == []
    desk.server.answer(frame)
    assert device.codes == ["AA"]
    row = await desk.row()
    assert (row.state, row.ack, row.ack_code, row.body) == (State.PROCESSED, AckState.DELIVERED, "AA", adt())


async def test_a_late_answer_is_announced_kept_and_replayed(desk: Desk) -> None:
    # given a server that takes longer than the sender may wait
    desk.open()
    device = desk.device()
    desk.send(device, adt())
    [frame] = await desk.hears(1)
    desk.clock.s += 25
    desk.replies.expire()
    # then the sender hears that the message is stored, with a reference
    assert device.codes == ["AE"]
    assert device.acks[0].text.startswith(b"stored, not yet answered")
    # and when it repeats the message after the answer has come, it hears the answer
    desk.server.answer(frame)
    assert (await desk.row()).ack is AckState.UNDELIVERED
    desk.send(device, adt())
    assert device.codes == ["AE", "AA"]
    metrics = desk.dispatcher.lanes["adt"].metrics
    assert (metrics.timeouts, metrics.duplicates, metrics.acknowledged, metrics.rejected) == (1, 1, 1, 1)
    assert len(desk.server.heard) == 1


async def test_zero_waits_for_ever(desk: Desk) -> None:
    desk.open(dataclasses.replace(SPEC, ack_timeout_s=0.0))
    device = desk.device()
    desk.send(device, adt())
    [frame] = await desk.hears(1)
    desk.clock.s += 1e7
    desk.replies.expire()
    assert device.heard == []
    desk.server.answer(frame)
    assert device.codes == ["AA"]


async def test_a_sender_that_leaves_before_its_answer_is_not_kept(desk: Desk) -> None:
    desk.open()
    device = desk.device()
    desk.send(device, adt())
    [frame] = await desk.hears(1)
    desk.hangs_up(device)
    desk.replies.expire()
    assert desk.replies.owed == 0
    desk.server.answer(frame)
    assert (await desk.row()).ack is AckState.UNDELIVERED


# ---- enhanced modes


async def test_enhanced_says_ca_at_commit_and_forwards_the_answer(desk: Desk) -> None:
    desk.open(ENHANCED)
    device = desk.device()
    desk.send(device, adt())
    assert device.heard == [], "yes before the disk"
    [frame] = await desk.hears(1)
    assert device.codes == ["CA"]
    desk.server.answer(frame, body=ack_for(adt().decode(), "AE", "unknown patient"))
    assert [message for message in device.told if b"MSA|AE|M1" in message]
    assert (await desk.row()).ack is AckState.DELIVERED


async def test_enhanced_aa_says_aa_at_commit_and_nothing_more(desk: Desk) -> None:
    desk.open(ENHANCED_AA)
    device = desk.device()
    desk.send(device, adt())
    [frame] = await desk.hears(1)
    assert device.codes == ["AA"]
    desk.server.answer(frame, 400, "no")
    assert device.told == []
    row = await desk.row()
    assert (row.state, row.ack) == (State.REJECTED, AckState.NOT_OWED)


async def test_the_application_answer_never_reaches_a_later_connection_from_the_same_address(desk: Desk) -> None:
    desk.open(ENHANCED)
    device = desk.device()
    desk.send(device, adt())
    [frame] = await desk.hears(1)
    desk.hangs_up(device)
    again = desk.device(device.remote)
    desk.server.answer(frame)
    assert again.told == []
    assert (await desk.row()).ack is AckState.UNDELIVERED


async def test_after_a_restart_the_application_answer_is_undelivered(tmp_path: Path) -> None:
    async with at_the_desk(tmp_path / "spool.db") as desk:
        desk.server.lose()
        desk.open(ENHANCED)
        desk.send(desk.device(), adt())
        await desk.stored()
    async with at_the_desk(tmp_path / "spool.db") as desk:
        device = desk.device()
        desk.open(ENHANCED)
        [frame] = await desk.hears(1)
        desk.server.answer(frame)
        assert device.told == []
        assert (await desk.row()).ack is AckState.UNDELIVERED


async def test_a_commit_acknowledgement_is_never_acknowledged(desk: Desk) -> None:
    desk.open(ENHANCED)
    device = desk.device()
    desk.send(device, ack_for(adt().decode(), "CA").encode())
    await desk.stored()
    assert (device.heard, device.told, device.owed, desk.server.heard) == ([], [], 0, [])


@pytest.mark.parametrize("code", ["AA", "AE", "AR"])
async def test_an_acknowledgement_of_what_we_said_ends_the_matter(desk: Desk, code: str) -> None:
    # given a device that has heard our CA and the server's answer
    desk.open(ENHANCED)
    device = desk.device()
    desk.send(device, adt())
    [frame] = await desk.hears(1)
    desk.server.answer(frame)
    spoken = [*device.heard, *device.told]
    assert len(spoken) == 2
    # when it acknowledges both, as some devices do with everything
    for message in spoken:
        desk.send(device, ack_for(message.decode(), code).encode())
    await desk.stored()
    # then nobody answers that, and the server does not hear of it
    assert ([*device.heard, *device.told], device.owed, len(desk.server.heard)) == (spoken, 0, 1)


async def test_an_acknowledgement_of_something_else_is_a_message_as_any_other(desk: Desk) -> None:
    # recording inbound-enhanced-device-sends-ack: an application answers late, to something that it got elsewhere
    desk.open(ENHANCED)
    device = desk.device()
    desk.send(device, build_ack(None, "AA", control_id=b"M1", when="20261122101500"))
    [frame] = await desk.hears(1)
    assert [message for message in device.heard if b"MSA|CA|" in message]
    desk.server.answer(frame)
    assert len(device.told) == 1


async def test_a_sender_that_was_told_no_before_the_disk_was_through_hears_yes_only_when_it_repeats(desk: Desk) -> None:
    # given a disk so slow that the deadline comes before the commit
    desk.open(ENHANCED)
    device = desk.device()
    desk.send(device, adt())
    desk.clock.s += 25
    desk.replies.expire()
    assert device.codes == ["CE"]
    # then neither the commit nor the server's answer turns the no into a yes
    [frame] = await desk.hears(1)
    desk.server.answer(frame)
    assert (device.codes, device.told) == (["CE"], [])
    assert (await desk.row()).ack is AckState.UNDELIVERED
    # but the repeat does
    desk.send(device, adt())
    assert device.codes == ["CE", "CA"]
    assert len(device.told) == 1
    assert len(desk.server.heard) == 1


# ---- what is refused


@pytest.mark.parametrize(("spec", "code"), [(SPEC, "AR"), (ENHANCED, "CR"), (ENHANCED_AA, "AR")])
@pytest.mark.parametrize("frame", [b"", b"hello", b"MSH", b"FHS-1 is empty", b"\xef\xbb\xbfMSA|^~\\&|A"])
async def test_what_is_no_message_is_refused_for_good(desk: Desk, spec: object, code: str, frame: bytes) -> None:
    desk.open(spec)  # type: ignore[arg-type]
    device = desk.device()
    desk.send(device, frame)
    assert device.codes == [code]
    assert b"(ref n" in device.acks[0].text
    assert len(desk.refusals) == 1


async def test_bytes_that_the_charset_does_not_have_are_refused_with_their_place(desk: Desk) -> None:
    desk.open()
    device = desk.device()
    desk.send(device, adt().replace(b"ADAM", b"AD\xe4M"))
    assert device.codes == ["AR"]
    assert b"0xe4, in PID-5) is not valid UTF-8" in device.acks[0].text


async def test_an_unknown_charset_is_refused(desk: Desk) -> None:
    desk.open()
    device = desk.device()
    desk.send(device, adt().replace(b"|2.5.1\r", b"|2.5.1||||||KLINGON\r"))
    assert device.codes == ["AR"]
    assert b"KLINGON" in device.acks[0].text
    assert "KLINGON" not in str(desk.refusals), "a log names nothing that stood in a message"


async def test_what_the_server_would_not_take_is_refused_at_the_door(desk: Desk) -> None:
    desk.limits.frame_bytes = 20_000
    desk.open()
    device = desk.device()
    desk.send(device, adt(extra="x" * 20_000))
    assert device.codes == ["AR"]
    assert b"more than the server takes in one frame" in device.acks[0].text
    desk.send(device, adt("M2", extra="x" * 15_000))
    await desk.hears(1)


async def test_a_frame_above_the_limit_is_refused_and_ends_the_connection(desk: Desk) -> None:
    desk.open(ENHANCED)
    device = desk.device()
    device.owed += 1
    desk.intakes["adt"].broken(device, FrameTooLong(adt(extra="x" * 200)[:100], 1_000))
    assert device.codes == ["CR"]
    assert device.acks[0].control_id == b"M1"
    assert device.closing


async def test_an_unreadable_frame_above_the_limit_is_refused_too(desk: Desk) -> None:
    desk.open()
    device = desk.device()
    device.owed += 1
    desk.intakes["adt"].broken(device, FrameTooLong(b"\0" * 100, 1_000))
    assert device.codes == ["AR"]


async def test_a_channel_that_was_switched_off_refuses(desk: Desk) -> None:
    lane = desk.open()
    desk.dispatcher.configure("adt", None, lane.metrics)
    device = desk.device()
    desk.send(device, adt())
    assert device.codes == ["AR"]


@pytest.mark.parametrize(("spec", "code"), [(SPEC, "AE"), (ENHANCED, "CE"), (ENHANCED_AA, "AE")])
async def test_what_the_disk_does_not_take_is_the_senders_to_keep(tmp_path: Path, spec: object, code: str) -> None:
    disk = SickDisk(f"sick-intake-{code}-{id(spec)}")
    async with at_the_desk(tmp_path / "spool.db", vfs=disk.name) as desk:
        desk.open(spec)  # type: ignore[arg-type]
        device = desk.device()
        disk.full = True
        desk.send(device, adt(), adt("M2"))
        await desk.bell.until(lambda: len(device.heard) == 2)
        desk.send(device, adt("M3"))
        assert device.codes == [code] * 3
        assert desk.server.heard == []
        assert desk.dispatcher.lanes["adt"].rows == 0
        disk.full = False


# ---- duplicates


async def test_a_repeat_waits_with_the_first_for_one_delivery(desk: Desk) -> None:
    desk.open()
    one, other = desk.device("10.0.0.1:1"), desk.device("10.0.0.1:2")
    desk.send(one, adt())
    [frame] = await desk.hears(1)
    desk.clock.s += 20
    desk.send(other, adt())
    desk.clock.s += 10
    desk.replies.expire()
    assert (one.codes, other.codes) == (["AE"], [])
    desk.server.answer(frame)
    assert (one.codes, other.codes) == (["AE"], ["AA"])
    assert len(desk.server.heard) == 1


async def test_a_repeat_in_one_packet_is_one_message(desk: Desk) -> None:
    desk.open()
    device = desk.device()
    desk.send(device, adt(), adt())
    [frame] = await desk.hears(1)
    desk.server.answer(frame)
    assert device.codes == ["AA", "AA"]


@pytest.mark.parametrize("spec", [SPEC, ENHANCED, ENHANCED_AA])
async def test_a_repeat_after_a_positive_answer_is_answered_from_memory(desk: Desk, spec: object) -> None:
    desk.open(spec)  # type: ignore[arg-type]
    device = desk.device()
    desk.send(device, adt())
    [frame] = await desk.hears(1)
    desk.server.answer(frame)
    first, told = device.codes, len(device.told)
    acknowledged = desk.dispatcher.lanes["adt"].metrics.acknowledged
    await desk.stored()
    desk.send(device, adt())
    assert device.codes == first * 2
    assert len(device.told) == told * 2
    assert desk.dispatcher.lanes["adt"].metrics.acknowledged == acknowledged + 1
    await desk.hears(1)


async def test_a_repeat_after_a_restart_is_answered_from_the_file(tmp_path: Path) -> None:
    async with at_the_desk(tmp_path / "spool.db") as desk:
        desk.open()
        desk.send(desk.device(), adt())
        [frame] = await desk.hears(1)
        desk.server.answer(frame)
    async with at_the_desk(tmp_path / "spool.db") as desk:
        desk.open()
        device = desk.device()
        desk.send(device, adt())
        assert device.codes == ["AA"]
        assert desk.server.heard == []


async def test_a_repeat_of_what_waits_in_the_file_is_answered_when_that_is(desk: Desk) -> None:
    # given so long a backlog that the message is in the file only
    lane = desk.open()
    desk.server.lose()
    device = desk.device()
    lane.spilled = lane.unread = True
    desk.send(device, adt())
    await desk.stored()
    assert lane.rows == 0
    desk.send(device, adt())
    # when the server is back
    desk.server.back()
    [frame] = await desk.hears(1)
    desk.server.answer(frame)
    # then both frames are answered by the one delivery
    assert device.codes == ["AA", "AA"]


@pytest.mark.parametrize(("status", "body"), [(400, "no"), (200, "AE")])
async def test_a_repeat_after_a_negative_answer_is_a_new_try_and_marked(desk: Desk, status: int, body: str) -> None:
    desk.open()
    device = desk.device()
    desk.send(device, adt())
    [frame] = await desk.hears(1)
    desk.server.answer(frame, status, ack_for(adt().decode(), "AE") if body == "AE" else body)
    desk.send(device, adt())
    _, again = await desk.hears(2)
    desk.server.answer(again)
    assert device.codes == ["AE", "AA"]
    assert (await desk.row()).repeat is Repeat.RETRIED


async def test_other_bytes_under_a_used_id_are_a_new_message_marked_and_counted(desk: Desk) -> None:
    desk.open(ENHANCED)
    device = desk.device()
    desk.send(device, adt("M1", patient="P1"))
    await desk.hears(1)
    desk.send(device, adt("M1", patient="P2"))
    desk.server.answer(desk.server.heard[0])
    await desk.hears(2)
    assert (await desk.row()).repeat is Repeat.CONFLICT
    assert desk.dispatcher.lanes["adt"].metrics.duplicates == 1


async def test_messages_without_an_id_are_never_repeats(desk: Desk) -> None:
    desk.open(ENHANCED)
    device = desk.device()
    desk.send(device, adt(""))
    desk.send(device, adt(""))
    desk.server.answer((await desk.hears(1))[0])
    await desk.hears(2)


@pytest.mark.parametrize(
    ("spec", "code"), [(REJECTING, "AR"), (dataclasses.replace(REJECTING, ack_mode=AckMode.ENHANCED), "CR")]
)
async def test_a_rejecting_channel_refuses_both_kinds_of_repeat(desk: Desk, spec: object, code: str) -> None:
    desk.open(spec)  # type: ignore[arg-type]
    device = desk.device()
    desk.send(device, adt())
    [frame] = await desk.hears(1)
    desk.server.answer(frame)
    device.heard.clear()
    desk.send(device, adt(), adt(patient="P2"))
    assert device.codes == [code, code]
    assert b"duplicate of a message received before" in device.acks[0].text
    await desk.hears(1)


async def test_the_same_id_on_another_channel_is_another_message(desk: Desk) -> None:
    desk.open()
    desk.open(dataclasses.replace(SPEC, name="oru"))
    desk.send(desk.device(), adt())
    desk.send(desk.device("10.0.0.2:1", "oru"), adt(), channel="oru")
    await desk.hears(2)


async def test_a_repeat_from_a_new_connection_hears_the_application(desk: Desk) -> None:
    desk.open(ENHANCED)
    first = desk.device("10.0.0.1:1")
    desk.send(first, adt())
    [frame] = await desk.hears(1)
    desk.hangs_up(first)
    second = desk.device("10.0.0.1:2")
    desk.send(second, adt())
    assert second.codes == ["CA"]
    desk.server.answer(frame)
    assert len(second.told) == 1
    assert (await desk.row()).ack is AckState.DELIVERED


@pytest.mark.parametrize(("before", "after"), [(SPEC, ENHANCED), (ENHANCED, SPEC), (ENHANCED_AA, ENHANCED)])
async def test_a_repeat_is_answered_in_the_channels_present_mode(desk: Desk, before: object, after: object) -> None:
    desk.open(before)  # type: ignore[arg-type]
    device = desk.device()
    desk.send(device, adt())
    [frame] = await desk.hears(1)
    desk.server.answer(frame)
    device.heard.clear()
    device.told.clear()
    desk.open(after)  # type: ignore[arg-type]
    desk.send(device, adt())
    assert device.codes == (["AA"] if after is SPEC else ["CA"])
    assert len(device.told) == (0 if after is SPEC else 1)


async def test_a_repeat_of_an_enhanced_message_that_is_not_stored_yet_waits_for_the_disk(desk: Desk) -> None:
    desk.open(dataclasses.replace(ENHANCED, app_ack=AppAck.NEVER))
    device = desk.device()
    desk.send(device, adt(), adt())
    assert device.heard == []
    await desk.hears(1)
    assert device.codes == ["CA", "CA"]


# ---- numbers


async def test_sequence_numbers_follow_arrival_and_survive_a_restart(tmp_path: Path) -> None:
    spec = dataclasses.replace(ENHANCED, assign_seq_no=True)
    async with at_the_desk(tmp_path / "spool.db") as desk:
        desk.server.answers_at_once = True
        desk.open(spec)
        desk.send(desk.device(), adt("M1"), adt("M2"))
        await desk.hears(2)
        assert [frame.body.split("|")[12].split("\r")[0] for frame in desk.server.heard if frame.body] == ["0", "1"]
    async with at_the_desk(tmp_path / "spool.db") as desk:
        desk.open(spec)
        desk.send(desk.device(), adt("M3"))
        [frame] = await desk.hears(1)
        assert frame.body is not None
        assert frame.body.split("|")[12].startswith("2\r")
        assert (await desk.row("M3")).body == adt("M3"), "kept as received"


async def test_the_server_hears_cr_only(desk: Desk) -> None:
    desk.open()
    desk.send(desk.device(), adt().replace(b"\r", b"\r\n"))
    [frame] = await desk.hears(1)
    assert frame.body == adt().decode()


# ---- anything


hostile = st.binary(max_size=80) | st.binary(max_size=60).map(lambda tail: b"MSH|^~\\&|A|B|C|D|2026||ADT^A01|" + tail)


@settings(max_examples=15)
@given(st.lists(hostile, max_size=12), st.sampled_from((SPEC, ENHANCED, ENHANCED_AA, REJECTING)))
async def test_every_frame_whatever_it_is_gets_exactly_one_answer(
    tmp_path_factory: pytest.TempPathFactory, frames: list[bytes], spec: object
) -> None:
    async with at_the_desk(tmp_path_factory.mktemp("any") / "spool.db") as desk:
        desk.server.answers_at_once = True
        desk.open(dataclasses.replace(spec, retry=RetryPolicy(RetryMode.NONE)))  # type: ignore[type-var]
        device = desk.device()
        desk.send(device, *frames)
        await desk.bell.until(lambda: not device.owed)
        device.acks  # noqa: B018 - each of them is an acknowledgement
