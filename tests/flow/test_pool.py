"""Which message goes to the remote when, and on which connection."""

from __future__ import annotations

import asyncio

import pytest
from pool_far_ends import REFUSED, RESET, Phase, Remote, all_is_done, hold_up, in_virtual_time, pool_for

from agent.failures import Kind
from agent.flow.exchange import IDLE_S
from agent.spec import ReturnAck


@in_virtual_time
async def test_a_message_goes_out_on_a_new_connection_and_its_owner_hears_the_acknowledgement() -> None:
    remote = Remote()
    pool, sender = pool_for(remote)
    # given a push
    sender.push("M1")
    assert (pool.busy, pool.idle, pool.metrics.waiting) == (True, False, 1)
    await all_is_done()
    assert remote.got == ["M1"]
    assert (pool.metrics.waiting, pool.metrics.pending, pool.metrics.connections) == (0, 1, 1)
    # when the remote answers two seconds later
    await asyncio.sleep(2.0)
    remote.lines[0].answers("M1")
    await all_is_done()
    # then the owner has the acknowledgement as it came, and the round trip is known
    assert sender.code("M1") == "AA"
    assert not pool.busy
    assert not pool.idle, "the connection is still there"
    assert pool.metrics.rtt.max == pytest.approx(2_000, abs=1)
    assert (pool.metrics.pushed, pool.metrics.acknowledged, pool.metrics.pending) == (1, 1, 0)


@in_virtual_time
async def test_messages_go_one_after_the_other_in_the_order_of_the_pushes() -> None:
    remote = Remote()
    _, sender = pool_for(remote)
    sender.push("M1", "M2", "M3")
    await all_is_done()
    assert remote.got == ["M1"]
    remote.lines[0].answers("M1")
    assert remote.got == ["M1", "M2"], "the next one is written in the turn in which its way became free"
    remote.lines[0].answers("M2", "AE")
    remote.lines[0].answers("M3")
    await all_is_done()
    assert sender.order == remote.got == ["M1", "M2", "M3"]
    assert len(remote.lines) == 1


@in_virtual_time
async def test_fifty_messages_at_once_never_make_more_connections_than_the_remote_may_have() -> None:
    remote = Remote(answers_at_once=True)
    pool, sender = pool_for(remote, max_clients=3)
    ids = [f"M{number}" for number in range(50)]
    sender.push(*ids)
    assert len(remote.lines) == 3, "connections that are being made count"
    await all_is_done()
    assert sorted(sender.outcomes) == sorted(ids)
    assert remote.got == ids
    assert len(remote.lines) == 3
    assert (pool.metrics.connections, pool.metrics.connections_total) == (3, 3)


@in_virtual_time
async def test_no_more_connections_are_made_than_messages_wait() -> None:
    remote = Remote()
    _, sender = pool_for(remote, max_clients=5)
    sender.push("M1", "M2", "M3")
    await all_is_done()
    assert [line.sent for line in remote.lines] == [["M1"], ["M2"], ["M3"]]


@in_virtual_time
async def test_a_single_message_makes_a_single_connection() -> None:
    remote = Remote()
    _, sender = pool_for(remote, max_clients=5)
    sender.push("M1")
    await all_is_done()
    remote.lines[0].answers("M1")
    sender.push("M2")
    await all_is_done()
    assert len(remote.lines) == 1


@in_virtual_time
async def test_the_connection_used_last_is_used_next_so_that_the_others_may_go() -> None:
    # given two open connections, of which the first was used last
    remote = Remote()
    _, sender = pool_for(remote, max_clients=2)
    sender.push("M1", "M2")
    await all_is_done()
    first, second = remote.lines
    second.answers("M2")
    await asyncio.sleep(1.0)
    first.answers("M1")
    # when messages come one at a time
    for control_id in ("M3", "M4", "M5"):
        await asyncio.sleep(IDLE_S / 4)
        sender.push(control_id)
        first.answers(control_id)
    await asyncio.sleep(IDLE_S / 2)
    # then they all went there, and the other one was closed
    assert first.sent == ["M1", "M3", "M4", "M5"]
    assert (first.phase, second.phase) == (Phase.OPEN, Phase.GONE)


