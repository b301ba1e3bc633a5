"""`mode=client`: the sending system listens, and the channel calls it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from ward_building import Ward
from ward_certificates import Authority
from ward_devices import Device
from ward_messages import adt
from ward_servers import Asked


class SendingSystem:
    """An order filler that waits to be called, and then sends."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.calls: asyncio.Queue[Device] = asyncio.Queue()
        self._server: asyncio.Server | None = None
        self._lines: list[Device] = []

    async def come(self, **secured: object) -> None:
        self._server = await asyncio.start_server(self._called, "127.0.0.1", self.port, **secured)  # type: ignore[arg-type]

    def _called(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = Device(reader, writer)
        self._lines.append(line)
        self.calls.put_nowait(line)

    async def called(self) -> Device:
        async with asyncio.timeout(30):
            return await self.calls.get()

    async def go(self) -> None:
        """Be away, connections and all."""
        if self._server is not None:
            self._server.close()
        for line in self._lines:
            await line.hang_up()
        self._lines.clear()


@pytest.fixture
async def filler(ward: Ward) -> AsyncIterator[SendingSystem]:
    filler = SendingSystem(ward.port())
    yield filler
    with contextlib.suppress(ConnectionError):
        await filler.go()


async def test_the_channel_calls_and_receives_there(ward: Ward, filler: SendingSystem) -> None:
    await filler.come()
    server = await ward.server()
    server.channel("orders", filler.port, mode="client")
    agent = await ward.running_agent(server)

    line = await filler.called()
    for number in range(10):
        assert str(await line.ask(adt(f"O{number}"))) == f"AA O{number}"

    assert [asked.control_id for asked in server.heard] == [f"O{number}" for number in range(10)]
    [channel] = (await agent.status())["channels"]
    assert (channel["state"], channel["connections"], channel["received"]) == ("connected", 1, 10)


async def test_it_calls_again_until_somebody_is_there_and_after_every_loss(ward: Ward, filler: SendingSystem) -> None:
    # given a sending system that is away
    server = await ward.server()
    server.channel("orders", filler.port, mode="client")
    agent = await ward.running_agent(server)
    status = await agent.until(lambda status: any(f["code"] == "channel.not-connected" for f in status["findings"]))
    assert status["channels"][0]["state"] == "connecting"

    # when it comes, goes and comes again
    for turn in range(3):
        await filler.come()
        line = await filler.called()
        assert str(await line.ask(adt(f"T{turn}"))) == f"AA T{turn}"
        await filler.go()

    # then every message of each time is on the server
    assert [asked.control_id for asked in server.heard] == ["T0", "T1", "T2"]


async def test_an_answer_that_comes_after_the_line_was_lost_is_kept_for_the_repetition(
    ward: Ward, filler: SendingSystem
) -> None:
    # given a message whose answer the server holds back
    await filler.come()
    server = await ward.server()
    go_on = asyncio.Event()

    async def wait(asked: Asked) -> None:
        await go_on.wait()
        await asked.accept()

    server.script = wait
    server.channel("orders", filler.port, mode="client")
    agent = await ward.running_agent(server)
    line = await filler.called()
    await line.send(adt("LATE"))
    await server.until(lambda: len(server.heard) == 1)

    # when the line is lost, and the answer comes
    await filler.go()
    go_on.set()
    await agent.until(lambda status: status["spool"]["countsByState"]["processed"] == 1)
    await filler.come()

    # then the repetition on the new line hears it, and the server does not
    line = await filler.called()
    assert str(await line.ask(adt("LATE"))) == "AA LATE"
    assert len(server.heard) == 1


async def test_it_calls_over_tls_and_believes_the_named_authority(ward: Ward, filler: SendingSystem) -> None:
    # given a sending system with a certificate of the hospital's own authority
    authority = Authority("HOSPITAL CA")
    authority.issue("filler").write(ward.folder / "filler.pem")
    (ward.folder / "ca.pem").write_bytes(authority.pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ward.folder / "filler.pem")
    await filler.come(ssl=context)
    config: Path = ward.folder / "config.toml"
    config.write_text(f"[tls.filler]\nca_file = '{ward.folder / 'ca.pem'}'\n")

    # when a channel calls it
    server = await ward.server()
    server.endpoint("orders", f"mllps://127.0.0.1:{filler.port}?mode=client&tls=filler")
    await ward.running_agent(server, AGENT_CONFIG=str(config))

    # then it receives there
    line = await filler.called()
    assert str(await line.ask(adt("S1"))) == "AA S1"
