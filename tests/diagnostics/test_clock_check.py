"""The server's time against ours."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from aiohttp import web
from diagnostics_far_ends import a_host, an_http_server, free_port

from agent.diagnostics import clock
from agent.diagnostics.check import Looked, NotLooked, Outcome
from agent.errors import Severity

MOMENT = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")


async def against_a_server_ahead_by(folder: Path, seconds: float) -> Outcome:
    async def answer(_: web.Request) -> web.Response:
        told = datetime.now(UTC) + timedelta(seconds=seconds)
        return web.Response(status=404, headers={"Date": format_datetime(told, usegmt=True)})

    async with an_http_server(answer) as base_url:
        return await clock.look(a_host(folder, base_url))


@pytest.mark.parametrize("seconds", [0, 15, -15])
async def test_a_few_seconds_are_well(tmp_path: Path, seconds: float) -> None:
    outcome = await against_a_server_ahead_by(tmp_path, seconds)
    assert isinstance(outcome, Looked)
    assert outcome.findings == ()


@pytest.mark.parametrize(
    ("seconds", "severity"),
    [(45, Severity.WARNING), (-45, Severity.WARNING), (3600, Severity.ERROR), (-3600, Severity.ERROR)],
)
async def test_more_is_told_with_both_times(tmp_path: Path, seconds: float, severity: Severity) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    outcome = await against_a_server_ahead_by(tmp_path, seconds)
    assert isinstance(outcome, Looked)

    [finding] = outcome.findings

    assert (finding.code, finding.severity) == ("clock.skew", severity)
    assert "NTP" in finding.remedy
    ours, theirs = (datetime.fromisoformat(f"{moment}+00:00") for moment in MOMENT.findall(finding.text))
    assert ours >= before
    assert abs((theirs - ours).total_seconds() - seconds) <= 2


async def test_a_server_that_cannot_be_asked_is_no_wrong_clock(tmp_path: Path) -> None:
    outcome = await clock.look(a_host(tmp_path, f"http://127.0.0.1:{free_port()}/"))
    assert isinstance(outcome, NotLooked)
    assert outcome.why.startswith("the server's time is not known: cannot connect")


async def test_without_a_server_there_is_no_time_to_compare(tmp_path: Path) -> None:
    assert await clock.look(a_host(tmp_path, None)) == NotLooked("the configuration is incomplete")
