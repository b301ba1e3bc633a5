"""A byte stream: no acknowledgements, only what the server writes back."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from flow_far_ends import SPEC, Desk, SickDisk, at_the_desk

from agent.flow.byteintake import ByteIntake
from agent.flow.reception import Limits
from agent.protocol.mllp import FrameTooLong
from agent.spec import ByteStream
from agent.store.row import AckState, Content, State

STREAM = ByteStream(start=2, end=3)
BYTES = dataclasses.replace(SPEC, name="bytes", address="tcp://127.0.0.1:2576?startChar=%02&endChar=%03", wire=STREAM)


def carrying(**wire: object) -> object:
    return dataclasses.replace(BYTES, wire=dataclasses.replace(STREAM, **wire))  # type: ignore[arg-type]


async def test_a_message_goes_to_the_server_as_hexadecimal_with_its_delimiters(desk: Desk) -> None:
    desk.open(BYTES)
    device = desk.device(channel="bytes")

    desk.send(device, b"\x02hello\x03", channel="bytes")

    (frame,) = await desk.hears(1)
    assert (frame.content_type, frame.body) == ("application/octet-stream", "0268656c6c6f03")
    assert (frame.channel, frame.remote) == ("bytes", "10.0.0.1:40001")


async def test_what_the_server_answers_is_written_to_the_device_as_bytes(desk: Desk) -> None:
    desk.open(BYTES)
    device = desk.device(channel="bytes")
    desk.send(device, b"\x02hello\x03", channel="bytes")
    (frame,) = await desk.hears(1)

    desk.server.answer(frame, body="02 4F4B 03")

    assert device.heard == [b"\x02OK\x03"]
    assert device.owed == 0


async def test_an_answer_that_is_no_hexadecimal_is_not_written(desk: Desk) -> None:
    desk.open(BYTES)
    device = desk.device(channel="bytes")
    desk.send(device, b"\x02hello\x03", channel="bytes")
    (frame,) = await desk.hears(1)

    desk.server.answer(frame, body="Bot execution logs:")

    await desk.stored()
    row = desk.spool.shelf.get(1)
    assert row is not None
    assert (row.state, row.ack) == (State.PROCESSED, AckState.UNDELIVERED)
    assert "cannot be written" in row.reason
    assert (device.heard, device.owed) == ([], 0)


async def test_a_refusal_of_the_server_writes_nothing_and_is_kept_with_its_reason(desk: Desk) -> None:
    desk.open(BYTES)
    device = desk.device(channel="bytes")
    desk.send(device, b"\x02hello\x03", channel="bytes")
    (frame,) = await desk.hears(1)

    desk.server.answer(frame, status=400, body="no such sample")

    await desk.stored()
    row = desk.spool.shelf.get(1)
    assert row is not None
    assert (row.state, row.ack, row.content) == (State.REJECTED, AckState.NOT_OWED, Content.BYTES)
    assert "no such sample" in row.reason
    assert (device.heard, device.owed) == ([], 0)


async def test_with_ignore_response_the_device_is_never_waited_for(desk: Desk) -> None:
    desk.open(carrying(ignore_response=True))  # type: ignore[arg-type]
    device = desk.device(channel="bytes")

    desk.send(device, b"\x02hello\x03", channel="bytes")

    assert device.owed == 0
    (frame,) = await desk.hears(1)
    desk.server.answer(frame, body="0203")
    assert (device.heard, device.told) == ([], [])


async def test_an_answer_after_the_deadline_is_still_written_to_the_connection_that_asked(desk: Desk) -> None:
    desk.open(BYTES)
    device = desk.device(channel="bytes")
    desk.send(device, b"\x02hello\x03", channel="bytes")
    (frame,) = await desk.hears(1)
    desk.clock.s += BYTES.ack_timeout_s + 1

    desk.replies.expire()
    desk.server.answer(frame, body="024f4b03")

    assert (device.heard, device.told, device.owed) == ([], [b"\x02OK\x03"], 0)


async def test_the_body_is_read_by_the_charset_of_the_channel_and_without_its_control_characters(desk: Desk) -> None:
    desk.open(carrying(body_codec="latin-1", strip_controls=True, keep_controls=frozenset({13})))  # type: ignore[arg-type]
    device = desk.device(channel="bytes")

    desk.send(device, b"\x02M\xfcller\r\n\x03", channel="bytes")

    (frame,) = await desk.hears(1)
    assert frame.body == "Müller\r"


async def test_bytes_that_the_charset_cannot_read_are_refused_by_ending_the_connection(desk: Desk) -> None:
    desk.open(carrying(body_codec="utf-8"))  # type: ignore[arg-type]
    device = desk.device(channel="bytes")

    desk.send(device, b"\x02M\xfcller\x03", channel="bytes")

    assert (device.owed, device.closing) == (0, True)
    assert len(desk.refusals) == 1
    await desk.hears(0)


async def test_a_message_that_no_frame_of_the_server_takes_is_refused(tmp_path: Path) -> None:
    async with at_the_desk(tmp_path / "spool.db") as desk:
        desk.limits = Limits(frame_bytes=4_096)
        desk.open(BYTES)
        device = desk.device(channel="bytes")

        desk.send(device, b"\x02" + bytes(3_000) + b"\x03", channel="bytes")

        assert (device.owed, device.closing) == (0, True)
        assert "more than the server takes" in desk.refusals[0][2]


async def test_a_full_disk_ends_the_connection_whose_message_it_did_not_take(tmp_path: Path) -> None:
    disk = SickDisk("full-for-bytes")
    async with at_the_desk(tmp_path / "spool.db", vfs=disk.name) as desk:
        desk.open(BYTES)
        device = desk.device(channel="bytes")
        disk.full = True

        desk.send(device, b"\x02one\x03", channel="bytes")
        await desk.bell.until(lambda: device.closing)

        assert device.owed == 0
        later = desk.device("10.0.0.1:40002", channel="bytes")
        desk.send(later, b"\x02two\x03", channel="bytes")
        assert (later.owed, later.closing) == (0, True)
        disk.full = False


async def test_messages_of_one_connection_keep_their_order(desk: Desk) -> None:
    desk.open(BYTES)
    device = desk.device(channel="bytes")

    desk.send(device, b"\x02one\x03", b"\x02two\x03", channel="bytes")

    (first,) = await desk.hears(1)
    desk.server.answer(first, body="")
    first, second = await desk.hears(2)
    assert [first.body, second.body] == [b"\x02one\x03".hex(), b"\x02two\x03".hex()]


async def test_a_message_that_broke_ends_its_connection_and_is_counted(desk: Desk) -> None:
    lane = desk.open(BYTES)
    device = desk.device(channel="bytes")
    device.owed += 1

    desk.intakes["bytes"].broken(device, FrameTooLong(b"\x02", 10))

    assert isinstance(desk.intakes["bytes"], ByteIntake)
    assert (device.owed, device.closing) == (0, True)
    assert lane.metrics.refused["broken-frame"] == 1


async def test_what_waits_for_the_server_goes_after_a_restart_too(tmp_path: Path) -> None:
    async with at_the_desk(tmp_path / "spool.db") as desk:
        desk.server.live = desk.server.writable = False
        desk.open(BYTES)
        desk.send(desk.device(channel="bytes"), b"\x02hello\x03", channel="bytes")
        await desk.stored()

    async with at_the_desk(tmp_path / "spool.db") as desk:
        desk.open(BYTES)

        (frame,) = await desk.hears(1)
        assert (frame.content_type, frame.body) == ("application/octet-stream", "0268656c6c6f03")


async def test_a_device_does_not_wait_for_the_answer_to_another(desk: Desk) -> None:
    desk.open(BYTES)
    one, other = desk.device(channel="bytes"), desk.device("10.0.0.2:40001", channel="bytes")

    desk.send(one, b"\x02one\x03", channel="bytes")
    desk.send(other, b"\x02two\x03", channel="bytes")

    assert [frame.remote for frame in await desk.hears(2)] == [one.remote, other.remote]
