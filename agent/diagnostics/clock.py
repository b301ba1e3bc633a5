"""Whether this host and the server agree about the time.

Secret: how far apart is too far, and where the server's time is read (the Date header, RFC 9110 §6.6.1).
Promise: both times are shown; a server that tells none is no problem of this host.
"""

from __future__ import annotations

from typing import Final

from agent import __version__
from agent.diagnostics.check import INCOMPLETE, Looked, NotLooked, Outcome
from agent.diagnostics.host import Host
from agent.errors import ConfigError, Finding, LinkError, Severity
from agent.net.rest import SKEW_LIMIT_S, ClockSkew, Http
from agent.net.tls import client_context

WARN_S: Final = 30.0
ASK_WITHIN_S: Final = 4.0
_PATH: Final = "healthcheck"  # any answer will do, it is the header that counts


async def look(host: Host) -> Outcome:
    route = host.route
    if route is None:
        return NotLooked(INCOMPLETE)
    try:
        http = Http(
            route.url,
            proxy=route.proxy(),
            ssl=client_context(route.ca_file),
            user_agent=f"onprem-agent/{__version__}",
            timeout_s=ASK_WITHIN_S,
            now=host.now,
        )
        async with http:
            await http.ask("GET", _PATH, headers={"Accept": "application/json"})
    except (LinkError, ConfigError) as error:
        return NotLooked(f"the server's time is not known: {error}")
    if http.skew is None:
        return Looked("the server does not tell its time")
    return judge(http.skew)


def judge(skew: ClockSkew) -> Looked:
    apart_s = abs(skew.seconds)
    finding = skew.finding()
    if finding is None and apart_s > WARN_S:
        text = f"the clock here says {skew.ours:%Y-%m-%d %H:%M:%S} UTC, the server's {skew.server:%Y-%m-%d %H:%M:%S}"
        remedy = f"set this host's clock (NTP), before the difference grows beyond {SKEW_LIMIT_S:.0f} s"
        finding = Finding("clock.skew", Severity.WARNING, f"{text} UTC: {apart_s:.0f} s apart", remedy)
    if finding is not None:
        return Looked("", (finding,))
    return Looked(f"{skew.ours:%H:%M:%S} UTC, {apart_s:.0f} s from the server's" if apart_s >= 1 else "as the server's")
