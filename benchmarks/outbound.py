"""How fast messages get from the server through the agent to remotes, and whether silent remotes slow the others.

usage: python benchmarks/outbound.py [--seconds 2] [--rounds 3] [--clients 1,5,25] [--peers]
                                      [--parts rate,latency,silent,durable] [--no-uvloop] [--json]

Secret: which loads are tried, and in which order: in every round everything once, so that a machine that is busy for a
while is busy for all of them.
Promise: everything runs on loopback in processes of its own (agent or other client, server and remotes in C) and is
gone at the end, also after Ctrl-C. The agent is `agent run` with its defaults and its real fsync. Ratios are what to
read; absolute numbers belong to the machine and the hour.
"""

from __future__ import annotations

import argparse
import functools
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import session
from gauges import MESSAGE_BYTES, Tools, compile_tools, require_disk
from pushing import AGENT, BARE, PEERS, POOL, Client, Site, keep_busy, push_all, remotes
from pushing_report import (
    ANSWERING,
    AT_ONCE,
    DURABLE,
    LATENCY,
    RATE,
    SILENCE,
    SILENT,
    Results,
    for_people,
    for_programs,
)

PARTS = (RATE, LATENCY, SILENCE, DURABLE)
REMOTES = 50
MUTE = 5
PUSHES = 10_000
PACED = 1_000.0  # a second: well below what the agent can
WAITING = 20  # durable pushes for each remote: so that some always wait


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for on the command line."""

    seconds: float
    rounds: int
    clients: tuple[int, ...]
    parts: tuple[str, ...]
    peers: bool
    uvloop: bool
    scratch: Path


async def rates(site: Site, results: Results, clients: Sequence[int], subjects: Sequence[Client]) -> None:
    """One remote, so many connections to it, and on each a message as soon as the last one is answered."""
    for count in clients:
        for subject in subjects:
            async with remotes(site, 1) as (port,):
                results.add(RATE, _number(count, "client"), subject.name, await subject.measure(site, port, count))


async def latency(site: Site, results: Results) -> None:
    """One message at a time: to the remote at once, and from the server through the agent to the remote."""
    async with remotes(site, 1) as (port,):
        results.add(LATENCY, "", BARE.name, await BARE.measure(site, port, 1))
        results.add(LATENCY, "", AGENT.name, await keep_busy(site, [port], "", 1))


async def silent(site: Site, results: Results) -> None:
    """Fifty remotes of which five never answer, against the others by themselves."""
    answering = REMOTES - MUTE
    for pace, rate in ((AT_ONCE, 0.0), (f"{PACED:,.0f} a second", PACED)):
        async with remotes(site, REMOTES, MUTE) as ports:
            count = PUSHES * answering // REMOTES
            alone = await push_all(site, ports[MUTE:], count, silent=0, rate=rate * answering / REMOTES)
            results.add(SILENCE, pace, ANSWERING, alone)
        async with remotes(site, REMOTES, MUTE) as ports:
            results.add(SILENCE, pace, SILENT, await push_all(site, ports, PUSHES, silent=MUTE, rate=rate))


async def durable(site: Site, results: Results) -> None:
    """Messages that are on disk before they are sent, and go one at a time and in order to each remote."""
    for count, window in ((1, 1), (1, WAITING), (REMOTES, WAITING)):
        async with remotes(site, count) as ports:
            name = f"{_number(count, 'remote')}, {window} unanswered each"
            results.add(DURABLE, "", name, await keep_busy(site, ports, "durable=true", window))


async def benchmark(options: Options) -> Results:
    """Everything that was asked for. Raises CannotMeasure."""
    require_disk(options.scratch)
    left_out = {peer.name: reason for peer in PEERS if options.peers and (reason := peer.missing())}
    peers = [peer for peer in PEERS if options.peers and peer.name not in left_out]
    results = Results(session.facts(options.scratch, uvloop=options.uvloop), skipped=left_out)
    with tempfile.TemporaryDirectory(prefix="onprem-agent-bench-", dir=options.scratch) as name:
        scratch = Path(name)
        tools = compile_tools(scratch)
        site = Site(tools, scratch, _message(tools), options.seconds, options.uvloop)
        parts: dict[str, Callable[[], Awaitable[None]]] = {
            RATE: functools.partial(rates, site, results, options.clients, (AGENT, POOL, *peers, BARE)),
            LATENCY: functools.partial(latency, site, results),
            SILENCE: functools.partial(silent, site, results),
            DURABLE: functools.partial(durable, site, results),
        }
        for number in range(1, options.rounds + 1):
            for part in options.parts:
                print(f"round {number}/{options.rounds}: {part}", file=sys.stderr)
                await parts[part]()
    return results


def _message(tools: Tools) -> bytes:
    """What the C programs send, for those that are not in C."""
    return subprocess.run(
        [tools.pushes, "--message", "--size", str(MESSAGE_BYTES)], capture_output=True, check=True
    ).stdout


def _number(count: int, thing: str) -> str:
    return f"{count} {thing}{'s' if count > 1 else ''}"


def read_options(arguments: Sequence[str] | None = None) -> tuple[Options, bool]:
    """The command line; and whether JSON is wanted."""
    parser = session.arguments(__doc__)
    parser.add_argument("--clients", default="1,5,25", help="connections to one remote to try (1,5,25)")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"what to measure ({','.join(PARTS)})")
    parser.add_argument("--peers", action="store_true", help="the clients of npm @medplum/hl7 and python-hl7 as well")
    args = parser.parse_args(arguments)
    session.check(parser, args)
    clients = session.numbers(parser, "--clients", args.clients)
    parts = _parts(parser, args.parts)
    uvloop = session.has_uvloop(args)
    return Options(args.seconds, args.rounds, clients, parts, args.peers, uvloop, args.scratch), args.json


def _parts(parser: argparse.ArgumentParser, text: str) -> tuple[str, ...]:
    wanted = tuple(text.split(","))
    if unknown := set(wanted) - set(PARTS):
        parser.error(f"--parts takes {', '.join(PARTS)} between commas, not {', '.join(sorted(unknown))}")
    return wanted


def main() -> int:
    options, as_json = read_options()
    work = functools.partial(benchmark, options)
    return session.run(work, for_people=for_people, for_programs=for_programs if as_json else None)


if __name__ == "__main__":
    sys.exit(main())
