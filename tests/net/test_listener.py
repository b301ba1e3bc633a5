"""Listen for senders: real sockets on loopback, and a taker that the test plays."""

from __future__ import annotations

import asyncio
import socket

import pytest
from net_far_ends import WITHIN_S, Ward, connected, listening, on_both_loops, sender

from agent.net.binding import bind
from agent.net.listener import Listener
from agent.protocol.forensics import Oddity
from agent.protocol.mllp import FrameTooLong, wrap
from agent.spec import LineSpec

# ---- frames and answers


@on_both_loops
async def test_frames_arrive_whole_and_in_order_however_they_were_cut() -> None:
    async with listening() as ward, sender(ward) as device:
        stream = b"".join(wrap(b"M%d" % n) for n in range(5))
        for begin in range(0, len(stream), 3):
            device.writer.write(stream[begin : begin + 3])
            await device.writer.drain()
        await ward.until(lambda: len(ward.taken) == 5)
        assert ward.frames == [b"M0", b"M1", b"M2", b"M3", b"M4"]


@on_both_loops
async def test_answers_to_pipelined_frames_leave_in_one_write() -> None:
    async with listening() as ward, sender(ward) as device:
        ward.answers = lambda frame: b"A" + frame
        device.send(b"1", b"2", b"3")
        assert [await device.hears() for _ in range(3)] == [b"A1", b"A2", b"A3"]
        assert ward.connections[0].unanswered == 0


@on_both_loops
async def test_a_connection_is_known_by_its_address() -> None:
    async with listening() as ward, sender(ward) as device:
        host, port = device.writer.get_extra_info("sockname")
        assert (await connected(ward)).remote == f"{host}:{port}"


@on_both_loops
async def test_small_answers_do_not_wait_for_company() -> None:
    async with listening() as ward, sender(ward):
        accepted = (await connected(ward))._transport.get_extra_info("socket")
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


@on_both_loops
async def test_a_frame_without_an_answer_is_not_owed() -> None:
    async with listening() as ward, sender(ward) as device:
        device.send(b"ACK")
        await ward.until(lambda: ward.taken)
        ward.connections[0].waive()
        assert ward.connections[0].unanswered == 0


# ---- pushing back


@on_both_loops
async def test_a_sender_with_too_many_unanswered_frames_is_read_no_further_until_half_are_answered() -> None:
    async with listening(unanswered=4) as ward, sender(ward) as device:
        for number in range(8):
            device.send(b"%d" % number)
            await device.writer.drain()
            if number < 4:
                await ward.until(lambda wanted=number: len(ward.taken) > wanted)  # type: ignore[misc]
        connection = ward.connections[0]
        assert connection._paused
        connection.reply(b"A")
        connection.reply(b"A")
        assert connection._paused, "two of four unanswered is not below half"
        connection.reply(b"A")
        await ward.until(lambda: len(ward.taken) == 8 or connection.unanswered >= 4)
        while len(ward.taken) < 8 or connection.unanswered:
            connection.reply(b"A")
            await ward.until(lambda: connection.unanswered or len(ward.taken) == 8)
        assert ward.frames == [b"%d" % number for number in range(8)]


@on_both_loops
async def test_one_unanswered_frame_at_a_time_is_a_limit_that_works() -> None:
    async with listening(unanswered=1) as ward, sender(ward) as device:
        for number in range(5):
            device.send(b"%d" % number)
            await ward.until(lambda wanted=number: len(ward.taken) > wanted)  # type: ignore[misc]
            assert ward.connections[0]._paused
            ward.connections[0].reply(b"A%d" % number)
            assert await device.hears() == b"A%d" % number


@on_both_loops
async def test_a_slow_sender_holds_up_no_other() -> None:
    async with listening(unanswered=1) as ward, sender(ward) as stuck:
        stuck.send(b"S1")
        await ward.until(lambda: ward.taken)
        ward.answers = lambda frame: frame
        async with sender(ward) as other:
            other.send(b"O1")
            assert await other.hears() == b"O1"


@on_both_loops
async def test_a_sender_that_does_not_read_its_answers_is_not_read_from() -> None:
    async with listening() as ward, sender(ward) as device:
        device.writer.transport.get_extra_info("socket")
        device.reader._transport.pause_reading()  # type: ignore[attr-defined]
        ward.answers = lambda _: b"A" * 900_000
        for _ in range(20):
            device.send(b"M")
        connection = await connected(ward)
        await ward.until(lambda: connection._unread)
        assert connection._paused
        # and when it reads again, it is read from again
        device.reader._transport.resume_reading()  # type: ignore[attr-defined]
        drained = 0
        while drained < len(ward.taken):
            async with asyncio.timeout(WITHIN_S):
                await device.reader.read(1 << 20)
            drained = len(ward.taken) if not connection._unread else drained
        assert not connection._paused


