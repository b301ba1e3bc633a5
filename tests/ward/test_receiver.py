"""A receiver on its good and on its bad days."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from scripted_peer import message

from agent.errors import LinkError
from agent.protocol.hl7 import Acknowledgement, Header, read_ack
from agent.protocol.mllp import Framer, wrap
from agent.ward.receiver import Behaviour, HangUp, Received, Receiver, Reply, Silence, open_receiver

ONE, TWO, THREE = message("1"), message("2"), message("3")


class Device(asyncio.Protocol):
    """What is connected to the receiver. `heard`: its answers, None at the end."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self._framer = Framer()
        self.heard: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.gone = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        for frame in self._framer.feed(data):
            self.heard.put_nowait(frame)

    def connection_lost(self, exc: Exception | None) -> None:
        self.heard.put_nowait(None)
        self.gone.set()

    def say(self, *bodies: bytes) -> None:
        self.transport.write(b"".join(wrap(body) for body in bodies))

    async def hears(self) -> bytes | None:
        async with asyncio.timeout(5):
            return await self.heard.get()

    async def hears_ack(self) -> Acknowledgement | None:
        return read_ack(await self.hears() or b"")


@asynccontextmanager
async def device(receiver: Receiver) -> AsyncIterator[Device]:
    _, device = await asyncio.get_running_loop().create_connection(Device, receiver.host, receiver.port)
    try:
        yield device
    finally:
        device.transport.abort()
        await device.gone.wait()


@pytest.mark.parametrize("code", ["AA", "AE", "AR", "CA", "CE", "CR"])
async def test_every_message_is_answered_with_the_code_asked_for(code: str) -> None:
    async with open_receiver("127.0.0.1", 0, Behaviour(Reply(code))) as receiver, device(receiver) as sender:
        sender.say(ONE, TWO)
        first, second = await sender.hears_ack(), await sender.hears_ack()
    assert first is not None
    assert second is not None
    assert (first.code, first.control_id, second.code, second.control_id) == (code, b"1", code, b"2")


async def test_the_answer_goes_back_to_who_sent_the_message() -> None:
    async with open_receiver("127.0.0.1", 0, Behaviour()) as receiver, device(receiver) as sender:
        sender.say(ONE)
        header = Header.of(await sender.hears() or b"")
    assert (header.sending_application, header.receiving_application) == (b"C", b"A")
    assert header.message_type == b"ACK^A08^ACK"


async def test_a_commit_is_followed_by_the_application() -> None:
    behaviour = Behaviour(Reply("CA", then="AR"))
    async with open_receiver("127.0.0.1", 0, behaviour) as receiver, device(receiver) as sender:
        sender.say(ONE)
        answers = [await sender.hears_ack(), await sender.hears_ack()]
    assert [(a.code, a.control_id) for a in answers if a] == [("CA", b"1"), ("AR", b"1")]


async def test_a_late_answer_does_not_hold_up_the_next_message() -> None:
    received: list[Received] = []
    behaviour = Behaviour(Reply(delay_s=0.1), every=2, otherwise=Reply("AE"))
    async with open_receiver("127.0.0.1", 0, behaviour, report=received.append) as receiver, device(receiver) as sender:
        sender.say(ONE, TWO)
        answers = [await sender.hears_ack(), await sender.hears_ack()]
    assert [(a.code, a.control_id) for a in answers if a] == [("AE", b"2"), ("AA", b"1")]
    assert [one.manner for one in received] == [Reply(delay_s=0.1), Reply("AE")]


async def test_silence() -> None:
    behaviour = Behaviour(Silence(), every=2, otherwise=Reply())
    async with open_receiver("127.0.0.1", 0, behaviour) as receiver, device(receiver) as sender:
        sender.say(ONE, TWO)
        only = await sender.hears_ack()
    assert only is not None
    assert only.control_id == b"2"


async def test_hanging_up() -> None:
    async with open_receiver("127.0.0.1", 0, Behaviour(HangUp())) as receiver, device(receiver) as sender:
        sender.say(ONE, TWO)
        assert await sender.hears() is None
        assert receiver.received == 1


async def test_an_answer_to_a_message_that_nobody_sent() -> None:
    async with open_receiver("127.0.0.1", 0, Behaviour(Reply(wrong_id=True))) as receiver, device(receiver) as sender:
        sender.say(ONE)
        answer = await sender.hears_ack()
    assert answer is not None
    assert (answer.code, answer.control_id) == ("AA", b"NOT-1")


async def test_a_message_is_reported_with_where_it_came_from() -> None:
    received: list[Received] = []
    reporting = open_receiver("127.0.0.1", 0, Behaviour(), report=received.append)
    async with reporting as receiver, device(receiver) as sender:
        sender.say(ONE)
        await sender.hears()
        host, port = sender.transport.get_extra_info("sockname")
    (one,) = received
    assert (one.number, one.kind, one.control_id, one.body) == (1, "ADT^A08", "1", ONE)
    assert one.remote == f"{host}:{port}"


