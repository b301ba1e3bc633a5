"""Promise 8: listeners are open and messages are kept with the server away, also at the start."""

from __future__ import annotations

from ward_building import Ward
from ward_messages import ack_text, adt
from ward_servers import Asked, ScriptedServer, accept, silence


async def test_with_a_last_good_configuration_the_ward_is_served_while_the_server_is_away_at_the_start(
    ward: Ward,
) -> None:
    # given an agent that once had its configuration, and a server that has gone since
    server = await ward.server()
    port, plain = ward.port(), ward.port()
    server.channel("adt", port, enhanced="aa")
    server.channel("lab", plain, ackTimeoutSecs=1)
    agent = await ward.running_agent(server)
    await ward.device(port)
    agent.terminate()
    assert await agent.ended() == 0
    await server.go()

    # when it starts again
    await agent.start()

    # then its listeners are open, and what they take is kept
    device = await ward.device(port)
    assert str(await device.ask(adt("A-1"))) == "AA A-1"
    assert str(await device.ask(adt("A-2"))) == "AA A-2"
    other = await ward.device(plain)
    late = await other.ask(adt("B-1"))
    assert (late.code, late.control_id) == ("AE", "B-1")
    assert "stored" in late.text
    status = await agent.status()
    assert status["server"]["live"] is False
    assert status["spool"]["countsByState"]["queued"] == 3
    assert "server.away" in {found["code"] for found in status["findings"]}

    # and delivered when the server comes
    await server.come()
    await server.until_heard("A-1", "A-2", "B-1", within_s=20)
    assert [asked.control_id for asked in server.heard if asked.channel == "adt"] == ["A-1", "A-2"]
    assert {asked.attempt for asked in server.heard} == {1}
    assert str(await other.ask(adt("B-1"))) == "AA B-1"
    assert server.attempts("B-1") == [1]


async def test_at_the_very_first_start_without_a_server_the_agent_stays_and_says_why(ward: Ward) -> None:
    # given a server that is away, and an agent that has never seen it
    server = ScriptedServer(ward.port(), ward.folder)
    port = ward.port()
    server.channel("adt", port)

    # when the agent starts
    agent = await ward.running_agent(server)

    # then it stays up and its status says what is missing, and what to do
    status = await agent.until(lambda status: bool(status["server"]["lastError"]))
    assert status["running"] is True
    assert status["channels"] == []
    (away,) = [found for found in status["findings"] if found["code"] == "server.away"]
    assert str(server.port) in away["text"] + status["server"]["lastError"]
    assert away["remedy"]

    # and it works as soon as the server is there
    await server.come()
    try:
        device = await ward.device(port, within_s=30)
        assert str(await device.ask(adt("A-1"))) == "AA A-1"
    finally:
        await server.go()


async def test_a_socket_cut_between_request_and_answer_is_redelivered_under_a_mark(ward: Ward) -> None:
    # given a server that cuts the socket when it has read the first message
    async def cut_once(asked: Asked) -> None:
        if asked.attempt == 1:
            asked.link.cut()
        else:
            await asked.accept()

    server = await ward.server()
    port = ward.port()
    server.channel("adt", port)
    server.script = cut_once
    await ward.running_agent(server)

    # when a message is sent
    device = await ward.device(port)
    heard = await device.ask(adt("A-1"))

    # then it comes again, marked, and the sender hears one answer, the server's
    assert str(heard) == "AA A-1"
    assert server.attempts("A-1") == [1, 2]
    first, second = (asked.callback for asked in server.heard)
    assert second == f"{first}#2"
    server.script = accept
    assert str(await device.ask(adt("A-2"))) == "AA A-2"
    assert [str(each) for each in device.heard] == ["AA A-1", "AA A-2"]


async def test_a_request_that_was_never_written_is_sent_later_without_a_mark(ward: Ward) -> None:
    # given an agent whose server goes away
    server = await ward.server()
    port = ward.port()
    server.channel("adt", port, ackTimeoutSecs=30)
    agent = await ward.running_agent(server)
    device = await ward.device(port)
    assert str(await device.ask(adt("A-1"))) == "AA A-1"
    await server.go()
    await agent.until(lambda status: not status["server"]["live"])

    # when a message is sent, and the server comes back within the sender's patience
    await device.send(adt("A-2"))
    await agent.until(lambda status: status["channels"][0]["received"] == 2)
    await server.come()

    # then it is delivered once, and the sender hears the server's answer
    assert str(await device.hear(within_s=20)) == "AA A-2"
    assert server.attempts("A-2") == [1]


async def test_a_server_that_takes_and_never_answers_costs_one_negative_answer_and_the_late_one_is_kept(
    ward: Ward,
) -> None:
    # given a silent server
    server = await ward.server()
    port = ward.port()
    server.channel("adt", port, ackTimeoutSecs=1)
    server.script = silence
    await ward.running_agent(server)
    device = await ward.device(port)

    # when a message is sent
    heard = await device.ask(adt("A-1"))

    # then its sender hears once that it is stored and unanswered
    assert (heard.code, heard.control_id) == ("AE", "A-1")
    assert "not yet answered" in heard.text
    assert "(ref " in heard.text

    # and when the answer comes after all, the sender hears nothing of it, until it repeats the message
    (asked,) = server.heard
    await asked.answer(ack_text("A-1", text="late but true"))
    server.script = accept
    assert str(await device.ask(adt("A-2"))) == "AA A-2"
    repeated = await device.ask(adt("A-1"))
    assert (repeated.code, repeated.text) == ("AA", "late but true")
    assert [str(each) for each in device.heard] == ["AE A-1", "AA A-2", "AA A-1"]
    assert server.attempts("A-1") == [1]


async def test_a_repetition_while_the_server_still_thinks_waits_for_the_same_answer(ward: Ward) -> None:
    # given a silent server and a sender that heard AE
    server = await ward.server()
    port = ward.port()
    server.channel("adt", port, ackTimeoutSecs=2)
    server.script = silence
    agent = await ward.running_agent(server)
    device = await ward.device(port)
    assert (await device.ask(adt("A-1"))).code == "AE"

    # when it repeats the message, from another connection even, and then the server answers
    again = await ward.device(port)
    await again.send(adt("A-1"))
    await agent.until(lambda status: status["channels"][0]["duplicates"] == 1)
    (asked,) = server.heard
    await asked.accept()

    # then that connection hears the answer to the one delivery there was
    assert str(await again.hear()) == "AA A-1"
    assert server.attempts("A-1") == [1]
