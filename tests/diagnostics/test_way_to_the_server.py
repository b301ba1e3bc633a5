"""Name, proxy, connection: each says which of them is in the way."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from diagnostics_far_ends import a_host, a_server, free_port, running, silence

from agent.diagnostics import dns, proxy, tcp
from agent.diagnostics.check import Looked, NotLooked, Outcome
from agent.errors import Severity


def the_finding(outcome: Outcome) -> tuple[str, Severity]:
    assert isinstance(outcome, Looked)
    [finding] = outcome.findings
    assert finding.remedy
    return finding.code, finding.severity


def the_text(outcome: Outcome) -> str:
    assert isinstance(outcome, Looked)
    assert outcome.findings == ()
    return outcome.text


@pytest.mark.parametrize("check", [dns, proxy, tcp])
async def test_without_a_server_in_the_settings_there_is_no_way_to_look_at(tmp_path: Path, check: object) -> None:
    assert await check.look(a_host(tmp_path, None)) == NotLooked("the configuration is incomplete")  # type: ignore[attr-defined]


@pytest.mark.parametrize("check", [dns, proxy, tcp])
async def test_a_proxy_setting_that_cannot_be_used_is_not_gone_around(tmp_path: Path, check: object) -> None:
    host = a_host(tmp_path, **{"server.proxy": "socks5://here:1"})
    assert await check.look(host) == NotLooked("the configuration is incomplete")  # type: ignore[attr-defined]


# ---- the name


async def test_a_name_is_told_with_its_addresses(tmp_path: Path) -> None:
    text = the_text(await dns.look(a_host(tmp_path, "http://localhost:1/")))
    assert text.startswith("localhost is ")
    assert "127.0.0.1" in text or "::1" in text


async def test_a_name_that_nobody_has_is_an_error_that_names_it(tmp_path: Path) -> None:
    outcome = await dns.look(a_host(tmp_path, "http://nobody.invalid/"))
    code, severity = the_finding(outcome)
    # a host without any name server cannot know that there is no such name (RFC 6761 §6.4)
    assert (code in {"dns.unknown-name", "dns.no-answer"}, severity) == (True, Severity.ERROR)
    assert isinstance(outcome, Looked)
    assert "nobody.invalid" in outcome.findings[0].text


async def test_a_name_with_a_label_too_long_is_no_crash(tmp_path: Path) -> None:
    assert the_finding(await dns.look(a_host(tmp_path, f"http://{'a' * 64}.example/")))[0] == "dns.unknown-name"


async def test_an_address_needs_no_name_server(tmp_path: Path) -> None:
    assert "no name to look up" in the_text(await dns.look(a_host(tmp_path, "http://[::1]:8103/")))


async def test_behind_a_proxy_the_name_is_the_proxys_business(tmp_path: Path) -> None:
    host = a_host(tmp_path, "http://nobody.invalid/", **{"server.proxy": "http://127.0.0.1:1"})
    assert the_text(await dns.look(host)) == "not needed: the proxy looks up nobody.invalid"


# ---- the connection


async def test_an_open_port_is_told_with_its_address_and_nothing_is_sent(tmp_path: Path) -> None:
    heard: list[bytes] = []
    ended = asyncio.Event()

    async def listen(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        heard.append(await reader.read())
        ended.set()

    async with a_server(listen) as port:
        text = the_text(await tcp.look(a_host(tmp_path, f"http://127.0.0.1:{port}/")))
        await ended.wait()

    assert text.startswith(f"127.0.0.1:{port} answers at 127.0.0.1 (")
    assert heard == [b""]


async def test_a_closed_port_is_an_error(tmp_path: Path) -> None:
    outcome = await tcp.look(a_host(tmp_path, f"http://127.0.0.1:{free_port()}/"))
    assert the_finding(outcome) == ("tcp.no-connection", Severity.ERROR)


# ---- the proxy


async def _tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
    await writer.drain()
    await silence(reader, writer)


def _answers(status: str) -> object:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status}\r\n\r\n".encode())
        await writer.drain()

    return answer


async def test_no_proxy_is_well(tmp_path: Path) -> None:
    assert the_text(await proxy.look(a_host(tmp_path))) == "no proxy is configured"


async def test_a_proxy_that_opens_the_tunnel_is_well(tmp_path: Path) -> None:
    async with a_server(_tunnel) as port:
        host = a_host(tmp_path, "http://server.example/", **{"server.proxy": f"http://me:pa55word@127.0.0.1:{port}"})
        text = the_text(await proxy.look(host))
        assert text.startswith(f"http://127.0.0.1:{port} opens a tunnel to server.example:80 (")
        assert the_text(await tcp.look(host)).startswith(f"server.example:80 answers through http://127.0.0.1:{port} (")


async def test_a_proxy_that_only_this_commands_environment_names_is_told(tmp_path: Path) -> None:
    async with a_server(_tunnel) as port:
        environ = {"http_proxy": f"http://127.0.0.1:{port}"}
        alone = await proxy.look(a_host(tmp_path, "http://server.example/", environ=environ))
        assert the_finding(alone) == ("proxy.from-environment", Severity.INFO)


async def test_a_proxy_that_is_not_there_is_not_taken_for_the_server(tmp_path: Path) -> None:
    host = a_host(tmp_path, "http://server.example/", **{"server.proxy": f"http://127.0.0.1:{free_port()}"})
    assert the_finding(await proxy.look(host)) == ("proxy.unreachable", Severity.ERROR)


@pytest.mark.parametrize("status", ["403 Forbidden", "407 Proxy Authentication Required"])
async def test_a_proxy_that_refuses_is_an_error_without_its_password(tmp_path: Path, status: str) -> None:
    async with a_server(_answers(status)) as port:  # type: ignore[arg-type]
        host = a_host(tmp_path, "http://server.example/", **{"server.proxy": f"http://me:pa55word@127.0.0.1:{port}"})
        outcome = await proxy.look(host)
    assert the_finding(outcome) == ("proxy.no-tunnel", Severity.ERROR)
    assert status[:3] in str(outcome)
    assert "pa55word" not in str(outcome)


async def test_a_proxy_that_the_environment_spells_wrong_is_told_by_the_variable(tmp_path: Path) -> None:
    host = a_host(tmp_path, environ={"HTTP_PROXY": "socks5://proxy:1080"}, daemon=running())
    assert the_finding(await proxy.look(host)) == ("settings.proxy", Severity.ERROR)
    assert isinstance(await dns.look(host), NotLooked)
