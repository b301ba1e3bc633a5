"""What the sender hears about a message, and whether it does."""

from __future__ import annotations

import dataclasses

import pytest
from flow_far_ends import SPEC, Bell, Clock, Device, ack_for, adt
from hypothesis import given
from hypothesis import strategies as st

from agent.flow.answers import NO_ACK_OF_ITS_OWN, Answers, forwards
from agent.flow.lanes import Lane
from agent.flow.replies import Replies
from agent.flow.verdict import Accepted, Refused
from agent.flow.voice import Voice
from agent.metrics import ChannelMetrics
from agent.protocol.hl7 import Acknowledgement, Header, read_ack
from agent.spec import AckMode, AppAck
from agent.store.row import AckState, Row


class Counter:
    """One message at the place where its answer is given."""

    def __init__(self, body: bytes = adt(), **changes: object) -> None:
        self.replies = Replies(lambda _: b"", Clock().now)
        self.answers = Answers(self.replies, Voice())
        self.lane = Lane("adt", dataclasses.replace(SPEC, **changes), ChannelMetrics())  # type: ignore[arg-type]
        header = Header.of(body)
        self.row = Row(5, "adt", "10.0.0.1:40001", b"", header.control_id, header.message_type, 0, body)
        self.row.header, self.row.lane = header, self.lane
        self.device = Device(Bell(), self.row.remote)
        self.replies.opened("adt", self.device)

    def waits(self) -> None:
        self.device.owed += 1
        self.replies.owe(self.row, self.device, 25.0)

    def said(self) -> Acknowledgement:
        assert self.row.answer is not None
        ack = read_ack(self.row.answer)
        assert ack is not None
        return ack


def test_the_servers_acknowledgement_goes_back_as_it_is() -> None:
    counter = Counter()
    counter.waits()
    body = ack_for(adt().decode(), text="stored by the bot")
    counter.answers.give(counter.row, Accepted(200, body))
    assert counter.device.heard == [body.encode()]
    assert (counter.row.ack, counter.row.ack_code) == (AckState.DELIVERED, "AA")
    assert counter.lane.metrics.acknowledged == 1


@pytest.mark.parametrize("body", [None, "", "Bot execution logs:", "MSH|^~\\&|no MSA\r", '{"resourceType":"Patient"}'])
def test_a_yes_without_an_acknowledgement_becomes_one_of_ours(body: str | None) -> None:
    counter = Counter()
    counter.waits()
    counter.answers.give(counter.row, Accepted(200, body))
    assert counter.said() == Acknowledgement("AA", b"M1", f"{NO_ACK_OF_ITS_OWN} (ref 5)".encode())


def test_a_no_inside_a_yes_is_forwarded() -> None:
    counter = Counter()
    counter.waits()
    counter.answers.give(counter.row, Accepted(200, ack_for(adt().decode(), "AR", "not for us")))
    assert counter.device.codes == ["AR"]
    assert counter.row.ack_code == "AR"
    assert counter.lane.metrics.rejected == 1


def test_an_acknowledgement_of_another_message_keeps_its_code_only() -> None:
    counter = Counter()
    counter.answers.give(counter.row, Accepted(200, ack_for(adt("OTHER").decode(), "AE")))
    assert (counter.said().code, counter.said().control_id) == ("AE", b"M1")


def test_line_ends_become_segment_ends() -> None:
    counter = Counter()
    counter.answers.give(counter.row, Accepted(200, ack_for(adt().decode()).replace("\r", "\r\n")))
    assert counter.row.answer is not None
    assert b"\n" not in counter.row.answer


def test_words_that_would_end_the_frame_are_replaced_by_ours() -> None:
    counter = Counter()
    counter.answers.give(counter.row, Accepted(200, ack_for(adt().decode(), "AE") + "ZZZ|\x1c\rMSA|AA\r"))
    assert counter.said().code == "AE"
    assert counter.row.answer is not None
    assert b"\x1c" not in counter.row.answer


