"""HL7 over TLS, seen by clients that others wrote."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import hl7.mllp
import pytest
from ward_agents import AgentProcess
from ward_building import Ward
from ward_certificates import Authority
from ward_messages import Heard, adt
from ward_servers import ScriptedServer
from ward_strangers import s_client

FRAME = b"\x0b" + adt("T1") + b"\x1c\r"


class Secured:
    """A ward whose agent has one mllps channel, `lab`, with `[tls.lab]` in its configuration file."""

    def __init__(self, ward: Ward) -> None:
        self.ward = ward
        self.port = ward.port()
        self.authority = Authority("WARD CA")
        self.folder = ward.folder / "tls"
        self.folder.mkdir()
        self.agent: AgentProcess
        self.server: ScriptedServer
        self.query = ""

    def certify(self, *, days: int = 365, authority: Authority | None = None) -> None:
        """Put a certificate for 127.0.0.1 where the channel looks for one."""
        (authority or self.authority).issue("lab.example", days=days).write(self.folder / "lab.pem")

    async def start(self, *, client_ca: bool = False, plain: bool = False, **parameters: str) -> None:
        (self.folder / "ca.pem").write_bytes(self.authority.pem)
        self.configure(client_ca=client_ca)
        self.server = await self.ward.server()
        self.query = "&".join(f"{name}={value}" for name, value in {"tls": "lab", **parameters}.items())
        if plain:
            self.server.channel("lab", self.port)
        else:
            self.secure()
        self.agent = await self.ward.running_agent(self.server, AGENT_CONFIG=str(self.folder / "config.toml"))
        await self.agent.until(lambda status: bool(status["channels"]))

    def configure(self, *, client_ca: bool) -> None:
        """Write the configuration file: [tls.lab], and [tls.new] beside it."""
        lines = ["[tls.lab]", f"certificate_file = '{self.folder / 'lab.pem'}'"]
        lines += [f"ca_file = '{self.folder / 'ca.pem'}'"] if client_ca else []
        lines += ["[tls.new]", f"certificate_file = '{self.folder / 'new.pem'}'"]
        (self.folder / "config.toml").write_text("\n".join(lines))

    def secure(self) -> None:
        """Have the server's Endpoint say mllps."""
        self.server.endpoint("lab", f"mllps://127.0.0.1:{self.port}?{self.query}")

    def context(self, authority: Authority) -> ssl.SSLContext:
        """A client that believes this authority alone."""
        return ssl.create_default_context(cadata=authority.pem.decode())

    @property
    def trusting(self) -> tuple[str, ...]:
        return ("-CAfile", str(self.folder / "ca.pem"), "-verify_return_error")


@pytest.fixture
def secured(ward: Ward) -> Secured:
    return Secured(ward)


def code_of(received: bytes) -> str:
    return Heard.read(received.strip(b"\x0b\x1c\r") + b"\r").code


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
async def test_openssl_is_answered_in_both_versions(secured: Secured, version: str) -> None:
    secured.certify()
    await secured.start()

    _, received = await s_client(secured.port, version, *secured.trusting, sends=FRAME)

    assert code_of(received) == "AA"
    [channel] = (await secured.agent.status())["channels"]
    assert (channel["type"], channel["received"], channel["odd"]) == ("mllps", 1, {})


async def test_an_old_version_is_refused_by_name(secured: Secured) -> None:
    secured.certify()
    await secured.start()

    said, received = await s_client(secured.port, "-tls1_1", "-cipher", "ALL@SECLEVEL=0", sends=FRAME)

    assert received == b""
    assert "alert" in said
    await secured.agent.until(lambda status: status["channels"][0]["odd"] == {"tls-failed": 1})


async def test_with_a_ca_a_sender_must_show_its_certificate(secured: Secured) -> None:
    secured.certify()
    await secured.start(client_ca=True)
    secured.authority.issue("analyser-7").write(secured.folder / "client.pem")
    Authority("STRANGERS").issue("analyser-8").write(secured.folder / "stranger.pem")

    def certificate(name: str) -> tuple[str, str]:
        return "-cert", str(secured.folder / name)

    _, received = await s_client(secured.port, *certificate("client.pem"), *secured.trusting, sends=FRAME)
    assert code_of(received) == "AA"
    for none_or_wrong in ((), certificate("stranger.pem")):
        said, received = await s_client(secured.port, *none_or_wrong, *secured.trusting, sends=FRAME)
        assert received == b""
        assert "alert" in said
    await secured.agent.until(lambda status: status["channels"][0]["odd"] == {"tls-failed": 2})
    assert (await secured.agent.status())["channels"][0]["received"] == 1


async def test_python_hl7_is_answered_over_tls(secured: Secured) -> None:
    secured.certify()
    await secured.start()
    context = secured.context(secured.authority)

    async with asyncio.timeout(20):
        reader, writer = await hl7.mllp.open_hl7_connection(
            "127.0.0.1", secured.port, ssl=context, server_hostname="lab.example"
        )
        for number in range(20):
            writer.writemessage(hl7.parse(adt(f"P{number}").decode()))
            await writer.drain()
            ack = await reader.readmessage()
            assert (str(ack.segment("MSA")[1]), str(ack.segment("MSA")[2])) == ("AA", f"P{number}")
        writer.close()


async def test_plain_text_on_a_tls_port_is_answered_in_plain_text(secured: Secured) -> None:
    secured.certify()
    await secured.start()

    stranger = await secured.ward.stranger(secured.port, FRAME, source="127.0.3.2")
    heard = await stranger.hears()

    assert b"MSA|AR|T1|" in heard
    assert b"TLS" in heard
    assert "127.0.3.2" in (await secured.agent.findings())["wire.plain-on-tls-port"]


