"""Which sockets an address means."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from agent.net.binding import Unbindable, bind

HAS_IPV6 = sys.platform == "win32" or os.path.exists("/proc/net/if_inet6")


@asynccontextmanager
async def bound(host: str, port: int = 0) -> AsyncIterator[list[socket.socket]]:
    sockets = await bind(host, port, "adt")
    with contextlib.ExitStack() as stack:
        for listening in sockets:
            stack.enter_context(listening)
        yield sockets


def reaches(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError:
        return False
    return True


async def problem(host: str, port: int = 0) -> Unbindable:
    with pytest.raises(Unbindable) as caught:
        async with bound(host, port):
            pass
    [finding] = caught.value.findings
    assert (finding.code, finding.where) == ("channel.cannot-listen", "adt")
    assert finding.remedy
    return caught.value


async def test_an_address_is_one_socket_ready_for_the_loop() -> None:
    async with bound("127.0.0.1") as [listening]:
        assert not listening.getblocking()
        assert listening.proto == socket.IPPROTO_TCP, "asyncio sets TCP_NODELAY only then"
        assert reaches("127.0.0.1", listening.getsockname()[1])


async def test_a_taken_port_is_said_to_be_taken() -> None:
    async with bound("127.0.0.1") as [listening]:
        caught = await problem("127.0.0.1", listening.getsockname()[1])
        assert caught.taken
        assert "taken by another program" in str(caught)


async def test_a_part_of_an_address_taken_is_all_of_it_taken() -> None:
    async with bound("127.0.0.1") as [listening]:
        assert (await problem("0.0.0.0", listening.getsockname()[1])).taken


@pytest.mark.skipif(sys.platform == "win32", reason="low ports are free there")
async def test_a_privileged_port_is_said_to_need_a_privilege() -> None:
    try:
        socket.create_server(("127.0.0.1", 1)).close()
    except OSError as error:
        if error.errno != errno.EACCES:
            raise
    else:
        pytest.skip("this user may bind any port")
    assert "below 1024" in str(await problem("127.0.0.1", 1))


async def test_a_foreign_address_is_said_to_be_foreign() -> None:
    caught = await problem("192.0.2.1")
    assert "not one of this machine's" in str(caught)
    assert not caught.taken


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 80, "..", "\udcff"])
async def test_a_name_that_nobody_knows_is_said_to_be_unresolvable(host: str) -> None:
    assert "cannot be resolved" in str(await problem(host))


@pytest.mark.skipif(not HAS_IPV6, reason="no IPv6 here")
async def test_two_colons_are_both_families() -> None:
    async with bound("::") as [listening]:
        port = listening.getsockname()[1]
        assert reaches("127.0.0.1", port)
        assert reaches("::1", port)


@pytest.mark.skipif(not HAS_IPV6, reason="no IPv6 here")
async def test_an_ipv6_address_is_that_address_only() -> None:
    async with bound("::1") as [listening]:
        port = listening.getsockname()[1]
        assert reaches("::1", port)
        assert not reaches("127.0.0.1", port)


async def test_a_name_is_all_its_addresses_on_one_port() -> None:
    async with bound("localhost") as sockets:
        assert len({listening.getsockname()[1] for listening in sockets}) == 1
        assert reaches("127.0.0.1", sockets[0].getsockname()[1])
