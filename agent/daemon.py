"""The composition root: the only place that knows everybody.

Secret: which part is wired to which, and the order of start and stop.
Promise: listeners are open from the last good configuration before the server is asked; a stop answers what was taken,
within DRAIN_S; expected trouble never ends the process, an unexpected exception always does.

Start: lock → spool → control door → last good configuration → listeners → READY → server. Stop, in reverse: no new
connections, the last frames answered, the link closed, everything settled on disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import structlog

from agent import __version__, lock
from agent.commands import Commands, Owed, table
from agent.commands.serve import Request
from agent.configuration import Configuration
from agent.diagnostics import Checkup, Host
from agent.diagnostics import table as checks
from agent.errors import AgentError, ConfigError, Finding, LinkError, Severity
from agent.flow.uploads import NotWanted
from agent.housekeeping import Housekeeping
from agent.logbook import ContentLog, Logbook, Repeated
from agent.net.control import open_control
from agent.net.credentials import Credentials
from agent.net.health import Health
from agent.net.proxy import dial, proxy_for
from agent.net.rest import Rest, ServerRefused
from agent.net.tls import client_context
from agent.net.uplink import LostLink, Uplink
from agent.notify import Notifier
from agent.protocol.envelope import AgentErrorFrame, FromServer, Push, TransmitResponse, sayable
from agent.pushing import Pushing
from agent.receiving import Receiving
from agent.settings import Settings
from agent.status import prometheus, wire_stats
from agent.steering import Steering
from agent.store.row import Trouble
from agent.store.salvage import SetAside
from agent.store.spool import Spool, SpoolEvents, Timing
from agent.store.sqlite import SpoolTrouble
from agent.vitals import Vitals

log = structlog.get_logger("main")

DRAIN_S: Final = 8.0  # of the 10 s that a supervisor grants, one is kept for the disk
CLOSE_SPOOL_S: Final = 1.5  # for a disk that answers; one that does not is left, and the next start recovers
TOO_LARGE: Final = 1009  # RFC 6455 §7.4.1
WHO_ASKS: Final = (401, 403, 404)  # about us and not about what we bring: a person will mend it, and it is tried again
OFF_TEXT: Final = "Agent.status is currently set to off"


class Daemon:
    """One agent on this host. `reread` reads the local settings again, for SIGHUP."""

    def __init__(
        self,
        settings: Settings,
        book: Logbook,
        notifier: Notifier,
        environ: Mapping[str, str],
        reread: Callable[[], Settings],
    ) -> None:
        self.settings = settings
        self._book = book
        self._notifier = notifier
        self._reread = reread
        self._stop = asyncio.Event()
        self._health_finding: Finding | None = None
        self._restart_needed: Finding | None = None
        self._settings_refused: tuple[Finding, ...] = ()  # why the newest local settings are not in force
        self._crash: BaseException | None = None
        self._told_aside: SetAside | None = None
        self._repeated = Repeated()
        server = settings.server
        tls = client_context(server.ca_file)
        proxy = proxy_for(server.base_url, server.proxy.reveal() if server.proxy is not None else None, environ)
        agent_name = f"onprem-agent/{__version__}"
        self.credentials = Credentials(
            server.base_url,
            server.client_id,
            lambda: self.settings.server.client_secret.reveal(),
            proxy=proxy,
            ssl=tls,
            user_agent=agent_name,
        )
        self._rest = Rest(server.base_url, credentials=self.credentials, proxy=proxy, ssl=tls, user_agent=agent_name)
        self.configuration = Configuration(
            server.agent_id, settings.paths.last_good, get=self._rest.get, defaults=lambda: self.settings.channels
        )
        self.uplink = Uplink(
            server.base_url,
            agent_id=server.agent_id,
            version=__version__,
            token=self.credentials.token,
            on_live=self._live,
            on_lost=self._lost,
            on_frames=self._frames,
            on_writable=lambda: self.dispatcher.pump(),
            on_token_refused=self.credentials.refused,
            dial=lambda host, port: dial(host, port, proxy),
            ssl=tls,
        )
        content_log = ContentLog() if settings.log.channel is not None else None
        self.receiving = Receiving(
            settings=lambda: self.settings,
            token=lambda: self.credentials.current or "",
            upload=self._upload,
            content_log=content_log,
            now_ms=_now_ms,
        )
        self.dispatcher = self.receiving.dispatcher
        self.channels = self.receiving.channels
        self.steering = Steering(self.configuration, self.channels, on_adopted=lambda: self.pushing.reconfigure())
        self._owed = Owed(
            live=lambda: self.uplink.live,
            send=self.uplink.send,
            max_frame_bytes=lambda: self.settings.server.max_frame_bytes,
            now=time.monotonic,
        )
        self.pushing = Pushing(
            settings=lambda: self.settings,
            agent_settings=lambda: self.steering.agent_settings,
            allowed=lambda: not self.steering.off,
            answer=self._owed.answer,
            content_log=content_log.note if content_log is not None else None,
            now_ms=_now_ms,
            lines=self.receiving.serving,
        )
        self.spool: Spool
        self.housekeeping: Housekeeping
        self.vitals: Vitals
        self.commands: Commands
        self._checkup = Checkup(lambda: Host.at_work(self.settings, environ, self.vitals.report()), checks())

    # ---- life

    async def run(self) -> None:
        """Until `stop`. Raises ConfigError or StoreError when it cannot start, and whatever nobody expected."""
        settings = self.settings
        settings.paths.prepare()
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._unexpected)
        events = SpoolEvents(
            on_durable=self.receiving.durable,
            on_claimed=self.dispatcher.claimed,
            on_refused=self.receiving.refused,
            on_unclaimed=self.dispatcher.unclaimed,
            on_health=self._disk,
        )
        with lock.held(settings.paths.lock):
            async with contextlib.AsyncExitStack() as parts:
                self.spool = await parts.enter_async_context(
                    Spool.open(
                        settings.paths.spool,
                        self.pushing.outbox.ahead_of(events),
                        min_free_bytes=settings.spool.min_free_mb << 20,
                        timing=Timing(close_within_s=CLOSE_SPOOL_S),
                    )
                )
                self.housekeeping = Housekeeping(
                    self.spool, local=lambda: self.settings.spool, remote=lambda: self.steering.agent_settings
                )
                self._tell_set_aside()
                self.receiving.connect(self.spool, self.uplink)
                self.pushing.connect(self.spool)
                self.vitals = self._make_vitals()
                self.commands = Commands(
                    table(
                        report=self.vitals.report,
                        reload_config=self.steering.reload,
                        propose=self.steering.propose,
                        look=self.channels.look,
                        carry=self.pushing.pusher.take,
                        probe=self.pushing.probe,
                        read_log=lambda limit, before: self._book.read_page(
                            limit, before, max_bytes=self.settings.server.max_frame_bytes * 9 // 10
                        ),
                    ),
                    send=self._owed.answer,
                )
                await parts.enter_async_context(self._rest)
                await parts.enter_async_context(open_control(settings.paths.control, self.commands.ask))
                parts.push_async_callback(self.receiving.close)
                await self._serve()

    async def _serve(self) -> None:
        settings = self.settings
        listen = settings.diagnostics.listen
        health = Health(
            (listen.host, listen.port) if listen is not None else None,
            unready=self.vitals.unready,
            metrics=lambda: prometheus(self.vitals.report()),
            report=self._note_health,
        )
        async with asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(work, name=name)
                for name, work in (
                    ("spool", self.spool.run()),
                    ("receiving", self.receiving.run()),
                    ("pushing", self.pushing.run()),
                    ("commands", self.commands.run()),
                    ("health", health.run()),
                    ("retention", self.housekeeping.sweep()),
                    ("notify", self._notifier.watch()),
                    ("checkup", self._checkup.run()),
                )
            ]
            await self.steering.recall()
            self.receiving.park_the_rest()
            self.pushing.reconfigure()
            gc.collect()
            gc.freeze()  # what is here now stays: the collector need not look at it again
            gc.set_threshold(50_000, 20, 100)
            self._notifier.ready(f"{len(self.channels.by_name)} channels")
            log.info("daemon.started", version=__version__, pid=os.getpid(), channels=len(self.channels.by_name))
            running += [
                tasks.create_task(work, name=name)
                for name, work in (
                    ("credentials", self.credentials.run()),
                    ("steering", self.steering.follow()),
                    ("uplink", self.uplink.run()),
                    ("stats", self.housekeeping.log_stats(lambda: wire_stats(self.vitals.report()))),
                )
            ]
            await self._stop.wait()
            if self._crash is not None:
                raise self._crash
            await self._drain()
            for task in running:
                task.cancel()
        log.info("daemon.stopped", pid=os.getpid())

    def stop(self) -> None:
        """Begin to end."""
        self._stop.set()

    async def _drain(self) -> None:
        self._notifier.stopping("answering the last messages")
        log.info("daemon.stopping", in_flight=self.dispatcher.in_flight)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                async with asyncio.TaskGroup() as ends:
                    ends.create_task(self.receiving.drain(DRAIN_S - 1), name="drain:receiving")
                    ends.create_task(self.pushing.drain(), name="drain:remotes")

    def _unexpected(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A callback raised what nobody expected: the process ends, its supervisor starts it again from the disk."""
        error = context.get("exception")
        if isinstance(error, OSError):  # asyncio's own: a peer that went away, or no descriptor to accept with
            self._repeated.warning("loop.trouble", str(context.get("message")), error.strerror or type(error).__name__)
            return
        self._crash = error if isinstance(error, BaseException) else RuntimeError(str(context.get("message")))
        self._stop.set()

    # ---- wiring: the disk

    def _disk(self, trouble: SpoolTrouble | None) -> None:
        self._tell_set_aside()
        if trouble is None:
            log.info("spool.healthy")
        elif trouble.trouble is Trouble.LOW:
            log.warning("spool.low", reason=str(trouble), remedy=trouble.hint)
            self.housekeeping.hurry()
        else:
            log.error("spool.troubled", trouble=trouble.trouble.value, reason=str(trouble), remedy=trouble.hint)
            return
        self.receiving.mended(trouble)
        self.pushing.outbox.pump()

    def _tell_set_aside(self) -> None:
        aside = self.spool.set_aside
        if aside is not None and aside is not self._told_aside:
            self._told_aside = aside
            log.error("spool.set-aside", path=str(aside.path), rescued=aside.rescued, complete=aside.complete)

    # ---- wiring: the server

    def _live(self) -> None:
        self.steering.live()
        self._owed.live()
        self.dispatcher.pump()

    def _lost(self, lost: LostLink) -> None:
        if lost.was_live:
            self.steering.lost()
            self.dispatcher.link_lost(too_large=lost.code == TOO_LARGE)

    async def _upload(self, path: Path) -> str:
        """A DICOM object to the server, as a Binary."""
        try:
            return await self._rest.upload(path, content_type="application/dicom", filename="dicom.dcm")
        except ServerRefused as refused:
            if refused.status in WHO_ASKS:
                raise LinkError(str(refused), hint=refused.hint) from refused
            raise NotWanted(str(refused), status=refused.status, hint=refused.hint) from refused

    def _frames(self, frames: list[FromServer]) -> None:
        answers: list[TransmitResponse] = []
        for frame in frames:
            if isinstance(frame, TransmitResponse):
                answers.append(frame)
            elif isinstance(frame, AgentErrorFrame):
                log.warning("server.error", reason=sayable(frame.body))
            else:
                self._request(frame)
        if answers:
            self.dispatcher.answered(answers)

    def _request(self, frame: FromServer) -> None:
        if isinstance(frame, Push) and self.steering.off:
            self._owed.answer(AgentErrorFrame(OFF_TEXT, frame.callback))
        elif isinstance(frame, Request):
            self.commands.take(frame)

    # ---- local settings

    async def hang_up(self) -> None:
        """SIGHUP: local settings and the server's configuration, both again."""
        self._notifier.reloading()
        try:
            try:
                self._take_settings(self._reread())
                self._settings_refused = ()
            except ConfigError as error:
                self._settings_refused = error.findings
                for finding in error.findings:
                    log.error("settings.refused", where=finding.where, reason=finding.text, remedy=finding.remedy)
            try:
                await self.steering.reload()
                log.info("configuration.reloaded", channels=len(self.channels.by_name))
            except AgentError as error:
                log.error("configuration.refused", reason=str(error), remedy=error.hint)
        finally:
            self._notifier.ready()

    def _take_settings(self, fresh: Settings) -> None:
        old, self.settings = self.settings, fresh
        self._book.set_levels(
            fresh.log.main.level, fresh.log.channel.level if fresh.log.channel is not None else "NONE"
        )
        self.spool.min_free_bytes = fresh.spool.min_free_mb << 20
        self.pushing.reconfigure()
        needs_restart = [
            name
            for name, before, now in (
                ("server.base_url", old.server.base_url, fresh.server.base_url),
                ("server.client_id", old.server.client_id, fresh.server.client_id),
                ("server.agent_id", old.server.agent_id, fresh.server.agent_id),
                ("server.proxy", old.server.proxy, fresh.server.proxy),
                ("server.ca_file", old.server.ca_file, fresh.server.ca_file),
                ("diagnostics.listen", old.diagnostics, fresh.diagnostics),
                ("limits", old.limits, fresh.limits),
                ("paths", old.paths, fresh.paths),
            )
            if before != now
        ]
        self._restart_needed = None
        if needs_restart:
            text = f"changed settings wait for a restart: {', '.join(needs_restart)}"
            self._restart_needed = Finding("settings.restart", Severity.WARNING, text, "restart the agent's service")
            log.warning("settings.restart-needed", settings=needs_restart)

    # ---- housekeeping

    def _make_vitals(self) -> Vitals:
        return Vitals(
            server_url=self.settings.server.base_url,
            agent_id=self.settings.server.agent_id,
            spool=self.spool,
            dispatcher=self.dispatcher,
            channels=self.channels,
            uplink=self.uplink,
            credentials=self.credentials,
            configuration=self.configuration,
            logbook=self._book,
            clients=self.pushing.statuses,
            more=self._own_findings,
            off=lambda: self.steering.plan.skipped if self.steering.plan is not None else (),
            swept=lambda: self.housekeeping.swept,
            started=time.time(),
        )

    def _own_findings(self) -> list[Finding]:
        found = [f for f in (self._health_finding, self._restart_needed) if f is not None]
        found += [f for f in self.settings.findings if f.severity is not Severity.INFO]
        found += self._settings_refused
        return [
            *found,
            *self.steering.findings(),
            *self.receiving.findings(),
            *self.pushing.findings(),
            *self._checkup.findings,
        ]

    def _note_health(self, finding: Finding | None) -> None:
        self._health_finding = finding


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
