"""What a reload and a stop do to messages that wait, to messages under way, and to connections."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import pytest
from pool_far_ends import REFUSED, FarLine, Phase, Remote, Sender, all_is_done, in_virtual_time, pool_for, timers

from agent.failures import Kind
from agent.flow.exchange import IDLE_S
from agent.flow.pool import Pool
from agent.spec import ReturnAck, TlsSpec


def change(pool: Pool, **changes: object) -> None:
    pool.respec(dataclasses.replace(pool.spec, **changes))  # type: ignore[arg-type]


async def busy_and_idle(**changes: object) -> tuple[Pool, Sender, Remote, FarLine, FarLine]:
    """Two connections: on the first M1 is under way, the second has answered M2."""
    remote = Remote()
    pool, sender = pool_for(remote, **{"max_clients": 2, **changes})
    sender.push("M1", "M2")
    await all_is_done()
    busy, idle = remote.lines
    idle.answers("M2")
    await all_is_done()
    return pool, sender, remote, busy, idle


# ---- reload


@in_virtual_time
async def test_equal_settings_change_nothing() -> None:
    pool, _, remote, _, _ = await busy_and_idle()
    pool.respec(dataclasses.replace(pool.spec))
    await all_is_done()
    assert [line.phase for line in remote.lines] == [Phase.OPEN, Phase.OPEN]


@pytest.mark.parametrize(
    "changes",
    [
        {"host": "lab2.example"},
        {"port": 2576},
        {"secure": True},
        {"tls": TlsSpec("lab", Path("lab.pem"))},
        {"encoding": "iso-8859-1"},
    ],
)
@in_virtual_time
async def test_a_remote_that_moves_gets_new_connections_and_the_old_ones_finish(changes: dict[str, object]) -> None:
    pool, sender, remote, busy, idle = await busy_and_idle()
    # when the settings change while one message is under way
    change(pool, **changes)
    sender.push("M3")
    await all_is_done()
    # then the idle connection is closed at once, and the next message goes by the new settings
    assert (busy.phase, idle.phase) == (Phase.OPEN, Phase.GONE)
    assert remote.lines[2].spec == pool.spec
    assert remote.lines[2].sent == ["M3"]
    # and the message under way is answered where it was sent
    busy.answers("M1")
    await all_is_done()
    assert sender.code("M1") == "AA"
    assert busy.phase is Phase.GONE
    assert pool.metrics.reconnects == 0


@in_virtual_time
async def test_a_remote_that_moves_and_comes_back_still_has_its_old_connections() -> None:
    remote = Remote()
    pool, sender = pool_for(remote)
    sender.push("M1")
    await all_is_done()
    home = pool.spec
    change(pool, host="lab2.example")
    pool.respec(home)
    sender.push("M2")
    await all_is_done()
    assert len(remote.lines) == 1
    remote.lines[0].answers("M1")
    await all_is_done()
    assert remote.lines[1].sent == ["M2"]


@in_virtual_time
async def test_a_message_that_waits_goes_where_the_remote_is_now_though_the_old_place_is_silent() -> None:
    remote = Remote()
    pool, sender = pool_for(remote)
    sender.push("M1", "M2")
    await all_is_done()
    change(pool, host="lab2.example")
    await all_is_done()
    assert remote.lines[1].sent == ["M2"]


@in_virtual_time
async def test_a_place_that_stays_the_same_never_sees_more_connections_than_it_may() -> None:
    remote = Remote()
    pool, sender = pool_for(remote)
    sender.push("M1", "M2")
    await all_is_done()
    change(pool, secure=True)
    await all_is_done()
    assert len(remote.lines) == 1
    remote.lines[0].answers("M1")
    await all_is_done()
    assert remote.lines[1].sent == ["M2"]


@pytest.mark.parametrize("closes", [False, True])
@pytest.mark.parametrize("changes", [{"host": "lab2.example"}, {"secure": True}])
@in_virtual_time
async def test_a_connection_that_is_being_made_the_old_way_is_given_up(
    closes: bool, changes: dict[str, object]
) -> None:
    remote = Remote(opens_at_once=False)
    remote.closes_what_never_opened = closes
    pool, sender = pool_for(remote)
    sender.push("M1")
    change(pool, **changes)
    assert (remote.lines[0].phase, remote.lines[0].aborted) == (Phase.LEAVING, True)
    await all_is_done()
    remote.lines[1].opens()
    await all_is_done()
    assert remote.lines[1].sent == ["M1"]
    assert sender.outcomes == {}
    assert (pool.metrics.connections, pool.metrics.reconnects) == (1, 0)


@pytest.mark.parametrize("changes", [{"host": "lab2.example"}, {"secure": True}])
@in_virtual_time
async def test_a_connection_that_takes_no_more_is_no_hope_for_those_who_wait(changes: dict[str, object]) -> None:
    # given a message under way to where the remote was
    remote = Remote()
    pool, sender = pool_for(remote, max_clients=2)
    sender.push("M1")
    await all_is_done()
    # when the remote cannot be reached where it is now
    remote.refuses = REFUSED
    change(pool, **changes)
    sender.push("M2")
    await all_is_done()
    # then the next message hears so at once, and the first is not disturbed
    assert sender.not_sent("M2") == REFUSED
    remote.lines[0].answers("M1")
    await all_is_done()
    assert sender.code("M1") == "AA"


@in_virtual_time
async def test_fewer_connections_close_the_idle_ones_now_and_the_busy_ones_when_they_are_done() -> None:
    # given three connections, two of them busy
    remote = Remote()
    pool, sender = pool_for(remote, max_clients=3)
    sender.push("M1", "M2", "M3")
    await all_is_done()
    first, second, third = remote.lines
    third.answers("M3")
    # when only one is allowed
    change(pool, max_clients=1)
    await all_is_done()
    assert [line.phase for line in remote.lines] == [Phase.OPEN, Phase.OPEN, Phase.GONE]
    sender.push("M4", "M5")
    first.answers("M1")
    second.answers("M2")
    await all_is_done()
    # then one of them is left and carries what comes
    assert [line.phase for line in (first, second)].count(Phase.GONE) == 1
    (left,) = remote.open_lines
    left.answers("M4")
    assert left.sent[1:] == ["M4", "M5"]
    assert len(remote.lines) == 3


@in_virtual_time
async def test_fewer_connections_give_up_one_that_is_being_made_before_one_that_works() -> None:
    remote = Remote(opens_at_once=False)
    pool, sender = pool_for(remote, max_clients=2)
    sender.push("M1", "M2")
    remote.lines[1].opens()
    change(pool, max_clients=1)
    await all_is_done()
    assert [line.phase for line in remote.lines] == [Phase.GONE, Phase.OPEN]
    remote.lines[1].answers("M1")
    assert remote.lines[1].sent == ["M1", "M2"]


@in_virtual_time
async def test_more_connections_are_made_at_once_for_those_who_wait() -> None:
    remote = Remote()
    pool, sender = pool_for(remote)
    sender.push("M1", "M2", "M3", "M4")
    await all_is_done()
    change(pool, max_clients=3)
    await all_is_done()
    assert remote.got == ["M1", "M2", "M3"]


@in_virtual_time
async def test_more_messages_on_a_connection_are_sent_at_once() -> None:
    remote = Remote()
    pool, sender = pool_for(remote)
    sender.push("M1", "M2", "M3")
    await all_is_done()
    change(pool, in_flight=2)
    assert remote.got == ["M1", "M2"]


@in_virtual_time
async def test_serialize_waits_for_everything_that_is_under_way() -> None:
    pool, sender, remote, busy, idle = await busy_and_idle()
    sender.push("M3", "M4", "M5")
    change(pool, serialize=True)
    await all_is_done()
    assert remote.got == ["M1", "M2", "M3"]
    busy.answers("M1")
    await all_is_done()
    assert remote.got == ["M1", "M2", "M3"], "M3 is still under way"
    idle.answers("M3")
    await all_is_done()
    assert remote.got == ["M1", "M2", "M3", "M4"]
    assert len(remote.open_lines) == 1


@in_virtual_time
async def test_connections_that_are_no_longer_kept_alive_begin_to_be_idle() -> None:
    pool, _, _, busy, idle = await busy_and_idle(keep_alive=True)
    await asyncio.sleep(25.0)
    change(pool, keep_alive=False)
    await asyncio.sleep(IDLE_S - 0.1)
    assert idle.phase is Phase.OPEN
    await asyncio.sleep(0.2)
    assert (busy.phase, idle.phase) == (Phase.GONE, Phase.GONE), "one timed out, one was idle"


@in_virtual_time
async def test_connections_that_are_kept_alive_from_now_on_are_not_closed() -> None:
    pool, _, _, _, idle = await busy_and_idle()
    change(pool, keep_alive=True)
    await asyncio.sleep(IDLE_S * 2)
    assert idle.phase is Phase.OPEN
    change(pool, keep_alive=False)
    await asyncio.sleep(IDLE_S + 0.1)
    assert idle.phase is Phase.GONE


@in_virtual_time
async def test_another_deadline_and_another_kind_of_answer_hold_for_what_is_written_from_now_on() -> None:
    pool, sender, _, busy, idle = await busy_and_idle()
    change(pool, ack_timeout_s=5.0, return_ack=ReturnAck.FIRST)
    sender.push("M3")
    busy.answers("M1", "CA")
    await asyncio.sleep(4.9)
    assert list(sender.outcomes) == ["M2"]
    await asyncio.sleep(0.2)
    assert "within 5 s" in sender.unanswered("M3").text
    assert idle.aborted
    await asyncio.sleep(25.0)
    assert "within 30 s" in sender.unanswered("M1", committed=True).text


@in_virtual_time
async def test_a_shorter_deadline_holds_on_a_connection_that_has_a_longer_one_under_way() -> None:
    remote = Remote()
    pool, sender = pool_for(remote, in_flight=2)
    sender.push("M1")
    await all_is_done()
    change(pool, ack_timeout_s=5.0)
    sender.push("M2")
    await asyncio.sleep(5.1)
    assert list(sender.outcomes) == ["M2"]


@in_virtual_time
async def test_a_reload_tries_a_remote_again_that_was_away() -> None:
    # given one connection that works and one that could not be made
    remote = Remote(opens_at_once=False)
    pool, sender = pool_for(remote, max_clients=2)
    sender.push("M1", "M2")
    remote.lines[0].opens()
    remote.lines[1].fails()
    assert len(remote.lines) == 2
    change(pool, ack_timeout_s=20.0)
    assert len(remote.lines) == 3


# ---- stop


@in_virtual_time
async def test_a_stop_lets_what_is_written_be_answered_and_begins_nothing_more() -> None:
    pool, sender, remote, busy, idle = await busy_and_idle()
    sender.push("M3", "M4", "M5")
    pool.stop()
    sender.push("M6")
    await all_is_done()
    # then what waited was certainly not sent
    for control_id in ("M4", "M5", "M6"):
        assert sender.not_sent(control_id).kind is Kind.STOPPING
    assert pool.busy
    # and what was written is answered
    busy.answers("M1")
    await all_is_done()
    assert (busy.phase, idle.phase) == (Phase.GONE, Phase.OPEN)
    idle.answers("M3")
    await all_is_done()
    assert (sender.code("M1"), sender.code("M3")) == ("AA", "AA")
    assert pool.idle
    assert len(remote.lines) == 2
    assert (pool.metrics.waiting, pool.metrics.pending, pool.metrics.connections) == (0, 0, 0)


@in_virtual_time
async def test_a_stop_gives_up_connections_that_are_being_made() -> None:
    remote = Remote(opens_at_once=False)
    pool, sender = pool_for(remote)
    sender.push("M1")
    pool.stop()
    await all_is_done()
    assert sender.not_sent("M1").kind is Kind.STOPPING
    assert pool.idle


@in_virtual_time
async def test_a_stop_leaves_no_timer_behind() -> None:
    remote = Remote()
    pool, sender = pool_for(remote)
    sender.push("M1", "M2", within_s=3_600.0)
    await all_is_done()
    assert timers() == 2, "one for the answer, one for who waits"
    pool.stop()
    remote.lines[0].answers("M1")
    await all_is_done()
    assert (timers(), pool.idle) == (0, True)


@in_virtual_time
async def test_a_connection_that_opens_in_the_moment_of_the_stop_is_not_used() -> None:
    remote = Remote()
    pool, sender = pool_for(remote)
    sender.push("M1")
    pool.stop()
    await all_is_done()
    assert remote.got == []
    assert pool.metrics.connections_total == 0
    assert pool.idle


@in_virtual_time
async def test_a_reload_after_a_stop_begins_nothing() -> None:
    remote = Remote()
    pool, sender = pool_for(remote)
    pool.stop()
    change(pool, max_clients=5)
    sender.push("M1")
    await all_is_done()
    assert remote.lines == []


@in_virtual_time
async def test_an_abort_ends_everything_before_it_returns() -> None:
    pool, sender, remote, busy, _ = await busy_and_idle()
    sender.push("M3", "M4")
    pool.abort()
    for control_id in ("M1", "M3"):
        failure = sender.unanswered(control_id)
        assert failure.kind is Kind.STOPPING
        assert "stopped before lab.example:2575 had answered" in failure.text
    assert sender.not_sent("M4").kind is Kind.STOPPING
    assert not pool.busy
    assert busy.aborted
    await all_is_done()
    assert pool.idle
    assert remote.lines_that_are(Phase.GONE) == remote.lines
    assert set(sender.told.values()) == {1}


@in_virtual_time
async def test_an_abort_ends_what_is_under_way_to_where_the_remote_was() -> None:
    pool, sender, _, busy, _ = await busy_and_idle()
    change(pool, host="lab2.example")
    pool.abort()
    assert sender.unanswered("M1").kind is Kind.STOPPING
    assert busy.aborted
    await all_is_done()
    assert pool.idle


@in_virtual_time
async def test_an_abort_behind_a_stop_ends_what_the_stop_waits_for() -> None:
    pool, sender, _, _, _ = await busy_and_idle()
    pool.stop()
    await asyncio.sleep(5.0)
    pool.abort()
    assert sender.unanswered("M1").kind is Kind.STOPPING
    await all_is_done()
    assert pool.idle


@in_virtual_time
async def test_an_abort_tells_all_though_one_owner_raises() -> None:
    remote = Remote()
    pool, sender = pool_for(remote)

    def then(control_id: str) -> None:
        if control_id == "M1":
            raise RuntimeError("the owner of M1 is unwell")

    sender.then = then
    sender.push("M1", "M2", "M3")
    with pytest.raises(RuntimeError, match="M1 is unwell"):
        pool.abort()
    await all_is_done()
    assert sender.told == {"M1": 1, "M2": 1, "M3": 1}
    assert pool.idle


@in_virtual_time
async def test_nothing_is_left_behind_by_a_remote_that_was_away() -> None:
    remote = Remote()
    remote.refuses = REFUSED
    pool, sender = pool_for(remote, max_clients=3)
    sender.push("M1", "M2")
    await all_is_done()
    assert pool.idle
    pool.stop()
    assert pool.idle