@on_both_loops
async def test_a_sender_that_does_not_read_is_not_told_more_than_it_asked_for() -> None:
    async with listening() as ward, sender(ward) as device:
        device.reader._transport.pause_reading()  # type: ignore[attr-defined]
        connection = await connected(ward)
        async with asyncio.timeout(WITHIN_S):
            while connection.tell(b"A" * 500_000):
                ward.inlet.flush()
                await asyncio.sleep(0)
        assert connection._transport.get_write_buffer_size() < 3_000_000


@on_both_loops
async def test_a_crowded_disk_stops_the_reading_until_it_is_relieved() -> None:
    async with listening() as ward, sender(ward) as device:
        ward.crowded = True
        device.send(b"1")
        await ward.until(lambda: ward.taken)
        connection = ward.connections[0]
        await ward.until(lambda: connection._paused)
        device.send(b"2")
        connection.reply(b"A1")
        assert await device.hears() == b"A1"
        assert ward.frames == [b"1"]
        ward.crowded = False
        ward.inlet.relieve()
        await ward.until(lambda: len(ward.taken) == 2)


# ---- the end of a connection


@on_both_loops
async def test_a_half_closed_sender_still_gets_its_answers() -> None:
    async with listening() as ward, sender(ward) as device:
        device.send(b"1", b"2")
        device.writer.write_eof()
        await ward.until(lambda: len(ward.taken) == 2 and ward.connections[0]._eof)
        connection = ward.connections[0]
        connection.reply(b"A1")
        await asyncio.sleep(0)
        connection.reply(b"A2")
        assert await device.hears_the_end() == wrap(b"A1") + wrap(b"A2")


@on_both_loops
async def test_a_sender_that_has_really_gone_is_not_waited_for_for_ever() -> None:
    # a socket shut down whole looks like one that is half-closed, until something is written to it
    async with listening(patience_s=0.1) as ward, sender(ward) as device:
        device.send(b"1")
        device.writer.close()
        await ward.until(lambda: ward.closed)
        assert ward.frames == [b"1"]


@on_both_loops
async def test_an_end_in_the_same_turn_as_the_answer_loses_no_answer() -> None:
    async with listening() as ward, sender(ward) as device:
        device.send(b"1")
        await ward.until(lambda: ward.taken)
        connection = ward.connections[0]
        connection.reply(b"A1")  # gathered, not yet written
        if not connection.eof_received():
            connection._transport.close()  # as the transport does
        assert await device.hears_the_end() == wrap(b"A1")


@on_both_loops
async def test_a_sender_that_closes_is_gone() -> None:
    async with listening() as ward, sender(ward) as device:
        connection = await connected(ward)
        device.writer.close()
        await ward.until(lambda: ward.closed)
        assert ward.closed == [connection]
        assert connection.gone
        assert not ward.inlet.connections
        connection.reply(b"late")
        ward.inlet.flush()
        assert not connection.tell(b"later")


@on_both_loops
async def test_a_frame_above_the_limit_is_answered_and_the_connection_ends_without_a_reset() -> None:
    # given a sender that pushes on with the rest of its frame, as TCP has already taken it
    async with listening(line=LineSpec(max_message_bytes=1_000)) as ward, sender(ward) as device:
        device.writer.write(b"\x0bMSH|" + b"x" * 2_000_000)
        assert await device.hears_the_end() == wrap(b"AR")
        device.writer.write(b"x" * 100_000)
        device.writer.close()
        await ward.until(lambda: ward.closed)
        [error] = ward.broken
        assert isinstance(error, FrameTooLong)
        assert ward.oddities == [Oddity.TOO_BIG]
        assert error.head.startswith(b"MSH|xxx")


@on_both_loops
async def test_a_sender_that_never_ends_its_frame_is_cut_off() -> None:
    async with listening(line=LineSpec(max_message_bytes=1_000), patience_s=0.1) as ward, sender(ward) as device:
        device.writer.write(b"\x0bMSH|" + b"x" * 10_000)
        await ward.until(lambda: ward.closed)