def test_words_that_the_senders_charset_does_not_have_are_replaced_by_ours() -> None:
    counter = Counter(encoding="iso-8859-1")
    counter.answers.give(counter.row, Accepted(200, ack_for(adt().decode(), "AE", "病院")))
    assert counter.said().code == "AE"
    assert counter.said().text.startswith(b"the server's own words do not fit")


def test_the_servers_words_reach_the_sender_in_its_charset() -> None:
    counter = Counter(encoding="iso-8859-1")
    counter.answers.give(counter.row, Accepted(200, ack_for(adt().decode(), "AE", "größer")))
    assert counter.said().text == "größer".encode("latin-1")


def test_a_sender_that_has_gone_leaves_the_answer_undelivered() -> None:
    counter = Counter()
    counter.waits()
    counter.device.gone = True
    counter.answers.give(counter.row, Refused(400, "AE", "no"))
    assert counter.row.ack is AckState.UNDELIVERED
    assert counter.said().text == b"no (ref 5)"
    assert counter.lane.metrics.rejected == 0


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (AppAck.ALWAYS, ["AA", "AE", "AR"]),
        (AppAck.NEVER, []),
        (AppAck.ERROR, ["AE", "AR"]),
        (AppAck.SUCCESS, ["AA"]),
    ],
)
def test_an_enhanced_channel_forwards_by_app_level_ack(wanted: AppAck, told: list[str]) -> None:
    for code in ("AA", "AE", "AR"):
        counter = Counter(ack_mode=AckMode.ENHANCED, app_ack=wanted)
        counter.replies.begin_after(4)
        counter.waits()
        counter.replies.answer(counter.row, b"CA")
        counter.answers.give(counter.row, Accepted(200, ack_for(adt().decode(), code)))
        assert len(counter.device.told) == (code in told)
        assert counter.row.ack is (AckState.DELIVERED if code in told else AckState.NOT_OWED)
        assert forwards(wanted, code) is (code in told)


def test_an_enhanced_aa_channel_has_said_everything_at_commit() -> None:
    counter = Counter(ack_mode=AckMode.ENHANCED_AA)
    counter.answers.give(counter.row, Refused(400, "AE", "no"))
    assert counter.row.ack is AckState.NOT_OWED
    assert counter.device.heard == counter.device.told == []


def test_who_still_waits_when_the_mode_changes_gets_the_answer_once() -> None:
    counter = Counter()
    counter.waits()
    counter.lane.respec(dataclasses.replace(SPEC, ack_mode=AckMode.ENHANCED))
    counter.answers.give(counter.row, Accepted(200, ack_for(adt().decode())))
    assert counter.device.codes == ["AA"]
    assert counter.device.told == []
    assert counter.replies.owed == 0


def test_a_channel_that_was_switched_off_still_answers() -> None:
    counter = Counter()
    counter.waits()
    counter.lane.respec(None)
    counter.answers.give(counter.row, Accepted(200, ack_for(adt().decode())))
    assert counter.device.codes == ["AA"]


@given(
    st.sampled_from(("AA", "AE", "AR", "CA", "CE", "CR")),
    st.text(max_size=40),
    st.sampled_from(("M1", "M2", "")),
    st.text(max_size=40),
    st.sampled_from((None, "iso-8859-1", "shift_jis", "iso-2022-jp", "us-ascii")),
)
def test_a_negative_answer_never_becomes_a_positive_one(
    code: str, text: str, names: str, tail: str, encoding: str | None
) -> None:
    body = ack_for(adt(names).decode(), code, text) + tail
    counter = Counter(encoding=encoding)
    counter.waits()
    counter.answers.give(counter.row, Accepted(200, body))
    assert counter.said().code == code
    assert counter.said().control_id == b"M1"
    assert counter.row.answer is not None
    assert not {b"\x0b", b"\x1c"} & {counter.row.answer[i : i + 1] for i in range(len(counter.row.answer))}


@given(st.text() | st.none(), st.sampled_from((None, "iso-8859-1", "gb18030", "iso-2022-jp")))
def test_any_words_of_the_server_give_an_answer_to_this_message(body: str | None, encoding: str | None) -> None:
    counter = Counter(encoding=encoding)
    counter.answers.give(counter.row, Accepted(200, body))
    assert counter.said().control_id == b"M1"
