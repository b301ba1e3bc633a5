"""Say what is wrong with this host, and what to do about it.

Secret: which checks there are and which of them needs which; each is a file of its own.
Promise: looking changes nothing, here or on the server, and comes to an end whatever hangs. Neither secrets nor patient
data are in what is said.
"""

from __future__ import annotations

from agent.diagnostics import (
    certificates,
    clock,
    configuration,
    disk,
    dns,
    ports,
    proxy,
    service,
    settings,
    spool,
    tcp,
    tls,
    websocket,
)
from agent.diagnostics.check import Check, Result, examine
from agent.diagnostics.checkup import Checkup
from agent.diagnostics.host import Away, Host, Running, Unheard, ask_daemon
from agent.diagnostics.login import Account

__all__ = ["Away", "Check", "Checkup", "Host", "Result", "Running", "Unheard", "ask_daemon", "examine", "table"]

_HANGING_DISK = "look into the system log for trouble with the disk or the share"


def table() -> tuple[Check, ...]:
    """Every check of this version, in the order of its results; for one examination."""
    account = Account()
    return (
        Check("settings", "the local settings", settings.look),
        Check("configuration", "the kept configuration", configuration.look, late=_HANGING_DISK),
        Check("dns", "name resolution", dns.look, late="check this host's name servers and the way to them"),
        Check("proxy", "the proxy", proxy.look, late="check the proxy setting, that the proxy runs, and the firewall"),
        Check("tcp", "the connection to the server", tcp.look, after=("dns", "proxy"), within_s=6.0),
        Check(
            "tls",
            "TLS",
            tls.look,
            after=("tcp",),
            late="ask who runs the server, and the firewall before it, why the port answers and does not speak",
            unattended=True,
        ),
        Check("clock", "the server's clock", clock.look, after=("tls",)),
        Check("credentials", "the login", account.log_in, after=("tls",), late="ask the server's operator"),
        Check("agent", "reading the agent", account.read_agent, after=("credentials",)),
        Check(
            "websocket",
            "the socket",
            websocket.look,
            after=("tls",),
            late="let the proxies and firewalls on the way pass WebSockets (Upgrade) on",
        ),
        Check("certificates", "the certificates", certificates.look, late=_HANGING_DISK, unattended=True),
        Check("ports", "the ports", ports.look, within_s=6.0),
        Check("disk", "the disk", disk.look, late=_HANGING_DISK, unattended=True),
        Check("spool", "the spool", spool.look, within_s=8.0, late=_HANGING_DISK),
        Check("service", "the agent's process", service.look),
    )
