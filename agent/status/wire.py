"""The report in the words of the server's $stats.

Secret: which of our numbers answers to which of Medplum's names (PROTOCOL §6, `AgentStats` of @medplum/core).
Promise: every field that a consumer may look for is there, as a number if it expects one: -1 is "unmeasured".
"""

from __future__ import annotations

from typing import Any

import msgspec

from agent.metrics import UNMEASURED
from agent.status.report import ChannelStatus, Rtt, StatusReport, by_severity


def wire_stats(report: StatusReport) -> dict[str, Any]:
    """The `stats` object of `agent:stats:response` (PROTOCOL §6): Medplum's fields first, ours after them.

    Every number is present; -1 where nothing was measured. Readers ignore the fields that they do not know.
    """
    return {
        "hl7ConnectionsOpen": sum(channel.connections for channel in report.channels),
        "ping": report.server.ping_ms,
        "webSocketQueueDepth": report.server.queued_frames,
        "hl7QueueDepth": sum(channel.queued for channel in report.channels),
        "hl7ClientCount": sum(client.connections for client in report.clients),
        "live": report.server.live,
        "outstandingHeartbeats": report.server.outstanding_heartbeats,
        "channelStats": {channel.name: _channel_stats(channel) for channel in report.channels},
        "clientStats": {client.remote: {"rtt": _rtt(client.rtt)} for client in report.clients},
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


def _depth(channel: ChannelStatus) -> dict[str, float]:
    oldest_s = channel.oldest_queued_seconds
    return {
        "queued": channel.queued,
        "inflight": channel.in_flight,
        "oldestQueuedAgeMs": UNMEASURED if oldest_s is None else round(oldest_s * 1000),
    }
