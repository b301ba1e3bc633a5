"""Open the doors of channels, open them again, and see off who has to leave.

Secret: which certificate a channel shows, what of a door can be opened a second time, and where the connections of one
go that cannot.
Promise: a door that fails is a finding of its channel and never an exception; connections stay when their door is
opened again; those that have to leave get what they are owed, within DRAIN_S.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import structlog

from agent.channel import Channel
from agent.errors import ConfigError, Finding, Severity
from agent.flow.replies import Replies
from agent.inlets import Openings, open_inlet
from agent.net.binding import bind
from agent.net.inlet import Conversation, Inlet
from agent.net.listener import Listener
from agent.net.tls import Identity
from agent.spec import ChannelSpec, TlsSpec

log = structlog.get_logger("main")

DRAIN_S: Final = 1.0  # what a channel that is switched off may take to answer what it has

Identities = dict[tuple[TlsSpec, bool], Identity]
"""By the files, and whether we are the client."""


@dataclass(slots=True)
class Doorkeeper:
    """`replies` and `crowded` as a channel's events need them; `identities`: the certificates in use. `run` has to be
    at work for inlets that make their connections themselves, and for those to end that have to leave."""

    openings: Openings
    replies: Replies
    crowded: Callable[[], bool]
    identities: Identities = field(default_factory=dict)
    _retired: dict[str, list[Inlet]] = field(default_factory=dict)  # shut for good, with connections still on them
    _started: asyncio.Queue[Inlet] = field(default_factory=asyncio.Queue)
    _leaving: asyncio.Queue[tuple[Inlet, list[Conversation]]] = field(default_factory=asyncio.Queue)

    def identify(self, known: Identities) -> Callable[[ChannelSpec], Identity | None]:
        """What gives the certificate that a channel shows; `known` remembers those that were read for it. It raises
        ConfigError where the files cannot be used."""

        def identity_of(spec: ChannelSpec) -> Identity | None:
            if spec.line.tls is None:
                return None
            key = spec.line.tls, spec.dials
            found = self.identities.get(key) or known.get(key) or Identity.load(spec.line.tls, dials=spec.dials)
            return known.setdefault(key, found)

        return identity_of

    async def open(self, spec: ChannelSpec, known: Identities) -> Inlet:
        """A door that takes nothing yet. Raises ConfigError."""
        return await open_inlet(spec, self.identify(known)(spec), self.openings)

    async def start(self, channel: Channel) -> None:
        """Let senders in by a channel's fresh door."""
        inlet = channel.inlet
        assert inlet is not None
        try:
            await inlet.start()
        except OSError as error:
            inlet.cut()
            channel.inlet = None
            self._failed(channel, error)
        else:
            self._started.put_nowait(inlet)

    async def open_again(self, channel: Channel) -> None:
        """Open a channel's door once more, with the connections on it. What keeps it from that is its finding."""
        spec, inlet = channel.spec, channel.inlet
        if inlet is not None:
            inlet.stop_accepting()
        try:
            if isinstance(inlet, Listener):
                await inlet.restart(await bind(spec.host, spec.port, spec.name))
                channel.finding = None
            else:
                fresh = await self.open(spec, self.identities)
                fresh.events = channel.events(self.replies, self.crowded)
                if inlet is not None:
                    self._retired.setdefault(spec.name, []).append(inlet)
                channel.inlet, channel.finding = fresh, None
                await self.start(channel)
        except ConfigError as error:
            channel.finding = error.findings[0]
        except OSError as error:
            self._failed(channel, error)
        if channel.finding is None:
            self.tell_open(channel)

    def _failed(self, channel: Channel, error: OSError) -> None:
        name, text = channel.spec.name, f"cannot take connections ({error.strerror or error})"
        remedy = "it is tried again by itself; look whether this host has descriptors left"
        channel.finding = Finding("channel.cannot-listen", Severity.ERROR, text, remedy, name)
        log.error("channel.failed", channel=name, reason=text)

    def tell_open(self, channel: Channel) -> None:
        """Have the main log say where a channel receives, or why it does not."""
        spec, inlet = channel.spec, channel.inlet
        if inlet is None:
            log.error("channel.failed", channel=spec.name, address=spec.address, reason=str(channel.finding))
        elif spec.listens:
            log.info("channel.listening", channel=spec.name, address=spec.address, port=inlet.port)
        else:
            log.info("channel.dialing", channel=spec.name, address=spec.address)

    # ---- leaving

    def dismiss(self, inlet: Inlet) -> None:
        """The connections that are on it now have to leave."""
        self._leaving.put_nowait((inlet, list(inlet.connections)))

    def dismiss_retired(self, name: str) -> None:
        """So do those of a channel's earlier doors."""
        for inlet in self._retired.pop(name, []):
            self.dismiss(inlet)

    @property
    def retired(self) -> list[Inlet]:
        """Doors that were opened again as others, as long as there are connections on them."""
        self._retired = {
            name: shut
            for name, each in self._retired.items()
            if (shut := [inlet for inlet in each if inlet.connections])
        }
        return [inlet for each in self._retired.values() for inlet in each]

    async def run(self) -> None:
        """Run inlets and see off connections until cancelled."""
        async with asyncio.TaskGroup() as doors:
            doors.create_task(self._see_off(doors), name="channels:goodbyes")
            while True:
                inlet = await self._started.get()
                doors.create_task(inlet.run(), name="channels:inlet")

    async def _see_off(self, doors: asyncio.TaskGroup) -> None:
        while True:
            inlet, connections = await self._leaving.get()
            doors.create_task(inlet.dismiss(connections, drain_s=DRAIN_S), name="channels:goodbye")
