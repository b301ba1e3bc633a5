"""Byte streams through a listener and a dialler: what is taken, what is written, who is told what.

Time is the ward's: `sweep` says how much has passed.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from certificates import Authority
from net_far_ends import WITHIN_S, Sender, Ward, connected, on_both_loops, sender

from agent.net.binding import bind
from agent.net.connection import Connection
from agent.net.dialer import Dialer
from agent.net.inlet import Room
from agent.net.listener import Listener
from agent.net.tls import Identity
from agent.protocol.forensics import Oddity
from agent.protocol.mllp import BrokenFrame, FrameTooLong, FrameUnfinished, NoRoom
from agent.spec import ByteStream, LineSpec

FRAMED = ByteStream(end=0x03, start=0x02)
LINES = ByteStream(end=0x0D)
POLITE = replace(FRAMED, responses=((b"\x05", b"\x06"), (b"\x03", b"\x06")))
TLS_HELLO = bytes.fromhex("16 03 01 02 00 01 00 01 fc 03 03") + bytes(200)


class StreamWard(Ward):
    """A ward whose senders know no refusal: a broken message gets silence, and the end."""

    def _broken(self, connection: Connection, error: BrokenFrame) -> None:
        self.broken.append(error)
        connection.waive()
        connection.close_after_reply()
        self._rung.set()


@asynccontextmanager
async def streaming(
    wire: ByteStream = FRAMED,
    *,
    line: LineSpec | None = None,
    room: Room | None = None,
    identity: Identity | None = None,
    unanswered: int = 64,
) -> AsyncIterator[StreamWard]:
    ward = StreamWard()
    ward.inlet = listener = Listener(
        await bind("127.0.0.1", 0, "lab"),
        line=line or LineSpec(),
        identity=identity,
        room=room or Room(1 << 28),
        wire=wire,
        unanswered=unanswered,
        linger_s=30.0,
    )
    listener.events = ward.events
    await listener.start()
    try:
        yield ward
    finally:
        await listener.close()


async def hears(device: Sender, size: int) -> bytes:
    async with asyncio.timeout(WITHIN_S):
        return await device.reader.readexactly(size)


async def ended(ward: Ward) -> None:
    await ward.until(lambda: ward.closed)


# ---- messages and answers


@on_both_loops
async def test_messages_are_taken_whole_and_answers_are_written_as_they_are() -> None:
    async with streaming() as ward, sender(ward) as device:
        ward.answers = lambda message: b"<" + message + b">"
        device.writer.write(b"noise\x02one\x03\x02tw")
        assert await hears(device, 7) == b"<\x02one\x03>"
        device.writer.write(b"o\x03")
        assert await hears(device, 7) == b"<\x02two\x03>"
        assert ward.frames == [b"\x02one\x03", b"\x02two\x03"]
        assert ward.connections[0].frames == 2
        assert ward.connections[0].unanswered == 0


@on_both_loops
async def test_a_message_that_is_told_is_written_as_it_is() -> None:
    async with streaming() as ward, sender(ward) as device:
        connection = await connected(ward)
        assert connection.tell(b"\x00anything\xff")
        assert await hears(device, 10) == b"\x00anything\xff"


@on_both_loops
async def test_lines_need_no_start_character() -> None:
    async with streaming(LINES) as ward, sender(ward) as device:
        device.writer.write(b"GET / HTTP/1.1\r\nMSH|x\r")
        await ward.until(lambda: len(ward.frames) == 2)
        assert ward.frames == [b"GET / HTTP/1.1\r", b"\nMSH|x\r"]
        assert not ward.oddities, "any bytes may be content"


@on_both_loops
async def test_a_message_in_two_reads_is_one_and_ends_politely_with_its_sender() -> None:
    async with streaming() as ward, sender(ward) as device:
        ward.answers = lambda message: message[::-1]
        connection = await connected(ward)
        device.writer.write(b"\x02ha")
        await ward.until(lambda: connection.bytes_in == 3)
        device.writer.write(b"lf\x03")
        device.writer.write_eof()
        assert await device.hears_the_end() == b"\x03flah\x02"
        assert not ward.oddities


# ---- what is answered at once


@on_both_loops
async def test_what_is_answered_at_once_leaves_before_the_answers_of_the_same_read() -> None:
    async with streaming(POLITE) as ward, sender(ward) as device:
        ward.answers = lambda message: b"done"
        for _ in range(3):
            device.writer.write(b"\x05\x02one\x03")
            assert await hears(device, 6) == b"\x06\x06done"


@on_both_loops
async def test_a_sequence_is_answered_before_any_message_and_across_reads() -> None:
    async with streaming(replace(FRAMED, responses=((b"AB", b"!"),))) as ward, sender(ward) as device:
        connection = await connected(ward)
        device.writer.write(b"xA")
        await ward.until(lambda: connection.bytes_in == 2)
        device.writer.write(b"B")
        assert await hears(device, 1) == b"!"
        assert not ward.frames


@on_both_loops
async def test_enquiries_that_were_answered_are_not_odd() -> None:
    async with streaming(POLITE) as ward, sender(ward) as device:
        for _ in range(100):
            device.writer.write(b"\x05")
            assert await hears(device, 1) == b"\x06"
        ward.sweep(0)
        ward.sweep(2)
        assert not ward.oddities


# ---- what is odd


@on_both_loops
async def test_bytes_outside_of_messages_are_told_once_the_sender_falls_silent() -> None:
    async with streaming() as ward, sender(ward) as device:
        connection = await connected(ward)
        device.writer.write(b"no start\x03")
        await ward.until(lambda: connection.bytes_in == 9)
        ward.sweep(0)
        assert not ward.oddities
        ward.sweep(2)
        assert ward.oddities == [Oddity.OUTSIDE]


@on_both_loops
async def test_checksums_and_line_ends_behind_messages_are_not_odd() -> None:
    async with streaming() as ward, sender(ward) as device:
        for _ in range(50):
            device.writer.write(b"\x02result\x03A7\r\n\x04\x05")
        await ward.until(lambda: len(ward.frames) == 50)
        ward.sweep(0)
        ward.sweep(2)
        assert not ward.oddities


@on_both_loops
async def test_a_message_without_its_end_is_told_when_its_sender_falls_silent_or_goes() -> None:
    async with streaming() as ward, sender(ward) as device:
        device.writer.write(b"\x02half")
        connection = await connected(ward)
        await ward.until(lambda: connection.bytes_in == 5)
        ward.sweep(0)
        ward.sweep(2)
        assert ward.oddities == [Oddity.UNFINISHED]
    async with streaming() as ward, sender(ward) as device:
        device.writer.write(b"\x02half")
        device.writer.close()
        await ended(ward)
        assert ward.oddities == [Oddity.UNFINISHED]


@on_both_loops
async def test_a_load_balancer_that_looks_in_is_a_probe() -> None:
    async with streaming() as ward, sender(ward) as device:
        device.writer.close()
        await ended(ward)
        assert ward.oddities == [Oddity.PROBE]


@pytest.mark.parametrize("wire", [FRAMED, LINES, ByteStream(end=0x03)], ids=["framed", "lines", "ends in a hello"])
@on_both_loops
async def test_a_tls_client_is_told_so_and_nothing_of_it_is_a_message(wire: ByteStream) -> None:
    async with streaming(wire) as ward, sender(ward) as device:
        device.writer.write(TLS_HELLO)
        assert await device.hears_the_end() == bytes.fromhex("15 03 01 00 02 02 46"), "a fatal alert"
        assert ward.oddities == [Oddity.TLS_ON_PLAIN]
        assert not ward.taken


@on_both_loops
async def test_a_stream_that_begins_like_tls_as_its_channel_wants_is_none() -> None:
    async with streaming(ByteStream(start=0x16, end=0xFF)) as ward, sender(ward) as device:
        device.writer.write(TLS_HELLO + b"\xff")
        await ward.until(lambda: ward.taken)
        assert ward.frames == [TLS_HELLO + b"\xff"]
        assert not ward.oddities


# ---- what is too much


@on_both_loops
async def test_a_message_that_is_too_long_ends_its_connection_without_a_word() -> None:
    async with streaming(line=LineSpec(max_message_bytes=10)) as ward, sender(ward) as device:
        device.writer.write(b"\x020123456789abc\x03\x02ok\x03")
        assert await device.hears_the_end() == b""
        assert isinstance(ward.broken[0], FrameTooLong)
        assert ward.oddities == [Oddity.TOO_BIG]
        assert not ward.taken


@on_both_loops
async def test_answers_that_are_owed_are_written_before_a_broken_message_ends_the_connection() -> None:
    async with streaming(line=LineSpec(max_message_bytes=10)) as ward, sender(ward) as device:
        device.writer.write(b"\x02one\x03" + b"\x02" + b"x" * 20)
        await ward.until(lambda: ward.broken)
        ward.connections[0].reply(b"fine")
        assert await device.hears_the_end() == b"fine"


@on_both_loops
async def test_a_message_that_takes_too_long_ends_its_connection() -> None:
    async with streaming(line=LineSpec(frame_timeout_s=10)) as ward, sender(ward) as device:
        connection = await connected(ward)
        for after_s in (0, 5, 9):
            before = connection.bytes_in
            device.writer.write(b"\x02" if not before else b"x")
            await ward.until(lambda before=before: connection.bytes_in > before)  # type: ignore[misc]
            ward.sweep(after_s)
        assert not ward.broken
        ward.sweep(11)
        assert await device.hears_the_end() == b""
        assert isinstance(ward.broken[0], FrameUnfinished)
        assert Oddity.TOO_SLOW in ward.oddities


@on_both_loops
async def test_line_ends_that_wait_for_their_line_are_no_message_that_takes_too_long() -> None:
    async with streaming(LINES, line=LineSpec(frame_timeout_s=10)) as ward, sender(ward) as device:
        device.writer.write(b"one\r\n")
        await ward.until(lambda: ward.frames)
        ward.sweep(0)
        ward.sweep(100)
        assert not ward.broken
        assert not ward.oddities


@on_both_loops
async def test_a_long_message_without_room_ends_its_connection_and_gives_the_room_back() -> None:
    room = Room(100_000)
    async with streaming(room=room) as ward, sender(ward) as device:
        device.writer.write(b"\x02" + b"x" * 200_000)
        assert await device.hears_the_end() == b""
        assert isinstance(ward.broken[0], NoRoom)
        assert ward.oddities == [Oddity.NO_ROOM]
        assert room.taken_bytes == 0


@on_both_loops
async def test_a_sender_with_too_many_unanswered_messages_is_not_read_from() -> None:
    async with streaming(unanswered=4) as ward, sender(ward) as device:
        connection = await connected(ward)
        device.writer.write(b"\x021\x03" * 4)
        await ward.until(lambda: len(ward.frames) == 4)
        device.writer.write(b"\x025\x03")
        await device.writer.drain()
        for _ in range(4):
            assert len(ward.frames) == 4
            connection.reply(b"")
        await ward.until(lambda: len(ward.frames) == 5)


# ---- a channel that is told otherwise


@on_both_loops
async def test_other_characters_hold_for_connections_that_are_there_from_the_next_message_on() -> None:
    async with streaming() as ward, sender(ward) as device:
        connection = await connected(ward)
        device.writer.write(b"\x02ol")
        await ward.until(lambda: connection.bytes_in == 3)
        ward.inlet.wire = ByteStream(start=0x5B, end=0x5D, responses=((b"[", b"!"),))
        device.writer.write(b"d\x03[new]")
        await ward.until(lambda: len(ward.frames) == 2)
        assert ward.frames == [b"\x02old\x03", b"[new]"]
        assert await hears(device, 1) == b"!"
        async with sender(ward) as second:
            second.writer.write(b"[two]")
            await ward.until(lambda: len(ward.frames) == 3)


@on_both_loops
async def test_a_narrower_limit_holds_for_connections_that_are_there() -> None:
    async with streaming() as ward, sender(ward) as device:
        await connected(ward)
        ward.inlet.line = LineSpec(max_message_bytes=4)
        device.writer.write(b"\x02long\x03")
        assert await device.hears_the_end() == b""
        assert ward.oddities == [Oddity.TOO_BIG]


# ---- through TLS, and dialled


@on_both_loops
async def test_a_byte_stream_may_be_encrypted(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    own = Identity.load(authority.issue("agent").spec(), dials=False)
    trusting = ssl.create_default_context(cafile=str(authority.file))
    async with streaming(POLITE, identity=own) as ward, sender(ward, trusting) as device:
        ward.answers = lambda message: b"done"
        device.writer.write(b"\x05\x02one\x03")
        assert await hears(device, 6) == b"\x06\x06done"
        assert not ward.oddities


@on_both_loops
async def test_whoever_speaks_plain_text_to_an_encrypted_stream_is_told_and_not_taken(tmp_path: Path) -> None:
    own = Identity.load(Authority(tmp_path).issue("agent").spec(), dials=False)
    async with streaming(POLITE, identity=own) as ward, sender(ward) as device:
        device.writer.write(b"\x0b\x02one\x03")
        assert await device.hears_the_end() == b""
        assert ward.oddities == [Oddity.PLAIN_ON_TLS]
        assert not ward.taken


@on_both_loops
async def test_a_device_that_is_a_server_is_dialled_and_streams() -> None:
    calls: asyncio.Queue[Sender] = asyncio.Queue()

    async def called(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        calls.put_nowait(Sender(reader, writer))

    server = await asyncio.start_server(called, "127.0.0.1", 0)
    ward = StreamWard()
    ward.inlet = dialer = Dialer(
        "127.0.0.1",
        server.sockets[0].getsockname()[1],
        line=LineSpec(),
        identity=None,
        room=Room(1 << 26),
        wire=POLITE,
    )
    dialer.events = ward.events
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(dialer.run())
        async with asyncio.timeout(WITHIN_S):
            device = await calls.get()
        ward.answers = lambda message: b"done"
        device.writer.write(b"\x05\x02one\x03")
        assert await hears(device, 6) == b"\x06\x06done"
        assert ward.frames == [b"\x02one\x03"]
        await dialer.close()
        device.writer.transport.abort()
        server.close()
