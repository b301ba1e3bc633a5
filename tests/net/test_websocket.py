"""Texts over one WebSocket: the corners that a session does not show."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.server import ServerProtocol

from agent.errors import LinkError
from agent.net.proxy import dial
from agent.net.websocket import Ended, WebSocket, open_websocket


class Told:
    """What one socket reported."""

    def __init__(self) -> None:
        self.order: list[object] = []
        self.texts: asyncio.Queue[list[bytes]] = asyncio.Queue()

    def socket(self, url: str) -> WebSocket:
        return WebSocket(
            url,
            user_agent="onprem-agent/1",
            on_open=lambda: self.order.append("open"),
            on_texts=self._note,
            on_writable=lambda: self.order.append("writable"),
        )

    def _note(self, texts: list[bytes]) -> None:
        self.order.append(texts)
        self.texts.put_nowait(texts)

    async def hears(self) -> list[bytes]:
        async with asyncio.timeout(10):
            return await self.texts.get()


@asynccontextmanager
async def connection() -> AsyncIterator[tuple[WebSocket, ServerConnection, Told]]:
    accepted: asyncio.Queue[ServerConnection] = asyncio.Queue()

    async def handle(far: ServerConnection) -> None:
        accepted.put_nowait(far)
        await far.wait_closed()

    async with serve(handle, "127.0.0.1", 0, ping_interval=None, close_timeout=0.2) as server:
        url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/ws/agent"
        told = Told()
        near = told.socket(url)
        await open_websocket(url, near, dial, None)
        try:
            async with asyncio.timeout(10):
                yield near, await accepted.get(), told
        finally:
            await near.wait_closed()


async def ended(near: WebSocket) -> Ended:
    async with asyncio.timeout(10):
        await near.closed.wait()
    return near.ended


async def test_it_says_who_it_is_and_offers_no_compression() -> None:
    async with connection() as (_, far, _):
        assert far.request is not None
        assert far.request.headers["User-Agent"] == "onprem-agent/1"
        assert "Sec-WebSocket-Extensions" not in far.request.headers


async def test_a_text_in_the_same_read_as_the_upgrade_comes_after_the_opening() -> None:
    async def eager(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        core = ServerProtocol()
        core.receive_data(await reader.readuntil(b"\r\n\r\n"))
        (request,) = core.events_received()
        core.send_response(core.accept(request))  # type: ignore[arg-type]
        core.send_text(b"early")
        writer.write(b"".join(core.data_to_send()))
        await reader.read()
        writer.close()

    async with await asyncio.start_server(eager, "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        told = Told()
        near = told.socket(url)
        await open_websocket(url, near, dial, None)

        assert await told.hears() == [b"early"]
        assert told.order == ["open", [b"early"]]
        near.abort()
        await ended(near)


async def test_one_send_is_one_write() -> None:
    async with connection() as (near, far, _):
        writes: list[bytes] = []
        transport = near._transport
        assert transport is not None
        near._transport = CountingTransport(transport, writes)  # type: ignore[assignment]

        near.send([b"a", b"b", b"c"])

        assert [await far.recv() for _ in range(3)] == ["a", "b", "c"]
        assert len(writes) == 1
        near._transport = transport


class CountingTransport:
    """Passes everything on and notes the writes."""

    def __init__(self, transport: asyncio.Transport, writes: list[bytes]) -> None:
        self._transport = transport
        self._writes = writes

    def write(self, data: bytes) -> None:
        self._writes.append(data)
        self._transport.write(data)

    def __getattr__(self, name: str) -> object:
        return getattr(self._transport, name)


async def test_texts_of_every_length_form_arrive_as_they_were_in_order() -> None:
    # the three ways in which RFC 6455 §5.2 writes a length, at their borders, and UTF-8 of every length
    lengths = (0, 1, 124, 125, 126, 127, 65_535, 65_536, 70_000)
    texts = [bytes(97 + (length + at) % 26 for at in range(length)) for length in lengths] + ["é€𝄞\x7f".encode()]
    async with connection() as (near, far, _):
        near.send(texts)
        async with asyncio.timeout(10):
            assert [await far.recv(decode=False) for _ in texts] == texts


async def test_a_ping_is_answered() -> None:
    async with connection() as (_, far, _):
        await (await far.ping(b"abc"))


async def test_the_servers_close_is_answered_and_told() -> None:
    async with connection() as (near, far, _):
        await far.close(1012, "restarting")

        assert await ended(near) == Ended(1012, "restarting")
        assert far.close_code == 1012  # the handshake was completed


async def test_our_own_close_is_not_told_as_the_servers() -> None:
    async with connection() as (near, far, _):
        near.close(1001, "")

        assert await ended(near) == Ended(1006, "")
        await far.wait_closed()
        assert far.close_code == 1001


async def test_a_close_that_is_never_answered_is_cut() -> None:
    async with connection() as (near, far, _):
        far.transport.pause_reading()
        near.close(1001, "")

        await near.wait_closed()
        assert near.closed.is_set()


async def test_sending_after_the_end_is_harmless() -> None:
    async with connection() as (near, far, _):
        far.transport.abort()
        await ended(near)

        near.send([b"late"])
        near.close(1001, "")
        near.abort()
        assert near.queued_bytes == 0


async def test_nothing_that_passes_is_ever_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with connection() as (near, far, told):
        near.send([b"SECRET"])
        await far.recv()
        await far.send("SECRET")
        await told.hears()

    ours = [record for record in caplog.records if record.name != "websockets.server"]
    assert not any("SECRET" in record.getMessage() for record in ours)


async def test_a_connection_that_ends_during_the_upgrade_is_a_link_error() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, hard: bool) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if hard:
            writer.transport.abort()
        writer.close()

    for hard in (False, True):
        async with await asyncio.start_server(functools.partial(hang_up, hard=hard), "127.0.0.1", 0) as server:
            url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
            near = Told().socket(url)
            with pytest.raises(LinkError):
                await open_websocket(url, near, dial, None)
            await ended(near)
