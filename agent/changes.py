"""What another configuration would do to each channel.

Secret: when a channel can change with its connections on it, and when it has to open another door.
Promise: `compare` looks at nothing but its arguments; whoever applies, answers, logs or only asks what would be reads
the same Changes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from agent.channel import place_of
from agent.spec import ChannelSpec


class Action(StrEnum):
    """`rebind`: the same channel through another door. `failed`: it is wanted and cannot be had on this host."""

    KEEP = "keep"
    REPARAMETER = "re-parameter"
    REBIND = "rebind"
    START = "start"
    STOP = "stop"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Running:
    """A channel as it is. `open`: it has its door; else it is tried again and again. `connections` at this moment."""

    spec: ChannelSpec
    connections: int = 0
    open: bool = True


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of one channel. `was`: the address it has now, where it has one. `fields`: what differs, in the
    names of ChannelSpec. `kept`, `dropped`: its connections now."""

    channel: str
    action: Action
    address: str
    was: str = ""
    fields: tuple[str, ...] = ()
    kept: int = 0
    dropped: int = 0

    def facts(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "channel": self.channel,
            "action": self.action.value,
            "address": self.address,
            "was": self.was,
            "fields": list(self.fields),
            "connectionsKept": self.kept,
            "connectionsDropped": self.dropped,
        }


def compare(
    running: Mapping[str, Running],
    wanted: Iterable[ChannelSpec],
    failed: Collection[str] = (),
    unreadable: Mapping[str, str] = MappingProxyType({}),
) -> tuple[Change, ...]:
    """One Change for each channel that runs or is wanted: first the wanted ones in their order, then those that end.

    `failed`: the wanted ones that this host cannot have; `unreadable`: name and address of those whose configuration is
    wrong. The connections of both stay, for nothing is done then.
    """
    changes: list[Change] = []
    names: set[str] = set()
    for spec in wanted:
        names.add(spec.name)
        changes.append(_change(running.get(spec.name), spec, failed=spec.name in failed))
    for name, now in running.items():
        if name not in names and name not in unreadable:
            changes.append(Change(name, Action.STOP, "", was=now.spec.address, dropped=now.connections))
    for name, address in unreadable.items():
        if name not in names:
            changes.append(_failed(running.get(name), name, address))
    return tuple(changes)


def _change(now: Running | None, spec: ChannelSpec, *, failed: bool) -> Change:
    if failed:
        return _failed(now, spec.name, spec.address)
    if now is None:
        return Change(spec.name, Action.START, spec.address)
    was, connections = now.spec.address, now.connections
    if not now.open:
        return Change(spec.name, Action.START, spec.address, was)
    fields = differences(now.spec, spec)
    if place_of(now.spec) != place_of(spec):
        return Change(spec.name, Action.REBIND, spec.address, was, fields, dropped=connections)
    action = Action.REPARAMETER if fields else Action.KEEP
    return Change(spec.name, action, spec.address, was, fields, kept=connections)


def _failed(now: Running | None, name: str, address: str) -> Change:
    if now is None:
        return Change(name, Action.FAILED, address)
    return Change(name, Action.FAILED, address, now.spec.address, kept=now.connections)


def differences(before: ChannelSpec, after: ChannelSpec) -> tuple[str, ...]:
    """Names of the fields that are not the same."""
    return tuple(
        field.name
        for field in dataclasses.fields(ChannelSpec)
        if getattr(before, field.name) != getattr(after, field.name)
    )
