"""What every benchmark here does around its measurements: options, facts about the machine, one output, one end.

Secret: how a run ends: by itself, by Ctrl-C, or by a sentence that says why nothing can be measured.
Promise: whatever ends it, everything that was started has ended before it.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import importlib.util
import json
import os
import platform
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from gauges import MESSAGE_BYTES, CannotMeasure, require_disk

Results = TypeVar("Results")


def arguments(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options that all benchmarks have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one measurement (2)")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of everything; medians are shown (3)")
    parser.add_argument("--no-uvloop", action="store_true", help="our own subjects on the standard event loop")
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()), help="a folder on a disk")
    parser.add_argument("--json", action="store_true", help="the same as one JSON object")
    return parser


def check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse what cannot be measured."""
    if args.seconds <= 0 or args.rounds < 1:
        parser.error("seconds and rounds are above zero")


def numbers(parser: argparse.ArgumentParser, option: str, text: str) -> tuple[int, ...]:
    """Whole numbers above zero between commas."""
    try:
        found = tuple(int(number) for number in text.split(","))
    except ValueError:
        found = (0,)
    if min(found) < 1:
        parser.error(f"{option} takes whole numbers above zero between commas, as 1,10,100")
    return found


def has_uvloop(args: argparse.Namespace) -> bool:
    """Whether our own subjects run on uvloop."""
    return not args.no_uvloop and importlib.util.find_spec("uvloop") is not None


def facts(scratch: Path, *, uvloop: bool) -> dict[str, str]:
    """What an absolute number means nothing without."""
    names = ("uvloop", "apsw", "msgspec", "websockets")
    versions = [f"{name} {importlib.metadata.version(name)}" for name in names if importlib.util.find_spec(name)]
    return {
        "messages": f"{MESSAGE_BYTES} bytes, synchronous=FULL, {'uvloop' if uvloop else 'standard event loop'}",
        "machine": f"{os.cpu_count()} processors, {platform.system()} {platform.release()},"
        f" {require_disk(scratch)}, load average {os.getloadavg()[0]:.1f}",
        "software": f"Python {platform.python_version()}, {', '.join(versions)}",
    }


def run(
    benchmark: Callable[[], Awaitable[Results]],
    *,
    for_people: Callable[[Results], str],
    for_programs: Callable[[Results], dict[str, Any]] | None,
) -> int:
    """Measure and print, for a program where that is not None; the exit status."""
    try:
        results = asyncio.run(_until_stopped(benchmark))
    except CannotMeasure as reason:
        print(f"benchmark: {reason}", file=sys.stderr)
        return 1
    except asyncio.CancelledError:
        print("benchmark: stopped", file=sys.stderr)
        return 130
    print(for_people(results) if for_programs is None else json.dumps(for_programs(results), indent=2))
    return 0


async def _until_stopped(benchmark: Callable[[], Awaitable[Results]]) -> Results:
    """Ended by Ctrl-C or SIGTERM: what was started ends with it."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    return await benchmark()
