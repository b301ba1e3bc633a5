"""Analysers that speak ASTM E1381, as the whole agent carries them: results in, orders and answers to queries out."""

from __future__ import annotations

import pytest
from astm_instrument import ACK, ENQ, Instrument, frames_of
from ward_agents import AgentProcess
from ward_building import Ward
from ward_servers import Asked, ScriptedServer

RESULTS = [b"H|\\^&|||analyser", b"P|1", b"O|1|S1||^^^GLU", b"R|1|^^^GLU|5.4|mmol/L", b"L|1|N"]
QUERY = [b"H|\\^&|||analyser", b"Q|1|^S1||ALL", b"L|1|N"]
ORDERS = [b"H|\\^&", b"P|1", b"O|1|S1||^^^GLU", b"L|1|N"]


def text_of(records: list[bytes]) -> str:
    return b"".join(record + b"\r" for record in records).decode()


@pytest.fixture
async def server(ward: Ward) -> ScriptedServer:
    server = await ward.server()
    server.keeps_bodies = True
    server.script = take
    return server


async def take(asked: Asked) -> None:
    await asked.answer("")


@pytest.fixture
def port(ward: Ward) -> int:
    return ward.port()


@pytest.fixture
async def agent(ward: Ward, server: ScriptedServer, port: int) -> AgentProcess:
    server.endpoint("lab", f"tcp://127.0.0.1:{port}?mode=astm")
    agent = await ward.running_agent(server)
    await server.until_live()
    await agent.until(lambda status: bool(status["channels"]) and status["channels"][0]["state"] == "listening")
    return agent


async def test_a_session_of_results_is_one_message(agent: AgentProcess, server: ScriptedServer, port: int) -> None:
    async with await Instrument.connect("127.0.0.1", port) as analyser:
        assert set(await analyser.send_session(RESULTS)) == {ACK}

        await server.until(lambda: len(server.bodies) == 1)
    assert server.bodies == [text_of(RESULTS)]
    assert server.heard[0].content_type == "x-application/astm-e1394"


async def test_a_query_is_answered_with_orders_on_the_same_line(
    agent: AgentProcess, server: ScriptedServer, port: int
) -> None:
    async def order(asked: Asked) -> None:
        await asked.answer(text_of(ORDERS))

    server.script = order
    async with await Instrument.connect("127.0.0.1", port) as analyser:
        await analyser.send_session(QUERY)

        assert await analyser.expect_session() == ORDERS


async def test_orders_pushed_by_the_server_go_over_the_line_that_the_analyser_holds(
    agent: AgentProcess, server: ScriptedServer, port: int
) -> None:
    async with await Instrument.connect("127.0.0.1", port) as analyser:
        await agent.until(lambda status: status["channels"][0]["connections"] == 1)

        callback = await server.push("astm://lab", text_of(ORDERS), contentType="x-application/astm-e1394")

        assert await analyser.expect_session() == ORDERS
        answer = await server.answer_to(callback)
    assert answer["statusCode"] == 200


async def test_orders_pushed_to_an_analyser_that_listens_are_dialled(
    agent: AgentProcess, server: ScriptedServer
) -> None:
    async with await Instrument.listen() as analyser:
        callback = await server.push(f"astm://127.0.0.1:{analyser.port}", text_of(ORDERS))

        called = await analyser.called()
        assert await called.expect_session() == ORDERS
        answer = await server.answer_to(callback)
    assert answer["statusCode"] == 200


async def test_an_analyser_that_we_call_sends_and_gets_orders_over_one_connection(
    ward: Ward, server: ScriptedServer
) -> None:
    async with await Instrument.listen() as analyser:
        server.endpoint("lab", f"astm://127.0.0.1:{analyser.port}?mode=client")
        agent = await ward.running_agent(server)
        called = await analyser.called()
        assert set(await called.send_session(RESULTS)) == {ACK}
        await server.until(lambda: server.bodies == [text_of(RESULTS)])

        callback = await server.push(f"astm://127.0.0.1:{analyser.port}", text_of(ORDERS))

        assert await called.expect_session() == ORDERS
        assert (await server.answer_to(callback))["statusCode"] == 200
        (channel,) = (await agent.status())["channels"]
        assert (channel["state"], channel["connectionsTotal"]) == ("connected", 1)


async def test_a_push_to_an_analyser_that_is_not_connected_is_answered_with_the_reason(
    agent: AgentProcess, server: ScriptedServer
) -> None:
    callback = await server.push("astm://lab", text_of(ORDERS))

    answer = await server.answer_to(callback)

    assert answer["statusCode"] == 400
    assert "lab" in answer["body"]


async def test_every_frame_that_was_acknowledged_survives_a_kill_in_the_middle_of_a_session(
    agent: AgentProcess, server: ScriptedServer, port: int
) -> None:
    # given a session of which three frames are acknowledged
    analyser = await Instrument.connect("127.0.0.1", port)
    async with analyser:
        analyser.write(ENQ)
        await analyser.hears(ACK)
        for frame in frames_of(RESULTS)[:3]:
            analyser.write(frame)
            await analyser.hears(ACK)
        # when the process is killed
        await agent.kill()
    await agent.start()
    # then they are a message
    await server.until(lambda: len(server.bodies) == 1)
    assert server.bodies == [text_of(RESULTS[:3])]
    # once, however often it is killed after that: what comes after them would come after a second copy, too
    await agent.until(lambda status: status["spool"]["countsByState"].get("processed") == 1)
    await agent.kill()
    await agent.start()
    async with await Instrument.connect("127.0.0.1", port) as later:
        await later.send_session(QUERY)
        await server.until(lambda: len(server.bodies) == 2)
    assert server.bodies == [text_of(RESULTS[:3]), text_of(QUERY)]


async def test_results_wait_for_a_server_that_is_away(agent: AgentProcess, server: ScriptedServer, port: int) -> None:
    await server.go()
    async with await Instrument.connect("127.0.0.1", port) as analyser:
        assert set(await analyser.send_session(RESULTS)) == {ACK}
        assert set(await analyser.send_session(QUERY)) == {ACK}
    await server.come()
    await server.until(lambda: len(server.bodies) == 2)
    assert server.bodies == [text_of(RESULTS), text_of(QUERY)]


async def test_a_person_reads_the_records_of_a_session(agent: AgentProcess, server: ScriptedServer, port: int) -> None:
    async with await Instrument.connect("127.0.0.1", port) as analyser:
        await analyser.send_session(RESULTS)
        await server.until(lambda: len(server.bodies) == 1)

    code, shown = await agent.ask("messages", "show", "1")

    assert code == 0
    assert "5.4" in shown
    assert "mmol/L" in shown
