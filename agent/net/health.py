"""Answer machines that ask over HTTP how the daemon is: a load balancer, a watchdog, Prometheus.

Secret: the paths, the HTTP library, and what happens when the port is taken.
Promise: `/healthz` answers as long as the event loop turns; a port that is taken never keeps the daemon from
starting: it is reported once, tried again quietly, and reported gone when it worked.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from aiohttp import web

from agent.errors import Finding, Severity

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
CLOSE_WITHIN_S = 1.0
IDLE_S = 15.0


@dataclass(slots=True)
class Health:
    """The diagnostics port. `run` belongs in the daemon's TaskGroup.

    `listen` is (host, port), None for off. `unready` gives the reasons why the agent is not ready, empty when it is;
    `metrics` the Prometheus page; `report` hears of trouble with the port (None: there is none any more).
    """

    listen: tuple[str, int] | None
    unready: Callable[[], Sequence[str]]
    metrics: Callable[[], str]
    report: Callable[[Finding | None], None]
    retry_s: float = 10.0
    port: int | None = None  # where it listens now, also if port 0 was asked for
    opened: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Serve until cancelled; returns at once when off."""
        if self.listen is None:
            return
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=CLOSE_WITHIN_S, keepalive_timeout=IDLE_S)
        await runner.setup()
        try:
            await self._serve(runner, *self.listen)
        finally:
            self.port = None
            self.opened.clear()
            await runner.cleanup()

    async def _serve(self, runner: web.AppRunner, host: str, port: int) -> None:
        assert runner.server is not None
        loop = asyncio.get_running_loop()
        trouble: Finding | None = None
        while True:
            try:
                # not aiohttp's own site: the runner would keep every one that failed
                server = await loop.create_server(runner.server, host, port)
                break
            except OSError as failed:
                found = _not_opened(host, port, failed)
                if found != trouble:
                    self.report(found)
                trouble = found
                await asyncio.sleep(self.retry_s)
        try:
            self.port = server.sockets[0].getsockname()[1]
            self.opened.set()
            if trouble is not None:
                self.report(None)
            await asyncio.get_running_loop().create_future()
        finally:
            server.close()

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        reasons = list(self.unready())
        return web.json_response({"ready": not reasons, "reasons": reasons}, status=503 if reasons else 200)

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=self.metrics().encode(), headers={"Content-Type": METRICS_TYPE})


def _not_opened(host: str, port: int, failed: OSError) -> Finding:
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if failed.errno == errno.EADDRINUSE:
        code, text = "diagnostics.port-taken", f"health and metrics are off: another program listens on {where}"
    else:
        code, text = (
            "diagnostics.not-opened",
            f"health and metrics are off: {where} cannot be opened ({failed.strerror})",
        )
    remedy = "stop the other program, or set diagnostics.listen (AGENT_DIAGNOSTICS_LISTEN) to another address or to off"
    return Finding(code, Severity.WARNING, text, remedy, "diagnostics.listen")
