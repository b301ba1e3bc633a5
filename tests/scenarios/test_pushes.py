"""$push: every request is answered once, with its own acknowledgement or with a reason, and no remote harms another."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest
from ward_agents import AgentProcess
from ward_building import Ward
from ward_certificates import Authority
from ward_messages import adt
from ward_remotes import Pushed, Remote, silence
from ward_servers import ScriptedServer

HL7 = "x-application/hl7-v2+er7"


@pytest.fixture
async def server(ward: Ward) -> ScriptedServer:
    return await ward.server()


@pytest.fixture
async def agent(ward: Ward, server: ScriptedServer) -> AgentProcess:
    agent = await ward.running_agent(server)
    await server.until_live()
    return agent


@pytest.fixture
async def remote(ward: Ward) -> Remote:
    return await ward.remote()


def acknowledged(answer: dict[str, object]) -> str:
    """MSA-1 and MSA-2 of an answer that is an acknowledgement."""
    assert (answer["statusCode"], answer["contentType"]) == (200, HL7), answer
    found = re.search(r"\rMSA\|(\w\w)\|([^|\r]*)", str(answer["body"]))
    assert found is not None
    return f"{found[1]} {found[2]}"


def refused(answer: dict[str, object]) -> str:
    """The reason of an answer that is none."""
    assert (answer["type"], answer["statusCode"], answer["contentType"]) == (
        "agent:transmit:response", 400, "text/plain",
    ), answer  # fmt: skip
    return str(answer["body"])


async def test_a_push_is_answered_with_what_the_remote_answered(
    agent: AgentProcess, server: ScriptedServer, remote: Remote
) -> None:
    # when the server pushes a message
    body = adt("P-1").decode()
    callback = await server.push(remote.url(), body)
    # then the remote gets it as it is, and the server the remote's acknowledgement
    answer = await server.answer_to(callback)
    assert acknowledged(answer) == "AA P-1"
    assert answer["remote"] == remote.url()
    assert remote.heard[0].body == body


async def test_lines_end_in_carriage_returns_on_the_way_to_the_remote(
    agent: AgentProcess, server: ScriptedServer, remote: Remote
) -> None:
    await server.answer_to(await server.push(remote.url(), adt("P-1").decode().replace("\r", "\r\n")))
    assert remote.heard[0].body == adt("P-1").decode()


async def test_a_refusal_of_the_remote_is_an_answer(
    agent: AgentProcess, server: ScriptedServer, remote: Remote
) -> None:
    for code in ("AE", "AR", "CE", "CR"):

        async def refuse(pushed: Pushed, code: str = code) -> None:
            await pushed.answer(code)

        remote.script = refuse
        assert acknowledged(await server.answer_to(await server.push(remote.url(), adt(code)))) == f"{code} {code}"


async def test_a_commit_acknowledgement_is_passed_over_unless_the_first_answer_is_wanted(
    agent: AgentProcess, server: ScriptedServer, remote: Remote
) -> None:
    # given a remote that commits first and answers then
    application = asyncio.Event()

    async def enhanced(pushed: Pushed) -> None:
        await pushed.answer("CA")
        await application.wait()
        await pushed.answer("AA")

    remote.script = enhanced
    # then who wants the first answer gets it at once, by the address or by the request
    first = await server.push(remote.url(returnAck="first"), adt("P-1"))
    assert acknowledged(await server.answer_to(first)) == "CA P-1"
    second = await server.push(remote.url(), adt("P-2"), returnAck="first")
    assert acknowledged(await server.answer_to(second)) == "CA P-2"
    # and all others the application's, though those of the earlier messages come in between
    third = await server.push(remote.url(), adt("P-3"))
    await remote.until_heard("P-3")
    application.set()
    assert acknowledged(await server.answer_to(third)) == "AA P-3"
    assert len(server.answers_to(first)) == len(server.answers_to(second)) == 1


async def test_an_acknowledgement_that_comes_too_late_answers_nothing(
    agent: AgentProcess, server: ScriptedServer, remote: Remote
) -> None:
    # given a remote that answers the first message only when the second one is there
    async def late(pushed: Pushed) -> None:
        if pushed.control_id == "P-1":
            await remote.until_heard("P-2")
        await pushed.answer()
        if pushed.control_id == "P-2":
            await pushed.answer(control_id="P-1")

    remote.script = late
    url = remote.url(ackTimeoutMs=300, maxClients=1, keepAlive="true")
    first = await server.push(url, adt("P-1"))
    assert "no acknowledgement within 0.3 s" in refused(await server.answer_to(first))
    # then each of the others gets its own, and the late one nobody
    second = await server.push(url, adt("P-2"))
    assert acknowledged(await server.answer_to(second)) == "AA P-2"
    third = await server.push(url, adt("P-3"))
    assert acknowledged(await server.answer_to(third)) == "AA P-3"
    assert len(server.answers_to(first)) == 1
    assert remote.heard[1].connection != remote.heard[0].connection


async def test_a_silent_remote_slows_down_nobody_else(ward: Ward, agent: AgentProcess, server: ScriptedServer) -> None:
    # given a remote that swallows everything, with more waiting for it than it has connections
    mute, well = await ward.remote(), await ward.remote()
    mute.script = silence
    swallowed = [await server.push(mute.url(maxClients=2), adt(f"S-{number}")) for number in range(20)]
    await mute.until_heard("S-0", "S-1")
    # when messages for another remote come, then they are answered while the others still wait
    callbacks = [await server.push(well.url(), adt(f"W-{number}")) for number in range(50)]
    for callback in callbacks:
        await server.answer_to(callback)
    assert not any(server.answers_to(callback) for callback in swallowed)
    assert mute.most == 2
    assert sorted(mute.ids) == ["S-0", "S-1"]


async def test_fifty_pushes_share_three_connections_and_each_gets_its_own_answer(
    agent: AgentProcess, server: ScriptedServer, remote: Remote
) -> None:
    # given a remote that needs longer for some messages than for others
    async def uneven(pushed: Pushed) -> None:
        await asyncio.sleep(0.001 * (int(pushed.control_id[2:]) * 7 % 11))
        await pushed.answer()

    remote.script = uneven
    # when fifty are pushed at one time
    callbacks = {
        number: await server.push(remote.url(maxClients=3), adt(f"P-{number}"), f"callback-{number}")
        for number in range(50)
    }
    # then each is answered with its own acknowledgement, over three connections with one message at a time on each
    for number, callback in callbacks.items():
        assert acknowledged(await server.answer_to(callback)) == f"AA P-{number}"
    assert Counter(remote.ids) == Counter(f"P-{number}" for number in range(50))
    assert remote.most == 3
    assert remote.connections == 3


async def test_serialize_keeps_the_order_and_one_message_at_a_time(
    agent: AgentProcess, server: ScriptedServer, remote: Remote
) -> None:
    unanswered = 0

    async def one_by_one(pushed: Pushed) -> None:
        nonlocal unanswered
        unanswered += 1
        assert unanswered == 1
        await asyncio.sleep(0)
        unanswered -= 1
        await pushed.answer()

    remote.script = one_by_one
    callbacks = [await server.push(remote.url(serialize="true", maxClients=9), adt(f"P-{n}")) for n in range(30)]
    for number, callback in enumerate(callbacks):
        assert acknowledged(await server.answer_to(callback)) == f"AA P-{number}"
    assert remote.ids == [f"P-{number}" for number in range(30)]
    assert remote.connections == 1


async def test_a_connection_stays_with_keep_alive_and_is_made_anew_when_the_remote_ended_it(
    agent: AgentProcess, server: ScriptedServer, remote: Remote
) -> None:
    url = remote.url(keepAlive="true")
    await server.answer_to(await server.push(url, adt("P-1")))
    await server.answer_to(await server.push(url, adt("P-2")))
    assert [pushed.connection for pushed in remote.heard] == [1, 1]
    # when the remote starts anew
    await remote.go()
    await agent.until(lambda status: status["clients"][0]["connections"] == 0)
    await remote.come()
    assert acknowledged(await server.answer_to(await server.push(url, adt("P-3")))) == "AA P-3"
    client = (await agent.status())["clients"][0]
    assert (client["connections"], client["reconnects"], client["acknowledged"]) == (1, 1, 3)


async def unframed(pushed: Pushed) -> None:
    await pushed.say(b"MSH|^~\\&|LAB\rMSA|AA|" + pushed.control_id.encode() + b"\r")


async def wrong(pushed: Pushed) -> None:
    await pushed.answer(control_id="SOMEBODY-ELSE")


async def no_acknowledgement(pushed: Pushed) -> None:
    await pushed.say(b"\x0bhello\x1c\r")


async def half(pushed: Pushed) -> None:
    await pushed.say(b"\x0bMSH|^~\\&|LAB")
    pushed.hang_up()


async def hang_up(pushed: Pushed) -> None:
    pushed.hang_up()


async def http(pushed: Pushed) -> None:
    await pushed.say(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    pushed.hang_up()


@pytest.mark.parametrize(
    ("script", "says"),
    [
        (hang_up, "closed the connection without answering"),
        (half, "in the middle of its answer"),
        (silence, "no acknowledgement within 1.5 s"),
        (unframed, "without MLLP framing"),
        (http, "it speaks HTTP"),
        (wrong, "acknowledged message 'SOMEBODY-ELSE' (MSA-2) while 'P-1' waits"),
        (no_acknowledgement, "instead of an acknowledgement"),
    ],
)
async def test_whatever_a_remote_does_instead_of_answering_is_told_in_its_own_words(
    agent: AgentProcess,
    server: ScriptedServer,
    remote: Remote,
    script: Callable[[Pushed], Awaitable[None]],
    says: str,
) -> None:
    remote.script = script
    answer = refused(await server.answer_to(await server.push(remote.url(ackTimeoutMs=1500), adt("P-1"))))
    assert says in answer
    assert f"127.0.0.1:{remote.port}" in answer


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("mllp://127.0.0.1:1", "connection refused (ECONNREFUSED)"),
        ("mllp://no-such-host.invalid:2575", "no-such-host.invalid"),
        ("not a url", "write mllp://host:port"),
        ("carrier-pigeon://roof:1", "carrier-pigeon"),
        ("mllp://127.0.0.1", "port"),
        ("mllp://127.0.0.1:2575?encoding=klingon", "klingon"),
        ("mllps://127.0.0.1:2575?tls=nobody", "[tls.nobody]"),
    ],
)
async def test_an_address_that_leads_nowhere_is_told_at_once(
    agent: AgentProcess, server: ScriptedServer, address: str, says: str
) -> None:
    assert says in refused(await server.answer_to(await server.push(address, adt("P-1"))))


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("hello", "does not begin with an MSH segment"),
        ("MSH|^~\\&|A", "Required field missing: MSH.10"),
        (adt("").decode(), "Required field missing: MSH.10"),
        (adt("P-1").decode().replace("QUIRINA", "Жанна"), "(U+0416, in PID-5) does not exist in ISO-8859-1"),
    ],
)
async def test_a_body_that_cannot_be_pushed_is_told_at_once(
    agent: AgentProcess, server: ScriptedServer, remote: Remote, body: str, says: str
) -> None:
    answer = await server.answer_to(await server.push(remote.url(encoding="iso-8859-1"), body))
    assert says in refused(answer)
    assert remote.connections == 0


async def test_a_push_without_a_remote_is_an_error(agent: AgentProcess, server: ScriptedServer) -> None:
    answer = await server.answer_to(await server.push("", adt("P-1")))
    assert (answer["type"], answer["body"]) == ("agent:error", "Missing remote address")


async def test_nothing_waits_that_has_no_room_and_nothing_for_ever(ward: Ward, server: ScriptedServer) -> None:
    # given an agent that lets three messages wait for a second, and a silent remote
    mute = await ward.remote()
    mute.script = silence
    await ward.running_agent(server, AGENT_OUTBOUND_WAITING_PER_REMOTE="3", AGENT_OUTBOUND_WAIT_S="1")
    await server.until_live()
    url = mute.url(maxClients=1)
    under_way = await server.push(url, adt("P-0"))
    await mute.until_heard("P-0")
    # when five more come, then two hear at once that the queue is full, and three that they waited
    callbacks = [await server.push(url, adt(f"P-{number}")) for number in range(1, 6)]
    said = [refused(await server.answer_to(callback)) for callback in callbacks]
    assert ["for a free connection" in text for text in said] == [True, True, True, False, False]
    assert all("no more may" in text for text in said[3:])
    assert not server.answers_to(under_way)
    assert mute.ids == ["P-0"]


async def test_messages_travel_encrypted_and_show_our_certificate(ward: Ward, server: ScriptedServer) -> None:
    # given a remote that takes TLS from those whom it knows
    hospital = Authority("Hospital CA")
    (ward.folder / "ca.pem").write_bytes(hospital.pem)
    for name in ("lab", "agent"):
        hospital.issue(name).write(ward.folder / f"{name}.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ward.folder / "lab.pem")
    context.load_verify_locations(ward.folder / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    lab = await ward.remote(tls=context)
    await ward.running_agent(
        server,
        AGENT_TLS_LAB_CERTIFICATE_FILE=str(ward.folder / "agent.pem"),
        AGENT_TLS_LAB_CA_FILE=str(ward.folder / "ca.pem"),
        AGENT_TLS_NOBODY_CA_FILE=str(ward.folder / "ca.pem"),
    )
    await server.until_live()
    # then who shows a certificate is answered, and who does not is turned away
    assert acknowledged(await server.answer_to(await server.push(lab.url(tls="lab"), adt("P-1")))) == "AA P-1"
    assert refused(await server.answer_to(await server.push(lab.url(tls="nobody"), adt("P-2"))))
    # and who does not know its authority does not believe it
    assert "authority" in refused(await server.answer_to(await server.push(lab.url(), adt("P-3"))))
    assert lab.ids == ["P-1"]


async def test_an_answer_that_the_server_was_not_there_for_is_given_when_it_is_back(
    agent: AgentProcess, server: ScriptedServer, remote: Remote
) -> None:
    # given a push whose answer comes while the server is away
    away = asyncio.Event()

    async def when_away(pushed: Pushed) -> None:
        await away.wait()
        await pushed.answer()

    remote.script = when_away
    callback = await server.push(remote.url(), adt("P-1"))
    await remote.until_heard("P-1")
    await server.go()
    away.set()
    # when it comes back, then it hears the answer
    await agent.until(lambda status: status["clients"][0]["acknowledged"] == 1)
    await server.come()
    assert acknowledged(await server.answer_to(callback)) == "AA P-1"


async def test_a_reload_under_traffic_loses_nothing_and_changes_what_it_should(
    agent: AgentProcess, server: ScriptedServer, ward: Ward
) -> None:
    # given traffic to a remote whose limits the server sets, and to one that sets its own
    common, own = await ward.remote(), await ward.remote()
    callbacks: list[str] = []

    async def traffic(count: int, mark: str) -> None:
        for number in range(count):
            callbacks.append(await server.push(common.url(), adt(f"C{mark}-{number}")))
            callbacks.append(await server.push(own.url(keepAlive="true", maxClients=2), adt(f"O{mark}-{number}")))

    await traffic(40, "a")
    server.settings = {"keepAlive": True, "maxClientsPerRemote": 1}
    await server.links[-1].say({"type": "agent:reloadconfig:request", "callback": "reload"})
    await traffic(40, "b")
    assert (await server.answer_to("reload"))["statusCode"] == 200
    await traffic(40, "c")
    # then every push is answered with its own acknowledgement
    for callback in callbacks:
        acknowledged(await server.answer_to(callback))
    assert Counter(common.ids + own.ids) == Counter(dict.fromkeys(common.ids + own.ids, 1))
    # and the new limits hold for the one, while nothing of the other was touched
    clients = {client["remote"]: client for client in (await agent.status())["clients"]}
    changed, kept = clients[common.url()], clients[own.url(keepAlive="true", maxClients=2)]
    assert (changed["maxClients"], changed["keepAlive"]) == (1, True)
    assert (kept["maxClients"], kept["keepAlive"], kept["connectionsTotal"]) == (2, True, own.connections)
    await common.until(lambda: common.open == 1)
    assert own.most <= 2


async def test_a_stop_waits_for_what_is_written_and_tells_the_others(
    agent: AgentProcess, server: ScriptedServer, remote: Remote
) -> None:
    # given one message under way and one that waits
    go_on = asyncio.Event()

    async def slowly(pushed: Pushed) -> None:
        await go_on.wait()
        await pushed.answer()

    remote.script = slowly
    first = await server.push(remote.url(maxClients=1), adt("P-1"))
    await remote.until_heard("P-1")
    second = await server.push(remote.url(maxClients=1), adt("P-2"))
    # when the agent is told to stop
    agent.terminate()
    # then the second hears so, and the first is answered before the agent goes
    assert "stopping" in refused(await server.answer_to(second))
    go_on.set()
    assert acknowledged(await server.answer_to(first)) == "AA P-1"
    assert await agent.ended() == 0


async def test_an_agent_that_is_off_pushes_nothing(server: ScriptedServer, ward: Ward, remote: Remote) -> None:
    server.status = "off"
    agent = await ward.running_agent(server)
    await server.until_live()
    await agent.until(lambda status: any(finding["code"] == "agent.off" for finding in status["findings"]))
    answer = await server.answer_to(await server.push(remote.url(), adt("P-1")))
    assert (answer["type"], answer["body"]) == ("agent:error", "Agent.status is currently set to off")
    assert remote.connections == 0
