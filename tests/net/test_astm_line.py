"""An analyser on a real connection: what it sends is kept, what it is sent arrives, and it is never left guessing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from astm_instrument import ACK, ENQ, EOT, NAK, QUERY, RESULT, STX, Instrument, frame, frames_of
from net_far_ends import WITHIN_S, on_both_loops

from agent.backoff import Backoff
from agent.failures import Failure, Kind
from agent.net.astmline import MOST_WAITING, AstmConnection
from agent.net.binding import bind
from agent.net.dialer import Dialer
from agent.net.inlet import Conversation, Inlet, InletEvents, Room
from agent.net.listener import Listener
from agent.protocol.forensics import Oddity
from agent.protocol.mllp import BrokenFrame
from agent.spec import Astm, LineSpec

ORDER = b"H|\\^&|||Host\rP|1\rO|1|SAMPLE1||^^^GLU|R\rL|1|N\r"
ORDER_RECORDS = ORDER.split(b"\r")[:-1]


def message_of(records: list[bytes]) -> bytes:
    return b"".join(record + b"\r" for record in records)


class Laboratory:
    """Whoever an inlet of analysers tells. `keeps`: what becomes of a piece; `disk`: the file that pieces are on."""

    def __init__(self, inlet: Inlet, disk: Path | None = None) -> None:
        self.inlet = inlet
        self.taken: list[bytes] = []
        self.remains: list[bytes] = []
        self.pieces: list[bytes] = []
        self.lines: list[AstmConnection] = []
        self.closed: list[Conversation] = []
        self.oddities: list[Oddity] = []
        self.turned_away: list[Oddity] = []
        self.keeps: Callable[[Callable[[bool], None]], None] = lambda kept: kept(True)
        self.answers: Callable[[AstmConnection, bytes], None] = lambda line, message: None
        self._disk = disk
        self._rung = asyncio.Event()
        inlet.events = InletEvents(
            take=self._take,
            broken=self._broken,
            opened=self._opened,
            closed=self._closed,
            crowded=lambda: False,
            odd=self._odd,
            turned_away=self._away,
            keep=self._keep,
            remains=self._remains,
        )

    async def until(self, so: Callable[[], object]) -> None:
        async with asyncio.timeout(WITHIN_S):
            while not so():
                self._rung.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.01):
                        await self._rung.wait()

    async def line(self) -> AstmConnection:
        await self.until(lambda: self.lines)
        return self.lines[-1]

    @property
    def on_disk(self) -> bytes:
        assert self._disk is not None
        return self._disk.read_bytes() if self._disk.exists() else b""

    def _keep(self, line: Conversation, piece: bytes, kept: Callable[[bool], None]) -> None:
        self.pieces.append(piece)
        asyncio.get_running_loop().call_soon(self._write, piece, kept)
        self._rung.set()

    def _write(self, piece: bytes, kept: Callable[[bool], None]) -> None:
        if self._disk is not None:
            with self._disk.open("ab") as file:
                file.write(piece)
                file.flush()
                os.fsync(file.fileno())
        self.keeps(kept)

    def _take(self, line: Conversation, messages: list[bytes]) -> None:
        assert line not in self.closed
        assert isinstance(line, AstmConnection)
        self.taken += messages
        for message in messages:
            self.answers(line, message)
        self._rung.set()

    def _remains(self, line: Conversation, message: bytes) -> None:
        assert line not in self.closed, "told after the end"
        self.remains.append(message)
        self._rung.set()

    def _opened(self, line: Conversation) -> None:
        assert isinstance(line, AstmConnection)
        self.lines.append(line)
        self._rung.set()

    def _closed(self, line: Conversation) -> None:
        assert line not in self.closed, "told twice"
        self.closed.append(line)
        self._rung.set()

    def _odd(self, line: Conversation, oddity: Oddity) -> None:
        assert line in self.lines
        assert line not in self.closed
        self.oddities.append(oddity)
        self._rung.set()

    def _away(self, peer: str, oddity: Oddity) -> None:
        self.turned_away.append(oddity)
        self._rung.set()

    def _broken(self, line: Conversation, error: BrokenFrame) -> None:
        raise AssertionError("a frame of ASTM is refused by NAK")


@asynccontextmanager
async def laboratory(
    *, line: LineSpec | None = None, wire: Astm | None = None, room: Room | None = None, disk: Path | None = None
) -> AsyncIterator[Laboratory]:
    listener = Listener(
        await bind("127.0.0.1", 0, "lab"),
        line=line or LineSpec(),
        identity=None,
        room=room or Room(1 << 28),
        wire=wire or Astm(),
    )
    lab = Laboratory(listener, disk)
    await listener.start()
    try:
        yield lab
    finally:
        await listener.close()


class Heard:
    """Who posts a message, and hears what became of it."""

    def __init__(self) -> None:
        self.said: list[Failure | None] = []
        self._rung = asyncio.Event()

    def __call__(self, failure: Failure | None) -> None:
        self.said.append(failure)
        self._rung.set()

    async def result(self) -> Failure | None:
        async with asyncio.timeout(WITHIN_S):
            await self._rung.wait()
        assert len(self.said) == 1, "told once"
        return self.said[0]


# ---- what the analyser sends


@on_both_loops
async def test_a_session_is_taken_as_one_message(tmp_path: Path) -> None:
    async with (
        laboratory(disk=tmp_path / "draft") as lab,
        await Instrument.connect("127.0.0.1", lab.inlet.port) as device,
    ):
        answers = await device.send_session(RESULT, frame_bytes=20)

        await lab.until(lambda: lab.taken)
        assert lab.taken == [message_of(RESULT)]
        assert set(answers) == {ACK}
        assert lab.on_disk == message_of(RESULT)
        line = await lab.line()
        assert (line.frames, line.unanswered) == (1, 0)
        assert line.remote.startswith("127.0.0.1:")
        assert line.peer == "127.0.0.1"
        assert lab.oddities == []
        assert lab.inlet.room.taken_bytes == 0


@on_both_loops
async def test_no_frame_is_acknowledged_before_it_is_on_disk(tmp_path: Path) -> None:
    waiting: list[Callable[[bool], None]] = []
    async with (
        laboratory(disk=tmp_path / "draft") as lab,
        await Instrument.connect("127.0.0.1", lab.inlet.port) as device,
    ):
        lab.keeps = waiting.append
        device.write(ENQ)
        await device.hears(ACK)
        device.write(frame(1, b"H|\\^&\r"))
        await lab.until(lambda: waiting)
        heard = asyncio.get_running_loop().create_future()

        async def listen() -> None:
            heard.set_result(await device.read())

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(listen())
            for _ in range(20):
                await asyncio.sleep(0)
            assert not heard.done()
            assert lab.on_disk == b"H|\\^&\r"
            waiting.pop()(True)
        assert heard.result() == ACK


@on_both_loops
async def test_a_disk_that_fails_makes_the_analyser_repeat_the_frame() -> None:
    async with laboratory() as lab, await Instrument.connect("127.0.0.1", lab.inlet.port) as device:
        luck = iter([True, False, False, True, True])
        lab.keeps = lambda kept: kept(next(luck))

        assert await device.send_session([b"H|\\^&", b"R|1", b"L|1"]) == [ACK, NAK, NAK, ACK, ACK]
        await lab.until(lambda: lab.taken)
        assert lab.taken == [b"H|\\^&\rR|1\rL|1\r"]


@on_both_loops
async def test_damaged_and_repeated_frames_change_nothing() -> None:
    async with laboratory() as lab, await Instrument.connect("127.0.0.1", lab.inlet.port) as device:
        answers = await device.send_session(RESULT, frame_bytes=30, damaged={0, 2}, repeated={1, 3}, trailer=b"")

        await lab.until(lambda: lab.taken)
        assert lab.taken == [message_of(RESULT)]
        assert answers.count(NAK) == 2
        assert lab.oddities == [Oddity.ASTM_CHECKSUM]


@on_both_loops
async def test_a_connection_that_breaks_leaves_the_remains_of_its_session() -> None:
    async with laboratory() as lab, await Instrument.connect("127.0.0.1", lab.inlet.port) as device:
        await device.send_session(RESULT[:2], eot=False)
        device.hang_up()

        await lab.until(lambda: lab.closed)
        assert lab.remains == [message_of(RESULT[:2])]
        assert lab.oddities == [Oddity.ASTM_UNFINISHED]
        assert lab.taken == []
        assert lab.inlet.room.taken_bytes == 0
        assert lab.inlet.connections == set()


@on_both_loops
async def test_a_new_session_in_the_middle_of_one_leaves_the_remains_of_the_first() -> None:
    async with laboratory() as lab, await Instrument.connect("127.0.0.1", lab.inlet.port) as device:
        await device.send_session(RESULT[:2], eot=False)
        await device.send_session(QUERY)

        await lab.until(lambda: lab.taken)
        assert lab.remains == [message_of(RESULT[:2])]
        assert lab.taken == [message_of(QUERY)]


@on_both_loops
async def test_what_the_disk_says_after_the_connection_has_gone_is_of_no_interest() -> None:
    waiting: list[Callable[[bool], None]] = []
    async with laboratory() as lab, await Instrument.connect("127.0.0.1", lab.inlet.port) as device:
        lab.keeps = waiting.append
        device.write(ENQ + frame(1, b"H|\\^&\r"))
        await lab.until(lambda: waiting)
        device.hang_up()
        await lab.until(lambda: lab.closed)

        waiting.pop()(True)

        assert lab.remains == [b"H|\\^&\r"]


@on_both_loops
async def test_a_session_of_more_than_the_limit_is_refused_to_its_sender() -> None:
    async with (
        laboratory(line=LineSpec(max_message_bytes=100)) as lab,
        await Instrument.connect("127.0.0.1", lab.inlet.port) as device,
    ):
        assert await device.send_session([b"H|\\^&", b"C|1|" + b"x" * 100]) == [ACK] + [NAK] * 6
        await lab.until(lambda: lab.remains)
        assert lab.oddities == [Oddity.TOO_BIG, Oddity.ASTM_UNFINISHED]
        lab.inlet.line = LineSpec(max_message_bytes=1_000)
        await device.send_session([b"H|\\^&", b"C|1|" + b"x" * 100, b"L|1"])
        await lab.until(lambda: lab.taken)


@on_both_loops
async def test_a_long_session_waits_for_room_in_memory() -> None:
    room = Room(50_000)
    async with laboratory(room=room) as lab, await Instrument.connect("127.0.0.1", lab.inlet.port) as device:
        records = [b"H|\\^&", b"C|1|" + b"x" * 60_000, b"C|2|" + b"x" * 10_000, b"L|1"]
        assert await device.send_session(records, eot=False) == [ACK, ACK] + [NAK] * 6
        assert lab.oddities == [Oddity.NO_ROOM]
        room.limit_bytes = 1 << 20
        for whole in frames_of(records)[2:]:
            device.write(whole)
            await device.hears(ACK)
        device.write(EOT)
        await lab.until(lambda: lab.taken)
        assert lab.taken == [message_of(records)]
        assert room.taken_bytes == 0


# ---- what the analyser is sent


@on_both_loops
async def test_an_answer_goes_out_as_a_session_of_its_own_as_soon_as_the_line_is_free() -> None:
    async with laboratory() as lab, await Instrument.connect("127.0.0.1", lab.inlet.port) as device:
        told: list[bool] = []
        lab.answers = lambda line, message: told.append(line.tell(ORDER))

        await device.send_session(QUERY)

        assert await device.expect_session() == ORDER_RECORDS
        assert told == [True]


@on_both_loops
async def test_a_post_hears_that_every_frame_was_acknowledged() -> None:
    async with (
        laboratory(wire=Astm(frame_bytes=8)) as lab,
        await Instrument.connect("127.0.0.1", lab.inlet.port) as device,
    ):
        heard = Heard()
        line = await lab.line()
        line.post(ORDER, heard)
        assert heard.said == []

        assert await device.expect_session(refuse={0: 2, 3: 5}, text_bytes=8) == ORDER_RECORDS
        assert await heard.result() is None


@on_both_loops
async def test_posts_go_one_after_the_other_and_new_terms_hold_from_the_next() -> None:
    async with laboratory() as lab, await Instrument.connect("127.0.0.1", lab.inlet.port) as device:
        first, second = Heard(), Heard()
        line = await lab.line()
        line.post(ORDER, first)
        line.post(message_of(RESULT), second)
        lab.inlet.wire = Astm(frame_bytes=5)

        assert await device.expect_session() == ORDER_RECORDS
        assert await device.expect_session(text_bytes=5) == RESULT
        assert (await first.result(), await second.result()) == (None, None)


@on_both_loops
async def test_a_message_that_is_refused_frame_by_frame_fails_and_the_next_one_is_tried() -> None:
    async with laboratory() as lab, await Instrument.connect("127.0.0.1", lab.inlet.port) as device:
        first, second, third = Heard(), Heard(), Heard()
        line = await lab.line()
        line.post(ORDER, first)
        line.post(ORDER, second)
        line.post(ORDER, third)

        assert await device.expect_session(refuse={0: 6}) == []
        assert await device.expect_session(refuse={2: 6}) == ORDER_RECORDS[:2]
        assert await device.expect_session() == ORDER_RECORDS

        failures = [await first.result(), await second.result()]
        assert [failure and (failure.kind, failure.in_doubt) for failure in failures] == [
            (Kind.NOT_TAKEN, False),
            (Kind.NOT_TAKEN, True),
        ]
        assert await third.result() is None


@on_both_loops
async def test_what_an_analyser_will_not_take_at_all_is_told() -> None:
    async with laboratory() as lab, await Instrument.connect("127.0.0.1", lab.inlet.port) as device:
        line = await lab.line()
        assert line.tell(ORDER)

        for _ in range(3):
            await device.expect_session(refuse={0: 6})

        await lab.until(lambda: lab.oddities)
        assert lab.oddities == [Oddity.ASTM_NOT_TAKEN]
        assert line.tell(ORDER)
        assert await device.expect_session() == ORDER_RECORDS


@on_both_loops
async def test_an_answer_that_an_analyser_does_not_wait_for_is_told_and_one_that_we_leave_is_not() -> None:
    async with laboratory() as lab:
        async with await Instrument.connect("127.0.0.1", lab.inlet.port) as impatient:
            assert (await lab.line()).tell(ORDER)
            await impatient.hears(ENQ)
            await impatient.go()
            await lab.until(lambda: lab.closed)
        assert lab.oddities == [Oddity.ASTM_NOT_TAKEN]
        async with await Instrument.connect("127.0.0.1", lab.inlet.port) as device:
            await lab.until(lambda: len(lab.lines) == 2)
            assert lab.lines[1].tell(ORDER)
            await device.hears(ENQ)
            await lab.inlet.close(drain_s=0.01)
        assert lab.oddities == [Oddity.ASTM_NOT_TAKEN]


@on_both_loops
async def test_an_analyser_that_interrupts_is_heard_and_gets_the_whole_message_after_that() -> None:
    async with laboratory() as lab, await Instrument.connect("127.0.0.1", lab.inlet.port) as device:
        heard = Heard()
        (await lab.line()).post(ORDER, heard)

        assert await device.expect_session(interrupt_at=1) == ORDER_RECORDS[:2]
        await device.send_session(RESULT)
        assert await device.expect_session() == ORDER_RECORDS

        assert await heard.result() is None
        assert lab.taken == [message_of(RESULT)]


@on_both_loops
async def test_when_both_ask_at_once_the_analyser_goes_first() -> None:
    async with laboratory() as lab, await Instrument.connect("127.0.0.1", lab.inlet.port) as device:
        heard = Heard()
        (await lab.line()).post(ORDER, heard)
        await device.hears(ENQ)
        device.write(ENQ)
        await lab.until(lambda: lab.lines[0]._link.state == "neutral")

        await device.send_session(RESULT)

        assert await device.expect_session() == ORDER_RECORDS
        assert await heard.result() is None


@pytest.mark.parametrize(
    ("message", "words"), [(b"", "no record"), (b"\r\n", "no record"), (b"H|\\^&\rC|1|\x02\r", "control characters")]
)
async def test_what_no_message_may_hold_is_refused_at_once(message: bytes, words: str) -> None:
    async with laboratory() as lab, await Instrument.connect("127.0.0.1", lab.inlet.port):
        heard = Heard()
        (await lab.line()).post(message, heard)
        assert heard.said == [], "never from inside the call"
        failure = await heard.result()
        assert failure is not None
        assert failure.kind is Kind.BAD_MESSAGE
        assert words in failure.text


@on_both_loops
async def test_no_more_than_a_hundred_messages_wait_for_a_line() -> None:
    async with laboratory() as lab, await Instrument.connect("127.0.0.1", lab.inlet.port) as device:
        line = await lab.line()
        assert all(line.tell(ORDER) for _ in range(MOST_WAITING))
        assert not line.tell(ORDER)
        heard = Heard()
        line.post(ORDER, heard)
        failure = await heard.result()
        assert failure is not None
        assert failure.kind is Kind.QUEUE_FULL
        assert await device.expect_session() == ORDER_RECORDS


@on_both_loops
async def test_a_connection_that_breaks_fails_everything_that_was_posted() -> None:
    async with laboratory() as lab, await Instrument.connect("127.0.0.1", lab.inlet.port) as device:
        first, second, late = Heard(), Heard(), Heard()
        line = await lab.line()
        line.post(ORDER, first)
        line.post(ORDER, second)
        await device.hears(ENQ)
        device.write(ACK)
        await device.hears(STX)
        device.hang_up()
        await lab.until(lambda: lab.closed)
        line.post(ORDER, late)

        failures = [await first.result(), await second.result(), await late.result()]
        assert [failure and (failure.kind, failure.in_doubt) for failure in failures] == [
            (Kind.CLOSED, True),
            (Kind.CLOSED, False),
            (Kind.STOPPING, False),
        ]
        assert not line.tell(ORDER)


# ---- the clock


class EarlyLoop(asyncio.SelectorEventLoop):
    """A loop whose clock can be put forward."""

    ahead_s = 0.0

    def time(self) -> float:
        return super().time() + self.ahead_s


def put_forward(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, EarlyLoop)
    loop.ahead_s += seconds


def by_the_clock(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=EarlyLoop) as runner:
        runner.run(test())


def test_a_busy_analyser_is_asked_again_after_ten_seconds() -> None:
    async def test() -> None:
        async with laboratory() as lab, await Instrument.connect("127.0.0.1", lab.inlet.port) as device:
            heard = Heard()
            (await lab.line()).post(ORDER, heard)
            for _ in range(3):
                await device.hears(ENQ)
                device.write(NAK)
                await lab.until(lambda: lab.lines[0]._link.state == "neutral")
                put_forward(10.0)
            assert await device.expect_session() == ORDER_RECORDS
            assert await heard.result() is None

    by_the_clock(test)


def test_an_analyser_that_says_nothing_fails_the_message_in_half_a_minute() -> None:
    async def test() -> None:
        async with laboratory() as lab, await Instrument.connect("127.0.0.1", lab.inlet.port) as device:
            heard = Heard()
            (await lab.line()).post(ORDER, heard)
            await device.hears(ENQ)
            put_forward(15.0)
            await device.hears(EOT)
            put_forward(1.0)
            await device.hears(ENQ)
            put_forward(15.0)
            failure = await heard.result()
            assert failure is not None
            assert (failure.kind, failure.in_doubt) == (Kind.SILENT, False)
            await device.hears(EOT)

    by_the_clock(test)


def test_an_analyser_that_falls_silent_in_a_session_leaves_its_remains_after_half_a_minute() -> None:
    async def test() -> None:
        async with laboratory() as lab, await Instrument.connect("127.0.0.1", lab.inlet.port) as device:
            await device.send_session(RESULT[:2], eot=False)
            device.write(frame(3, RESULT[2])[:9])
            line, half = await lab.line(), len(message_of(RESULT[:2]))
            await lab.until(lambda: line._link.buffered > half)
            put_forward(5.0)
            await device.hears(NAK)
            put_forward(30.0)
            await lab.until(lambda: lab.remains)
            assert lab.remains == [message_of(RESULT[:2])]
            await device.send_session(RESULT)
            await lab.until(lambda: lab.taken)
            assert lab.taken == [message_of(RESULT)]

    by_the_clock(test)


# ---- the end


@on_both_loops
async def test_a_closing_inlet_lets_the_session_under_way_come_to_its_end() -> None:
    async with laboratory() as lab, await Instrument.connect("127.0.0.1", lab.inlet.port) as device:
        device.write(ENQ)
        await device.hears(ACK)
        async with asyncio.TaskGroup() as tasks:
            closing = tasks.create_task(lab.inlet.close(drain_s=WITHIN_S))
            await lab.until(lambda: not lab.lines[0].ready)
            assert not lab.lines[0].tell(ORDER)
            for whole in frames_of(RESULT):
                device.write(whole)
                await device.hears(ACK)
            assert not closing.done()
            device.write(EOT)
            assert await device.hears_the_end() == b""
        assert lab.taken == [message_of(RESULT)]
        assert len(lab.closed) == 1


@on_both_loops
async def test_a_closing_inlet_lets_the_message_that_is_being_sent_come_to_its_end() -> None:
    async with laboratory() as lab, await Instrument.connect("127.0.0.1", lab.inlet.port) as device:
        sent, waiting = Heard(), Heard()
        line = await lab.line()
        line.post(ORDER, sent)
        line.post(ORDER, waiting)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(lab.inlet.close(drain_s=WITHIN_S))
            assert await device.expect_session() == ORDER_RECORDS
            assert await device.hears_the_end() == b""
        assert await sent.result() is None
        failure = await waiting.result()
        assert failure is not None
        assert not failure.in_doubt


@on_both_loops
async def test_an_analyser_in_the_middle_of_a_session_holds_up_nobody_longer_than_the_drain() -> None:
    async with laboratory() as lab, await Instrument.connect("127.0.0.1", lab.inlet.port) as device:
        await device.send_session(RESULT[:1], eot=False)

        await lab.inlet.close(drain_s=0.05)

        assert lab.remains == [message_of(RESULT[:1])]
        assert len(lab.closed) == 1


@on_both_loops
async def test_an_idle_connection_is_closed_and_one_in_a_session_is_not() -> None:
    async with (
        laboratory(line=LineSpec(idle_timeout_s=60.0)) as lab,
        await Instrument.connect("127.0.0.1", lab.inlet.port) as device,
    ):
        await device.send_session(RESULT[:1], eot=False)
        now = time.monotonic()
        for after_s in (1.0, 30.0, 120.0):
            lab.inlet.sweep(now + after_s)
        assert lab.closed == []
        device.write(EOT)
        await lab.until(lambda: lab.taken)

        for after_s in (130.0, 160.0, 250.0):
            lab.inlet.sweep(now + after_s)

        await lab.until(lambda: lab.closed)
        assert Oddity.IDLE in lab.oddities
        assert await device.hears_the_end() == b""


async def test_an_analyser_that_may_not_connect_is_turned_away() -> None:
    async with laboratory(line=LineSpec(max_connections=1)) as lab:
        async with await Instrument.connect("127.0.0.1", lab.inlet.port) as first:
            await lab.line()
            async with await Instrument.connect("127.0.0.1", lab.inlet.port) as second:
                assert await second.hears_the_end() == b""
                await first.send_session(QUERY)
                await lab.until(lambda: lab.taken)
        assert lab.turned_away == [Oddity.TOO_MANY]


# ---- who is no analyser


@on_both_loops
@pytest.mark.parametrize(
    ("said", "oddity"),
    [
        (b"GET / HTTP/1.1\r\nHost: lab.example\r\nAccept: */*\r\n\r\n", Oddity.HTTP),
        (bytes.fromhex("160301020001000 1fc0303".replace(" ", "")) + b"\xaa" * 60, Oddity.TLS_ON_PLAIN),
        (b"\x0bMSH|^~\\&|LAB|HOSPITAL|HIS|HOSPITAL|20240101||ADT^A01|1|P|2.5\r\x1c\r", Oddity.NOT_ASTM),
    ],
)
async def test_another_protocol_is_told(said: bytes, oddity: Oddity) -> None:
    async with laboratory() as lab, await Instrument.connect("127.0.0.1", lab.inlet.port) as device:
        device.write(said)
        await lab.until(lambda: lab.oddities)
        assert lab.oddities == [oddity]
        if oddity is not Oddity.NOT_ASTM:
            await device.hears_the_end()


@on_both_loops
async def test_few_bytes_that_are_no_session_are_told_after_a_second() -> None:
    async with laboratory() as lab, await Instrument.connect("127.0.0.1", lab.inlet.port) as device:
        device.write(frame(1, b"H|\\^&\r"))
        line = await lab.line()
        await lab.until(lambda: line.bytes_in)
        now = time.monotonic()
        lab.inlet.sweep(now)
        assert lab.oddities == []

        lab.inlet.sweep(now + 2.0)

        assert lab.oddities == [Oddity.NOT_ASTM]
        assert line.first_shape.startswith("02 9")


async def test_somebody_who_connects_and_leaves_is_a_probe() -> None:
    async with laboratory() as lab:
        async with await Instrument.connect("127.0.0.1", lab.inlet.port) as device:
            await lab.line()
            await device.go()
            await lab.until(lambda: lab.closed)
        assert lab.oddities == [Oddity.PROBE]


# ---- an analyser that is called


@on_both_loops
async def test_an_analyser_that_is_a_server_is_called_and_heard_and_answered() -> None:
    async with await Instrument.listen() as device:
        dialer = Dialer(
            "127.0.0.1",
            device.port,
            line=LineSpec(),
            identity=None,
            room=Room(1 << 20),
            wire=Astm(),
            backoff=Backoff(0.001, 0.001),
        )
        lab = Laboratory(dialer)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(dialer.run())
            await device.called()
            lab.answers = lambda line, message: line.reply(ORDER)
            await device.send_session(QUERY)
            assert await device.expect_session() == ORDER_RECORDS
            await lab.until(lambda: lab.taken)
            assert dialer.listening
            device.hang_up()
            await device.called()
            await device.send_session(QUERY)
            await lab.until(lambda: len(lab.taken) == 2)
            await dialer.close()
