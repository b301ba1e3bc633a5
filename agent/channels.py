"""Which listeners are wanted, which run, and how the one becomes the other without a sender noticing.

Secret: the order of a change: bind what is new, start it, swap, and only then stop what is old. A port that moves
from one channel to another keeps its listening socket; an address that changes on one port gives the old one up
first, and takes it back if the new one cannot be had.
Promise: `apply` either reaches the wanted state or raises ConfigError with every problem and changes nothing;
connections of a channel whose address stays are not broken. A listener that could not start, or died, is tried again
for ever and is a finding.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from agent.channel import Channel, Place, new_sightings, place_of
from agent.errors import AgentError, ConfigError, Finding
from agent.flow.dispatcher import Dispatcher
from agent.flow.intake import Intake
from agent.flow.lanes import Lane
from agent.flow.replies import Replies
from agent.metrics import ChannelMetrics
from agent.net.binding import Unbindable, bind
from agent.net.connection import Connection
from agent.net.dialer import Dialer
from agent.net.inlet import Inlet, Room
from agent.net.listener import Listener
from agent.net.tls import Identity
from agent.sightings import Sightings
from agent.spec import AckMode, ChannelSpec, TlsSpec
from agent.store.row import Row

log = structlog.get_logger("main")

RETRY_S: Final = 5.0
SWEEP_S: Final = 0.25  # a verdict within two seconds: one of silence, and two looks
_DRAIN_S: Final = 1.0  # what a channel that is switched off may take to answer what it has


@dataclass(slots=True)
class _Change:
    """What one `apply` has prepared: new doors, what could not be opened, and who gave a port up for it."""

    fresh: dict[Place, Inlet] = field(default_factory=dict)
    identities: dict[Place, Identity | None] = field(default_factory=dict)
    problems: dict[str, Finding] = field(default_factory=dict)
    taken: list[str] = field(default_factory=list)  # the channels whose port somebody has, perhaps we ourselves
    yielded: list[Channel] = field(default_factory=list)


@dataclass(slots=True)
class Channels:
    """All channels of this process. `make_intake` judges a lane's frames; `crowded`: whether the disk lags behind;
    `room`: the memory for messages that have begun and not ended."""

    dispatcher: Dispatcher
    replies: Replies
    make_intake: Callable[[Lane], Intake]
    crowded: Callable[[], bool]
    unanswered: int
    room: Room
    retry_s: float = RETRY_S
    sweep_s: float = SWEEP_S
    by_name: dict[str, Channel] = field(default_factory=dict)
    metrics: dict[str, ChannelMetrics] = field(default_factory=dict)
    _sightings: dict[str, Sightings] = field(default_factory=dict)
    _answering: dict[str, Intake] = field(default_factory=dict)  # the channels that answer at commit
    _identities: dict[tuple[TlsSpec, bool], Identity] = field(default_factory=dict)
    _dialing: asyncio.Queue[Dialer] = field(default_factory=asyncio.Queue)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def apply(self, wanted: Iterable[ChannelSpec], *, partial: bool = False) -> None:
        """Run exactly `wanted`. `partial`: start what can start and keep trying the rest, as at the process's start."""
        async with self._turn:
            specs = {spec.name: spec for spec in wanted}
            bound = {place_of(channel.spec): channel for channel in self.by_name.values() if channel.inlet is not None}
            change = await self._prepare(specs, bound, partial=partial)
            if change.problems and not partial:
                await self._withdraw(change)
                raise ConfigError(list(change.problems.values()))
            leaving = self._swap(specs, bound, change)
            for inlet in change.fresh.values():
                await self._start(inlet)
        async with asyncio.TaskGroup() as goodbyes:  # not in our turn: a stop that comes now has its own deadline
            for inlet, connections in leaving:
                goodbyes.create_task(inlet.dismiss(connections, drain_s=_DRAIN_S), name="channels:goodbye")

    # ---- before anything is changed

    async def _prepare(self, specs: dict[str, ChannelSpec], bound: dict[Place, Channel], *, partial: bool) -> _Change:
        """A door for every place that has none yet."""
        change = _Change()
        for spec in specs.values():
            if self._identify(spec, change) and place_of(spec) not in bound:
                await self._open(spec, change)
        wanted = {place_of(spec) for spec in specs.values()}
        for name in list(change.taken):
            in_the_way = [
                channel
                for place, channel in bound.items()
                if place not in wanted and not channel.spec.dials and channel.spec.port == specs[name].port
            ]
            if in_the_way and (partial or len(change.problems) == 1):
                for channel in in_the_way:
                    assert channel.inlet is not None
                    channel.inlet.stop_accepting()
                change.yielded += in_the_way
                del change.problems[name]
                await self._open(specs[name], change)
        return change

    def _identify(self, spec: ChannelSpec, change: _Change) -> bool:
        """Have the certificate that a channel shows; False if there is none that can be used."""
        try:
            change.identities[place_of(spec)] = self._identity(spec)
        except ConfigError as error:
            finding = error.findings[0]
            text = f"{finding.where}: {finding.text}" if finding.where else finding.text
            change.problems[spec.name] = replace(finding, text=text, where=spec.name)
            return False
        return True

    def _identity(self, spec: ChannelSpec) -> Identity | None:
        """Raises ConfigError."""
        if spec.line.tls is None:
            return None
        key = spec.line.tls, spec.dials
        if key not in self._identities:
            self._identities[key] = Identity.load(spec.line.tls, dials=spec.dials)
        return self._identities[key]

    async def _open(self, spec: ChannelSpec, change: _Change) -> None:
        try:
            change.fresh[place_of(spec)] = await self._inlet(spec, change.identities[place_of(spec)])
        except Unbindable as error:
            change.problems[spec.name] = error.findings[0]
            if error.taken:
                change.taken.append(spec.name)

    async def _inlet(self, spec: ChannelSpec, identity: Identity | None) -> Inlet:
        """Raises Unbindable."""
        line, room, unanswered = spec.line, self.room, self.unanswered
        if spec.dials:
            return Dialer(spec.host, spec.port, line=line, identity=identity, room=room, unanswered=unanswered)
        sockets = await bind(spec.host, spec.port, spec.name)
        return Listener(sockets, line=line, identity=identity, room=room, unanswered=unanswered)

    async def _start(self, inlet: Inlet) -> None:
        if isinstance(inlet, Dialer):
            self._dialing.put_nowait(inlet)
        elif isinstance(inlet, Listener):
            await inlet.start()

    async def _withdraw(self, change: _Change) -> None:
        """As if nothing had been tried."""
        for inlet in change.fresh.values():
            await inlet.close()
        for channel in change.yielded:
            await self._listen_again(channel)

    # ---- the change itself

    def _swap(
        self, specs: dict[str, ChannelSpec], bound: dict[Place, Channel], change: _Change
    ) -> list[tuple[Inlet, list[Connection]]]:
        """From the old channels to the new ones, in one turn of the loop; which connections have to leave."""
        old = self.by_name
        self.by_name = {}
        leaving: list[tuple[Inlet, list[Connection]]] = []
        for name, spec in specs.items():
            metrics = self.metrics.setdefault(name, ChannelMetrics())
            lane = self.dispatcher.configure(name, spec, metrics)
            before = old.get(name)
            intake = before.intake if before is not None else self.make_intake(lane)
            sightings = self._sightings.setdefault(name, new_sightings(name))
            place = place_of(spec)
            holder = bound.get(place)
            inlet = holder.inlet if holder is not None else change.fresh.get(place)
            channel = Channel(spec, lane, intake, sightings, inlet, change.problems.get(name))
            if inlet is not None:
                if holder is not None and holder.spec.name != name:
                    leaving.append((inlet, list(inlet.connections)))
                inlet.line = spec.line
                if place in change.identities:
                    inlet.identity = change.identities[place]
                inlet.events = channel.events(self.replies, self.crowded)
            self.by_name[name] = channel
            self._tell(before, channel)
        self._answering = {
            name: channel.intake
            for name, channel in self.by_name.items()
            if channel.spec.ack_mode is not AckMode.ORIGINAL or channel.spec.mllp_release == 2
        }
        for name in old.keys() - specs.keys():
            self.dispatcher.configure(name, None, self.metrics[name])
            log.info("channel.stopped", channel=name)
        kept = {id(channel.inlet) for channel in self.by_name.values()}
        for channel in old.values():
            if channel.inlet is not None and id(channel.inlet) not in kept:
                channel.inlet.stop_accepting()
                leaving.append((channel.inlet, list(channel.inlet.connections)))
        used = {(spec.line.tls, spec.dials) for spec in specs.values()}
        self._identities = {key: identity for key, identity in self._identities.items() if key in used}
        return leaving

    def _tell(self, before: Channel | None, now: Channel) -> None:
        name, address = now.spec.name, now.spec.address
        if now.finding is not None:
            log.error("channel.failed", channel=name, address=address, reason=str(now.finding))
        elif before is None or before.inlet is not now.inlet:
            self._tell_open(now)
        elif before.spec != now.spec:
            log.info("channel.changed", channel=name, address=address)

    def _tell_open(self, channel: Channel) -> None:
        spec, inlet = channel.spec, channel.inlet
        if spec.dials:
            log.info("channel.dialing", channel=spec.name, address=spec.address)
        elif inlet is not None:
            log.info("channel.listening", channel=spec.name, address=spec.address, port=inlet.port)

    # ---- what the spool and the deadline say about rows of many channels

    def durable(self, rows: list[Row]) -> None:
        """Rows are on the platter: the channels whose mode answers at commit do so."""
        if self._answering:
            for name, group in _by_channel(rows).items():
                if (intake := self._answering.get(name)) is not None:
                    intake.durable(group)
        self.relieve()

    def refused(self, rows: list[Row], error: AgentError) -> None:
        """Rows could not be stored: their channels tell the senders."""
        for name, group in _by_channel(rows).items():
            channel = self.by_name.get(name)
            if channel is not None:
                channel.intake.refused(group, error)
        self.relieve()

    def relieve(self) -> None:
        if not self.crowded():
            for channel in self.by_name.values():
                if channel.inlet is not None:
                    channel.inlet.relieve()

    # ---- staying up

    async def run(self) -> None:
        """Keep every door as it should be: bring back listeners, dial, look after what lingers, renew certificates."""
        async with asyncio.TaskGroup() as doors:
            doors.create_task(self._revive(), name="channels:revive")
            doors.create_task(self._sweep(), name="channels:sweep")
            while True:
                dialer = await self._dialing.get()
                doors.create_task(dialer.run(), name="channels:dial")

    async def _revive(self) -> None:
        while True:
            await asyncio.sleep(self.retry_s)
            async with self._turn:
                for channel in self.by_name.values():
                    if channel.inlet is None or (isinstance(channel.inlet, Listener) and not channel.inlet.listening):
                        await self._listen_again(channel)
                    elif channel.finding is not None:
                        self._identify_again(channel)
                for identity in self._identities.values():
                    if identity.refresh():
                        log.info("tls.reloaded", tls=identity.name)

    def _identify_again(self, channel: Channel) -> None:
        """Its door is open, by another certificate than it should show."""
        assert channel.inlet is not None
        try:
            channel.inlet.identity = self._identity(channel.spec)
        except ConfigError as error:
            channel.finding = error.findings[0]
        else:
            channel.finding = None

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(self.sweep_s)
            now = time.monotonic()
            for channel in self.by_name.values():
                if channel.inlet is not None:
                    channel.inlet.sweep(now)

    async def _listen_again(self, channel: Channel) -> None:
        spec, inlet = channel.spec, channel.inlet
        if inlet is not None:
            inlet.stop_accepting()
        try:
            identity = self._identity(spec)
            if isinstance(inlet, Listener):
                await inlet.restart(await bind(spec.host, spec.port, spec.name))
            else:
                inlet = await self._inlet(spec, identity)
                inlet.events = channel.events(self.replies, self.crowded)
                channel.inlet = inlet
                await self._start(inlet)
        except ConfigError as error:
            channel.finding = error.findings[0]
            return
        channel.finding = None
        self._tell_open(channel)

    async def close(self, *, drain_s: float) -> None:
        """Stop accepting everywhere at once, then let the last frames be answered."""
        async with self._turn:
            inlets = [channel.inlet for channel in self.by_name.values() if channel.inlet is not None]
            for inlet in inlets:
                inlet.stop_accepting()
            async with asyncio.TaskGroup() as goodbyes:
                for inlet in inlets:
                    goodbyes.create_task(inlet.close(drain_s=drain_s), name="channels:goodbye")

    def cut(self) -> None:
        """Let go of every socket at once, for a process that ends without a goodbye."""
        for channel in self.by_name.values():
            if channel.inlet is not None:
                channel.inlet.cut()

    def look(self, port: int | None = None) -> list[dict[str, Any]]:
        """What the connections of the channels on `port` have done; None: of all channels."""
        looks = [channel.look() for channel in self.by_name.values()]
        return [look for look in looks if port is None or look["port"] == port]

    def findings(self) -> list[Finding]:
        """Why channels do not listen, what was odd at their doors, and which certificates end soon."""
        found = [finding for channel in self.by_name.values() for finding in channel.findings()]
        return found + [
            finding for identity in self._identities.values() for finding in identity.findings(datetime.now(UTC))
        ]


def _by_channel(rows: list[Row]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.channel, []).append(row)
    return groups
