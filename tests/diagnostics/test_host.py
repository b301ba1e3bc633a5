"""What a check may know: whether the daemon answers, and where the server is."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from diagnostics_far_ends import a_host, a_report

from agent.diagnostics.host import Away, Running, Unheard, ask_daemon
from agent.net.control import open_control
from agent.paths import Paths, locate
from agent.status import to_builtins


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return locate({}, data_dir=tmp_path)


async def test_nobody_at_the_door_is_away(paths: Paths) -> None:
    assert isinstance(await ask_daemon(paths), Away)


async def test_a_daemon_that_answers_gives_its_status(paths: Paths) -> None:
    async def answer(verb: str, args: dict[str, Any]) -> Any:
        return to_builtins(a_report())

    async with open_control(paths.control, answer):
        assert await ask_daemon(paths) == Running(a_report())


async def test_a_daemon_that_hangs_is_not_away(paths: Paths) -> None:
    async def hang(verb: str, args: dict[str, Any]) -> Any:
        await asyncio.Event().wait()

    async with open_control(paths.control, hang):
        daemon = await ask_daemon(paths, within_s=0.05)
    assert isinstance(daemon, Unheard)
    assert daemon.trouble.hint


async def test_a_daemon_of_another_kind_is_not_understood_and_no_crash(paths: Paths) -> None:
    async def babble(verb: str, args: dict[str, Any]) -> Any:
        return {"version": 7}

    async with open_control(paths.control, babble):
        daemon = await ask_daemon(paths)
    assert isinstance(daemon, Unheard)
    assert "cannot be understood" in str(daemon.trouble)


@pytest.mark.parametrize(
    ("url", "host", "port", "place", "secure"),
    [
        ("https://api.example.org/", "api.example.org", 443, "api.example.org:443", True),
        ("http://10.0.0.1/base/", "10.0.0.1", 80, "10.0.0.1:80", False),
        ("https://[2001:db8::1]:8443/", "2001:db8::1", 8443, "[2001:db8::1]:8443", True),
    ],
)
def test_the_way_to_the_server_is_read_from_its_url(
    tmp_path: Path, url: str, host: str, port: int, place: str, secure: bool
) -> None:
    route = a_host(tmp_path, url).route
    assert route is not None
    assert (route.host, route.port, route.place, route.secure) == (host, port, place, secure)


def test_a_server_is_known_though_the_settings_are_incomplete(tmp_path: Path) -> None:
    host = a_host(tmp_path, "http://10.0.0.1/", agent_id=None)
    assert host.settings is None
    assert host.route is not None
