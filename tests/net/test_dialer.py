"""A sender that is a server: we connect to it, and it sends."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from certificates import Authority
from net_far_ends import WITHIN_S, Sender, Ward, on_both_loops

from agent.backoff import Backoff
from agent.net.dialer import Dialer
from agent.net.inlet import Room
from agent.net.tls import Identity
from agent.protocol.forensics import Oddity
from agent.protocol.mllp import wrap
from agent.spec import LineSpec, TlsSpec


class Waits(Backoff):
    """Waits of no length to speak of, written down."""

    def __init__(self, wait_s: float = 0.001) -> None:
        super().__init__(wait_s, wait_s)
        self.waits = 0
        self.resets = 0

    def next(self) -> float:
        self.waits += 1
        return super().next()

    def reset(self) -> None:
        self.resets += 1
        super().reset()


class SendingSystem:
    """A server that sends to whoever connects. `calls`: who has."""

    def __init__(self) -> None:
        self.calls: asyncio.Queue[Sender] = asyncio.Queue()
        self.port = 0
        self.writers: list[asyncio.StreamWriter] = []

    @asynccontextmanager
    async def at_work(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[SendingSystem]:
        server = await asyncio.start_server(self._called, "127.0.0.1", self.port, ssl=tls)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for writer in self.writers:
                writer.transport.abort()

    async def _called(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        self.calls.put_nowait(Sender(reader, writer))

    async def called(self) -> Sender:
        async with asyncio.timeout(WITHIN_S):
            return await self.calls.get()


@asynccontextmanager
async def dialing(
    port: int, *, identity: Identity | None = None, host: str = "localhost", waits: Backoff | None = None
) -> AsyncIterator[tuple[Ward, Dialer]]:
    ward = Ward()
    ward.answers = lambda frame: b"A" + frame
    dialer = Dialer(host, port, line=LineSpec(), identity=identity, room=Room(1 << 26), backoff=waits or Waits())
    ward.inlet = dialer
    dialer.events = ward.events
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(dialer.run())
        yield ward, dialer
        await dialer.close()


def free_port() -> int:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as unused:
        return int(unused.getsockname()[1])


# ---- while it goes well


@on_both_loops
async def test_it_connects_takes_messages_and_answers_them() -> None:
    async with SendingSystem().at_work() as system, dialing(system.port) as (ward, dialer):
        sender = await system.called()
        sender.send(b"1", b"2")

        assert [await sender.hears(), await sender.hears()] == [b"A1", b"A2"]
        assert ward.frames == [b"1", b"2"]
        assert dialer.listening
        assert dialer.trouble == ""
        assert dialer.port == system.port
        assert ward.connections[0].remote == f"127.0.0.1:{system.port}"


@on_both_loops
async def test_a_lost_connection_is_made_again_and_only_one_at_a_time() -> None:
    async with SendingSystem().at_work() as system, dialing(system.port) as (ward, dialer):
        for number in range(3):
            sender = await system.called()
            sender.send(b"%d" % number)
            assert await sender.hears() == b"A%d" % number
            assert len(dialer.connections) == 1
            assert system.calls.empty()
            sender.writer.close()
        await ward.until(lambda: len(ward.closed) == 3)


@on_both_loops
async def test_a_system_that_starts_later_is_found() -> None:
    system = SendingSystem()
    system.port = free_port()
    waits = Waits()
    async with dialing(system.port, waits=waits) as (ward, dialer):
        await ward.until(lambda: waits.waits > 2)
        assert not dialer.listening
        assert dialer.trouble == f"cannot connect to localhost:{system.port}: connection refused"
        async with system.at_work():
            await system.called()
            await ward.until(lambda: dialer.trouble == "")
            assert waits.resets == 0, "a connection has to prove itself"


@on_both_loops
async def test_a_connection_that_brought_a_message_makes_the_next_wait_a_short_one() -> None:
    waits = Waits()
    async with SendingSystem().at_work() as system, dialing(system.port, waits=waits) as (ward, _):
        first = await system.called()
        first.writer.close()
        second = await system.called()
        assert waits.resets == 0
        second.send(b"1")
        await second.hears()
        second.writer.close()
        await system.called()
        assert waits.resets == 1
        assert len(ward.closed) == 2


@on_both_loops
async def test_why_a_connection_ended_is_told() -> None:
    async with SendingSystem().at_work() as system, dialing(system.port, waits=Waits(600)) as (ward, dialer):
        (await system.called()).writer.close()

        await ward.until(lambda: dialer.trouble == f"localhost:{system.port} has closed the connection")


@on_both_loops
async def test_a_name_that_does_not_exist_is_told() -> None:
    async with dialing(1, host="no.such.host.invalid", waits=Waits(600)) as (ward, dialer):
        await ward.until(lambda: "resolved" in dialer.trouble)
        assert dialer.trouble == "the name no.such.host.invalid cannot be resolved"


# ---- stopping


@on_both_loops
async def test_a_stop_ends_a_long_wait() -> None:
    async with asyncio.timeout(WITHIN_S), dialing(free_port(), waits=Waits(600)) as (ward, dialer):
        await ward.until(lambda: "refused" in dialer.trouble)
        dialer.stop_accepting()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse what does not fit into the queue")
@on_both_loops
async def test_a_stop_ends_a_try_that_gets_no_answer() -> None:
    # given a server whose queue is full: the system drops the knocks of everybody else
    with contextlib.ExitStack() as sockets:
        server = sockets.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):
            queued = sockets.enter_context(socket.socket())
            queued.setblocking(False)
            queued.connect_ex(server.getsockname())
        async with asyncio.timeout(WITHIN_S), dialing(server.getsockname()[1], host="127.0.0.1") as (ward, dialer):
            await ward.until(lambda: dialer._deadline is not None)
            dialer.stop_accepting()


@on_both_loops
async def test_a_stop_leaves_the_connection_until_it_is_closed() -> None:
    async with SendingSystem().at_work() as system, dialing(system.port) as (ward, dialer):
        sender = await system.called()
        await ward.until(lambda: dialer.listening)
        dialer.stop_accepting()
        sender.send(b"1")
        assert await sender.hears() == b"A1"
        await dialer.close(drain_s=WITHIN_S)
        assert await sender.hears_the_end() == b""
        assert system.calls.empty()


# ---- through TLS


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def server_of(authority: Authority, *, asks: bool = False, **certificate: tuple[str, ...]) -> ssl.SSLContext:
    issued = authority.issue("system", **certificate)  # type: ignore[arg-type]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.certificate, issued.key)
    if asks:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(authority.file)
    return context


def believing(authority: Authority) -> Identity:
    return Identity.load(TlsSpec("main", client_ca=authority.file), dials=True)


@on_both_loops
async def test_it_speaks_tls_and_believes_the_authority_of_its_settings(authority: Authority) -> None:
    async with (
        SendingSystem().at_work(server_of(authority)) as system,
        dialing(system.port, identity=believing(authority)) as (ward, dialer),
    ):
        sender = await system.called()
        sender.send(b"MSH|1")
        assert await sender.hears() == b"AMSH|1"
        assert dialer.listening
        assert not ward.oddities


@on_both_loops
async def test_it_shows_its_own_certificate(authority: Authority) -> None:
    own = authority.issue("agent", client=True)
    identity = Identity.load(own.spec(client_ca=authority.file), dials=True)
    async with (
        SendingSystem().at_work(server_of(authority, asks=True)) as system,
        dialing(system.port, identity=identity),
    ):
        sender = await system.called()
        sender.send(b"1")
        assert await sender.hears() == b"A1"
        shown = sender.writer.get_extra_info("ssl_object").getpeercert()
        assert (("commonName", "agent"),) in shown["subject"]


async def trouble_with(server: ssl.SSLContext | None, identity: Identity, host: str = "localhost") -> str:
    async with (
        SendingSystem().at_work(server) as system,
        dialing(system.port, identity=identity, host=host, waits=Waits(600)) as (ward, dialer),
    ):
        if server is None:
            (await system.called()).writer.write(wrap(b"MSH|^~\\&|\r"))
            await ward.until(lambda: ward.broken)
            system.writers[0].close()
        await ward.until(lambda: ward.closed)
        await ward.until(lambda: "not made yet" not in dialer.trouble)
        assert not dialer.listening
        assert not ward.taken
        assert ward.oddities == [Oddity.TLS_FAILED if server is not None else Oddity.PLAIN_ON_TLS]
        return dialer.trouble.replace(f":{system.port}", "")


@on_both_loops
async def test_a_system_of_an_unknown_authority_is_not_believed(authority: Authority, tmp_path: Path) -> None:
    server = server_of(Authority(tmp_path, "Elsewhere"))

    assert await trouble_with(server, believing(authority)) == (
        "no TLS with localhost: the other side's certificate comes from an authority that we do not know"
    )


@on_both_loops
async def test_a_system_of_another_name_is_not_believed(authority: Authority) -> None:
    server = server_of(authority, hosts=("elsewhere",), addresses=("127.0.0.2",))

    assert await trouble_with(server, believing(authority)) == (
        "no TLS with localhost: the other side's certificate is for another host name"
    )
    assert await trouble_with(server, believing(authority), "127.0.0.1") == (
        "no TLS with 127.0.0.1: the other side's certificate is for another address"
    )


@on_both_loops
async def test_a_system_that_speaks_plain_text_is_told_so_and_not_taken(authority: Authority) -> None:
    assert "has closed the connection" in await trouble_with(None, believing(authority))