@in_virtual_time
async def test_a_remote_that_takes_more_gets_more_on_one_connection() -> None:
    remote = Remote()
    pool, sender = pool_for(remote, in_flight=3)
    sender.push("M1", "M2", "M3", "M4")
    await all_is_done()
    assert remote.got == ["M1", "M2", "M3"]
    # when it answers in an order of its own
    remote.lines[0].answers("M2", "AE")
    assert remote.got == ["M1", "M2", "M3", "M4"]
    for control_id in ("M4", "M1", "M3"):
        remote.lines[0].answers(control_id)
    await all_is_done()
    # then each owner has heard the answer to its own message
    assert {control_id: sender.code(control_id) for control_id in sender.outcomes} == {
        "M1": "AA", "M2": "AE", "M3": "AA", "M4": "AA",
    }  # fmt: skip
    assert (pool.metrics.acknowledged, pool.metrics.refused) == (3, 1)


@in_virtual_time
async def test_two_messages_of_one_control_id_are_never_under_way_on_one_connection() -> None:
    remote = Remote()
    pool, sender = pool_for(remote, in_flight=5)
    sender.push("M1", "M1", "M2")
    await all_is_done()
    assert remote.got == ["M1"], "the second waits, and who is behind it, too"
    remote.lines[0].answers("M1")
    assert remote.got == ["M1", "M1", "M2"]
    assert pool.metrics.pending == 2


@in_virtual_time
async def test_serialize_sends_one_at_a_time_whatever_else_is_allowed() -> None:
    remote = Remote()
    _, sender = pool_for(remote, serialize=True, max_clients=5, in_flight=5)
    sender.push("M1", "M2", "M3")
    await all_is_done()
    assert remote.got == ["M1"]
    # when the connection breaks under the first
    remote.lines[0].hangs_up(RESET)
    await all_is_done()
    # then the second goes on a new one, alone
    assert remote.got == ["M1", "M2"]
    remote.lines[1].answers("M2")
    assert remote.got == ["M1", "M2", "M3"]
    assert len(remote.lines) == 2


# ---- connections that are not needed


@in_virtual_time
async def test_a_connection_that_nobody_needs_is_closed_ten_seconds_after_its_last_answer() -> None:
    remote = Remote()
    pool, sender = pool_for(remote)
    for control_id in ("M1", "M2"):
        sender.push(control_id)
        await all_is_done()
        await asyncio.sleep(7.0)
        remote.lines[0].answers(control_id)
    await asyncio.sleep(IDLE_S - 0.1)
    assert remote.lines[0].phase is Phase.OPEN
    await asyncio.sleep(0.2)
    assert (remote.lines[0].phase, remote.lines[0].aborted) == (Phase.GONE, False)
    assert pool.idle
    assert pool.metrics.connections == 0


@in_virtual_time
async def test_a_connection_that_was_made_for_nothing_is_closed_as_well() -> None:
    # given two connections on their way for two messages, of which the first to open takes both in turn
    remote = Remote(opens_at_once=False)
    pool, sender = pool_for(remote, max_clients=2)
    sender.push("M1", "M2")
    remote.lines[0].opens()
    remote.lines[0].answers("M1")
    remote.lines[0].answers("M2")
    remote.lines[1].opens()
    await asyncio.sleep(IDLE_S + 0.1)
    assert pool.idle
    assert pool.metrics.connections_total == 2


@in_virtual_time
async def test_a_connection_with_keep_alive_stays() -> None:
    remote = Remote()
    _, sender = pool_for(remote, keep_alive=True)
    sender.push("M1")
    await all_is_done()
    remote.lines[0].answers("M1")
    await asyncio.sleep(3_600.0)
    sender.push("M2")
    await all_is_done()
    assert remote.lines[0].sent == ["M1", "M2"]


@in_virtual_time
async def test_a_slow_answer_is_not_idleness() -> None:
    remote = Remote()
    _, sender = pool_for(remote)
    sender.push("M1")
    await all_is_done()
    await asyncio.sleep(IDLE_S * 2)
    remote.lines[0].answers("M1")
    await all_is_done()
    assert sender.code("M1") == "AA"


