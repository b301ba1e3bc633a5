"""Whatever an analyser, its channel and the settings do, and in whatever order: each letter ends once, and truly."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from dataclasses import dataclass, field

from analyser_far_ends import BROKEN_OFF, BUSY, BY_CHANNEL, CALLED, Analyser, FarCall, Phase, pool_for
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from pool_far_ends import VirtualLoop, all_is_done

from agent.failures import Kind
from agent.flow.analysers import AnalyserPool
from agent.flow.letters import TAKEN, Answered, Letter, NotSent, Outcome, Unanswered
from agent.spec import Astm

WAITING_LIMIT = 6
NUMBERS = st.integers(0, 1_000)
SECONDS = st.sampled_from([0.3, 1.1, 4.0, 9.0, 31.0])


@dataclass(slots=True)
class Story:
    """One letter. `taken`, `broken`: what the analyser did with it."""

    body: bytes
    begin_by: float
    outcomes: list[Outcome] = field(default_factory=list)
    taken: bool = False
    broken: bool = False


class Pushes(RuleBasedStateMachine):
    """A pool between an owner of letters, an analyser and a channel, all of whom do anything at any time."""

    @initialize(channel=st.booleans(), takes=st.booleans(), opens=st.booleans(), named=st.booleans())
    def begin(self, channel: bool, takes: bool, opens: bool, named: bool) -> None:
        self.loop = VirtualLoop()
        self.stories: list[Story] = []
        self.stopped = False

        async def open_pool() -> AnalyserPool:
            self.analyser = Analyser(opens_at_once=opens, takes_at_once=takes)
            if channel:
                self.analyser.is_connected_to("HAEM")
            return pool_for(self.analyser, BY_CHANNEL if named else CALLED, waiting_limit=WAITING_LIMIT)

        self.pool = self.loop.run_until_complete(open_pool())

    def happens(self, *events: object) -> None:
        """Let this happen in one turn of the loop, and then everything that follows from it."""

        async def turn() -> None:
            for event in events:
                event()  # type: ignore[operator]
            await all_is_done()

        self.loop.run_until_complete(turn())

    # ---- the owner

    def _push(self, within_s: float, again: bool) -> None:
        story = Story(b"H|%d" % len(self.stories), self.loop.time() + within_s)
        self.stories.append(story)
        pushing = True

        def done(outcome: Outcome) -> None:
            assert not pushing
            story.outcomes.append(outcome)
            if again:
                self._push(math.inf, False)

        self.pool.push(Letter(story.body, b"", None, done, story.begin_by))
        pushing = False

    @rule(many=st.integers(1, 9), within_s=st.sampled_from([math.inf, 3.0, 20.0]), again=st.booleans())
    def messages_are_pushed(self, many: int, within_s: float, again: bool) -> None:
        self.happens(*[lambda: self._push(within_s, again)] * many)

    @rule(keep_alive=st.booleans(), frame_bytes=st.sampled_from([240, 240, 64]))
    def settings_change(self, keep_alive: bool, frame_bytes: int) -> None:
        spec = dataclasses.replace(self.pool.spec, keep_alive=keep_alive, wire=Astm(frame_bytes=frame_bytes))
        self.happens(lambda: self.pool.respec(spec))

    @rule(seconds=SECONDS)
    def time_passes(self, seconds: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))

    @precondition(lambda self: len(self.stories) > 40)
    @rule(at_once=st.sampled_from([False, False, True]))
    def the_agent_stops(self, at_once: bool) -> None:
        self.stopped = True
        self.happens(self.pool.abort if at_once else self.pool.stop)

    # ---- the analyser

    def _story(self, body: bytes) -> Story:
        return self.stories[int(body.split(b"|")[1])]

    @precondition(lambda self: self.analyser.under_way)
    @rule(how=st.sampled_from(["takes", "takes", "takes", "is busy", "breaks off"]))
    def a_session_ends(self, how: str) -> None:
        (line,) = self.analyser.under_way
        story = self._story(line.sessions[0][0])
        match how:
            case "takes":
                story.taken = True
                self.happens(line.ends)
            case "is busy":
                self.happens(lambda: line.ends(BUSY))
            case _:
                story.broken = True
                self.happens(lambda: line.ends(BROKEN_OFF))

    @precondition(lambda self: any(call.phase is Phase.CALLING for call in self.analyser.calls))
    @rule(fails=st.booleans())
    def a_call_comes_about_or_does_not(self, fails: bool) -> None:
        (call,) = (call for call in self.analyser.calls if call.phase is Phase.CALLING)
        self.happens(call.fails if fails else call.opens)

    @precondition(lambda self: self._open())
    @rule(rings=st.booleans())
    def a_call_rings_or_goes(self, rings: bool) -> None:
        (call,) = self._open()
        if call.sessions and not rings:
            self._story(call.sessions[0][0]).broken = True
        self.happens(call.rings if rings else call.goes)

    @rule(channel=st.booleans(), connections=st.integers(0, 2), told=st.booleans())
    def a_channel_comes_or_goes(self, channel: bool, connections: int, told: bool) -> None:
        gone = [line for line in self.analyser.lines if line.sessions]

        def changes() -> None:
            self.analyser.channel = ""
            self.analyser.lines = []
            if channel:
                self.analyser.is_connected_to("HAEM", connections)
            for line in gone:
                self._story(line.sessions[0][0]).broken = True
                line.ends(BROKEN_OFF)
            if told:
                self.pool.respec(self.pool.spec)

        self.happens(changes)

    def _open(self) -> list[FarCall]:
        return [call for call in self.analyser.calls if call.phase is Phase.OPEN]

    # ---- what holds at all times

    @invariant()
    def nothing_was_raised(self) -> None:
        assert self.loop.failures == []

    @invariant()
    def no_letter_ends_twice_and_every_outcome_is_true(self) -> None:
        for story in self.stories:
            assert len(story.outcomes) <= 1
            for outcome in story.outcomes:
                began = story.body in self.analyser.got
                match outcome:
                    case Answered(code=code):
                        assert (code, began) == (TAKEN, True)
                        assert story.taken or self.analyser.takes_at_once
                    case Unanswered(failure=failure):
                        assert began
                        assert story.broken or failure.kind is Kind.STOPPING
                    case NotSent(failure=failure):
                        assert not story.taken
                        assert failure.kind is not Kind.STOPPING or self.stopped

    @invariant()
    def sessions_begin_in_the_order_in_which_they_were_pushed(self) -> None:
        numbers = [int(body.split(b"|")[1]) for body in self.analyser.got]
        assert numbers == sorted(set(numbers))

    @invariant()
    def the_metrics_add_up(self) -> None:
        metrics = self.pool.metrics
        ended = [story for story in self.stories if story.outcomes]
        assert metrics.acknowledged + sum(metrics.failed.values()) == len(ended)
        assert metrics.waiting + metrics.pending == len(self.stories) - len(ended)
        assert metrics.waiting <= WAITING_LIMIT
        assert metrics.connections == len(self._open())
        assert metrics.rtt.count == metrics.acknowledged
        assert self.pool.busy is (len(ended) < len(self.stories))
        assert self.pool.idle is (not self.pool.busy and not self.analyser.alive)

    @invariant()
    def nothing_waits_without_need(self) -> None:
        if self.pool.metrics.waiting:
            assert self.analyser.under_way or self.analyser.alive, "nobody will ever come"
            assert self.analyser.under_way or not self._open(), "a session could begin"

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return
        try:
            self.all_comes_to_its_end()
        finally:
            self.loop.close()

    def all_comes_to_its_end(self) -> None:
        """After a stop, a session that is under way may end, and then there is nothing left."""
        self.stopped = True
        self.happens(self.pool.stop)
        while self.analyser.under_way:
            self.a_session_ends("takes")
        assert self.pool.idle
        assert all(len(story.outcomes) == 1 for story in self.stories)
        assert self.loop.timers == 0
        self.nothing_was_raised()
        self.no_letter_ends_twice_and_every_outcome_is_true()


TestPushes = Pushes.TestCase
TestPushes.settings = settings(max_examples=100, stateful_step_count=40)
