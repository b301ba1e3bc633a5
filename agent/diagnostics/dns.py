"""Whether the server's name leads anywhere.

Secret: what the resolver's errors mean.
Promise: the addresses that the agent would dial, and how long the answer took.
"""

from __future__ import annotations

import ipaddress
import socket
import time
from typing import Final

from agent.diagnostics.check import INCOMPLETE, Looked, NotLooked, Outcome
from agent.diagnostics.host import Host
from agent.errors import ConfigError, Finding, Severity

SLOW_S: Final = 1.0
_SHOWN: Final = 4
_SILENT = (socket.EAI_AGAIN, socket.EAI_FAIL)


async def look(host: Host) -> Outcome:
    route = host.route
    if route is None:
        return NotLooked(INCOMPLETE)
    try:
        if route.proxy() is not None:
            return Looked(f"not needed: the proxy looks up {route.host}")
    except ConfigError:
        return NotLooked("the proxy's address cannot be read")
    try:
        return Looked(f"{ipaddress.ip_address(route.host)} is an address, there is no name to look up")
    except ValueError:
        pass
    name, port = route.host, route.port
    began = time.perf_counter()
    try:
        found = await host.threads.run(lambda: socket.getaddrinfo(name, port, type=socket.SOCK_STREAM))
    except UnicodeError:
        return Looked("", (_unknown(name, "it is no host name"),))
    except socket.gaierror as error:
        if error.errno not in _SILENT:
            return Looked("", (_unknown(name, error.strerror or "unknown"),))
        text = f"no name server answers for {name} ({error.strerror})"
        remedy = "check this host's name servers (/etc/resolv.conf) and the way to them"
        return Looked("", (Finding("dns.no-answer", Severity.ERROR, text, remedy, name),))
    except OSError as error:
        return Looked("", (_unknown(name, error.strerror or type(error).__name__),))
    took_s = time.perf_counter() - began
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    more = f" and {len(addresses) - _SHOWN} more" if len(addresses) > _SHOWN else ""
    text = f"{name} is {', '.join(addresses[:_SHOWN])}{more} ({took_s * 1000:.0f} ms)"
    if took_s <= SLOW_S:
        return Looked(text)
    slow = f"the name {name} took {took_s:.1f} s to be looked up"
    remedy = "the first name server of this host may be dead: correct its list of name servers"
    return Looked(text, (Finding("dns.slow", Severity.WARNING, slow, remedy, name),))


def _unknown(name: str, why: str) -> Finding:
    remedy = "check server.base_url for a typing error, and this host's DNS"
    return Finding("dns.unknown-name", Severity.ERROR, f"the name {name} cannot be resolved: {why}", remedy, name)
