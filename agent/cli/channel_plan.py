"""`agent channel plan`: what would come of a configuration, and, on request, have it.

Secret: which files hold a configuration, and how a plan is laid out.
Promise: nothing is changed without --apply; every change and every problem is shown; without a running daemon a file is
still planned, with the checks of this host made by the command.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.cli.drawing import draw
from agent.cli.lines import Line, Span, Tone, clean, fitted, paragraph
from agent.cli.setting_options import add_settings_options, reading_from, settings_from
from agent.errors import ConfigError, Finding, Severity
from agent.net.control import NotRunning, ask

if TYPE_CHECKING:
    from agent.settings import Reading
    from agent.settings.sections import ChannelDefaults

_ANSWER_WITHIN_S = 65.0
_NOT_RUNNING = 3
_EXAMPLE = """\
examples:
  agent channel plan new.json
  agent channel plan --from-server --json | jq .problems
  agent channel plan new.json --apply --basis 3f2a…     apply it only if nothing changed since it was planned

FILE: a FHIR Bundle with the Agent and its Endpoints, or {"agent": {…}, "endpoints": [{…}, …]}; - reads stdin.
A file that was applied holds until the server's configuration is read again.
exit status: 0 no problem, 1 problems (nothing was changed), 2 the file cannot be read, 3 the agent is not running
"""
_TONES: Mapping[str, Tone] = {"error": Tone.BAD, "warning": Tone.WARNING, "info": Tone.QUIET}
_ACTIONS: Mapping[str, Tone] = {
    "keep": Tone.QUIET,
    "re-parameter": Tone.PLAIN,
    "rebind": Tone.WARNING,
    "start": Tone.GOOD,
    "stop": Tone.WARNING,
    "failed": Tone.BAD,
}


def register(words: Any) -> None:
    parser = words.add_parser(
        "plan",
        help="what a configuration would change, and every problem of it; --apply: have it",
        description="Show what would become of each channel under another configuration, and everything that is wrong "
        "with it, without changing anything.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("file", nargs="?", metavar="FILE", help="JSON with the Agent and its Endpoints; - for stdin")
    source.add_argument("--from-server", action="store_true", help="the configuration that is on the server now")
    parser.add_argument("--apply", action="store_true", help="run by it, if it has no error: all of it or nothing")
    parser.add_argument("--basis", metavar="B", help="apply only if what that plan was made from has not changed")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_settings_options(parser)
    parser.set_defaults(act=run)


def run(args: argparse.Namespace) -> int:
    document = None if args.from_server else read_document(args.file)
    return asyncio.run(_plan(args, document))


async def _plan(args: argparse.Namespace, document: dict[str, Any] | None) -> int:
    reading = reading_from(args)
    question = {"source": document or "server", "apply": args.apply, "basis": args.basis}
    running = True
    try:
        facts = await ask(reading.paths.control, "plan", question, timeout_s=_ANSWER_WITHIN_S)
    except NotRunning as away:
        if document is None or args.apply:
            print(f"agent: {away} — {away.hint}", file=sys.stderr)
            return _NOT_RUNNING
        running = False
        facts = await _without_daemon(args, reading, document)
    if args.json:
        print(json.dumps({**facts, "running": running}, ensure_ascii=False))
    else:
        draw(screen(facts, running=running, wanted=args.apply))
    return 1 if any(problem["severity"] == "error" for problem in facts["problems"]) else 0


async def _without_daemon(args: argparse.Namespace, reading: Reading, document: dict[str, Any]) -> dict[str, Any]:
    from agent.configuration import resources_of
    from agent.net.tls import Identity
    from agent.outlook import foresee
    from agent.plan import build_plan
    from agent.proposal import basis_of, draw_up
    from agent.spec import ChannelSpec

    def identify(spec: ChannelSpec) -> None:
        if spec.line.tls is not None:
            Identity.load(spec.line.tls, dials=spec.dials)

    defaults = _defaults(args, reading)
    resources = resources_of(document["agent"], document["endpoints"])
    plan = build_plan(resources.agent, resources.endpoints, defaults)
    outlook = await foresee({}, plan.channels, identify)
    basis = basis_of(resources.digest, {}, repr(defaults))
    return draw_up(plan, outlook, {}, resources.addresses, basis).facts()


def _defaults(args: argparse.Namespace, reading: Reading) -> ChannelDefaults:
    """Of this host, also where its settings are not complete."""
    from agent.settings import ChannelDefaults

    try:
        return settings_from(args).channels
    except ConfigError:
        return ChannelDefaults(tls=reading.tls)


# ---- files


def read_document(name: str) -> dict[str, Any]:
    """`agent` and `endpoints` by reference. Raises ConfigError naming what is wrong."""
    try:
        content = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise _unfit(name, f"it cannot be read: {error.strerror or error}", "correct the path") from error
    try:
        written = json.loads(content)
    except json.JSONDecodeError as error:
        text = f"it is no JSON (line {error.lineno}, column {error.colno}: {error.msg})"
        raise _unfit(name, text, "correct it there") from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise _unfit(name, "it is no JSON text", "save it as UTF-8") from error
    if isinstance(written, dict) and written.get("resourceType") == "Bundle":
        return _of_bundle(name, written)
    return _of_pair(name, written)


def _of_bundle(name: str, bundle: Mapping[str, Any]) -> dict[str, Any]:
    agents: list[dict[str, Any]] = []
    endpoints: dict[str, dict[str, Any]] = {}
    entries = bundle.get("entry")
    for entry in entries if isinstance(entries, list) else []:
        resource = entry.get("resource") if isinstance(entry, dict) else None
        if not isinstance(resource, dict):
            continue
        if resource.get("resourceType") == "Agent":
            agents.append(resource)
        elif resource.get("resourceType") == "Endpoint":
            for reference in (entry.get("fullUrl"), f"Endpoint/{resource.get('id')}"):
                if isinstance(reference, str):
                    endpoints[reference] = resource
    if len(agents) != 1:
        text = f"the Bundle holds {len(agents)} Agents"
        raise _unfit(name, text, "give one with one Agent and its Endpoints")
    return _wanted_only(agents[0], endpoints)


def _of_pair(name: str, written: object) -> dict[str, Any]:
    agent = written.get("agent") if isinstance(written, dict) else None
    given = written.get("endpoints", []) if isinstance(written, dict) else []
    if isinstance(given, dict):
        endpoints = {f"{reference}": each for reference, each in given.items() if isinstance(each, dict)}
    else:
        each_of = given if isinstance(given, list) else []
        endpoints = {f"Endpoint/{each.get('id')}": each for each in each_of if isinstance(each, dict)}
    if not isinstance(agent, dict):
        remedy = 'give a FHIR Bundle with the Agent and its Endpoints, or {"agent": {…}, "endpoints": [{…}]}'
        raise _unfit(name, "it holds no Agent", remedy)
    return _wanted_only(agent, endpoints)


def _wanted_only(agent: dict[str, Any], endpoints: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """A Bundle may hold the Endpoints of a whole house."""
    channels = agent.get("channel")
    named = {
        channel["endpoint"].get("reference")
        for channel in (channels if isinstance(channels, list) else [])
        if isinstance(channel, dict) and isinstance(channel.get("endpoint"), dict)
    }
    return {"agent": agent, "endpoints": {ref: each for ref, each in endpoints.items() if ref in named}}


def _unfit(name: str, text: str, remedy: str) -> ConfigError:
    where = "stdin" if name == "-" else name
    return ConfigError([Finding("plan.file", Severity.ERROR, text, remedy, where)])


# ---- the screen


def screen(facts: Mapping[str, Any], *, running: bool, wanted: bool) -> list[Line]:
    """A plan as it is printed. `wanted`: it was to be applied."""
    width = shutil.get_terminal_size((100, 24)).columns if sys.stdout.isatty() else 160
    changes: list[Mapping[str, Any]] = facts["changes"]
    lines: list[Line] = []
    if changes:
        names = max(7, *(min(len(change["channel"]), 28) for change in changes))
        heading = f"{'channel':<{names}} {'action':<12} {'connections':<12} address"
        lines.append(((heading, Tone.STRONG),))
        lines += [_row(change, names) for change in changes]
    else:
        lines.append((("No channel is configured, and none runs.", Tone.QUIET),))
    problems: list[Mapping[str, str]] = facts["problems"]
    for problem in sorted(problems, key=lambda each: list(_TONES).index(each["severity"])):
        lines += [(), *_problem(problem, width)]
    lines += [(), _verdict(facts, running=running, wanted=wanted)]
    if facts["note"]:
        lines.append(((clean(facts["note"]), Tone.WARNING),))
    return lines


def _row(change: Mapping[str, Any], names: int) -> Line:
    kept, dropped, action = change["connectionsKept"], change["connectionsDropped"], change["action"]
    fate = f"{dropped} dropped" if dropped else f"{kept} kept" if kept else "-"
    address = change["address"] or change["was"] or "-"
    spans: list[Span] = [
        (fitted(clean(change["channel"]), names, left=True) + " ", Tone.STRONG),
        (f"{action:<12} ", _ACTIONS.get(action, Tone.PLAIN)),
        (f"{fate:<12} ", Tone.WARNING if dropped else Tone.QUIET),
        (clean(address), Tone.PLAIN),
    ]
    if change["was"] and change["address"] and change["was"] != change["address"]:
        spans.append((f"  (was {clean(change['was'])})", Tone.QUIET))
    elif action == "re-parameter":
        spans.append((f"  ({', '.join(change['fields'])})", Tone.QUIET))
    return tuple(spans)


def _problem(problem: Mapping[str, str], width: int) -> list[Line]:
    where = ".".join(part for part in (problem["channel"], problem["field"]) if part)
    text = f"{where}: {problem['text']}" if where else problem["text"]
    tone = _TONES[problem["severity"]]
    lines = paragraph(problem["severity"], [(text, Tone.PLAIN)], width, label_tone=tone)
    if problem["remedy"]:
        lines += paragraph("", [(f"-> {problem['remedy']}", Tone.QUIET)], width)
    return lines


def _verdict(facts: Mapping[str, Any], *, running: bool, wanted: bool) -> Line:
    errors = sum(problem["severity"] == "error" for problem in facts["problems"])
    many = f"{errors} problem{'s' * (errors != 1)}"
    if facts["applied"]:
        return (("Applied: it is in force, and kept as the last good configuration.", Tone.GOOD),)
    if errors and wanted:
        return ((f"Not applied, for {many}: everything is as it was.", Tone.BAD),)
    if errors:
        return ((f"It could not be applied, for {many}. Nothing was changed.", Tone.BAD),)
    if not running:
        return (("The agent is not running: this is what a start with it would do. Nothing was changed.", Tone.QUIET),)
    return ((f"Nothing was changed. To have exactly this: --apply --basis {facts['basis']}", Tone.QUIET),)
