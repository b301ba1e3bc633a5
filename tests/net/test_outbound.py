"""Connections to remotes, in plain text: how they come about, what is told of them, and how they end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import os
import re
import socket
import sys
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from net_far_ends import on_both_loops
from outbound_far_ends import LINGER_0, Caller, Office, Wire, deaf_port, door, free_port, office, remote, spec_of

from agent.failures import Failure, Kind
from agent.net.line import MAX_ANSWER_BYTES, Line
from agent.net.outbound import Outbound
from agent.protocol.mllp import wrap

ADT = b"MSH|^~\\&|AGENT|||LAB|20260101||ADT^A01|1|P|2.5\r"
ACK = b"MSH|^~\\&|LAB|||AGENT|20260101||ACK^A01|2|P|2.5\rMSA|AA|1\r"

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse what does not fit into the queue")
speaks_ipv6 = pytest.mark.skipif(not socket.has_ipv6, reason="this host speaks no IPv6")


# ---- while it goes well


@on_both_loops
async def test_a_message_goes_out_in_a_frame_and_its_answer_comes_back_without_one() -> None:
    async with remote() as system, office() as here:
        caller = await here.connected(spec_of(system.port))
        far_end = await system.called()

        caller.send(ADT)
        assert await far_end.reader.readexactly(len(ADT) + 3) == wrap(ADT)
        far_end.send(ACK)
        await caller.is_told("heard")

        assert caller.frames == [ACK]
        assert (caller.line.frames, caller.line.begun, caller.line.noise) == (1, 0, b"")
        assert caller.line.connect_s > 0


@on_both_loops
async def test_a_connection_carries_one_message_after_the_other() -> None:
    async with remote() as system, office() as here:
        caller = await here.connected(spec_of(system.port))
        far_end = await system.called()
        for number in range(20):
            caller.send(b"message %d" % number)
            far_end.send(b"answer to " + await far_end.hears())
            await caller.until(lambda wanted=number + 1: caller.line.frames == wanted)  # type: ignore[misc]
        assert caller.frames == [b"answer to message %d" % number for number in range(20)]


@on_both_loops
async def test_answers_that_arrive_together_are_told_together() -> None:
    async with remote() as system, office() as here:
        caller = await here.connected(spec_of(system.port))
        (await system.called()).send(b"1", b"2", b"3")
        await caller.is_told("heard")
        assert caller.reads == [[b"1", b"2", b"3"]]


@on_both_loops
async def test_an_answer_that_has_begun_is_counted_until_it_ends() -> None:
    async with remote() as system, office() as here:
        caller = await here.connected(spec_of(system.port))
        far_end = await system.called()
        for piece, begun in ((b"\x0b", 1), (b"MSH|", 5), (b"\x1c", 6)):
            far_end.writer.write(piece)
            await caller.until(lambda wanted=begun: caller.line.begun == wanted)  # type: ignore[misc]
        assert caller.told == ["opened"]
        far_end.writer.write(b"\r")
        await caller.is_told("heard")
        assert (caller.frames, caller.line.begun) == ([b"MSH|"], 0)


@speaks_ipv6
@on_both_loops
async def test_ipv6_is_spoken() -> None:
    async with remote(host="::1") as system, office() as here:
        caller = await here.connected(spec_of(system.port, "::1"))
        (await system.called()).send(ACK)
        await caller.is_told("heard")


@on_both_loops
async def test_a_name_is_resolved_and_the_address_that_answers_is_taken() -> None:
    # given a system that listens on one of the addresses of its name only
    async with remote(host="127.0.0.1") as system, office() as here:
        await here.connected(spec_of(system.port, "localhost"))


@on_both_loops
async def test_small_messages_are_not_held_back_and_a_silent_remote_is_asked_after() -> None:
    async with remote() as system, office() as here:
        caller = await here.connected(spec_of(system.port))
        connection = caller.line._transport.get_extra_info("socket")  # type: ignore[union-attr]
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        if hasattr(socket, "TCP_KEEPIDLE"):
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60


# ---- what stands in no frame


@on_both_loops
async def test_an_answer_without_framing_is_noise_and_told_once_for_each_message() -> None:
    async with remote() as system, office() as here:
        caller = await here.connected(spec_of(system.port))
        far_end = await system.called()
        came = 0
        for number in (1, 2):
            caller.send(ADT)
            assert caller.line.noise == b""
            for piece in (b"MSH|^~", b"\\&|LAB|HALL", b"|more"):
                far_end.writer.write(piece)
                came += len(piece)
                await caller.until(lambda wanted=came: caller.line._framer.skipped == wanted)  # type: ignore[misc]
            assert caller.line.noise == b"MSH|^~\\&|LAB|HALL"[:16]
            assert caller.noises == number * [b"MSH|^~"]
        assert "heard" not in caller.told


@on_both_loops
async def test_line_ends_between_answers_are_no_noise() -> None:
    async with remote() as system, office() as here:
        caller = await here.connected(spec_of(system.port))
        far_end = await system.called()
        caller.send(ADT)
        far_end.writer.write(b"\0 \r\n" + wrap(b"1") + b"\n" + wrap(b"2") + b"\r\n\t")
        await caller.until(lambda: caller.line.frames == 2)
        assert (caller.noises, caller.line.noise) == ([], b"")


@on_both_loops
async def test_nobody_is_told_of_noise_before_there_is_a_message() -> None:
    # given a system that greets whoever comes
    async with remote() as system, office() as here:
        caller = await here.connected(spec_of(system.port))
        (await system.called()).writer.write(b"220 lab ready")
        await caller.until(lambda: caller.line.noise)
        assert caller.told == ["opened"]
        caller.send(ADT)
        assert caller.line.noise == b""


def heard_from(pieces: list[bytes]) -> tuple[list[bytes], bytes, int, int]:
    """What a line makes of what comes after a message: frames, noise, what has begun, how often noise was told."""

    async def listen() -> tuple[list[bytes], bytes, int, int]:
        caller = Caller(Outbound())
        line = caller.line = Line(spec_of(1), caller, lambda _: None)
        line.connection_made(Wire())
        line.send(ADT)
        for piece in pieces:
            line.data_received(piece)
        assert not caller.wrong
        return caller.frames, line.noise, line.begun, len(caller.noises)

    return asyncio.run(listen())


def cut(stream: bytes, positions: list[int]) -> list[bytes]:
    edges = sorted({0, len(stream), *(position % (len(stream) + 1) for position in positions)})
    return [stream[begin:end] for begin, end in itertools.pairwise(edges)]


contents = st.binary(max_size=40).filter(lambda content: not re.search(rb"\x1c\r|\x0bMSH", content))
outsides = st.one_of(st.sampled_from([b"\r\n", b"\n", b" ", b"\x1c\r", b"HTTP/1.1 400 Bad"]), st.binary(max_size=30))


@settings(max_examples=300)
@given(
    parts=st.lists(st.tuples(outsides.map(lambda outside: outside.replace(b"\x0b", b"")), contents), max_size=5),
    rest=contents.filter(lambda content: not content.endswith(b"\x1c")),
    positions=st.lists(st.integers(0, 1_000), max_size=12),
)
def test_frames_and_noise_are_told_apart_however_the_network_cuts(
    parts: list[tuple[bytes, bytes]], rest: bytes, positions: list[int]
) -> None:
    stream = b"".join(outside + wrap(content) for outside, content in parts) + b"\x0b" + rest
    noise = b"".join(outside for outside, _ in parts).lstrip(b"\0\t\n\r ")[:16]

    assert heard_from(cut(stream, positions)) == ([content for _, content in parts], noise, 1 + len(rest), bool(noise))


@settings(max_examples=500)
@given(
    stream=st.lists(st.sampled_from([b"\x0b", b"\x1c", b"\r", b"\n", b"MSH", b"M", b"S", b"x"])).map(b"".join),
    positions=st.lists(st.integers(0, 1_000), max_size=20),
)
@example(stream=b"\x0bx\x1c\ry", positions=[3])
@example(stream=b"\x0b\x1c\r", positions=[1])
def test_whatever_comes_means_the_same_however_the_network_cuts(stream: bytes, positions: list[int]) -> None:
    assert heard_from(cut(stream, positions)) == heard_from([stream] if stream else [])


# ---- how it ends


@on_both_loops
async def test_a_remote_may_go_politely() -> None:
    async with remote() as system, office() as here:
        caller = await here.connected(spec_of(system.port))
        far_end = await system.called()
        far_end.writer.write(wrap(b"1") + b"\x0bMSA")
        far_end.writer.close()
        await caller.is_told("closed")
        assert caller.told == ["opened", "heard", "closed"]
        assert caller.failure is None
        assert caller.line.begun == 4, "it can still be seen that it went in the middle of an answer"


@on_both_loops
async def test_a_reset_is_told_as_one() -> None:
    async with remote() as system, office() as here:
        caller = await here.connected(spec_of(system.port))
        (await system.called()).reset()
        assert await caller.failure_of("closed") == Failure(
            Kind.RESET,
            f"127.0.0.1:{system.port} reset the connection (ECONNRESET); it may have received the message",
            "look into its log why",
        )


@on_both_loops
async def test_a_message_to_a_remote_that_has_gone_is_no_error() -> None:
    async with remote() as system, office() as here:
        caller = await here.connected(spec_of(system.port))
        (await system.called()).reset()
        await caller.is_told("closed")
        for _ in range(10):
            caller.send(ADT)
        caller.close()
        caller.abort()


@on_both_loops
async def test_our_close_is_polite_and_leaves_nothing_unwritten() -> None:
    async with remote() as system, office() as here:
        caller = await here.connected(spec_of(system.port))
        far_end = await system.called()
        caller.send(b"x" * 1_000_000)
        caller.close()
        assert await far_end.hears_the_end() == wrap(b"x" * 1_000_000)
        await caller.is_told("closed")
        assert caller.failure is None


@pytest.mark.parametrize("how", [Caller.close, Caller.abort])
@on_both_loops
async def test_a_remote_that_does_not_read_holds_nobody_up(how: Callable[[Caller], None]) -> None:
    async with remote() as system, office() as here:
        caller = await here.connected(spec_of(system.port))
        (await system.called()).writer.transport.pause_reading()
        caller.send(b"x" * (64 << 20))
        how(caller)
        await caller.is_told("closed")
        assert caller.failure is None


@on_both_loops
async def test_a_remote_that_closes_its_side_and_does_not_read_holds_nobody_up() -> None:
    async with remote() as system, office() as here:
        caller = await here.connected(spec_of(system.port))
        far_end = await system.called()
        far_end.writer.transport.pause_reading()
        caller.send(b"x" * (64 << 20))
        far_end.writer.write_eof()
        await caller.is_told("closed")


@pytest.mark.parametrize("how", [Caller.close, Caller.abort])
@on_both_loops
async def test_nothing_that_comes_after_our_end_is_told(how: Callable[[Caller], None]) -> None:
    async with remote() as system, office() as here:

        def reacts(name: str) -> None:
            if name == "noisy":
                how(caller)

        caller = here.dial(spec_of(system.port), reacts)
        await caller.is_told("opened")
        caller.send(ADT)
        (await system.called()).writer.write(b"noise" + wrap(ACK))
        await caller.is_told("closed")
        assert caller.told == ["opened", "noisy", "closed"]
        assert caller.failure is None


@pytest.mark.parametrize("first", [b"", wrap(ACK)])
@on_both_loops
async def test_an_answer_that_is_too_long_ends_the_connection(first: bytes) -> None:
    async with remote() as system, office() as here:
        caller = await here.connected(spec_of(system.port))
        (await system.called()).writer.write(first + b"\x0b" + b"x" * (MAX_ANSWER_BYTES + 1))
        failure = await caller.failure_of("closed")
        assert failure.kind is Kind.TOO_LONG
        assert failure.text == f"127.0.0.1:{system.port} sends an answer that is longer than 16 MiB"
        assert failure.remedy
        assert caller.frames == ([ACK] if first else [])


@on_both_loops
async def test_an_answer_may_be_as_long_as_the_limit() -> None:
    async with remote() as system, office() as here:
        caller = await here.connected(spec_of(system.port))
        (await system.called()).send(b"x" * MAX_ANSWER_BYTES)
        await caller.is_told("heard")
        assert caller.frames == [b"x" * MAX_ANSWER_BYTES]


@pytest.mark.parametrize("how", [Caller.close, Caller.abort])
async def test_nothing_that_was_on_its_way_when_we_ended_is_told(how: Callable[[Caller], None]) -> None:
    caller = Caller(Outbound())
    line = caller.line = Line(spec_of(1), caller, lambda _: None)
    line.connection_made(Wire())
    caller.send(ADT)
    how(caller)
    line.data_received(b"noise" + wrap(ACK) + b"\x0b" + b"x" * (MAX_ANSWER_BYTES + 1))
    line.eof_received()
    line.connection_lost(ConnectionResetError())
    assert caller.told == ["opened", "closed"]
    assert caller.failure is None


STEPS = ("dialled", "turn", "opened", "heard")
ENDS = (Caller.close, Caller.abort)


@pytest.mark.parametrize("ends", [*((end,) for end in ENDS), *itertools.product(ENDS, ENDS)])
@pytest.mark.parametrize("step", STEPS)
@on_both_loops
async def test_whenever_it_is_ended_and_however_often_one_whole_story_is_told(
    step: str, ends: tuple[Callable[[Caller], None], ...]
) -> None:
    async with remote() as system, office() as here:

        def reacts(name: str) -> None:
            if name == "opened":
                caller.send(ADT)
            if name == step:
                for end in ends:
                    end(caller)

        caller = here.dial(spec_of(system.port), reacts)
        if step == "turn":
            await asyncio.sleep(0)
        if step in ("dialled", "turn"):
            for end in ends:
                end(caller)
        if step == "heard":
            (await system.called()).send(ACK)
        await caller.until(lambda: {"failed", "closed"} & set(caller.told))
        assert caller.told == {"opened": ["opened", "closed"], "heard": ["opened", "heard", "closed"]}.get(
            step, ["failed"]
        )
        if caller.told == ["failed"]:
            assert caller.failure is not None
            assert caller.failure.kind is Kind.STOPPING


@settings(max_examples=60)
@given(turns=st.integers(0, 12), then=st.sampled_from(ENDS))
def test_at_whatever_turn_of_the_loop_it_is_ended_one_whole_story_is_told(
    turns: int, then: Callable[[Caller], None]
) -> None:
    async def live() -> None:
        async with remote() as system, office() as here:
            caller = here.dial(spec_of(system.port))
            for _ in range(turns):
                await asyncio.sleep(0)
            told = list(caller.told)
            then(caller)
            await caller.until(lambda: {"failed", "closed"} & set(caller.told))
            assert caller.told == [*told, "closed" if told else "failed"]

    asyncio.run(live())


# ---- why it does not come about


@pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("::1", marks=speaks_ipv6)])
@on_both_loops
async def test_a_port_where_nobody_listens(host: str) -> None:
    port = free_port(host)
    async with office() as here:
        failure = await here.dial(spec_of(port, host)).failure_of("failed")
    where = f"[::1]:{port}" if ":" in host else f"127.0.0.1:{port}"
    assert failure == Failure(
        Kind.REFUSED,
        f"cannot connect to {where}: connection refused (ECONNREFUSED)",
        "check that the system runs and listens there",
    )


@on_both_loops
async def test_the_addresses_of_a_name_are_told_with_the_remedy() -> None:
    async with office() as here:
        failure = await here.dial(spec_of(free_port(), "localhost")).failure_of("failed")
    assert failure.kind is Kind.REFUSED
    assert re.search(r"listens there \(localhost is .*127\.0\.0\.1.*\)$", failure.remedy)


@on_both_loops
async def test_a_name_that_does_not_exist() -> None:
    async with office() as here:
        failure = await here.dial(spec_of(2575, "no.such.host.invalid")).failure_of("failed")
    assert failure.kind is Kind.DNS
    assert re.fullmatch(r"the name no\.such\.host\.invalid has no address \(.+, EAI_[A-Z]+\)", failure.text)
    assert "name servers" in failure.remedy


@pytest.mark.parametrize("host", ["lab..example", ".lab", "x" * 64 + ".example", "ä" * 60, "", "lab\0", "a b", "%"])
@on_both_loops
async def test_what_is_no_name_at_all(host: str) -> None:
    async with office() as here:
        failure = await here.dial(spec_of(2575, host)).failure_of("failed")
    assert failure.kind is Kind.DNS
    assert failure.text.startswith(f"the name {host} has no address (")


@linux_only
@on_both_loops
async def test_an_address_that_does_not_answer() -> None:
    with deaf_port() as port:
        async with office(connect_within_s=0.2) as here:
            failure = await here.dial(spec_of(port)).failure_of("failed")
    assert failure == Failure(
        Kind.UNREACHABLE,
        f"cannot connect to 127.0.0.1:{port}: no answer within 0.2 s",
        "check the address and that the system is on; a firewall may drop the packets",
    )


@linux_only
@on_both_loops
async def test_a_try_that_gets_no_answer_can_be_given_up() -> None:
    with deaf_port() as port:
        async with office() as here:
            caller = here.dial(spec_of(port))
            await asyncio.sleep(0.01)
            caller.abort()
            assert (await caller.failure_of("failed")).kind is Kind.STOPPING


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
@on_both_loops
async def test_a_process_with_too_many_open_files_says_so() -> None:
    import resource

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with office() as here:
        taken: list[int] = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/dev/fd"))) + 20, limits[1]))
        try:
            with contextlib.suppress(OSError):
                while True:
                    taken.append(os.dup(0))
            failure = await here.dial(spec_of(2575)).failure_of("failed")
        finally:
            for number in taken:
                os.close(number)
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert failure.kind is Kind.UNREACHABLE
    assert failure.text == (
        "cannot connect to 127.0.0.1:2575: too many files and connections of this agent are open (EMFILE)"
    )
    assert "LimitNOFILE" in failure.remedy


# ---- who owns the connections


@on_both_loops
async def test_leaving_ends_every_connection_and_every_try() -> None:
    with deaf_port() as deaf:
        async with remote() as system:
            async with office() as here:
                idle = await here.connected(spec_of(system.port))
                busy = await here.connected(spec_of(system.port))
                busy.send(b"x" * (64 << 20))
                trying = here.dial(spec_of(deaf))
                just_dialled = here.dial(spec_of(system.port))
            assert [caller.told[-1] for caller in (idle, busy, trying, just_dialled)] == [
                "closed",
                "closed",
                "failed",
                "failed",
            ]
            assert all(caller.failure is None for caller in (idle, busy))


@on_both_loops
async def test_what_is_dialled_before_begins_then_and_what_is_dialled_afterwards_fails() -> None:
    async with remote() as system:
        here = Office(Outbound())
        early, given_up = here.dial(spec_of(system.port)), here.dial(spec_of(system.port))
        given_up.abort()
        async with here.outbound:
            also_given_up = here.dial(spec_of(system.port))
            also_given_up.close()
            await early.is_told("opened")
            assert (await given_up.failure_of("failed")).kind is Kind.STOPPING
        late = here.dial(spec_of(system.port))
        assert (await late.failure_of("failed")).kind is Kind.STOPPING
        for caller in here.callers:
            assert caller.is_told_all, caller.told
            assert not caller.wrong


@on_both_loops
async def test_who_runs_it_in_a_task_ends_it_by_cancelling() -> None:
    async with remote() as system:
        here = Office(Outbound())
        early = here.dial(spec_of(system.port))
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(here.outbound.run())
            await early.is_told("opened")
            caller = await here.connected(spec_of(system.port))
            running.cancel()
            await caller.is_told("closed")
        assert early.told == ["opened", "closed"]


@on_both_loops
async def test_what_nobody_expected_while_connecting_comes_out_and_ends_all() -> None:
    told: list[list[str]] = []

    async def live() -> None:
        async with remote() as system, office() as here:
            trying = here.dial(spec_of(system.port, "no.such.host.invalid"))
            idle = await here.connected(spec_of(system.port))

            def stumble(name: str) -> None:
                if name == "opened":
                    raise LookupError("a bug")

            stumbling = here.dial(spec_of(system.port), stumble)
            try:
                await asyncio.Event().wait()
            finally:
                late = here.dial(spec_of(system.port))
                await late.is_told("failed")
                told.extend(caller.told for caller in (trying, idle, stumbling, late))

    with pytest.raises(ExceptionGroup) as raised:
        await live()

    assert [type(error) for error in raised.value.exceptions] == [LookupError]
    assert told == [["failed"], ["opened", "closed"], ["opened", "closed"], ["failed"]]


@pytest.mark.parametrize("bug", [RuntimeError("a bug"), OSError(errno.ENOSPC, "a bug of the disk")])
@on_both_loops
async def test_a_bug_of_whoever_is_told_is_not_kept_quiet(bug: Exception) -> None:
    async with remote() as system, office(bugs=True) as here:

        def reacts(name: str) -> None:
            if name == "heard":
                raise bug

        caller = here.dial(spec_of(system.port), reacts)
        await caller.is_told("opened")
        (await system.called()).send(ACK)
        failure = await caller.failure_of("closed")
        assert failure.kind is Kind.CLOSED
        assert "a fault in this agent" in failure.text
        [seen] = here.bugs
        assert isinstance(seen, RuntimeError)
        assert seen is bug or seen.__cause__ is bug


@on_both_loops
async def test_a_system_that_resets_while_it_is_written_to() -> None:
    def script(connection: socket.socket) -> None:
        connection.recv(100)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)

    async with door(script) as port, office() as here:
        caller = await here.connected(spec_of(port))
        caller.send(b"x" * (64 << 20))
        failure = await caller.failure_of("closed")
        assert failure.kind is Kind.RESET
        assert re.search(r"reset the connection \((ECONNRESET|EPIPE)\)", failure.text)
