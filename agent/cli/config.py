"""`agent config`: what this host was told, where each value comes from, and whether it will do.

Secret: how a configuration is laid out for a person and for a script.
Promise: a secret is never printed; `show` works on a configuration that is incomplete or wrong, and says so. What it
can do besides is each a file of its own.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from agent.cli import config_migrate, config_schema, config_secret
from agent.cli.lines import clean
from agent.cli.setting_options import add_settings_options, reading_from
from agent.errors import Finding, Severity

if TYPE_CHECKING:
    from agent.settings import Reading

_EXAMPLE = """\
examples:
  agent config check
  agent config show --json
  agent config show --config /etc/onprem-agent/config.toml
  agent config schema
  agent config migrate --dry-run
  agent config set-secret
"""
_SOURCES = """\
The sources, strongest first: arguments, environment, credentials of systemd, --config FILE, config.toml,
agent.properties. A secret is never shown.
"""


def register(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "config",
        help="check, show or set up the local configuration",
        description="What this host was told: check it, show it, take it over from the existing agent, keep a secret.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    _register_reading(
        actions, "check", "whether the configuration will do, and everything that is wrong with it", _check
    )
    _register_reading(actions, "show", "every key with its value and where that comes from", _show)
    config_schema.register(actions)
    config_migrate.register(actions)
    config_secret.register(actions)


def _register_reading(actions: Any, name: str, words: str, act: Any) -> None:
    parser = actions.add_parser(
        name,
        help=words,
        description=f"Tell {words}.\nExit status: 0 it will do, 1 it cannot be used.",
        epilog=_SOURCES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_settings_options(parser)
    parser.set_defaults(act=act)


def run(args: argparse.Namespace) -> int:
    status: int = args.act(args)
    return status


def _check(args: argparse.Namespace) -> int:
    return _tell(args, reading_from(args), {})


def _show(args: argparse.Namespace) -> int:
    reading = reading_from(args)
    facts = _values(reading)
    if not args.json:
        _print_values(facts)
    return _tell(args, reading, facts)


def _tell(args: argparse.Namespace, reading: Reading, facts: dict[str, Any]) -> int:
    if args.json:
        findings = [_json_finding(finding) for finding in reading.findings]
        print(json.dumps({**facts, "findings": findings}, indent=2, ensure_ascii=False))
    else:
        _print_findings(reading)
    return 1 if reading.errors else 0


def _values(reading: Reading) -> dict[str, Any]:
    paths = {field.name: str(getattr(reading.paths, field.name)) for field in dataclasses.fields(reading.paths)}
    settings = {
        name: {"value": _plain(value), "source": reading.sources[name]} for name, value in reading.values.items()
    }
    return {"settings": settings, "paths": paths}


def _plain(value: object) -> object:
    return value if isinstance(value, bool | int | float | None) else str(value)


def _print_values(facts: dict[str, Any]) -> None:
    shown = [(name, _shown(name, entry["value"]), entry["source"]) for name, entry in facts["settings"].items()]
    name_width = max(len(name) for name, _, _ in shown)
    value_width = min(max(len(value) for _, value, _ in shown), 48)
    for name, value, source in shown:
        print(f"{name:<{name_width}}  {value:<{value_width}}  {clean(source)}")
    print()
    for name, path in facts["paths"].items():
        print(f"{name:<{name_width}}  {clean(path)}{'' if os.path.exists(path) else '  (not there yet)'}")


def _shown(name: str, value: object) -> str:
    from agent.settings.keys import BY_NAME

    return f"({BY_NAME[name].unset or 'missing'})" if value is None else clean(json.dumps(value, ensure_ascii=False))


def _print_findings(reading: Reading) -> None:
    order = [Severity.ERROR, Severity.WARNING, Severity.INFO]
    for finding in sorted(reading.findings, key=lambda finding: order.index(finding.severity)):
        print(f"{finding.severity}: {clean(str(finding))}", file=sys.stderr)
    if not reading.errors:
        print("The configuration is complete.", file=sys.stderr)


def _json_finding(finding: Finding) -> dict[str, str]:
    return {name: str(value) for name, value in dataclasses.asdict(finding).items()}
