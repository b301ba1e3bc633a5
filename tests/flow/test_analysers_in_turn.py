"""One session after the other: which connection carries it, what its end means, and what is never told twice."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections import Counter

import pytest
from analyser_far_ends import BROKEN_OFF, BUSY, BY_CHANNEL, CALLED, REFUSED, Analyser, Phase, pool_for
from pool_far_ends import all_is_done, in_virtual_time, timers

from agent.failures import Failure, Kind
from agent.flow.analysers import RANG_S, AnalyserPool
from agent.flow.exchange import IDLE_S
from agent.flow.letters import TAKEN, Answered, Letter, NotSent, Outcome, Unanswered
from agent.spec import Astm, RemoteSpec

TAKEN_WHOLE = Answered(b"", TAKEN)


class Owner:
    """Pushes letters and keeps what becomes of each, by its name."""

    def __init__(self, pool: AnalyserPool) -> None:
        self.pool = pool
        self.outcomes: dict[str, Outcome] = {}
        self.told: Counter[str] = Counter()
        self._pushing = False

    def push(self, *names: str, within_s: float = math.inf) -> None:
        begin_by = asyncio.get_running_loop().time() + within_s
        for name in names:

            def done(outcome: Outcome, name: str = name) -> None:
                assert not self._pushing, "the owner heard of its letter from inside push"
                self.told[name] += 1
                self.outcomes[name] = outcome

            self._pushing = True
            self.pool.push(Letter(name.encode(), b"", None, done, begin_by))
            self._pushing = False

    def failure(self, name: str, kind: type[NotSent | Unanswered] = NotSent) -> Failure:
        outcome = self.outcomes[name]
        assert isinstance(outcome, NotSent | Unanswered)
        assert type(outcome) is kind, outcome
        return outcome.failure


def owner_of(analyser: Analyser, spec: RemoteSpec = CALLED, *, waiting_limit: int = 100) -> Owner:
    return Owner(pool_for(analyser, spec, waiting_limit=waiting_limit))


# ---- the analyser is called


@in_virtual_time
async def test_an_analyser_is_called_and_takes_one_session_after_the_other() -> None:
    analyser = Analyser()
    owner = owner_of(analyser)
    owner.push("A", "B", "C")
    await all_is_done()
    (call,) = analyser.calls
    assert (analyser.got, owner.outcomes) == ([b"A"], {})
    call.ends()
    await all_is_done()
    assert (analyser.got, owner.outcomes) == ([b"A", b"B"], {"A": TAKEN_WHOLE})
    call.ends()
    await all_is_done()
    call.ends()
    await all_is_done()
    assert analyser.got == [b"A", b"B", b"C"]
    assert owner.told == Counter("ABC")
    metrics = owner.pool.metrics
    assert (metrics.pushed, metrics.acknowledged, metrics.waiting, metrics.pending) == (3, 3, 0, 0)
    assert (metrics.connections, metrics.connections_total, metrics.rtt.count) == (1, 1, 3)


@in_virtual_time
async def test_a_call_that_nobody_needs_ends_after_a_while_and_the_next_letter_makes_another() -> None:
    analyser = Analyser(takes_at_once=True)
    owner = owner_of(analyser)
    owner.push("A")
    await asyncio.sleep(IDLE_S - 1)
    owner.push("B")
    await asyncio.sleep(IDLE_S - 1)
    assert len(analyser.alive) == 1
    await asyncio.sleep(2)
    assert (analyser.alive, owner.pool.idle, owner.pool.metrics.connections) == ([], True, 0)
    owner.push("C")
    await all_is_done()
    assert owner.outcomes == dict.fromkeys("ABC", TAKEN_WHOLE)
    assert (len(analyser.calls), owner.pool.metrics.reconnects) == (2, 0)


@in_virtual_time
async def test_a_call_is_kept_where_keep_alive_asks_for_it() -> None:
    analyser = Analyser(takes_at_once=True)
    owner = owner_of(analyser, dataclasses.replace(CALLED, keep_alive=True))
    owner.push("A")
    await asyncio.sleep(20 * IDLE_S)
    assert len(analyser.alive) == 1
    # until that changes
    owner.pool.respec(CALLED)
    await asyncio.sleep(IDLE_S + 1)
    assert analyser.alive == []


@in_virtual_time
async def test_a_call_is_kept_from_the_moment_on_when_keep_alive_asks_for_it() -> None:
    analyser = Analyser(takes_at_once=True)
    owner = owner_of(analyser)
    owner.push("A")
    await asyncio.sleep(IDLE_S - 1)
    owner.pool.respec(dataclasses.replace(CALLED, keep_alive=True))
    await asyncio.sleep(20 * IDLE_S)
    assert len(analyser.alive) == 1


@in_virtual_time
async def test_an_analyser_that_hangs_up_between_sessions_is_called_again() -> None:
    analyser = Analyser(takes_at_once=True)
    owner = owner_of(analyser)
    owner.push("A")
    await all_is_done()
    analyser.calls[0].goes()
    owner.push("B")
    await all_is_done()
    assert owner.outcomes == {"A": TAKEN_WHOLE, "B": TAKEN_WHOLE}
    assert (owner.pool.metrics.connections, owner.pool.metrics.reconnects) == (1, 1)


@in_virtual_time
async def test_settings_that_change_while_the_analyser_is_called_cost_no_letter() -> None:
    analyser = Analyser(opens_at_once=False)
    owner = owner_of(analyser)
    owner.push("A")
    await all_is_done()
    owner.pool.respec(dataclasses.replace(CALLED, wire=Astm(frame_bytes=64)))
    await all_is_done()
    (call,) = analyser.alive
    call.opens()
    await all_is_done()
    call.ends()
    await all_is_done()
    assert owner.outcomes == {"A": TAKEN_WHOLE}


@in_virtual_time
async def test_new_settings_of_the_wire_hold_from_the_next_session_on_and_disturb_none() -> None:
    analyser = Analyser()
    owner = owner_of(analyser)
    owner.push("A", "B")
    await all_is_done()
    short = dataclasses.replace(CALLED, wire=Astm(frame_bytes=64))
    owner.pool.respec(short)
    await all_is_done()
    (first,) = analyser.alive
    first.ends()
    await all_is_done()
    (second,) = analyser.alive
    assert (second is not first, second.spec) == (True, short)
    second.ends()
    await all_is_done()
    assert owner.outcomes == {"A": TAKEN_WHOLE, "B": TAKEN_WHOLE}


@in_virtual_time
async def test_an_analyser_that_cannot_be_called_costs_one_try_however_many_wait() -> None:
    analyser = Analyser(opens_at_once=False)
    owner = owner_of(analyser)
    owner.push(*"ABCDE")
    await all_is_done()
    analyser.calls[0].fails(REFUSED)
    await all_is_done()
    assert [owner.failure(name) for name in "ABCDE"] == [REFUSED] * 5
    assert len(analyser.calls) == 1
    assert owner.pool.metrics.failed == {Kind.REFUSED: 5}
    assert owner.pool.idle


@in_virtual_time
async def test_after_a_session_that_failed_the_next_one_has_a_connection_of_its_own() -> None:
    # what still comes on the old one would be taken for the answer to the next session
    analyser = Analyser()
    owner = owner_of(analyser)
    owner.push("A", "B")
    await all_is_done()
    analyser.calls[0].ends(BUSY)
    await all_is_done()
    assert owner.failure("A") is BUSY
    assert (analyser.calls[0].phase, len(analyser.calls)) == (Phase.GONE, 2)
    analyser.calls[1].ends()
    await all_is_done()
    assert owner.outcomes["B"] == TAKEN_WHOLE
    assert owner.pool.metrics.reconnects == 1


@in_virtual_time
async def test_a_connection_that_breaks_leaves_its_letter_in_doubt_and_no_other() -> None:
    analyser = Analyser()
    owner = owner_of(analyser)
    owner.push("A", "B")
    await all_is_done()
    analyser.calls[0].goes()
    await all_is_done()
    assert owner.failure("A", Unanswered) is BROKEN_OFF
    analyser.calls[1].ends()
    await all_is_done()
    assert owner.outcomes["B"] == TAKEN_WHOLE
    assert (owner.pool.metrics.reconnects, owner.pool.metrics.last_error) == (1, "")


@in_virtual_time
async def test_a_person_hears_that_the_analyser_wants_to_send_something_and_what_it_needs() -> None:
    analyser = Analyser(takes_at_once=True)
    owner = owner_of(analyser)
    owner.push("A")
    await all_is_done()
    assert list(owner.pool.findings()) == []
    analyser.calls[0].rings()
    (finding,) = owner.pool.findings()
    assert (finding.code, finding.where) == ("remote.analyser-sends", "sysmex:4000")
    assert "astm://sysmex:4000?mode=client" in finding.remedy
    await asyncio.sleep(RANG_S)
    assert list(owner.pool.findings()) == []


@in_virtual_time
async def test_nobody_hears_of_that_any_more_once_a_channel_is_there() -> None:
    analyser = Analyser(takes_at_once=True)
    owner = owner_of(analyser)
    owner.push("A")
    await all_is_done()
    analyser.calls[0].rings()
    analyser.is_connected_to("HAEM")
    assert list(owner.pool.findings()) == []


# ---- a channel serves it


@in_virtual_time
async def test_a_session_goes_over_the_newest_connection_of_the_channel() -> None:
    analyser = Analyser()
    analyser.is_connected_to("HAEM", 3)
    owner = owner_of(analyser, BY_CHANNEL)
    owner.push("A", "B")
    await all_is_done()
    (line,) = analyser.under_way
    assert line is analyser.lines[-1]
    line.ends(BUSY)
    await all_is_done()
    (line,) = analyser.under_way
    line.ends()
    await all_is_done()
    assert owner.failure("A") is BUSY
    assert owner.outcomes["B"] == TAKEN_WHOLE
    assert (owner.pool.metrics.connections_total, owner.pool.idle) == (0, True)


@pytest.mark.parametrize(
    ("spec", "channel", "says"),
    [
        (BY_CHANNEL, "", "this agent has no channel named HAEM that speaks ASTM"),
        (BY_CHANNEL, "HAEM", "channel HAEM has no connection to its analyser now"),
        (CALLED, "HAEM", "channel HAEM, which connects to sysmex:4000, has no connection now"),
    ],
)
def test_where_a_channel_should_serve_and_does_not_everybody_hears_why(
    spec: RemoteSpec, channel: str, says: str
) -> None:
    @in_virtual_time
    async def story() -> None:
        analyser = Analyser()
        analyser.channel = channel
        owner = owner_of(analyser, spec)
        owner.push("A", "B")
        await all_is_done()
        assert {owner.failure(name).text for name in "AB"} == {says}
        assert owner.failure("A").remedy
        assert (analyser.calls, owner.pool.idle) == ([], True)

    story()


@in_virtual_time
async def test_a_channel_that_begins_to_serve_an_analyser_takes_over_from_our_own_call() -> None:
    analyser = Analyser()
    owner = owner_of(analyser, dataclasses.replace(CALLED, keep_alive=True))
    owner.push("A", "B")
    await all_is_done()
    analyser.is_connected_to("HAEM")
    owner.pool.respec(owner.pool.spec)  # the reload tells every pool
    await all_is_done()
    assert analyser.alive, "the session that is under way is not disturbed"
    analyser.calls[0].ends()
    await all_is_done()
    assert analyser.alive == []
    analyser.lines[0].ends()
    await all_is_done()
    assert owner.outcomes == {"A": TAKEN_WHOLE, "B": TAKEN_WHOLE}


@pytest.mark.parametrize("opens_at_once", [True, False])
def test_a_call_that_carries_nothing_makes_room_for_a_channel_at_once(opens_at_once: bool) -> None:
    @in_virtual_time
    async def story() -> None:
        analyser = Analyser(opens_at_once=opens_at_once, takes_at_once=True)
        owner = owner_of(analyser, dataclasses.replace(CALLED, keep_alive=True))
        owner.push("A")
        await all_is_done()
        analyser.is_connected_to("HAEM")
        owner.pool.respec(owner.pool.spec)
        await all_is_done()
        assert analyser.alive == []
        assert owner.outcomes == {"A": TAKEN_WHOLE}

    story()


@in_virtual_time
async def test_a_channel_of_which_nobody_has_told_takes_over_with_the_next_letter() -> None:
    analyser = Analyser(takes_at_once=True)
    owner = owner_of(analyser, dataclasses.replace(CALLED, keep_alive=True))
    owner.push("A")
    await all_is_done()
    analyser.takes_at_once = False
    analyser.is_connected_to("HAEM")
    owner.push("B")
    await all_is_done()
    assert (analyser.under_way, analyser.alive) == (analyser.lines, [])


# ---- waiting


@in_virtual_time
async def test_a_letter_whose_time_is_over_hears_so_and_is_not_begun() -> None:
    analyser = Analyser()
    owner = owner_of(analyser)
    owner.push("A")
    owner.push("B", within_s=5)
    owner.push("C")
    await asyncio.sleep(6)
    assert owner.failure("B").kind is Kind.WAITED
    assert "waited 5 s" in owner.failure("B").text
    analyser.calls[0].ends()
    await all_is_done()
    assert analyser.got == [b"A", b"C"]
    owner.push("D", within_s=-1)
    await all_is_done()
    assert owner.failure("D").kind is Kind.WAITED


@in_virtual_time
async def test_a_letter_is_not_begun_late_by_a_call_that_opens_late() -> None:
    analyser = Analyser(opens_at_once=False)
    owner = owner_of(analyser)
    owner.push("A", within_s=5)
    await asyncio.sleep(6)
    analyser.calls[0].opens()
    await all_is_done()
    assert (owner.failure("A").kind, analyser.got) == (Kind.WAITED, [])
    await asyncio.sleep(IDLE_S + 1)
    assert owner.pool.idle


@in_virtual_time
async def test_no_more_wait_than_may() -> None:
    analyser = Analyser()
    owner = owner_of(analyser, waiting_limit=2)
    owner.push("A")
    await all_is_done()
    owner.push("B", "C", "D")
    await all_is_done()
    assert owner.failure("D").kind is Kind.QUEUE_FULL
    assert (owner.pool.metrics.waiting, owner.pool.metrics.pushed) == (2, 3)


# ---- the end


@in_virtual_time
async def test_a_stop_ends_what_waits_and_lets_a_session_come_to_its_end() -> None:
    analyser = Analyser()
    owner = owner_of(analyser)
    owner.push("A")
    owner.push("B", within_s=60)
    await all_is_done()
    owner.pool.stop()
    owner.push("C")
    await all_is_done()
    assert {owner.failure(name).kind for name in "BC"} == {Kind.STOPPING}
    assert (owner.pool.busy, len(analyser.alive)) == (True, 1)
    analyser.calls[0].ends()
    await all_is_done()
    assert owner.outcomes["A"] == TAKEN_WHOLE
    assert (owner.pool.idle, analyser.alive, timers()) == (True, [], 0)


@in_virtual_time
async def test_an_abort_tells_every_owner_before_it_returns() -> None:
    analyser = Analyser()
    owner = owner_of(analyser)
    owner.push("A", "B")
    await all_is_done()
    owner.pool.abort()
    assert owner.failure("A", Unanswered).kind is Kind.STOPPING
    assert owner.failure("B").kind is Kind.STOPPING
    await all_is_done()
    assert (owner.told, owner.pool.idle, timers()) == (Counter("AB"), True, 0)


@in_virtual_time
async def test_a_session_on_a_channels_connection_that_ends_after_an_abort_is_told_once() -> None:
    analyser = Analyser()
    analyser.is_connected_to("HAEM")
    owner = owner_of(analyser, BY_CHANNEL)
    owner.push("A")
    await all_is_done()
    owner.pool.abort()
    analyser.lines[0].ends()
    await all_is_done()
    assert owner.told == Counter("A")
    assert owner.pool.metrics.acknowledged == 0


@in_virtual_time
async def test_an_owner_that_pushes_again_when_it_hears_waits_for_its_turn() -> None:
    analyser = Analyser(takes_at_once=True)
    pool = pool_for(analyser)
    heard: list[Outcome] = []

    def again(outcome: Outcome) -> None:
        heard.append(outcome)
        if len(heard) < 50:
            pool.push(Letter(b"again", b"", None, again))

    pool.push(Letter(b"first", b"", None, again))
    await all_is_done()
    assert (len(heard), len(analyser.got), len(analyser.calls)) == (50, 50, 1)
