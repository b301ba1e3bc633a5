"""What is measured on the way out: the agent, its pool by itself, and MLLP clients written by others.

Secret: how each of them is started on loopback, and which processes stand around it.
Promise: every reading is of fresh processes, of which nothing is left when it is there. A peer that cannot run here
says why in `missing`.
"""

from __future__ import annotations

import contextlib
import functools
import json
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from clients import LEAD
from gauges import HERE, MESSAGE_BYTES, WARM_S, CannotMeasure, Tools, started
from subjects import REPOSITORY, Place, daemon, module_missing, npm_missing, npm_program

GIVE_UP_S = 60.0  # pushes.c has the same


@dataclass(frozen=True, slots=True)
class Site:
    """Where everything happens. `scratch` is a folder on a disk; `message` is what the far ends send, too."""

    tools: Tools
    scratch: Path
    message: bytes
    seconds: float
    uvloop: bool


@dataclass(frozen=True, slots=True)
class Pushed:
    """One measurement. `cpu_us`, `fsyncs` are per push, `fsync_ms` per call; None where nobody counted."""

    answered: int
    elapsed_s: float
    rate: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    errors: int
    cpu_us: float | None = None
    fsyncs: float | None = None
    fsync_ms: float | None = None

    @classmethod
    def of(cls, line: str, **more: float | None) -> Pushed:
        """What a program printed at its end."""
        found = json.loads(line)
        times_ms = {f"p{share}_ms": found[f"p{share}_us"] / 1000 for share in (50, 95, 99)}
        kept = {name: found[name] for name in ("answered", "elapsed_s", "rate", "errors")}
        return cls(**kept, **times_ms, **{"cpu_us": found.get("cpu_us"), **more})


@contextlib.asynccontextmanager
async def remotes(site: Site, count: int, silent: int = 0) -> AsyncIterator[list[int]]:
    """So many ports that answer at once, but for the first `silent`."""
    with tempfile.TemporaryDirectory(dir=site.scratch) as folder:
        async with started([site.tools.receivers, str(count), str(silent)], Path(folder)) as child:
            yield [int(port) for port in (await child.line()).split()]


async def through_the_agent(site: Site, urls: Sequence[str], *how: str, within_s: float = 30.0) -> Pushed:
    """Push to `urls` through a whole agent; `how` is said to the server, as pushes.c has it."""
    folder = functools.partial(tempfile.TemporaryDirectory, dir=site.scratch)
    command = [site.tools.pushes, "--size", str(MESSAGE_BYTES), *how, *urls]
    with folder() as ours, folder() as theirs:
        async with started(command, Path(theirs)) as server:
            place = Place(site.tools, site.scratch, int(await server.line()), site.uvloop)
            async with daemon(place, Path(ours)) as child:
                await server.line(within_s)
                cpu_s, (syncs, spent_ns) = child.cpu_s(), child.syncs()
                line = await server.line(within_s)
                cpu_s, (syncs_after, spent_after_ns) = child.cpu_s() - cpu_s, child.syncs()
                child.process.kill()  # a polite end would wait for the remotes that do not answer
    answered, calls = json.loads(line)["answered"], syncs_after - syncs
    if not answered:
        raise CannotMeasure("the agent answered no push: run `agent doctor` here")
    return Pushed.of(
        line,
        cpu_us=cpu_s / answered * 1e6,
        fsyncs=calls / answered,
        fsync_ms=(spent_after_ns - spent_ns) / calls / 1e6 if calls else None,
    )


async def keep_busy(site: Site, ports: Sequence[int], parameters: str, window: int) -> Pushed:
    """Through a whole agent, each remote with `window` pushes unanswered all the time."""
    how = ("--window", str(window), "--warm", str(WARM_S), "--seconds", str(site.seconds))
    return await through_the_agent(site, urls(ports, parameters), *how, within_s=site.seconds + 30.0)


async def push_all(site: Site, ports: Sequence[int], count: int, *, silent: int, rate: float) -> Pushed:
    """Through a whole agent, `count` pushes at `rate` each second, 0: all at once; the first `silent` do not answer."""
    how = ("--count", str(count), "--silent", str(silent), "--rate", str(rate))
    return await through_the_agent(site, urls(ports), *how, within_s=GIVE_UP_S + 30.0)


def urls(ports: Sequence[int], parameters: str = "") -> list[str]:
    """Addresses of remotes on loopback."""
    return [f"mllp://127.0.0.1:{port}{'?' if parameters else ''}{parameters}" for port in ports]


# ---- one remote and so many clients


async def _agent(site: Site, port: int, clients: int) -> Pushed:
    return await keep_busy(site, [port], f"maxClients={clients}", LEAD * clients)


async def _client(
    site: Site, port: int, clients: int, *, command: Callable[[Site, int, int], Sequence[str | Path]]
) -> Pushed:
    with tempfile.TemporaryDirectory(dir=site.scratch) as folder:
        environ = {"PYTHONPATH": str(REPOSITORY)}
        async with started(command(site, port, clients), Path(folder), environ=environ) as child:
            assert child.process.stdin is not None
            child.process.stdin.write(site.message)
            child.close_stdin()
            await child.line(20.0)
            return Pushed.of(await child.line(site.seconds + 20.0))


def _senders(site: Site, port: int, clients: int) -> list[str | Path]:
    times = ("--warm", str(WARM_S), "--seconds", str(site.seconds))
    return [site.tools.senders, str(port), "--connections", str(clients), *times, "--size", str(MESSAGE_BYTES)]


def _python(site: Site, port: int, clients: int, *, name: str) -> list[str | Path]:
    command = [sys.executable, HERE / "clients.py", name, "--port", str(port), "--clients", str(clients)]
    command += ["--warm", str(WARM_S), "--seconds", str(site.seconds)]
    return command if site.uvloop else [*command, "--no-uvloop"]


def _npm(site: Site, port: int, clients: int) -> list[str | Path]:
    return [*npm_program("clients.mjs"), str(port), str(clients), str(WARM_S), str(site.seconds)]


@dataclass(frozen=True, slots=True)
class Client:
    """`measure(site, port, clients)`; `missing`: why it cannot run here, or empty."""

    name: str
    measure: Callable[[Site, int, int], Awaitable[Pushed]]
    missing: Callable[[], str] = lambda: ""


def _of(name: str, command: Callable[..., Sequence[str | Path]], missing: Callable[[], str] = lambda: "") -> Client:
    return Client(name, functools.partial(_client, command=command), missing)


_hl7_missing = functools.partial(module_missing, "hl7", "python-hl7")

AGENT = Client("agent", _agent)
POOL = _of("its pool alone", functools.partial(_python, name="pool"))
BARE = _of("a client in C", _senders)
NPM = _of("npm @medplum/hl7", _npm, npm_missing)
PEERS = (
    NPM,
    _of("python-hl7 asyncio", functools.partial(_python, name="python-hl7"), _hl7_missing),
    _of("python-hl7 blocking", functools.partial(_python, name="python-hl7-threads"), _hl7_missing),
)
