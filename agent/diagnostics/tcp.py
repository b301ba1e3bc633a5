"""Whether the server's port answers.

Secret: none; the way there is `agent.net.proxy`'s.
Promise: a connection was made and closed again, nothing was sent; silence is told from a refusal.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from agent.diagnostics.check import INCOMPLETE, Looked, NotLooked, Outcome
from agent.diagnostics.host import Host
from agent.errors import Finding, LinkError, Severity

CONNECT_WITHIN_S: Final = 5.0


async def look(host: Host) -> Outcome:
    route = host.route
    if route is None:
        return NotLooked(INCOMPLETE)
    began = time.perf_counter()
    try:
        async with asyncio.timeout(CONNECT_WITHIN_S):
            connection = await route.dial(route.host, route.port)
    except TimeoutError:
        text = f"{route.place} does not answer within {CONNECT_WITHIN_S:g} s: something on the way drops the packets"
        remedy = "let the firewall pass this host's connections to the server, or name the proxy in server.proxy"
        return Looked("", (Finding("tcp.silent", Severity.ERROR, text, remedy, route.place),))
    except LinkError as error:
        return Looked("", (Finding("tcp.no-connection", Severity.ERROR, str(error), error.hint, route.place),))
    took_ms = (time.perf_counter() - began) * 1000
    peer = connection.getpeername()[0]
    connection.close()
    proxy = route.proxy()
    reached = f"through {proxy}" if proxy is not None else f"at {peer}"
    return Looked(f"{route.place} answers {reached} ({took_ms:.0f} ms)")
