"""Devices that speak bytes between two characters, over TCP and over a serial line, as the whole agent carries them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest
from astm_instrument import ACK, ENQ, EOT, frames_of
from ward_agents import AgentProcess
from ward_building import Ward
from ward_servers import Asked, ScriptedServer

WITHIN_S = 10.0
FRAMED = "startChar=%02&endChar=%03"


@pytest.fixture
async def server(ward: Ward) -> ScriptedServer:
    server = await ward.server()
    server.keeps_bodies = True
    server.script = write_back
    return server


async def write_back(asked: Asked) -> None:
    """The server's word for a device: STX OK ETX."""
    await asked.answer(b"\x02OK\x03".hex())


async def the_server_has(server: ScriptedServer, *messages: bytes) -> None:
    await server.until(lambda: len(server.bodies) >= len(messages))
    assert server.bodies == [message.hex() for message in messages]


async def test_a_message_reaches_the_server_and_its_answer_the_device(ward: Ward, server: ScriptedServer) -> None:
    port = ward.port()
    server.endpoint("bytes", f"tcp://127.0.0.1:{port}?{FRAMED}&autoRespond=%05:%06,%03:%06")
    await ward.running_agent(server)

    device = await ward.stranger(port, b"\x05")
    assert await device.hears_until(b"\x06") == b"\x06"
    device.sends(b"noise\x02hel")
    device.sends(b"lo\x03")

    assert await device.hears_until(b"\x03") == b"\x06\x02OK\x03"
    await the_server_has(server, b"\x02hello\x03")
    assert server.heard[0].content_type == "application/octet-stream"


async def test_what_came_while_the_server_was_away_is_delivered_after_a_kill(
    ward: Ward, server: ScriptedServer
) -> None:
    port = ward.port()
    server.endpoint("bytes", f"tcp://127.0.0.1:{port}?{FRAMED}")
    agent = await ward.running_agent(server)
    await agent.until(lambda status: bool(status["channels"]) and status["channels"][0]["state"] == "listening")
    await server.go()

    await ward.stranger(port, b"".join(b"\x02%d\x03" % number for number in range(50)))
    await agent.until(lambda status: status["channels"][0]["queued"] == 50)
    await agent.kill()
    await server.come()
    await agent.start()

    await the_server_has(server, *(b"\x02%d\x03" % number for number in range(50)))


async def test_status_and_messages_show_the_channel_to_a_person(ward: Ward, server: ScriptedServer) -> None:
    port = ward.port()
    server.endpoint("bytes", f"tcp://127.0.0.1:{port}?{FRAMED}")
    agent = await ward.running_agent(server)
    device = await ward.stranger(port, b"\x02hello\x03")
    await device.hears_until(b"\x03")

    (channel,) = (await agent.status())["channels"]
    assert (channel["type"], channel["state"], channel["received"]) == ("tcp", "listening", 1)
    code, shown = await agent.ask("messages", "show", "1")
    assert code == 0
    assert "hello" in shown


class Cable:
    """A serial line: what the agent opens is at `path`, the device's end is ours."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ours = -1

    def plug_in(self) -> None:
        self._ours, theirs = pty.openpty()
        tty.setraw(theirs)
        os.set_blocking(self._ours, False)
        self.path.unlink(missing_ok=True)
        self.path.symlink_to(os.ttyname(theirs))
        os.close(theirs)

    def unplug(self) -> None:
        if self._ours >= 0:
            os.close(self._ours)
            self.path.unlink(missing_ok=True)
            self._ours = -1

    async def says(self, data: bytes) -> None:
        os.write(self._ours, data)

    async def hears_until(self, end: bytes) -> bytes:
        heard = b""
        async with asyncio.timeout(WITHIN_S):
            while not heard.endswith(end):
                with contextlib.suppress(BlockingIOError, OSError):
                    heard += os.read(self._ours, 4096)
                await asyncio.sleep(0.01)
        return heard


@pytest.fixture
def cable(short_path: Path) -> Iterator[Cable]:
    cable = Cable(short_path / "tty")
    cable.plug_in()
    yield cable
    cable.unplug()


async def connected(agent: AgentProcess) -> None:
    await agent.until(lambda status: status["channels"][0]["state"] == "connected")


async def test_a_device_on_a_serial_line_is_carried_like_one_on_tcp(
    ward: Ward, server: ScriptedServer, cable: Cable
) -> None:
    server.endpoint("scale", f"serial://{cable.path}?baudRate=9600&{FRAMED}")
    agent = await ward.running_agent(server)
    await connected(agent)

    await cable.says(b"\x0212.5 kg\x03")

    assert await cable.hears_until(b"\x03") == b"\x02OK\x03"
    await the_server_has(server, b"\x0212.5 kg\x03")


async def test_an_adapter_that_is_unplugged_is_told_and_works_again_when_it_is_back(
    ward: Ward, server: ScriptedServer, cable: Cable
) -> None:
    server.endpoint("scale", f"serial://{cable.path}?{FRAMED}")
    agent = await ward.running_agent(server)
    await connected(agent)

    cable.unplug()
    await agent.until(lambda status: status["channels"][0]["state"] == "connecting")
    assert str(cable.path) in (await agent.findings())["channel.not-connected"]
    cable.plug_in()
    await connected(agent)

    await cable.says(b"\x02after\x03")
    await the_server_has(server, b"\x02after\x03")


async def test_an_analyser_on_a_serial_line_sends_results_and_gets_orders(
    ward: Ward, server: ScriptedServer, cable: Cable
) -> None:
    # given an analyser whose line is a serial port
    async def take(asked: Asked) -> None:
        await asked.answer("")

    server.script = take
    server.endpoint("lab", f"serial://{cable.path}?mode=astm")
    agent = await ward.running_agent(server)
    await connected(agent)
    # when it sends a session
    results = [b"H|\\^&|||analyser", b"R|1|^^^GLU|5.4|mmol/L", b"L|1|N"]
    for said in (ENQ, *frames_of(results)):
        await cable.says(said)
        assert await cable.hears_until(ACK) == ACK
    await cable.says(EOT)
    # then the server has it
    await server.until(lambda: server.bodies == ["".join(f"{record.decode()}\r" for record in results)])
    # and what is pushed to the channel goes over the same line
    orders = [b"H|\\^&", b"O|1|S1||^^^GLU", b"L|1|N"]
    callback = await server.push("astm://lab", b"\r".join(orders) + b"\r")
    assert await cable.hears_until(ENQ) == ENQ
    for frame in frames_of(orders):
        await cable.says(ACK)
        assert await cable.hears_until(b"\r\n") == frame
    await cable.says(ACK)
    assert await cable.hears_until(EOT) == EOT
    assert (await server.answer_to(callback))["statusCode"] == 200
