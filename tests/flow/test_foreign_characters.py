"""Messages whose characters hold the bytes of delimiters are carried, ordered and answered like all others."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from flow_far_ends import SPEC, Desk, ack_for, at_the_desk

from agent.protocol.hl7 import Header, KeySpec
from agent.spec import AckMode
from agent.store.row import AckState, State

SHIFT_JIS = dataclasses.replace(SPEC, encoding="shift_jis")
BAR = "ポ"  # its second byte in Shift JIS is 0x7C, the field separator


def adt(control_id: str = "M1", *, application: str = "ADT1", name: str = "山田") -> bytes:
    return (
        f"MSH|^~\\&|{application}|GHH|LAB|GHH|20261122101500||ADT^A01^ADT_A01|{control_id}|P|2.5.1\r"
        f"PID|1||P1^^^GHH||{name}^太郎\r"
    ).encode("shift_jis")


async def test_order_keys_are_characters_and_not_bytes(desk: Desk) -> None:
    # given a channel that orders by the patient's name, and two names that begin with the same character
    desk.open(dataclasses.replace(SHIFT_JIS, order_key=KeySpec.parse("PID-5.1")))
    device = desk.device()

    # when a message of each comes
    desk.send(device, adt("M1", name=BAR + "一"), adt("M2", name=BAR + "二"), adt("M3", name=BAR + "一"))

    # then the second patient does not wait for the first, and the first one's own do
    await desk.hears(2)
    assert desk.server.ids == ["M1", "M2"]


async def test_the_servers_answer_passes_as_it_is_also_where_an_id_holds_such_a_character(desk: Desk) -> None:
    desk.open(SHIFT_JIS)
    device = desk.device()
    desk.send(device, adt(BAR + "1"))
    [frame] = await desk.hears(1)
    assert frame.body is not None
    answer = ack_for(frame.body, text="受付済")

    desk.server.answer(frame, body=answer)

    assert [heard.decode("shift_jis") for heard in device.heard] == [answer]


async def test_words_that_would_turn_into_delimiters_are_replaced_by_ours(desk: Desk) -> None:
    desk.open(SHIFT_JIS)
    device = desk.device()
    desk.send(device, adt())
    [frame] = await desk.hears(1)
    assert frame.body is not None

    desk.server.answer(frame, body=ack_for(frame.body, text="100¥"))  # in Shift JIS: a backslash

    [ack] = device.acks
    assert (ack.code, ack.control_id) == ("AA", b"M1")
    assert b"do not fit" in ack.text


async def test_after_a_restart_a_repetition_is_answered_with_its_names(tmp_path: Path) -> None:
    spec = dataclasses.replace(SHIFT_JIS, ack_mode=AckMode.ENHANCED)
    async with at_the_desk(tmp_path / "spool.db") as desk:
        desk.open(spec)
        desk.server.live = desk.server.writable = False
        desk.send(desk.device(), adt(application=BAR + "1"))
        await desk.stored()
    async with at_the_desk(tmp_path / "spool.db") as desk:
        desk.server.live = desk.server.writable = False
        desk.open(spec)
        device = desk.device()
        desk.send(device, adt(application=BAR + "1"))
        await desk.bell.until(lambda: device.heard)
        fields = device.heard[0].decode("shift_jis").split("\r")[0].split("|")
        assert (fields[2], fields[4]) == ("LAB", BAR + "1")


async def test_what_the_fallback_read_is_read_by_it_again_at_the_next_try(desk: Desk) -> None:
    desk.open(dataclasses.replace(SPEC, fallback_charset="cp1252"))
    device = desk.device()
    raw = adt().replace("山田".encode("shift_jis"), b"J\xfcrgen").replace("太郎".encode("shift_jis"), b"Uwe")
    desk.send(device, raw)
    [frame] = await desk.hears(1)

    desk.server.answer(frame, 503)
    desk.clock.s += 120
    desk.dispatcher.pump()

    again = (await desk.hears(2))[1]
    assert again.body == frame.body
    assert again.body is not None
    assert "Jürgen" in again.body
    desk.server.answer(again)
    row = await desk.row()
    assert (row.state, row.ack, Header.of(row.body).control_id) == (State.PROCESSED, AckState.DELIVERED, b"M1")
