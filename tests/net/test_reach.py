"""From a name to a connection, and the words for all that may go wrong on the way."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from net_far_ends import WITHIN_S, on_both_loops
from outbound_far_ends import Caller, deaf_port, free_port, office, remote, spec_of

from agent.errors import ConfigError, Finding, Severity
from agent.failures import Kind
from agent.net import reach
from agent.net.tlswire import TlsFailure

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="other systems have fewer loopback addresses")


class Names(asyncio.SelectorEventLoop):
    """A loop whose resolver knows one name. None: it never answers."""

    def __init__(self, *addresses: str | None) -> None:
        super().__init__()
        self._addresses = addresses

    async def getaddrinfo(self, host: Any, port: Any, **_: Any) -> list[Any]:
        if None in self._addresses:
            await asyncio.Event().wait()
        return [
            (socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in self._addresses
            if address is not None
        ]


def where_names_are(*addresses: str | None) -> Callable[[Callable[[], Awaitable[None]]], None]:
    def run(test: Callable[[], Awaitable[None]]) -> None:
        with asyncio.Runner(loop_factory=lambda: Names(*addresses)) as runner:
            runner.run(test())  # type: ignore[arg-type]

    return run


# ---- names


def test_families_take_turns_and_no_address_is_tried_twice() -> None:
    async def live() -> None:
        found = await reach.resolve("lab.example", 2575)
        assert found == ["2001:db8::1", "10.0.0.1", "2001:db8::2", "10.0.0.2", "2001:db8::3"]

    where_names_are("2001:db8::1", "2001:db8::2", "2001:db8::1", "2001:db8::3", "10.0.0.1", "10.0.0.2")(live)


def test_an_address_is_no_name_and_asks_nobody() -> None:
    async def live() -> None:
        assert await reach.resolve("10.1.2.3", 2575) == ["10.1.2.3"]
        assert await reach.resolve("2001:DB8::1", 2575) == ["2001:db8::1"]

    where_names_are(None)(live)


@pytest.mark.skipif(not hasattr(socket, "if_nameindex"), reason="this host does not number its interfaces")
async def test_an_address_keeps_its_zone() -> None:
    number, name = socket.if_nameindex()[0]
    if not socket.has_ipv6:
        pytest.skip("this host speaks no IPv6")
    assert await reach.resolve(f"fe80::1%{name}", 2575) == [f"fe80::1%{number}"]


def test_a_name_server_that_is_silent_uses_up_the_time() -> None:
    async def live() -> None:
        async with office(connect_within_s=0.05) as here:
            failure = await here.dial(spec_of(2575, "lab.example")).failure_of("failed")
        assert failure.kind is Kind.DNS
        assert failure.text == "no name server has said within 0.05 s which address lab.example has"
        assert "name servers" in failure.remedy

    where_names_are(None)(live)


def test_a_name_that_is_being_resolved_can_be_given_up() -> None:
    async def live() -> None:
        async with office() as here:
            caller = here.dial(spec_of(2575, "lab.example"))
            for _ in range(5):
                await asyncio.sleep(0)
            caller.abort()
            assert (await caller.failure_of("failed")).kind is Kind.STOPPING

    where_names_are(None)(live)


# ---- addresses


@linux_only
def test_an_address_that_is_dead_does_not_stand_in_the_way_of_the_next() -> None:
    async def live() -> None:
        with deaf_port() as port:
            async with remote(host="127.0.0.2", port=port) as system, office() as here:
                caller = await here.connected(spec_of(port, "lab.example"))
                (await system.called()).send(b"1")
                await caller.is_told("heard")

    where_names_are("127.0.0.1", "127.0.0.2")(live)


@linux_only
def test_an_address_that_refuses_does_not_stand_in_the_way_of_the_next() -> None:
    async def live() -> None:
        async with remote(host="127.0.0.3") as system, office() as here:
            await here.connected(spec_of(system.port, "lab.example"))
            assert system.calls.qsize() == 1

    where_names_are("127.0.0.1", "127.0.0.2", "127.0.0.3")(live)


@linux_only
def test_of_two_addresses_that_answer_one_is_used_and_the_other_left_in_peace() -> None:
    async def live() -> None:
        async with remote(host="127.0.0.1") as first, remote(host="127.0.0.2", port=first.port) as second:
            async with office() as here:
                caller = await here.connected(spec_of(first.port, "lab.example"))
                caller.close()
                await caller.is_told("closed")
            assert (first.calls.qsize(), second.calls.qsize()) == (1, 0)

    where_names_are("127.0.0.1", "127.0.0.2")(live)


@linux_only
@pytest.mark.parametrize("addresses", [("127.0.0.1", "255.255.255.255"), ("255.255.255.255", "127.0.0.1")])
def test_when_all_fail_the_refusal_is_told_as_it_says_most(addresses: tuple[str, str]) -> None:
    async def live() -> None:
        async with office() as here:
            failure = await here.dial(spec_of(free_port(), "lab.example")).failure_of("failed")
        assert failure.kind is Kind.REFUSED
        assert failure.remedy.endswith(f"(lab.example is {', '.join(addresses)})")

    where_names_are(*addresses)(live)


@linux_only
@on_both_loops
async def test_an_address_to_which_there_is_no_way() -> None:
    async with office() as here:
        failure = await here.dial(spec_of(2575, "255.255.255.255")).failure_of("failed")
    assert failure.kind is Kind.UNREACHABLE
    assert failure.text == "cannot connect to 255.255.255.255:2575: there is no way to this network (ENETUNREACH)"
    assert failure.remedy


@on_both_loops
async def test_what_comes_before_anybody_listens_is_told_all_the_same() -> None:
    async with remote() as system, office() as here:
        callers: list[Caller] = []
        for _ in range(20):
            callers.append(here.dial(spec_of(system.port)))
            far_end = await system.called()
            far_end.send(b"1")
            far_end.writer.close()
        for caller in callers:
            await caller.is_told("closed")
            assert caller.told == ["opened", "heard", "closed"]
            assert caller.failure is None


@pytest.mark.parametrize("politely", [True, False])
@on_both_loops
async def test_a_connection_that_is_over_before_anybody_listens_is_told_from_the_beginning(politely: bool) -> None:
    heard: list[object] = []

    class Listener(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            heard.append("made")

        def data_received(self, data: bytes) -> None:
            heard.append(data)

        def eof_received(self) -> None:
            heard.append("eof")

        def connection_lost(self, exc: Exception | None) -> None:
            heard.append(type(exc))

    async with remote() as system, asyncio.timeout(WITHIN_S):
        transport, knock = await asyncio.get_running_loop().create_connection(reach.Knock, "127.0.0.1", system.port)
        far_end = await system.called()
        far_end.send(b"1")
        while not knock._came:
            await asyncio.sleep(0.001)
        if politely:
            far_end.writer.close()
        else:
            far_end.reset()
        while not knock._ended and knock._lost is None:
            await asyncio.sleep(0.001)

        knock.hand_over(Listener())
        while len(heard) < (4 if politely else 3):
            await asyncio.sleep(0.001)

        assert transport.is_closing()
    end = ["eof", type(None)] if politely else [ConnectionResetError]
    assert heard == ["made", b"\x0b1\x1c\r", *end]


# ---- words

SPEC = spec_of(2575, "lab.example")


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (ConnectionRefusedError(1225, "of Windows"), Kind.REFUSED, "connection refused (ECONNREFUSED)"),
        (OSError(errno.ECONNRESET, ""), Kind.RESET, "the connection was reset (ECONNRESET)"),
        (OSError(errno.EHOSTUNREACH, ""), Kind.UNREACHABLE, "there is no way to this host (EHOSTUNREACH)"),
        (OSError(errno.ENETDOWN, ""), Kind.UNREACHABLE, "the network is down (ENETDOWN)"),
        (OSError(errno.ETIMEDOUT, ""), Kind.UNREACHABLE, "no answer (ETIMEDOUT)"),
        (OSError(errno.EACCES, ""), Kind.UNREACHABLE, "this host does not allow it (EACCES)"),
        (
            OSError(errno.ENFILE, ""),
            Kind.UNREACHABLE,
            "too many files and connections of this host are open (ENFILE)",
        ),
        (OSError(errno.EADDRNOTAVAIL, ""), Kind.UNREACHABLE, "no address of that kind, or no free port"),
        (OSError("without a number"), Kind.UNREACHABLE, "no reason given (OSError)"),
    ],
)
def test_why_there_is_no_connection(error: OSError, kind: Kind, text: str) -> None:
    failure = reach.not_connected(SPEC, error, [])
    assert failure.kind is kind
    assert failure.text.startswith("cannot connect to lab.example:2575: ")
    assert text in failure.text
    assert failure.remedy


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (ConnectionResetError(64, "of Windows"), Kind.RESET, "lab.example:2575 reset the connection (ECONNRESET)"),
        (OSError(errno.EPIPE, ""), Kind.RESET, "lab.example:2575 reset the connection (EPIPE)"),
        (TimeoutError(errno.ETIMEDOUT, ""), Kind.UNREACHABLE, "lab.example:2575 can no longer be reached (ETIMEDOUT)"),
        (OSError(errno.EHOSTUNREACH, ""), Kind.UNREACHABLE, "can no longer be reached (EHOSTUNREACH)"),
        (OSError(errno.EIO, ""), Kind.RESET, "the connection to lab.example:2575 broke: "),
        (ValueError("a bug"), Kind.CLOSED, "a fault in this agent has ended the connection to lab.example:2575"),
    ],
)
def test_why_a_connection_ended(error: Exception, kind: Kind, text: str) -> None:
    failure = reach.lost(SPEC, error)
    assert failure.kind is kind
    assert text in failure.text
    assert failure.text.endswith("; it may have received the message")
    assert failure.remedy


@pytest.mark.parametrize(
    ("error", "did"),
    [
        (None, "the connection was closed by it"),
        (ConnectionResetError(errno.ECONNRESET, ""), "the connection was lost (ECONNRESET)"),
    ],
)
def test_why_a_handshake_ended(error: Exception | None, did: str) -> None:
    failure = reach.lost_in_handshake(SPEC, error)
    assert failure.kind is Kind.TLS
    assert failure.text == f"no TLS with lab.example:2575: {did} in the middle of the handshake"


def test_tls_and_our_own_files_speak_for_themselves() -> None:
    assert str(reach.no_tls(SPEC, TlsFailure("it has expired", hint="renew it"))) == (
        "no TLS with lab.example:2575: it has expired — renew it"
    )
    findings = [
        Finding("tls.key", Severity.ERROR, f"{name} is gone", f"bring {name} back", f"tls.main.{name}")
        for name in ("key", "ca")
    ]
    assert str(reach.unusable(SPEC, ConfigError(findings))) == (
        "no TLS with lab.example:2575: tls.main.key: key is gone; tls.main.ca: ca is gone — bring key back"
    )


@given(number=st.integers(0, 300), host=st.sampled_from(["lab.example", "10.1.2.3", "2001:db8::1"]))
def test_every_error_of_the_system_has_words_and_a_remedy(number: int, host: str) -> None:
    spec = spec_of(2575, host)
    error = OSError(number, os.strerror(number))
    for failure in (reach.not_connected(spec, error, [host]), reach.lost(spec, error)):
        assert spec.where in failure.text
        assert errno.errorcode.get(number, "OSError") in failure.text
        assert failure.remedy
        assert "\n" not in str(failure)
