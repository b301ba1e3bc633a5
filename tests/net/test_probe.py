"""A look at whether a remote can be reached, which leaves it in peace."""

from __future__ import annotations

import asyncio
import math
import socket
import ssl
import sys
from pathlib import Path

import pytest
from certificates import Authority
from net_far_ends import WITHIN_S, on_both_loops
from outbound_far_ends import deaf_port, door, free_port, remote

from agent.errors import LinkError
from agent.failures import Kind
from agent.net.probe import ProbeFailed, probe
from agent.spec import RemoteSpec, TlsSpec


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def server_of(authority: Authority) -> ssl.SSLContext:
    issued = authority.issue("lab")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.certificate, issued.key)
    return context


def secure(authority: Authority) -> RemoteSpec:
    return RemoteSpec("mllps://elsewhere:1", "elsewhere", 1, secure=True, tls=TlsSpec("main", client_ca=authority.file))


async def refusal(host: str, port: int, *, spec: RemoteSpec | None = None, within_s: float = 5.0) -> ProbeFailed:
    with pytest.raises(ProbeFailed) as raised:
        await probe(host, port, spec=spec, within_s=within_s)
    assert isinstance(raised.value, LinkError)
    assert str(raised.value) == raised.value.failure.text
    assert raised.value.hint == raised.value.failure.remedy
    return raised.value


@on_both_loops
async def test_a_remote_that_listens_is_looked_at_without_a_word_and_left_politely() -> None:
    async with remote() as system:
        assert 0 < await probe("127.0.0.1", system.port) < WITHIN_S
        assert await (await system.called()).hears_the_end() == b""


@on_both_loops
async def test_each_look_is_a_connection_of_its_own() -> None:
    async with remote() as system:
        for _ in range(3):
            assert math.isfinite(await probe("localhost", system.port))
        assert system.calls.qsize() == 3


@pytest.mark.skipif(not socket.has_ipv6, reason="this host speaks no IPv6")
@on_both_loops
async def test_ipv6_is_looked_at() -> None:
    async with remote(host="::1") as system:
        assert await probe("::1", system.port) > 0


@on_both_loops
async def test_a_remote_with_tls_is_looked_at_through_its_handshake(authority: Authority) -> None:
    left: list[bytes] = []

    def script(connection: socket.socket) -> None:
        with server_of(authority).wrap_socket(connection, server_side=True, suppress_ragged_eofs=False) as tls:
            left.append(tls.recv(100))  # without close_notify this is an error

    async with door(script) as port:
        assert await probe("localhost", port, spec=secure(authority)) > 0
    assert left == [b""]


@on_both_loops
async def test_a_port_where_nobody_listens_is_told() -> None:
    port = free_port()
    error = await refusal("127.0.0.1", port)
    assert error.failure.kind is Kind.REFUSED
    assert str(error) == f"cannot connect to 127.0.0.1:{port}: connection refused (ECONNREFUSED)"


@on_both_loops
async def test_a_name_that_does_not_exist_is_told() -> None:
    assert (await refusal("no.such.host.invalid", 2575)).failure.kind is Kind.DNS


@on_both_loops
async def test_a_remote_that_is_not_believed_is_told(authority: Authority, tmp_path: Path) -> None:
    async with remote(tls=server_of(Authority(tmp_path, "Elsewhere"))) as system:
        error = await refusal("localhost", system.port, spec=secure(authority))
    assert error.failure.kind is Kind.TLS
    assert str(error).startswith(f"no TLS with localhost:{system.port}: ")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse what does not fit into the queue")
@on_both_loops
async def test_no_answer_in_time_is_told() -> None:
    with deaf_port() as port:
        error = await refusal("127.0.0.1", port, within_s=0.1)
    assert error.failure.kind is Kind.UNREACHABLE
    assert "no answer within 0.1 s" in str(error)


@on_both_loops
async def test_a_remote_that_talks_or_goes_at_once_was_there_all_the_same() -> None:
    def script(connection: socket.socket) -> None:
        connection.sendall(b"220 lab ready\r\n\x0bMSH|\x1c\r")

    async with door(script) as port:
        for _ in range(20):
            assert await probe("127.0.0.1", port) > 0


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse what does not fit into the queue")
@on_both_loops
async def test_a_look_can_be_cancelled() -> None:
    with deaf_port() as port:
        async with asyncio.TaskGroup() as tasks:
            looking = tasks.create_task(probe("127.0.0.1", port))
            await asyncio.sleep(0.01)
            looking.cancel()
        assert looking.cancelled()
