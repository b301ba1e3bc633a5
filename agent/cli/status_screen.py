"""What stands on the status screen, for somebody who was woken at 3 a.m.

Secret: the order of things, the words, and what gives way when the window is small.
Promise: the first line is the one thing to know, and the gravest finding is there with its remedy, whole, also when
a hundred quiet channels and remotes do not fit.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from agent.cli.amounts import age, count, milliseconds, size
from agent.cli.lines import LABEL_CELLS, Line, Tone, cells_of, clean, fitted, paragraph
from agent.cli.status_channels import channel_table
from agent.cli.status_remotes import Health, not_told_by, remote_table, remotes_of
from agent.errors import Finding, Severity
from agent.status import ChannelState, StatusReport, by_severity

ENDLESS = 100_000
NAMED = 3  # remotes in the first line, each …
NAME_CELLS = 40  # … in at most so many cells
NEEDS_A_PERSON = frozenset({"failed", "held"})


@dataclass(frozen=True, slots=True)
class Verdict:
    """The one thing to know."""

    tone: Tone
    text: str


def read(status: Mapping[str, Any]) -> StatusReport:
    """The report behind the object of `agent status --json`, also of an older or a newer daemon."""
    return msgspec.convert(status, StatusReport)


def verdict(report: StatusReport) -> Verdict:
    """What the first line says: the gravest thing, or that all is well."""
    errors = [finding for finding in by_severity(report.findings) if finding.severity is Severity.ERROR]
    further = not_told_by(report.clients, report.findings)
    warnings = sum(finding.severity is Severity.WARNING for finding in further)
    failed = [channel.name for channel in report.channels if channel.state == ChannelState.FAILED]
    waiting = sum(channel.queued for channel in report.channels) + sum(remote.stored for remote in report.clients)
    remotes = remotes_of(report.clients, report.findings)
    failing = [remote.name for remote in remotes if remote.health is Health.FAILING]
    if not report.running:
        kept = f"{count(waiting)} messages in its spool go out once it runs" if waiting else "nobody hears the devices"
        return Verdict(Tone.BAD, f"The agent is NOT RUNNING: {kept}.")
    if not report.spool.writable:
        return Verdict(Tone.BAD, "The spool cannot be written: senders are refused until it can.")
    if errors:
        more = f", and {len(errors) - 1} more" if len(errors) > 1 else ""
        return Verdict(Tone.BAD, f"PROBLEM: {_found(errors[0])}{more}")
    if failed:
        return Verdict(Tone.BAD, f"PROBLEM: not listening: {', '.join(failed)}")
    if not report.server.live:
        return Verdict(Tone.BAD, "The server is NOT REACHED: messages are accepted, kept and sent later.")
    known = f", with {warnings} warning{'s' * (warnings != 1)} below" if warnings else ""
    if failing:
        return Verdict(Tone.WARNING, f"The agent is live{known}; messages to {_listed(failing)} fail.")
    if warnings:
        return Verdict(Tone.WARNING, f"The agent is live{known}.")
    return Verdict(Tone.GOOD, "The agent is live and well.")


def exit_status(report: StatusReport) -> int:
    """0 well, 1 a problem was found, 3 the daemon is not running."""
    if not report.running:
        return 3
    return 1 if verdict(report).tone is Tone.BAD else 0


def compose(report: StatusReport, *, now_s: float, width: int = ENDLESS, height: int = ENDLESS) -> list[Line]:
    """The screen as lines of at most `width` cells and, where that is possible at all, at most `height` of them.

    `now_s` is the time of day in seconds since 1970, for what is told as an age.
    """
    top = [*_headline(report, width), *_server(report, now_s, width)]
    middle = [*_upgrade(report, width), *_spool(report, width)]
    channels, remotes = _channels(report, width, ENDLESS), _remotes(report, width, ENDLESS)
    breaks = 1 + bool(channels) + bool(remotes) + bool(_troubles(report))
    room = height - len(top) - len(middle) - breaks
    least = -(-room // (3 if remotes else 2))
    findings = _shortened(_findings(report, width), max(room - len(channels) - len(remotes), least))
    room -= len(findings)
    if len(channels) + len(remotes) > room:
        half = min(-(-room // 2), room - len(_remotes(report, width, 0)))
        channels = _channels(report, width, max(room - len(remotes), half))
        remotes = _remotes(report, width, room - len(channels))
    first, *others = (part for part in (top, channels, remotes, middle, findings) if part)
    return [*first, *(line for part in others for line in ((), *part))]


def _headline(report: StatusReport, width: int) -> list[Line]:
    first = verdict(report)
    facts = [f"version {report.version}"]
    if report.uptime_seconds is not None:
        facts.append(f"up {age(report.uptime_seconds)}")
    if report.pid is not None:
        facts.append(f"process {report.pid}")
    if report.memory_bytes >= 0:
        facts.append(f"{size(report.memory_bytes)} of memory")
    return [
        *(((text, first.tone),) for text in textwrap.wrap(clean(first.text), width)),
        *paragraph("agent", [(", ".join(facts), Tone.PLAIN)], width),
    ]


def _server(report: StatusReport, now_s: float, width: int) -> list[Line]:
    server = report.server
    if not report.running:
        return paragraph("server", [(server.url, Tone.PLAIN)], width) if server.url else []
    facts = []
    if server.ping_ms >= 0:
        facts.append(f"ping {milliseconds(server.ping_ms)}")
    if server.last_heartbeat is not None:
        facts.append(f"heard {age(now_s - datetime.fromisoformat(server.last_heartbeat).timestamp())} ago")
    facts.append(f"{count(server.reconnects)} reconnect{'s' * (server.reconnects != 1)}")
    link = ("live", Tone.GOOD) if server.live else ("NOT LIVE", Tone.BAD)
    lines = paragraph("server", [(server.url, Tone.PLAIN), link, (", ".join(facts), Tone.PLAIN)], width)
    if server.last_error:
        tone = Tone.QUIET if server.live else Tone.BAD
        lines += paragraph("", [(f"last error: {server.last_error}", tone)], width)
    return lines


def _channels(report: StatusReport, width: int, room: int) -> list[Line]:
    if report.channels:
        return channel_table(report.channels, spool_only=report.uptime_seconds is None, width=width, room=room)
    return [(("no channels are configured", Tone.QUIET),)] if report.running else []


def _remotes(report: StatusReport, width: int, room: int) -> list[Line]:
    if not report.clients:
        return []
    remotes = remotes_of(report.clients, report.findings)
    return remote_table(remotes, spool_only=report.uptime_seconds is None, width=width, room=room)


def _upgrade(report: StatusReport, width: int) -> list[Line]:
    facts = ", ".join(f"{name} {value}" for name, value in report.upgrade.items())
    return paragraph("upgrade", [(facts, Tone.PLAIN)], width) if facts else []


def _spool(report: StatusReport, width: int) -> list[Line]:
    spool = report.spool
    states = [
        (f"{count(number)} {state}", Tone.WARNING if state in NEEDS_A_PERSON else Tone.PLAIN)
        for state, number in spool.counts_by_state.items()
        if number
    ]
    disk = f"{size(spool.disk_free_bytes)} of disk free" if spool.disk_free_bytes >= 0 else "disk unknown"
    facts = [(f"{size(spool.size_bytes)}, {disk}", Tone.PLAIN), *(states or [("empty", Tone.PLAIN)])]
    if not spool.writable:
        facts.insert(0, ("NOT WRITABLE", Tone.BAD))
    lines = paragraph("spool", facts, width)
    if spool.last_error:
        lines += paragraph("", [(spool.last_error, Tone.BAD)], width)
    return [*lines, *paragraph("", [(spool.path, Tone.QUIET)], width)]


def _troubles(report: StatusReport) -> tuple[Finding, ...]:
    """The findings that stand nowhere else, and the last error of each channel that none of them is about."""
    told = {finding.where for finding in report.findings}
    untold = [
        Finding("channel.last-error", Severity.WARNING, channel.last_error, where=channel.name)
        for channel in report.channels
        if channel.last_error and channel.name not in told
    ]
    return by_severity([*not_told_by(report.clients, report.findings), *untold])


def _findings(report: StatusReport, width: int) -> list[list[Line]]:
    tones = {Severity.ERROR: Tone.BAD, Severity.WARNING: Tone.WARNING, Severity.INFO: Tone.PLAIN}
    paragraphs = []
    for finding in _troubles(report):
        tone = tones[finding.severity]
        lines = paragraph(finding.severity, [(_found(finding), tone)], width, label_tone=tone)
        if finding.remedy:
            lines += paragraph("", [(f"fix: {finding.remedy}", Tone.PLAIN)], width)
        paragraphs.append(lines)
    return paragraphs


def _shortened(paragraphs: list[list[Line]], room: int) -> list[Line]:
    """The first ones that fit, at least one, and how many do not."""
    if sum(map(len, paragraphs)) <= room:
        return [line for lines in paragraphs for line in lines]
    shown: list[Line] = []
    for number, lines in enumerate(paragraphs):
        if number and len(shown) + len(lines) > room - 1:
            return [
                *shown,
                ((f"{'':{LABEL_CELLS}}and {len(paragraphs) - number} more: agent status --json", Tone.QUIET),),
            ]
        shown += lines
    return shown


def _found(finding: Finding) -> str:
    return f"{finding.where}: {finding.text}" if finding.where else finding.text


def _listed(names: Sequence[str]) -> str:
    """The first ones, and how many more there are."""
    shown = [fitted(name, min(cells_of(name), NAME_CELLS), left=True) for name in names[:NAMED]]
    names = shown if len(names) <= NAMED else [*shown, f"{len(names) - NAMED} more"]
    return " and ".join((", ".join(names[:-1]), names[-1])) if len(names) > 1 else names[0]
