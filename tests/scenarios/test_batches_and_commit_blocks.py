"""Batches in one frame, and commit blocks of MLLP release 2, as a sender meets them."""

from __future__ import annotations

from ward_building import Ward
from ward_messages import adt


def batch(*messages: bytes) -> bytes:
    header = b"FHS|^~\\&|LAB|WARD|EHR|HOSPITAL|20260131030000||||F7\rBHS|^~\\&|LAB|WARD|EHR|HOSPITAL|20260131||||B7\r"
    return header + b"".join(messages) + b"BTS|%d\rFTS|1\r" % len(messages)


async def test_a_batch_is_delivered_message_by_message_and_answered_so(ward: Ward) -> None:
    server, port = await ward.server(), ward.port()
    server.channel("lab", port)
    await ward.running_agent(server)
    device = await ward.device(port)

    await device.send(batch(*(adt(f"B{number}") for number in range(5))))

    assert [str(await device.hear()) for _ in range(5)] == [f"AA B{number}" for number in range(5)]
    assert [asked.control_id for asked in server.heard] == [f"B{number}" for number in range(5)]


async def test_or_as_one_batch_of_answers(ward: Ward) -> None:
    server, port = await ward.server(), ward.port()
    server.channel("lab", port, batchAck="batch")
    await ward.running_agent(server)

    lab = await ward.stranger(port, b"\x0b" + batch(*(adt(f"B{number}") for number in range(3))) + b"\x1c\r")
    answer = (await lab.hears_until(b"\x1c\r"))[1:-2].decode()
    await lab.leave()

    segments = [segment.split("|") for segment in answer.split("\r") if segment]
    assert [segment[0] for segment in segments] == ["FHS", "BHS", *["MSH", "MSA"] * 3, "BTS", "FTS"]
    assert [segment[1:3] for segment in segments if segment[0] == "MSA"] == [["AA", f"B{n}"] for n in range(3)]
    assert segments[1][11] == "B7"
    assert segments[-2][1] == "3"


async def test_a_batch_survives_kill_minus_nine_whole(ward: Ward) -> None:
    # given a batch that was accepted while the server does not answer
    server, port = await ward.server(), ward.port()
    server.channel("lab", port, enhanced="true", batchAck="batch")
    agent = await ward.running_agent(server)
    await server.until_live()
    lab = await ward.stranger(port)
    await server.go()
    lab.sends(b"\x0b" + batch(*(adt(f"B{number:02d}") for number in range(40))) + b"\x1c\r")
    assert (await lab.hears_until(b"\x1c\r")).count(b"MSA|CA|") == 40
    await lab.leave()

    # when the agent is killed and the server comes back
    await agent.kill()
    await server.come()
    await agent.start()

    # then all of it arrives, in order
    await server.until(lambda: len(server.heard) == 40, within_s=30)
    assert [asked.control_id for asked in server.heard] == [f"B{number:02d}" for number in range(40)]


async def test_release_2_says_0x06_when_it_is_stored_and_then_the_answer(ward: Ward) -> None:
    server, port = await ward.server(), ward.port()
    server.channel("lab", port, mllpRelease=2)
    await ward.running_agent(server)
    lab = await ward.stranger(port)

    for number in range(3):
        lab.sends(b"\x0b" + adt(f"R{number}") + b"\x1c\r")
        assert await lab.hears_until(b"\x1c\r") == b"\x0b\x06\x1c\r"
        assert b"MSA|AA|R%d" % number in await lab.hears_until(b"\x1c\r")
        lab.sends(b"\x0b\x06\x1c\r")
    lab.sends(b"\x0bwhat is this\x1c\r")
    assert await lab.hears_until(b"\x1c\r") == b"\x0b\x15\x1c\r"
    await lab.leave()
