"""What is measured: the daemon, its bare limit, and MLLP servers written by others.

Secret: how each of them is started on loopback, with nothing of this host's own configuration.
Promise: `running` yields a fresh process that accepts connections, with an empty data directory on a real disk, and
its port; afterwards process and directory are gone. A peer that cannot run here says why in `missing`.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

from gauges import HERE, CannotMeasure, Child, Load, Tools, listening, started

REPOSITORY = HERE.parent
NPM = HERE / "npm"
NPM_VERSION = "5.0.10"


@dataclass(frozen=True, slots=True)
class Place:
    """Where everything happens. `scratch` is a folder on a disk; the stub answers at `server_port`."""

    tools: Tools
    scratch: Path
    server_port: int
    uvloop: bool
    plain_port: int = 0  # the daemon's channel in original mode
    enhanced_port: int = 0  # and the one with enhanced=true


Running = tuple[Child, int]


@dataclass(frozen=True, slots=True)
class Subject:
    """`takes`: whether it can carry a load at all. `missing`: why it cannot run here, or empty.

    `one_each`: it closes after each message, so that senders must dial again.
    """

    name: str
    running: Callable[[Place, Load], AbstractAsyncContextManager[Running]]
    takes: Callable[[Load], bool] = lambda load: True
    missing: Callable[[], str] = lambda: ""
    one_each: bool = False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.asynccontextmanager
async def stub(tools: Tools, scratch: Path) -> AsyncIterator[tuple[int, int, int]]:
    """The server, and the ports on which its agent's two channels are to listen."""
    plain, enhanced = free_port(), free_port()
    channels = (f"hl7=mllp://127.0.0.1:{plain}", f"enhanced=mllp://127.0.0.1:{enhanced}?enhanced=true")
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        async with started([tools.stub, *channels], Path(folder)) as child:
            yield int(await child.line()), plain, enhanced


def daemon(place: Place, folder: Path) -> AbstractAsyncContextManager[Child]:
    """`agent run`, unmodified and with its defaults; data in `folder`/data. The diagnostics port is a free one."""
    environ = {
        "PYTHONPATH": str(REPOSITORY),
        "AGENT_DIAGNOSTICS_LISTEN": f"127.0.0.1:{free_port()}",
        "MEDPLUM_BASE_URL": f"http://127.0.0.1:{place.server_port}/",
        "MEDPLUM_CLIENT_ID": "bench",
        "MEDPLUM_CLIENT_SECRET": "bench",
        "MEDPLUM_AGENT_ID": "bench",
    }
    if not place.uvloop:
        # the daemon takes uvloop when it is there: one that cannot be imported stands before it
        hidden = folder / "without"
        hidden.mkdir(exist_ok=True)
        (hidden / "uvloop.py").write_text("raise ImportError('hidden for this measurement')\n")
        environ["PYTHONPATH"] = f"{hidden}{os.pathsep}{REPOSITORY}"
    command = [sys.executable, "-m", "agent", "run", "--data-dir", str(folder / "data")]
    return started(command, folder, environ=environ, count_syncs=place.tools.countsync)


@contextlib.asynccontextmanager
async def _daemon(place: Place, load: Load) -> AsyncIterator[Running]:
    port = place.enhanced_port if load.enhanced else place.plain_port
    with tempfile.TemporaryDirectory(dir=place.scratch) as name:
        async with daemon(place, Path(name)) as child:
            await listening(child, port)
            yield child, port


@contextlib.asynccontextmanager
async def _bare(place: Place, load: Load) -> AsyncIterator[Running]:
    with tempfile.TemporaryDirectory(dir=place.scratch) as name:
        folder = Path(name)
        command = [sys.executable, str(HERE / "bare.py"), "--server-port", str(place.server_port)]
        command += ["--spool", str(folder / "spool.db"), *([] if place.uvloop else ["--no-uvloop"])]
        async with started(command, folder, count_syncs=place.tools.countsync) as child:
            yield child, int(await child.line())


@contextlib.asynccontextmanager
async def _serving(place: Place, load: Load, *, command: Callable[[], list[str]]) -> AsyncIterator[Running]:
    port = free_port()
    with tempfile.TemporaryDirectory(dir=place.scratch) as name:
        async with started([*command(), str(port)], Path(name)) as child:
            await listening(child, port)
            yield child, port


def _python_peer(name: str) -> list[str]:
    return [sys.executable, str(HERE / "peers.py"), name]


def npm_folder() -> Path:
    """Where npm's packages are, and our programs that use them."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "onprem-agent-benchmarks" / f"medplum-hl7-{NPM_VERSION}"


@functools.cache
def npm_missing() -> str:
    """Install @medplum/hl7 into the user's cache folder unless it is there; why that is not possible, or empty."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        return "Node.js is not installed"
    folder = npm_folder()
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "server.mjs", "clients.mjs"):
        shutil.copy(NPM / name, folder / name)
    if (folder / "node_modules" / "@medplum" / "hl7").is_dir():
        return ""
    command = [npm, "install", "--no-audit", "--no-fund", "--no-save", "--ignore-scripts", "--loglevel=error"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=180, check=False)
    except subprocess.TimeoutExpired:
        return "npm did not install it within three minutes"
    return "" if done.returncode == 0 else f"npm could not install it: {done.stderr.strip()[-200:]}"


def npm_program(name: str) -> list[str]:
    """The command that runs one of our programs for npm's packages. Raises CannotMeasure."""
    node = shutil.which("node")
    if node is None:
        raise CannotMeasure("Node.js has gone since the benchmark began: install it again")
    return [node, str(npm_folder() / name)]


def module_missing(name: str, package: str) -> str:
    """Why a Python package cannot be measured, or empty."""
    return "" if importlib.util.find_spec(name) else f"{package} is not installed: pip install {name}"


DAEMON = Subject("daemon", _daemon)
BARE = Subject("bare limit", _bare, takes=lambda load: not load.enhanced)
PEERS = (
    Subject(
        "npm @medplum/hl7",
        functools.partial(_serving, command=functools.partial(npm_program, "server.mjs")),
        takes=lambda load: not load.enhanced,
        missing=npm_missing,
    ),
    Subject(
        "python-hl7",
        functools.partial(_serving, command=functools.partial(_python_peer, "python-hl7")),
        takes=lambda load: not load.enhanced,
        missing=functools.partial(module_missing, "hl7", "python-hl7"),
    ),
    Subject(
        "hl7apy",
        functools.partial(_serving, command=functools.partial(_python_peer, "hl7apy")),
        takes=lambda load: not load.enhanced and load.window == 1,
        missing=functools.partial(module_missing, "hl7apy", "hl7apy"),
        one_each=True,
    ),
)
