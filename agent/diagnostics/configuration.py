"""The copy of the server's configuration that this host starts from while the server is away.

Secret: which copy counts, and what a plan says of it.
Promise: what would listen at a start without the server is known, with all that is wrong with it.
"""

from __future__ import annotations

import os
from datetime import datetime

from agent.diagnostics.check import Looked
from agent.diagnostics.host import Away, Host
from agent.errors import Finding, Severity
from agent.plan import ConfigPlan, LastGood, build_plan, load_last_good
from agent.settings import ChannelDefaults


def kept_plan(host: Host) -> ConfigPlan | None:
    """What would run without the server; None where nothing usable is kept. Reads a file: for a thread."""
    kept = load_last_good(host.paths.last_good)
    return _plan(host, kept) if isinstance(kept, LastGood) and not _is_of_another(host, kept) else None


async def look(host: Host) -> Looked:
    return await host.threads.run(lambda: _judge(host))


def _judge(host: Host) -> Looked:
    where = str(host.paths.last_good)
    kept = load_last_good(host.paths.last_good)
    if isinstance(kept, Finding):
        return Looked("", (kept,))
    if kept is None:
        return _none(host, where)
    if _is_of_another(host, kept):
        text = f"the kept configuration is that of agent {kept.agent.id[:64]}: it is not used"
        remedy = "start the agent while the server can be reached, and check server.agent_id"
        return Looked("", (Finding("configuration.other-agent", Severity.WARNING, text, remedy, where),))
    plan = _plan(host, kept)
    count = len(plan.channels)
    off = ", Agent.status is off" if plan.off else ""
    text = f"{count} channel{'s' * (count != 1)}{off}, kept since {_moment(kept.saved_at)}"
    return Looked(text, plan.findings)


def _none(host: Host, where: str) -> Looked:
    if isinstance(host.daemon, Away) and not os.path.exists(host.paths.spool):
        return Looked("none is kept: the agent has not run here yet")
    text = "no configuration of the server is kept here: at a start without the server no channel would listen"
    remedy = "let the running agent reach the server once; it keeps what it reads"
    return Looked("", (Finding("configuration.none", Severity.WARNING, text, remedy, where),))


def _is_of_another(host: Host, kept: LastGood) -> bool:
    return host.settings is not None and kept.agent.id not in ("", host.settings.server.agent_id)


def _plan(host: Host, kept: LastGood) -> ConfigPlan:
    defaults = host.settings.channels if host.settings is not None else ChannelDefaults(tls=host.tls)
    return build_plan(kept.agent, dict(kept.endpoints), defaults)


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
