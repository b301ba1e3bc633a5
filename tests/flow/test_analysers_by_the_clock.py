"""A pool and its call in front of an analyser that takes its time: the waits of ASTM E1381, in time of our own."""

from __future__ import annotations

import asyncio
from typing import Any

from pool_far_ends import all_is_done, in_virtual_time, timers

from agent.failures import Failure, Kind
from agent.flow.analysers import AnalyserPool
from agent.flow.letters import TAKEN, Answered, AstmCallEvents, Letter, NotSent, Outcome, Unanswered
from agent.metrics import RemoteMetrics
from agent.net.astmcall import AstmCall
from agent.spec import Astm, RemoteSpec

SPEC = RemoteSpec("astm://sysmex:4000", "sysmex", 4000, wire=Astm())
ENQ, ACK, NAK, EOT = b"\x05", b"\x06", b"\x15", b"\x04"


class Cable(asyncio.Transport):
    """A connection whose far end is the test. `said`: what we wrote, in pieces."""

    def __init__(self, call: AstmCall) -> None:
        super().__init__()
        self.call = call
        self.said: list[bytes] = []
        self._closing = False

    def write(self, data: Any) -> None:
        assert not self._closing, "something was written after the end"
        self.said.append(bytes(data))

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            asyncio.get_running_loop().call_soon(self.call.connection_lost, None)

    abort = close

    def get_write_buffer_size(self) -> int:
        return 0


class Bench:
    """One message for an analyser that is played by hand. `outcomes`: what became of it, and of those after it."""

    def __init__(self) -> None:
        self.cables: list[Cable] = []
        self.outcomes: list[Outcome] = []
        self.pool = AnalyserPool(
            SPEC, serving=lambda spec: None, call=self._call, metrics=RemoteMetrics(), waiting_limit=10
        )

    def _call(self, spec: RemoteSpec, events: AstmCallEvents) -> AstmCall:
        call = AstmCall(spec, events)
        cable = Cable(call)
        self.cables.append(cable)
        asyncio.get_running_loop().call_soon(call.connection_made, cable)
        return call

    async def pushes(self) -> Cable:
        self.pool.push(Letter(b"H|\\^&\rL|1\r", b"", None, self.outcomes.append))
        await all_is_done()
        return self.cables[-1]

    @property
    def failure(self) -> Failure:
        (outcome,) = self.outcomes
        assert isinstance(outcome, NotSent | Unanswered)
        assert isinstance(outcome, Unanswered) is outcome.failure.in_doubt
        return outcome.failure


async def hears(cable: Cable, data: bytes) -> None:
    cable.call.data_received(data)
    await all_is_done()


@in_virtual_time
async def test_an_analyser_that_is_busy_is_asked_again_after_ten_seconds() -> None:
    bench = Bench()
    cable = await bench.pushes()
    await hears(cable, NAK)
    await asyncio.sleep(9)
    assert cable.said == [ENQ]
    await asyncio.sleep(1.1)
    assert cable.said == [ENQ, ENQ]
    for _ in range(3):
        await hears(cable, ACK)
    assert bench.outcomes == [Answered(b"", TAKEN)]
    assert cable.said[-1] == EOT


@in_virtual_time
async def test_an_analyser_that_stays_busy_has_certainly_nothing() -> None:
    bench = Bench()
    cable = await bench.pushes()
    for _ in range(6):
        await hears(cable, NAK)
        await asyncio.sleep(10.1)
    assert (bench.failure.kind, bench.failure.in_doubt) == (Kind.BUSY, False)
    assert cable.said == [ENQ] * 6


@in_virtual_time
async def test_an_analyser_that_does_not_answer_has_certainly_nothing() -> None:
    bench = Bench()
    cable = await bench.pushes()
    await asyncio.sleep(60)
    assert (bench.failure.kind, bench.failure.in_doubt) == (Kind.SILENT, False)
    assert cable.said == [ENQ, EOT, ENQ, EOT]
    assert (bench.pool.idle, timers()) == (True, 0)


@in_virtual_time
async def test_an_analyser_that_falls_silent_in_the_middle_may_have_something() -> None:
    bench = Bench()
    cable = await bench.pushes()
    await hears(cable, ACK)
    await asyncio.sleep(14)
    assert bench.outcomes == []
    await asyncio.sleep(2)
    assert (bench.failure.kind, bench.failure.in_doubt) == (Kind.SILENT, True)
    assert cable.said[-1] == EOT
    # and what it says late is no answer to the next message
    second = await bench.pushes()
    assert second is not cable
    assert second.said == [ENQ]


@in_virtual_time
async def test_a_line_that_is_lost_leaves_nothing_behind_that_waits() -> None:
    bench = Bench()
    cable = await bench.pushes()
    cable.close()
    await all_is_done()
    assert (bench.failure.kind, bench.failure.in_doubt) == (Kind.CLOSED, False)
    assert (bench.pool.idle, timers()) == (True, 0)


@in_virtual_time
async def test_where_both_ask_at_once_the_analyser_is_put_off_and_we_ask_again() -> None:
    bench = Bench()
    cable = await bench.pushes()
    await hears(cable, ENQ)
    assert cable.said == [ENQ]
    await asyncio.sleep(1)
    await hears(cable, ENQ)
    assert cable.said == [ENQ, NAK]
    (finding,) = bench.pool.findings()
    assert finding.code == "remote.analyser-sends"
    await asyncio.sleep(20)
    assert cable.said == [ENQ, NAK, ENQ]
    for _ in range(3):
        await hears(cable, ACK)
    assert bench.outcomes == [Answered(b"", TAKEN)]


@in_virtual_time
async def test_an_analyser_that_is_let_in_by_mistake_gets_nothing_acknowledged() -> None:
    bench = Bench()
    cable = await bench.pushes()
    await hears(cable, NAK + ENQ)  # busy, and asking at once
    assert cable.said == [ENQ, ACK]
    covered = b"1H|\\^&\r\x03"
    await hears(cable, b"\x02%b%02X\r\n" % (covered, sum(covered) % 256))
    assert cable.said == [ENQ, ACK, NAK]
    await hears(cable, EOT)
    # and then it is our turn
    assert cable.said == [ENQ, ACK, NAK, ENQ]
