from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.notify import Notifier

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="systemd")

if sys.platform != "win32":

    @pytest.fixture(params=["path", "abstract"])
    def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
        """A service manager's socket and the NOTIFY_SOCKET that names it."""
        if request.param == "abstract" and sys.platform != "linux":
            pytest.skip("abstract sockets are Linux's")
        address = str(tmp_path / "notify") if request.param == "path" else f"\0agent-test{tmp_path}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
            heard.bind(address)
            heard.settimeout(5)
            yield heard, address.replace("\0", "@", 1)


def said(heard: socket.socket) -> list[str]:
    return heard.recv(4096).decode().split("\n")


def test_the_life_of_a_service_is_told(manager: tuple[socket.socket, str]) -> None:
    heard, address = manager
    notifier = Notifier.from_environ({"NOTIFY_SOCKET": address})
    notifier.ready("3 channels")
    assert said(heard) == ["READY=1", "STATUS=3 channels"]
    notifier.status("live")
    assert said(heard) == ["STATUS=live"]
    notifier.stopping()
    assert said(heard) == ["STOPPING=1"]


def test_a_reload_carries_the_monotonic_clock(manager: tuple[socket.socket, str]) -> None:
    heard, address = manager
    before_us = time.monotonic_ns() // 1000
    Notifier.from_environ({"NOTIFY_SOCKET": address}).reloading()
    reloading, clock = said(heard)
    assert reloading == "RELOADING=1"
    assert before_us <= int(clock.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000


def test_a_status_of_several_lines_cannot_say_anything_else(manager: tuple[socket.socket, str]) -> None:
    heard, address = manager
    Notifier.from_environ({"NOTIFY_SOCKET": address}).status("one\nMAINPID=1")
    assert said(heard) == ["STATUS=one MAINPID=1"]


async def test_the_watchdog_is_fed_at_half_its_patience(manager: tuple[socket.socket, str]) -> None:
    heard, address = manager
    heard.setblocking(False)
    notifier = Notifier.from_environ({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "20000"})
    assert notifier.watchdog_interval_s == 0.01
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        feeding = group.create_task(notifier.watch())
        for _ in range(3):
            assert await asyncio.get_running_loop().sock_recv(heard, 100) == b"WATCHDOG=1"
        feeding.cancel()


@pytest.mark.parametrize(
    "environ",
    [
        {"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": "1"},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "²"},
        {},
    ],
)
async def test_a_watchdog_that_is_not_ours_is_not_fed(environ: dict[str, str]) -> None:
    notifier = Notifier.from_environ({"NOTIFY_SOCKET": "/run/nobody", **environ}, pid=4711)
    assert notifier.watchdog_interval_s is None
    async with asyncio.timeout(5):
        await notifier.watch()


def test_a_watchdog_that_names_us_is_fed() -> None:
    environ = {"NOTIFY_SOCKET": "/run/nobody", "WATCHDOG_USEC": "20000000", "WATCHDOG_PID": "4711"}
    assert Notifier.from_environ(environ, pid=4711).watchdog_interval_s == 10


@pytest.mark.parametrize("address", ["", "/nowhere/notify", "vsock:2:1234", "@" + "x" * 300])
def test_a_service_manager_that_is_away_stops_nobody(address: str) -> None:
    notifier = Notifier.from_environ({"NOTIFY_SOCKET": address})
    notifier.ready()
    notifier.status("live")
    notifier.alive()


def test_a_service_manager_that_does_not_listen_does_not_block_us(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(str(tmp_path / "notify"))
        notifier = Notifier.from_environ({"NOTIFY_SOCKET": str(tmp_path / "notify")})
        for _ in range(2_000):
            notifier.alive()
