"""`agent config schema`: everything that can be said, here and on the server.

Secret: how the two tables of options (of this host, of the server) become one reference.
Promise: what is printed is made from the tables that values are parsed with; with `--json` it is a JSON Schema of
config.toml as it stands, and the server's options stand in it under a key that validators pass over.
"""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

SERVER_OPTIONS = "x-server-options"
_WIDTH = 100
_EXAMPLE = """\
examples:
  agent config schema | less
  agent config schema --json > config.schema.json    for an editor; `#:schema ./config.schema.json` heads config.toml
"""


def register(actions: Any) -> None:
    parser = actions.add_parser(
        "schema",
        help="everything that can be set, on this host and on the server, with types, ranges and defaults",
        description="Show all that can be set: the keys of config.toml, and the options that the server sets.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print the JSON Schema (2020-12) of config.toml")
    parser.set_defaults(act=run)


def run(args: argparse.Namespace) -> int:
    from agent.plan.options import describe_options
    from agent.settings.schema import toml_schema

    options = describe_options()
    if args.json:
        print(json.dumps({**toml_schema(), SERVER_OPTIONS: options}, indent=2, ensure_ascii=False))
        return 0
    print("config.toml of this host")
    _print_keys(toml_schema(), "")
    print("\nOptions that the server sets: a parameter of an Endpoint's or Device's address, or an Agent.setting")
    _print_options(options)
    return 0


def _print_keys(table: Mapping[str, Any], prefix: str) -> None:
    leaves = {name: entry for name, entry in table["properties"].items() if entry.get("type") != "object"}
    if leaves:
        print(f"\n[{prefix.removesuffix('.')}]")
    for name, entry in leaves.items():
        _print_entry(name, entry)
    for name, entry in table["properties"].items():
        if entry.get("type") != "object":
            continue
        for inner in entry.get("patternProperties", {}).values():
            _print_keys(inner, f"{prefix}{name}.NAME.")
        if "properties" in entry:
            _print_keys(entry, f"{prefix}{name}.")


def _print_entry(name: str, entry: Mapping[str, Any]) -> None:
    lines = [_sentence(entry["description"])]
    if "default" in entry:
        lines.append(f"default {json.dumps(entry['default'])}")
    elif entry.get("x-required"):
        lines.append("required, here or in another source")
    else:
        lines.append(f"default: {entry['x-when-absent']}")
    lines.append("environment " + ", ".join(entry["x-environment"]))
    if names := entry.get("x-agent-properties"):
        lines.append("agent.properties " + ", ".join(names))
    _print_block(f"{name}  ({_kind(entry)})", lines)


def _print_options(options: Iterable[Mapping[str, Any]]) -> None:
    for option in options:
        name, setting = option.get("name") or "", option.get("setting") or ""
        head = f"{name}" if name else f"{setting}  (Agent.setting only)"
        facts = {"type": option.get("type"), "enum": option.get("choices")}
        facts |= {side: option[side] for side in ("minimum", "maximum") if option.get(side) is not None}
        lines = [_sentence(str(option.get("doc") or ""))]
        if name and setting:
            lines.append(f"for all: Agent.setting {setting}")
        if wires := option.get("wires"):
            lines.append("on " + ", ".join(map(str, wires)))
        if default := option.get("default"):
            lines.append(f"default {default}")
        if retired := option.get("retired"):
            lines.append(f"understood, and without effect: {retired}")
        _print_block(f"{head}  ({_kind(facts)})", lines)


def _print_block(head: str, lines: Iterable[str]) -> None:
    print(f"\n{head}")
    for line in lines:
        print(textwrap.fill(line, _WIDTH, initial_indent="    ", subsequent_indent="      "))


def _kind(entry: Mapping[str, Any]) -> str:
    if entry.get("enum"):
        words = [str(word) for word in entry["enum"]]
        return ", ".join(word for word in words if word.upper() == word or word.upper() not in words)
    if "anyOf" in entry:
        return "string"
    kind = str(entry.get("type") or "string")
    if "minimum" in entry and "maximum" in entry:
        return f"{kind} {entry['minimum']:,} to {entry['maximum']:,}"
    return kind


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
