"""One configured channel at work: its door, its lane, and what was seen at it.

Secret: what of a connection is told to whom: the book of debts, the counters, the sightings.
Promise: every connection that was admitted is counted once when it comes and once when it goes; what is odd about one
is remembered as transport facts, never as content.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

import structlog

from agent.errors import Finding, Severity
from agent.flow.astmintake import AstmIntake
from agent.flow.lanes import Lane
from agent.flow.objectintake import ObjectIntake
from agent.flow.reception import Reception
from agent.flow.replies import Replies
from agent.net.inlet import Conversation, Inlet, InletEvents
from agent.protocol.explanations import EXPLANATIONS
from agent.protocol.forensics import Oddity, shape
from agent.sightings import Facts, Sighting, Sightings
from agent.spec import ChannelSpec
from agent.status import utc

log = structlog.get_logger("main")

RECENT_SHOWN: Final = 64

Place = tuple[str, int, str]
"""Where the connections of a channel come from: host, port, and what else makes it another door."""


def place_of(spec: ChannelSpec) -> Place:
    """Channels of one place can share a door. A change of who must show a certificate is another door, so that nobody
    stays who came in under the old rule; so is a change of what is spoken there."""
    tls = spec.line.tls
    kind = spec.family if tls is None else f"{spec.family}:tls:{tls.client_ca or ''}"
    if spec.serial is not None:
        return spec.host, 0, f"serial:{kind}:{spec.serial}"
    if spec.dials:
        return spec.host, spec.port, f"dial:{spec.name}:{kind}"
    return spec.host, spec.port, kind if spec.port else f"any:{spec.name}:{kind}"


@dataclass(slots=True)
class Channel:
    """`inlet` None: the channel could not open its door, `finding` says why."""

    spec: ChannelSpec
    lane: Lane
    intake: Reception
    sightings: Sightings
    inlet: Inlet | None = None
    finding: Finding | None = None

    @property
    def listening(self) -> bool:
        """Whether senders can reach it, or it has reached its sender."""
        return self.inlet is not None and self.inlet.listening

    def events(self, replies: Replies, crowded: Callable[[], bool]) -> InletEvents:
        """What an inlet of this channel tells."""
        name, metrics, sightings = self.spec.name, self.lane.metrics, self.sightings

        def opened(connection: Conversation) -> None:
            metrics.connections += 1
            metrics.connections_total += 1
            replies.opened(name, connection)
            log.debug("connection.opened", channel=name, remote=connection.remote)

        def closed(connection: Conversation) -> None:
            metrics.connections -= 1
            replies.closed(name, connection)
            sightings.ended.append(_facts(connection, over=True))
            log.debug("connection.closed", channel=name, remote=connection.remote)

        def odd(connection: Conversation, oddity: Oddity) -> None:
            sightings.note(oddity, connection.peer, connection.first_shape, connection.failure)

        def turned_away(peer: str, oddity: Oddity) -> None:
            metrics.refuse(oddity.value)
            sightings.note(oddity, peer.rpartition(":")[0], "")

        intake = self.intake
        events = InletEvents(intake.receive, intake.broken, opened, closed, crowded, odd, turned_away)
        match intake:
            case AstmIntake():

                def ended(connection: Conversation) -> None:
                    intake.closed(connection)
                    closed(connection)

                return replace(events, keep=intake.keep, remains=intake.remains, closed=ended)
            case ObjectIntake():
                return replace(events, store=intake.store)
            case _:
                return events

    def findings(self) -> Iterable[Finding]:
        """Why it does not listen, and what was odd at its door."""
        if self.finding is not None:
            yield self.finding
        elif self.inlet is not None and self.inlet.trouble:
            remedy = "it is tried again by itself; check "
            remedy += "the cable and the device" if self.spec.serial else "that the sending system listens there"
            yield Finding("channel.not-connected", Severity.WARNING, self.inlet.trouble, remedy, self.spec.name)
        yield from self.sightings.findings(self.spec.name)

    def look(self) -> dict[str, Any]:
        """Everything about its connections, for a person who asks why there is no message."""
        inlet = self.inlet
        live = [_facts(connection, over=False) for connection in inlet.connections] if inlet is not None else []
        recent = sorted([*live, *self.sightings.ended], key=lambda facts: facts.opened_at, reverse=True)
        return {
            "name": self.spec.name,
            "address": self.spec.address,
            "port": inlet.port if inlet is not None else self.spec.port,
            "connections": self.lane.metrics.connections,
            "refused": {**self.lane.metrics.refused},
            "odd": {**self.sightings.counts},
            "recent": [_shown(facts) for facts in recent[:RECENT_SHOWN]],
            "sightings": [_told(sighting) for sighting in self.sightings.all],
        }


def new_sightings(name: str) -> Sightings:
    """Sightings that tell the main log."""

    def tell(seen: Sighting) -> None:
        why = EXPLANATIONS[seen.oddity]
        say = log.info if why.severity is Severity.INFO else log.warning
        say(
            "wire.odd",
            channel=name,
            peer=seen.host,
            kind=seen.oddity.value,
            first=seen.first,
            reason=seen.detail or why.text,
            remedy=why.remedy,
        )

    return Sightings(time.time, tell)


def _facts(connection: Conversation, *, over: bool) -> Facts:
    evidence = connection.evidence(time.monotonic(), over=over)
    return Facts(
        peer=connection.remote,
        opened_at=time.time() - evidence.age_s,
        silent_s=evidence.silent_s,
        bytes_in=evidence.bytes_in,
        frames=evidence.frames,
        open_bytes=evidence.open_bytes,
        first=shape(evidence.first),
        over=over,
        tls=evidence.tls,
        oddity=connection.oddity,
    )


def _shown(facts: Facts) -> dict[str, Any]:
    why = EXPLANATIONS[facts.oddity] if facts.oddity is not None else None
    return {
        "peer": facts.peer,
        "openedAt": utc(facts.opened_at),
        "silentSeconds": round(facts.silent_s, 1),
        "bytes": facts.bytes_in,
        "frames": facts.frames,
        "openBytes": facts.open_bytes,
        "first": facts.first,
        "over": facts.over,
        "tls": facts.tls,
        "oddity": facts.oddity.value if facts.oddity is not None else None,
        "text": why.text if why is not None else "",
        "remedy": why.remedy if why is not None else "",
    }


def _told(seen: Sighting) -> dict[str, Any]:
    why = EXPLANATIONS[seen.oddity]
    return {
        "oddity": seen.oddity.value,
        "peer": seen.host,
        "count": seen.count,
        "firstAt": utc(seen.first_at),
        "lastAt": utc(seen.last_at),
        "first": seen.first,
        "severity": why.severity.value,
        "text": seen.detail or why.text,
        "remedy": why.remedy,
    }
