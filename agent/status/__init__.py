"""Say how the agent is, once, for everybody who asks.

Secret: who reads the report: `report` people and scripts, `wire` the server, `exposition` monitoring.
Promise: they all tell the same story, and none of them holds message content.
"""

from agent.status.exposition import prometheus
from agent.status.report import (
    NO_RTT,
    Bucket,
    ChannelState,
    ChannelStatus,
    ClientStatus,
    Rtt,
    ServerStatus,
    SpoolStatus,
    StatusReport,
    by_severity,
    offline,
    to_builtins,
    to_json,
    utc,
)
from agent.status.wire import wire_stats

__all__ = [
    "NO_RTT",
    "Bucket",
    "ChannelState",
    "ChannelStatus",
    "ClientStatus",
    "Rtt",
    "ServerStatus",
    "SpoolStatus",
    "StatusReport",
    "by_severity",
    "offline",
    "prometheus",
    "to_builtins",
    "to_json",
    "utc",
    "wire_stats",
]