@in_virtual_time
async def test_a_connection_that_the_remote_closes_between_messages_is_forgotten() -> None:
    remote = Remote()
    pool, sender = pool_for(remote)
    sender.push("M1")
    await all_is_done()
    remote.lines[0].answers("M1")
    await all_is_done()
    remote.lines[0].hangs_up()
    assert pool.idle
    sender.push("M2")
    await all_is_done()
    assert remote.lines[1].sent == ["M2"]
    assert (pool.metrics.reconnects, pool.metrics.failed) == (1, {})


@in_virtual_time
async def test_a_connection_counts_until_it_is_gone() -> None:
    remote = Remote()
    remote.closes_when_told = False
    pool, sender = pool_for(remote)
    sender.push("M1")
    await all_is_done()
    remote.lines[0].answers("M1")
    await asyncio.sleep(IDLE_S + 1.0)
    assert remote.lines[0].phase is Phase.LEAVING
    # when a message comes while the remote has not let go of the old one
    sender.push("M2")
    await asyncio.sleep(2.0)
    assert len(remote.lines) == 1
    remote.lines[0].goes()
    await all_is_done()
    assert remote.lines[1].sent == ["M2"]
    assert pool.metrics.reconnects == 0, "to close it was our own wish"


# ---- remotes that are away


@in_virtual_time
async def test_a_thousand_messages_for_a_remote_that_is_away_cost_one_round_of_connects() -> None:
    remote = Remote()
    remote.refuses = REFUSED
    pool, sender = pool_for(remote, max_clients=5)
    ids = [f"M{number}" for number in range(1_000)]
    sender.push(*ids)
    await all_is_done()
    # then all have heard the reason at once, those included that would have waited for ever
    assert {sender.not_sent(control_id) for control_id in ids} == {REFUSED}
    assert len(remote.lines) == 5
    assert pool.metrics.failed == {"refused": 1_000}
    assert pool.metrics.last_error == REFUSED.text
    assert pool.idle
    # and nothing is tried before the next push
    await asyncio.sleep(600.0)
    assert len(remote.lines) == 5
    remote.refuses = None
    sender.push("M1000")
    await all_is_done()
    assert remote.got == ["M1000"]
    assert pool.metrics.reconnects == 0, "none was ever lost"


@in_virtual_time
async def test_who_keeps_pushing_to_a_remote_that_is_away_does_not_keep_the_others_waiting() -> None:
    # given two connects on their way
    remote = Remote(opens_at_once=False)
    _, sender = pool_for(remote, max_clients=2)
    sender.push("M1", "M2")
    # when the first fails, and further messages come
    remote.lines[0].fails()
    sender.push("M3", "M4")
    assert len(remote.lines) == 2, "the one that is on its way will tell"
    remote.lines[1].fails()
    await all_is_done()
    # then it tells for all
    assert {sender.not_sent(control_id) for control_id in ("M1", "M2", "M3", "M4")} == {REFUSED}


@in_virtual_time
async def test_one_connection_that_fails_is_nothing_while_another_opens() -> None:
    remote = Remote(opens_at_once=False)
    pool, sender = pool_for(remote, max_clients=2)
    sender.push("M1", "M2")
    remote.lines[0].fails()
    remote.lines[1].opens()
    remote.lines[1].answers("M1")
    remote.lines[1].answers("M2")
    await all_is_done()
    assert (sender.code("M1"), sender.code("M2")) == ("AA", "AA")
    assert pool.metrics.failed == {}


@in_virtual_time
async def test_a_remote_that_takes_one_connection_only_is_not_asked_for_more_with_each_answer() -> None:
    # given a remote that takes one connection and refuses the others
    remote = Remote(opens_at_once=False)
    _, sender = pool_for(remote, max_clients=5)
    sender.push(*(f"M{number}" for number in range(10)))
    remote.lines[0].opens()
    for line in remote.lines[1:]:
        line.fails()
    # when it answers, and closes, and is connected to again
    remote.lines[0].answers("M0")
    remote.lines[0].hangs_up()
    await all_is_done()
    assert len(remote.lines) == 6, "one in its place, and no round of them"
    remote.lines[5].opens()
    for number in range(2, 10):
        remote.lines[5].answers(f"M{number}")
    await all_is_done()
    assert len(remote.lines) == 6
    assert sender.unanswered("M1").kind is Kind.CLOSED


