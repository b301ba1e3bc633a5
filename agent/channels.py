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
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

import structlog

from agent.errors import AgentError, ConfigError, Finding
from agent.flow.dispatcher import Dispatcher
from agent.flow.intake import Intake
from agent.flow.lanes import Lane
from agent.flow.replies import Replies
from agent.metrics import ChannelMetrics
from agent.net.binding import Unbindable, bind
from agent.net.listener import Connection, Listener, ListenerEvents
from agent.spec import AckMode, ChannelSpec
from agent.store.row import Row

log = structlog.get_logger("main")

RETRY_S: Final = 5.0
_DRAIN_S: Final = 1.0  # what a channel that is switched off may take to answer what it has

Place = tuple[str, int, str]
"""Where a channel listens: host and port, and whose the port is if any port will do."""


def _place(spec: ChannelSpec) -> Place:
    return spec.host, spec.port, "" if spec.port else spec.name


@dataclass(slots=True)
class Channel:
    """One configured channel. `listener` None: it could not bind, `finding` says why."""

    spec: ChannelSpec
    lane: Lane
    intake: Intake
    listener: Listener | None = None
    finding: Finding | None = None


@dataclass(slots=True)
class _Change:
    """What one `apply` has prepared: new listeners, what could not be bound, and who gave a port up for it."""

    fresh: dict[Place, Listener] = field(default_factory=dict)
    problems: dict[str, Finding] = field(default_factory=dict)
    taken: list[str] = field(default_factory=list)  # the channels whose port somebody has, perhaps we ourselves
    yielded: list[Channel] = field(default_factory=list)


