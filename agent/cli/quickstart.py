"""`agent quickstart`: a hospital, an agent and a server on one machine, in one minute.

Secret: how the three are started, wired by free loopback ports, watched, and taken down again.
Promise: nothing outside this machine is touched, nothing is left running or lying about unless asked for; what is shown
was measured, and a difference between what was sent and what the server has is a failure (exit 1).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import secrets
import shutil
import socket
import sys
import tempfile
import textwrap
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from agent.cli.progress import REDRAW_S, ProgressLine
from agent.cli.quantities import positive, whole
from agent.errors import AgentError

if TYPE_CHECKING:
    from agent.ward.sender import Sender
    from agent.ward.tally import Tally

START_WITHIN_S = 20.0
STOP_WITHIN_S = 12.0
LABEL_CELLS = 11
EXAMPLES = """\
examples:
  agent quickstart                         three thousand messages of a simulated hospital
  agent quickstart --keep                  the same, and everything stays up until Ctrl-C
  agent quickstart --feed recorded/        your own HL7 files instead, framed or not, any line ends
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "quickstart",
        help="try everything on this machine: server, agent and a simulated hospital",
        description="Start the embedded server, the agent and a simulated hospital on free loopback ports, send its "
        "messages, and show how the agent is.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--keep", action="store_true", help="leave server and agent up until Ctrl-C, and say what to try next")
    add("--feed", type=Path, metavar="PATH", help="a file or folder of HL7 messages instead of the simulated hospital")
    add("--count", type=whole, default=3_000, metavar="N", help="simulated messages (default: %(default)s)")
    add("--rate", type=positive, default=500.0, metavar="R", help="messages a second (default: 500)")
    add("--data-dir", type=Path, metavar="DIR", help="keep the data of both here (default: a temporary folder)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0: every message was acknowledged and is on the server; 1: not so."""
    if args.feed is not None and not args.feed.exists():
        print(f"agent quickstart: there is no {args.feed}; check the spelling and the folder", file=sys.stderr)
        return 2
    folder = args.data_dir or Path(tempfile.mkdtemp(prefix="onprem-agent-"))
    try:
        return asyncio.run(_Quickstart(args, folder.absolute()).run())
    except KeyboardInterrupt:
        print("\nstopped")
        return 130
    finally:
        if args.data_dir is None:
            shutil.rmtree(folder, ignore_errors=True)


class NotStarted(AgentError):
    """One of the three did not come up."""


@dataclass(slots=True)
class _Account:
    """What was handed to the senders, by kind."""

    kinds: Counter[str] = field(default_factory=Counter)

    def of(self, bodies: Iterator[tuple[str, bytes]]) -> Iterator[bytes]:
        for kind, body in bodies:
            self.kinds[kind] += 1
            yield body


class _Quickstart:
    def __init__(self, args: argparse.Namespace, folder: Path) -> None:
        self._args = args
        self._folder = folder
        self._account = _Account()

    async def run(self) -> int:
        port = _free_port()
        async with contextlib.AsyncExitStack() as everything:
            _say("server", "starting the embedded hub")
            values = await self._hub(everything, f"mllp://127.0.0.1:{port}")
            _say("server", f"{values['baseUrl']} answers, Agent/{values['agentId']} is ready")
            await self._agent(everything, values)
            _say("agent", f"live, listening on mllp://127.0.0.1:{port}")
            tally, status = await self._feed(port)
            self._tell(tally, status)
            received = status["spool"]["countsByState"]["processed"]
            well = tally.all_positive and received >= tally.sent > 0
            if self._args.keep:
                self._try_next(values, port)
                await asyncio.Event().wait()
            elif well:
                print("\nTry next:")
                print("  agent quickstart --keep       the same, and server and agent stay up")
                print("  agent quickstart --feed DIR   your own HL7 files instead")
                print("  agent --help                  everything else")
            return 0 if well else 1

    # ---- the three

    async def _hub(self, everything: contextlib.AsyncExitStack, address: str) -> dict[str, str]:
        words = ["hub", "--json", "--listen", "127.0.0.1:0", "--data-dir", str(self._folder / "hub")]
        hub = await everything.enter_async_context(
            _process("hub", [*words, "--channel-address", address], {}, self._folder)
        )
        assert hub.stdout is not None
        try:
            async with asyncio.timeout(START_WITHIN_S):
                line = await hub.stdout.readline()
        except TimeoutError:
            line = b""
        if not line:
            raise _not_started("hub", self._folder)
        values: dict[str, str] = msgspec.json.decode(line)
        return values

    async def _agent(self, everything: contextlib.AsyncExitStack, values: dict[str, str]) -> None:
        environ = {
            "MEDPLUM_BASE_URL": values["baseUrl"],
            "MEDPLUM_CLIENT_ID": values["clientId"],
            "MEDPLUM_CLIENT_SECRET": values["clientSecret"],
            "MEDPLUM_AGENT_ID": values["agentId"],
            "AGENT_DIAGNOSTICS_LISTEN": f"127.0.0.1:{_free_port()}",
            "AGENT_LOG_CONSOLE": "never",
        }
        words = ["run", "--data-dir", str(self._folder / "agent")]
        agent = await everything.enter_async_context(_process("agent", words, environ, self._folder))
        try:
            async with asyncio.timeout(START_WITHIN_S):
                while not _is_up(await self._status()):
                    if agent.returncode is not None:
                        raise _not_started("agent", self._folder)
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise _not_started("agent", self._folder) from None

    async def _status(self) -> dict[str, Any]:
        from agent.cli.status import gather
        from agent.settings import read

        options = {"data_dir": str(self._folder / "agent")}
        return await gather(read(options, os.environ, self._folder))

    async def _feed(self, port: int) -> tuple[Tally, dict[str, Any]]:
        from agent.ward.destination import Destination
        from agent.ward.sender import Pace, Sender

        feeds = self._bodies()
        count = self._args.count if self._args.feed is None else None
        pace = Pace(connections=len(feeds), count=count, rate_per_s=self._args.rate)
        sender = Sender(Destination.parse(f"127.0.0.1:{port}"), feeds, pace)
        with ProgressLine(sys.stderr) as progress:
            async with asyncio.TaskGroup() as work:
                ticker = work.create_task(_progress(sender, progress, count), name="progress")
                tally = await sender.run()
                ticker.cancel()
        await self._settled(tally.sent)
        return tally, await self._status()

    async def _settled(self, sent: int) -> None:
        """Until the agent has written down that everything was answered; a moment after the last acknowledgement."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                while sum((await self._status())["spool"]["countsByState"].values()) < sent:
                    await asyncio.sleep(0.1)
                await asyncio.sleep(0.2)

    def _bodies(self) -> list[Iterator[bytes]]:
        """One feed a connection: a system of the simulated hospital each, or all of the files on one."""
        if self._args.feed is None:
            from agent.ward.feed import feeds
            from agent.ward.story import System

            return [
                self._account.of((message.kind, message.body) for message in feed)
                for feed in feeds(secrets.randbits(32), len(System))
            ]
        return [self._account.of(_from_files(self._args.feed))]

    # ---- what is said

    def _tell(self, tally: Tally, status: dict[str, Any]) -> None:
        from agent.cli.status import show

        kinds = ", ".join(f"{kind} {number:,}" for kind, number in sorted(self._account.kinds.items()))
        wrapped = textwrap.wrap(kinds, shutil.get_terminal_size().columns - LABEL_CELLS - 1)
        answers = ", ".join(f"{code} {number:,}" for code, number in sorted(tally.answers.items())) or "none"
        _say("feed", f"{tally.sent:,} messages in {tally.elapsed_s:.1f} s, {tally.rate_per_s:,.0f} answered a second")
        for line in wrapped:
            _say("", line)
        _say("answers", f"{answers}; p50 {tally.latency.p50_ms:.1f} ms, p95 {tally.latency.p95_ms:.1f} ms")
        for failure in tally.failures:
            _say("", f"{failure.control_id or '(no control id)'}: {failure.reason}")
        delivered = status["spool"]["countsByState"]["processed"]
        _say("delivered", f"{delivered:,} of {tally.sent:,} are on the server, each stored on disk before its ACK")
        print("\nagent status\n")
        show(status)

    def _try_next(self, values: dict[str, str], port: int) -> None:
        print(
            f"\nServer and agent stay up until Ctrl-C. Try next, in another terminal:\n"
            f"  agent status --watch --data-dir {self._folder / 'agent'}\n"
            f"  agent send --generate --count 1000 --connections 10 --to 127.0.0.1:{port}\n"
            f"  agent send YOUR.hl7 --to 127.0.0.1:{port}\n"
            f"  agent messages list --data-dir {self._folder / 'agent'}\n"
            f"  agent messages show 1 --data-dir {self._folder / 'agent'}\n"
            f"  agent doctor --port {port} --data-dir {self._folder / 'agent'}\n"
            "\nThe server is the embedded hub, for trying out; a real one is another base URL, client and Agent:"
        )
        for name in ("baseUrl", "clientId", "clientSecret", "agentId"):
            print(f"  {name}={values[name]}", flush=True)


@contextlib.asynccontextmanager
async def _process(
    name: str, words: list[str], environ: dict[str, str], folder: Path
) -> AsyncIterator[asyncio.subprocess.Process]:
    """`agent WORDS` as a process of its own; its stderr goes to a file, and it ends with the context."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.err").open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "agent", *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE if name == "hub" else asyncio.subprocess.DEVNULL,
            stderr=errors,
            env={**os.environ, **environ},
        )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                async with asyncio.timeout(STOP_WITHIN_S):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()