@in_virtual_time
async def test_messages_that_wait_get_a_new_connection_for_a_lost_one() -> None:
    remote = Remote()
    pool, sender = pool_for(remote)
    sender.push("M1", "M2", "M3")
    await all_is_done()
    remote.lines[0].hangs_up(RESET)
    await all_is_done()
    assert sender.unanswered("M1") == RESET
    assert remote.lines[1].sent == ["M2"]
    assert (pool.metrics.reconnects, pool.metrics.connections, pool.metrics.connections_total) == (1, 1, 2)


@in_virtual_time
async def test_reconnects_count_what_was_lost_and_made_again() -> None:
    # given two connections that are lost
    remote = Remote()
    pool, sender = pool_for(remote, max_clients=2)
    sender.push("M1", "M2")
    await all_is_done()
    for line in remote.lines:
        line.hangs_up(RESET)
    # when one of them is made again, and closed when nobody needs it
    sender.push("M3")
    await all_is_done()
    assert pool.metrics.reconnects == 1
    remote.lines[2].answers("M3")
    await asyncio.sleep(IDLE_S + 0.1)
    assert pool.idle
    # then what is made later is a new beginning
    sender.push("M4", "M5")
    await all_is_done()
    assert (pool.metrics.reconnects, pool.metrics.connections_total) == (1, 5)


@in_virtual_time
async def test_one_lost_connection_is_one_reconnect() -> None:
    remote = Remote()
    pool, sender = pool_for(remote, max_clients=3)
    sender.push("M1")
    await all_is_done()
    remote.lines[0].hangs_up(RESET)
    sender.push("M2", "M3", "M4")
    await all_is_done()
    assert pool.metrics.reconnects == 1


# ---- messages that wait


@in_virtual_time
async def test_a_message_beyond_the_limit_hears_so_in_the_next_turn() -> None:
    remote = Remote()
    pool, sender = pool_for(remote, waiting_limit=2)
    sender.push("M1")
    await all_is_done()
    # given one under way and two that wait, when a fourth comes
    sender.push("M2", "M3", "M4")
    assert "M4" not in sender.outcomes
    await all_is_done()
    # then it alone is refused
    failure = sender.not_sent("M4")
    assert failure.kind is Kind.QUEUE_FULL
    assert "2 messages already wait for lab.example:2575" in str(failure)
    assert (pool.metrics.pushed, pool.metrics.failed) == (3, {"queue-full": 1})
    for control_id in ("M1", "M2", "M3"):
        remote.lines[0].answers(control_id)
    await all_is_done()
    assert sorted(sender.outcomes) == ["M1", "M2", "M3", "M4"]


@in_virtual_time
async def test_a_limit_of_nothing_refuses_what_would_have_to_wait_for_its_connection() -> None:
    _, sender = pool_for(Remote(), waiting_limit=0)
    sender.push("M1")
    await all_is_done()
    assert sender.not_sent("M1").kind is Kind.QUEUE_FULL


@in_virtual_time
async def test_a_message_that_waited_too_long_is_told_how_long_and_behind_how_many() -> None:
    remote = Remote()
    pool, sender = pool_for(remote, ack_timeout_s=0)
    sender.push("M1")
    await all_is_done()
    # given one that is never answered, one that waits for ever, and one that has 12 s
    sender.push("M2")
    sender.push("M3", within_s=12.0)
    sender.push("M4", within_s=5.0)
    await asyncio.sleep(4.9)
    assert sender.outcomes == {}
    await asyncio.sleep(0.2)
    assert sorted(sender.outcomes) == ["M4"]
    await asyncio.sleep(7.0)
    # then the ones with a limit have heard, in the order of their limits
    assert sender.order == ["M4", "M3"]
    failure = sender.not_sent("M3")
    assert failure.kind is Kind.WAITED
    assert failure.text == (
        "the message waited 12 s for a free connection to lab.example:2575: 1 message stood before it when it came, "
        "and 1 answer had not come"
    )
    assert "maxClients" in failure.remedy
    # and the others go on
    remote.lines[0].answers("M1")
    assert remote.got == ["M1", "M2"]
    assert pool.metrics.waiting == 0


