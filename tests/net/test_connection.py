"""What a connection may do and for how long, what is said when it does something else, and all of it through TLS.

Time is the ward's: `sweep` says how much has passed.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shutil
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_network
from pathlib import Path

import pytest
from certificates import Authority, Issued
from hypothesis import given, settings
from hypothesis import strategies as st
from net_far_ends import WITHIN_S, Sender, Ward, connected, listening, on_both_loops, sender

from agent.net.inlet import Room
from agent.net.keepalive import Silence
from agent.net.tls import Identity
from agent.protocol.forensics import Oddity
from agent.protocol.mllp import FrameTooLong, FrameUnfinished, NoRoom, PlainText, wrap
from agent.spec import LineSpec

ADT = b"MSH|^~\\&|ADT|WARD|LAB|HALL|20260101||ADT^A01|1|P|2.5\rPID|1||4711\r"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def own(authority: Authority) -> Identity:
    """What the channel shows: a certificate for localhost."""
    return Identity.load(authority.issue("agent").spec(), dials=False)


@pytest.fixture
def asking(authority: Authority) -> Identity:
    """The same of a channel that wants to see the sender's certificate."""
    return Identity.load(authority.issue("agent").spec(client_ca=authority.file), dials=False)


def echoed(ward: Ward) -> None:
    ward.answers = lambda frame: b"A" + frame


async def ended(ward: Ward, number: int = 1) -> None:
    await ward.until(lambda: len(ward.closed) >= number)


# ---- who may connect


@on_both_loops
async def test_a_sender_outside_the_allow_list_is_sent_away_before_it_is_read() -> None:
    async with listening(line=LineSpec(allow=(ip_network("10.0.0.0/8"),))) as ward:
        reader, writer = await asyncio.open_connection("127.0.0.1", ward.inlet.port)
        host, port = writer.get_extra_info("sockname")
        writer.write(wrap(ADT))

        await ward.until(lambda: ward.turned_away)

        assert ward.turned_away == [(f"{host}:{port}", Oddity.NOT_ALLOWED)]
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        assert (ward.connections, ward.taken, ward.closed, ward.inlet.connections) == ([], [], [], set())
        writer.transport.abort()


@on_both_loops
async def test_a_sender_inside_the_allow_list_is_served() -> None:
    line = LineSpec(allow=(ip_network("10.0.0.0/8"), ip_network("127.0.0.0/8")))
    async with listening(line=line) as ward, sender(ward) as device:
        echoed(ward)
        device.send(b"1")
        assert await device.hears() == b"A1"


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this host speaks no IPv6")
@on_both_loops
async def test_an_ipv4_sender_counts_as_one_at_a_socket_of_both_families() -> None:
    async with listening(line=LineSpec(allow=(ip_network("127.0.0.1/32"),)), host="::") as ward, sender(ward):
        connection = await connected(ward)
        assert connection.peer == "127.0.0.1"
        assert connection.remote.startswith("::ffff:127.0.0.1:")
        reader, writer = await asyncio.open_connection("::1", ward.inlet.port)
        await ward.until(lambda: ward.turned_away)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        writer.transport.abort()


@on_both_loops
async def test_one_connection_too_many_is_sent_away_and_a_later_one_is_welcome_again() -> None:
    async with listening(line=LineSpec(max_connections=1)) as ward:
        async with sender(ward) as device:
            _, writer = await asyncio.open_connection("127.0.0.1", ward.inlet.port)
            await ward.until(lambda: ward.turned_away)
            assert ward.turned_away[0][1] is Oddity.TOO_MANY
            writer.transport.abort()
            echoed(ward)
            device.send(b"1")
            assert await device.hears() == b"A1"
        await ended(ward)
        async with sender(ward) as device:
            device.send(b"2")
            assert await device.hears() == b"A2"
        assert len(ward.turned_away) == 1


@on_both_loops
async def test_a_narrower_allow_list_holds_for_later_connections() -> None:
    async with listening() as ward, sender(ward) as device:
        echoed(ward)
        await connected(ward)
        ward.inlet.line = LineSpec(allow=(ip_network("10.0.0.0/8"),))
        _, writer = await asyncio.open_connection("127.0.0.1", ward.inlet.port)
        await ward.until(lambda: ward.turned_away)
        writer.transport.abort()
        device.send(b"1")
        assert await device.hears() == b"A1"


