"""How the agent is, at one moment, as frozen values.

Secret: the shape of `agent status --json`, which scripts rely on: fields are added, never renamed.
Promise: one report serves the screen, the server's $stats and monitoring, so that the three cannot disagree.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import msgspec
from msgspec.structs import replace

from agent.errors import Finding, Severity
from agent.failures import Kind
from agent.metrics import UNMEASURED, ChannelMetrics, Histogram, RemoteMetrics, rtt_json
from agent.spec import Astm, RemoteSpec

GRAVEST_FIRST = (Severity.ERROR, Severity.WARNING, Severity.INFO)


class ChannelState(StrEnum):
    """What a channel's door is doing. `failed` is retried and has a finding; `off` was asked for; `connecting` and
    `connected` are of channels that dial."""

    LISTENING = "listening"
    STARTING = "starting"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    FAILED = "failed"
    OFF = "off"
    DOWN = "down"  # the daemon is not running


class Bucket(msgspec.Struct, frozen=True, rename="camel"):
    """How many durations (`count`) were at most `at_most_s` seconds long."""

    at_most_s: float
    count: int


class Rtt(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Round trips in milliseconds, -1 where unmeasured. `buckets` and `total_s` are for monitoring only."""

    count: int
    min: float
    max: float
    average: float
    p50: float
    p95: float
    p99: float
    pending_count: int
    buckets: tuple[Bucket, ...] = ()
    total_s: float = 0.0

    @classmethod
    def of(cls, histogram: Histogram, pending: int) -> Rtt:
        """The histogram as it is now, with `pending` requests still unanswered."""
        now = histogram.snapshot()
        shown = msgspec.convert(rtt_json(histogram, pending), cls)
        buckets = tuple(Bucket(bound_s, count) for bound_s, count in now.cumulative)
        return replace(shown, buckets=buckets, total_s=now.total_s)

    def for_people(self) -> Rtt:
        """The same without what only a monitoring system reads."""
        return replace(self, buckets=(), total_s=0.0)


NO_RTT = Rtt.of(Histogram(), 0)


class ServerStatus(msgspec.Struct, frozen=True, rename="camel"):
    """The link to the server. Before the first heartbeat `ping_ms` is -1 and `last_heartbeat` None."""

    url: str
    live: bool
    ping_ms: float = UNMEASURED
    last_heartbeat: str | None = None
    reconnects: int = 0
    last_error: str = ""
    outstanding_heartbeats: int = 0
    queued_frames: int = 0
    agent_id: str = ""


class ChannelStatus(msgspec.Struct, frozen=True, rename="camel"):
    """One channel. Counts are since the process started; `queued` and its oldest's age are the spool's.

    `refused`: what was not taken, by kind; `odd`: what was strange about connections, by kind (`agent doctor --port`).
    """

    name: str
    address: str
    type: str
    state: str
    connections: int = 0
    received: int = 0
    acknowledged: int = 0
    rejected: int = 0
    queued: int = 0
    oldest_queued_seconds: float | None = None
    rtt: Rtt = NO_RTT
    in_flight: int = 0
    delivered: int = 0
    retried: int = 0
    duplicates: int = 0
    timeouts: int = 0
    bytes_in: int = 0
    connections_total: int = 0
    last_error: str = ""
    fallbacks: int = 0
    refused: Mapping[str, int] = {}
    odd: Mapping[str, int] = {}

    @classmethod
    def of(
        cls,
        metrics: ChannelMetrics,
        *,
        name: str,
        address: str,
        type: str = "mllp",  # noqa: A002  the outside's word
        state: ChannelState,
        queued: int,
        oldest_queued_seconds: float | None,
        last_error: str = "",
        odd: Mapping[str, int] = {},
    ) -> ChannelStatus:
        """A running channel: its counters, and what the spool holds for it."""
        return cls(
            name=name,
            address=address,
            type=type,
            state=state.value,
            connections=metrics.connections,
            received=metrics.received,
            acknowledged=metrics.acknowledged,
            rejected=metrics.rejected,
            queued=queued,
            oldest_queued_seconds=oldest_queued_seconds,
            rtt=Rtt.of(metrics.rtt, metrics.pending),
            in_flight=metrics.pending,
            delivered=metrics.delivered,
            retried=metrics.retried,
            duplicates=metrics.duplicates,
            timeouts=metrics.timeouts,
            bytes_in=metrics.bytes_in,
            connections_total=metrics.connections_total,
            last_error=last_error,
            fallbacks=metrics.fallbacks,
            refused={**metrics.refused},
            odd={**odd},
        )


