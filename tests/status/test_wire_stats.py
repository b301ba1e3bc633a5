from __future__ import annotations

from collections.abc import Callable

from agent.status import ClientStatus, ServerStatus, SpoolStatus, StatusReport, wire_stats

Build = Callable[..., StatusReport]


def test_every_field_that_the_servers_consumers_know_is_there(report: Build) -> None:
    stats = wire_stats(report())
    assert stats["hl7ConnectionsOpen"] == 2
    assert stats["ping"] == 12.5
    assert stats["webSocketQueueDepth"] == 6
    assert stats["hl7QueueDepth"] == 10
    assert stats["hl7ClientCount"] == 0
    assert stats["live"] is True
    assert stats["outstandingHeartbeats"] == 1
    assert stats["clientStats"] == {}
    assert set(stats["channelStats"]["adt"]["rtt"]) == {
        "count", "min", "max", "average", "p50", "p95", "p99", "pendingCount",
    }  # fmt: skip
    assert stats["channelStats"]["adt"]["rtt"]["pendingCount"] == 2


def test_what_a_channel_did_not_take_and_what_was_odd_at_its_door(report: Build) -> None:
    adt = wire_stats(report())["channelStats"]["adt"]
    assert (adt["refused"], adt["odd"], adt["fallbacks"]) == ({"charset": 2}, {"http": 12}, 5)


def test_the_durable_queue_is_always_on_and_tells_each_channels_depth(report: Build) -> None:
    queue = wire_stats(report())["durableQueue"]
    assert queue["enabled"] is True
    assert queue["dbSizeBytes"] == 4096
    assert queue["countsByState"] == {"queued": 10, "processed": 1188}
    assert queue["channelDepth"] == {
        "adt": {"queued": 10, "inflight": 2, "oldestQueuedAgeMs": 1500},
        "lab": {"queued": 0, "inflight": 0, "oldestQueuedAgeMs": -1},
    }


def test_what_was_not_measured_is_minus_one(report: Build) -> None:
    stats = wire_stats(report(server=ServerStatus("https://server.example/", live=False), pid=None))
    assert (stats["ping"], stats["pid"], stats["lastHeartbeat"]) == (-1, -1, -1)
    assert stats["durableQueue"]["lastSweepAt"] == -1
    lab = stats["channelStats"]["lab"]["rtt"]
    assert (lab["count"], lab["min"], lab["average"], lab["p99"]) == (0, -1, -1, -1)


def test_the_last_sweep_is_told_once_there_was_one(report: Build) -> None:
    spool = SpoolStatus("/data/spool.db", last_sweep_at="2026-01-31T03:00:00.000Z")
    assert wire_stats(report(spool=spool))["durableQueue"]["lastSweepAt"] == "2026-01-31T03:00:00.000Z"


def test_outbound_pools_are_named_by_their_remote(report: Build) -> None:
    stats = wire_stats(report(clients=(ClientStatus("mllp://10.0.0.9:2575?encoding=utf-8", connections=2),)))
    assert stats["hl7ClientCount"] == 2
    assert stats["clientStats"]["mllp://10.0.0.9:2575?encoding=utf-8"]["rtt"]["count"] == 0
