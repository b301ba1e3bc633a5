from __future__ import annotations

import pytest

from agent.errors import Finding, Severity
from agent.status import ChannelState, ChannelStatus, ServerStatus, SpoolStatus, StatusReport


@pytest.fixture
def report() -> StatusReport:
    """A running daemon with one channel and one finding."""
    return StatusReport(
        version="1.2.3",
        running=True,
        uptime_seconds=60,
        server=ServerStatus("https://server.example/", live=True, ping_ms=4),
        channels=(ChannelStatus("adt", "mllp://0.0.0.0:2575", "mllp", ChannelState.LISTENING, connections=3),),
        clients=(),
        spool=SpoolStatus("/data/spool.db", 4096),
        findings=(Finding("spool.disk-low", Severity.WARNING, "512 MiB left"),),
    )