# ---- how long


@on_both_loops
async def test_a_silent_connection_is_closed_when_its_channel_says_so() -> None:
    async with listening(line=LineSpec(idle_timeout_s=30)) as ward, sender(ward) as device:
        echoed(ward)
        device.send(ADT)
        await device.hears()
        ward.sweep(0)
        ward.sweep(29)
        assert not ward.oddities
        ward.sweep(31)
        assert await device.hears_the_end() == b""
        await ended(ward)
        assert ward.oddities == [Oddity.IDLE]


@on_both_loops
async def test_a_connection_that_waits_for_its_answer_is_not_idle() -> None:
    async with listening(line=LineSpec(idle_timeout_s=30)) as ward, sender(ward) as device:
        device.send(ADT)
        await ward.until(lambda: ward.taken)
        ward.sweep(0)
        ward.sweep(3_000)
        assert not ward.oddities
        ward.connections[0].reply(b"A")
        assert await device.hears() == b"A"


@on_both_loops
async def test_a_connection_may_be_silent_for_ever_unless_its_channel_says_otherwise() -> None:
    async with listening() as ward, sender(ward) as device:
        echoed(ward)
        await connected(ward)
        for days in range(3):
            ward.sweep(days * 86_400.0)
        device.send(ADT)
        assert await device.hears() == b"A" + ADT


@on_both_loops
async def test_a_message_that_does_not_end_is_answered_and_its_connection_closed() -> None:
    # given a sender that gives a byte now and then
    async with listening(line=LineSpec(frame_timeout_s=120)) as ward, sender(ward) as device:
        device.writer.write(b"\x0bMSH|^~\\&|")
        connection = await connected(ward)
        for after_s in (0, 40, 80, 119):
            bytes_before = connection.bytes_in
            device.writer.write(b"x")
            await ward.until(lambda before=bytes_before: connection.bytes_in > before)  # type: ignore[misc]
            ward.sweep(after_s)
        assert not ward.broken
        ward.sweep(121)
        assert await device.hears_the_end() == wrap(b"AR")
        device.writer.close()
        await ended(ward)
        [error] = ward.broken
        assert isinstance(error, FrameUnfinished)
        assert error.head == b"\x0bMSH|^~\\&|xxxx"[1:]
        assert Oddity.TOO_SLOW in ward.oddities


@on_both_loops
async def test_each_message_has_its_own_time() -> None:
    # given a sender in the middle of a message at every sweep, and each time of another
    async with listening(line=LineSpec(frame_timeout_s=10)) as ward, sender(ward) as device:
        echoed(ward)
        device.writer.write(b"\x0bMSH|")
        for after_s in range(0, 100, 9):
            await ward.until(lambda: ward.connections and ward.connections[0]._framer.begun)
            ward.sweep(after_s)
            device.writer.write(b"\x1c\r\x0bMSH|")
            assert await device.hears() == b"AMSH|"
        assert not ward.broken


@on_both_loops
async def test_time_in_which_a_sender_is_not_read_from_is_not_its_own() -> None:
    line = LineSpec(frame_timeout_s=10, idle_timeout_s=10)
    async with listening(line=line, unanswered=1) as ward, sender(ward) as device:
        device.writer.write(wrap(b"1") + b"\x0bMSH|")
        await ward.until(lambda: ward.taken)
        for after_s in range(0, 100, 9):
            ward.sweep(after_s)
        assert not ward.broken
        ward.connections[0].reply(b"A1")
        ward.sweep(100)
        device.writer.write(b"2\x1c\r")
        await ward.until(lambda: len(ward.taken) == 2)
        assert not ward.broken


@on_both_loops
async def test_tcp_asks_a_silent_sender_whether_it_is_there() -> None:
    async with listening(line=LineSpec(keepalive_s=77)) as ward, sender(ward):
        peer = (await connected(ward))._transport.get_extra_info("socket")
        assert peer.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        if hasattr(socket, "TCP_KEEPIDLE"):
            assert peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 77
        ward.inlet.line = LineSpec(keepalive_s=0)
        assert not peer.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


