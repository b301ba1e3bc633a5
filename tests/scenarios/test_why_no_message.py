"""Why is there no message? Every usual way to get MLLP wrong is named: on the screen, in $stats and in the log."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import pytest
from ward_agents import AgentProcess
from ward_building import Ward
from ward_devices import Device
from ward_messages import PATIENT_WORDS, adt

UTF_16 = adt("U1").decode().encode("utf-16-le")
CLIENT_HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(32) + bytes(160)
SECRET = b"PID|1||PAT-7730451^^^EXAMPLE HOSPITAL||TESTFAMILY^QUIRINA\r"


@dataclass(frozen=True, slots=True)
class Bad:
    """A stream that is no message. `stays`: the sender holds the connection open and waits."""

    kind: str
    sends: bytes
    stays: bool = True


STREAMS = [
    Bad("tls-on-plain-port", CLIENT_HELLO),
    Bad("http", b"GET /health HTTP/1.1\r\nHost: agent\r\n\r\n"),
    Bad("http", b"POST /hl7 HTTP/1.1\r\nContent-Length: 5\r\n\r\nMSH|^"),
    Bad("no-start-block", adt("S1") + b"\x1c\r"),
    Bad("no-start-block", SECRET),
    Bad("no-end-block", b"\x0b" + adt("E1")),
    Bad("no-end-block", b"\x0b" + adt("E2"), stays=False),
    Bad("end-block-without-cr", b"\x0b" + adt("C1") + b"\x1c"),
    Bad("end-block-without-cr", b"\x0b" + adt("C2") + b"\x1c\n"),
    Bad("lf-line-ends", b"\x0b" + adt("L1").replace(b"\r", b"\n") + b"\x1c\r"),
    Bad("utf-16", b"\x0b\x00" + UTF_16 + b"\x1c\x00\r\x00"),
    Bad("utf-16", b"\x0b\xff\xfe" + UTF_16 + b"\x1c\r"),
    Bad("mllp-release-2", b"\x0b\x06\x1c\r"),
    Bad("no-msh", b"\x0b" + SECRET + b"\x1c\r"),
    Bad("too-big", b"\x0b" + adt("B1", size_bytes=70_000) + b"\x1c\r"),
    Bad("half-open-and-idle", b""),
    Bad("too-slow", b"\x0b" + adt("T1")[:40]),
    Bad("connect-and-close", b"", stays=False),
]


async def seen(agent: AgentProcess, kind: str, times: int) -> dict[str, Any]:
    """The status, once this kind was seen so often."""
    return await agent.until(
        lambda status: bool(status["channels"]) and status["channels"][0]["odd"].get(kind, 0) >= times
    )


@pytest.mark.parametrize("bad", STREAMS, ids=lambda bad: f"{bad.kind}-{bad.sends[:4].hex()}")
async def test_each_is_named_and_told_to_people_once(ward: Ward, bad: Bad) -> None:
    # given a channel in the middle of its work
    server, port = await ward.server(), ward.port()
    server.channel("adt", port, maxMessageBytes=65_536, idleTimeoutSecs=1, frameTimeoutSecs=3)
    agent = await ward.running_agent(server)
    good = await ward.device(port, source="127.0.3.1")

    # when somebody does it wrong, again and again
    for times in (1, 2, 3):
        stranger = await ward.stranger(port, bad.sends, source="127.0.3.2")
        if not bad.stays:
            await stranger.leave()
        status = await seen(agent, bad.kind, times)
        await stranger.leave()

    # then the channel works on for the others
    good = await ward.device(port, source="127.0.3.1")
    assert (await good.ask(adt("GOOD"))).code == "AA"

    # and it is a finding with a remedy where somebody must act, said once in the log, and without the patient
    found = [finding for finding in status["findings"] if finding["code"] == f"wire.{bad.kind}"]
    if bad.kind in ("connect-and-close", "lf-line-ends", "half-open-and-idle"):
        assert found == []
    else:
        assert [finding["where"] for finding in found] == ["adt"]
        assert found[0]["remedy"]
        assert "127.0.3.2" in found[0]["text"]
    log = [json.loads(line) for line in agent.main_log().splitlines()]
    told = [line for line in log if line["msg"] == "wire.odd" and line["kind"] == bad.kind]
    assert [line["peer"] for line in told].count("127.0.3.2") == 1
    for text in (json.dumps(status), agent.main_log()):
        assert not any(word in text for word in PATIENT_WORDS)

    # and the doctor explains it
    code, explained = await agent.ask("doctor", "--port", str(port))
    assert "127.0.3.2" in explained
    assert not any(word in explained for word in PATIENT_WORDS)
    assert code in (0, 1)


async def test_who_speaks_another_protocol_is_told_so_in_it(ward: Ward) -> None:
    server, port = await ward.server(), ward.port()
    server.channel("adt", port)
    await ward.running_agent(server)

    browser = await ward.stranger(port, b"GET / HTTP/1.1\r\nHost: agent\r\n\r\n")
    heard = await browser.hears()
    assert heard.startswith(b"HTTP/1.1 400 ")
    assert b"MLLP" in heard

    tls = await ward.stranger(port, CLIENT_HELLO)
    assert (await tls.hears())[:1] == b"\x15"  # an alert (RFC 8446 §6)


async def test_who_is_not_allowed_or_one_too_many_is_turned_away_and_named(ward: Ward) -> None:
    server, port = await ward.server(), ward.port()
    server.channel("adt", port, allow="127.0.3.0/24,127.0.4.1", maxConnections=2)
    agent = await ward.running_agent(server)

    outsider = await ward.stranger(port, source="127.0.5.1")
    assert await outsider.hears() == b""
    insiders = [await ward.device(port, source=source) for source in ("127.0.3.7", "127.0.4.1")]
    for number, device in enumerate(insiders):
        assert (await device.ask(adt(f"A{number}"))).code == "AA"
    third = await ward.stranger(port, source="127.0.3.8")
    assert await third.hears() == b""

    [channel] = (await agent.status())["channels"]
    assert channel["odd"] == {"not-allowed": 1, "too-many-connections": 1}
    assert channel["connections"] == 2
    findings = await agent.findings()
    assert "127.0.5.1" in findings["wire.not-allowed"]
    assert "127.0.3.8" in findings["wire.too-many-connections"]
    # and the ones inside did not notice
    assert (await insiders[0].ask(adt("A9"))).code == "AA"


async def test_a_message_that_never_ends_is_refused_by_name_and_may_come_again(ward: Ward) -> None:
    server, port = await ward.server(), ward.port()
    server.channel("adt", port, frameTimeoutSecs=1)
    await ward.running_agent(server)
    slow = await ward.stranger(port, b"\x0b" + adt("SLOW")[:90])

    heard = await slow.hears()

    assert b"MSA|AE|SLOW|" in heard
    assert b"frameTimeoutSecs" in heard
    again = await ward.device(port)
    assert (await again.ask(adt("SLOW"))).code == "AA"


async def test_a_sender_that_is_busy_is_never_idle(ward: Ward) -> None:
    server, port = await ward.server(), ward.port()
    server.channel("adt", port, idleTimeoutSecs=1)
    await ward.running_agent(server)
    device = await ward.device(port)

    async with asyncio.timeout(30):
        for number in range(6):  # three times as long as the time-out, in steps below it
            assert (await device.ask(adt(f"M{number}"))).code == "AA"
            await asyncio.sleep(0.5)
        with pytest.raises(ConnectionResetError):
            await device.hear(within_s=20)


async def test_hundreds_of_messages_that_do_not_end_cost_bounded_memory(ward: Ward) -> None:
    # given a limit for what is unfinished, and senders that begin more than that and then stop
    server, port = await ward.server(), ward.port()
    server.channel("adt", port, frameTimeoutSecs=60)
    agent = await ward.running_agent(server, AGENT_LIMITS_UNFINISHED_BYTES=str(32 << 20))
    before = agent.rss_bytes
    half = b"\x0b" + adt("H", size_bytes=4 << 20)

    strangers = [await ward.stranger(port, half) for _ in range(40)]
    await agent.until(lambda status: status["channels"][0]["odd"].get("no-room", 0) >= 30, within_s=30)

    # then some wait for their end, the others heard that they should come again
    assert agent.rss_bytes - before < 100 << 20
    assert "wire.no-room" in await agent.findings()
    # and a small message passes between them
    device: Device = await ward.device(port)
    assert (await device.ask(adt("SMALL"))).code == "AA"
    for stranger in strangers:
        await stranger.leave()
