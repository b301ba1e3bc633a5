"""The daemon itself: whether it runs, since when, as whom, which version; and what it says of itself.

Secret: how a process and its service manager are asked.
Promise: an agent that was started here once and does not run is a problem; one that never was is not.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from typing import Final, assert_never

import psutil

from agent import __version__
from agent.diagnostics.check import Looked
from agent.diagnostics.host import Away, Host, Running, Unheard
from agent.errors import Finding, Severity
from agent.net.holders import name_and_user, unit_of
from agent.status import StatusReport

UNIT: Final = "onprem-agent.service"
_ASK_WITHIN_S: Final = 3.0


async def look(host: Host) -> Looked:
    match host.daemon:
        case Running(report):
            return await host.threads.run(lambda: _running(report))
        case Unheard(trouble):
            text = str(trouble)
            return Looked("", (Finding("service.no-answer", Severity.ERROR, text, trouble.hint, _place(host)),))
        case Away(trouble):
            return await host.threads.run(lambda: _away(host, str(trouble), trouble.hint))
        case _ as never:
            assert_never(never)


def _running(report: StatusReport) -> Looked:
    facts = [f"running, version {report.version}"]
    if report.pid is not None:
        since = _since(report.pid)
        _, user = name_and_user(report.pid)
        facts = [
            f"process {report.pid}" + (f" of {user}" if user else "") + (f", since {since}" if since else ""),
            f"version {report.version}",
        ]
        if unit := unit_of(report.pid):
            facts.append(unit)
    findings = list(report.findings)
    if report.version != __version__:
        text = f"the running agent is version {report.version}, and {__version__} is installed here"
        findings.append(Finding("service.other-version", Severity.WARNING, text, "restart the agent's service"))
    return Looked(", ".join(facts), tuple(findings))


def _since(pid: int) -> str:
    try:
        began = datetime.fromtimestamp(psutil.Process(pid).create_time(), UTC)
    except (psutil.Error, OSError):
        return ""
    return f"{began:%Y-%m-%d %H:%M} UTC"


def _away(host: Host, text: str, hint: str) -> Looked:
    unit = _unit_state(host)
    if unit == "failed":
        remedy = f"journalctl -u {UNIT} says why; then systemctl restart {UNIT}"
        failed = f"the agent is not running: its unit {UNIT} has failed"
        return Looked("", (Finding("service.failed", Severity.ERROR, failed, remedy, UNIT),))
    if not os.path.exists(host.paths.spool) and not os.path.exists(host.paths.last_good):
        return Looked("not running, and it has not run with this data directory yet")
    hint = f"systemctl start {UNIT}" if unit else hint
    return Looked("", (Finding("service.not-running", Severity.ERROR, text, hint, _place(host)),))


def _unit_state(host: Host) -> str:
    """What systemd says of our unit, as `active` or `failed`; empty where it does not know it."""
    systemctl = shutil.which("systemctl", path=host.environ.get("PATH")) if sys.platform == "linux" else None
    if systemctl is None:
        return ""
    command = [systemctl, "show", "--property=LoadState,ActiveState", UNIT]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=_ASK_WITHIN_S, check=False).stdout
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return ""
    facts = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    return facts.get("ActiveState", "") if facts.get("LoadState") == "loaded" else ""


def _place(host: Host) -> str:
    return str(host.paths.data_dir)