@on_both_loops
async def test_a_new_limit_holds_for_connections_that_are_there() -> None:
    async with listening(line=LineSpec(max_message_bytes=10)) as ward, sender(ward) as device:
        await connected(ward)
        ward.inlet.line = LineSpec(max_message_bytes=10_000)
        device.send(b"x" * 5_000)
        await ward.until(lambda: ward.taken)


# ---- stopping


@on_both_loops
async def test_closing_waits_for_answers_that_are_owed() -> None:
    async with listening() as ward, sender(ward) as device, asyncio.TaskGroup() as tasks:
        device.send(b"1")
        await ward.until(lambda: ward.taken)
        closing = tasks.create_task(ward.inlet.close(drain_s=WITHIN_S))
        await asyncio.sleep(0)
        with pytest.raises(OSError, match=r".*"):
            await asyncio.open_connection("127.0.0.1", ward.inlet.port)
        device.send(b"2")  # not taken any more
        ward.connections[0].reply(b"A1")
        assert await device.hears() == b"A1"
        async with asyncio.timeout(WITHIN_S):
            await closing
        assert ward.frames == [b"1"]


@on_both_loops
async def test_closing_ends_idle_connections_at_once() -> None:
    async with listening() as ward, sender(ward) as device:
        await connected(ward)
        async with asyncio.timeout(WITHIN_S):
            await ward.inlet.close(drain_s=60.0)
        assert await device.hears_the_end() == b""


@on_both_loops
async def test_closing_writes_what_has_gathered() -> None:
    async with listening() as ward, sender(ward) as device:
        device.send(b"1", b"2")
        await ward.until(lambda: len(ward.taken) == 2)
        ward.connections[0].reply(b"A1")
        await ward.inlet.close(drain_s=0.0)
        assert await device.hears_the_end() == wrap(b"A1")


@on_both_loops
async def test_a_close_in_the_same_turn_as_the_answer_loses_no_answer() -> None:
    async with listening() as ward, sender(ward) as device:
        device.send(b"1")
        await ward.until(lambda: ward.taken)
        ward.connections[0].reply(b"A1")
        ward.connections[0].close()
        assert await device.hears_the_end() == wrap(b"A1")


@on_both_loops
async def test_a_stuck_connection_does_not_hold_up_the_end() -> None:
    async with listening() as ward, sender(ward) as device:
        device.reader._transport.pause_reading()  # type: ignore[attr-defined]
        ward.answers = lambda _: b"A" * 900_000
        for _ in range(20):
            device.send(b"M")
        connection = await connected(ward)
        await ward.until(lambda: connection._unread)
        async with asyncio.timeout(5.0):
            await ward.inlet.close(drain_s=0.1)
        assert not ward.inlet.connections


@on_both_loops
async def test_some_connections_can_be_sent_away_while_the_address_stays() -> None:
    async with listening() as ward, sender(ward) as leaving:
        old = await connected(ward)
        async with sender(ward) as staying:
            await connected(ward, 2)
            ward.answers = lambda frame: frame
            await ward.inlet.dismiss([old], drain_s=1.0)
            assert await leaving.hears_the_end() == b""
            staying.send(b"1")
            assert await staying.hears() == b"1"


@on_both_loops
async def test_whoever_takes_over_the_listener_hears_of_new_connections_only() -> None:
    async with listening() as ward, sender(ward) as device:
        await connected(ward)
        heir = Ward()
        ward.inlet.events = heir.events
        device.send(b"1")
        await ward.until(lambda: ward.taken)
        ward.connections[0].reply(b"A1")
        device.writer.close()
        await ward.until(lambda: ward.closed)
        async with sender(ward):
            await heir.until(lambda: heir.connections)
        assert (heir.taken, len(heir.connections), len(ward.connections)) == ([], 1, 1)


@on_both_loops
async def test_a_listener_can_move_to_new_sockets_and_keeps_its_connections() -> None:
    async with listening() as ward, sender(ward) as device:
        await connected(ward)
        ward.inlet.stop_accepting()
        assert not ward.inlet.listening
        assert isinstance(ward.inlet, Listener)
        await ward.inlet.restart(await bind("127.0.0.1", 0, "adt"))
        assert ward.inlet.listening
        ward.answers = lambda frame: frame
        device.send(b"1")
        assert await device.hears() == b"1"
        async with sender(ward) as other:
            other.send(b"2")
            assert await other.hears() == b"2"
