"""Which channels are wanted, which run, and how the one becomes the other without a sender noticing.

Secret: the order of a change: look at everything that could be in the way, open what is new, swap, start it, and only
then end what is old. A port that moves from one channel to another keeps its listening socket where both speak the
same; where they do not, and where an address on one port changes, all the old ones give up their ports first, and take
them back if one of the new ones cannot be had.
Promise: `apply` either reaches the wanted state or raises ConfigError with every problem and changes nothing;
connections of a channel whose place stays are not broken. A channel that could not start, or whose listener died, is
tried again for ever, less and less often, and is a finding.

Power loss: nothing here is on the disk; the next start reads the last good configuration.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from agent.backoff import Backoff
from agent.changes import Action, Change, Running
from agent.channel import Channel, Place, new_sightings, place_of
from agent.doorkeeper import Doorkeeper, Identities
from agent.errors import AgentError, ConfigError, Finding, Severity
from agent.flow.dispatcher import Dispatcher
from agent.flow.lanes import Lane
from agent.flow.reception import Reception
from agent.flow.replies import Replies
from agent.inlets import Openings
from agent.metrics import ChannelMetrics
from agent.net.inlet import Inlet
from agent.outlook import Outlook, foresee
from agent.sightings import Sightings
from agent.spec import ChannelSpec
from agent.store.row import Row

log = structlog.get_logger("main")

RETRY_S: Final = 1.0  # after a door failed; then twice as long each time
LONGEST_RETRIES: Final = 30  # at most so many times the first wait
RENEW_S: Final = 5.0
SWEEP_S: Final = 0.25  # a verdict within two seconds: one of silence, and two looks


@dataclass(slots=True)
class _Doors:
    """What one `apply` has prepared: new doors, why others could not be opened, and who gave a port up for it."""

    fresh: dict[Place, Inlet] = field(default_factory=dict)
    problems: dict[str, Finding] = field(default_factory=dict)
    yielded: list[Channel] = field(default_factory=list)


@dataclass(slots=True)
class _Outage:
    """A channel that does not listen: when it is tried again, of `time.monotonic`."""

    backoff: Backoff
    due: float


@dataclass(slots=True)
class Channels:
    """All channels of this process. `make_intake` judges what comes by a lane, as a channel of this spec does;
    `crowded`: whether the disk lags behind. `run` has to be at work for channels to dial, to come back, and for
    connections to end that have to leave."""

    dispatcher: Dispatcher
    replies: Replies
    make_intake: Callable[[Lane, ChannelSpec], Reception]
    crowded: Callable[[], bool]
    openings: Openings
    retry_s: float = RETRY_S
    renew_s: float = RENEW_S
    sweep_s: float = SWEEP_S
    by_name: dict[str, Channel] = field(default_factory=dict)
    metrics: dict[str, ChannelMetrics] = field(default_factory=dict)
    _sightings: dict[str, Sightings] = field(default_factory=dict)
    _answering: dict[str, Reception] = field(default_factory=dict)  # the channels that answer at commit
    _outages: dict[str, _Outage] = field(default_factory=dict)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _doorkeeper: Doorkeeper = field(init=False)

    def __post_init__(self) -> None:
        self._doorkeeper = Doorkeeper(self.openings, self.replies, self.crowded)

    async def outlook(self, wanted: Iterable[ChannelSpec]) -> Outlook:
        """What `apply` would do now, and what on this host would keep it from that."""
        async with self._turn:
            return await foresee(self.running, list(wanted), self._doorkeeper.identify({}))

    @property
    def running(self) -> dict[str, Running]:
        """The channels as they are."""
        return {name: _running(channel) for name, channel in self.by_name.items()}

    async def apply(self, wanted: Iterable[ChannelSpec], *, partial: bool = False) -> tuple[Change, ...]:
        """Run exactly `wanted`; what that changed. `partial`: start what can start and keep trying the rest, as at the
        process's start. Raises ConfigError."""
        async with self._turn:
            specs = {spec.name: spec for spec in wanted}
            identities = {**self._doorkeeper.identities}
            outlook = await foresee(self.running, list(specs.values()), self._doorkeeper.identify(identities))
            if outlook.problems and not partial:
                raise ConfigError(outlook.problems)
            bound = {place_of(channel.spec): channel for channel in self.by_name.values() if channel.inlet is not None}
            doors = await self._prepare(specs, bound, outlook, identities, partial=partial)
            self._swap(specs, bound, doors, identities)
            self._tell(outlook.changes)
            for place in doors.fresh:
                await self._doorkeeper.start(next(c for c in self.by_name.values() if place_of(c.spec) == place))
            return outlook.changes

    # ---- before anything is changed

    async def _prepare(
        self,
        specs: Mapping[str, ChannelSpec],
        bound: Mapping[Place, Channel],
        outlook: Outlook,
        identities: Identities,
        *,
        partial: bool,
    ) -> _Doors:
        """A door for every place that has none yet. Raises ConfigError, everything as it was, unless `partial`."""
        doors = _Doors(problems={finding.where: finding for finding in reversed(outlook.problems)})
        wanting = [s for s in specs.values() if s.name not in outlook.failed and place_of(s) not in bound]
        try:
            for spec in wanting:
                if spec.name not in outlook.crowded:
                    await self._open(spec, doors, identities)
            if doors.problems and not partial:
                raise ConfigError(list(doors.problems.values()))
            doors.yielded = [channel for name, channel in self.by_name.items() if name in outlook.giving_way]
            for channel in doors.yielded:
                assert channel.inlet is not None
                channel.inlet.stop_accepting()
            for spec in wanting:
                if spec.name in outlook.crowded:
                    await self._open(spec, doors, identities)
            if doors.problems and not partial:
                raise ConfigError(list(doors.problems.values()))
        except BaseException:  # a cancellation too: a port that was given up is listened on again
            await self._withdraw(doors)
            raise
        return doors

    async def _open(self, spec: ChannelSpec, doors: _Doors, identities: Identities) -> None:
        try:
            doors.fresh[place_of(spec)] = await self._doorkeeper.open(spec, identities)
        except ConfigError as error:
            doors.problems[spec.name] = error.findings[0]

    async def _withdraw(self, doors: _Doors) -> None:
        """As if nothing had been tried."""
        for inlet in doors.fresh.values():
            inlet.cut()
        for channel in doors.yielded:
            await self._doorkeeper.open_again(channel)

    # ---- the change itself

    def _swap(
        self,
        specs: Mapping[str, ChannelSpec],
        bound: Mapping[Place, Channel],
        doors: _Doors,
        identities: Identities,
    ) -> None:
        """From the old channels to the new ones, in one turn of the loop."""
        old = self.by_name
        self.by_name = {}
        self._outages = {}
        self._doorkeeper.identities = {}
        for name, spec in specs.items():
            lane = self.dispatcher.configure(name, spec, self.metrics.setdefault(name, ChannelMetrics()))
            before = old.get(name)
            same = before is not None and before.spec.family == spec.family
            intake = before.intake if before is not None and same else self.make_intake(lane, spec)
            sightings = self._sightings.setdefault(name, new_sightings(name))
            place = place_of(spec)
            holder = bound.get(place)
            inlet = holder.inlet if holder is not None else doors.fresh.get(place)
            channel = Channel(spec, lane, intake, sightings, inlet, doors.problems.get(name))
            key = (spec.line.tls, spec.dials) if spec.line.tls is not None else None
            identity = identities.get(key) if key is not None else None
            if key is not None and identity is not None:
                self._doorkeeper.identities[key] = identity
            if inlet is not None:
                if holder is not None and holder.spec.name != name:
                    self._doorkeeper.dismiss(inlet)
                inlet.line, inlet.wire = spec.line, spec.wire
                if key is None or identity is not None:
                    inlet.identity = identity
                inlet.events = channel.events(self.replies, self.crowded)
            self.by_name[name] = channel
        self._answering = {name: channel.intake for name, channel in self.by_name.items() if channel.intake.at_commit}
        for name in old.keys() - specs.keys():
            self.dispatcher.configure(name, None, self.metrics[name])
        kept = {id(channel.inlet) for channel in self.by_name.values()}
        for name, channel in old.items():
            if channel.inlet is not None and id(channel.inlet) not in kept:
                channel.inlet.stop_accepting()
                self._doorkeeper.dismiss(channel.inlet)
            if name not in self.by_name or self.by_name[name].inlet is not channel.inlet:
                self._doorkeeper.dismiss_retired(name)

    def _tell(self, changes: Iterable[Change]) -> None:
        for change in changes:
            name, address, was = change.channel, change.address, change.was
            match change.action:
                case Action.KEEP:
                    pass
                case Action.FAILED:
                    reason = str(self.by_name[name].finding)
                    log.error("channel.failed", channel=name, address=address, reason=reason)
                case Action.REPARAMETER:
                    log.info("channel.changed", channel=name, address=address, was=was, connections_kept=change.kept)
                case Action.REBIND:
                    log.info("channel.moved", channel=name, address=address, was=was, connections_lost=change.dropped)
                    self._doorkeeper.tell_open(self.by_name[name])
                case Action.START:
                    self._doorkeeper.tell_open(self.by_name[name])
                case Action.STOP:
                    log.info("channel.stopped", channel=name, was=was, connections_lost=change.dropped)

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
        """Keep every door as it should be: what runs by itself, what comes back, what leaves, certificates."""
        async with asyncio.TaskGroup() as keeping:
            keeping.create_task(self._doorkeeper.run(), name="channels:doors")
            keeping.create_task(self._revive(), name="channels:revive")
            keeping.create_task(self._renew(), name="channels:renew")
            keeping.create_task(self._sweep(), name="channels:sweep")

    async def _revive(self) -> None:
        while True:
            await asyncio.sleep(self.retry_s)
            async with self._turn:
                for name, channel in self.by_name.items():
                    inlet = channel.inlet
                    if inlet is None or (channel.spec.listens and not inlet.listening):
                        await self._mend(channel)
                    else:
                        self._outages.pop(name, None)
                        if channel.finding is not None:
                            self._identify_again(channel)

    async def _mend(self, channel: Channel) -> None:
        """It does not listen: try again when it is time."""
        name, now = channel.spec.name, time.monotonic()
        if name not in self._outages:
            self._outages[name] = _Outage(Backoff(self.retry_s, LONGEST_RETRIES * self.retry_s), now)
            if channel.inlet is not None:
                text, remedy = "its listener has died", "it is opened again by itself; the main log may say why"
                channel.finding = Finding("channel.listener-died", Severity.ERROR, text, remedy, name)
                log.error("channel.died", channel=name, address=channel.spec.address)
        outage = self._outages[name]
        if now < outage.due:
            return
        await self._doorkeeper.open_again(channel)
        if channel.finding is None:
            del self._outages[name]
        else:
            outage.due = now + outage.backoff.next()

    async def _renew(self) -> None:
        """Certificates that were replaced on the disk."""
        while True:
            await asyncio.sleep(self.renew_s)
            for identity in self._doorkeeper.identities.values():
                if identity.refresh():
                    log.info("tls.reloaded", tls=identity.name)

    def _identify_again(self, channel: Channel) -> None:
        """Its door is open, by another certificate than it should show."""
        assert channel.inlet is not None
        try:
            channel.inlet.identity = self._doorkeeper.identify(self._doorkeeper.identities)(channel.spec)
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
            for inlet in self._doorkeeper.retired:
                inlet.sweep(now)

    async def close(self, *, drain_s: float) -> None:
        """Stop accepting everywhere at once, then let the last frames be answered."""
        async with self._turn:
            inlets = self._inlets()
            for inlet in inlets:
                inlet.stop_accepting()
            async with asyncio.TaskGroup() as goodbyes:
                for inlet in inlets:
                    goodbyes.create_task(inlet.close(drain_s=drain_s), name="channels:goodbye")

    def _inlets(self) -> list[Inlet]:
        return self._doorkeeper.retired + [c.inlet for c in self.by_name.values() if c.inlet is not None]

    def cut(self) -> None:
        """Let go of every socket at once, for a process that ends without a goodbye."""
        for inlet in self._inlets():
            inlet.cut()

    def look(self, port: int | None = None) -> list[dict[str, Any]]:
        """What the connections of the channels on `port` have done; None: of all channels."""
        looks = [channel.look() for channel in self.by_name.values()]
        return [look for look in looks if port is None or look["port"] == port]

    def findings(self) -> list[Finding]:
        """Why channels do not listen, what was odd at their doors, and which certificates end soon."""
        found = [finding for channel in self.by_name.values() for finding in channel.findings()]
        return found + [
            finding
            for identity in self._doorkeeper.identities.values()
            for finding in identity.findings(datetime.now(UTC))
        ]


def _running(channel: Channel) -> Running:
    inlet = channel.inlet
    return Running(channel.spec, len(inlet.connections) if inlet is not None else 0, inlet is not None)


def _by_channel(rows: list[Row]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.channel, []).append(row)
    return groups
