"""Which answer belongs to which message, on one connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_peer import Connection, Peer, ack, message, open_peer

from agent.protocol.mllp import wrap
from agent.ward.line import Ending, Line, LineLimits
from agent.ward.tally import Failure, Ledger, Tally


class Stock:
    """A supply that hands out what it has, at once."""

    def __init__(self, *bodies: bytes) -> None:
        self._bodies = list(bodies)

    def take(self) -> bytes | None:
        return self._bodies.pop(0) if self._bodies else None

    def wait_s(self) -> float:
        return 0.0

    def wait(self, resume: Callable[[], None]) -> None:
        raise AssertionError("nothing ever waits here")


class Exchange:
    """A line at work and the connection of the peer."""

    def __init__(self, line: Line, connection: Connection, ledger: Ledger) -> None:
        self.line = line
        self.connection = connection
        self._ledger = ledger

    def tally(self) -> Tally:
        return self._ledger.tally(1.0)

    async def ends(self) -> tuple[Ending | None, Tally]:
        async with asyncio.timeout(5):
            await self.line.closed.wait()
        tally = self.tally()
        assert tally.sent == tally.answered + tally.timed_out + tally.failed
        assert (tally.in_flight, tally.connections_open) == (0, 0)
        return self.line.ending, tally


@asynccontextmanager
async def exchange(
    peer: Peer, *bodies: bytes, pipeline: int = 1, ack_timeout_s: float = 5.0, linger_s: float = 0.0
) -> AsyncIterator[Exchange]:
    ledger = Ledger()
    transport, line = await asyncio.get_running_loop().create_connection(
        lambda: Line(Stock(*bodies), LineLimits(pipeline, ack_timeout_s, linger_s), ledger), peer.to.host, peer.to.port
    )
    try:
        connection = await peer.connection()
        line.fill()
        yield Exchange(line, connection, ledger)
    finally:
        transport.abort()
        await line.closed.wait()


ONE, TWO, THREE = message("1"), message("2"), message("3")


async def test_the_next_message_goes_when_the_one_before_is_answered(peer: Peer) -> None:
    async with exchange(peer, ONE, TWO) as e:
        assert await e.connection.hears() == ONE
        assert e.tally().in_flight == 1
        assert e.connection.heard.empty()
        e.connection.say(ack(ONE))
        assert await e.connection.hears() == TWO
        e.connection.say(ack(TWO, "AE"))
        ending, tally = await e.ends()
    assert ending is Ending.FINISHED
    assert tally.answers == {"AA": 1, "AE": 1}
    assert tally.latency.count == 2
    assert [failure.control_id for failure in tally.failures] == ["2"]


async def test_pipelined_answers_find_their_messages_in_any_order(peer: Peer) -> None:
    async with exchange(peer, ONE, TWO, THREE, pipeline=3) as e:
        for _ in range(3):
            await e.connection.hears()
        e.connection.say(ack(THREE, "AR"), ack(ONE), ack(TWO, "AE"))
        _, tally = await e.ends()
    assert tally.answers == {"AA": 1, "AE": 1, "AR": 1}
    assert [failure.control_id for failure in tally.failures] == ["3", "2"]


async def test_answers_without_msa_2_are_taken_in_order(peer: Peer) -> None:
    async with exchange(peer, ONE, TWO, pipeline=2) as e:
        await e.connection.hears()
        await e.connection.hears()
        e.connection.say(ack(ONE, "AE", named=False), ack(TWO, "AA", named=False))
        ending, tally = await e.ends()
    assert ending is Ending.FINISHED
    assert [failure.control_id for failure in tally.failures] == ["1"]


async def test_a_late_answer_is_not_taken_for_the_next_message(peer: Peer) -> None:
    async with exchange(peer, ONE, TWO, ack_timeout_s=0.1) as e:
        # given a message that timed out
        await e.connection.hears()
        await e.connection.hears()
        assert e.tally().timed_out == 1
        # when its positive answer comes after all, and the next one is refused
        e.connection.say(ack(ONE, "AA"), ack(TWO, "AR"))
        _, tally = await e.ends()
    # then only the refusal counts
    assert tally.answers == {"AR": 1}
    assert (tally.timed_out, tally.late, tally.unmatched) == (1, 1, 0)
    assert tally.failures[0] == Failure("1", "no answer within 0.1 s")


async def test_a_late_answer_that_names_nothing_ends_the_connection(peer: Peer) -> None:
    async with exchange(peer, ONE, TWO, ack_timeout_s=0.2) as e:
        await e.connection.hears()
        await e.connection.hears()
        e.connection.say(ack(ONE, named=False))
        ending, tally = await e.ends()
    assert ending is Ending.GIVEN_UP
    assert (tally.answered, tally.timed_out, tally.late, tally.failed) == (0, 1, 1, 1)
    assert "cannot be told apart" in tally.failures[1].reason


async def test_a_time_out_ends_the_connection_if_answers_name_nothing(peer: Peer) -> None:
    async with exchange(peer, ONE, TWO, ack_timeout_s=0.1) as e:
        await e.connection.hears()
        e.connection.say(ack(ONE, named=False))
        await e.connection.hears()
        ending, tally = await e.ends()
    assert ending is Ending.GIVEN_UP
    assert (tally.answered, tally.timed_out) == (1, 1)


async def test_an_answer_for_a_message_that_was_never_sent_matches_nothing(peer: Peer) -> None:
    async with exchange(peer, ONE) as e:
        await e.connection.hears()
        e.connection.say(ack(message("99")), ack(ONE), ack(ONE))
        _, tally = await e.ends()
    assert tally.answers == {"AA": 1}
    assert tally.unmatched == 2


async def test_an_answer_that_is_no_acknowledgement_fails_the_oldest_message(peer: Peer) -> None:
    async with exchange(peer, ONE, TWO, pipeline=2) as e:
        await e.connection.hears()
        e.connection.say(wrap(b"hello"), ack(TWO))
        _, tally = await e.ends()
    assert tally.answers == {"AA": 1}
    assert tally.failures == (Failure("1", "the answer is no HL7 acknowledgement"),)


async def test_messages_with_one_control_id_are_answered_in_order(peer: Peer) -> None:
    async with exchange(peer, ONE, ONE, ONE, pipeline=3) as e:
        await e.connection.hears()
        e.connection.say(ack(ONE), ack(ONE, "AE"), ack(ONE, "AR"))
        ending, tally = await e.ends()
    assert ending is Ending.FINISHED
    assert tally.answers == {"AA": 1, "AE": 1, "AR": 1}


async def test_an_application_answer_after_a_commit_is_counted_beside_it(peer: Peer) -> None:
    async with exchange(peer, ONE, TWO, linger_s=5.0) as e:
        await e.connection.hears()
        e.connection.say(ack(ONE, "CA"))
        await e.connection.hears()
        # the application is slower than the next message
        e.connection.say(ack(TWO, "CA"), ack(TWO, "AA"), ack(ONE, "AR"))
        # the line waits for both answers and for no longer than that
        ending, tally = await e.ends()
    assert ending is Ending.FINISHED
    assert tally.answers == {"CA": 2}
    assert tally.application_answers == {"AA": 1, "AR": 1}
    assert not tally.all_positive


async def test_an_application_that_never_answers_is_waited_for_only_so_long(peer: Peer) -> None:
    async with exchange(peer, ONE, linger_s=0.05) as e:
        await e.connection.hears()
        e.connection.say(ack(ONE, "CA"))
        ending, tally = await e.ends()
    assert ending is Ending.FINISHED
    assert tally.application_answers == {}


async def test_a_lost_connection_fails_what_was_unanswered(peer: Peer) -> None:
    async with exchange(peer, ONE, TWO, THREE, pipeline=2) as e:
        await e.connection.hears()
        await e.connection.hears()
        e.connection.transport.close()
        ending, tally = await e.ends()
    assert ending is Ending.LOST
    assert (tally.sent, tally.failed, tally.connections_lost) == (2, 2, 1)
    assert tally.failures[0] == Failure("1", "connection closed by the peer, before an answer")


async def test_an_answer_as_big_as_a_flood_ends_the_connection(peer: Peer) -> None:
    async with exchange(peer, ONE) as e:
        await e.connection.hears()
        e.connection.say(b"\x0b" + b"x" * (17 * 1024 * 1024))
        ending, tally = await e.ends()
    assert ending is Ending.LOST
    assert tally.failed == 1


async def test_what_is_no_hl7_is_sent_as_it_is(peer: Peer) -> None:
    async with exchange(peer, b"hello") as e:
        assert await e.connection.hears() == b"hello"
        e.connection.say(ack(ONE, "AR", named=False))
        _, tally = await e.ends()
    assert tally.answers == {"AR": 1}


actions = st.sampled_from(["answer", "answer unnamed", "commit", "nonsense", "other", "repeat", "nothing"])


@settings(max_examples=30, deadline=None)
@given(script=st.lists(actions, max_size=12), pipeline=st.integers(1, 4), hang_up=st.booleans())
def test_no_message_is_ever_lost_or_counted_twice(script: list[str], pipeline: int, hang_up: bool) -> None:
    async def play() -> None:
        bodies = [message(f"m{number}") for number in range(len(script))]
        async with open_peer() as peer, exchange(peer, *bodies, pipeline=pipeline, ack_timeout_s=0.05) as e:
            for action in script:
                if not (body := await e.connection.hears()):
                    break
                said = {
                    "answer": ack(body),
                    "answer unnamed": ack(body, named=False),
                    "commit": ack(body, "CA"),
                    "nonsense": wrap(b"MSH|nonsense"),
                    "other": ack(message("other")),
                    "repeat": ack(body) + ack(body),
                    "nothing": b"",
                }
                e.connection.say(said[action])
            if hang_up:
                e.connection.transport.close()
            ending, tally = await e.ends()  # checks that the sum is right
            assert ending is not None
            if ending is Ending.FINISHED:
                assert tally.sent == len(script)

    asyncio.run(play())
