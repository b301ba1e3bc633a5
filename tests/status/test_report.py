from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from agent.errors import Finding, Severity
from agent.metrics import RemoteMetrics
from agent.spec import Astm, RemoteSpec
from agent.status import ClientStatus, StatusReport, by_severity, offline, to_builtins, to_json, utc

Build = Callable[..., StatusReport]


def test_the_json_has_the_keys_that_scripts_rely_on(report: Build) -> None:
    shown = msgspec.json.decode(to_json(report()))
    assert {"version", "running", "uptimeSeconds", "server", "channels", "clients", "spool", "upgrade",
            "findings"} <= shown.keys()  # fmt: skip
    assert {"url", "live", "pingMs", "lastHeartbeat", "reconnects", "lastError"} <= shown["server"].keys()
    assert {"name", "address", "type", "state", "connections", "received", "acknowledged", "rejected", "queued",
            "oldestQueuedSeconds", "rtt"} <= shown["channels"][0].keys()  # fmt: skip
    assert {"count", "p50", "p95", "p99"} <= shown["channels"][0]["rtt"].keys()
    assert {"path", "sizeBytes", "diskFreeBytes", "countsByState"} <= shown["spool"].keys()
    assert {"code", "severity", "text", "remedy"} <= shown["findings"][0].keys()


def test_a_channel_tells_its_counters_and_what_the_spool_holds_for_it(report: Build) -> None:
    adt = to_builtins(report())["channels"][0]
    assert (adt["name"], adt["state"], adt["connections"], adt["received"]) == ("adt", "listening", 2, 1200)
    assert (adt["queued"], adt["oldestQueuedSeconds"], adt["inFlight"]) == (10, 1.5, 2)
    assert (adt["refused"], adt["odd"]) == ({"charset": 2}, {"http": 12})
    assert (adt["rtt"]["count"], adt["rtt"]["min"], adt["rtt"]["max"]) == (4, 4, 40)


def test_a_remote_tells_its_counters_and_what_the_spool_holds_for_it(report: Build, lab: ClientStatus) -> None:
    [told] = to_builtins(report(clients=(lab,)))["clients"]
    assert told.pop("rtt")["count"] == 4
    assert told == {
        "remote": "mllp://10.0.0.9:2575",
        "connections": 2, "connectionsTotal": 9, "maxClients": 3, "keepAlive": True, "reconnects": 4,
        "waiting": 6, "inFlight": 2, "pushed": 120, "acknowledged": 100, "refused": 11, "retried": 13, "late": 1,
        "failed": {"dns": 1, "silent": 2}, "timeouts": 2,
        "durable": True, "stored": 8, "oldestStoredSeconds": 61.25,
        "lastError": "10.0.0.9:2575 sent no acknowledgement within 30 s",
    }  # fmt: skip


def test_a_remote_in_strict_order_has_one_connection_at_most() -> None:
    spec = RemoteSpec("mllp://lab:1?serialize=true", "lab", 1, max_clients=5, serialize=True)
    assert ClientStatus.of(RemoteMetrics(), spec=spec, stored=0, oldest_stored_seconds=None).max_clients == 1


@pytest.mark.parametrize(("line", "connections"), [("", 1), ("HAEM", 0)])
def test_an_analyser_has_one_connection_or_that_of_a_channel(line: str, connections: int) -> None:
    spec = RemoteSpec("astm://HAEM", "", 0, wire=Astm(), line=line)
    status = ClientStatus.of(RemoteMetrics(), spec=spec, stored=0, oldest_stored_seconds=None)
    assert status.max_clients == connections


def test_a_report_does_not_move_with_its_remotes() -> None:
    metrics = RemoteMetrics()
    metrics.fail("dns", "no address")
    status = ClientStatus.of(metrics, spec=RemoteSpec("mllp://lab:1", "lab", 1), stored=0, oldest_stored_seconds=None)
    metrics.fail("dns", "no address")
    assert status.failed == {"dns": 1}


def test_what_only_a_monitoring_system_reads_is_not_shown_to_people(report: Build, lab: ClientStatus) -> None:
    shown = to_builtins(report(clients=(lab,)))
    for told in (shown["channels"][0], shown["clients"][0]):
        assert set(told["rtt"]) == {"count", "min", "max", "average", "p50", "p95", "p99", "pendingCount"}


def test_the_gravest_finding_comes_first_and_equals_keep_their_order() -> None:
    found = [Finding(code, Severity(level), "x") for code, level in
             [("a", "info"), ("b", "warning"), ("c", "error"), ("d", "error")]]  # fmt: skip
    assert [finding.code for finding in by_severity(found)] == ["c", "d", "b", "a"]


def test_with_the_daemon_down_the_same_object_tells_what_the_spool_holds() -> None:
    spool = {
        "path": "/data/spool.db",
        "sizeBytes": 4096,
        "diskFreeBytes": 10**9,
        "countsByState": {"queued": 12, "processed": 3},
        "channels": {
            "lab": {"queued": 5, "oldestQueuedSeconds": 86.5},
            "adt": {"queued": 7, "oldestQueuedSeconds": None},
        },
    }
    shown = to_builtins(offline("1.2.3", spool))
    assert (shown["running"], shown["uptimeSeconds"], shown["server"]["live"]) == (False, None, False)
    assert [
        (each["name"], each["state"], each["queued"], each["oldestQueuedSeconds"]) for each in shown["channels"]
    ] == [
        ("adt", "down", 7, None),
        ("lab", "down", 5, 86.5),
    ]
    assert shown["spool"]["countsByState"] == {"queued": 12, "processed": 3}


def test_with_the_daemon_down_remotes_are_known_by_what_is_stored_for_them() -> None:
    held = {
        "path": "/data/spool.db",
        "remotes": {
            "mllp://pacs:2762?durable=true": {"queued": 3, "oldestQueuedSeconds": 90},
            "mllp://lab:2575?durable=true": {"queued": 1, "oldestQueuedSeconds": None},
            "mllp://done:2575?durable=true": {"queued": 0, "oldestQueuedSeconds": None},
        },
    }
    shown = to_builtins(offline("1.2.3", held))["clients"]
    assert [(each["remote"], each["stored"], each["oldestStoredSeconds"]) for each in shown] == [
        ("mllp://lab:2575?durable=true", 1, None),
        ("mllp://pacs:2762?durable=true", 3, 90),
    ]


@pytest.mark.parametrize(
    ("epoch_s", "text"), [(0, "1970-01-01T00:00:00.000Z"), (1767225600.25, "2026-01-01T00:00:00.250Z"), (None, None)]
)
def test_moments_are_iso_8601_in_utc(epoch_s: float | None, text: str | None) -> None:
    assert utc(epoch_s) == text
