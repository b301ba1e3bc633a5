"""Whatever is pushed, whatever the remote does, whenever settings change: what holds for every message and connection.

The remote of this test is honest about one thing: an answer that it gives to a message carries that message's number in
MSA-3. So the test knows for which message an answer was meant, also where MSA-2 is empty, and where two messages have
the same control id.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from pool_far_ends import RESET, SPEC, FarLine, Phase, Remote, VirtualLoop, ack, all_is_done, message

from agent.failures import Kind
from agent.flow.letters import Answered, Letter, LineEvents, NotSent, Outcome, Unanswered
from agent.flow.pool import Pool
from agent.metrics import RemoteMetrics
from agent.protocol.hl7 import read_ack
from agent.spec import RemoteSpec, ReturnAck

WAITING_LIMIT = 6
IDS = st.sampled_from(["1", "2", "3", "4", ""])  # "": one that nobody else has
NUMBERS = st.integers(0, 1_000)
SPECS = st.builds(
    dataclasses.replace,
    st.just(SPEC),
    host=st.sampled_from(["lab.example"] * 4 + ["lab2.example"]),
    secure=st.sampled_from([False] * 4 + [True]),
    keep_alive=st.booleans(),
    max_clients=st.integers(1, 3),
    in_flight=st.integers(1, 3),
    serialize=st.sampled_from([False, False, True]),
    ack_timeout_s=st.sampled_from([30.0, 5.0, 0.0]),
    return_ack=st.sampled_from(ReturnAck),
)


@dataclass(eq=False)
class Story:
    """A message from its push to its outcome, as the outside sees it."""

    number: int
    control_id: str
    return_ack: ReturnAck | None
    begin_by: float
    outcomes: list[Outcome] = field(default_factory=list)
    line: FarLine | None = None
    sent_at: float = 0.0
    timeout_s: float = 0.0
    first_is_enough: bool = False
    committed: bool = False
    answered: bool = False
    refused: bool = False


class WatchfulRemote(Remote):
    """Checks every connection and every message in the moment in which it comes."""

    def __init__(self) -> None:
        super().__init__(opens_at_once=False)
        self.stories: list[Story] = []
        self.pool: Pool

    def dial(self, spec: RemoteSpec, events: LineEvents) -> FarLine:
        there = [line for line in self.lines if line.phase is not Phase.GONE and line.spec.where == spec.where]
        limit = 1 if spec.serialize else spec.max_clients
        assert len(there) < limit, "a connection too many was dialled"
        return super().dial(spec, events)

    def receives(self, line: FarLine, message: bytes) -> None:
        story = self._story_of(message)
        spec = self.pool.spec
        assert story.line is None, "a message was written twice"
        assert not story.outcomes, "a message was written after its end"
        ended = [self._story_of(letter.message) for letter, _ in self.pool._told]  # and will hear so in the next turn
        before = [earlier for earlier in self.stories if earlier.line and not earlier.outcomes and earlier not in ended]
        here = [earlier for earlier in before if earlier.line is line]
        assert len(here) < (1 if spec.serialize else spec.in_flight), "too many on one connection"
        assert story.control_id not in [earlier.control_id for earlier in here], "two of one control id"
        assert not (spec.serialize and before), "serialize means one at a time"
        assert all(later.line is None for later in self.stories[story.number + 1 :]), "a later message went first"
        assert (line.spec.where, line.spec.secure) == (spec.where, spec.secure), "written to where the remote was"
        now = asyncio.get_running_loop().time()
        assert now <= story.begin_by
        story.line, story.sent_at, story.timeout_s = line, now, spec.ack_timeout_s
        story.first_is_enough = (story.return_ack or spec.return_ack) is ReturnAck.FIRST

    def _story_of(self, message: bytes) -> Story:
        return self.stories[int(message.split(b"|P#")[1].split(b"|")[0])]


class Pushes(RuleBasedStateMachine):
    """A pool between an owner of letters and a remote, both of whom do anything at any time."""

    @initialize(spec=SPECS, closes=st.booleans())
    def begin(self, spec: RemoteSpec, closes: bool) -> None:
        self.loop = VirtualLoop()
        self.remote = WatchfulRemote()
        self.remote.closes_what_never_opened = closes
        self.stopped = False

        async def open_pool() -> Pool:
            return Pool(spec, dial=self.remote.dial, metrics=RemoteMetrics(), waiting_limit=WAITING_LIMIT)

        self.pool = self.remote.pool = self.loop.run_until_complete(open_pool())

    def happens(self, *events: object) -> None:
        """Let this happen in one turn of the loop, and then everything that follows from it."""

        async def turn() -> None:
            for event in events:
                event()  # type: ignore[operator]
            await all_is_done()

        self.loop.run_until_complete(turn())

    # ---- the owner

    def _push(self, control_id: str, return_ack: ReturnAck | None, within_s: float) -> None:
        number = len(self.remote.stories)
        control_id = control_id or f"M{number}"
        story = Story(number, control_id, return_ack, self.loop.time() + within_s)
        self.remote.stories.append(story)
        pushing = True

        def done(outcome: Outcome) -> None:
            assert not pushing
            story.outcomes.append(outcome)

        body = message(control_id, f"P#{number}")
        self.pool.push(Letter(body, control_id.encode(), return_ack, done, story.begin_by))
        pushing = False

    @rule(
        ids=st.lists(IDS, min_size=1, max_size=10),
        return_ack=st.sampled_from([None, None, *ReturnAck]),
        within_s=st.sampled_from([math.inf, 3.0, 20.0]),
        opens=st.booleans(),
    )
    def messages_are_pushed(self, ids: list[str], return_ack: ReturnAck | None, within_s: float, opens: bool) -> None:
        self.happens(lambda: [self._push(control_id, return_ack, within_s) for control_id in ids])
        if opens:
            self.happens(*(line.opens for line in self.remote.lines))

    @rule(spec=SPECS)
    def settings_change(self, spec: RemoteSpec) -> None:
        self.happens(lambda: self.pool.respec(spec))

    @rule(seconds=st.sampled_from([0.3, 1.1, 4.0, 9.0, 31.0]))
    def time_passes(self, seconds: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))

    @precondition(lambda self: len(self.remote.stories) > 60)
    @rule(at_once=st.sampled_from([False, False, True]))
    def the_agent_stops(self, at_once: bool) -> None:
        self.stopped = True
        self.happens(self.pool.abort if at_once else self.pool.stop)

    # ---- the remote

    def _any(self, number: int, *phases: Phase) -> FarLine:
        lines = self.remote.lines_that_are(*phases)
        return lines[number % len(lines)]

    @precondition(lambda self: self.remote.lines_that_are(Phase.CONNECTING))
    @rule(number=NUMBERS, fails=st.sampled_from([False, False, True]))
    def a_connect_ends(self, number: int, fails: bool) -> None:
        line = self._any(number, Phase.CONNECTING)
        self.happens(line.fails if fails else line.opens)

    def _answer(self, story: Story, code: str, named: bool) -> bytes:
        if code == "CA":
            story.committed = True
        else:
            story.answered = True
        return ack(story.control_id if named else "", code, str(story.number))

    def _answerable(self) -> list[Story]:
        return [
            story
            for story in self.remote.stories
            if story.line is not None and story.line.phase is Phase.OPEN and not (story.answered or story.refused)
        ]

    @precondition(lambda self: self._answerable())
    @rule(
        answers=st.lists(
            st.tuples(
                NUMBERS,
                st.sampled_from(["AA", "AA", "AE", "AR", "CA", "CA", "CE"]),
                st.sampled_from([True] * 4 + [False]),
            ),
            min_size=1,
            max_size=4,
        )
    )
    def messages_are_answered(self, answers: list[tuple[int, str, bool]]) -> None:
        for number, code, named in answers:
            stories = self._answerable()
            if stories:
                story = stories[number % len(stories)]
                if code[0] == "C" and story.committed and not named:
                    continue  # a second word about the commit breaks the standard, and nobody could tell whose it is
                assert story.line is not None
                line = story.line
                frame = self._answer(story, code, named)
                self.happens(lambda line=line, frame=frame: line.says(frame))

    @precondition(lambda self: self._answerable())
    @rule(number=NUMBERS)
    def everything_on_one_connection_is_answered_in_one_packet(self, number: int) -> None:
        stories = self._answerable()
        line = stories[number % len(stories)].line
        assert line is not None
        frames = [self._answer(story, "AA", True) for story in reversed(stories) if story.line is line]
        self.happens(lambda: line.says(*frames))

    @precondition(lambda self: self.remote.open_lines)
    @rule(number=NUMBERS, frame=st.sampled_from([ack("nobody"), ack("", "AA", "nobody"), b"\x06", b"?", message("1")]))
    def the_remote_says_what_nobody_asked_for(self, number: int, frame: bytes) -> None:
        line = self._any(number, Phase.OPEN)
        if frame == ack("", "AA", "nobody") and any(story.line is line for story in self._answerable()):
            return  # it could not be told from an answer
        for story in self._answerable():
            story.committed = story.committed or (frame == b"\x06" and story.line is line)
        self.happens(lambda: line.says(frame))

    @precondition(lambda self: self._answerable())
    @rule(number=NUMBERS)
    def the_remote_does_not_take_a_message(self, number: int) -> None:
        stories = self._answerable()
        line = stories[number % len(stories)].line
        assert line is not None
        alone = [story for story in stories if story.line is line]
        if len(alone) == 1:
            alone[0].refused = True
            self.happens(lambda: line.says(b"\x15"))

    @precondition(lambda self: self.remote.open_lines)
    @rule(number=NUMBERS, noise=st.sampled_from([b"\r\n", b"HTTP/1.1 400", b"MSH|"]), begun=st.integers(0, 2))
    def the_remote_mumbles(self, number: int, noise: bytes, begun: int) -> None:
        line = self._any(number, Phase.OPEN)
        self.happens(lambda: line.begins_an_answer(begun), lambda: line.murmurs(noise))

    @precondition(lambda self: self.remote.open_lines)
    @rule(number=NUMBERS, failure=st.sampled_from([None, RESET]))
    def a_connection_breaks(self, number: int, failure: object) -> None:
        line = self._any(number, Phase.OPEN)
        self.happens(lambda: line.hangs_up(failure))  # type: ignore[arg-type]

    @rule()
    def the_remote_begins_to_hold_on_to_connections_or_lets_go_of_them(self) -> None:
        self.remote.closes_when_told = not self.remote.closes_when_told
        self.happens(*(line.goes for line in self.remote.lines_that_are(Phase.LEAVING)))

    # ---- what always holds

    @invariant()
    def nothing_was_raised(self) -> None:
        assert self.loop.failures == []

    @invariant()
    def every_outcome_is_true(self) -> None:
        for story in self.remote.stories:
            assert len(story.outcomes) <= 1
            for outcome in story.outcomes:
                match outcome:
                    case Answered(ack=frame, code=code):
                        said = read_ack(frame)
                        assert said is not None
                        assert said.text == str(story.number).encode(), "an answer reached another message"
                        assert said.control_id in (b"", story.control_id.encode())
                        assert said.code == code
                        assert code != "CA" or story.first_is_enough
                    case NotSent():
                        assert story.line is None or story.refused
                    case Unanswered(committed=committed):
                        assert story.line is not None
                        assert story.committed or not committed

    @invariant()
    def every_deadline_is_kept(self) -> None:
        now = self.loop.time()
        for story in self.remote.stories:
            if not story.outcomes and story.line is None:
                assert now <= story.begin_by + 0.01
            if not story.outcomes and story.line is not None and story.timeout_s:
                assert now <= story.sent_at + story.timeout_s + 0.01

    @invariant()
    def nothing_waits_without_need(self) -> None:
        pool = self.pool
        if pool._waiting:
            assert pool._room_for(pool._waiting.first()) is None
            idle = [line for line in self.remote.open_lines if not any(story.line is line for story in self._unended())]
            assert not idle or pool.spec.serialize, "one could write"
            assert self.remote.lines_that_are(Phase.CONNECTING, Phase.OPEN, Phase.LEAVING), "nobody will ever come"

    @invariant()
    def the_metrics_add_up(self) -> None:
        metrics, stories = self.pool.metrics, self.remote.stories
        ended = [story for story in stories if story.outcomes]
        under_way = self._unended()
        assert metrics.acknowledged + metrics.refused + sum(metrics.failed.values()) == len(ended)
        assert (metrics.waiting, metrics.pending) == (len(stories) - len(ended) - len(under_way), len(under_way))
        assert metrics.waiting <= WAITING_LIMIT
        if not self.stopped:
            assert metrics.pushed == len(stories) - metrics.failed.get(Kind.QUEUE_FULL, 0)
        connected = [line for line in self.remote.lines if line.has_opened and line.phase is not Phase.GONE]
        assert metrics.connections == len(connected)
        assert metrics.connections_total == len([line for line in self.remote.lines if line.has_opened])
        assert metrics.reconnects <= max(0, metrics.connections_total - 1)
        assert metrics.rtt.count == metrics.acknowledged + metrics.refused
        assert self.pool.busy is (len(ended) < len(stories))
        assert self.pool.idle is (not self.pool.busy and not self._alive())

    def _unended(self) -> list[Story]:
        return [story for story in self.remote.stories if story.line is not None and not story.outcomes]

    def _alive(self) -> list[FarLine]:
        return self.remote.lines_that_are(Phase.CONNECTING, Phase.OPEN, Phase.LEAVING)

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return
        try:
            self.all_comes_to_its_end()
        finally:
            self.loop.close()

    def all_comes_to_its_end(self) -> None:
        """After a stop, what is written may be answered, and then there is nothing left."""
        self.happens(self.pool.stop)
        while stories := self._answerable():
            line = stories[0].line
            assert line is not None
            frames = [self._answer(story, "AA", True) for story in stories if story.line is line]
            self.happens(lambda line=line, frames=frames: line.says(*frames))
        self.loop.run_until_complete(asyncio.sleep(60.0))
        self.happens(*(line.goes for line in self.remote.lines_that_are(Phase.LEAVING)))
        assert self.pool.idle
        assert all(len(story.outcomes) == 1 for story in self.remote.stories)
        self.nothing_was_raised()
        self.every_outcome_is_true()
        self.the_metrics_add_up()


TestPushes = Pushes.TestCase
TestPushes.settings = settings(max_examples=150, stateful_step_count=50)
