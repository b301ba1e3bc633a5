"""What on this host stands in the way of a configuration.

Secret: whose a taken port is, that one of ours can be given up for another channel, and what can be known of a serial
device without opening it.
Promise: every channel is looked at, whatever is wrong with the others; nothing is changed and no sender is let in.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.changes import Change, Running, compare
from agent.channel import place_of
from agent.errors import ConfigError, Finding, Severity
from agent.net.binding import Unbindable, attempt
from agent.net.holders import Holder, holders
from agent.spec import ChannelSpec, SerialSpec

HOLDERS_WITHIN_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class Outlook:
    """`problems`: why channels cannot be had, each with the channel's name as its place. `warnings`: what will come
    right by itself. `crowded`: the wanted channels that another one has to give way to; `giving_way`: those others,
    none of which is wanted where it is."""

    changes: tuple[Change, ...]
    problems: tuple[Finding, ...] = ()
    warnings: tuple[Finding, ...] = ()
    crowded: frozenset[str] = frozenset()
    giving_way: frozenset[str] = frozenset()

    @property
    def failed(self) -> frozenset[str]:
        return frozenset(finding.where for finding in self.problems)


async def foresee(
    running: Mapping[str, Running], wanted: Sequence[ChannelSpec], identify: Callable[[ChannelSpec], object]
) -> Outlook:
    """What `wanted` would come to. `identify` raises ConfigError where a channel's certificate cannot be used."""
    problems: dict[str, list[Finding]] = {spec.name: [] for spec in wanted}
    warnings: list[Finding] = []
    for spec in wanted:
        try:
            identify(spec)
        except ConfigError as error:
            problems[spec.name] += [_of_channel(finding, spec.name) for finding in error.findings]
        if spec.serial is not None:
            warnings += _of_device(spec.serial, spec.name)
    taken = {spec.name: finding for spec, finding in await _taken(running, wanted, problems)}
    crowded, giving_way = await _ours(running, wanted, taken)
    for name, finding in taken.items():
        if name not in crowded:
            problems[name].append(finding)
    found = tuple(finding for each in problems.values() for finding in each)
    failed = {finding.where for finding in found}
    return Outlook(compare(running, wanted, failed), found, tuple(warnings), frozenset(crowded), frozenset(giving_way))


def _of_channel(finding: Finding, name: str) -> Finding:
    """A problem of a certificate is one of the channel that has to show it."""
    text = f"{finding.where}: {finding.text}" if finding.where else finding.text
    return dataclasses.replace(finding, text=text, where=name)


async def _taken(
    running: Mapping[str, Running], wanted: Sequence[ChannelSpec], problems: Mapping[str, list[Finding]]
) -> list[tuple[ChannelSpec, Finding]]:
    """The channels whose port somebody has; what else keeps an address from being used goes to `problems`."""
    bound = {place_of(now.spec) for now in running.values() if now.open}
    taken: list[tuple[ChannelSpec, Finding]] = []

    async def one(spec: ChannelSpec) -> None:
        try:
            await attempt(spec.host, spec.port, spec.name)
        except Unbindable as error:
            if error.taken:
                taken.append((spec, error.findings[0]))
            else:
                problems[spec.name].extend(error.findings)

    async with asyncio.TaskGroup() as attempts:  # side by side: a name that nobody resolves holds up only itself
        for spec in wanted:
            if spec.listens and place_of(spec) not in bound:
                attempts.create_task(one(spec), name="outlook:attempt")
    return taken


async def _ours(
    running: Mapping[str, Running], wanted: Sequence[ChannelSpec], taken: dict[str, Finding]
) -> tuple[set[str], set[str]]:
    """Of the channels in `taken`: those that only need another one to give way, and which ones those are. The findings
    of the rest are made to name the holder."""
    crowded: set[str] = set()
    giving_way: set[str] = set()
    if not taken:
        return crowded, giving_way
    specs = {spec.name: spec for spec in wanted}
    stays = {place_of(spec) for spec in wanted}
    leaving = {name: now for name, now in running.items() if now.open and place_of(now.spec) not in stays}
    held = await _holders({specs[name].port for name in taken})
    for name, finding in taken.items():
        spec = specs[name]
        in_the_way = [entry for entry in held if entry.port == spec.port and entry.is_in_the_way_of(spec.host)]
        strangers = [entry for entry in in_the_way if entry.pid != os.getpid()]
        ours = {other for other, now in leaving.items() if _meet(now.spec, spec)}
        if strangers:
            text = f"{spec.host}:{spec.port}: the port is held by {strangers[0]}"
            taken[name] = dataclasses.replace(finding, text=text)
        elif ours:
            crowded.add(name)
            giving_way |= ours
        elif in_the_way:
            text = f"{spec.host}:{spec.port}: this agent itself listens there, for something that is no channel"
            remedy = "give the channel another port, or set diagnostics.listen to another address"
            taken[name] = dataclasses.replace(finding, text=text, remedy=remedy)
    return crowded, giving_way


async def _holders(ports: set[int]) -> list[Holder]:
    """Who listens on these ports, as far as this user may know in time."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(HOLDERS_WITHIN_S):
            return await asyncio.to_thread(holders, ports) or []
    return []


def _meet(one: ChannelSpec, other: ChannelSpec) -> bool:
    """Whether only one of them can listen."""
    return one.listens and one.port == other.port and Holder(one.host, one.port, None).is_in_the_way_of(other.host)


def _of_device(serial: SerialSpec, name: str) -> list[Finding]:
    if sys.platform == "win32":  # a COM port has no file to look at
        return []
    if not Path(serial.device).exists():
        text = f"there is no serial device {serial.device}"
        remedy = "plug the adapter in, or correct the device's name; it is opened as soon as it is there"
        return [Finding("channel.device-absent", Severity.WARNING, text, remedy, name)]
    if not os.access(serial.device, os.R_OK | os.W_OK):
        text = f"this user may not open the serial device {serial.device}"
        remedy = "let the agent's user use it; on most systems that is membership of the group dialout"
        return [Finding("channel.device-denied", Severity.WARNING, text, remedy, name)]
    return []
