"""Which answer belongs to which message, and what becomes of a message whose answer does not come."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pool_far_ends import (
    RESET,
    SPEC,
    FarLine,
    Phase,
    Remote,
    Sender,
    ack,
    all_is_done,
    in_virtual_time,
    message,
    pool_for,
)

from agent.failures import Failure, Kind
from agent.flow.letters import Answered, Letter
from agent.flow.underway import REMEMBERED, Late, Noted, Settled, Stray, UnderWay
from agent.metrics import RemoteMetrics
from agent.spec import ReturnAck

WHERE = "lab.example:2575"


async def under_way(*control_ids: str, **changes: object) -> tuple[FarLine, Sender, Remote, RemoteMetrics]:
    """One connection on which these messages have been written."""
    remote = Remote()
    pool, sender = pool_for(remote, **{"in_flight": len(control_ids), **changes})
    sender.push(*control_ids)
    await all_is_done()
    assert remote.lines[0].sent == list(control_ids)
    return remote.lines[0], sender, remote, pool.metrics


# ---- acknowledgements


@pytest.mark.parametrize("code", ["AA", "AE", "AR", "CE", "CR"])
@pytest.mark.parametrize("return_ack", ReturnAck)
@in_virtual_time
async def test_every_code_but_ca_is_the_last_word(code: str, return_ack: ReturnAck) -> None:
    line, sender, _, metrics = await under_way("M1", return_ack=return_ack)
    line.answers("M1", code)
    await all_is_done()
    assert sender.outcomes["M1"] == Answered(ack("M1", code), code)
    assert (metrics.acknowledged, metrics.refused) == ((1, 0) if code == "AA" else (0, 1))


@in_virtual_time
async def test_a_commit_acknowledgement_is_noted_and_the_application_s_is_given_back() -> None:
    line, sender, _, metrics = await under_way("M1")
    line.answers("M1", "CA")
    await all_is_done()
    assert (sender.outcomes, metrics.acknowledged, metrics.pending) == ({}, 0, 1)
    line.answers("M1", "AE")
    await all_is_done()
    assert sender.code("M1") == "AE"


@in_virtual_time
async def test_a_commit_acknowledgement_is_enough_where_the_first_one_is_wanted() -> None:
    # given a remote that commits and answers later
    line, sender, _, metrics = await under_way("M1", return_ack=ReturnAck.FIRST)
    line.answers("M1", "CA")
    await all_is_done()
    assert sender.code("M1") == "CA"
    assert metrics.acknowledged == 1
    # when the application's answer comes while the next message is under way
    sender.push("M2")
    line.answers("M1", "AE")
    line.answers("M2", "CA")
    await all_is_done()
    # then it is late, and changes nothing
    assert sender.code("M2") == "CA"
    assert metrics.late == 1
    assert line.phase is Phase.OPEN


@in_virtual_time
async def test_a_message_never_goes_where_an_answer_to_its_namesake_may_come() -> None:
    # given a sender whose control ids are all the same, and a remote that owes the application's answer to the first
    line, sender, remote, metrics = await under_way("1", return_ack=ReturnAck.FIRST)
    line.answers("1", "CA")
    sender.push("1")
    await all_is_done()
    # then the second goes on a connection of its own, on which the old answer cannot come
    assert line.phase is Phase.GONE
    assert remote.lines[1].sent == ["1"]
    remote.lines[1].answers("1", "CE")
    await all_is_done()
    assert sender.code("1") == "CE"
    # and once a message has had its last answer, its namesake may follow on the same connection
    sender.push("1")
    await all_is_done()
    assert remote.lines[1].sent == ["1", "1"]
    assert metrics.reconnects == 0


@in_virtual_time
async def test_a_connection_that_owes_an_answer_stays_where_another_can_take_the_message() -> None:
    line, sender, remote, _ = await under_way("1", return_ack=ReturnAck.FIRST, max_clients=2)
    sender.push("2")
    await all_is_done()
    line.answers("1", "CA")
    remote.lines[1].answers("2")
    sender.push("1")
    assert remote.lines[1].sent == ["2", "1"]
    assert line.phase is Phase.OPEN


@in_virtual_time
async def test_a_message_that_waits_for_its_namesake_does_not_wait_for_its_last_answer() -> None:
    line, sender, remote, _ = await under_way("1", return_ack=ReturnAck.FIRST, keep_alive=True)
    sender.push("1")
    line.answers("1", "CA")
    await all_is_done()
    assert (line.sent, remote.lines[1].sent) == (["1"], ["1"])


@in_virtual_time
async def test_what_a_namesake_was_owed_is_settled_by_its_late_answer() -> None:
    # given a control id whose last answer came at once the first time, and late the second time
    line, sender, remote, metrics = await under_way("1", return_ack=ReturnAck.FIRST)
    line.answers("1", "AA")
    sender.push("1")
    line.answers("1", "CA")
    line.answers("1", "AA")
    await all_is_done()
    assert metrics.late == 1
    # when it is used a third time, then nothing may come any more that could be mistaken for its answer
    sender.push("1")
    await all_is_done()
    assert line.sent == ["1", "1", "1"]
    assert len(remote.lines) == 1


@in_virtual_time
async def test_a_late_answer_that_comes_twice_is_late_twice() -> None:
    line, sender, _, metrics = await under_way("M1", return_ack=ReturnAck.FIRST)
    line.answers("M1", "CA")
    sender.push("M2")
    line.says(ack("M1"), ack("M1"), ack("M2", "CA"))
    await all_is_done()
    assert (sender.code("M2"), metrics.late) == ("CA", 2)


@in_virtual_time
async def test_a_second_answer_to_a_committed_message_is_late() -> None:
    line, sender, _, metrics = await under_way("M1")
    for code in ("CA", "AA"):
        line.answers("M1", code)
    sender.push("M2")
    line.answers("M1", "AA")
    line.answers("M2")
    await all_is_done()
    assert (sender.code("M2"), metrics.late) == ("AA", 1)


@in_virtual_time
async def test_an_acknowledgement_that_names_nobody_answers_the_only_message_under_way() -> None:
    line, sender, _, _ = await under_way("M1")
    line.answers("")
    await all_is_done()
    assert sender.code("M1") == "AA"


@in_virtual_time
async def test_an_acknowledgement_that_names_nobody_is_refused_where_two_could_be_meant() -> None:
    line, sender, _, metrics = await under_way("M1", "M2")
    line.answers("")
    await all_is_done()
    for control_id in ("M1", "M2"):
        failure = sender.unanswered(control_id)
        assert failure.kind is Kind.WRONG_ID
        assert "names no message (MSA-2 is empty) while 2 messages wait" in failure.text
    assert line.aborted
    assert metrics.failed == {"wrong-id": 2}


@in_virtual_time
async def test_an_application_acknowledgement_that_names_nobody_may_be_that_of_a_committed_message() -> None:
    # given one message that was committed and given back, and the next one under way
    line, sender, _, _ = await under_way("M1", return_ack=ReturnAck.FIRST)
    line.answers("M1", "CA")
    sender.push("M2", "M3")
    # when commit acknowledgements come without a name, they can mean one message only
    line.answers("", "CA")
    await all_is_done()
    assert sender.code("M2") == "CA"
    # but the application's may belong to any of them
    line.answers("", "AA")
    await all_is_done()
    assert sender.unanswered("M3").kind is Kind.WRONG_ID
    assert line.aborted


@in_virtual_time
async def test_an_acknowledgement_of_another_message_is_refused_by_name() -> None:
    line, sender, remote, metrics = await under_way("M1", "M2")
    line.answers("M2", "CA")
    line.answers("DOE^JOHN" + 50 * "x" + "\x1b")
    await all_is_done()
    # then the one who asked reads both ids, and the log neither
    failure = sender.unanswered("M1")
    assert failure.kind is Kind.WRONG_ID
    assert f"{WHERE} acknowledged message 'DOE^JOHN{31 * 'x'}…' (MSA-2) while 'M1' waits" in str(failure)
    assert "'M2'" in str(sender.unanswered("M2", committed=True))
    assert "DOE" not in failure.for_log
    assert "M1" not in failure.for_log
    assert "DOE" not in metrics.last_error
    # and nothing more is believed from this connection
    assert line.aborted
    sender.push("M3")
    await all_is_done()
    assert remote.lines[1].sent == ["M3"]
    assert metrics.reconnects == 1


@pytest.mark.parametrize(
    ("frame", "what"),
    [
        (message("X9"), "a message without MSA-1 and MSA-2"),
        (b"MSH|^~\\&|LAB\rMSA|ZZ|M1\r", "a message without MSA-1 and MSA-2"),
        (b"HTTP/1.1 400 Bad Request\r\n", "HTTP in an MLLP frame"),
        ("MSH|^~\\&|".encode("utf-16"), "UTF-16"),
        (b"EVERYMAN", "8 bytes that are no HL7 message"),
        (b"", "an empty frame"),
    ],
)
@in_virtual_time
async def test_a_frame_that_is_no_acknowledgement_ends_what_is_under_way(frame: bytes, what: str) -> None:
    line, sender, _, _ = await under_way("M1", "M2")
    line.says(frame)
    await all_is_done()
    for control_id in ("M1", "M2"):
        failure = sender.unanswered(control_id)
        assert failure.kind is Kind.NO_ACK
        assert what in failure.text
        assert "EVERYMAN" not in str(failure)
    assert line.aborted


@in_virtual_time
async def test_frames_behind_one_that_cannot_be_trusted_are_not_read() -> None:
    line, sender, _, metrics = await under_way("M1", "M2")
    line.says(ack("X9"), ack("M1"), ack("M2"))
    await all_is_done()
    assert {sender.unanswered(control_id).kind for control_id in ("M1", "M2")} == {Kind.WRONG_ID}
    assert (metrics.acknowledged, metrics.late) == (0, 0)


@pytest.mark.parametrize("frame", [ack("M1"), ack("X9"), ack(""), b"\x06", b"\x15", b"?"])
@in_virtual_time
async def test_a_frame_that_nobody_waits_for_closes_the_connection(frame: bytes) -> None:
    line, sender, remote, metrics = await under_way("M1")
    line.answers("M1")
    line.says(frame)
    await all_is_done()
    assert (line.phase, line.aborted, metrics.late) == (Phase.GONE, False, 1)
    sender.push("M2")
    await all_is_done()
    assert remote.lines[1].sent == ["M2"]
    assert metrics.reconnects == 1


def test_what_is_remembered_of_a_connection_that_never_ends_is_bounded() -> None:
    # given more committed messages than are remembered, none of which has had its application's answer
    under_way = UnderWay(WHERE)
    spec = dataclasses.replace(SPEC, return_ack=ReturnAck.FIRST)
    for number in range(REMEMBERED + 1):
        control_id = f"M{number}"
        under_way.add(Letter(b"", control_id.encode(), None, lambda outcome: None), spec, 0.0, 0.0)
        assert isinstance(under_way.hear(ack(control_id, "CA")), Settled)
    # then only the oldest is forgotten
    assert isinstance(under_way.hear(ack("M1")), Late)
    assert isinstance(under_way.hear(ack("M0")), Stray)


@given(st.one_of(st.binary(max_size=80), st.builds(lambda tail: b"MSH|^~\\&|\rMSA|" + tail, st.binary(max_size=20))))
def test_any_frame_has_a_meaning(frame: bytes) -> None:
    under_way = UnderWay(WHERE)
    under_way.add(Letter(b"", b"M1", None, lambda outcome: None), SPEC, 0.0, 0.0)
    verdict = under_way.hear(frame)
    assert isinstance(verdict, Settled | Noted | Late | Stray)
    assert len(under_way) == (0 if isinstance(verdict, Settled) else 1)


# ---- commit blocks (MLLP release 2)


@pytest.mark.parametrize("return_ack", ReturnAck)
@in_virtual_time
async def test_a_commit_block_is_never_the_answer(return_ack: ReturnAck) -> None:
    line, sender, _, _ = await under_way("M1", return_ack=return_ack)
    line.says(b"\x06")
    await all_is_done()
    assert sender.outcomes == {}
    line.answers("M1")
    await all_is_done()
    assert sender.code("M1") == "AA"


@in_virtual_time
async def test_after_a_commit_block_the_remote_has_the_message() -> None:
    line, sender, _, _ = await under_way("M1")
    line.says(b"\x06")
    await asyncio.sleep(30.1)
    failure = sender.unanswered("M1", committed=True)
    assert failure.text == (
        f"{WHERE} has committed the message (0x06) but sent no application acknowledgement within 30 s"
    )
    assert "returnAck" not in failure.remedy


@in_virtual_time
async def test_a_commit_block_that_could_mean_several_commits_none() -> None:
    line, sender, _, _ = await under_way("M1", "M2")
    line.says(b"\x06")
    line.hangs_up()
    await all_is_done()
    assert sender.unanswered("M1", committed=False).kind is Kind.CLOSED


@in_virtual_time
async def test_a_negative_commit_block_says_that_the_message_was_not_taken() -> None:
    line, sender, remote, metrics = await under_way("M1")
    line.says(b"\x15")
    sender.push("M2")
    await all_is_done()
    assert "did not take the message (0x15)" in sender.not_sent("M1").text
    assert remote.lines[0].sent == ["M1", "M2"], "the connection goes on"
    assert metrics.failed == {"no-ack": 1}


@in_virtual_time
async def test_a_negative_commit_block_behind_a_positive_one_leaves_nobody_knowing() -> None:
    line, sender, _, _ = await under_way("M1")
    line.says(b"\x06", b"\x15")
    await all_is_done()
    assert "(0x06) and then that it has not (0x15)" in sender.unanswered("M1", committed=False).text


@in_virtual_time
async def test_a_negative_commit_block_that_could_mean_several_ends_them_all() -> None:
    line, sender, _, _ = await under_way("M1", "M2")
    line.says(b"\x15")
    await all_is_done()
    failure = sender.unanswered("M2")
    assert failure.kind is Kind.WRONG_ID
    assert "did not take one of 2 messages" in failure.text
    assert line.aborted


# ---- silence


@in_virtual_time
async def test_after_a_time_out_the_next_message_goes_on_another_connection_and_the_late_answer_to_nobody() -> None:
    line, sender, remote, metrics = await under_way("M1")
    sender.push("M2")
    await asyncio.sleep(29.9)
    assert sender.outcomes == {}
    await asyncio.sleep(0.2)
    failure = sender.unanswered("M1")
    assert (failure.kind, line.aborted) == (Kind.SILENT, True)
    assert failure.text == f"{WHERE} sent no acknowledgement within 30 s; it may have received the message"
    assert "ackTimeoutMs" in failure.remedy
    # when the answer to the first comes at last, the connection is no longer there to bring it
    line.answers("M1")
    assert remote.lines[1].sent == ["M2"]
    remote.lines[1].answers("M2")
    await all_is_done()
    assert (sender.code("M2"), sender.told["M1"]) == ("AA", 1)
    assert metrics.last_error == "", "an acknowledgement clears it"
    assert metrics.failed == {"silent": 1}


@in_virtual_time
async def test_a_time_out_counts_from_the_write_not_from_the_push() -> None:
    line, sender, _, _ = await under_way("M1")
    sender.push("M2")
    await asyncio.sleep(20.0)
    line.answers("M1")
    await asyncio.sleep(29.0)
    assert "M2" not in sender.outcomes
    await asyncio.sleep(1.1)
    assert sender.unanswered("M2").kind is Kind.SILENT


@in_virtual_time
async def test_a_commit_acknowledgement_does_not_move_the_deadline() -> None:
    line, sender, _, _ = await under_way("M1")
    await asyncio.sleep(29.0)
    line.answers("M1", "CA")
    await asyncio.sleep(1.1)
    failure = sender.unanswered("M1", committed=True)
    assert failure.text == f"{WHERE} has committed the message (CA) but sent no application acknowledgement within 30 s"
    assert "returnAck=first" in failure.remedy


@in_virtual_time
async def test_without_a_limit_an_answer_may_take_a_week() -> None:
    line, sender, _, _ = await under_way("M1", ack_timeout_s=0)
    await asyncio.sleep(7 * 86_400.0)
    line.answers("M1")
    await all_is_done()
    assert sender.code("M1") == "AA"


@in_virtual_time
async def test_a_time_out_among_several_lets_the_others_be_answered_and_begins_nothing_more() -> None:
    # given two messages under way, the second written ten seconds later
    line, sender, remote, metrics = await under_way("M1", in_flight=2)
    await asyncio.sleep(10.0)
    sender.push("M2")
    await asyncio.sleep(20.1)
    assert sender.unanswered("M1").kind is Kind.SILENT
    assert (line.phase, list(sender.outcomes)) == (Phase.OPEN, ["M1"])
    # when a third comes, it waits for another connection
    sender.push("M3")
    await all_is_done()
    assert line.sent == ["M1", "M2"]
    # and the late answer to the first does no harm
    line.answers("M1")
    assert metrics.late == 1
    line.answers("M2")
    await all_is_done()
    assert sender.code("M2") == "AA"
    assert (line.phase, line.aborted) == (Phase.GONE, False)
    assert remote.lines[1].sent == ["M3"]
    assert metrics.reconnects == 1


@in_virtual_time
async def test_after_a_time_out_an_answer_without_a_name_is_nobody_s() -> None:
    line, sender, _, _ = await under_way("M1", in_flight=2)
    await asyncio.sleep(10.0)
    sender.push("M2")
    await asyncio.sleep(20.1)
    line.answers("")
    await all_is_done()
    failure = sender.unanswered("M2")
    assert failure.kind is Kind.WRONG_ID
    assert "another message may be meant" in failure.text


@in_virtual_time
async def test_once_the_late_answer_has_come_one_without_a_name_can_be_told_again() -> None:
    line, sender, _, metrics = await under_way("M1", in_flight=2)
    await asyncio.sleep(10.0)
    sender.push("M2")
    await asyncio.sleep(20.1)
    line.says(ack("M1"), ack(""))
    await all_is_done()
    assert (sender.code("M2"), metrics.late) == ("AA", 1)


@in_virtual_time
async def test_messages_that_time_out_together_end_together() -> None:
    line, sender, _, _ = await under_way("M1", "M2")
    await asyncio.sleep(30.1)
    assert {sender.unanswered(control_id).kind for control_id in ("M1", "M2")} == {Kind.SILENT}
    assert line.aborted


@in_virtual_time
async def test_answers_in_time_are_never_cut_off_by_the_time_out_of_an_earlier_message() -> None:
    line, sender, _, _ = await under_way("M0")
    for number in range(10):
        await asyncio.sleep(25.0)
        line.answers(f"M{number}")
        sender.push(f"M{number + 1}")
    await all_is_done()
    assert [sender.code(f"M{number}") for number in range(10)] == ["AA"] * 10
    await asyncio.sleep(29.9)
    assert "M10" not in sender.outcomes
    await asyncio.sleep(0.2)
    assert sender.unanswered("M10").kind is Kind.SILENT


@in_virtual_time
async def test_half_an_answer_is_told_as_such() -> None:
    line, sender, _, _ = await under_way("M1")
    line.begins_an_answer(412)
    await asyncio.sleep(30.1)
    failure = sender.unanswered("M1")
    assert failure.kind is Kind.SILENT
    assert failure.text == f"{WHERE} sent 412 bytes of an answer but not its end (0x1C 0x0D) within 30 s"


# ---- connections that break


@pytest.mark.parametrize(
    ("failure", "kind", "text"),
    [
        (None, Kind.CLOSED, "closed the connection without answering; it may have received the message"),
        (RESET, Kind.RESET, "reset the connection"),
        (Failure(Kind.TLS, "no certificate was asked for in vain"), Kind.TLS, "in vain"),
    ],
)
@in_virtual_time
async def test_a_connection_that_breaks_ends_what_is_under_way(failure: Failure | None, kind: Kind, text: str) -> None:
    line, sender, _, metrics = await under_way("M1", "M2")
    line.hangs_up(failure)
    await all_is_done()
    for control_id in ("M1", "M2"):
        assert sender.unanswered(control_id).kind is kind
        assert text in sender.unanswered(control_id).text
    assert (metrics.failed, metrics.pending, metrics.connections) == ({kind: 2}, 0, 0)


@in_virtual_time
async def test_a_remote_that_closes_in_the_middle_of_its_answer_is_told_so() -> None:
    line, sender, _, _ = await under_way("M1")
    line.begins_an_answer(1)
    line.hangs_up()
    await all_is_done()
    assert "in the middle of its answer, after 1 byte;" in sender.unanswered("M1").text


@in_virtual_time
async def test_a_remote_that_commits_and_closes_has_the_message() -> None:
    line, sender, _, _ = await under_way("M1")
    line.answers("M1", "CA")
    line.hangs_up()
    await all_is_done()
    failure = sender.unanswered("M1", committed=True)
    assert failure.kind is Kind.CLOSED
    assert "has committed the message (CA) and closed the connection without" in failure.text
    assert "returnAck=first" in failure.remedy


# ---- answers without framing


@pytest.mark.parametrize(
    ("noise", "what", "remedy"),
    [
        (b"HTTP/1.1 400 Bad", "it speaks HTTP", "the port on which the system takes HL7"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "it speaks TLS", "mllps://"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "it speaks TLS", "mllps://"),
        (b"\r\nMSH|^~\\&|LAB|G", "an HL7 message (MSH) without start and end block", "switch MLLP framing on"),
        ("MSH|^~\\&".encode("utf-16-le"), "it writes UTF-16", "takes HL7 v2 over MLLP"),
        (b"SSH-2.0-OpenSSH_", "it begins with 16 bytes of something else (SSH-2.0-aaaaaaa", "takes HL7 v2 over MLLP"),
        (b"EVERYMAN", "it begins with 8 bytes of something else (aaaaaaaa)", "takes HL7 v2 over MLLP"),
        (b"\x06", "it begins with 1 byte of something else (06)", "takes HL7 v2 over MLLP"),
    ],
)
@in_virtual_time
async def test_an_answer_without_framing_is_told_a_second_later(noise: bytes, what: str, remedy: str) -> None:
    line, sender, _, metrics = await under_way("M1")
    await asyncio.sleep(5.0)
    line.murmurs(noise)
    await asyncio.sleep(0.9)
    assert sender.outcomes == {}
    await asyncio.sleep(0.2)
    failure = sender.unanswered("M1")
    assert failure.kind is Kind.UNFRAMED
    assert failure.text.startswith(f"{WHERE} answers without MLLP framing (0x0B … 0x1C 0x0D): {what}")
    assert remedy in failure.remedy
    assert "EVERYMAN" not in str(failure)
    assert line.aborted
    assert metrics.failed == {"unframed": 1}


@in_virtual_time
async def test_noise_before_an_answer_that_comes_is_nothing() -> None:
    line, sender, _, _ = await under_way("M1")
    line.murmurs(b"\r\nhello")
    await asyncio.sleep(0.9)
    line.answers("M1")
    sender.push("M2")
    await asyncio.sleep(5.0)
    line.answers("M2")
    await all_is_done()
    assert (sender.code("M1"), sender.code("M2")) == ("AA", "AA")


@in_virtual_time
async def test_noise_before_an_answer_that_has_begun_is_nothing_yet() -> None:
    line, sender, _, _ = await under_way("M1")
    line.murmurs(b"hello")
    line.begins_an_answer(10)
    await asyncio.sleep(20.0)
    line.answers("M1")
    await all_is_done()
    assert sender.code("M1") == "AA"


@in_virtual_time
async def test_noise_is_not_held_against_a_message_that_was_written_after_it() -> None:
    line, sender, _, _ = await under_way("M1", in_flight=2)
    line.murmurs(b"hello")
    await asyncio.sleep(0.5)
    sender.push("M2")
    await asyncio.sleep(5.0)
    assert sender.outcomes == {}
    line.says(ack("M1"), ack("M2"))
    await all_is_done()
    assert (sender.code("M1"), sender.code("M2")) == ("AA", "AA")


@in_virtual_time
async def test_noise_is_not_held_against_a_remote_that_goes_on_to_answer() -> None:
    line, sender, _, _ = await under_way("M1", "M2")
    line.murmurs(b"hello")
    await asyncio.sleep(0.5)
    line.answers("M1")
    await asyncio.sleep(5.0)
    line.answers("M2")
    await all_is_done()
    assert sender.code("M2") == "AA"


@in_virtual_time
async def test_noise_while_nothing_is_under_way_is_nothing() -> None:
    line, sender, _, _ = await under_way("M1")
    line.answers("M1")
    line.murmurs(b"\0\0\0")
    await asyncio.sleep(5.0)
    assert line.phase is Phase.OPEN
    sender.push("M2")
    await asyncio.sleep(5.0)
    line.answers("M2")
    await all_is_done()
    assert sender.code("M2") == "AA"


@pytest.mark.parametrize("failure", [None, RESET])
@in_virtual_time
async def test_who_complains_in_another_protocol_and_hangs_up_is_told_as_unframed(failure: Failure | None) -> None:
    line, sender, _, _ = await under_way("M1")
    line.murmurs(b"HTTP/1.1 400 Bad")
    line.hangs_up(failure)
    await all_is_done()
    assert sender.unanswered("M1").kind is Kind.UNFRAMED
    assert "HTTP" in sender.unanswered("M1").text


@in_virtual_time
async def test_a_committed_message_is_not_told_as_unframed_for_a_stray_byte() -> None:
    line, sender, _, _ = await under_way("M1", ack_timeout_s=0.5)
    line.answers("M1", "CA")
    line.murmurs(b"\0")
    await asyncio.sleep(0.6)
    assert sender.unanswered("M1", committed=True).kind is Kind.SILENT


@in_virtual_time
async def test_silence_after_noise_is_told_as_unframed() -> None:
    line, sender, _, _ = await under_way("M1", ack_timeout_s=0.5)
    line.murmurs(b"MSH|^~\\&|")
    await asyncio.sleep(0.6)
    assert sender.unanswered("M1").kind is Kind.UNFRAMED


# ---- owners that fail


@in_virtual_time
async def test_an_owner_that_raises_is_heard_by_the_loop_and_holds_up_nobody() -> None:
    remote = Remote(answers_at_once=True)
    pool, sender = pool_for(remote)

    def then(control_id: str) -> None:
        if control_id == "M2":
            raise RuntimeError("the owner of M2 is unwell")

    sender.then = then
    sender.push("M1", "M2", "M3", "M4")
    await all_is_done()
    assert sender.order == ["M1", "M2", "M3", "M4"]
    assert len(remote.lines) == 1
    assert pool.metrics.acknowledged == 4
    failures = asyncio.get_running_loop().failures  # type: ignore[attr-defined]
    assert [str(failure) for failure in failures] == ["the owner of M2 is unwell"]
    failures.clear()


@in_virtual_time
async def test_an_owner_may_push_again_as_soon_as_it_hears() -> None:
    remote = Remote(answers_at_once=True)
    _, sender = pool_for(remote)

    def then(control_id: str) -> None:
        if len(sender.order) < 5:
            sender.push(f"{control_id}+")

    sender.then = then
    sender.push("M")
    await all_is_done()
    assert sender.order == ["M", "M+", "M++", "M+++", "M++++"]


@in_virtual_time
async def test_an_owner_that_pushes_again_at_once_and_is_refused_at_once_leaves_time_for_others() -> None:
    # given a queue that takes nothing, and an owner that cannot take no for an answer
    _, sender = pool_for(Remote(), waiting_limit=0)
    sender.then = lambda control_id: sender.push(control_id)
    sender.push("M")
    # then others come to their turn all the same
    for _ in range(10):
        await asyncio.sleep(0)
    assert 5 <= sender.told["M"] <= 10
    sender.then = lambda control_id: None
    await all_is_done()
