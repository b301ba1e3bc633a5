"""The way out: which proxy applies, how a tunnel is asked for, and who is named when there is no way."""

from __future__ import annotations

import asyncio
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st
from net_far_ends import ConnectProxy

from agent.errors import ConfigError, LinkError
from agent.net.proxy import Proxy, dial, proxy_for

# Which proxy


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("http://proxy.example.org:3128", Proxy("proxy.example.org", 3128)),
        ("proxy.example.org:3128", Proxy("proxy.example.org", 3128)),
        ("http://proxy.example.org", Proxy("proxy.example.org", 80)),
        ("http://us%40er:p%40ss@[::1]:3128/", Proxy("::1", 3128, "us@er", "p@ss")),
    ],
)
def test_a_proxy_is_read_from_its_url(url: str, proxy: Proxy) -> None:
    assert Proxy.parse(url) == proxy


@pytest.mark.parametrize("url", ["https://proxy:1", "socks5://proxy:1", "http://", "http://p:99999", "http://[::1", ""])
def test_what_is_no_http_proxy_is_refused_with_the_settings_name(url: str) -> None:
    with pytest.raises(ConfigError, match=r"HTTPS_PROXY.*http://proxy.example.org:3128"):
        Proxy.parse(url, where="HTTPS_PROXY")


@given(st.text())
def test_any_text_is_a_proxy_or_a_config_error_that_does_not_repeat_it(text: str) -> None:
    secret = f"http://user:hunter2@{text}"
    try:
        proxy = Proxy.parse(secret)
    except ConfigError as error:
        shown = str(error)
    else:
        shown = f"{proxy} {proxy!r}"
    assert "hunter2" not in shown or "hunter2" in text


@pytest.mark.parametrize(
    ("url", "environ", "expected"),
    [
        ("https://server.example.org", {"HTTPS_PROXY": "http://p:1"}, "http://p:1"),
        ("wss://server.example.org/ws/agent", {"https_proxy": "http://p:1", "HTTPS_PROXY": "http://q:2"}, "http://p:1"),
        ("http://server.example.org", {"HTTPS_PROXY": "http://p:1"}, None),
        ("http://server.example.org", {"HTTP_PROXY": "http://p:1"}, "http://p:1"),
        ("https://server.example.org", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "a.org, example.org"}, None),
        ("https://server.example.org", {"HTTPS_PROXY": "http://p:1", "no_proxy": ".example.org"}, None),
        ("https://server.example.org", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "*"}, None),
        ("https://notexample.org", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "example.org,"}, "http://p:1"),
        ("https://10.1.2.3:8103", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "10.0.0.0/8"}, None),
        ("https://10.1.2.3:8103", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "192.168.0.0/16"}, "http://p:1"),
        ("https://[::1]:8103", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "::1"}, None),
        ("https://server.example.org", {}, None),
    ],
)
def test_the_environment_decides_when_settings_say_nothing(
    url: str, environ: dict[str, str], expected: str | None
) -> None:
    proxy = proxy_for(url, None, environ)

    assert (proxy and proxy.url) == expected


def test_a_setting_wins_over_the_environment_and_over_no_proxy() -> None:
    proxy = proxy_for("https://server.example.org", "http://own:3128", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "*"})

    assert proxy == Proxy("own", 3128)


# The tunnel


async def test_a_tunnel_is_asked_for_with_credentials_and_carries_bytes(connect_proxy: ConnectProxy) -> None:
    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        proxy = Proxy("127.0.0.1", connect_proxy.port, "user", "pass word")
        with await dial("127.0.0.1", port, proxy) as connection:
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(connection, b"ping")
            async with asyncio.timeout(5):
                assert await loop.sock_recv(connection, 100) == b"ping"

    credentials = "Proxy-Authorization: Basic dXNlcjpwYXNzIHdvcmQ="
    head = f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{credentials}\r\n\r\n"
    assert connect_proxy.heads == [head]


async def test_the_socket_to_a_server_sends_at_once_and_notices_dead_peers() -> None:
    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        with await dial("127.0.0.1", server.sockets[0].getsockname()[1]) as connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            await asyncio.get_running_loop().sock_sendall(connection, b"bye")


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "407"),
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 2\r\n\r\nno", "502"),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "403"),
        (b"220 smtp ready\r\n\r\n", "did not answer in HTTP"),
        (b"HTTP/1.1 200 OK\r\n", "did not answer in HTTP"),
        (b"", "did not answer in HTTP"),
        (b"x" * 40_000, "did not answer in HTTP"),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", "spoke inside the tunnel"),
    ],
)
async def test_a_proxy_that_refuses_is_named_with_its_answer_and_without_credentials(
    connect_proxy: ConnectProxy, answer: bytes, text: str
) -> None:
    connect_proxy.answer = answer
    proxy = Proxy("127.0.0.1", connect_proxy.port, "user", "hunter2")

    with pytest.raises(LinkError, match=text) as refused:
        await dial("server.example.org", 443, proxy)

    assert str(proxy) in str(refused.value)
    assert "hunter2" not in f"{refused.value!r} {refused.value.hint}"


async def test_a_proxy_that_is_away_is_named() -> None:
    with pytest.raises(LinkError, match=r"proxy http://127.0.0.1:1: cannot connect") as refused:
        await dial("server.example.org", 443, Proxy("127.0.0.1", 1))

    assert "proxy" in refused.value.hint


# The direct way


async def test_a_port_that_nobody_listens_on_is_named() -> None:
    with pytest.raises(LinkError, match=r"cannot connect to 127\.0\.0\.1:1: connection refused"):
        await dial("127.0.0.1", 1)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "x" * 300, "a..b"])
async def test_a_name_that_cannot_be_resolved_is_named(host: str) -> None:
    with pytest.raises(LinkError, match="cannot be resolved"):
        await dial(host, 80)


async def test_a_server_on_one_address_family_only_is_found_by_its_name() -> None:
    for address in ("127.0.0.1", "::1"):  # on most hosts localhost is both
        if not any(found[4][0] == address for found in socket.getaddrinfo("localhost", 80)):
            continue
        async with await asyncio.start_server(echo, address, 0) as server:
            with await dial("localhost", server.sockets[0].getsockname()[1]):
                pass


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(await reader.read(100))
    await writer.drain()
    writer.close()
