"""Whether the socket that carries the messages can be opened.

Secret: how far one may go without disturbing the agent that runs: the upgrade, and never an introduction.
Promise: the socket is closed again before a single frame was sent.
"""

from __future__ import annotations

import time

from agent import __version__
from agent.diagnostics.check import INCOMPLETE, Looked, NotLooked, Outcome
from agent.diagnostics.host import Host
from agent.errors import ConfigError, Finding, LinkError, Severity
from agent.net.tls import client_context
from agent.net.uplink import socket_url
from agent.net.websocket import WebSocket, open_websocket

_NORMAL_CLOSURE = 1000  # RFC 6455 §7.4.1


async def look(host: Host) -> Outcome:
    route = host.route
    if route is None:
        return NotLooked(INCOMPLETE)
    url = socket_url(route.url)
    try:
        tls = client_context(route.ca_file)
        proxy = route.proxy()
    except ConfigError as error:
        return NotLooked(str(error))
    socket = WebSocket(
        url,
        user_agent=f"onprem-agent/{__version__}",
        on_open=lambda: None,
        on_texts=lambda _: None,
        on_writable=lambda: None,
    )
    began = time.perf_counter()
    try:
        await open_websocket(url, socket, route.dial, tls)
    except LinkError as error:
        way = f"let proxy {proxy} pass WebSockets (Upgrade) on" if proxy is not None else error.hint
        return Looked("", (Finding("websocket.refused", Severity.ERROR, str(error), way, url),))
    else:
        took_ms = (time.perf_counter() - began) * 1000
        socket.close(_NORMAL_CLOSURE, "")
        await socket.wait_closed()
    finally:
        socket.abort()
    return Looked(f"{url} upgrades ({took_ms:.0f} ms)")
