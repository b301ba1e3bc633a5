"""Who hears what about a message, and when."""

from __future__ import annotations

import dataclasses

import pytest
from flow_far_ends import SPEC, Desk, ack_for
from hypothesis import given
from hypothesis import strategies as st

from agent.flow.terms import ORIGINAL, Terms, forwards, terms_of
from agent.protocol.hl7 import Header
from agent.spec import AckMode, AppAck
from agent.store.row import AckState, State

AUTO = dataclasses.replace(SPEC, ack_mode=AckMode.AUTO)


def adt(accept: str = "", application: str = "", control_id: str = "M1") -> bytes:
    """An ADT message with these MSH-15 and MSH-16."""
    return (
        f"MSH|^~\\&|ADT1|GHH|LAB|GHH|20261122101500||ADT^A01^ADT_A01|{control_id}|P|2.5.1|||{accept}|{application}\r"
        "EVN||20261122101500\rPID|1||P1^^^GHH||EVERYMAN^ADAM\r"
    ).encode()


@pytest.mark.parametrize("condition", AppAck)
@pytest.mark.parametrize("code", ["AA", "CA", "AE", "AR", "CE", "CR"])
def test_table_0155(condition: AppAck, code: str) -> None:
    positive = code in ("AA", "CA")
    heard = {AppAck.ALWAYS: True, AppAck.NEVER: False, AppAck.SUCCESS: positive, AppAck.ERROR: not positive}

    assert forwards(condition, code) is heard[condition]


@pytest.mark.parametrize("mode", [AckMode.ORIGINAL, AckMode.ENHANCED, AckMode.ENHANCED_AA])
def test_a_fixed_mode_does_not_ask_the_message(mode: AckMode) -> None:
    spec = dataclasses.replace(SPEC, ack_mode=mode)

    assert terms_of(spec, Header.of(adt("NE", "NE"))) == terms_of(spec, Header.of(adt())) == terms_of(spec, None)


def test_auto_is_original_mode_where_the_message_asks_for_nothing() -> None:
    assert terms_of(AUTO, Header.of(adt())) == terms_of(AUTO, None) == terms_of(None, None) == ORIGINAL


@pytest.mark.parametrize(
    ("accept", "application", "terms"),
    [
        ("AL", "AL", Terms(AppAck.ALWAYS, "C", AppAck.ALWAYS)),
        ("AL", "NE", Terms(AppAck.ALWAYS, "C", AppAck.NEVER)),
        ("NE", "AL", Terms(AppAck.NEVER, "C", AppAck.ALWAYS)),
        ("ER", "SU", Terms(AppAck.ERROR, "C", AppAck.SUCCESS)),
        ("al", " er ", Terms(AppAck.ALWAYS, "C", AppAck.ERROR)),
        ("AL", "", Terms(AppAck.ALWAYS, "C", AppAck.NEVER)),  # §2.9.3.1: one of the two given, the other means never
        ("", "AL", Terms(AppAck.NEVER, "C", AppAck.ALWAYS)),
        ("YES", "NE", Terms(AppAck.ALWAYS, "C", AppAck.NEVER)),  # no condition of the table: better too much
    ],
)
def test_auto_does_as_the_message_asks(accept: str, application: str, terms: Terms) -> None:
    assert terms_of(AUTO, Header.of(adt(accept, application))) == terms


@given(st.sampled_from(["", *AppAck]), st.sampled_from(["", *AppAck]), st.sampled_from("ER"))
def test_whoever_wants_to_hear_of_errors_hears_of_a_refusal(accept: str, application: str, letter: str) -> None:
    code = terms_of(AUTO, Header.of(adt(accept, application))).refused(letter)

    wants = {"AL", "ER"} & {accept, application} or not (accept or application)
    assert bool(code) == bool(wants)
    if accept in ("AL", "ER"):
        assert code == "C" + letter
    elif wants:
        assert code == "A" + letter


# ---- at the desk


async def test_original_where_both_are_absent(desk: Desk) -> None:
    desk.open(AUTO)
    device = desk.device()
    desk.send(device, adt())
    [frame] = await desk.hears(1)
    assert device.heard == []
    desk.server.answer(frame)
    assert (device.codes, device.told) == (["AA"], [])


async def test_commit_and_application_acknowledgement_for_who_wants_both(desk: Desk) -> None:
    desk.open(AUTO)
    device = desk.device()
    desk.send(device, adt("AL", "AL"))
    [frame] = await desk.hears(1)
    assert device.codes == ["CA"]
    desk.server.answer(frame)
    assert len(device.told) == 1
    assert (await desk.row()).ack is AckState.DELIVERED


@pytest.mark.parametrize(
    ("application", "code", "told"), [("SU", "AA", 1), ("SU", "AE", 0), ("ER", "AA", 0), ("ER", "AE", 1)]
)
async def test_application_answers_by_their_outcome(desk: Desk, application: str, code: str, told: int) -> None:
    desk.open(AUTO)
    device = desk.device()
    desk.send(device, adt("AL", application))
    [frame] = await desk.hears(1)
    assert frame.body is not None
    desk.server.answer(frame, body=ack_for(frame.body, code))
    assert len(device.told) == told
    assert (await desk.row()).ack is (AckState.DELIVERED if told else AckState.NOT_OWED)


async def test_who_wants_to_hear_nothing_hears_nothing_and_is_delivered(desk: Desk) -> None:
    desk.open(AUTO)
    device = desk.device()
    desk.send(device, adt("NE", "NE"), adt("NE", "NE", "M2"))
    for number in range(2):
        desk.server.answer((await desk.hears(number + 1))[number])
    assert (device.heard, device.told, device.owed, desk.replies.owed) == ([], [], 0, 0)
    assert (await desk.row()).state is State.PROCESSED


async def test_success_only_hears_the_commit_and_no_refusal(desk: Desk) -> None:
    desk.open(AUTO)
    device = desk.device()
    broken = adt("SU", "NE", "M2").replace(b"EVERYMAN", b"EV\xffRYMAN")
    desk.send(device, adt("SU", "NE"), broken)
    await desk.hears(1)
    assert (device.codes, device.owed) == (["CA"], 0)
    assert len(desk.refusals) == 1


async def test_errors_only_hears_the_refusal_and_no_commit(desk: Desk) -> None:
    desk.open(AUTO)
    device = desk.device()
    broken = adt("ER", "NE", "M2").replace(b"EVERYMAN", b"EV\xffRYMAN")
    desk.send(device, adt("ER", "NE"), broken)
    await desk.hears(1)
    assert (device.codes, device.owed) == (["CR"], 0)


async def test_who_wants_no_commit_but_the_application_hears_a_refusal_as_the_applications(desk: Desk) -> None:
    desk.open(AUTO)
    device = desk.device()
    desk.send(device, adt("NE", "AL").replace(b"EVERYMAN", b"EV\xffRYMAN"))
    await desk.stored()
    assert device.codes == ["AR"]


async def test_a_repetition_without_commit_is_answered_by_the_application_alone(desk: Desk) -> None:
    # given a message whose application answer went to a connection that has gone
    desk.open(AUTO)
    device = desk.device()
    desk.send(device, adt("NE", "AL"))
    [frame] = await desk.hears(1)
    desk.hangs_up(device)
    desk.server.answer(frame)
    # when the sender asks again
    again = desk.device("10.0.0.1:40002")
    desk.send(again, adt("NE", "AL"))
    # then it hears what the server said
    assert (again.heard, len(again.told), again.owed) == ([], 1, 0)