@in_virtual_time
async def test_a_message_whose_time_is_over_is_never_begun() -> None:
    remote = Remote()
    pool, sender = pool_for(remote)
    sender.push("M1", within_s=-1.0)
    await all_is_done()
    assert sender.not_sent("M1").kind is Kind.WAITED
    assert remote.lines == []
    assert pool.idle


@in_virtual_time
async def test_a_message_whose_time_ran_out_while_the_agent_was_held_up_is_not_begun() -> None:
    remote = Remote()
    _, sender = pool_for(remote)
    sender.push("M1")
    await all_is_done()
    sender.push("M2", within_s=5.0)
    sender.push("M3")
    # when nothing runs for six seconds, and then the answer to the first is read before any clock is looked at
    hold_up(6.0)
    remote.lines[0].answers("M1")
    await all_is_done()
    assert remote.got == ["M1", "M3"]
    assert sender.not_sent("M2").kind is Kind.WAITED


@in_virtual_time
async def test_who_waited_in_vain_for_a_remote_that_is_away_hears_that_it_is_away() -> None:
    # given two connects that take long, the first of which fails
    remote = Remote(opens_at_once=False)
    _, sender = pool_for(remote, max_clients=2)
    sender.push("M1", within_s=10.0)
    await asyncio.sleep(4.0)
    sender.push("M2", within_s=10.0)
    await asyncio.sleep(4.0)
    remote.lines[0].fails()
    # when the time of the first message is over before the second connect fails
    await asyncio.sleep(2.1)
    assert sender.not_sent("M1") == REFUSED
    assert "M2" not in sender.outcomes
    remote.lines[1].opens()
    remote.lines[1].answers("M2")
    await all_is_done()
    assert sender.code("M2") == "AA"


@in_virtual_time
async def test_who_stood_behind_a_message_that_gave_up_goes_at_once_if_it_can() -> None:
    # given a message that waits for its namesake, and one behind it that has no such need
    remote = Remote()
    _, sender = pool_for(remote, in_flight=2)
    sender.push("M1")
    sender.push("M1", within_s=5.0)
    sender.push("M2")
    await asyncio.sleep(4.9)
    assert remote.got == ["M1"]
    await asyncio.sleep(0.2)
    assert remote.got == ["M1", "M2"]


@in_virtual_time
async def test_who_waited_in_vain_for_a_remote_that_is_busy_hears_that_it_is_busy() -> None:
    # given a remote that takes one connection and refuses the second
    remote = Remote(opens_at_once=False)
    _, sender = pool_for(remote, max_clients=2)
    sender.push("M1", "M2", within_s=10.0)
    remote.lines[0].opens()
    remote.lines[1].fails()
    await asyncio.sleep(10.1)
    assert sender.not_sent("M2").kind is Kind.WAITED


@in_virtual_time
async def test_the_last_moment_is_early_enough() -> None:
    remote = Remote()
    _, sender = pool_for(remote)
    sender.push("M1")
    await all_is_done()
    sender.push("M2", within_s=5.0)
    await asyncio.sleep(4.999)
    remote.lines[0].answers("M1")
    remote.lines[0].answers("M2")
    await asyncio.sleep(60.0)
    assert sender.code("M2") == "AA"
    assert sender.told == {"M1": 1, "M2": 1}


@in_virtual_time
async def test_a_push_may_ask_for_another_acknowledgement_than_the_remote_is_set_to() -> None:
    remote = Remote()
    _, sender = pool_for(remote, max_clients=2)
    sender.push("M1", return_ack=ReturnAck.FIRST)
    sender.push("M2")
    await all_is_done()
    for line in remote.lines:
        line.answers(line.sent[0], "CA")
    await all_is_done()
    assert sender.code("M1") == "CA"
    assert "M2" not in sender.outcomes
