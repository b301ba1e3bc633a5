"""Calls to analysers: over real sockets where it is about connections, in time of our own where it is about waiting."""

from __future__ import annotations

import asyncio
import socket

import pytest
from astm_instrument import ACK, ENQ, EOT, NAK, Instrument
from astmcall_far_ends import ORDER, Caller, calling, message_of, spec_of
from net_far_ends import WITHIN_S, on_both_loops
from outbound_far_ends import LINGER_0, deaf_port, door, free_port

from agent.failures import Failure, Kind
from agent.net.astmcall import AstmCalls


def text_of(failure: Failure | None) -> str:
    assert failure is not None
    return failure.text


@on_both_loops
async def test_records_become_a_session_and_one_follows_the_other() -> None:
    async with await Instrument.listen() as analyser, calling() as calls:
        caller = Caller(calls).calls(spec_of(analyser.port))
        await caller.is_told("opened")
        await analyser.called()
        for _ in range(2):
            caller.posts()
            assert await analyser.expect_session() == list(ORDER)
            assert await caller.hears_of_its_session() is None
        assert (caller.told, caller.wrong) == (["opened", "done", "done"], [])


@on_both_loops
async def test_frames_are_as_short_as_the_analyser_needs_them() -> None:
    async with await Instrument.listen() as analyser, calling() as calls:
        caller = Caller(calls).calls(spec_of(analyser.port, frame_bytes=64))
        await caller.is_told("opened")
        await analyser.called()
        caller.posts()
        assert await analyser.expect_session(text_bytes=64) == list(ORDER)


@on_both_loops
async def test_a_frame_that_is_refused_is_repeated_and_at_last_given_up() -> None:
    async with await Instrument.listen() as analyser, calling() as calls:
        caller = Caller(calls).calls(spec_of(analyser.port))
        await caller.is_told("opened")
        await analyser.called()
        caller.posts()
        assert await analyser.expect_session(refuse={1: 5}) == list(ORDER)
        assert await caller.hears_of_its_session() is None
        # the first frame: nothing is there
        caller.posts()
        assert await analyser.expect_session(refuse={0: 6}) == []
        refused = await caller.hears_of_its_session()
        assert refused is not None
        assert (refused.kind, refused.in_doubt) == (Kind.NOT_TAKEN, False)
        assert f"127.0.0.1:{analyser.port}" in refused.text
        # a later one: what came before it may be kept
        caller.posts()
        assert await analyser.expect_session(refuse={2: 6}) == list(ORDER[:2])
        refused = await caller.hears_of_its_session()
        assert refused is not None
        assert (refused.kind, refused.in_doubt) == (Kind.NOT_TAKEN, True)


@on_both_loops
async def test_an_analyser_may_interrupt() -> None:
    async with await Instrument.listen() as analyser, calling() as calls:
        caller = Caller(calls).calls(spec_of(analyser.port))
        await caller.is_told("opened")
        await analyser.called()
        caller.posts()
        await analyser.expect_session(interrupt_at=0)
        interrupted = await caller.hears_of_its_session()
        assert interrupted is not None
        assert (interrupted.kind, interrupted.in_doubt) == (Kind.INTERRUPTED, True)


@on_both_loops
async def test_what_is_lost_before_the_first_frame_is_certainly_not_there() -> None:
    async with await Instrument.listen() as analyser, calling() as calls:
        caller = Caller(calls).calls(spec_of(analyser.port))
        await caller.is_told("opened")
        await analyser.called()
        caller.posts()
        await analyser.hears(ENQ)
        analyser.hang_up()
        failure = await caller.hears_of_its_session()
        assert failure is not None
        assert (failure.kind, failure.in_doubt) == (Kind.CLOSED, False)
        await caller.is_told("closed")
        assert caller.told == ["opened", "done", "closed"]


@pytest.mark.parametrize(("resets", "kind"), [(True, Kind.RESET), (False, Kind.CLOSED)])
async def test_what_is_lost_in_the_middle_is_in_doubt(resets: bool, kind: Kind) -> None:
    def script(connection: socket.socket) -> None:
        assert connection.recv(1) == ENQ
        connection.sendall(ACK)
        assert b"\x02" in connection.recv(10_000)
        if resets:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)

    async with door(script) as port, calling() as calls:
        caller = Caller(calls).calls(spec_of(port))
        await caller.is_told("opened")
        caller.posts()
        failure = await caller.hears_of_its_session()
        assert failure is not None
        assert (failure.kind, failure.in_doubt) == (kind, True)
        await caller.is_told("closed")
        assert caller.told == ["opened", "done", "closed"]


@on_both_loops
async def test_an_analyser_that_goes_between_sessions_is_known_to_be_gone() -> None:
    async with await Instrument.listen() as analyser, calling() as calls:
        caller = Caller(calls).calls(spec_of(analyser.port))
        await caller.is_told("opened")
        await (await analyser.called()).go()
        await caller.is_told("closed")
        caller.posts()
        failure = await caller.hears_of_its_session()
        assert failure is not None
        assert (failure.kind, failure.in_doubt) == (Kind.CLOSED, False)


