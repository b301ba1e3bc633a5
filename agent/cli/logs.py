"""`agent logs`: show this host's logs, and go on as lines are written.

Secret: where the showing begins, and how lines get onto a terminal, into a pipe and into a script.
Promise: read-only, with the daemon at work or down; nothing that was logged can steer the terminal; with `-f` no line
is left out, through rotation and midnight. The main log holds no patient data, the channel log does.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from agent.cli.moments import at, moment
from agent.cli.quantities import whole
from agent.cli.setting_options import add_settings_options, reading_from
from agent.errors import AgentError
from agent.logbook import CHANNEL_STEM, MAIN_STEM
from agent.logfile import Follower, lines_backwards, list_files
from agent.loglines import DISORDER, THRESHOLDS, harmless, local, moment_of, parse, readable, stamp_of

if TYPE_CHECKING:
    from agent.settings import Reading

_Show = Callable[[bytes, dict[str, Any]], None]

_LINES: Final = 50
_LOOK_S: Final = 0.25
_LEVELS: Final = {name.lower(): name for name in THRESHOLDS if name != "NONE"}
_EXAMPLE: Final = """\
examples:
  agent logs
  agent logs -f
  agent logs --level warn --since 12h
  agent logs -n 200 --since 03:00
  agent logs --channel -f                  messages and answers: patient data
  agent logs --since 1d --json | jq 'select(.msg == "uplink.lost")'

times are local: 03:00 is the last time the clock said so, 2026-11-22T03:00 a moment, 2h, 30min or 7d so long ago.
exit status: 0, also after Ctrl-C; 1 there is no such log, or it may not be read; 2 wrong usage.
"""


class NoLog(AgentError):
    """There is nothing to show."""


class Locked(AgentError):
    """The log may not be read."""

    hint = "run this as the user of the agent's service, or as an administrator"


def register(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "logs",
        help="show or follow this host's log; --channel: that of the messages",
        description="Show the end of this host's main log, oldest line first. Works with the agent running or not.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "-n", "--lines", type=whole, metavar="N", help=f"the last N lines (default {_LINES}; with --since: all)"
    )
    parser.add_argument("-f", "--follow", action="store_true", help="show what is written from now on, until Ctrl-C")
    parser.add_argument(
        "--channel", action="store_true", help="the log of messages and answers instead: it holds PATIENT DATA"
    )
    parser.add_argument(
        "--level", type=str.lower, choices=list(_LEVELS), metavar="LEVEL", help="debug, info, warn or error, and above"
    )
    parser.add_argument("--since", type=moment, metavar="TIME", help="lines of then or later")
    parser.add_argument(
        "--json", action="store_true", help="print the lines as they are in the file, one JSON object each"
    )
    add_settings_options(parser)


@dataclass(frozen=True, slots=True)
class _Log:
    """`kind`: in words."""

    kind: str
    folder: Path
    stem: str
    off: bool


@dataclass(frozen=True, slots=True)
class _Wanted:
    """`since`: a stamp, or empty."""

    threshold: int
    since: str

    def line(self, raw: bytes) -> dict[str, Any] | None:
        """The line, if it is a whole one and wanted."""
        line = parse(raw)
        if line is None or line["timestamp"] < self.since or THRESHOLDS.get(line["level"], 1_000) < self.threshold:
            return None
        return line


def run(args: argparse.Namespace) -> int:
    log = _chosen(reading_from(args), channel=args.channel)
    since = stamp_of(at(args.since, datetime.now().astimezone())) if args.since is not None else ""
    wanted = _Wanted(THRESHOLDS[_LEVELS[args.level]] if args.level else 0, since)
    count = args.lines if args.lines is not None or since else _LINES
    show = _raw if args.json else _for_people()
    with _told(log):
        if not _files(log):
            _tell_nothing(log, follows=args.follow)
        follower = Follower(log.folder, log.stem, _begin(log, wanted, count))
        _show(follower, wanted, show)
        if args.follow:
            with contextlib.suppress(KeyboardInterrupt):  # the way to leave
                asyncio.run(_follow(follower, wanted, show))
    return 0


def _chosen(reading: Reading, *, channel: bool) -> _Log:
    folder = reading.paths.logs_dir
    if not channel:
        return _Log("main", folder, MAIN_STEM, off=False)
    chosen = reading.values["log.channel.dir"]
    off = reading.values["log.channel.enabled"] is False
    return _Log("channel", chosen if isinstance(chosen, Path) else folder, CHANNEL_STEM, off)


# ---- from the files


def _begin(log: _Log, wanted: _Wanted, count: int | None) -> tuple[Path, int] | None:
    """File and offset where the last `count` wanted lines begin (None: all of them); None: there are none."""
    left = count
    place: tuple[Path, int] | None = None
    enough = stamp_of(moment_of(wanted.since) - DISORDER) if wanted.since else ""
    for path in reversed(_files(log)):
        with contextlib.suppress(FileNotFoundError):  # pruned meanwhile
            for offset, raw in lines_backwards(path):
                line = parse(raw)
                if line is not None and line["timestamp"] < enough:
                    return place if place is not None else (path, offset + len(raw) + 1)
                if wanted.line(raw) is not None:
                    place = (path, offset)
                    if left is not None and (left := left - 1) == 0:
                        return place
    return place


def _files(log: _Log) -> list[Path]:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        os.scandir(log.folder).close()  # the list of files keeps silent about a folder that may not be looked into
    return list_files(log.folder, log.stem)


@contextlib.contextmanager
def _told(log: _Log) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except PermissionError as denied:
        raise Locked(f"you may not read the {log.kind} log in {log.folder}") from denied
    except OSError as failed:
        where = failed.filename or log.folder
        raise NoLog(
            f"the {log.kind} log cannot be read at {where}: {failed.strerror}", hint="look at that path"
        ) from None


def _tell_nothing(log: _Log, *, follows: bool) -> None:
    text = f"there is no {log.kind} log in {log.folder} ({log.stem}-YYYY-MM-DD.log)"
    if log.off:
        raise NoLog(text, hint="set log.channel.enabled = true and restart the agent to keep one")
    if not follows:
        raise NoLog(text, hint="it begins when the agent runs; --data-dir or --config say where else to look")
    print(f"agent: {text}: waiting for it", file=sys.stderr)


# ---- onto the screen


def _show(follower: Follower, wanted: _Wanted, show: _Show) -> None:
    for raw in follower.read():
        if (line := wanted.line(raw)) is not None:
            show(raw, line)
    sys.stdout.flush()


async def _follow(follower: Follower, wanted: _Wanted, show: _Show) -> None:
    while True:
        await asyncio.sleep(_LOOK_S)
        _show(follower, wanted, show)


def _raw(raw: bytes, _: dict[str, Any]) -> None:
    if sys.stdout.isatty():
        print(harmless(raw.decode("utf-8", "replace")))
    else:
        sys.stdout.buffer.write(raw + b"\n")


def _for_people() -> _Show:
    colours = sys.stdout.isatty() and sys.platform != "win32" and not os.environ.get("NO_COLOR")

    def show(_: bytes, line: dict[str, Any]) -> None:
        print(readable(line, local(line["timestamp"]), colours=colours))

    return show
