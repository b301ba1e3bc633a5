"""How long a reload of many channels takes, from the request to the answer.

usage: python benchmarks/reload.py [--channels 100] [--rounds 5] [--json]

Secret: which changes are tried: none, a tenth of the channels, all of them; new parameters, and new ports.
Promise: daemon and server run in this process on loopback, with real sockets and the real fsync of the last good
configuration; reading the resources over HTTP is part of what is measured. Aim: less than a second.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path

from agent.daemon import Daemon
from agent.hub import Hub
from agent.logbook import opened
from agent.notify import Notifier
from agent.settings import Settings


def free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(each.getsockname()[1]) for each in held]
    for each in held:
        each.close()
    return ports


def channels(ports: list[int], parameters: list[int]) -> dict[str, str]:
    """Name to address; a parameter of its own for each."""
    pairs = zip(ports, parameters, strict=True)
    return {f"c{n}": f"mllp://127.0.0.1:{port}?maxConnections={given}" for n, (port, given) in enumerate(pairs)}


async def measure(daemon: Daemon, hub: Hub, count: int, rounds: int) -> dict[str, float]:
    """Milliseconds a reload, the median, by what was changed."""
    ports, parameters = free_ports(count), [100] * count
    taken: dict[str, list[float]] = {}
    for number in range(rounds):
        for share in (0, count // 10, count):
            for kind in ("parameters", "ports"):
                if kind == "parameters":
                    parameters = [101 + number if n < share else given for n, given in enumerate(parameters)]
                else:
                    ports = [*free_ports(share), *ports[share:]]
                await hub.put_agent("ward", channels(ports, parameters), agent_id=hub.agent_id)
                began = time.perf_counter()
                await daemon.steering.reload()
                if number:  # the first round opens everything
                    taken.setdefault(f"{share} {kind}", []).append((time.perf_counter() - began) * 1000)
    return {name: round(statistics.median(times), 1) for name, times in taken.items()}


async def run(count: int, rounds: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with Hub.open(folder / "hub", ("127.0.0.1", 0)) as hub:
            await hub.put_agent("ward", {}, agent_id=hub.agent_id)
            given = {
                "base_url": hub.base_url,
                "client_id": hub.client_id,
                "client_secret": hub.client_secret,
                "agent_id": hub.agent_id,
                "data_dir": str(folder / "agent"),
                "diagnostics.listen": "off",
                "log.console": "never",
                "spool.min_free_mb": 1,
            }
            settings = Settings.load(given, {}, folder)
            with opened(settings.log) as book:
                daemon = Daemon(settings, book, Notifier.from_environ({}), {}, lambda: settings)
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(daemon.run(), name="daemon")
                    while not settings.paths.last_good.exists():  # noqa: ASYNC110 - a file rings no bell
                        await asyncio.sleep(0.05)
                    taken = await measure(daemon, hub, count, rounds)
                    daemon.stop()
    return taken


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    taken = asyncio.run(run(args.channels, args.rounds))
    if args.json:
        print(json.dumps({"channels": args.channels, "milliseconds": taken}))
    else:
        print(f"{args.channels} channels; median of {args.rounds - 1} reloads, in ms")
        for name, milliseconds in taken.items():
            print(f"  {name + ' changed':<24}{milliseconds:>8.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
