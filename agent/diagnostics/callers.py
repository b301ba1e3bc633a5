"""Why bytes that arrive at a port are no messages.

Secret: how the daemon's transport facts become what each sender did, in plain words.
Promise: every sender that the daemon remembers is told of once, the odd ones first; a port that is not ours is named as
such, with who holds it. Never a byte of a message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from agent.diagnostics.host import Away, Host, Running, Unheard
from agent.errors import AgentError, Finding, Severity
from agent.net.control import ask
from agent.net.holders import Holder, holders
from agent.status import StatusReport

ASK_WITHIN_S: Final = 5.0
LOOK_WITHIN_S: Final = 5.0


class Recent(msgspec.Struct, frozen=True, rename="camel"):
    """One connection, `peer` with its port. `oddity` None: nothing odd about it."""

    peer: str
    opened_at: str = ""
    silent_seconds: float = 0.0
    bytes: int = 0
    frames: int = 0
    open_bytes: int = 0
    first: str = ""
    over: bool = False
    tls: bool = False
    oddity: str | None = None
    text: str = ""
    remedy: str = ""


class Sighting(msgspec.Struct, frozen=True, rename="camel"):
    """One kind of oddity from one host; `peer` without a port."""

    oddity: str
    peer: str
    count: int = 1
    first_at: str = ""
    last_at: str = ""
    first: str = ""
    severity: Severity = Severity.WARNING
    text: str = ""
    remedy: str = ""


class Door(msgspec.Struct, frozen=True, rename="camel"):
    """One channel, as the daemon's `connections` tells it."""

    name: str
    address: str = ""
    port: int = 0
    connections: int = 0
    refused: Mapping[str, int] = {}
    recent: tuple[Recent, ...] = ()
    sightings: tuple[Sighting, ...] = ()


class _Connections(msgspec.Struct, frozen=True):
    channels: tuple[Door, ...] = ()


@dataclass(frozen=True, slots=True)
class Caller:
    """What one sender did. `severity` None: all is well with it."""

    peer: str
    text: str
    severity: Severity | None = None
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class PortStory:
    """`facts` are the daemon's own words, for a script; `headline` says whose the port is, if it is ours."""

    port: int
    headline: str
    callers: tuple[Caller, ...]
    findings: tuple[Finding, ...]
    facts: Mapping[str, Any]
    holders: tuple[Holder, ...]


async def look_at_port(host: Host, port: int) -> PortStory:
    """Everything that is known about a port of this host, whatever state the daemon is in."""
    try:
        held = await _holders(host, port)
    except TimeoutError:
        held = ()
    match host.daemon:
        case Running(report):
            try:
                facts = await ask(host.paths.control, "connections", {"port": port}, timeout_s=ASK_WITHIN_S)
                doors = msgspec.convert(facts, _Connections).channels
            except AgentError as trouble:
                return _untold(host, port, held, str(trouble), trouble.hint or "restart the agent's service")
            except msgspec.ValidationError:
                remedy = "use the command of the same version as the running agent"
                return _untold(host, port, held, "the running agent's answer cannot be understood", remedy)
            if doors:
                return _story(host, port, held, doors, facts, report)
            return _not_ours(host, port, held, report)
        case Away(trouble) | Unheard(trouble):
            return _untold(host, port, held, str(trouble), trouble.hint)


async def _holders(host: Host, port: int) -> tuple[Holder, ...]:
    async with asyncio.timeout(LOOK_WITHIN_S):
        found = await host.threads.run(lambda: holders([port]))
    return tuple(found or ())


# ---- a port that is not ours, or of which nobody tells us


def _untold(host: Host, port: int, held: tuple[Holder, ...], trouble: str, hint: str) -> PortStory:
    code = "port.agent-down" if isinstance(host.daemon, Away) else "port.not-told"
    finding = Finding(code, Severity.ERROR, trouble, hint, str(port))
    return PortStory(port, f"Port {port}: {_who(held)}.", (), (finding,), {"channels": []}, held)


def _not_ours(host: Host, port: int, held: tuple[Holder, ...], report: StatusReport) -> PortStory:
    listen = host.settings.diagnostics.listen if host.settings is not None else None
    ours = ", ".join(f"{channel.name} ({channel.address})" for channel in report.channels) or "none"
    if listen is not None and listen.port == port and any(entry.pid in (report.pid, None) for entry in held):
        text = "this is the agent's port for health and metrics (diagnostics.listen): it speaks HTTP and takes no HL7"
    else:
        text = f"no channel of this agent has port {port}: {_who(held)}"
    remedy = f"send to a port of a channel, or correct the channel on the server; the channels are: {ours}"
    finding = Finding("port.no-channel", Severity.ERROR, text, remedy, str(port))
    return PortStory(port, "", (), (finding,), {"channels": []}, held)


