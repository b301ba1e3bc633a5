"""The report in the words of the server's $stats.

Secret: which of our numbers answers to which of Medplum's names (PROTOCOL §6, `AgentStats` of @medplum/core).
Promise: every field that a consumer may look for is there, as a number if it expects one: -1 is "unmeasured".
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, count
from typing import Any

import msgspec

from agent.metrics import UNMEASURED
from agent.status.report import ChannelStatus, ClientStatus, Rtt, StatusReport, by_severity

ENCODING = "encoding="
DEFAULT_ENCODING = f"{ENCODING}utf-8"
DEFAULT_ENCODING_OF_ANALYSERS = f"{ENCODING}iso-8859-1"


def wire_stats(report: StatusReport) -> dict[str, Any]:
    """The `stats` object of `agent:stats:response` (PROTOCOL §6): Medplum's fields first, ours after them.

    Every number is present; -1 where nothing was measured. Readers ignore the fields that they do not know.
    """
    keys = client_keys(client.remote for client in report.clients)
    return {
        "hl7ConnectionsOpen": sum(channel.connections for channel in report.channels),
        "ping": report.server.ping_ms,
        "webSocketQueueDepth": report.server.queued_frames,
        "hl7QueueDepth": sum(channel.queued for channel in report.channels),
        "hl7ClientCount": sum(client.connections for client in report.clients),
        "live": report.server.live,
        "outstandingHeartbeats": report.server.outstanding_heartbeats,
        "channelStats": {channel.name: _channel_stats(channel) for channel in report.channels},
        "clientStats": {keys[client.remote]: _client_stats(client) for client in report.clients},
        "durableQueue": {
            "enabled": True,
            "dbSizeBytes": report.spool.size_bytes,
            "countsByState": dict(report.spool.counts_by_state),
            "channelDepth": {channel.name: _depth(channel) for channel in report.channels},
            "lastSweepAt": report.spool.last_sweep_at or UNMEASURED,
            "writable": report.spool.writable,
            "diskFreeBytes": report.spool.disk_free_bytes,
        },
        "version": report.version,
        "pid": report.pid if report.pid is not None else UNMEASURED,
        "uptimeSeconds": report.uptime_seconds if report.uptime_seconds is not None else UNMEASURED,
        "memoryBytes": report.memory_bytes,
        "reconnects": report.server.reconnects,
        "lastHeartbeat": report.server.last_heartbeat or UNMEASURED,
        "findings": msgspec.to_builtins(by_severity(report.findings)),
    }


def _rtt(rtt: Rtt) -> dict[str, float]:
    wire: dict[str, float] = msgspec.to_builtins(rtt.for_people())
    return wire


def _channel_stats(channel: ChannelStatus) -> dict[str, Any]:
    return {
        "rtt": _rtt(channel.rtt),
        "state": channel.state,
        "connections": channel.connections,
        "received": channel.received,
        "acknowledged": channel.acknowledged,
        "rejected": channel.rejected,
        "delivered": channel.delivered,
        "retried": channel.retried,
        "duplicates": channel.duplicates,
        "timeouts": channel.timeouts,
        "fallbacks": channel.fallbacks,
        "refused": dict(channel.refused),
        "odd": dict(channel.odd),
    }


def _client_stats(client: ClientStatus) -> dict[str, Any]:
    return {
        "rtt": _rtt(client.rtt),
        "connections": client.connections,
        "waiting": client.waiting,
        "inFlight": client.in_flight,
        "pushed": client.pushed,
        "acknowledged": client.acknowledged,
        "refused": client.refused,
        "retried": client.retried,
        "failed": dict(client.failed),
        "timeouts": client.timeouts,
        "reconnects": client.reconnects,
        "connectionsTotal": client.connections_total,
        "late": client.late,
        "stored": client.stored,
        "oldestStoredAgeMs": _age_ms(client.oldest_stored_seconds),
        "lastError": client.last_error,
    }


def client_keys(urls: Iterable[str]) -> dict[str, str]:
    """The name in `clientStats` of each remote's URL, no two alike.

    It is `scheme://host:port?encoding=…` as the existing agent has it, with utf-8 where the URL names none, iso-8859-1
    if it is an analyser's. Where only other parameters tell remotes apart, the one with the fewest of them has that
    name, and each other one has its own behind it: `…?encoding=utf-8&keepAlive=true`. If that is taken, too (one URL
    says utf-8, the other nothing), a number follows as a fragment, `…?encoding=utf-8#2`, so that it stays a URL with
    the same parameters.
    """
    urls_of: dict[str, str] = {}
    for _, url, short, whole in sorted(map(_named, set(urls))):
        candidates = chain((short, whole), (f"{whole}#{number}" for number in count(2)))
        urls_of[next(key for key in candidates if key not in urls_of)] = url
    return {url: key for key, url in urls_of.items()}


def _named(url: str) -> tuple[int, str, str, str]:
    """How many parameters it has beside the encoding, itself, its name without them and with them."""
    address, _, query = url.partition("?")
    parameters = query.split("&") if query else []
    usual = DEFAULT_ENCODING_OF_ANALYSERS if address.startswith("astm:") else DEFAULT_ENCODING
    encoding = next((each for each in parameters if each.startswith(ENCODING)), usual)
    others = [each for each in parameters if each != encoding]
    return len(others), url, f"{address}?{encoding}", "&".join((f"{address}?{encoding}", *others))


def _depth(channel: ChannelStatus) -> dict[str, float]:
    return {
        "queued": channel.queued,
        "inflight": channel.in_flight,
        "oldestQueuedAgeMs": _age_ms(channel.oldest_queued_seconds),
    }


def _age_ms(age_s: float | None) -> float:
    return UNMEASURED if age_s is None else round(age_s * 1000)
