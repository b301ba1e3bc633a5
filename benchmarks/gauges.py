"""Read what a process costs while it works.

Secret: the C programs beside this file and how they are built, `/proc`, and the counters of the fsync shim.
Promise: a reading is taken while the senders measure and over exactly that time; nothing started here outlives the
`async with` that started it, whatever ends that.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCES = HERE / "native"
MESSAGE_BYTES = 1024
WARM_S = 0.7
END_WITHIN_S = 12.0  # a daemon grants its last messages ten seconds
_TICKS_PER_S = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_MEMORY_ONLY = {"tmpfs", "ramfs", "devtmpfs"}


class CannotMeasure(Exception):
    """A sentence for the person who asked, with what to do."""


@dataclass(frozen=True, slots=True)
class Load:
    """`connections` senders with `window` unanswered messages each; `enhanced`: a CA and an AA for each message."""

    connections: int
    window: int = 1
    enhanced: bool = False

    def __str__(self) -> str:
        label = f"{self.connections:,}" + (f" × {self.window}" if self.window > 1 else "")
        return label + (" enhanced" if self.enhanced else "")


@dataclass(frozen=True, slots=True)
class Reading:
    """One measurement. `cpu_us`, `fsyncs` are per message, `fsync_ms` per call; None where nobody counted."""

    rate: float
    p50_ms: float
    p99_ms: float
    commit_p50_ms: float
    longest_silence_ms: float
    cpu_us: float | None
    fsyncs: float | None
    fsync_ms: float | None
    rss_mb: float
    errors: int
    refused: int
    reconnects: int


@dataclass(frozen=True, slots=True)
class Tools:
    """The compiled C programs."""

    stub: Path
    senders: Path
    receivers: Path
    pushes: Path
    countsync: Path


def compile_tools(into: Path) -> Tools:
    """Build the C programs into `into`. Raises CannotMeasure."""
    if not sys.platform.startswith("linux"):
        raise CannotMeasure("the benchmark reads /proc and speaks epoll: run it on Linux")
    names = (os.environ.get("CC") or "cc", "cc", "gcc", "clang")
    compiler = next((found for name in names if (found := shutil.which(name))), None)
    if compiler is None:
        raise CannotMeasure("there is no C compiler for the far ends: install gcc or clang, or name one in CC")
    tools = Tools(into / "stub", into / "senders", into / "receivers", into / "pushes", into / "countsync.so")
    for path in (tools.stub, tools.senders, tools.receivers, tools.pushes, tools.countsync):
        source = SOURCES / f"{path.stem}.c"
        options = ("-shared", "-fPIC") if path is tools.countsync else ()
        done = subprocess.run(
            [compiler, "-O2", "-o", path, source, *options, "-ldl"], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise CannotMeasure(f"{source.name} does not compile with {compiler}:\n{done.stderr}")
    return tools


def filesystem_of(path: Path) -> str:
    """The type of the filesystem that holds `path`, as the kernel names it."""
    best, kind = "", "unknown"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        mounted = before.split()[4]
        if path.resolve().is_relative_to(mounted) and len(mounted) >= len(best):
            best, kind = mounted, after.split()[0]
    return kind


def require_disk(path: Path) -> str:
    """The filesystem of `path`. Raises CannotMeasure if that lives in memory: an fsync there costs nothing."""
    kind = filesystem_of(path)
    if kind in _MEMORY_ONLY:
        raise CannotMeasure(f"{path} is on {kind}, where an fsync costs nothing: name a disk with --scratch")
    return kind


class Child:
    """A process that we started. `syncs_file`: where the shim counts its fsyncs."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path, syncs_file: Path | None) -> None:
        self.pid = process.pid
        self.process = process
        self._log = log
        self._syncs_file = syncs_file

    async def line(self, within_s: float = 10.0) -> str:
        """The next line of its output. Raises CannotMeasure if it ends or stays silent."""
        assert self.process.stdout is not None
        try:
            async with asyncio.timeout(within_s):
                text = (await self.process.stdout.readline()).decode().strip()
        except TimeoutError:
            raise CannotMeasure(f"a process stayed silent for {within_s:g} s: {self.last_words()}") from None
        if not text:
            raise CannotMeasure(f"a process ended early: {self.last_words()}")
        return text

    def close_stdin(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def last_words(self) -> str:
        return self._log.read_text(errors="replace")[-800:].strip() or "it said nothing"

    def cpu_s(self) -> float:
        """User and system time so far, all threads."""
        fields = self._proc("stat").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S

    def rss_mb(self) -> float:
        found = re.search(r"^VmRSS:\s*(\d+) kB", self._proc("status"), re.MULTILINE)
        return int(found[1]) / 1024 if found else 0.0

    def _proc(self, name: str) -> str:
        try:
            return Path(f"/proc/{self.pid}/{name}").read_text()
        except (FileNotFoundError, ProcessLookupError):
            raise CannotMeasure(f"a process ended while it was measured: {self.last_words()}") from None

    def syncs(self) -> tuple[int, int]:
        """(calls of fsync and fdatasync, nanoseconds in them) since the start."""
        if self._syncs_file is None:
            return 0, 0
        calls, spent_ns = struct.unpack("=QQ", self._syncs_file.read_bytes()[:16])
        return calls, spent_ns

    @property
    def counts_syncs(self) -> bool:
        return self._syncs_file is not None


@contextlib.asynccontextmanager
async def started(
    command: Sequence[str | Path],
    folder: Path,
    *,
    environ: dict[str, str] | None = None,
    count_syncs: Path | None = None,
) -> AsyncIterator[Child]:
    """Run `command` in `folder`; at the end it is asked to stop, and killed if it does not. `count_syncs`: the shim."""
    env = {name: os.environ[name] for name in ("PATH", "LANG", "LD_LIBRARY_PATH") if name in os.environ}
    env |= {"HOME": str(folder)} | (environ or {})
    syncs_file = None
    if count_syncs is not None:
        syncs_file = folder / "syncs"
        env |= {"LD_PRELOAD": str(count_syncs), "COUNTSYNC_FILE": str(syncs_file)}
    log = folder / "stderr"
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=folder,
            env=env,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            start_new_session=True,  # Ctrl-C is for us; we end the others in order
        )
    try:
        yield Child(process, log, syncs_file)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGTERM)  # send_signal would reap a dead one behind asyncio's back
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(END_WITHIN_S):
                    await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()