def _who(held: Iterable[Holder]) -> str:
    programs = list(dict.fromkeys(str(entry) for entry in held))
    return f"{' and '.join(programs)} listens there" if programs else "nobody listens there"


# ---- a port of ours


def _story(
    host: Host,
    port: int,
    held: tuple[Holder, ...],
    doors: tuple[Door, ...],
    facts: Mapping[str, Any],
    report: StatusReport,
) -> PortStory:
    began = host.now() - timedelta(seconds=report.uptime_seconds or 0.0)
    headlines: list[str] = []
    callers: list[Caller] = []
    findings: list[Finding] = []
    for door in doors:
        status = next((channel for channel in report.channels if channel.name == door.name), None)
        state = status.state if status is not None else "unknown"
        headlines.append(f"channel {door.name} ({door.address}), {state}, {_some(door.connections, 'connection')} open")
        if status is not None and status.last_error:
            remedy = next((f.remedy for f in report.findings if f.where == door.name), "")
            others = [entry for entry in held if entry.pid != report.pid]
            text = f"{status.last_error}; {_who(others)}" if others else status.last_error
            findings.append(Finding("port.not-listening", Severity.ERROR, text, remedy, door.name))
        told = list(_callers(door, host.now()))
        callers += told
        findings += _odd(door, host.now())
        if not told:
            findings.append(_nobody(door, began, host.now()))
    headline = f"Port {port}: {'; '.join(headlines)}. The agent runs since {_when(began, host.now())}."
    return PortStory(port, headline, tuple(callers), tuple(findings), facts, held)


def _nobody(door: Door, began: datetime, now: datetime) -> Finding:
    if "mode=client" in door.address:
        text = f"no connection to the sender has been made since the agent started at {_when(began, now)}"
        remedy = "check that the sending system listens at the channel's address, and the firewall between"
    else:
        text = f"nobody has connected to this port since the agent started at {_when(began, now)}"
        remedy = "check the address and port that the sender is set to, and the firewall between"
    return Finding("port.nobody-came", Severity.WARNING, text, remedy, door.name)


def _callers(door: Door, now: datetime) -> Iterable[Caller]:
    """The odd ones, the gravest first; then those that are well."""
    order = (Severity.ERROR, Severity.WARNING, Severity.INFO)
    for seen in sorted(door.sightings, key=lambda seen: order.index(seen.severity)):
        taken = sum(c.frames for c in door.recent if c.oddity == seen.oddity and _host(c) == seen.peer)
        text = _seen(seen, now) + (f"; {_some(taken, 'message')} came" if taken else "")
        yield Caller(seen.peer, text, seen.severity, seen.remedy)
    by_host: dict[str, list[Recent]] = {}
    for connection in door.recent:
        if connection.oddity is None:
            by_host.setdefault(_host(connection), []).append(connection)
    for peer, connections in by_host.items():
        yield Caller(peer, _behaved(connections))


def _host(connection: Recent) -> str:
    host, _, port = connection.peer.rpartition(":")
    return host if host and port.isdigit() else connection.peer  # a serial device has no port


def _seen(seen: Sighting, now: datetime) -> str:
    times = "connected once" if seen.count == 1 else f"connected {seen.count} times, last"
    first = f" (first bytes {seen.first})" if seen.first else ""
    return f"{times} {'at ' if seen.count == 1 else ''}{_clock(seen.last_at, now)}: {seen.text}{first}"


def _behaved(connections: list[Recent]) -> str:
    frames = sum(connection.frames for connection in connections)
    living = [connection for connection in connections if not connection.over]
    facts = [_some(frames, "message")]
    if len(connections) > 1:
        facts.append(f"in {len(connections)} connections")
    if not living:
        facts.append("closed")
    elif len(living) == 1:
        facts.append(f"open, silent for {living[0].silent_seconds:.0f} s")
    else:
        facts.append(f"{len(living)} of them open")
    under_way = sum(connection.open_bytes for connection in living)
    if under_way:
        facts.append(f"{under_way} bytes of a message under way")
    elif not frames:
        facts.append(f"{sum(connection.bytes for connection in connections)} bytes came")
    return ", ".join(facts)


def _odd(door: Door, now: datetime) -> Iterable[Finding]:
    for seen in door.sightings:
        yield Finding(f"wire.{seen.oddity}", seen.severity, f"{seen.peer} {_seen(seen, now)}", seen.remedy, door.name)


def _some(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _clock(moment: str, now: datetime) -> str:
    try:
        return _when(datetime.fromisoformat(moment), now)
    except (ValueError, OverflowError):  # the latter for the year 1 in a zone east of here
        return moment


def _when(moment: datetime, now: datetime) -> str:
    """The time of day here; with the date, if that is another one."""
    here = moment.astimezone()
    return f"{here:%H:%M:%S}" if here.date() == now.astimezone().date() else f"{here:%Y-%m-%d %H:%M:%S}"