@settings(max_examples=200)
@given(
    st.lists(st.tuples(st.floats(0, 100), st.integers(0, 3), st.sampled_from([None, 0, 1]), st.booleans()), min_size=1)
)
def test_no_silence_is_longer_than_the_time_in_which_something_could_have_come(
    life: list[tuple[float, int, int | None, bool]],
) -> None:
    now, heard, message_of = 0.0, 0, None
    silence = Silence(now)
    quiet_since = message_since = now
    for passed_s, came, message, reading in life:
        now += passed_s
        heard += came
        silence.note(now, heard, message, reading=reading)
        if came or not reading:
            quiet_since = now
        if message != message_of or not reading:
            message_of, message_since = message, now
        assert silence.silent_s(now, heard) == now - quiet_since
        assert silence.message_s(now) == now - message_since
        assert silence.silent_s(now + 5, heard + 1) == 0


# ---- how much


@on_both_loops
async def test_unfinished_messages_are_accounted_for_and_given_back() -> None:
    room = Room(1 << 30)
    async with listening(room=room) as ward, sender(ward) as first:
        first.writer.write(b"\x0b" + b"x" * 100_000)
        async with sender(ward) as second:
            second.writer.write(b"\x0b" + b"y" * 50_000)
            await ward.until(lambda: room.taken_bytes == 150_000)
        await ended(ward)
        assert room.taken_bytes == 100_000
        first.writer.write(b"\x1c\r")
        await ward.until(lambda: ward.taken)
        assert room.taken_bytes == 0


@on_both_loops
async def test_a_long_message_finds_no_room_while_short_ones_still_do() -> None:
    room = Room(1_000_000)
    async with listening(room=room) as ward, sender(ward) as first, sender(ward) as second, sender(ward) as third:
        echoed(ward)
        first.writer.write(b"\x0bMSH|" + b"x" * 989_996)
        await ward.until(lambda: room.taken_bytes == 990_000)
        second.writer.write(b"\x0bMSH|" + b"y" * 60_000)
        third.writer.write(b"\x0bMSH|" + b"z" * 70_000)
        assert await third.hears_the_end() == wrap(b"AR")
        second.writer.write(b"\x1c\r")
        assert (await second.hears()).startswith(b"AMSH|y")
        first.writer.write(b"\x1c\r")
        assert (await first.hears()).startswith(b"AMSH|x")
        [error] = ward.broken
        assert isinstance(error, NoRoom)
        assert error.head.startswith(b"MSH|z")
        assert ward.oddities == [Oddity.NO_ROOM]
        assert room.taken_bytes == 0


@on_both_loops
async def test_one_long_message_on_its_own_is_not_refused_for_lack_of_room() -> None:
    async with listening(room=Room(0)) as ward, sender(ward) as device:
        echoed(ward)
        device.send(b"x" * 5_000_000)
        assert len(await device.hears()) == 5_000_001


# ---- why there is no message


@on_both_loops
@pytest.mark.parametrize(
    ("stream", "oddity", "answer"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", Oddity.HTTP, b"HTTP/1.1 400 "),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(300), Oddity.TLS_ON_PLAIN, b"\x15\x03"),
    ],
)
async def test_another_protocol_is_sent_away_at_once_in_its_own_words(
    stream: bytes, oddity: Oddity, answer: bytes
) -> None:
    async with listening() as ward, sender(ward) as device:
        for position in range(len(stream)):
            device.writer.write(stream[position : position + 1])
            await asyncio.sleep(0)
        said = await device.hears_the_end()
        device.writer.close()
        await ended(ward)
        assert said.startswith(answer)
        assert ward.oddities == [oddity]
        assert ward.connections[0].oddity is oddity
        assert ward.connections[0].first_shape


