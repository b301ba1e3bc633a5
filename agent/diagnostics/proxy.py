"""The HTTP proxy on the way to the server.

Secret: how the proxy's part of a trouble is told from the server's.
Promise: which proxy applies and who named it; whether it is there, and whether it opens a tunnel to the server. Its
credentials are never shown.
"""

from __future__ import annotations

import time

from agent.diagnostics.check import INCOMPLETE, Looked, NotLooked, Outcome
from agent.diagnostics.host import Host
from agent.errors import ConfigError, Finding, LinkError, Severity
from agent.net.proxy import dial


async def look(host: Host) -> Outcome:
    route = host.route
    if route is None:
        return NotLooked(INCOMPLETE)
    try:
        proxy = route.proxy()
    except ConfigError as error:
        return Looked("", error.findings)
    if proxy is None:
        return Looked("no proxy is configured")
    try:
        (await dial(proxy.host, proxy.port)).close()
    except LinkError as error:
        text = f"proxy {proxy} is not reached: {error}"
        remedy = "check the proxy setting, that the proxy runs, and the firewall"
        return Looked("", (Finding("proxy.unreachable", Severity.ERROR, text, remedy, str(proxy)),))
    began = time.perf_counter()
    try:
        (await dial(route.host, route.port, proxy)).close()
    except LinkError as error:
        return Looked("", (Finding("proxy.no-tunnel", Severity.ERROR, str(error), error.hint, str(proxy)),))
    took_ms = (time.perf_counter() - began) * 1000
    text = f"{proxy} opens a tunnel to {route.place} ({took_ms:.0f} ms)"
    if route.proxy_setting is not None:
        return Looked(text)
    borrowed = "the proxy stands in the environment of this command; a service has an environment of its own"
    finding = Finding("proxy.from-environment", Severity.INFO, borrowed, "name it in server.proxy", str(proxy))
    return Looked(text, (finding,))