async def test_a_renewed_certificate_is_shown_without_breaking_a_connection(secured: Secured) -> None:
    # given a sender that is connected
    secured.certify()
    await secured.start()
    old_context = secured.context(secured.authority)
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", secured.port, ssl=old_context, server_hostname="lab.example"
    )
    writer.write(FRAME)
    await reader.readuntil(b"\x1c\r")

    # when the file is replaced, as certbot does it, by a certificate of another authority
    renewed = Authority("RENEWED CA")
    renewed.issue("lab.example").write(secured.folder / "next.pem")
    (secured.folder / "next.pem").replace(secured.folder / "lab.pem")
    context = secured.context(renewed)
    async with asyncio.timeout(20):
        while True:
            try:
                _, other = await asyncio.open_connection(
                    "127.0.0.1", secured.port, ssl=context, server_hostname="lab.example"
                )
            except ssl.SSLCertVerificationError:
                await asyncio.sleep(0.2)
            else:
                break

    # then new connections see it, and the old one goes on
    other.close()
    writer.write(FRAME.replace(b"|T1|", b"|T2|"))
    assert b"MSA|AA|T2" in await reader.readuntil(b"\x1c\r")
    writer.close()


async def test_a_certificate_that_ends_soon_is_a_finding(secured: Secured) -> None:
    secured.certify(days=20)
    await secured.start()

    findings = await secured.agent.findings()

    assert "lab" in findings["tls.expiring"]


async def test_a_channel_without_its_certificate_fails_alone_and_comes_by_itself(secured: Secured) -> None:
    # given a channel whose certificate is not there
    await secured.start()
    status = await secured.agent.status()
    [channel] = status["channels"]
    assert channel["state"] == "failed"
    assert any(str(secured.folder / "lab.pem") in finding["text"] for finding in status["findings"])

    # when somebody puts it there
    secured.certify()
    await secured.agent.until(lambda status: status["channels"][0]["state"] == "listening", within_s=30)

    # then it works
    _, received = await s_client(secured.port, *secured.trusting, sends=FRAME)
    assert code_of(received) == "AA"


async def test_a_channel_that_turns_to_tls_lets_nobody_stay_in_plain_text(secured: Secured) -> None:
    # given a sender on a plain channel
    secured.certify()
    await secured.start(plain=True)
    device = await secured.ward.device(secured.port)
    assert (await device.ask(adt("P1"))).code == "AA"

    # when the channel's address becomes mllps, on the same port
    secured.secure()
    secured.agent.hang_up()
    await device.ended()

    # then who comes has to speak TLS
    await secured.agent.until(lambda status: status["channels"][0]["type"] == "mllps")
    _, received = await s_client(secured.port, *secured.trusting, sends=FRAME)
    assert code_of(received) == "AA"
    stranger = await secured.ward.stranger(secured.port, FRAME)
    assert b"MSA|AR|T1|" in await stranger.hears()


async def test_another_certificate_by_name_is_shown_without_breaking_a_connection(secured: Secured) -> None:
    secured.certify()
    await secured.start()
    renewed = Authority("RENEWED CA")
    renewed.issue("lab.example").write(secured.folder / "new.pem")
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", secured.port, ssl=secured.context(secured.authority), server_hostname="lab.example"
    )

    secured.query = "tls=new"
    secured.secure()
    secured.agent.hang_up()
    await secured.agent.until(lambda status: "tls=new" in status["channels"][0]["address"])

    _, other = await asyncio.open_connection(
        "127.0.0.1", secured.port, ssl=secured.context(renewed), server_hostname="lab.example"
    )
    other.close()
    writer.write(FRAME)
    assert b"MSA|AA|T1" in await reader.readuntil(b"\x1c\r")
    writer.close()


async def test_who_came_in_before_certificates_were_asked_for_does_not_stay(secured: Secured) -> None:
    secured.certify()
    await secured.start()
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", secured.port, ssl=secured.context(secured.authority), server_hostname="lab.example"
    )
    writer.write(FRAME)
    await reader.readuntil(b"\x1c\r")

    secured.configure(client_ca=True)
    secured.agent.hang_up()

    async with asyncio.timeout(20):
        assert await reader.read() == b""
    writer.close()
    said, received = await s_client(secured.port, *secured.trusting, sends=FRAME)
    assert received == b""
    assert "alert" in said


async def test_turning_to_tls_without_a_certificate_leaves_the_plain_channel_as_it_is(secured: Secured) -> None:
    await secured.start(plain=True)
    device = await secured.ward.device(secured.port)
    assert (await device.ask(adt("P1"))).code == "AA"

    secured.secure()
    secured.agent.hang_up()
    await secured.agent.until(lambda _: "configuration.refused" in secured.agent.main_log())

    assert (await device.ask(adt("P2"))).code == "AA"
    assert str(secured.folder / "lab.pem") in secured.agent.main_log()
    assert (await secured.agent.status())["channels"][0]["state"] == "listening"


async def test_a_large_message_passes_through_tls_whole(secured: Secured, tmp_path: Path) -> None:
    secured.certify()
    await secured.start()
    context = secured.context(secured.authority)
    large = adt("BIG", size_bytes=900_000)

    async with asyncio.timeout(20):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", secured.port, ssl=context, server_hostname="lab.example"
        )
        writer.write(b"\x0b" + large + b"\x1c\r")
        heard = await reader.readuntil(b"\x1c\r")
        writer.close()

    assert b"MSA|AA|BIG" in heard
