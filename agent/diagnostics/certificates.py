"""The certificates that this host shows to senders: each `[tls.NAME]`.

Secret: none; how a certificate is read and judged is `agent.net.tls`'s.
Promise: a certificate that cannot be used, or not for long, is told before a sender meets it.
"""

from __future__ import annotations

import dataclasses

from agent.diagnostics.check import Looked, Outcome
from agent.diagnostics.configuration import kept_plan
from agent.diagnostics.host import Host
from agent.errors import ConfigError, Finding, Severity
from agent.net.tls import Identity
from agent.spec import TlsSpec


async def look(host: Host) -> Outcome:
    specs = host.tls
    if not specs:
        return Looked("no [tls.NAME] is configured")
    return await host.threads.run(lambda: _judge(host, list(specs.values())))


def _judge(host: Host, specs: list[TlsSpec]) -> Looked:
    plan = kept_plan(host)
    channels = plan.channels if plan is not None else ()
    findings: list[Finding] = []
    texts: list[str] = []
    for spec in specs:
        users = [channel for channel in channels if channel.line.tls is not None and channel.line.tls.name == spec.name]
        # one that dials needs no certificate of its own
        dials = all(channel.dials for channel in users) if users else spec.certificate is None
        used = f"for {', '.join(channel.name for channel in users)}" if users else "for no channel"
        try:
            identity = Identity.load(spec, dials=dials)
        except ConfigError as error:
            findings += error.findings if users or plan is None else [_idle(finding) for finding in error.findings]
            texts.append(f"{spec.name} {used}, cannot be used")
            continue
        findings += identity.findings(host.now())
        until = "" if identity.not_after is None else f", valid until {identity.not_after:%Y-%m-%d}"
        texts.append(f"{spec.name} {used}{until}")
    return Looked("; ".join(texts), tuple(findings))


def _idle(finding: Finding) -> Finding:
    """Of a section that no channel uses: nobody misses it yet."""
    return dataclasses.replace(finding, severity=Severity.WARNING)