class ClientStatus(msgspec.Struct, frozen=True, rename="camel"):
    """One remote that messages are pushed to, by its URL. Counts are since the process started (`RemoteMetrics`).

    `failed`: messages that got no acknowledgement, by kind (`agent.failures.Kind`); `timeouts`: those of them that the
    remote left without an answer. `max_clients`: connections that there may be, 0 where it is not known or where a
    channel's is used. `stored`: its durable messages on disk, those under way included, and the oldest one's age.
    `last_error` is empty again after an acknowledgement.
    """

    remote: str
    connections: int = 0
    rtt: Rtt = NO_RTT
    waiting: int = 0
    in_flight: int = 0
    pushed: int = 0
    acknowledged: int = 0
    refused: int = 0
    retried: int = 0
    late: int = 0
    failed: Mapping[str, int] = {}
    timeouts: int = 0
    reconnects: int = 0
    connections_total: int = 0
    max_clients: int = 0
    keep_alive: bool = False
    durable: bool = False
    stored: int = 0
    oldest_stored_seconds: float | None = None
    last_error: str = ""

    @classmethod
    def of(
        cls, metrics: RemoteMetrics, *, spec: RemoteSpec, stored: int, oldest_stored_seconds: float | None
    ) -> ClientStatus:
        """A remote of the running daemon: its counters, what it may do, and what the spool holds for it."""
        return cls(
            remote=spec.url,
            connections=metrics.connections,
            rtt=Rtt.of(metrics.rtt, metrics.pending),
            waiting=metrics.waiting,
            in_flight=metrics.pending,
            pushed=metrics.pushed,
            acknowledged=metrics.acknowledged,
            refused=metrics.refused,
            retried=metrics.retried,
            late=metrics.late,
            failed={str(kind): number for kind, number in metrics.failed.items()},
            timeouts=metrics.failed.get(Kind.SILENT, 0),
            reconnects=metrics.reconnects,
            connections_total=metrics.connections_total,
            max_clients=_connections_of(spec),
            keep_alive=spec.keep_alive,
            durable=spec.durable,
            stored=stored,
            oldest_stored_seconds=oldest_stored_seconds,
            last_error=metrics.last_error,
        )


def _connections_of(spec: RemoteSpec) -> int:
    if isinstance(spec.wire, Astm):
        return 0 if spec.line else 1
    return 1 if spec.serialize else spec.max_clients


class SpoolStatus(msgspec.Struct, frozen=True, rename="camel"):
    """The durable queue on disk. Sizes in bytes, -1 where unknown; `last_sweep_at` is ISO 8601 or None."""

    path: str
    size_bytes: int = 0
    disk_free_bytes: int = UNMEASURED
    counts_by_state: Mapping[str, int] = {}
    writable: bool = True
    last_sweep_at: str | None = None
    last_error: str = ""


class StatusReport(msgspec.Struct, frozen=True, rename="camel"):
    """Everything at one moment. `upgrade` holds free facts; a number that is not known is None or -1."""

    version: str
    running: bool
    uptime_seconds: float | None
    server: ServerStatus
    channels: tuple[ChannelStatus, ...]
    clients: tuple[ClientStatus, ...]
    spool: SpoolStatus
    upgrade: Mapping[str, Any] = {}
    findings: tuple[Finding, ...] = ()
    pid: int | None = None
    memory_bytes: int = UNMEASURED


def utc(epoch_s: float | None) -> str | None:
    """Seconds since 1970 as ISO 8601 in UTC (`2026-01-31T03:00:00.000Z`); None stays None."""
    if epoch_s is None:
        return None
    return datetime.fromtimestamp(epoch_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def by_severity(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The gravest first; within a severity, the order in which they were found."""
    return tuple(sorted(findings, key=lambda finding: GRAVEST_FIRST.index(finding.severity)))


def to_builtins(report: StatusReport) -> dict[str, Any]:
    """The report as the object of `agent status --json`, findings sorted by severity."""
    shown = replace(
        report,
        channels=tuple(replace(channel, rtt=channel.rtt.for_people()) for channel in report.channels),
        clients=tuple(replace(client, rtt=client.rtt.for_people()) for client in report.clients),
        findings=by_severity(report.findings),
    )
    built: dict[str, Any] = msgspec.to_builtins(shown)
    return built


def to_json(report: StatusReport) -> bytes:
    """The report as the JSON text of `agent status --json`."""
    return msgspec.json.encode(to_builtins(report))


def offline(version: str, spool: Mapping[str, Any], *, url: str = "", findings: Iterable[Finding] = ()) -> StatusReport:
    """The report of a daemon that does not run; `spool` is what `agent.store.peek.read_status` found.

    `spool["remotes"]`, where it is known, is {URL: {queued, oldestQueuedSeconds}}, as `spool["channels"]` is by name.
    """
    channels = tuple(
        ChannelStatus(
            name=name,
            address="",
            type="",
            state=ChannelState.DOWN.value,
            queued=facts["queued"],
            oldest_queued_seconds=facts["oldestQueuedSeconds"],
        )
        for name, facts in sorted(spool.get("channels", {}).items())
    )
    clients = tuple(
        ClientStatus(url, durable=True, stored=facts["queued"], oldest_stored_seconds=facts["oldestQueuedSeconds"])
        for url, facts in sorted(spool.get("remotes", {}).items())
        if facts["queued"]
    )
    return StatusReport(
        version=version,
        running=False,
        uptime_seconds=None,
        server=ServerStatus(url, live=False),
        channels=channels,
        clients=clients,
        spool=msgspec.convert({key: spool[key] for key in spool if key not in ("channels", "remotes")}, SpoolStatus),
        findings=by_severity(findings),
    )
