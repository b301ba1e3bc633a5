"""One look at everything: from the parts of the running daemon to a StatusReport.

Secret: which part knows what.
Promise: looking costs milliseconds and changes nothing; every trouble that some part knows of is a finding with a
remedy.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import psutil

from agent import __version__
from agent.channel import Channel
from agent.channels import Channels
from agent.configuration import Configuration
from agent.errors import Finding, Severity
from agent.flow.dispatcher import Dispatcher
from agent.flow.lanes import Lane
from agent.logbook import Logbook
from agent.metrics import UNMEASURED, ChannelMetrics
from agent.net.credentials import Credentials
from agent.net.uplink import Uplink
from agent.status import ChannelState, ChannelStatus, ClientStatus, ServerStatus, SpoolStatus, StatusReport, utc
from agent.store.retention import Swept
from agent.store.row import State
from agent.store.spool import Spool
from agent.store.sqlite import SpoolTrouble


@dataclass(slots=True)
class Vitals:
    """`clients`: the remotes that are pushed to; `more` gives findings that no part keeps itself; `off`: the channels
    that are switched off on the server."""

    server_url: str
    agent_id: str
    spool: Spool
    dispatcher: Dispatcher
    channels: Channels
    uplink: Uplink
    credentials: Credentials
    configuration: Configuration
    logbook: Logbook
    clients: Callable[[], Iterable[ClientStatus]]
    more: Callable[[], Iterable[Finding]]
    off: Callable[[], Iterable[str]]
    swept: Callable[[], Swept | None]
    started: float

    def report(self) -> StatusReport:
        return StatusReport(
            version=__version__,
            running=True,
            uptime_seconds=round(time.time() - self.started, 1),
            server=self._server(),
            channels=tuple(self._channels()),
            clients=tuple(self.clients()),
            spool=self._spool(),
            findings=tuple(self.findings()),
            pid=os.getpid(),
            memory_bytes=psutil.Process().memory_info().rss,
        )

    def unready(self) -> list[str]:
        """Why no message can be taken, by the channels that should listen and the disk; empty when all is well."""
        reasons = [
            f"channel {c.spec.name} does not listen"
            for c in self.channels.by_name.values()
            if not c.listening and c.spec.listens
        ]
        if self.spool.trouble is not None:
            reasons.append(str(self.spool.trouble))
        return reasons

    def _server(self) -> ServerStatus:
        link = self.uplink
        return ServerStatus(
            url=self.server_url,
            live=link.live,
            ping_ms=round(link.ping_ms, 2),
            last_heartbeat=utc(link.last_heartbeat),
            reconnects=link.reconnects,
            last_error=link.last_error,
            outstanding_heartbeats=link.outstanding_heartbeats,
            queued_frames=self.dispatcher.in_flight,
            agent_id=self.agent_id,
        )

    def _channels(self) -> Iterable[ChannelStatus]:
        for name, lane in sorted(self.dispatcher.lanes.items()):
            channel = self.channels.by_name.get(name)
            queued = self.spool.tally.open_of[name]
            if channel is None and not queued:
                continue  # it was taken away, and nothing of it is left
            yield ChannelStatus.of(
                lane.metrics,
                name=name,
                address=channel.spec.address if channel is not None else "",
                type=channel.spec.kind if channel is not None else "mllp",
                state=_state(channel),
                queued=queued,
                oldest_queued_seconds=self._oldest_s(lane) if queued else None,
                last_error=channel.finding.text if channel is not None and channel.finding is not None else "",
                odd=channel.sightings.counts if channel is not None else {},
            )
        for name in self.off():
            if name not in self.dispatcher.lanes or not self.spool.tally.open_of[name]:
                yield ChannelStatus.of(
                    ChannelMetrics(),
                    name=name,
                    address="",
                    state=ChannelState.OFF,
                    queued=0,
                    oldest_queued_seconds=None,
                )

    def _oldest_s(self, lane: Lane) -> float | None:
        """Age of the oldest undelivered message: in memory, or in the file where the lane has none of it in memory."""
        oldest = min((rows[0].received_ms for rows in lane.keys.values()), default=None)
        if oldest is None:
            try:
                oldest = next(
                    (row.received_ms for row in self.spool.shelf.queued(lane.name, 0, limit=1, limit_bytes=1)), None
                )
            except SpoolTrouble:
                return None
        return None if oldest is None else max(0.0, round(time.time() - oldest / 1000, 1))

    def _spool(self) -> SpoolStatus:
        spool = self.spool
        try:
            free = shutil.disk_usage(spool.path.parent).free
        except OSError:
            free = UNMEASURED
        swept = self.swept()
        return SpoolStatus(
            path=str(spool.path),
            size_bytes=spool.size_bytes,
            disk_free_bytes=free,
            counts_by_state={state.name.lower(): spool.tally.by_state[state] for state in State},
            writable=spool.trouble is None,
            last_sweep_at=utc(swept.at) if swept is not None else None,
            last_error=str(spool.trouble) if spool.trouble is not None else "",
        )

    def findings(self) -> list[Finding]:
        """Everything a person should know now, each thing once."""
        return list({(finding.code, finding.where, finding.text): finding for finding in self._findings()}.values())

    def _findings(self) -> Iterable[Finding]:
        trouble = self.spool.trouble
        if trouble is not None:
            yield Finding(f"spool.{trouble.trouble}", Severity.ERROR, str(trouble), trouble.hint, str(self.spool.path))
        aside = self.spool.set_aside
        if aside is not None:
            rest = "" if aside.complete else "; some of it could not be read"
            yield Finding(
                "spool.set-aside",
                Severity.ERROR,
                f"the spool was damaged and is set aside; {aside.rescued} undelivered messages were carried over{rest}",
                f"check the disk; keep {aside.path} until it is clear that nothing in it is missed",
                str(aside.path),
            )
        yield from self.channels.findings()
        if self.dispatcher.too_large is not None:
            yield self.dispatcher.too_large
        for candidate in (self.credentials.finding, self.configuration.finding, self.logbook.trouble()):
            if candidate is not None:
                yield candidate
        if not self.uplink.live and self.credentials.finding is None:
            yield Finding(
                "server.away",
                Severity.WARNING,
                f"no connection to the server: {self.uplink.last_error or 'connecting'}",
                "messages are stored and delivered when it is back; check the server, the network and the proxy",
                self.server_url,
            )
        yield from self._unconfigured()
        yield from self.more()

    def _unconfigured(self) -> Iterable[Finding]:
        for name, lane in self.dispatcher.lanes.items():
            stored = self.spool.tally.open_of[name]
            if lane.spec is None and stored:
                yield Finding(
                    "channel.not-configured",
                    Severity.WARNING,
                    f"{stored} stored messages wait for a channel that the server does not configure any more",
                    "add the channel again, under the same name, to have them delivered",
                    name,
                )
        held = self.spool.tally.by_state[State.HELD] + self.spool.tally.by_state[State.FAILED]
        if held:
            yield Finding(
                "spool.held",
                Severity.WARNING,
                f"{held} messages were not delivered and wait for a person",
                "agent messages list --state problem shows them, each with its reason",
                str(self.spool.path),
            )


def _state(channel: Channel | None) -> ChannelState:
    if channel is None:
        return ChannelState.OFF
    if channel.inlet is not None and not channel.spec.listens:
        return ChannelState.CONNECTED if channel.listening else ChannelState.CONNECTING
    return ChannelState.LISTENING if channel.listening else ChannelState.FAILED
