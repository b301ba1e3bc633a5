"""Whether the upgrade gets through, and that nobody is disturbed by the question."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from diagnostics_far_ends import a_host, a_server, an_http_server, plain_words, silence

from agent.diagnostics import websocket
from agent.diagnostics.check import Check, Looked, NotLooked, examine
from agent.errors import Severity
from agent.hub import Hub


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Hub]:
    async with Hub.open(tmp_path / "hub", ("127.0.0.1", 0)) as hub:
        yield hub


async def test_the_real_server_upgrades(tmp_path: Path, hub: Hub) -> None:
    outcome = await websocket.look(a_host(tmp_path, hub.base_url))
    assert isinstance(outcome, Looked)
    assert outcome.findings == ()
    assert outcome.text.startswith(f"{hub.base_url.replace('http', 'ws')}ws/agent upgrades (")


async def test_nothing_is_said_on_the_socket_and_it_is_closed_politely(tmp_path: Path) -> None:
    heard: list[object] = []
    ended = asyncio.Event()

    async def listen(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        heard.extend([message async for message in socket])
        heard.append(socket.close_code)
        ended.set()
        return socket

    async with an_http_server(listen) as base_url:
        await websocket.look(a_host(tmp_path, base_url))
        await ended.wait()

    assert heard == [1000]


async def test_a_server_that_does_not_upgrade_is_an_error(tmp_path: Path) -> None:
    async def refuse(_: web.Request) -> web.Response:
        return web.Response(status=404)

    async with an_http_server(refuse) as base_url:
        outcome = await websocket.look(a_host(tmp_path, base_url))
    assert isinstance(outcome, Looked)
    [finding] = outcome.findings
    assert (finding.code, finding.severity) == ("websocket.refused", Severity.ERROR)
    assert "404" in finding.text
    assert finding.remedy


async def test_a_proxy_that_spoils_the_upgrade_is_named(tmp_path: Path) -> None:
    async def tunnel_to_nowhere(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await writer.drain()
        await plain_words(reader, writer)

    async with a_server(tunnel_to_nowhere) as port:
        host = a_host(tmp_path, "http://server.example/", **{"server.proxy": f"http://127.0.0.1:{port}"})
        outcome = await websocket.look(host)
    assert isinstance(outcome, Looked)
    assert f"let proxy http://127.0.0.1:{port} pass WebSockets" in outcome.findings[0].remedy


async def test_an_upgrade_that_is_never_answered_is_late(tmp_path: Path) -> None:
    async with a_server(silence) as port:
        check = Check("websocket", "the socket", websocket.look, within_s=0.2)
        [result] = await examine(a_host(tmp_path, f"http://127.0.0.1:{port}/"), [check])
    assert [finding.code for finding in result.findings] == ["websocket.late"]


async def test_without_a_server_there_is_no_socket(tmp_path: Path) -> None:
    assert await websocket.look(a_host(tmp_path, None)) == NotLooked("the configuration is incomplete")
