"""One live socket to the server, against a real WebSocket server on loopback that answers as each test tells it."""

from __future__ import annotations

import asyncio
import functools
import json
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from net_far_ends import ConnectProxy
from structlog.testing import capture_logs
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from agent.backoff import Backoff, pause
from agent.errors import ConfigError, Finding, LinkError, Severity
from agent.net.proxy import Proxy, dial
from agent.net.tls import client_context
from agent.net.uplink import LostLink, Uplink, socket_url
from agent.net.websocket import HIGH_WATER_BYTES
from agent.protocol.envelope import (
    AgentErrorFrame,
    FromServer,
    Push,
    ReloadConfigRequest,
    TransmitRequest,
    TransmitResponse,
    encode,
    sayable,
)

AGENT = "0c74a273-d090-42d4-84bc-7f2429bc7716"
MESSAGE = encode(TransmitRequest("T", "adt", "10.0.0.9:1", "x-application/hl7-v2+er7", "MSH|^~\\&|", "cb-1"))
CONNECTED = '{"type":"agent:connect:response"}'


class FarEnd:
    """The server: every socket that opens is put into a queue, and the test speaks through it."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.port: int = next(iter(server.sockets)).getsockname()[1]
        self.base_url = f"http://127.0.0.1:{self.port}/"
        self.sockets: asyncio.Queue[ServerConnection] = asyncio.Queue()

    async def socket(self) -> ServerConnection:
        async with asyncio.timeout(10):
            return await self.sockets.get()

    async def live(self) -> ServerConnection:
        """The next socket, after the agent has introduced itself and was accepted."""
        opened = await self.socket()
        assert (await heard(opened))["type"] == "agent:connect:request"
        await opened.send(CONNECTED)
        return opened


async def heard(opened: ServerConnection) -> dict[str, Any]:
    async with asyncio.timeout(10):
        frame: dict[str, Any] = json.loads(await opened.recv())
        return frame


async def closed(opened: ServerConnection) -> None:
    async with asyncio.timeout(10):
        await opened.wait_closed()


@asynccontextmanager
async def far_end(*, port: int = 0, tls: ssl.SSLContext | None = None, **options: Any) -> AsyncIterator[FarEnd]:
    sockets: asyncio.Queue[ServerConnection] = asyncio.Queue()

    async def handle(opened: ServerConnection) -> None:
        sockets.put_nowait(opened)
        await opened.wait_closed()

    options = {"ping_interval": None, "close_timeout": 0.2, **options}
    async with serve(handle, "127.0.0.1", port, ssl=tls, **options) as server:
        end = FarEnd(server)
        end.sockets = sockets
        yield end


class Daemon:
    """What the uplink tells its owner, in order."""

    def __init__(self, url: str, **options: Any) -> None:
        self.told: asyncio.Queue[str | LostLink | list[FromServer]] = asyncio.Queue()
        options = {"backoff": Backoff(0.01, 0.02), "refused_backoff": Backoff(0.01, 0.02), **options}
        options = {"token": self._token, "agent_id": AGENT, "version": "1.2.3", **options}
        self.uplink = Uplink(
            url,
            on_live=lambda: self.told.put_nowait("live"),
            on_lost=self.told.put_nowait,
            on_frames=self.told.put_nowait,
            on_writable=lambda: self.told.put_nowait("writable"),
            **options,
        )

    @staticmethod
    async def _token() -> str:
        return "T"

    async def hears(self) -> Any:
        async with asyncio.timeout(10):
            return await self.told.get()

    async def becomes(self, what: str) -> None:
        while await self.hears() != what:
            pass

    async def loses(self) -> LostLink:
        while not isinstance(lost := await self.hears(), LostLink):
            pass
        return lost

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Uplink]:
        async with asyncio.TaskGroup() as work:
            task = work.create_task(self.uplink.run(), name="uplink")
            try:
                yield self.uplink
            finally:
                task.cancel()


def steps(*limits_s: float) -> tuple[list[float], Callable[[asyncio.Event, float], Awaitable[None]]]:
    """A wait that takes no time beyond a turn of the loop, and a list of what it was asked for."""
    asked: list[float] = []

    async def wait(wake: asyncio.Event, seconds: float) -> None:
        asked.append(seconds)
        await asyncio.sleep(0)

    return asked, wait


# Connecting


@pytest.mark.parametrize(
    ("base_url", "expected"),
    [
        ("http://127.0.0.1:8103/", "ws://127.0.0.1:8103/ws/agent"),
        ("https://api.example.org", "wss://api.example.org/ws/agent"),
        ("https://example.org/medplum/", "wss://example.org/medplum/ws/agent"),
        ("wss://example.org/ws/agent", "wss://example.org/ws/agent"),
    ],
)
def test_the_socket_is_found_below_the_base_url(base_url: str, expected: str) -> None:
    assert socket_url(base_url) == expected


async def test_the_first_frame_is_the_recorded_connect_request() -> None:
    async with far_end() as server, Daemon(server.base_url).running() as uplink:
        opened = await server.socket()

        assert opened.request is not None
        assert opened.request.path == "/ws/agent"
        assert "Sec-WebSocket-Extensions" not in opened.request.headers
        async with asyncio.timeout(10):
            assert await opened.recv() == (f'{{"type":"agent:connect:request","accessToken":"T","agentId":"{AGENT}"}}')
        assert not uplink.live


@pytest.mark.parametrize("answer", [CONNECTED, '{"type":"connected"}'])
async def test_the_connect_response_makes_it_live_under_either_name(answer: str) -> None:
    async with far_end() as server:
        daemon = Daemon(server.base_url)
        async with daemon.running() as uplink:
            opened = await server.socket()
            await opened.send(answer)

            assert await daemon.hears() == "live"
            assert uplink.live
            assert uplink.writable
            assert uplink.last_error == ""


async def test_the_token_of_the_moment_is_asked_for_at_every_dial() -> None:
    tokens = iter(["first", "second"])

    async def token() -> str:
        return next(tokens)

    async with far_end() as server, Daemon(server.base_url, token=token).running():
        for expected in ("first", "second"):
            opened = await server.socket()
            assert (await heard(opened))["accessToken"] == expected
            opened.transport.abort()


async def test_frames_that_come_in_one_read_are_handed_over_in_one_call() -> None:
    async with far_end() as server:
        daemon = Daemon(server.base_url)
        async with daemon.running():
            opened = await server.socket()
            texts = [
                CONNECTED,
                '{"type":"agent:transmit:response","channel":"adt","statusCode":200,"body":"A","callback":"1"}',
                '{"type":"agent:heartbeat:request"}',
                '{"type":"agent:transmit:response","channel":"adt","statusCode":400,"body":"B","callback":"2"}',
                '{"type":"agent:reloadconfig:request","callback":"3"}',
                '{"type":"agent:error","body":"Channel not found"}',
            ]
            for text in texts:
                opened.protocol.send_text(text.encode())
            opened.transport.write(b"".join(opened.protocol.data_to_send()))

            assert await daemon.hears() == "live"
            assert await daemon.hears() == [
                TransmitResponse("adt", body="A", callback="1"),
                TransmitResponse("adt", status_code=400, body="B", callback="2"),
                ReloadConfigRequest("3"),
                AgentErrorFrame("Channel not found"),
            ]


async def test_a_message_in_fragments_is_one_frame() -> None:
    async with far_end() as server:
        daemon = Daemon(server.base_url)
        async with daemon.running():
            opened = await server.live()
            await opened.send(iter(['{"type":"push","remo', 'te":"mllp://h:1",', '"body":"x"}']))

            assert await daemon.hears() == "live"
            assert await daemon.hears() == [Push("mllp://h:1", body="x")]


async def test_many_frames_leave_in_one_write() -> None:
    async with far_end() as server:
        daemon = Daemon(server.base_url)
        async with daemon.running() as uplink:
            opened = await server.live()
            await daemon.becomes("live")

            uplink.send([MESSAGE] * 50)

            for _ in range(50):
                assert (await heard(opened))["callback"] == "cb-1"


async def test_nothing_is_sent_on_a_socket_that_is_not_live() -> None:
    async with far_end() as server, Daemon(server.base_url).running() as uplink:
        await server.socket()

        with pytest.raises(LinkError, match="not live"):
            uplink.send([MESSAGE])


async def test_a_request_before_the_connect_response_is_refused_with_its_callback() -> None:
    async with far_end() as server, Daemon(server.base_url).running():
        opened = await server.socket()
        await heard(opened)
        await opened.send('{"type":"agent:transmit:request","remote":"mllp://h:1","body":"x","callback":"cb-9"}')

        assert await heard(opened) == {"type": "agent:error", "body": "Not connected", "callback": "cb-9"}


# Frames that are none


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("this is not json", "Frame is not valid JSON: JSON is malformed: invalid character (byte 4)"),
        ("null", "Frame is null, not a JSON object"),
        ('{"type":"agent:bogus:request"}', "Unknown message type: agent:bogus:request"),
    ],
)
async def test_a_text_that_is_no_frame_is_answered_and_the_socket_stays(text: str, answer: str) -> None:
    async with far_end() as server:
        daemon = Daemon(server.base_url)
        async with daemon.running() as uplink:
            opened = await server.live()
            await daemon.becomes("live")
            await opened.send(text)

            assert await heard(opened) == {"type": "agent:error", "body": answer}
            await opened.send('{"type":"agent:bogus","callback":"Agent/a-1#2"}')
            assert (await heard(opened))["callback"] == "Agent/a-1#2"
            assert uplink.live


async def test_no_content_of_a_frame_reaches_the_log() -> None:
    with capture_logs() as lines:
        async with far_end() as server:
            daemon = Daemon(server.base_url)
            async with daemon.running() as uplink:
                opened = await server.live()
                await daemon.becomes("live")
                await opened.send('{"type":"agent:transmit:response","body":"SECRET","statusCode":"SECRET"}')
                await heard(opened)
                uplink.send([MESSAGE.replace(b"MSH", b"SECRET")])
                await heard(opened)

    assert any(line["event"] == "frame.unreadable" for line in lines)
    assert "SECRET" not in repr(lines)
    assert "'T'" not in repr(lines)


# Heartbeats


async def test_a_heartbeat_of_the_server_is_answered_with_our_version() -> None:
    async with far_end() as server, Daemon(server.base_url).running():
        opened = await server.live()
        await opened.send('{"type":"agent:heartbeat:request"}')

        async with asyncio.timeout(10):
            assert await opened.recv() == '{"type":"agent:heartbeat:response","version":"1.2.3"}'


async def test_a_round_trip_updates_the_ping() -> None:
    async with far_end() as server:
        daemon = Daemon(server.base_url, heartbeat_s=0.02, wall_clock=lambda: 1234.5)
        async with daemon.running() as uplink:
            opened = await server.live()
            assert (uplink.ping_ms, uplink.last_heartbeat) == (-1, None)
            assert await heard(opened) == {"type": "agent:heartbeat:request"}
            assert uplink.outstanding_heartbeats == 1
            await opened.send('{"type":"agent:heartbeat:response","version":"5.0.10"}')
            await opened.send('{"type":"agent:reloadconfig:request"}')
            await daemon.becomes("live")
            await daemon.hears()

            assert 0 <= uplink.ping_ms < 10_000
            assert uplink.last_heartbeat == 1234.5


async def test_a_server_that_answers_no_heartbeat_is_left_after_the_second() -> None:
    async with far_end() as server:
        daemon = Daemon(server.base_url, heartbeat_s=0.02)
        async with daemon.running() as uplink:
            silent = await server.live()
            lost = await daemon.loses()

            assert lost == LostLink(1006, "the server did not answer the heartbeats", was_live=True)
            beats = [json.loads(text) async for text in silent_rest(silent)]
            assert beats == [{"type": "agent:heartbeat:request"}] * 2
            await server.live()
            await daemon.becomes("live")
            assert uplink.reconnects == 1


async def silent_rest(opened: ServerConnection) -> AsyncIterator[str | bytes]:
    async with asyncio.timeout(10):
        try:
            while True:
                yield await opened.recv()
        except ConnectionClosed:
            return


# Losing it, and coming back for ever


async def test_a_lost_socket_is_dialled_again_and_again() -> None:
    async with far_end() as server:
        daemon = Daemon(server.base_url)
        async with daemon.running() as uplink:
            for round_ in range(5):
                opened = await server.live()
                await daemon.becomes("live")
                assert uplink.reconnects == round_
                opened.transport.abort()
                lost = await daemon.loses()
                assert (lost.code, lost.was_live) == (1006, True)
                assert not uplink.live


async def test_the_servers_close_code_and_reason_are_passed_on() -> None:
    async with far_end(max_size=1000) as server:
        daemon = Daemon(server.base_url)
        async with daemon.running() as uplink:
            await server.live()
            await daemon.becomes("live")

            uplink.send([b"x" * 2000])

            lost = await daemon.loses()
            assert (lost.code, lost.was_live) == (1009, True)
            assert "1009" in uplink.last_error


async def test_a_frame_above_our_own_limit_is_not_taken_for_the_servers_1009() -> None:
    async with far_end() as server:
        daemon = Daemon(server.base_url)
        async with daemon.running():
            opened = await server.live()
            # The header of a text frame of 2^40 bytes (RFC 6455 §5.2); the body need never come.
            opened.transport.write(b"\x81\x7f" + (1 << 40).to_bytes(8, "big"))

            assert (await daemon.loses()).code == 1006


async def test_a_server_that_is_away_at_start_is_found_later() -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    daemon = Daemon(f"http://127.0.0.1:{port}/")
    with capture_logs() as lines:
        async with daemon.running() as uplink:
            for _ in range(3):
                assert await daemon.loses() == LostLink(1006, "the connection was lost", was_live=False)
            assert "cannot connect to 127.0.0.1" in uplink.last_error
            async with far_end(port=port) as server:
                await server.live()
                await daemon.becomes("live")
                assert uplink.reconnects == 0

    assert [line["event"] for line in lines][:2] == ["uplink.failed", "uplink.live"]  # once, not at every try


async def test_waits_grow_from_one_second_and_never_pass_ten() -> None:
    async def unreachable(host: str, port: int) -> socket.socket:
        raise LinkError("nobody there")

    asked, wait = steps()
    daemon = Daemon("http://127.0.0.1:1/", dial=unreachable, wait=wait, backoff=Backoff(1, 10, draw=lambda: 0))
    async with daemon.running():
        for _ in range(7):
            await daemon.loses()

    assert asked[:6] == [1, 2, 4, 8, 10, 10]


async def test_once_live_the_waits_begin_again_with_the_short_one() -> None:
    async with far_end() as server:
        failures = iter([True, True, True, False])

        async def lame(host: str, port: int) -> socket.socket:
            if next(failures, False):
                raise LinkError("nobody there")
            return await dial(host, port)

        asked: list[float] = []

        async def wait(wake: asyncio.Event, seconds: float) -> None:
            asked.append(seconds)
            await pause(wake, 0 if seconds < 5 else seconds)

        daemon = Daemon(server.base_url, dial=lame, wait=wait, backoff=Backoff(1, 4, draw=lambda: 0), heartbeat_s=3600)
        async with daemon.running():
            opened = await server.live()
            await daemon.becomes("live")
            opened.transport.abort()
            await daemon.loses()
            await server.live()

        assert [seconds for seconds in asked if seconds < 5] == [1, 2, 4, 1]


async def test_the_default_waits_are_those_promised() -> None:
    async def unreachable(host: str, port: int) -> socket.socket:
        raise LinkError("nobody there")

    asked, wait = steps()
    options = {"dial": unreachable, "wait": wait, "backoff": None, "refused_backoff": None}
    daemon = Daemon("http://127.0.0.1:1/", **options)
    async with daemon.running():
        for _ in range(30):
            await daemon.loses()

    assert 0.5 <= asked[0] <= 1
    assert max(asked) <= 10
    assert min(asked[5:]) >= 5


async def test_an_upgrade_that_is_never_answered_is_given_up_and_tried_again() -> None:
    accepted: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()

    async def never_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.put_nowait(writer)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(never_answer, "127.0.0.1", 0)
    async with server:
        daemon = Daemon(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", open_within_s=0.05)
        async with daemon.running() as uplink, asyncio.timeout(10):
            await accepted.get()
            await daemon.loses()
            assert "did not open within 0.05 s" in uplink.last_error
            await accepted.get()


@pytest.mark.parametrize("status", [404, 503])
async def test_an_upgrade_that_is_refused_names_the_status(status: int) -> None:
    async with far_end(process_request=lambda opened, request: opened.respond(status, "no")) as server:
        daemon = Daemon(server.base_url)
        async with daemon.running() as uplink:
            await daemon.loses()

            assert f"answered with {status}" in uplink.last_error


async def test_a_far_end_that_is_no_websocket_server_is_named() -> None:
    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 smtp ready\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(shout, "127.0.0.1", 0)
    async with server:
        daemon = Daemon(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        async with daemon.running() as uplink:
            await daemon.loses()

            assert "check the base URL and the port" in uplink.last_error


async def test_a_server_that_never_answers_the_connect_request_is_left() -> None:
    async with far_end() as server:
        daemon = Daemon(server.base_url, open_within_s=0.05)
        async with daemon.running() as uplink:
            deaf = await server.socket()
            await closed(deaf)

            lost = await daemon.loses()
            assert lost == LostLink(1006, "the server did not answer the connect request", was_live=False)
            assert await server.socket()
            assert "connect request" in uplink.last_error


async def test_asked_to_reconnect_it_does_not_wait() -> None:
    async with far_end() as server:
        daemon = Daemon(server.base_url, backoff=Backoff(3600, 3600))
        async with daemon.running() as uplink:
            opened = await server.live()
            await daemon.becomes("live")
            opened.transport.abort()
            await daemon.loses()
            uplink.reconnect_soon()

            second = await server.live()
            await daemon.becomes("live")
            uplink.reconnect_soon()
            await closed(second)
            assert second.close_code == 1001
            await server.live()


async def test_stopping_closes_the_socket_politely() -> None:
    async with far_end() as server:
        daemon = Daemon(server.base_url)
        async with daemon.running():
            opened = await server.live()
            await daemon.becomes("live")

        await closed(opened)
        assert opened.close_code == 1001
        assert await daemon.loses() == LostLink(1006, "the agent stops", was_live=True)


async def test_a_bug_in_a_callback_ends_the_run() -> None:
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    async with far_end() as server:
        daemon = Daemon(server.base_url)
        daemon.uplink._on_frames = lambda frames: [][1]

        async def provoke() -> None:
            async with daemon.running():
                opened = await server.live()
                await opened.send('{"type":"agent:reloadconfig:request"}')
                await asyncio.Event().wait()

        with pytest.raises(ExceptionGroup) as ended:
            await provoke()

    assert ended.group_contains(IndexError)


# Refused


@pytest.mark.parametrize(
    ("said", "names"),
    [("Not found", "agentId"), ("Forbidden", "clientId"), ("Invalid access token", "baseUrl"), ("Bad day", "agent id")],
)
async def test_a_refusal_says_which_value_is_wrong_and_is_tried_again_slowly(said: str, names: str) -> None:
    async with far_end() as server:
        asked, wait = steps()

        async def refuse_first(wake: asyncio.Event, seconds: float) -> None:
            await wait(wake, seconds)
            if not isinstance(seconds, float) or seconds < 20:
                await asyncio.sleep(0.01)

        daemon = Daemon(server.base_url, wait=refuse_first, refused_backoff=None)
        async with daemon.running() as uplink:
            for _ in range(3):
                opened = await server.socket()
                await opened.send(json.dumps({"type": "agent:error", "body": said}))
                lost = await daemon.loses()
                assert names in lost.reason
                assert sayable(said) in uplink.last_error
            opened = await server.socket()

        slow = [seconds for seconds in asked if seconds > 20]
        assert len(slow) == (2 if said == "Invalid access token" else 3)  # a refused token may just be an old one
        assert all(30 <= seconds <= 60 for seconds in slow)


async def test_a_refused_token_is_reported_and_its_cause_told() -> None:
    reports: list[None] = []

    def refused() -> str:
        reports.append(None)
        return "the clocks are 90 s apart"

    async with far_end() as server:
        daemon = Daemon(server.base_url, on_token_refused=refused)
        async with daemon.running() as uplink:
            opened = await server.socket()
            await opened.send('{"type":"agent:error","body":"Invalid access token"}')
            await daemon.loses()
            assert "90 s apart" in uplink.last_error

            opened = await server.live()
            await daemon.becomes("live")
            await opened.send('{"type":"agent:error","body":"Invalid access token"}')
            assert await daemon.hears() == [AgentErrorFrame("Invalid access token")]
            assert len(reports) == 2


async def test_without_a_token_nothing_is_dialled_and_the_reason_is_kept() -> None:
    tries: asyncio.Queue[None] = asyncio.Queue()

    async def token() -> str:
        tries.put_nowait(None)
        raise ConfigError([Finding("credentials.client-id", Severity.ERROR, "refused", "check the client id")])

    async with far_end() as server:
        asked, wait = steps()
        daemon = Daemon(server.base_url, token=token, wait=wait, refused_backoff=None)
        async with daemon.running() as uplink, asyncio.timeout(10):
            await tries.get()
            await tries.get()
            assert "check the client id" in uplink.last_error
        assert server.sockets.empty()
        assert asked[0] >= 30


async def test_a_server_that_says_when_to_come_back_is_not_asked_before() -> None:
    tries: asyncio.Queue[None] = asyncio.Queue()

    async def token() -> str:
        tries.put_nowait(None)
        raise LinkError("too many requests", retry_after_s=77)

    asked, wait = steps()
    async with Daemon("http://127.0.0.1:1/", token=token, wait=wait).running(), asyncio.timeout(10):
        await tries.get()
        await tries.get()
    assert asked[0] == 77


# Backpressure


async def test_a_server_that_stops_reading_makes_it_unwritable_until_it_reads_again() -> None:
    async with far_end(max_queue=1) as server:
        daemon = Daemon(server.base_url)
        async with daemon.running() as uplink:
            opened = await server.live()
            await daemon.becomes("live")
            sent = 0
            while uplink.writable:
                uplink.send([b'"' + b"x" * 500_000 + b'"'] * 4)
                sent += 4
                await asyncio.sleep(0)

            assert uplink.queued_bytes > HIGH_WATER_BYTES
            assert uplink.live
            async with asyncio.timeout(10):
                for _ in range(sent):
                    await opened.recv()
            assert await daemon.hears() == "writable"
            assert uplink.writable


# TLS


async def test_a_server_whose_authority_is_named_is_trusted(certificate: tuple[Path, Path]) -> None:
    async with tls_end(certificate) as server:
        url = f"https://localhost:{server.port}/"
        daemon = Daemon(url, ssl=client_context(certificate[0]))
        async with daemon.running() as uplink:
            opened = await server.live()
            await daemon.becomes("live")
            uplink.send([MESSAGE])
            assert (await heard(opened))["callback"] == "cb-1"


async def test_a_server_whose_authority_is_unknown_is_not_spoken_to(certificate: tuple[Path, Path]) -> None:
    async with tls_end(certificate) as server:
        daemon = Daemon(f"https://localhost:{server.port}/")
        async with daemon.running() as uplink:
            await daemon.loses()

            assert "not trusted" in uplink.last_error
            assert "ca_file" in uplink.last_error


async def test_a_proxy_carries_the_socket_in_a_tunnel(
    certificate: tuple[Path, Path], connect_proxy: ConnectProxy
) -> None:
    async with tls_end(certificate) as server:
        way = functools.partial(dial, proxy=Proxy("127.0.0.1", connect_proxy.port, "user", "pass"))
        daemon = Daemon(f"https://localhost:{server.port}/", ssl=client_context(certificate[0]), dial=way)
        async with daemon.running() as uplink:
            await server.live()
            await daemon.becomes("live")

            assert connect_proxy.heads[0].startswith(f"CONNECT localhost:{server.port} HTTP/1.1")
            connect_proxy.answer = b"HTTP/1.1 407 no\r\n\r\n"
            uplink.reconnect_soon()
            await daemon.loses()
            assert not (await daemon.loses()).was_live
            assert "407" in uplink.last_error
            assert "pass" not in uplink.last_error.replace("password", "")


@asynccontextmanager
async def tls_end(certificate: tuple[Path, Path]) -> AsyncIterator[FarEnd]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    async with far_end(tls=context) as server:
        yield server


# The other event loop


def test_it_works_the_same_on_uvloop(certificate: tuple[Path, Path]) -> None:
    uvloop = pytest.importorskip("uvloop")

    async def life() -> None:
        async with tls_end(certificate) as server:
            daemon = Daemon(f"https://localhost:{server.port}/", ssl=client_context(certificate[0]))
            async with daemon.running() as uplink:
                opened = await server.live()
                await daemon.becomes("live")
                uplink.send([MESSAGE] * 3)
                for _ in range(3):
                    await heard(opened)
                opened.transport.abort()
                await daemon.loses()
                with pytest.raises(LinkError):
                    uplink.send([MESSAGE])
                opened = await server.live()
                await daemon.becomes("live")
            await closed(opened)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(life())