async def _progress(sender: Sender, progress: ProgressLine, count: int | None) -> None:
    of = f"/{count:,}" if count else ""
    while progress.live:
        tally = sender.tally()
        progress.show(
            f"feed       {tally.sent:,}{of} messages | {tally.rate_per_s:,.0f} a second | "
            f"ACKs {tally.positive:,} | p95 {tally.latency.p95_ms:.1f} ms"
        )
        await asyncio.sleep(REDRAW_S)


def _from_files(path: Path) -> Iterator[tuple[str, bytes]]:
    from agent.protocol.hl7 import Header, NotHl7
    from agent.ward.files import Found, read_messages

    for item in read_messages([path]):
        if not isinstance(item, Found):
            print(f"agent quickstart: {item}", file=sys.stderr)
            continue
        try:
            header = Header.of(item.body)
            kind = b"^".join(filter(None, (header.code, header.trigger))).decode("ascii", "replace")
        except NotHl7:
            kind = "not HL7"
        yield kind or "no type", item.body


def _is_up(status: dict[str, Any]) -> bool:
    channels = status["channels"]
    return bool(status["server"]["live"] and channels and all(c["state"] == "listening" for c in channels))


def _not_started(name: str, folder: Path) -> NotStarted:
    said = (folder / f"{name}.err").read_text(errors="replace").strip().splitlines()
    return NotStarted(f"the {name} did not start: {said[-1] if said else 'it said nothing'}")


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _say(label: str, text: str) -> None:
    print(f"{label:<{LABEL_CELLS}}{text}", flush=True)