@on_both_loops
async def test_an_analyser_that_wants_to_send_is_refused_and_somebody_hears_so() -> None:
    async with await Instrument.listen() as analyser, calling() as calls:
        caller = Caller(calls).calls(spec_of(analyser.port))
        await caller.is_told("opened")
        await analyser.called()
        analyser.write(ENQ)
        await analyser.hears(NAK)
        assert caller.told == ["opened", "rang"]
        # and the line is still good for us
        caller.posts()
        assert await analyser.expect_session() == list(ORDER)
        assert await caller.hears_of_its_session() is None


@on_both_loops
async def test_noise_between_sessions_means_nothing() -> None:
    async with await Instrument.listen() as analyser, calling() as calls:
        caller = Caller(calls).calls(spec_of(analyser.port))
        await caller.is_told("opened")
        await analyser.called()
        analyser.write(ACK + EOT + b"HTTP/1.1 400 Bad Request\r\n" + ACK)
        caller.posts()
        await analyser.hears(ENQ)
        analyser.write(ACK)
        await analyser.hears(b"\x02")
        assert caller.told == ["opened"]


@on_both_loops
async def test_a_polite_end_reaches_the_analyser() -> None:
    async with await Instrument.listen() as analyser, calling() as calls:
        caller = Caller(calls).calls(spec_of(analyser.port))
        await caller.is_told("opened")
        await analyser.called()
        caller.closes()
        caller.closes()
        assert await analyser.hears_the_end() == b""
        await caller.is_told("closed")
        caller.aborts()
        assert (caller.told, caller.wrong) == (["opened", "closed"], [])


@on_both_loops
async def test_nobody_there_is_told_in_words() -> None:
    port = free_port()
    async with calling() as calls:
        caller = Caller(calls).calls(spec_of(port))
        await caller.is_told("failed")
        assert caller.failure is not None
        assert (caller.failure.kind, caller.told, caller.wrong) == (Kind.REFUSED, ["failed"], [])
        assert f"cannot connect to 127.0.0.1:{port}" in caller.failure.text


@on_both_loops
async def test_who_does_not_answer_is_not_waited_for_for_ever() -> None:
    with deaf_port() as port:
        async with calling(connect_within_s=0.2) as calls:
            caller = Caller(calls).calls(spec_of(port))
            await caller.is_told("failed")
            assert "no answer within 0.2 s" in text_of(caller.failure)


@on_both_loops
async def test_a_call_that_is_not_wanted_any_more_ends_before_it_is_made() -> None:
    with deaf_port() as port:
        async with calling() as calls:
            caller = Caller(calls).calls(spec_of(port))
            await asyncio.sleep(0)
            caller.aborts()
            caller.aborts()
            await caller.is_told("failed")
            assert (caller.told, caller.wrong) == (["failed"], [])


@on_both_loops
async def test_the_end_of_all_cuts_everything_and_everybody_has_heard_so() -> None:
    with deaf_port() as port:
        async with await Instrument.listen() as analyser:
            async with calling() as calls:
                on_its_way = Caller(calls).calls(spec_of(port))
                open_one = Caller(calls).calls(spec_of(analyser.port))
                await open_one.is_told("opened")
                await analyser.called()
                open_one.posts()
                await analyser.hears(ENQ)
                not_begun = Caller(calls).calls(spec_of(analyser.port))
            await asyncio.sleep(0)
            assert (on_its_way.told, not_begun.told) == (["failed"], ["failed"])
            assert open_one.told == ["opened", "done", "closed"]
            too_late = Caller(calls).calls(spec_of(analyser.port))
            await too_late.is_told("failed")
            assert too_late.wrong == []


@on_both_loops
async def test_what_is_asked_for_before_the_beginning_begins_then() -> None:
    async with await Instrument.listen() as analyser:
        calls = AstmCalls()
        caller, unwanted = Caller(calls).calls(spec_of(analyser.port)), Caller(calls).calls(spec_of(analyser.port))
        unwanted.aborts()
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(calls.run())
            await caller.is_told("opened")
            await unwanted.is_told("failed")
            running.cancel()
        await caller.is_told("closed")
        assert unwanted.told == ["failed"]


async def test_a_caller_that_trips_over_what_it_hears_is_no_secret_and_nobody_is_called_after_it() -> None:
    async with await Instrument.listen() as analyser:
        calls = AstmCalls()
        late = Caller(calls)
        loop = asyncio.get_running_loop()

        def trips(name: str) -> None:
            if name == "opened":
                raise LookupError(name)
            # when the group has heard of that, and whoever runs the calls has not
            loop.call_soon(loop.call_soon, late.calls, spec_of(analyser.port))

        async def story() -> None:
            async with asyncio.timeout(WITHIN_S), asyncio.TaskGroup() as tasks:
                tasks.create_task(calls.run())
                caller = Caller(calls)
                caller.reacts = trips
                caller.calls(spec_of(analyser.port))

        with pytest.raises(ExceptionGroup) as caught:
            await story()
        assert caught.group_contains(LookupError)
        await late.is_told("failed")
        assert late.told == ["failed"]


@on_both_loops
async def test_a_message_that_no_analyser_may_get_is_not_begun() -> None:
    async with await Instrument.listen() as analyser, calling() as calls:
        caller = Caller(calls).calls(spec_of(analyser.port))
        await caller.is_told("opened")
        for message in (message_of((b"H|\\^&", b"C|\x05")), b"\r"):
            caller.posts(message)
            failure = await caller.hears_of_its_session()
            assert failure is not None
            assert (failure.kind, failure.in_doubt) == (Kind.BAD_MESSAGE, False)