@dataclass(slots=True)
class Channels:
    """All channels of this process. `make_intake` builds a lane's door; `crowded`: whether the disk lags behind."""

    dispatcher: Dispatcher
    replies: Replies
    make_intake: Callable[[Lane], Intake]
    crowded: Callable[[], bool]
    unanswered: int
    retry_s: float = RETRY_S
    by_name: dict[str, Channel] = field(default_factory=dict)
    metrics: dict[str, ChannelMetrics] = field(default_factory=dict)
    _answering: dict[str, Intake] = field(default_factory=dict)  # the channels that answer at commit
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def apply(self, wanted: Iterable[ChannelSpec], *, partial: bool = False) -> None:
        """Run exactly `wanted`. `partial`: start what can start and keep trying the rest, as at the process's start."""
        async with self._turn:
            specs = {spec.name: spec for spec in wanted}
            bound = {_place(channel.spec): channel for channel in self.by_name.values() if channel.listener is not None}
            change = await self._prepare(specs, bound, partial=partial)
            if change.problems and not partial:
                await self._withdraw(change)
                raise ConfigError(list(change.problems.values()))
            leaving = self._swap(specs, bound, change)
            for listener in change.fresh.values():
                await listener.start()
        async with asyncio.TaskGroup() as goodbyes:  # not in our turn: a stop that comes now has its own deadline
            for listener, connections in leaving:
                goodbyes.create_task(listener.dismiss(connections, drain_s=_DRAIN_S), name="channels:goodbye")

    # ---- before anything is changed

    async def _prepare(self, specs: dict[str, ChannelSpec], bound: dict[Place, Channel], *, partial: bool) -> _Change:
        """A listener for every address that has none yet."""
        change = _Change()
        for spec in specs.values():
            if _place(spec) not in bound:
                await self._open(spec, change)
        wanted = {_place(spec) for spec in specs.values()}
        for name in list(change.taken):
            in_the_way = [
                channel
                for place, channel in bound.items()
                if place not in wanted and channel.spec.port == specs[name].port
            ]
            if in_the_way and (partial or len(change.problems) == 1):
                for channel in in_the_way:
                    assert channel.listener is not None
                    channel.listener.stop_accepting()
                change.yielded += in_the_way
                del change.problems[name]
                await self._open(specs[name], change)
        return change

    async def _open(self, spec: ChannelSpec, change: _Change) -> None:
        try:
            sockets = await bind(spec.host, spec.port, spec.name)
        except Unbindable as error:
            change.problems[spec.name] = error.findings[0]
            if error.taken:
                change.taken.append(spec.name)
        else:
            change.fresh[_place(spec)] = self._listener(spec, sockets)

    def _listener(self, spec: ChannelSpec, sockets: list[socket.socket]) -> Listener:
        return Listener(sockets, max_message_bytes=spec.line.max_message_bytes, unanswered=self.unanswered)

    async def _withdraw(self, change: _Change) -> None:
        """As if nothing had been tried."""
        for listener in change.fresh.values():
            await listener.close()
        for channel in change.yielded:
            await self._listen_again(channel)

    # ---- the change itself

    def _swap(
        self, specs: dict[str, ChannelSpec], bound: dict[Place, Channel], change: _Change
    ) -> list[tuple[Listener, list[Connection]]]:
        """From the old channels to the new ones, in one turn of the loop; which connections have to leave."""
        old = self.by_name
        self.by_name = {}
        leaving: list[tuple[Listener, list[Connection]]] = []
        for name, spec in specs.items():
            metrics = self.metrics.setdefault(name, ChannelMetrics())
            lane = self.dispatcher.configure(name, spec, metrics)
            before = old.get(name)
            channel = Channel(spec, lane, before.intake if before is not None else self.make_intake(lane))
            channel.finding = change.problems.get(name)
            holder = bound.get(_place(spec))
            channel.listener = holder.listener if holder is not None else change.fresh.get(_place(spec))
            if channel.listener is not None:
                if holder is not None and holder.spec.name != name:
                    leaving.append((channel.listener, list(channel.listener.connections)))
                channel.listener.max_message_bytes = spec.line.max_message_bytes
                channel.listener.events = self._events(channel)
            self.by_name[name] = channel
            self._tell(before, channel)
        self._answering = {
            name: channel.intake
            for name, channel in self.by_name.items()
            if channel.spec.ack_mode is not AckMode.ORIGINAL
        }
        for name in old.keys() - specs.keys():
            self.dispatcher.configure(name, None, self.metrics[name])
            log.info("channel.stopped", channel=name)
        kept = {id(channel.listener) for channel in self.by_name.values()}
        for channel in old.values():
            if channel.listener is not None and id(channel.listener) not in kept:
                channel.listener.stop_accepting()
                leaving.append((channel.listener, list(channel.listener.connections)))
        return leaving

    def _tell(self, before: Channel | None, now: Channel) -> None:
        name, address = now.spec.name, now.spec.address
        if now.finding is not None:
            log.error("channel.failed", channel=name, address=address, reason=str(now.finding))
        elif before is None or before.listener is not now.listener:
            port = now.listener.port if now.listener is not None else None
            log.info("channel.listening", channel=name, address=address, port=port)
        elif before.spec != now.spec:
            log.info("channel.changed", channel=name, address=address)

    def _events(self, channel: Channel) -> ListenerEvents:
        name, intake, metrics, replies = channel.spec.name, channel.intake, channel.lane.metrics, self.replies

        def opened(connection: Connection) -> None:
            metrics.connections += 1
            metrics.connections_total += 1
            replies.opened(name, connection)
            log.debug("connection.opened", channel=name, remote=connection.remote)

        def closed(connection: Connection) -> None:
            metrics.connections -= 1
            replies.closed(name, connection)
            log.debug("connection.closed", channel=name, remote=connection.remote)

        return ListenerEvents(intake.receive, intake.too_long, opened, closed, self.crowded)

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
                if channel.listener is not None:
                    channel.listener.relieve()

    # ---- staying up

    async def run(self) -> None:
        """Bring back listeners that could not start or have died."""
        while True:
            await asyncio.sleep(self.retry_s)
            async with self._turn:
                for channel in self.by_name.values():
                    if channel.listener is None or not channel.listener.listening:
                        await self._listen_again(channel)

    async def _listen_again(self, channel: Channel) -> None:
        spec, listener = channel.spec, channel.listener
        if listener is not None:
            listener.stop_accepting()
        try:
            sockets = await bind(spec.host, spec.port, spec.name)
        except Unbindable as error:
            channel.finding = error.findings[0]
            return
        if listener is None:
            listener = channel.listener = self._listener(spec, sockets)
            listener.events = self._events(channel)
            await listener.start()
        else:
            await listener.restart(sockets)
        channel.finding = None
        log.info("channel.listening", channel=spec.name, address=spec.address, port=listener.port)

    async def close(self, *, drain_s: float) -> None:
        """Stop accepting everywhere at once, then let the last frames be answered."""
        async with self._turn:
            listeners = [channel.listener for channel in self.by_name.values() if channel.listener is not None]
            for listener in listeners:
                listener.stop_accepting()
            async with asyncio.TaskGroup() as goodbyes:
                for listener in listeners:
                    goodbyes.create_task(listener.close(drain_s=drain_s), name="channels:goodbye")

    def cut(self) -> None:
        """Let go of every socket at once, for a process that ends without a goodbye."""
        for channel in self.by_name.values():
            if channel.listener is not None:
                channel.listener.cut()

    def findings(self) -> list[Finding]:
        """Why channels do not listen."""
        return [channel.finding for channel in self.by_name.values() if channel.finding is not None]


def _by_channel(rows: list[Row]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.channel, []).append(row)
    return groups