@on_both_loops
@pytest.mark.parametrize(
    ("stream", "oddity"),
    [
        (ADT, Oddity.NO_START),
        (b"\x0b" + ADT, Oddity.NO_END),
        (b"\x0b" + ADT + b"\x1c", Oddity.END_WITHOUT_CR),
        (b"\x0b" + ADT + b"\x1c\n", Oddity.END_WITHOUT_CR),
        (b"\x0bhello", Oddity.NO_MSH),
        (("\x0b" + ADT.decode() + "\x1c\r").encode("utf-16-le"), Oddity.UTF16),
    ],
)
async def test_a_second_of_silence_is_explained_while_the_connection_lives(stream: bytes, oddity: Oddity) -> None:
    async with listening() as ward, sender(ward) as device:
        device.writer.write(stream)
        await ward.until(lambda: ward.connections and ward.connections[0].bytes_in == len(stream))
        ward.sweep(0)
        ward.sweep(0.9)
        assert not ward.oddities
        ward.sweep(1.1)
        ward.sweep(2.1)
        assert ward.oddities == [oddity]
        evidence = ward.connections[0].evidence(ward.connections[0]._silence._born + 5, over=False)
        assert evidence.first == stream[:64]
        assert (evidence.age_s, evidence.tls) == (5, False)


@on_both_loops
async def test_what_was_odd_is_told_once_and_what_comes_after_it_is_taken_all_the_same() -> None:
    async with listening() as ward, sender(ward) as device:
        echoed(ward)
        for after_s in (0, 10, 20):
            seen = ward.connections[0].bytes_in if ward.connections else 0
            device.writer.write(ADT)
            await ward.until(lambda seen=seen: ward.connections and ward.connections[0].bytes_in > seen)  # type: ignore[misc]
            ward.sweep(after_s)
            ward.sweep(after_s + 2)
        device.send(ADT)
        assert await device.hears() == b"A" + ADT
        assert ward.oddities == [Oddity.NO_START]


@on_both_loops
@pytest.mark.parametrize(
    ("frame", "oddity"),
    [(ADT.replace(b"\r", b"\n"), Oddity.LF_LINES), (b"\x06", Oddity.MLLP_RELEASE_2), (b"hello", Oddity.NO_MSH)],
)
async def test_an_odd_first_frame_is_told_and_taken(frame: bytes, oddity: Oddity) -> None:
    async with listening() as ward, sender(ward) as device:
        echoed(ward)
        device.send(frame, frame)
        assert await device.hears() == b"A" + frame
        assert ward.oddities == [oddity]


@on_both_loops
async def test_a_look_from_a_load_balancer_is_told_as_such() -> None:
    async with listening() as ward:
        async with sender(ward):
            await connected(ward)
        await ended(ward)
        assert ward.oddities == [Oddity.PROBE]


@on_both_loops
async def test_a_sender_that_goes_in_the_middle_of_a_message_is_explained_and_one_that_we_dismiss_is_not() -> None:
    async with listening() as ward, sender(ward) as first, sender(ward) as second:
        for device in (first, second):
            device.writer.write(b"\x0b" + ADT)
        await ward.until(lambda: sum(connection.bytes_in for connection in ward.connections) == 2 * len(ADT) + 2)
        first.writer.close()
        await ended(ward)
        await ward.inlet.dismiss(ward.inlet.connections, drain_s=1.0)
        assert len(ward.closed) == 2
        assert ward.oddities == [Oddity.NO_END]


@on_both_loops
async def test_a_good_conversation_has_nothing_odd() -> None:
    async with listening() as ward, sender(ward) as device:
        echoed(ward)
        for after_s in range(3):
            device.send(ADT, ADT)
            await device.hears()
            await device.hears()
            ward.sweep(10 * after_s)
            ward.sweep(10 * after_s + 5)
        device.writer.close()
        await ended(ward)
        assert not ward.oddities
        assert ward.closed[0].frames == 6
        assert ward.closed[0].bytes_in == 6 * len(wrap(ADT))


@on_both_loops
async def test_a_frame_of_many_messages_gets_many_answers() -> None:
    async with listening() as ward, sender(ward) as device:
        device.send(b"batch")
        await ward.until(lambda: ward.taken)
        connection = ward.connections[0]
        connection.expect(2)
        assert connection.unanswered == 3
        device.writer.write_eof()
        await ward.until(lambda: connection._eof)
        for number in range(3):
            assert not connection.gone
            connection.reply(b"%d" % number)
            ward.inlet.flush()
        assert await device.hears_the_end() == wrap(b"0") + wrap(b"1") + wrap(b"2")


# ---- through TLS


