"""The ports that senders and monitoring reach this host by.

Secret: how a port that is ours is told from one that somebody took, and what keeps an address from being used.
Promise: each configured port is free, ours, or its holder is named. A free one is tried without listening on it, so
that no sender is ever let in by a command.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable
from dataclasses import dataclass

from agent.diagnostics.check import Looked, NotLooked, Outcome
from agent.diagnostics.configuration import kept_plan
from agent.diagnostics.host import Away, Host, Running, Unheard
from agent.errors import Finding, Severity
from agent.net.binding import bound
from agent.net.holders import Holder, holders
from agent.status import ChannelState, StatusReport

_DIAGNOSTICS = "diagnostics.listen"


@dataclass(frozen=True, slots=True)
class _Wanted:
    """`name`: of the channel, or of the setting."""

    name: str
    host: str
    port: int

    @property
    def place(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def severity(self) -> Severity:
        return Severity.WARNING if self.name == _DIAGNOSTICS else Severity.ERROR


async def look(host: Host) -> Outcome:
    return await host.threads.run(lambda: _judge(host))


def _judge(host: Host) -> Outcome:
    wanted = list(_wanted(host))
    if not wanted:
        return NotLooked("no channel is known here yet")
    held = holders(entry.port for entry in wanted)
    findings: list[Finding] = []
    texts: list[str] = []
    for entry in wanted:
        state, finding = _one(entry, host, held)
        texts.append(f"{entry.port} ({entry.name}) {state}")
        if finding is not None:
            findings.append(finding)
    return Looked(", ".join(texts), tuple(findings))


def _wanted(host: Host) -> Iterable[_Wanted]:
    plan = kept_plan(host)
    for spec in plan.channels if plan is not None else ():
        if spec.port and spec.listens:
            yield _Wanted(spec.name, spec.host, spec.port)
    listen = host.settings.diagnostics.listen if host.settings is not None else None
    if listen is not None and listen.port:
        yield _Wanted(_DIAGNOSTICS, listen.host, listen.port)


def _one(wanted: _Wanted, host: Host, held: list[Holder] | None) -> tuple[str, Finding | None]:
    """How one port is, in a word, and what is wrong with it."""
    in_the_way = [entry for entry in held or () if entry.port == wanted.port and entry.is_in_the_way_of(wanted.host)]
    match host.daemon:
        case Running(report):
            return _while_running(wanted, report, in_the_way)
        case Unheard() if in_the_way:
            return f"held by {in_the_way[0]}", None  # perhaps the agent that does not answer
        case Away() | Unheard():
            return _taken(wanted, str(in_the_way[0])) if in_the_way else _try(wanted)


def _while_running(wanted: _Wanted, report: StatusReport, in_the_way: list[Holder]) -> tuple[str, Finding | None]:
    if wanted.name == _DIAGNOSTICS:
        trouble = next((finding.text for finding in report.findings if finding.where == _DIAGNOSTICS), "")
        ours = not trouble and all(entry.pid in (report.pid, None) for entry in in_the_way)
    else:
        channel = next((channel for channel in report.channels if channel.name == wanted.name), None)
        trouble = channel.last_error if channel is not None else ""
        ours = channel is not None and channel.state == ChannelState.LISTENING
    if ours:
        return "is ours", None
    others = [entry for entry in in_the_way if entry.pid != report.pid]
    if others:
        return _taken(wanted, str(others[0]))
    text = f"the running agent does not listen on {wanted.place}: {trouble or 'it is not in force'}"
    remedy = "agent status shows what is in force; correct the channel on the server, then reload"
    return "not ours", Finding("ports.not-listening", wanted.severity, text, remedy, wanted.name)


def _taken(wanted: _Wanted, by: str) -> tuple[str, Finding]:
    remedy = "stop that program, or give the channel another port"
    if wanted.name == _DIAGNOSTICS:
        remedy = "stop that program, or set diagnostics.listen to another address or to off"
    return "taken", Finding("ports.taken", wanted.severity, f"{wanted.place} is held by {by}", remedy, wanted.name)


def _try(wanted: _Wanted) -> tuple[str, Finding | None]:
    """Bind, do not listen, and let go."""
    try:
        found = socket.getaddrinfo(
            wanted.host, wanted.port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError):
        text, remedy = f"the address {wanted.host} cannot be resolved", "correct the host in the channel's address"
        return "unusable", Finding("ports.unknown-host", wanted.severity, text, remedy, wanted.name)
    trouble: OSError | None = None
    for family, address in dict.fromkeys((family, address) for family, _, _, _, address in found):
        trouble = _bind(family, address, both=wanted.host == "::")
        if trouble is None or trouble.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            break  # a name may have an address of a family that this host does not speak
    if trouble is None:
        return "is free", None
    return _unusable(wanted, trouble)


def _bind(family: int, address: tuple[object, ...], *, both: bool) -> OSError | None:
    try:
        bound(family, address, both=both, listen=False).close()
    except OSError as error:
        return error
    return None


def _unusable(wanted: _Wanted, trouble: OSError) -> tuple[str, Finding]:
    match trouble.errno:
        case errno.EADDRINUSE:
            return _taken(wanted, "another program (an administrator is told which)")
        case errno.EACCES:
            text = f"{wanted.place} is a port below 1024, which this command's user may not listen on"
            if wanted.port >= 1024:
                text = f"{wanted.place} is not given out by the operating system"
            remedy = "choose a higher port, or grant the service CAP_NET_BIND_SERVICE"
            return "not allowed", Finding("ports.privileged", Severity.WARNING, text, remedy, wanted.name)
        case errno.EADDRNOTAVAIL | errno.EAFNOSUPPORT:
            text, remedy = f"{wanted.host} is no address of this host", "use 0.0.0.0, ::, or an address of this host"
            return "unusable", Finding("ports.not-this-host", wanted.severity, text, remedy, wanted.name)
        case _:
            text = f"nobody can listen on {wanted.place}: {trouble.strerror or trouble}"
            return "unusable", Finding("ports.unusable", wanted.severity, text, "check the address", wanted.name)
