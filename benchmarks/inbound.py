"""How fast messages pass through the daemon, against what they could and against what others do.

usage: python benchmarks/inbound.py [--seconds 2] [--rounds 3] [--connections 1,10,100,1000] [--peers]
                                     [--no-uvloop] [--json]

Secret: which loads are tried, and in which order: in every round each subject once for each load, so that a machine
that is busy for a while is busy for all of them.
Promise: everything runs on loopback in processes of its own (daemon or other subject, stub server and senders in C)
and is gone at the end, also after Ctrl-C. The daemon is `agent run` with its defaults and its real fsync. Ratios are
what to read; absolute numbers belong to the machine and the hour.
"""

from __future__ import annotations

import asyncio
import functools
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import session
from gauges import CannotMeasure, Load, compile_tools, listening, measure, require_disk, started
from report import Idle, Results, for_people, for_programs
from subjects import BARE, DAEMON, PEERS, Place, Subject, daemon, stub

PIPELINED = Load(10, window=32)
ENHANCED = Load(100, enhanced=True)
IDLE_CONNECTIONS = 1_000
SETTLE_S = 3.0


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for on the command line."""

    seconds: float
    rounds: int
    connections: tuple[int, ...]
    peers: bool
    idle_s: float
    uvloop: bool
    scratch: Path


def loads(connections: Sequence[int]) -> list[Load]:
    """The plain loads, and the two others where their size was asked for."""
    found = [Load(number) for number in connections]
    found += [load for load in (PIPELINED, ENHANCED) if load.connections in connections]
    return found


async def watch_idle(place: Place, *, watched_s: float, starts: int) -> Idle:
    """A daemon that has nothing to do: what it takes, what connections add, how fast it is back after a stop."""
    with tempfile.TemporaryDirectory(dir=place.scratch) as name:
        folder = Path(name)
        async with daemon(place, folder) as child:
            await listening(child, place.plain_port)
            await asyncio.sleep(SETTLE_S)  # until imports, login and the first look at the disk are over
            rss_mb, cpu_s = child.rss_mb(), child.cpu_s()
            await asyncio.sleep(watched_s)
            cpu_percent = (child.cpu_s() - cpu_s) / watched_s * 100
            senders_command = [str(place.tools.senders), str(place.plain_port), "--idle"]
            senders_command += ["--connections", str(IDLE_CONNECTIONS)]
            async with started(senders_command, folder) as senders:
                await senders.line(30.0)
                await asyncio.sleep(1.0)
                grown_mb = child.rss_mb() - rss_mb
                senders.close_stdin()
                lost = json.loads(await senders.line())["reconnects"]
        if lost:
            raise CannotMeasure(f"{lost} of {IDLE_CONNECTIONS} idle connections were closed by the daemon")
        idle = Idle(rss_mb, cpu_percent, watched_s, IDLE_CONNECTIONS, grown_mb)
        for _ in range(starts):
            began = time.perf_counter()
            async with daemon(place, folder) as child:
                await listening(child, place.plain_port, every_s=0.002)
                idle.startup_s.append(time.perf_counter() - began)
    return idle


async def compare(place: Place, subjects: Sequence[Subject], tried: Sequence[Load], options: Options) -> Results:
    """Every round: each load, and for each load every subject, fresh."""
    results = Results(DAEMON.name, BARE.name, session.facts(place.scratch, uvloop=place.uvloop))
    for round_number in range(1, options.rounds + 1):
        for load in tried:
            for subject in subjects:
                if not subject.takes(load):
                    continue
                print(f"round {round_number}/{options.rounds}: {load} × {subject.name}", file=sys.stderr)
                with tempfile.TemporaryDirectory(dir=place.scratch) as folder:
                    async with subject.running(place, load) as (child, port):
                        reading = await measure(
                            place.tools, Path(folder), child, port, load, options.seconds, one_each=subject.one_each
                        )
                results.add(load, subject.name, reading)
    return results


async def benchmark(options: Options) -> Results:
    """Everything that was asked for. Raises CannotMeasure."""
    require_disk(options.scratch)
    left_out = {peer.name: reason for peer in PEERS if options.peers and (reason := peer.missing())}
    peers = [peer for peer in PEERS if options.peers and peer.name not in left_out]
    with tempfile.TemporaryDirectory(prefix="onprem-agent-bench-", dir=options.scratch) as name:
        scratch = Path(name)
        tools = compile_tools(scratch)
        async with stub(tools, scratch) as (server_port, plain_port, enhanced_port):
            place = Place(tools, scratch, server_port, options.uvloop, plain_port, enhanced_port)
            results = await compare(place, [DAEMON, BARE, *peers], loads(options.connections), options)
            results.skipped = left_out
            if options.idle_s:
                print(f"idle for {options.idle_s:g} s, then starts", file=sys.stderr)
                results.idle = await watch_idle(place, watched_s=options.idle_s, starts=max(options.rounds, 3))
    return results


def read_options(arguments: Sequence[str] | None = None) -> tuple[Options, bool]:
    """The command line; and whether JSON is wanted."""
    parser = session.arguments(__doc__)
    parser.add_argument("--connections", default="1,10,100,1000", help="loads to try (1,10,100,1000)")
    parser.add_argument("--peers", action="store_true", help="python-hl7, hl7apy and npm @medplum/hl7 as well")
    parser.add_argument("--idle-seconds", type=float, default=10.0, help="how long to watch it idle; 0: not (10)")
    args = parser.parse_args(arguments)
    session.check(parser, args)
    connections = session.numbers(parser, "--connections", args.connections)
    uvloop = session.has_uvloop(args)
    options = Options(args.seconds, args.rounds, connections, args.peers, args.idle_seconds, uvloop, args.scratch)
    return options, args.json


def main() -> int:
    options, as_json = read_options()
    work = functools.partial(benchmark, options)
    return session.run(work, for_people=for_people, for_programs=for_programs if as_json else None)


if __name__ == "__main__":
    sys.exit(main())