@on_both_loops
@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_messages_and_answers_go_through_tls(authority: Authority, own: Identity, newest: ssl.TLSVersion) -> None:
    async with listening(identity=own) as ward, sender(ward, authority.client(newest=newest)) as device:
        echoed(ward)
        device.send(ADT, b"2", b"3")
        assert [await device.hears() for _ in range(3)] == [b"A" + ADT, b"A2", b"A3"]
        connection = ward.connections[0]
        assert connection.bytes_in == len(wrap(ADT)) + 8, "what counts is what was said, not how it was sealed"
        assert not ward.oddities
        device.writer.close()
        await device.writer.wait_closed()
        await ended(ward)
        assert not ward.oddities


@on_both_loops
@pytest.mark.parametrize("size", [16_384 - 3, 1 << 24])
async def test_a_message_of_sixteen_mebibytes_goes_through_tls_both_ways(
    authority: Authority, own: Identity, size: int
) -> None:
    async with listening(identity=own) as ward, sender(ward, authority.client()) as device:
        ward.answers = lambda frame: frame
        message = b"MSH|" + bytes(range(32, 128)) * (size // 96 - 1)
        device.send(message)
        assert await device.hears() == message


@on_both_loops
async def test_a_half_closed_tls_sender_still_gets_its_answers(authority: Authority, own: Identity) -> None:
    # given a sender that says close_notify after its last message, which ends its own side only (RFC 8446 §6.1)
    async with listening(identity=own) as ward:
        raw = socket.create_connection(("127.0.0.1", ward.inlet.port))
        raw.setblocking(False)
        async with tls_by_hand(authority.client(), raw) as device:
            await device.write(wrap(b"1") + wrap(b"2"))
            await device.end()
            await ward.until(lambda: len(ward.taken) == 2 and ward.connections[0]._eof)
            ward.connections[0].reply(b"A1")
            await asyncio.sleep(0)
            ward.connections[0].reply(b"A2")
            assert await device.rest() == wrap(b"A1") + wrap(b"A2")
            await ended(ward)


class ByHand:
    """A TLS client that can end its own side, which asyncio's and Python's own cannot."""

    def __init__(self, context: ssl.SSLContext, raw: socket.socket) -> None:
        self._raw = raw
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_hostname="localhost")

    async def shake(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._send()
                self._in.write(await asyncio.get_running_loop().sock_recv(self._raw, 65_536))
            else:
                return await self._send()

    async def _send(self) -> None:
        await asyncio.get_running_loop().sock_sendall(self._raw, self._out.read())

    async def write(self, data: bytes) -> None:
        self._tls.write(data)
        await self._send()

    async def end(self) -> None:
        with pytest.raises(ssl.SSLWantReadError):
            self._tls.unwrap()
        await self._send()

    def _read(self) -> bytes:
        try:
            return self._tls.read(65_536)
        except ssl.SSLZeroReturnError:  # instead of an empty read, once it has said close_notify itself
            return b""

    async def rest(self) -> bytes:
        """What comes until its close_notify or the end."""
        said = b""
        async with asyncio.timeout(WITHIN_S):
            while piece := await asyncio.get_running_loop().sock_recv(self._raw, 65_536):
                self._in.write(piece)
                with contextlib.suppress(ssl.SSLWantReadError):
                    while text := self._read():
                        said += text
                    return said
        raise AssertionError("it ended without close_notify")


@asynccontextmanager
async def tls_by_hand(context: ssl.SSLContext, raw: socket.socket) -> AsyncIterator[ByHand]:
    device = ByHand(context, raw)
    try:
        await device.shake()
        yield device
    finally:
        raw.close()


@on_both_loops
async def test_a_tls_sender_that_does_not_read_its_answers_is_not_read_from(
    authority: Authority, own: Identity
) -> None:
    async with listening(identity=own) as ward, sender(ward, authority.client()) as device:
        ward.answers = lambda _: b"A" * 900_000
        device.reader._transport.pause_reading()  # type: ignore[attr-defined]
        for _ in range(30):
            device.send(b"M")
        connection = await connected(ward)
        await ward.until(lambda: connection._unread)
        assert connection._paused
        device.reader._transport.resume_reading()  # type: ignore[attr-defined]
        for _ in range(30):
            assert len(await device.hears()) == 900_000
        assert not connection._paused


@on_both_loops
async def test_closing_a_tls_connection_says_so_after_the_last_answer(authority: Authority, own: Identity) -> None:
    async with listening(identity=own) as ward:
        raw = socket.create_connection(("127.0.0.1", ward.inlet.port))
        raw.setblocking(False)
        async with tls_by_hand(authority.client(), raw) as device:
            await device.write(wrap(b"1"))
            await ward.until(lambda: ward.taken)
            ward.connections[0].reply(b"A1")
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(ward.inlet.close(drain_s=WITHIN_S))
                assert await device.rest() == wrap(b"A1")


@on_both_loops
async def test_a_frame_above_the_limit_is_answered_through_tls(authority: Authority, own: Identity) -> None:
    line = LineSpec(max_message_bytes=1_000)
    async with listening(line=line, identity=own) as ward, sender(ward, authority.client()) as device:
        device.writer.write(b"\x0bMSH|" + b"x" * 2_000_000)
        assert await device.hears() == b"AR"
        device.writer.transport.abort()
        await ended(ward)
        assert isinstance(ward.broken[0], FrameTooLong)


@on_both_loops
async def test_bytes_damaged_on_the_way_end_a_tls_connection_whatever_is_still_owed(
    authority: Authority, own: Identity
) -> None:
    async with listening(identity=own) as ward:
        raw = socket.create_connection(("127.0.0.1", ward.inlet.port))
        raw.setblocking(False)
        async with tls_by_hand(authority.client(), raw) as device:
            await device.write(wrap(ADT))
            await ward.until(lambda: ward.taken)
            await asyncio.get_running_loop().sock_sendall(raw, b"\x17\x03\x03\x00\x20" + bytes(32))
            await ward.until(lambda: ward.oddities)
            connection = ward.connections[0]
            connection.reply(b"A")
            ward.inlet.flush()
            assert connection.gone
            assert not connection.tell(b"later")
            assert connection.failure == "the encrypted bytes were damaged on the way"
        await ended(ward)
        assert ward.oddities == [Oddity.TLS_FAILED]


@on_both_loops
async def test_nothing_is_told_to_a_tls_sender_before_the_handshake(own: Identity) -> None:
    async with listening(identity=own) as ward, sender(ward):
        connection = await connected(ward)
        assert not connection.ready
        assert not connection.tell(b"early")


@on_both_loops
async def test_a_client_certificate_of_our_authority_is_let_in(authority: Authority, asking: Identity) -> None:
    client = authority.client(authority.issue("device", client=True))
    async with listening(identity=asking) as ward, sender(ward, client) as device:
        echoed(ward)
        device.send(ADT)
        assert await device.hears() == b"A" + ADT


async def refused(ward: Ward, client: ssl.SSLContext) -> str:
    """Why a client's TLS failed, in our words; it hears of it, and gets no answer."""

    async def send() -> None:
        async with sender(ward, client) as device:
            device.send(ADT)  # TLS 1.3 lets a client speak before it is believed
            await device.hears()

    with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
        await send()
    await ended(ward)
    assert ward.oddities == [Oddity.TLS_FAILED]
    assert not ward.taken
    return ward.closed[0].failure


@on_both_loops
async def test_a_client_without_a_certificate_is_refused_and_told(authority: Authority, asking: Identity) -> None:
    async with listening(identity=asking) as ward:
        assert await refused(ward, authority.client()) == "the other side shows no certificate"


@on_both_loops
async def test_a_client_of_an_unknown_authority_is_refused_and_told(
    authority: Authority, asking: Identity, tmp_path: Path
) -> None:
    client = authority.client(Authority(tmp_path, "Elsewhere").issue("stranger", client=True))
    async with listening(identity=asking) as ward:
        assert "an authority that we do not know" in await refused(ward, client)


@on_both_loops
async def test_a_client_whose_certificate_has_expired_is_refused_and_told(
    authority: Authority, asking: Identity
) -> None:
    client = authority.client(authority.issue("old", client=True, days=-1))
    async with listening(identity=asking) as ward:
        assert "certificate has expired" in await refused(ward, client)


@on_both_loops
async def test_a_handshake_may_not_take_for_ever(authority: Authority, own: Identity) -> None:
    # given one sender that says nothing, and one that gives the hello byte by byte
    async with listening(identity=own) as ward, sender(ward) as silent, sender(ward) as slow:
        slow.writer.write(b"\x16\x03\x01")
        await ward.until(lambda: len(ward.connections) == 2)
        ward.sweep(0)
        ward.sweep(9)
        assert not ward.oddities
        ward.sweep(11)
        await asyncio.gather(silent.hears_the_end(), slow.hears_the_end())
        assert ward.oddities == [Oddity.TLS_FAILED] * 2
        assert ward.connections[0].failure == "no TLS handshake within 10 s"


@on_both_loops
async def test_a_reset_in_the_middle_of_the_handshake_is_told(own: Identity) -> None:
    async with listening(identity=own) as ward, sender(ward) as device:
        device.writer.write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        await ward.until(lambda: ward.connections and ward.connections[0].bytes_in)
        device.reset()
        await ended(ward)
        assert ward.oddities == [Oddity.TLS_FAILED]
        assert "in the middle of the TLS handshake" in ward.closed[0].failure


@on_both_loops
async def test_a_look_at_a_tls_port_is_a_look_with_and_without_a_handshake(authority: Authority, own: Identity) -> None:
    async with listening(identity=own) as ward:
        async with sender(ward):
            await connected(ward)
        await ended(ward)
        async with sender(ward, authority.client()):
            await ward.until(lambda: ward.connections[-1].ready)
        await ended(ward, 2)
        assert ward.oddities == [Oddity.PROBE] * 2


@on_both_loops
@pytest.mark.parametrize("sizes", [[1], [1, 200], [5, 3], [1_000]])
async def test_plain_mllp_on_a_tls_port_is_answered_in_plain_text(own: Identity, sizes: list[int]) -> None:
    # given senders that write the start block on its own, and senders that do not
    async with listening(identity=own) as ward, sender(ward) as device:
        stream, begin = wrap(ADT), 0
        for size in itertools.cycle(sizes):
            device.writer.write(stream[begin : begin + size])
            begin += size
            await asyncio.sleep(0)
            if begin >= len(stream):
                break
        assert await device.hears_the_end() == wrap(b"AR")
        device.writer.close()
        await ended(ward)
        [error] = ward.broken
        assert isinstance(error, PlainText)
        assert error.head.startswith(ADT.partition(b"\r")[0]), "the answer needs the whole of MSH"
        assert ward.oddities == [Oddity.PLAIN_ON_TLS]


@on_both_loops
@pytest.mark.parametrize("gives_up", [True, False])
async def test_half_a_plain_segment_on_a_tls_port_is_waited_for_as_long_as_it_may_come(
    own: Identity, gives_up: bool
) -> None:
    async with listening(identity=own) as ward, sender(ward) as device:
        device.writer.write(b"\x0bMSH|^~\\&|AD")
        await ward.until(lambda: ward.oddities)
        assert not ward.broken
        if gives_up:
            device.writer.write_eof()
        else:
            ward.sweep(0)
            ward.sweep(1.5)
        assert await device.hears_the_end() == wrap(b"AR")
        assert ward.broken[0].head == b"MSH|^~\\&|AD"


@on_both_loops
@pytest.mark.parametrize(
    ("stream", "oddity", "answer"),
    [
        (ADT, Oddity.PLAIN_ON_TLS, b""),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", Oddity.HTTP, b"HTTP/1.1 400 "),
        (b"\x00\x0b\x00M\x00S\x00H", Oddity.PLAIN_ON_TLS, b""),
    ],
)
async def test_other_plain_text_on_a_tls_port_is_sent_away(
    own: Identity, stream: bytes, oddity: Oddity, answer: bytes
) -> None:
    async with listening(identity=own) as ward, sender(ward) as device:
        device.writer.write(stream)
        said = await device.hears_the_end()
        assert said.startswith(answer)
        assert bool(said) is bool(answer)
        assert ward.oddities == [oddity]
        assert not ward.broken


@on_both_loops
async def test_http_inside_tls_is_told_so_inside_tls(authority: Authority, own: Identity) -> None:
    async with listening(identity=own) as ward, sender(ward, authority.client()) as device:
        device.writer.write(b"POST /hl7 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await device.hears_the_end()).startswith(b"HTTP/1.1 400 ")
        assert ward.oddities == [Oddity.HTTP]


@on_both_loops
async def test_silence_inside_tls_is_explained_as_without_it(authority: Authority, own: Identity) -> None:
    async with listening(identity=own) as ward, sender(ward, authority.client()) as device:
        device.writer.write(ADT)
        await ward.until(lambda: ward.connections[0].bytes_in == len(ADT))
        ward.sweep(0)
        ward.sweep(2)
        assert ward.oddities == [Oddity.NO_START]


@on_both_loops
async def test_a_renewed_certificate_is_for_later_connections_and_earlier_ones_live_on(
    authority: Authority, tmp_path: Path
) -> None:
    issued = authority.issue("agent")
    identity = Identity.load(issued.spec(), dials=False)
    async with listening(identity=identity) as ward, sender(ward, authority.client()) as old:
        echoed(ward)
        renewed = authority.issue("renewed")
        renewed.certificate.rename(issued.certificate)
        renewed.key.rename(issued.key)
        assert identity.refresh()
        async with sender(ward, authority.client()) as young:
            for device, message in ((old, b"1"), (young, b"2"), (old, b"3")):
                device.send(message)
                assert await device.hears() == b"A" + message
            assert shown(old) != shown(young)


def shown(device: Sender) -> object:
    return device.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)


# ---- a TLS that we did not write


without_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="the openssl program is not installed")


