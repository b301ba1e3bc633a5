"""Find the way out of the hospital: name resolution, TCP, and the HTTP proxy in between, if there is one.

Secret: which proxy applies to which host, how a tunnel is asked for (RFC 9110 §9.3.6), how addresses are tried in turn.
Promise: `dial` gives a connected socket or raises LinkError naming who refused; no credential is ever in a text.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import os
import socket
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from agent.errors import ConfigError, Finding, LinkError, Severity

ADDRESS_WITHIN_S = 4.0  # while another address is left: a black-holed IPv6 route must not eat the deadline
MAX_PROXY_ANSWER_BYTES = 16384
KEEPALIVE_IDLE_S = 60  # below the idle time-outs of the usual firewalls


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy. `str()` is its URL without the credentials, fit for logs and errors."""

    host: str
    port: int
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, url: str, *, where: str = "server.proxy") -> Proxy:
        """Read `http://[user:password@]host[:port]`, or `host:port`. Raises ConfigError; `where` names the setting."""
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}")
            host, port = parts.hostname, parts.port
        except ValueError:
            raise ConfigError([_unfit(where, "is no proxy address")]) from None
        if parts.scheme.lower() != "http":
            raise ConfigError([_unfit(where, f"names a {parts.scheme[:12]} proxy; only HTTP proxies can be used")])
        if not host:
            raise ConfigError([_unfit(where, "names no proxy host")])
        user = None if parts.username is None else unquote(parts.username)
        return cls(host, port or 80, user, None if user is None else unquote(parts.password or ""))

    @property
    def url(self) -> str:
        """The proxy without its credentials."""
        return f"http://{_bracketed(self.host)}:{self.port}"

    @property
    def authorization(self) -> str | None:
        """The value of Proxy-Authorization (Basic, RFC 7617), if there are credentials."""
        if self.user is None:
            return None
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()

    def __str__(self) -> str:
        return self.url


def _unfit(where: str, what: str) -> Finding:
    remedy = "write it like http://proxy.example.org:3128"
    return Finding("settings.proxy", Severity.ERROR, f"the proxy setting {what}", remedy, where)


def proxy_for(url: str, setting: str | None, environ: Mapping[str, str]) -> Proxy | None:
    """The proxy on the way to `url` (http, https, ws or wss), or None for the direct way.

    A setting wins. Without one HTTPS_PROXY or HTTP_PROXY holds, unless NO_PROXY names the host: as a name, a domain, an
    address, a network in CIDR notation, or `*`. Lower-case names win over upper-case ones, as with curl.
    """
    if setting:
        return Proxy.parse(setting)
    parts = urlsplit(url)
    host = parts.hostname or ""
    exempt = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    if any(_covers(entry.strip().lower(), host) for entry in exempt.split(",")):
        return None
    kind = "https_proxy" if parts.scheme in ("https", "wss") else "http_proxy"
    for variable in (kind, kind.upper()):
        if found := environ.get(variable):
            return Proxy.parse(found, where=variable)
    return None


def _covers(entry: str, host: str) -> bool:
    """Whether one entry of NO_PROXY means this host."""
    if entry == "*":
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        domain = entry.lstrip("*.")
        return bool(domain) and (host == domain or host.endswith(f".{domain}"))


async def dial(host: str, port: int, proxy: Proxy | None = None) -> socket.socket:
    """A connected TCP socket whose far end is `host:port`, through the proxy if one is given. Raises LinkError.

    The caller owns the socket, and the deadline for the whole.
    """
    if proxy is None:
        return await _connect(host, port)
    try:
        connection = await _connect(proxy.host, proxy.port)
    except LinkError as error:
        raise LinkError(f"proxy {proxy}: {error}", hint="check the proxy setting and that the proxy runs") from error
    with ExitStack() as undo:
        undo.callback(connection.close)
        await _ask_for_tunnel(connection, proxy, f"{_bracketed(host)}:{port}")
        undo.pop_all()
    return connection


async def _connect(host: str, port: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    try:
        addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    except (OSError, UnicodeError) as error:
        hint = "check the host name and this host's DNS"
        raise LinkError(f"the name {host} cannot be resolved", hint=hint) from error
    trouble = "it has no address"
    for left, (family, kind, protocol, _, address) in zip(range(len(addresses) - 1, -1, -1), addresses, strict=True):
        with ExitStack() as undo:
            connection = undo.enter_context(socket.socket(family, kind, protocol))
            connection.setblocking(False)
            _tune(connection)
            try:
                async with asyncio.timeout(ADDRESS_WITHIN_S if left else None):
                    await loop.sock_connect(connection, address)
            except TimeoutError:
                trouble = "no answer"
            except OSError as error:
                trouble = _cause(error)
            else:
                undo.pop_all()
                return connection
    hint = "check the address, that the server runs, and the firewall"
    raise LinkError(f"cannot connect to {_bracketed(host)}:{port}: {trouble}", hint=hint)


def _cause(error: OSError) -> str:
    """In the system's words; asyncio's own would repeat the address."""
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    return os.strerror(error.errno) if error.errno else "connection lost"


def _tune(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    idle = getattr(socket, "TCP_KEEPIDLE", None)
    if idle is not None:
        connection.setsockopt(socket.IPPROTO_TCP, idle, KEEPALIVE_IDLE_S)


async def _ask_for_tunnel(connection: socket.socket, proxy: Proxy, target: str) -> None:
    loop = asyncio.get_running_loop()
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if proxy.authorization is not None:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    answer = b""
    try:
        await loop.sock_sendall(connection, "\r\n".join([*lines, "", ""]).encode())
        while b"\r\n\r\n" not in answer and len(answer) < MAX_PROXY_ANSWER_BYTES:
            piece = await loop.sock_recv(connection, 4096)
            if not piece:
                break
            answer += piece
    except OSError as error:
        raise LinkError(f"proxy {proxy}: {_cause(error)}") from error
    head, blank, rest = answer.partition(b"\r\n\r\n")
    status = head.split(b"\r\n", 1)[0].split(b" ", 2)
    if not blank or len(status) < 2 or not status[0].startswith(b"HTTP/") or not status[1].isdigit():
        raise LinkError(f"proxy {proxy} did not answer in HTTP", hint="check that this address is an HTTP proxy")
    if status[1] == b"407":
        hint = "check user and password in the proxy setting; only Basic authentication is spoken"
        raise LinkError(f"proxy {proxy} wants other credentials (407)", hint=hint)
    if not status[1].startswith(b"2"):
        hint = f"let the proxy allow CONNECT to {target}"
        raise LinkError(f"proxy {proxy} answered {status[1].decode()} to a tunnel to {target}", hint=hint)
    if rest:
        raise LinkError(f"proxy {proxy} spoke inside the tunnel", hint="check that this address is an HTTP proxy")


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
