"""Which listeners are wanted, which run, and how the one becomes the other without a sender noticing.

Secret: the order of a change: bind what is new, start it, swap, and only then stop what is old. A port that moves from one channel
to another keeps its listening socket.
Promise: `apply` either reaches the wanted state or raises ConfigError with every problem and changes nothing; connections of a
channel whose address stays are not broken. A listener that could not start, or died, is tried again for ever and is a finding.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

import structlog

from agent.errors import ConfigError, Finding
from agent.flow.dispatcher import Dispatcher
from agent.flow.intake import Intake
from agent.flow.lanes import Lane
from agent.flow.replies import Replies
from agent.metrics import ChannelMetrics
from agent.net.listener import Connection, Listener, ListenerEvents, bind
from agent.protocol.mllp import FrameTooLong
from agent.spec import ChannelSpec
from agent.store.row import Row

log = structlog.get_logger("main")

RETRY_S: Final = 5.0
Address = tuple[str, int]


@dataclass(slots=True)
class Channel:
    """One configured channel. `listener` None: it could not bind, `finding` says why."""

    spec: ChannelSpec
    lane: Lane
    intake: Intake
    listener: Listener | None = None
    finding: Finding | None = None

    @property
    def address(self) -> Address:
        return self.spec.host, self.spec.port


@dataclass(slots=True)
class Channels:
    """All channels of this process. `make_intake` builds the door of a lane; `crowded` says whether the disk lags behind."""

    dispatcher: Dispatcher
    replies: Replies
    make_intake: Callable[[Lane], Intake]
    crowded: Callable[[], bool]
    unanswered: int
    by_name: dict[str, Channel] = field(default_factory=dict)
    metrics: dict[str, ChannelMetrics] = field(default_factory=dict)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def apply(self, wanted: Iterable[ChannelSpec], *, partial: bool = False) -> None:
        """Run exactly `wanted`. `partial`: start what can start and keep trying the rest, as at the start of the process."""
        async with self._turn:
            specs = {spec.name: spec for spec in wanted}
            bound = {channel.address: channel for channel in self.by_name.values() if channel.listener is not None}
            fresh, problems = await self._listen(specs.values(), bound)
            if problems and not partial:
                for listener in fresh.values():
                    await listener.close()
                raise ConfigError(list(problems.values()))
            retired = self._swap(specs, bound, fresh, problems)
            for listener in fresh.values():
                await listener.start()
            await asyncio.gather(*(listener.close(drain_s=1.0) for listener in retired))

    async def _listen(
        self, specs: Iterable[ChannelSpec], bound: dict[Address, Channel]
    ) -> tuple[dict[Address, Listener], dict[str, Finding]]:
        """A listener for every address that has none yet; what could not be bound, by channel."""
        fresh: dict[Address, Listener] = {}
        problems: dict[str, Finding] = {}
        for spec in specs:
            address = (spec.host, spec.port)
            if address in bound or address in fresh:
                continue
            try:
                sockets = bind(spec.host, spec.port, spec.name)
            except ConfigError as error:
                problems[spec.name] = error.findings[0]
                continue
            listener = Listener(sockets, max_message_bytes=spec.max_message_bytes, unanswered=self.unanswered)
            fresh[address] = listener
        return fresh, problems

    def _swap(
        self,
        specs: dict[str, ChannelSpec],
        bound: dict[Address, Channel],
        fresh: dict[Address, Listener],
        problems: dict[str, Finding],
    ) -> list[Listener]:
        """From the old channels to the new ones, in one turn of the loop; the listeners that nobody wants any more."""
        old = self.by_name
        self.by_name = {}
        for name, spec in specs.items():
            metrics = self.metrics.setdefault(name, ChannelMetrics())
            lane = self.dispatcher.configure(name, spec, metrics)
            before = old.get(name)
            channel = Channel(spec, lane, before.intake if before is not None else self.make_intake(lane))
            channel.finding = problems.get(name)
            holder = bound.get(channel.address)
            listener = holder.listener if holder is not None else fresh.get(channel.address)
            if listener is not None:
                if holder is not None and holder.spec.name != name:
                    listener.drop_connections()  # they belong to the channel that leaves this port
                listener.max_message_bytes = spec.max_message_bytes
                listener.events = self._events(channel)
                channel.listener = listener
            self.by_name[name] = channel
            self._tell(before, channel)
        kept = {id(channel.listener) for channel in self.by_name.values()}
        for name in old.keys() - specs.keys():
            self.dispatcher.configure(name, None, self.metrics[name])
            log.info("channel.stopped", channel=name)
        return [c.listener for c in old.values() if c.listener is not None and id(c.listener) not in kept]

    def _tell(self, before: Channel | None, now: Channel) -> None:
        name, address = now.spec.name, now.spec.address
        if now.finding is not None:
            log.error("channel.failed", channel=name, address=address, reason=str(now.finding))
        elif before is None or before.listener is not now.listener:
            log.info(
                "channel.listening", channel=name, address=address, port=now.listener.port if now.listener else None
            )
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

        def take(connection: Connection, frames: list[bytes]) -> None:
            intake.receive(connection, frames)

        def too_long(connection: Connection, error: FrameTooLong) -> None:
            intake.too_long(connection, error)

        return ListenerEvents(take, too_long, opened, closed, self.crowded)

    # ---- what the spool and the deadline say about rows of many channels

    def durable(self, rows: list[Row]) -> None:
        """Rows are on the platter: the channels whose mode answers at commit do so."""
        for name, group in _by_channel(rows).items():
            channel = self.by_name.get(name)
            if channel is not None:
                channel.intake.durable(group)
        self.relieve()

    def refused(self, rows: list[Row], error: Exception) -> None:
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
            await asyncio.sleep(RETRY_S)
            for channel in list(self.by_name.values()):
                if channel.listener is None or not channel.listener.listening:
                    await self._revive(channel)

    async def _revive(self, channel: Channel) -> None:
        async with self._turn:
            if self.by_name.get(channel.spec.name) is not channel:
                return
            if channel.listener is not None:
                await channel.listener.close()
                channel.listener = None
            fresh, problems = await self._listen([channel.spec], {})
            channel.finding = problems.get(channel.spec.name)
            for listener in fresh.values():
                listener.events = self._events(channel)
                channel.listener = listener
                await listener.start()
                log.info(
                    "channel.listening", channel=channel.spec.name, address=channel.spec.address, port=listener.port
                )

    async def close(self, *, drain_s: float) -> None:
        """Stop accepting everywhere at once, then let the last frames be answered."""
        listeners = [channel.listener for channel in self.by_name.values() if channel.listener is not None]
        for listener in listeners:
            listener.stop_accepting()
        await asyncio.gather(*(listener.close(drain_s=drain_s) for listener in listeners))

    def findings(self) -> list[Finding]:
        return [channel.finding for channel in self.by_name.values() if channel.finding is not None]


def _by_channel(rows: list[Row]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.channel, []).append(row)
    return groups