async def openssl(ward: Ward, authority: Authority, *options: str, says: bytes = wrap(ADT)) -> tuple[bytes, str]:
    """What `openssl s_client` heard, and its complaints. It stays until the far end closes or has answered."""
    process = await asyncio.create_subprocess_exec(
        "openssl",
        "s_client",
        *("-connect", f"127.0.0.1:{ward.inlet.port}", "-CAfile", str(authority.file), "-quiet", "-no_ign_eof"),
        *options,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdin.write(says)
    async with asyncio.timeout(WITHIN_S):
        heard = b""
        while not heard.endswith(b"\x1c\r") and (piece := await process.stdout.read(4096)):
            heard += piece
        process.stdin.close()
        complaints = await process.stderr.read()
        await process.wait()
    return heard, complaints.decode()


@without_openssl
@on_both_loops
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
async def test_openssl_is_answered(authority: Authority, own: Identity, version: str) -> None:
    async with listening(identity=own) as ward:
        echoed(ward)
        heard, _ = await openssl(ward, authority, version, "-verify_return_error")
        assert heard == wrap(b"A" + ADT)
        await ended(ward)
        assert not ward.oddities


@without_openssl
@on_both_loops
async def test_openssl_is_let_in_with_a_certificate_and_sent_away_without(
    authority: Authority, asking: Identity
) -> None:
    device: Issued = authority.issue("device", client=True)
    async with listening(identity=asking) as ward:
        echoed(ward)
        heard, _ = await openssl(ward, authority, "-cert", str(device.certificate), "-key", str(device.key))
        assert heard == wrap(b"A" + ADT)
        heard, complaints = await openssl(ward, authority)
        assert heard == b""
        assert "certificate required" in complaints
        await ended(ward, 2)
        assert ward.closed[1].failure == "the other side shows no certificate"


@without_openssl
@on_both_loops
async def test_tls_1_1_is_too_old_and_openssl_hears_so(authority: Authority, own: Identity) -> None:
    async with listening(identity=own) as ward:
        heard, complaints = await openssl(ward, authority, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0")
        assert heard == b""
        assert "protocol version" in complaints
        await ended(ward)
        assert "no version of TLS in common" in ward.closed[0].failure


@without_openssl
@on_both_loops
async def test_on_a_plain_port_openssl_hears_that_there_is_no_tls(authority: Authority) -> None:
    async with listening() as ward:
        heard, complaints = await openssl(ward, authority)
        assert heard == b""
        assert "protocol version" in complaints
        await ended(ward)
        assert ward.oddities == [Oddity.TLS_ON_PLAIN]


@without_openssl
@on_both_loops
async def test_openssl_that_does_not_believe_us_is_understood(own: Identity, tmp_path: Path) -> None:
    async with listening(identity=own) as ward:
        heard, _ = await openssl(ward, Authority(tmp_path, "Other"), "-verify_return_error")
        assert heard == b""
        await ended(ward)
        assert ward.oddities == [Oddity.TLS_FAILED]
        assert ward.closed[0].failure == "the other side does not trust our certificate"
