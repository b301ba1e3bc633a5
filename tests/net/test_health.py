from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import aiohttp
import pytest

from agent.errors import Finding, Severity
from agent.net.health import Health


class Daemon:
    """What the port asks: changed by the test, heard by the test."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.reported: asyncio.Queue[Finding | None] = asyncio.Queue()

    def unready(self) -> Sequence[str]:
        return self.reasons

    def metrics(self) -> str:
        return 'agent_channel{name="Gynäkologie"} 1\n'

    def health(self, listen: tuple[str, int] | None) -> Health:
        return Health(listen, self.unready, self.metrics, self.reported.put_nowait, retry_s=0.01)


@pytest.fixture
def daemon() -> Daemon:
    return Daemon()


@asynccontextmanager
async def running(health: Health) -> AsyncIterator[str]:
    """The base URL while `health` serves."""
    assert health.listen is not None
    host = health.listen[0]
    async with asyncio.TaskGroup() as group, asyncio.timeout(10):
        serving = group.create_task(health.run())
        await health.opened.wait()
        yield f"http://[{host}]:{health.port}" if ":" in host else f"http://{host}:{health.port}"
        serving.cancel()


async def get(url: str) -> tuple[int, str, str]:
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status, answer.headers["Content-Type"], await answer.text()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_process_whose_loop_turns_is_healthy(daemon: Daemon, host: str) -> None:
    daemon.reasons = ["the spool is not writable"]
    async with running(daemon.health((host, 0))) as url:
        assert await get(f"{url}/healthz") == (200, "text/plain; charset=utf-8", "ok\n")


async def test_readiness_says_why_not_and_recovers(daemon: Daemon) -> None:
    async with running(daemon.health(("127.0.0.1", 0))) as url:
        assert (await get(f"{url}/readyz"))[::2] == (200, '{"ready": true, "reasons": []}')
        daemon.reasons = ["channel lab does not listen"]
        assert (await get(f"{url}/readyz"))[::2] == (
            503,
            '{"ready": false, "reasons": ["channel lab does not listen"]}',
        )
        daemon.reasons = []
        assert (await get(f"{url}/readyz"))[0] == 200


async def test_metrics_are_told_in_prometheus_own_format(daemon: Daemon) -> None:
    async with running(daemon.health(("127.0.0.1", 0))) as url:
        assert await get(f"{url}/metrics") == (200, "text/plain; version=0.0.4; charset=utf-8", daemon.metrics())


@pytest.mark.parametrize("path", ["/", "/status", "/metrics/x", "/healthz/"])
async def test_there_is_nothing_else(daemon: Daemon, path: str) -> None:
    async with running(daemon.health(("127.0.0.1", 0))) as url:
        assert (await get(url + path))[0] == 404


async def test_a_port_that_is_taken_is_reported_once_and_taken_over_when_free(daemon: Daemon) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        health = daemon.health(("127.0.0.1", port))
        async with asyncio.TaskGroup() as group, asyncio.timeout(10):
            serving = group.create_task(health.run())
            found = await daemon.reported.get()
            assert found is not None
            assert (found.code, found.severity) == ("diagnostics.port-taken", Severity.WARNING)
            assert f"127.0.0.1:{port}" in found.text
            with pytest.raises(TimeoutError):  # many a retry later
                async with asyncio.timeout(0.1):
                    await daemon.reported.get()
            other.close()
            assert await daemon.reported.get() is None  # one report, then the good news
            assert (await get(f"http://127.0.0.1:{port}/healthz"))[0] == 200
            serving.cancel()


async def test_an_address_of_another_host_is_a_finding_too(daemon: Daemon) -> None:
    async with asyncio.TaskGroup() as group, asyncio.timeout(10):
        serving = group.create_task(daemon.health(("192.0.2.1", 8640)).run())  # TEST-NET-1, RFC 5737
        found = await daemon.reported.get()
        serving.cancel()
    assert found is not None
    assert found.code == "diagnostics.not-opened"


async def test_off_is_off(daemon: Daemon) -> None:
    async with asyncio.timeout(10):
        await daemon.health(None).run()
    assert daemon.reported.empty()


async def test_a_client_that_stays_does_not_hold_up_the_end(daemon: Daemon) -> None:
    async with running(daemon.health(("127.0.0.1", 0))) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rsplit(":", 1)[1]))
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"ok\n")
    async with asyncio.timeout(5):
        assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