async def test_what_is_no_hl7_is_rejected_with_the_reason() -> None:
    received: list[Received] = []
    reporting = open_receiver("127.0.0.1", 0, Behaviour(), report=received.append)
    async with reporting as receiver, device(receiver) as sender:
        sender.say(b"hello")
        answer = await sender.hears_ack()
    assert answer is not None
    assert (answer.code, answer.control_id) == ("AR", b"")
    assert answer.text == b"the message does not begin with an MSH segment"
    assert (received[0].kind, received[0].problem) == ("", "the message does not begin with an MSH segment")


async def test_a_message_above_the_limit_is_rejected_by_name_and_the_connection_closed() -> None:
    async with open_receiver("127.0.0.1", 0, Behaviour()) as receiver, device(receiver) as sender:
        sender.say(ONE + b"NTE|1||" + b"x" * (17 * 1024 * 1024))
        answer = await sender.hears_ack()
        assert await sender.hears() is None
    assert answer is not None
    assert (answer.code, answer.control_id) == ("AR", b"1")


def kept(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir()) if file.is_file()}


async def test_messages_are_kept_before_they_are_answered(tmp_path: Path) -> None:
    async with (
        open_receiver("127.0.0.1", 0, Behaviour(), save_to=tmp_path) as receiver,
        device(receiver) as sender,
    ):
        for body in (ONE, TWO):
            sender.say(body)
            await sender.hears()
            assert body in kept(tmp_path).values()
    assert [name[15:] for name in kept(tmp_path)] == ["-000001-ADT_A08-1.hl7", "-000002-ADT_A08-2.hl7"]


async def test_a_control_id_is_no_way_out_of_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    async with open_receiver("127.0.0.1", 0, Behaviour(), save_to=folder) as receiver, device(receiver) as sender:
        sender.say(message("../../../etc/x\x00"), message("C:\\CON"), message("." * 300))
        for _ in range(3):
            await sender.hears()
    assert len(kept(folder)) == 3
    assert kept(tmp_path) == {}


async def test_a_message_that_cannot_be_kept_is_not_accepted(tmp_path: Path) -> None:
    behaviour = Behaviour(Reply("CA"))
    gone = tmp_path / "gone"
    async with open_receiver("127.0.0.1", 0, behaviour, save_to=gone) as receiver, device(receiver) as sender:
        sender.say(ONE)
        answer = await sender.hears_ack()
    assert answer is not None
    assert answer.code == "CE"
    assert answer.text.startswith(b"not saved: ")


async def test_it_is_done_when_the_last_of_the_messages_is_answered() -> None:
    behaviour = Behaviour(Reply(delay_s=0.05))
    async with open_receiver("127.0.0.1", 0, behaviour, count=2) as receiver, device(receiver) as sender:
        sender.say(ONE)
        assert await sender.hears_ack()
        assert not receiver.done.is_set()
        sender.say(TWO, THREE)
        async with asyncio.timeout(5):
            await receiver.done.wait()
        answer = await sender.hears_ack()
        assert receiver.received == 2
    assert answer is not None
    assert answer.control_id == b"2"
    assert await sender.hears() is None


async def test_a_sender_that_leaves_is_owed_nothing() -> None:
    async with open_receiver("127.0.0.1", 0, Behaviour(Reply(delay_s=60)), count=1) as receiver:
        async with device(receiver) as sender:
            sender.say(ONE)
            sender.transport.write_eof()
            sender.transport.close()
        async with asyncio.timeout(5):
            await receiver.done.wait()


async def test_a_port_that_is_taken_is_a_sentence_with_its_remedy() -> None:
    async with open_receiver("127.0.0.1", 0, Behaviour()) as first:
        with pytest.raises(LinkError, match=f"cannot listen on 127.0.0.1 port {first.port}: ") as refused:
            async with open_receiver("127.0.0.1", first.port, Behaviour()):
                raise AssertionError("two on one port")
    assert "choose another port" in refused.value.hint


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has its own idea of socket buffers")
async def test_a_sender_that_does_not_read_its_answers_is_not_read_any_more() -> None:
    async with open_receiver("127.0.0.1", 0, Behaviour()) as receiver, device(receiver) as sender:
        sender.transport.pause_reading()
        flood = wrap(ONE) * 1000
        received = -1
        # until the buffers on the way are full: nothing moves although there is more to send
        while received != receiver.received or not sender.transport.get_write_buffer_size():
            received = receiver.received
            for _ in range(20):
                if sender.transport.get_write_buffer_size() < 1_000_000:
                    sender.transport.write(flood)
            await asyncio.sleep(0.1)
        # when the sender reads again, so does the receiver
        sender.transport.resume_reading()
        async with asyncio.timeout(5):
            while receiver.received == received:
                await sender.hears()