async def listening(child: Child, port: int, *, within_s: float = 20.0, every_s: float = 0.02) -> None:
    """Until `port` accepts a connection. Raises CannotMeasure."""
    try:
        async with asyncio.timeout(within_s):
            while True:
                if child.process.returncode is not None:
                    raise CannotMeasure(f"a process ended before it listened: {child.last_words()}")
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    await writer.wait_closed()
                    return
                await asyncio.sleep(every_s)
    except TimeoutError:
        raise CannotMeasure(f"a process did not listen within {within_s:g} s: {child.last_words()}") from None


async def measure(
    tools: Tools, folder: Path, child: Child, port: int, load: Load, seconds: float, *, one_each: bool = False
) -> Reading:
    """Send to `port` for `seconds` after a warm-up, and read what `child` spends meanwhile.

    `one_each`: a new connection for every message.
    """
    command = [str(tools.senders), str(port), "--connections", str(load.connections), "--window", str(load.window)]
    command += ["--seconds", str(seconds), "--warm", str(WARM_S), "--size", str(MESSAGE_BYTES)]
    if load.enhanced:
        command.append("--enhanced")
    if one_each:
        command.append("--one-each")
    async with started(command, folder) as senders:
        await senders.line()
        cpu_s, (syncs, spent_ns) = child.cpu_s(), child.syncs()
        found = json.loads(await senders.line(seconds + 20.0))
        cpu_s, (syncs_after, spent_after_ns) = child.cpu_s() - cpu_s, child.syncs()
        rss_mb = child.rss_mb()
    answered, calls = found["answered"], syncs_after - syncs
    return Reading(
        rate=found["rate"],
        p50_ms=found["p50_us"] / 1000,
        p99_ms=found["p99_us"] / 1000,
        commit_p50_ms=found["commit_p50_us"] / 1000,
        longest_silence_ms=found["quiet_us"] / 1000,
        cpu_us=cpu_s / answered * 1e6 if answered else None,
        fsyncs=calls / answered if child.counts_syncs and answered else None,
        fsync_ms=(spent_after_ns - spent_ns) / calls / 1e6 if calls else None,
        rss_mb=rss_mb,
        errors=found["errors"],
        refused=found["refused"],
        reconnects=found["reconnects"],
    )
