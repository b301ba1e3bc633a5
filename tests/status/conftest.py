from __future__ import annotations

from collections.abc import Callable

import pytest

from agent.errors import Finding, Severity
from agent.failures import Kind
from agent.metrics import ChannelMetrics, RemoteMetrics
from agent.spec import RemoteSpec
from agent.status import ChannelState, ChannelStatus, ClientStatus, ServerStatus, SpoolStatus, StatusReport

TAKEN = Finding("channel.port-taken", Severity.ERROR, "port 2576 is in use", "stop the other program", "lab")
SOON = Finding("spool.disk-low", Severity.WARNING, "512 MiB left", "free some space")
NOTE = Finding("queue.always-on", Severity.INFO, "durableQueue=false is ignored")


@pytest.fixture
def lab() -> ClientStatus:
    """A durable remote that answered until it went silent, with messages of which some are stored."""
    spec = RemoteSpec("mllp://10.0.0.9:2575", "10.0.0.9", 2575, max_clients=3, keep_alive=True, durable=True)
    done = RemoteMetrics()
    done.connections, done.connections_total, done.reconnects = 2, 9, 4
    done.waiting, done.pending, done.pushed, done.acknowledged, done.refused = 6, 2, 120, 100, 11
    done.retried, done.late = 13, 1
    for milliseconds in (4, 5, 6, 40):
        done.rtt.record(milliseconds / 1000)
    done.fail(Kind.DNS, "the name lab has no address")
    for _ in range(2):
        done.fail(Kind.SILENT, "10.0.0.9:2575 sent no acknowledgement within 30 s")
    return ClientStatus.of(done, spec=spec, stored=8, oldest_stored_seconds=61.25)


@pytest.fixture
def report() -> Callable[..., StatusReport]:
    """A report of a busy daemon with one good channel and one whose port is taken; keywords replace its fields."""

    def build(**changes: object) -> StatusReport:
        adt = ChannelMetrics()
        adt.connections, adt.connections_total, adt.received, adt.acknowledged = 2, 7, 1200, 1190
        adt.rejected, adt.delivered, adt.pending, adt.bytes_in = 3, 1188, 2, 1_228_800
        adt.fallbacks = 5
        adt.refuse("charset")
        adt.refuse("charset")
        for milliseconds in (4, 5, 6, 40):
            adt.rtt.record(milliseconds / 1000)
        channels = (
            ChannelStatus.of(
                adt, name="adt", address="mllp://0.0.0.0:2575", state=ChannelState.LISTENING,
                queued=10, oldest_queued_seconds=1.5, odd={"http": 12},
            ),
            ChannelStatus.of(
                ChannelMetrics(), name="lab", address="mllp://0.0.0.0:2576", state=ChannelState.FAILED,
                queued=0, oldest_queued_seconds=None,
            ),
        )  # fmt: skip
        fields: dict[str, object] = {
            "version": "1.2.3",
            "running": True,
            "uptime_seconds": 93784.5,
            "server": ServerStatus(
                "https://server.example/", live=True, ping_ms=12.5, last_heartbeat="2026-01-31T03:00:00.000Z",
                reconnects=4, outstanding_heartbeats=1, queued_frames=6,
            ),
            "channels": channels,
            "clients": (),
            "spool": SpoolStatus("/data/spool.db", 4096, 10**9, {"queued": 10, "processed": 1188}),
            "findings": (NOTE, SOON, TAKEN),
            "pid": 4711,
        }  # fmt: skip
        return StatusReport(**(fields | changes))  # type: ignore[arg-type]

    return build
