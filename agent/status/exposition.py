"""The report as Prometheus reads it (text exposition format 0.0.4).

Secret: metric names, their kinds and how a label is escaped.
Promise: every family has HELP and TYPE and appears once, counters end in `_total`, seconds and bytes are the
units, and what was not measured is absent instead of -1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime

from agent.errors import Severity
from agent.status.report import (
    ChannelState,
    ChannelStatus,
    ClientStatus,
    Rtt,
    ServerStatus,
    SpoolStatus,
    StatusReport,
)

PREFIX = "onprem_agent_"

Labels = Mapping[str, str]

OPEN = (ChannelState.LISTENING, ChannelState.CONNECTED)

PER_CHANNEL: tuple[tuple[str, str, Callable[[ChannelStatus], float | None]], ...] = (
    ("listening", "1 while senders can reach it.", lambda c: c.state in OPEN),
    ("connections", "Connections open now.", lambda c: c.connections),
    ("connections_total", "Connections ever accepted.", lambda c: c.connections_total),
    ("received_bytes_total", "Bytes received.", lambda c: c.bytes_in),
    ("received_total", "Messages received.", lambda c: c.received),
    ("acknowledged_total", "Positive answers to senders.", lambda c: c.acknowledged),
    ("rejected_total", "Negative answers to senders.", lambda c: c.rejected),
    ("delivered_total", "Messages that the server took.", lambda c: c.delivered),
    ("retried_total", "Deliveries tried again.", lambda c: c.retried),
    ("duplicates_total", "Messages recognised as repeated.", lambda c: c.duplicates),
    ("fallbacks_total", "Messages read by the fallback charset.", lambda c: c.fallbacks),
    ("timeouts_total", "Senders answered only at their deadline.", lambda c: c.timeouts),
    ("in_flight", "Messages sent and not answered yet.", lambda c: c.in_flight),
    ("queued", "Messages waiting for the server.", lambda c: c.queued),
    ("oldest_queued_seconds", "Age of the oldest waiting one.", lambda c: c.oldest_queued_seconds),
)
PER_KIND: tuple[tuple[str, str, Callable[[ChannelStatus], Mapping[str, int]]], ...] = (
    ("refused_total", "What was not taken, by kind.", lambda c: c.refused),
    ("odd_total", "Connections that were no HL7 or badly framed, by kind.", lambda c: c.odd),
)
PER_REMOTE: tuple[tuple[str, str, Callable[[ClientStatus], float | None]], ...] = (
    ("connections", "Outbound connections open now.", lambda c: c.connections),
    ("connections_total", "Outbound connections ever opened.", lambda c: c.connections_total),
    ("reconnects_total", "Outbound connections opened after one was lost.", lambda c: c.reconnects),
    ("waiting", "Messages waiting for a connection.", lambda c: c.waiting),
    ("in_flight", "Messages written and not answered yet.", lambda c: c.in_flight),
    ("pushed_total", "Messages accepted for the remote.", lambda c: c.pushed),
    ("acknowledged_total", "Positive acknowledgements of the remote.", lambda c: c.acknowledged),
    ("refused_total", "Negative acknowledgements of the remote.", lambda c: c.refused),
    ("retried_total", "Tries after the first of durable messages.", lambda c: c.retried),
    ("late_total", "Answers that nobody waited for any more.", lambda c: c.late),
    ("stored", "Durable messages on disk that the remote has not answered.", lambda c: c.stored),
    ("oldest_stored_seconds", "Age of the oldest of them.", lambda c: c.oldest_stored_seconds),
)


def prometheus(report: StatusReport) -> str:
    """The whole report as text, ending in a line feed."""
    page = _Page()
    page.family("info", "The running version.", [({"version": report.version}, 1)])
    page.single("uptime_seconds", "Time since the process started.", report.uptime_seconds)
    page.single("memory_bytes", "Resident memory.", _measured(report.memory_bytes))
    found = Counter(finding.severity for finding in report.findings)
    severities = [({"severity": severity.value}, found[severity]) for severity in Severity]
    page.family("findings", "What a person should know, by severity.", severities)
    _server(page, report.server)
    channels = [({"channel": channel.name}, channel) for channel in report.channels]
    for name, meaning, value in PER_CHANNEL:
        page.family(f"channel_{name}", meaning, [(at, value(channel)) for at, channel in channels])
    for name, meaning, kinds in PER_KIND:
        counted = [({**at, "kind": kind}, n) for at, channel in channels for kind, n in sorted(kinds(channel).items())]
        page.family(f"channel_{name}", meaning, counted)
    page.histogram(
        "channel_round_trip_seconds",
        "From sending a message to the server's answer.",
        [(at, channel.rtt) for at, channel in channels],
    )
    _remotes(page, report.clients)
    _spool(page, report.spool)
    return page.text()


def _remotes(page: _Page, clients: Iterable[ClientStatus]) -> None:
    remotes = [({"remote": client.remote}, client) for client in clients]
    for name, meaning, value in PER_REMOTE:
        page.family(f"client_{name}", meaning, [(at, value(client)) for at, client in remotes])
    failed = [({**at, "kind": kind}, n) for at, client in remotes for kind, n in sorted(client.failed.items())]
    page.family("client_failed_total", "Messages without an acknowledgement, by kind.", failed)
    page.histogram(
        "client_round_trip_seconds",
        "From sending a message to a remote to its acknowledgement.",
        [(at, client.rtt) for at, client in remotes],
    )


def _server(page: _Page, server: ServerStatus) -> None:
    seen = server.last_heartbeat and datetime.fromisoformat(server.last_heartbeat).timestamp()
    ping_ms = _measured(server.ping_ms)
    page.single("server_live", "1 while the server has accepted our connection.", server.live)
    page.single("server_ping_seconds", "The last heartbeat's.", None if ping_ms is None else ping_ms / 1000)
    page.single("server_last_heartbeat_timestamp_seconds", "When one was last answered.", seen or None)
    page.single("server_outstanding_heartbeats", "Heartbeats unanswered.", server.outstanding_heartbeats)
    page.single("server_queued_frames", "Frames waiting for the socket.", server.queued_frames)
    page.single("server_reconnects_total", "Connections after the first.", server.reconnects)


def _spool(page: _Page, spool: SpoolStatus) -> None:
    page.single("spool_size_bytes", "The spool on disk.", spool.size_bytes)
    page.single("spool_disk_free_bytes", "Space left for the spool.", _measured(spool.disk_free_bytes))
    page.single("spool_writable", "1 while the disk keeps what it is given.", spool.writable)
    counts = [({"state": state}, count) for state, count in sorted(spool.counts_by_state.items())]
    page.family("spool_messages", "Messages in the spool, by state.", counts)


class _Page:
    """The lines of a page, one family after the other; a family without samples is left out."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def single(self, name: str, meaning: str, value: float | None) -> None:
        self.family(name, meaning, [({}, value)])

    def family(self, name: str, meaning: str, samples: Iterable[tuple[Labels, float | None]]) -> None:
        kind = "counter" if name.endswith("_total") else "gauge"
        lines = [_sample(name, at, value) for at, value in samples if value is not None]
        self._add(name, kind, meaning, lines)

    def histogram(self, name: str, meaning: str, samples: Iterable[tuple[Labels, Rtt]]) -> None:
        lines: list[str] = []
        for at, rtt in samples:
            bounds = [(f"{bucket.at_most_s:.4g}", bucket.count) for bucket in rtt.buckets]
            bounds.append(("+Inf", rtt.count))
            lines += [_sample(f"{name}_bucket", {**at, "le": le}, count) for le, count in bounds]
            lines += [_sample(f"{name}_sum", at, rtt.total_s), _sample(f"{name}_count", at, rtt.count)]
        self._add(name, "histogram", meaning, lines)

    def text(self) -> str:
        return "\n".join(self._lines) + "\n"

    def _add(self, name: str, kind: str, meaning: str, lines: list[str]) -> None:
        if lines:
            self._lines += [f"# HELP {PREFIX}{name} {meaning}", f"# TYPE {PREFIX}{name} {kind}", *lines]


def _sample(name: str, labels: Labels, value: float) -> str:
    inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
    number = f"{value:d}" if isinstance(value, int) else repr(float(value))
    return f"{PREFIX}{name}{{{inside}}} {number}" if inside else f"{PREFIX}{name} {number}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _measured(value: float) -> float | None:
    return None if value < 0 else value
