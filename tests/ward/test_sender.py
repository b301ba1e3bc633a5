"""A whole run: connections, rate, lost connections, the end."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from time import perf_counter

import pytest
from scripted_peer import Peer, ack, message, open_peer

from agent.ward.destination import Destination, client_tls
from agent.ward.feed import feeds, load
from agent.ward.receiver import Behaviour, HangUp, Received, Reply, Silence, open_receiver
from agent.ward.sender import Pace, Sender
from agent.ward.tally import Tally


def bodies(number: int) -> Iterator[bytes]:
    return (admission.body for admission in islice(load(1, 700), number))


async def run(sender: Sender) -> Tally:
    async with asyncio.timeout(10):
        tally = await sender.run()
    assert tally.sent == tally.answered + tally.timed_out + tally.failed
    assert (tally.in_flight, tally.connections_open) == (0, 0)
    return tally


async def send(behaviour: Behaviour, number: int, pace: Pace) -> Tally:
    async with open_receiver("127.0.0.1", 0, behaviour) as receiver:
        return await run(Sender(Destination("127.0.0.1", receiver.port), [bodies(number)], pace))


async def test_everything_is_sent_once_over_all_connections() -> None:
    received: list[Received] = []
    async with open_receiver("127.0.0.1", 0, Behaviour(), report=received.append) as receiver:
        pace = Pace(connections=5, pipeline=8)
        tally = await run(Sender(Destination("127.0.0.1", receiver.port), [bodies(400)], pace))
    assert tally.all_positive
    assert tally.answers == {"AA": 400}
    assert tally.connections_opened == 5
    assert len({one.control_id for one in received}) == len(received) == 400
    assert len({one.remote for one in received}) == 5
    assert tally.sent_bytes == 400 * 700


async def test_every_feed_keeps_its_connection_and_its_order() -> None:
    received: list[Received] = []
    async with open_receiver("127.0.0.1", 0, Behaviour(), report=received.append) as receiver:
        hospital = [(one.body for one in feed) for feed in feeds(1, 4)]
        to = Destination("127.0.0.1", receiver.port)
        tally = await run(Sender(to, hospital, Pace(connections=4, pipeline=3, count=200)))
    assert tally.sent == 200
    ids_of: dict[str, list[str]] = {}
    for one in received:
        ids_of.setdefault(one.remote, []).append(one.control_id)
    for ids in ids_of.values():
        assert len({control_id[:3] for control_id in ids}) == 1
        assert ids == sorted(ids)


async def test_each_code_is_counted() -> None:
    for code in ("AA", "AE", "AR", "CA", "CE", "CR"):
        tally = await send(Behaviour(Reply(code)), 3, Pace(linger_s=0))
        assert tally.answers == {code: 3}
        assert tally.all_positive == (code in ("AA", "CA"))


async def test_every_third_message_fails() -> None:
    tally = await send(Behaviour(every=3), 9, Pace())
    assert tally.answers == {"AA": 6, "AE": 3}
    assert tally.failures[0].reason == "AE this receiver was told to answer so"


async def test_a_receiver_that_never_answers_leaves_time_outs() -> None:
    tally = await send(Behaviour(Silence()), 4, Pace(pipeline=4, ack_timeout_s=0.1))
    assert tally.timed_out == 4


async def test_a_wrong_msa_2_answers_nothing() -> None:
    tally = await send(Behaviour(Reply(wrong_id=True)), 2, Pace(pipeline=2, ack_timeout_s=0.1))
    assert (tally.timed_out, tally.unmatched, tally.answered) == (2, 2, 0)


async def test_commit_and_application_answers() -> None:
    tally = await send(Behaviour(Reply("CA", delay_s=0.02, then="AA")), 3, Pace(pipeline=3))
    assert tally.answers == {"CA": 3}
    assert tally.application_answers == {"AA": 3}
    assert tally.all_positive


async def test_answers_slower_than_the_time_out_are_late_and_nothing_is_mixed_up() -> None:
    async with open_receiver("127.0.0.1", 0, Behaviour(Reply(delay_s=0.15))) as receiver:
        to = Destination("127.0.0.1", receiver.port)
        tally = await run(Sender(to, [bodies(4)], Pace(ack_timeout_s=0.1)))
    assert tally.timed_out == 4
    assert tally.late >= 2
    assert tally.unmatched == 0


async def test_a_lost_connection_ends_the_run_and_says_so() -> None:
    tally = await send(Behaviour(HangUp()), 10, Pace())
    assert (tally.sent, tally.failed) == (1, 1)
    assert tally.stopped == "connection closed by the peer"
    assert not tally.all_positive


async def test_a_lost_connection_is_opened_again_if_so_asked() -> None:
    tally = await send(Behaviour(every=2, otherwise=HangUp()), 6, Pace(reconnect=True))
    assert tally.answers == {"AA": 3}
    assert (tally.failed, tally.connections_opened, tally.stopped) == (3, 3, "")


async def test_a_receiver_that_closes_an_idle_connection_gets_the_rest_on_another_one_unasked(peer: Peer) -> None:
    async def answer_and_close() -> None:
        for _ in range(3):
            connection = await peer.connection()
            connection.say(ack(await connection.hears()))
            connection.transport.close()

    async with asyncio.TaskGroup() as both:
        both.create_task(answer_and_close(), name="peer")
        tally = await run(Sender(peer.to, [[message(str(number)) for number in range(3)]], Pace(rate_per_s=20)))
    assert tally.all_positive
    assert tally.connections_opened == 3


async def test_a_receiver_that_is_not_there_yet_is_waited_for_if_so_asked() -> None:
    async with open_receiver("127.0.0.1", 0, Behaviour()) as first:
        to = Destination("127.0.0.1", first.port)
    sender = Sender(to, [bodies(2)], Pace(reconnect=True))
    async with asyncio.TaskGroup() as both:
        run_task = both.create_task(run(sender), name="run")
        while not sender.tally().obstacle:
            await asyncio.sleep(0.005)
        async with open_receiver(to.host, to.port, Behaviour()):
            await run_task
    assert run_task.result().all_positive


async def test_a_receiver_that_is_not_there_is_named_with_the_remedy() -> None:
    async with open_receiver("127.0.0.1", 0, Behaviour()) as gone:
        to = Destination("127.0.0.1", gone.port)
    tally = await run(Sender(to, [bodies(2)], Pace(connections=2)))
    assert tally.sent == 0
    assert tally.stopped == f"cannot connect to {to}: refused; check the port and whether the receiver runs"


async def test_a_name_that_does_not_resolve_is_a_sentence() -> None:
    tally = await run(Sender(Destination("no-such-host.invalid", 2575), [bodies(1)]))
    assert tally.stopped.startswith("cannot connect to mllp://no-such-host.invalid:2575: ")


async def test_names_and_ipv6_are_reached() -> None:
    async with open_receiver("localhost", 0, Behaviour()) as receiver:
        tally = await run(Sender(Destination("localhost", receiver.port), [bodies(1)]))
    assert tally.all_positive
    async with open_receiver("::1", 0, Behaviour()) as receiver:
        tally = await run(Sender(Destination("::1", receiver.port), [bodies(1)]))
    assert tally.all_positive


async def test_tls_towards_a_receiver_without_tls_is_a_sentence(peer: Peer) -> None:
    async def refuse() -> None:
        connection = await peer.connection()
        connection.say(b"what?")

    async with asyncio.TaskGroup() as both:
        both.create_task(refuse(), name="peer")
        to = Destination(peer.to.host, peer.to.port, tls=True)
        tally = await run(Sender(to, [bodies(1)], tls=ssl.create_default_context()))
    assert "check whether the receiver speaks TLS" in tally.stopped


DATA = Path(__file__).parent / "data"  # loopback.pem: a certificate for localhost that is its own authority


@pytest.mark.parametrize("trusted", ["by its authority", "by nobody", "unseen"])
async def test_tls(trusted: str) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(DATA / "loopback.pem", DATA / "loopback.key")
    context = client_tls(
        ca_file=DATA / "loopback.pem" if trusted == "by its authority" else None, insecure=trusted == "unseen"
    )

    async def answer(peer: Peer) -> None:
        connection = await peer.connection()
        connection.say(ack(await connection.hears()))

    async with open_peer(tls) as peer, asyncio.TaskGroup() as both:
        answering = both.create_task(answer(peer), name="peer")
        tally = await run(Sender(peer.to, [[message("1")]], tls=context))
        answering.cancel()
    if trusted == "by nobody":
        assert tally.sent == 0
        assert "its certificate is not trusted" in tally.stopped
    else:
        assert tally.all_positive


@pytest.mark.parametrize("shown", [True, False])
async def test_a_receiver_may_want_the_senders_certificate(shown: bool, tmp_path: Path) -> None:
    both_in_one = tmp_path / "sender.pem"
    both_in_one.write_bytes((DATA / "loopback.pem").read_bytes() + (DATA / "loopback.key").read_bytes())
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(both_in_one)
    tls.load_verify_locations(DATA / "loopback.pem")
    tls.verify_mode = ssl.CERT_REQUIRED
    context = client_tls(ca_file=DATA / "loopback.pem", cert_file=both_in_one if shown else None)

    async def answer(peer: Peer) -> None:
        connection = await peer.connection()
        connection.say(ack(await connection.hears()))

    async with open_peer(tls) as peer, asyncio.TaskGroup() as both:
        answering = both.create_task(answer(peer), name="peer")
        tally = await run(Sender(peer.to, [[message("1")]], tls=context))
        answering.cancel()
    assert tally.all_positive is shown


async def test_the_rate_holds_over_all_connections() -> None:
    started_at = perf_counter()
    tally = await send(Behaviour(), 40, Pace(connections=4, pipeline=4, rate_per_s=100))
    elapsed_s = perf_counter() - started_at
    # the first goes at once, the fortieth 39 gaps later; a slow machine may only be slower
    assert elapsed_s > 0.38
    assert tally.all_positive


async def test_the_count_ends_an_endless_feed() -> None:
    endless = (message(str(number)) for number in count())
    async with open_receiver("127.0.0.1", 0, Behaviour()) as receiver:
        to = Destination("127.0.0.1", receiver.port)
        tally = await run(Sender(to, [endless], Pace(connections=8, pipeline=8, count=21)))
    assert tally.sent == receiver.received == 21
    assert tally.all_positive


async def test_an_interrupted_run_settles_what_was_unanswered(peer: Peer) -> None:
    sender = Sender(peer.to, [bodies(5)], Pace(pipeline=2))
    async with asyncio.TaskGroup() as both:
        task = both.create_task(sender.run(), name="run")
        connection = await peer.connection()
        connection.say(ack(await connection.hears()))
        await connection.hears()
        await connection.hears()
        task.cancel()
    tally = sender.tally()
    assert (tally.sent, tally.answered, tally.failed, tally.in_flight) == (3, 1, 2, 0)
    assert tally.failures[0].reason == "interrupted, before an answer"
    assert tally.connections_open == 0


async def test_a_peer_that_stops_reading_gets_no_more_than_the_socket_takes(peer: Peer) -> None:
    big = message("1") + b"NTE|1||" + b"x" * 100_000 + b"\r"
    sender = Sender(peer.to, [[big] * 10_000], Pace(pipeline=10_000))
    async with asyncio.TaskGroup() as both:
        task = both.create_task(sender.run(), name="run")
        connection = await peer.connection()
        connection.transport.pause_reading()
        # when nothing has moved for a while although 10,000 messages may be unanswered
        sent = -1
        while sent != sender.tally().sent:
            sent = sender.tally().sent
            await asyncio.sleep(0.1)
        # then the rest was not taken from the feed: 1 GB would be waiting in memory
        assert sent < 500
        task.cancel()
    assert sender.tally().in_flight == 0
