"""`agent doctor`: what is wrong with this host, and what to do about it.

Secret: how checks become lines, and how those come onto a terminal while others still look.
Promise: an answer in some fifteen seconds whatever hangs, with the daemon down and with a broken configuration; nothing
is changed. Exit 0 if no finding is an error, else 1.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import json
import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from agent.cli.drawing import drawn
from agent.cli.lines import Line, Tone, clean, fitted
from agent.cli.progress import ProgressLine
from agent.cli.setting_options import add_settings_options, reading_from, settings_from
from agent.errors import ConfigError, Finding, Severity

if TYPE_CHECKING:
    from agent.diagnostics import Check, Host, Result
    from agent.diagnostics.callers import Caller, PortStory
    from agent.settings import Settings

_EXAMPLE = """\
examples:
  agent doctor
  agent doctor --port 2575                why do bytes arriving there make no messages?
  agent doctor --json | jq .findings
  agent doctor --config /etc/onprem-agent/config.toml --data-dir /var/lib/onprem-agent

Run it as the agent's user, or as an administrator: others are not told everything.
exit status: 0 no finding is an error, 1 otherwise
"""
_ENDLESS: Final = 100_000
_MARK_CELLS: Final = 5
_NAME_CELLS: Final = 15
_MARKS: Mapping[Severity | None, tuple[str, Tone]] = {
    None: ("ok", Tone.GOOD),
    Severity.INFO: ("ok", Tone.GOOD),
    Severity.WARNING: ("warn", Tone.WARNING),
    Severity.ERROR: ("FAIL", Tone.BAD),
}
_TONES: Mapping[Severity, Tone] = {
    Severity.INFO: Tone.PLAIN,
    Severity.WARNING: Tone.WARNING,
    Severity.ERROR: Tone.BAD,
}


def register(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "doctor",
        help="every check with its remedy; --port explains why bytes are no messages",
        description="Look at everything that keeps messages from being carried, and say what to do. Changes nothing.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--port", type=_port, metavar="N", help="tell what was sent to this port, and why it made no messages"
    )
    add_settings_options(parser)


def run(args: argparse.Namespace) -> int:
    with _quiet_logs():
        return asyncio.run(_look(args))


async def _look(args: argparse.Namespace) -> int:
    from agent.diagnostics import Host, ask_daemon
    from agent.diagnostics.aside import Unwaited
    from agent.diagnostics.callers import look_at_port

    # a name lookup that hangs would be waited for at the end of the process, if it were in the loop's own pool
    asyncio.get_running_loop().set_default_executor(Unwaited())
    reading = reading_from(args)
    host = Host.of(reading, _settings(args), os.environ, await ask_daemon(reading.paths))
    if args.port is not None:
        story = await look_at_port(host, args.port)
        if args.json:
            print(json.dumps(_port_json(story), ensure_ascii=False))
        else:
            _Paper().write(port_lines(story, _width()))
        return _exit_status(story.findings)
    results = await _examine(host, as_json=args.json)
    findings = [finding for result in results for finding in result.findings]
    if args.json:
        print(json.dumps(_json(results, findings), ensure_ascii=False))
    else:
        _Paper().write([(), *verdict(findings, _width())])
    return _exit_status(findings)


async def _examine(host: Host, *, as_json: bool) -> list[Result]:
    """All results in the order of the table, what was told by an earlier one left out; shown as they come in."""
    from agent.diagnostics import examine, table

    checks = table()
    known: dict[str, Result] = {}
    shown: list[Result] = []
    paper = None if as_json else _Paper()

    def told(result: Result) -> None:
        known[result.code] = result
        for check in checks[len(shown) :]:  # a later one waits for its turn, so that two runs look alike
            if check.code not in known:
                break
            fresh = known[check.code].without(f for earlier in shown for f in earlier.findings)
            shown.append(fresh)
            if paper is not None:
                paper.write(check_lines(fresh, _width()))
        if paper is not None:
            paper.wait_for([check for check in checks if check.code not in known])

    with paper or contextlib.nullcontext():
        await examine(host, checks, told=told)
    return shown


# ---- words


def check_lines(result: Result, width: int) -> list[Line]:
    """One check: how it is, then each problem with what to do."""
    gravest = _gravest(result.findings)
    mark = _MARKS[gravest] if result.looked else ("-", Tone.QUIET)
    lines = _entry(mark, result.code, result.text, width, Tone.PLAIN if result.looked else Tone.QUIET)
    for number, finding in enumerate(result.findings):
        said = finding.text == result.text and not number  # the line above says it already
        if not said:
            lines += _indented(_found(finding), _TONES[finding.severity], width)
        if finding.remedy:
            lines += _indented(f"fix: {finding.remedy}", Tone.PLAIN, width)
    return lines


def port_lines(story: PortStory, width: int) -> list[Line]:
    """Whose the port is, then what each sender did."""
    lines: list[Line] = [((text, Tone.STRONG),) for text in textwrap.wrap(clean(story.headline), width)]
    cells = max((len(caller.peer) for caller in story.callers), default=0) + 1
    for caller in story.callers:
        lines += _entry(_caller_mark(caller), caller.peer, caller.text, width, Tone.PLAIN, cells)
        if caller.remedy:
            lines += _indented(f"fix: {caller.remedy}", Tone.PLAIN, width, cells)
    for finding in story.findings:
        if finding.code.startswith("wire."):
            continue  # told with its sender
        lines += _entry(_MARKS[finding.severity], "", finding.text, width, Tone.PLAIN, 0)
        if finding.remedy:
            lines += _indented(f"fix: {finding.remedy}", Tone.PLAIN, width, 0)
    return lines


def verdict(findings: Sequence[Finding], width: int) -> list[Line]:
    """The last line."""
    errors = sum(finding.severity is Severity.ERROR for finding in findings)
    warnings = sum(finding.severity is Severity.WARNING for finding in findings)
    counted = [
        f"{number} {what}{'s' * (number != 1)}"
        for number, what in ((errors, "problem"), (warnings, "warning"))
        if number
    ]
    tone = Tone.BAD if errors else Tone.WARNING if warnings else Tone.GOOD
    text = f"{', '.join(counted)}." if counted else "All is well."
    return [((line, tone),) for line in textwrap.wrap(text, width)]


def _entry(
    mark: tuple[str, Tone], name: str, text: str, width: int, tone: Tone, name_cells: int = _NAME_CELLS
) -> list[Line]:
    before: Line = (
        (fitted(mark[0], _MARK_CELLS, left=True), mark[1]),
        (fitted(clean(name), name_cells, left=True), Tone.STRONG),
    )
    blank: Line = ((" " * (_MARK_CELLS + name_cells), Tone.PLAIN),)
    room = max(width - _MARK_CELLS - name_cells, 20)
    return [
        (*(blank if number else before), (part, tone))
        for number, part in enumerate(textwrap.wrap(clean(text), room) or [""])
    ]


def _indented(text: str, tone: Tone, width: int, name_cells: int = _NAME_CELLS) -> list[Line]:
    return _entry(("", Tone.PLAIN), "", text, width, tone, name_cells)


def _caller_mark(caller: Caller) -> tuple[str, Tone]:
    return _MARKS[caller.severity]


def _found(finding: Finding) -> str:
    return f"{finding.where}: {finding.text}" if finding.where else finding.text


def _gravest(findings: Iterable[Finding]) -> Severity | None:
    order = (Severity.ERROR, Severity.WARNING, Severity.INFO)
    return min((finding.severity for finding in findings), key=order.index, default=None)


def _exit_status(findings: Iterable[Finding]) -> int:
    return 1 if _gravest(findings) is Severity.ERROR else 0


# ---- objects


def _json(results: Iterable[Result], findings: Iterable[Finding]) -> dict[str, Any]:
    return {
        "findings": [dataclasses.asdict(finding) for finding in findings],
        "checks": [{"code": r.code, "ok": r.ok, "text": r.text, "looked": r.looked} for r in results],
    }


def _port_json(story: PortStory) -> dict[str, Any]:
    return {
        "port": story.port,
        **story.facts,
        "holders": [dataclasses.asdict(holder) for holder in story.holders],
        "findings": [dataclasses.asdict(finding) for finding in story.findings],
    }


# ---- the terminal


class _Paper:
    """Standard output: coloured, with a line that tells what is still awaited, if it is a terminal."""

    def __init__(self) -> None:
        self._progress = ProgressLine(sys.stdout)

    def __enter__(self) -> _Paper:
        self._progress.__enter__()
        return self

    def __exit__(self, *gone: Any) -> None:
        self._progress.__exit__(*gone)

    def write(self, lines: list[Line]) -> None:
        self._progress.note(drawn(lines))

    def wait_for(self, checks: Sequence[Check]) -> None:
        if checks:
            self._progress.show(f"looking at: {', '.join(check.code for check in checks)}")


def _width() -> int:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else _ENDLESS


# ---- the process


def _settings(args: argparse.Namespace) -> Settings | None:
    try:
        return settings_from(args)
    except ConfigError:
        return None  # the reading has every problem


@contextlib.contextmanager
def _quiet_logs() -> Iterator[None]:
    """The parts that are tried log what they meet; here that would come between the lines, and they say it anyhow."""
    import logging

    import structlog

    def drop(*_: Any) -> Any:
        raise structlog.DropEvent

    before = structlog.get_config() if structlog.is_configured() else None
    libraries = logging.root.manager.disable
    structlog.configure(processors=[drop])
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(libraries)
        structlog.reset_defaults()
        if before is not None:
            structlog.configure(**before)


def _port(word: str) -> int:
    if not (word.isascii() and word.isdecimal()) or not 0 < int(word) < 65_536:
        raise argparse.ArgumentTypeError(f"{word!r} is no TCP port: give 1 to 65535")
    return int(word)
