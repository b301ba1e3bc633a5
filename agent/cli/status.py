"""`agent status`: ask the daemon how it is; if nobody answers, read the spool and say so.

Secret: where the facts come from, and how the screen gets onto a terminal, into a file or into a script.
Promise: an answer whatever the daemon's state, exit status 0 well, 1 a problem was found, 3 not running.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import shutil
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from agent import __version__
from agent.cli.drawing import as_text, draw
from agent.cli.lines import plain
from agent.cli.setting_options import add_settings_options, reading_from
from agent.cli.status_screen import compose, exit_status, read
from agent.errors import Finding, Severity, StoreError
from agent.net.control import NoAnswer, NotRunning, ask
from agent.status import offline, to_builtins
from agent.store.peek import read_status

if TYPE_CHECKING:
    from agent.settings import Reading

_WATCH_S = 2.0
_EXAMPLE = """\
examples:
  agent status
  agent status --watch 5
  agent status --json | jq .findings

exit status: 0 well, 1 a problem was found, 3 the agent is not running
"""


def register(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "status",
        help="one screen: server link, channels, remotes, spool, findings",
        description="Show how the agent is. With the agent down, show what its spool holds.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--watch",
        nargs="?",
        type=_seconds,
        const=_WATCH_S,
        metavar="SECONDS",
        help=f"show it again every SECONDS (default {_WATCH_S:g}) until Ctrl-C",
    )
    add_settings_options(parser)


def run(args: argparse.Namespace) -> int:
    reading = reading_from(args)
    if args.watch is not None:
        with contextlib.suppress(KeyboardInterrupt):  # the way to leave
            asyncio.run(_watch(reading, args.watch, as_json=args.json))
        return 0
    status = asyncio.run(gather(reading))
    if args.json:
        print(msgspec.json.encode(status).decode())
    else:
        show(status)
    return exit_status(read(status))


async def gather(reading: Reading, *, within_s: float = 5.0) -> dict[str, Any]:
    """The object of `agent status --json`: the daemon's own, or what can be told without it."""
    try:
        status: dict[str, Any] = await ask(reading.paths.control, "status", timeout_s=within_s)
    except NotRunning as away:
        found = Finding("agent.not-running", Severity.ERROR, str(away), away.hint)
        return _without_daemon(reading, [found, *reading.errors], running=False)
    except NoAnswer as silent:
        found = Finding("agent.no-answer", Severity.ERROR, str(silent), silent.hint)
        return _without_daemon(reading, [found], running=True)
    return status


def _without_daemon(reading: Reading, findings: list[Finding], *, running: bool) -> dict[str, Any]:
    spool: Mapping[str, Any] = {"path": str(reading.paths.spool)}
    try:
        spool = read_status(reading.paths.spool)
    except StoreError as unread:
        findings.append(Finding("spool.not-read", Severity.WARNING, str(unread), unread.hint))
    url = str(reading.values.get("server.base_url") or "")
    return to_builtins(offline(__version__, spool, url=url, findings=findings)) | {"running": running}


def show(status: Mapping[str, Any]) -> None:
    """The screen of one status, drawn for a terminal or plain for anything else."""
    report = read(status)
    if not sys.stdout.isatty():
        draw(compose(report, now_s=time.time()))
        return
    window = shutil.get_terminal_size()
    draw(compose(report, now_s=time.time(), width=window.columns, height=window.lines - 1))


async def _watch(reading: Reading, interval_s: float, *, as_json: bool) -> None:
    if as_json or not sys.stdout.isatty():
        while True:
            status = await gather(reading)
            if as_json:
                print(msgspec.json.encode(status).decode(), flush=True)
            else:
                print(plain(compose(read(status), now_s=time.time())), end="\n\n", flush=True)
            await asyncio.sleep(interval_s)
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False)
    with Live(console=console, screen=True, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            report = read(await gather(reading))
            lines = compose(report, now_s=time.time(), width=console.width, height=console.height)
            live.update(as_text(lines), refresh=True)
            await asyncio.sleep(interval_s)


def _seconds(word: str) -> float:
    try:
        seconds = float(word)
    except ValueError:
        seconds = 0.0
    if not 0.2 <= seconds <= 86_400:
        raise argparse.ArgumentTypeError(f"{word!r} is no number of seconds from 0.2 to 86400")
    return seconds
