"""The spool against a plain model, whatever the order of events.

The model knows of each message what was asked of the spool and what the spool has said. From that follows what must be
on disk at any moment: everything that was told durable, in its last durable state or one that was asked for since;
nothing that was refused; nothing that nobody put. Messages to remotes live among those to the server, under the same
names and ids, and neither kind is ever taken for the other.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import Counter
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from store_disk import REMOTE, SWIFT, Disk, Told, conclude, crashes_of_the_loop, message, on_disk, settled

from agent.store.retention import RetentionPolicy, sweep
from agent.store.row import Content, Direction, Row, State
from agent.store.spool import Spool

# a file that a slow machine did not close in time would be closed by the collector, when its folder has gone
PATIENT = replace(SWIFT, close_within_s=60.0)
NOTHING_FINISHED = RetentionPolicy(days=-1, errored_days=-1)
CHANNELS = st.sampled_from(["adt", REMOTE])  # a channel may have the name of a remote, if it must
DIRECTIONS = st.sampled_from(Direction)
CONTENTS = st.sampled_from(Content)
CONTROL_IDS = st.sampled_from([b"A", b"B", b"C", b""])
FATES = st.sampled_from([State.PROCESSED, State.REJECTED, State.FAILED, State.HELD])
WHICH = st.integers(min_value=0)


class SpoolMachine(RuleBasedStateMachine):
    """One disk, and one process after the other on it."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.disk = Disk()
        self.folder = Path(tempfile.mkdtemp(prefix="spool-model-"))
        self.path = self.folder / "spool.db"
        self.lives = 0
        self.rows: dict[int, Row] = {}
        self.allowed: dict[int, set[State]] = {}  # of durable rows: what the file may say now
        self.refused: set[int] = set()
        self.highest = 0  # id of a message that was told durable
        self.sick = False
        self.go(self.start())

    def go(self, work: Coroutine[Any, Any, None]) -> None:
        self.runner.run(work)

    # ---- the process

    async def start(self) -> None:
        self.told = Told()
        self.crashes = crashes_of_the_loop()
        self.opened = Spool.open(
            self.path, self.told.events, min_free_bytes=0, vfs=self.disk.vfs, timing=PATIENT, usage=self.disk.room
        )
        self.spool = await self.opened.__aenter__()
        self.work = asyncio.get_running_loop().create_task(self.spool.run())

    async def stop(self) -> None:
        self.work.cancel()
        await asyncio.gather(self.work, return_exceptions=True)
        await self.opened.__aexit__(None, None, None)
        assert self.crashes == []

    async def quiet(self) -> None:
        """Until the spool has said what became of everything that was put and claimed."""
        said = self.told
        pending = [row for row in self.rows.values() if not row.durable and row.id not in self.refused]
        await said.until(lambda: all(row.durable or row in said.refused for row in pending))
        if not self.sick:
            await said.until(lambda: not self.spool.stuck)
            await settled(self.spool)
            await self.spool.survey(lambda _: None)  # behind the count of what the last process left
        self.listen()

    def listen(self) -> None:
        """Take in what the spool said, and do what a dispatcher does."""
        said = self.told
        for row in said.durable:
            self.highest = max(self.highest, row.id)
            if row.id not in self.allowed:
                self.allowed[row.id] = {row.state, State.INFLIGHT} if row.attempts else {row.state}
        for row in said.refused:
            self.refused.add(row.id)
            self.rows.pop(row.id, None)
        for row in said.unclaimed:
            if row.state is State.INFLIGHT:
                row.state = State.QUEUED
                self.allowed[row.id].add(State.QUEUED)
                self.spool.settle(row)
        said.durable.clear()
        said.refused.clear()
        said.unclaimed.clear()

    def durable_rows(self, *states: State) -> list[Row]:
        return [row for row in self.rows.values() if row.durable and row.id in self.allowed and row.state in states]

    # ---- what may happen

    @initialize()
    def begin(self) -> None:
        self.go(self.quiet())

    @rule(
        channel=CHANNELS,
        control_id=CONTROL_IDS,
        at_once=st.booleans(),
        numbered=st.booleans(),
        direction=DIRECTIONS,
        content=CONTENTS,
    )
    def a_message_comes(
        self, channel: str, control_id: bytes, at_once: bool, numbered: bool, direction: Direction, content: Content
    ) -> None:
        async def work() -> None:
            inbound = direction is Direction.IN
            seq = self.spool.next_sequence(channel) if numbered and inbound else None
            state = State.INFLIGHT if at_once else State.QUEUED
            callback = "" if inbound else f"callback-{self.highest}"
            row = message(
                self.spool,
                control_id,
                channel=channel,
                state=state,
                seq=seq,
                direction=direction,
                callback=callback,
                content=content,
            )
            assert row.id not in self.rows
            self.rows[row.id] = row
            self.spool.put(row)

        self.go(work())

    @rule(which=WHICH)
    def one_is_claimed(self, which: int) -> None:
        if waiting := self.durable_rows(State.QUEUED):
            row = waiting[which % len(waiting)]
            row.state = State.INFLIGHT
            row.attempts += 1
            self.allowed[row.id].add(State.INFLIGHT)
            self.spool.claim(row)

    @rule(which=WHICH, fate=FATES)
    def one_is_answered(self, which: int, fate: State) -> None:
        if sent := self.durable_rows(State.INFLIGHT):
            row = sent[which % len(sent)]
            self.allowed[row.id].add(fate)
            conclude(self.spool, row, fate)

    @rule(which=WHICH)
    def one_is_to_be_tried_again(self, which: int) -> None:
        if sent := self.durable_rows(State.INFLIGHT):
            row = sent[which % len(sent)]
            row.state, row.due_ms = State.QUEUED, 123
            self.allowed[row.id].add(State.QUEUED)
            self.spool.settle(row)

    @rule(turns=st.integers(1, 5))
    def time_passes(self, turns: int) -> None:
        async def work() -> None:
            for _ in range(turns):
                await asyncio.sleep(0)
            self.listen()

        self.go(work())

    @precondition(lambda self: not self.sick)
    @rule(how=st.sampled_from(["fill", "break_", "protect"]))
    def the_disk_fails(self, how: str) -> None:
        self.sick = True
        getattr(self.disk, how)()

    @precondition(lambda self: self.sick)
    @rule()
    def the_disk_is_well_again(self) -> None:
        self.sick = False
        self.disk.free()
        self.go(self.quiet())

    # ---- what must be true then

    def check(self, found: dict[int, State]) -> None:
        for row_id, states in self.allowed.items():
            assert row_id in found, f"{row_id} was durable"
            assert found[row_id] in states, f"{row_id} is {found[row_id]!r}, not one of {states}"
        assert self.refused.isdisjoint(found)
        assert found.keys() <= self.rows.keys() | self.allowed.keys()

    @precondition(lambda self: not self.sick)
    @rule()
    def everything_comes_to_rest(self) -> None:
        self.go(self.quiet())
        self.allowed = {row_id: {self.rows[row_id].state} for row_id in self.allowed}
        found = on_disk(self.path)
        self.check(found)
        tally = Counter(found.values())
        assert {state: n for state, n in self.spool.tally.by_state.items() if n} == tally
        for direction, counted in ((Direction.IN, self.spool.tally.open_of), (Direction.OUT, self.spool.tally.open_to)):
            rows = [self.rows[row_id] for row_id, state in found.items() if not state.finished]
            waiting = Counter(row.channel for row in rows if row.direction is direction)
            assert {name: n for name, n in counted.items() if n} == waiting
            assert self.spool.shelf.open_channels(direction) == sorted(waiting)
        assert self.spool.uncommitted_bytes == 0

    @precondition(lambda self: not self.sick)
    @rule(channel=CHANNELS, limit=st.integers(1, 3), direction=DIRECTIONS)
    def a_backlog_is_read_in_pages(self, channel: str, limit: int, direction: Direction) -> None:
        self.everything_comes_to_rest()
        read: list[int] = []
        while page := self.spool.queued(
            channel, read[-1] if read else 0, limit=limit, limit_bytes=1 << 20, direction=direction
        ):
            assert len(page) <= limit
            read += [row.id for row in page]
        mine = [row for row in self.rows.values() if (row.channel, row.direction) == (channel, direction)]
        assert read == sorted(row.id for row in mine if row.state is State.QUEUED)
        interrupted = [row.id for row in self.spool.shelf.interrupted(channel, direction)]
        assert interrupted == sorted(row.id for row in mine if row.state is State.INFLIGHT)

    @precondition(lambda self: not self.sick)
    @rule(channel=CHANNELS, control_id=st.sampled_from([b"A", b"B", b"C"]))
    def a_repetition_is_known(self, channel: str, control_id: bytes) -> None:
        self.everything_comes_to_rest()
        inbound = [row for row in self.rows.values() if row.direction is Direction.IN]
        same = [row.id for row in inbound if (row.channel, row.control_id) == (channel, control_id)]
        known = self.spool.known(channel, control_id)
        assert (known.id if known is not None else 0) == max(same, default=0)

    @precondition(lambda self: not self.sick)
    @rule()
    def history_is_swept(self) -> None:
        self.everything_comes_to_rest()

        async def work() -> None:
            assert not (await sweep(self.spool, NOTHING_FINISHED)).error

        self.go(work())
        finished = [row.id for row in self.rows.values() if row.state.finished]
        for row_id in finished:
            del self.rows[row_id], self.allowed[row_id]
        assert on_disk(self.path).keys() == self.rows.keys()

    @precondition(lambda self: not self.sick)
    @rule()
    def the_process_is_stopped_and_started(self) -> None:
        self.go(self.quiet())
        self.go(self.stop())
        self.allowed = {row_id: {self.rows[row_id].state} for row_id in self.allowed}
        self.live_on()

    @rule()
    def the_process_is_killed(self) -> None:
        """Its files as they are at this moment are what the next one finds."""
        self.listen()
        self.lives += 1
        grave = self.folder / f"life-{self.lives}" / "spool.db"
        grave.parent.mkdir()
        for suffix in ("", "-wal"):
            part = self.path.with_name("spool.db" + suffix)
            if part.exists():
                shutil.copy(part, grave.with_name(part.name))
        self.sick = False
        self.disk.free()
        self.go(self.stop())
        self.path = grave
        self.live_on()

    def live_on(self) -> None:
        found = on_disk(self.path)
        self.check(found)
        self.rows = {row_id: row for row_id, row in self.rows.items() if row_id in found}
        self.go(self.start())
        for row_id, state in found.items():
            put = self.rows[row_id]
            stored = self.spool.shelf.get(row_id, put.direction)
            assert stored is not None
            assert (stored.body, stored.channel, stored.callback) == (put.body, put.channel, put.callback)
            assert stored.content is put.content
            self.rows[row_id] = stored
            self.allowed[row_id] = {state}
        self.refused.clear()
        assert self.spool._last_id >= self.highest, "an id would be used twice"

    def teardown(self) -> None:
        self.disk.free()
        self.go(self.stop())
        self.runner.close()
        shutil.rmtree(self.folder)


SpoolMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestSpool = SpoolMachine.TestCase
