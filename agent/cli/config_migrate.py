"""`agent config migrate`: a config.toml from what the existing agent was told.

Secret: what is asked before files of this host are replaced, and in which order they are written.
Promise: nothing is overwritten without `--force`, and nothing at all is written with `--dry-run`. The secret goes into
a file of its own and is printed nowhere.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.cli.lines import clean
from agent.cli.setting_options import add_settings_options, paths_from, working_folder
from agent.errors import ConfigError

if TYPE_CHECKING:
    from agent.settings.migration import Migration

_EXAMPLE = """\
examples:
  agent config migrate --dry-run
  agent config migrate "C:\\\\Program Files\\\\Medplum Agent"
  agent config migrate /opt/medplum/agent.properties --force

Reads agent.properties (beside config.toml, else in the working folder, else as you name it) and the variables
MEDPLUM_BASE_URL, MEDPLUM_CLIENT_ID, MEDPLUM_CLIENT_SECRET, MEDPLUM_AGENT_ID and MEDPLUM_LOG_LEVEL, which are stronger.
Writes config.toml and client_secret into the configuration folder; --force keeps what else stands in config.toml.
exit status: 0; 1 there is nothing to take over; 2 it cannot be done, and the reason.
"""


def register(actions: Any) -> None:
    parser = actions.add_parser(
        "migrate",
        help="write config.toml from what the existing agent left",
        description="Take over what the existing agent was told into config.toml and a file for its secret.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("properties", nargs="?", type=Path, metavar="PATH", help="its agent.properties, or its folder")
    parser.add_argument("--dry-run", action="store_true", help="print what would be written, and write nothing")
    parser.add_argument("--force", action="store_true", help="change the config.toml that is there")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_settings_options(parser)
    parser.set_defaults(act=run)


def run(args: argparse.Namespace) -> int:
    from agent.settings.migration import look, properties_file, standing
    from agent.settings.tomlfile import text_of

    cwd = working_folder()
    config, secret_file = standing(paths_from(args).config_dir)
    properties = properties_file(args.properties, config.parent, cwd)
    found = look(properties, os.environ, cwd)
    if not found.taken:
        print("agent: there is nothing to take over — name the agent.properties of the existing agent", file=sys.stderr)
        return 1
    text = found.toml(text_of(config), config, secret_file.name)
    in_the_way = [path for path in (config, *([secret_file] if found.secret else [])) if os.path.exists(path)]
    written: list[Path] = []
    if not args.dry_run:
        if in_the_way and not args.force:
            _refuse(in_the_way)
        written = _write(found, config, secret_file, text)
    if args.json:
        print(json.dumps(_facts(found, properties, text, written), indent=2, ensure_ascii=False))
    else:
        _print(found, text, written)
        _print_further(found, properties, in_the_way, dry=args.dry_run)
    return 0


def _refuse(in_the_way: list[Path]) -> None:
    from agent.settings.files import error

    raise ConfigError(
        [
            error("settings.in-the-way", str(path), "the file is there", "give --force to change it, or move it away")
            for path in in_the_way
        ]
    )


def _write(found: Migration, config: Path, secret_file: Path, text: str) -> list[Path]:
    """The secret first: a config.toml that names it must find it."""
    from agent.settings.safekeeping import keep_secret, write_private

    written = []
    if found.secret is not None:
        keep_secret(secret_file, found.secret.reveal())
        written.append(secret_file)
    write_private(config, text.encode(), most=0o777)
    return [config, *written]


def _facts(found: Migration, properties: Path | None, text: str, written: list[Path]) -> dict[str, Any]:
    return {
        "properties": None if properties is None else str(properties),
        "taken": [
            {"key": taken.key.name, "value": _shown(taken.value), "source": taken.source} for taken in found.taken
        ],
        "left": [
            {"code": left.code, "where": left.where, "text": left.text, "remedy": left.remedy} for left in found.left
        ],
        "written": [str(path) for path in written],
        "toml": text,
    }


def _print(found: Migration, text: str, written: list[Path]) -> None:
    width = max(len(taken.key.name) for taken in found.taken)
    shown = max(len(_shown(taken.value)) for taken in found.taken)
    print("Taken over:")
    for taken in found.taken:
        print(f"  {taken.key.name:<{width}}  {_shown(taken.value):<{min(shown, 48)}}  {clean(taken.source)}")
    if found.left:
        print("\nNot taken over:")
        for left in found.left:
            print(f"  {clean(str(left))}")
    print()
    if written:
        print("\n".join(f"Written: {clean(str(path))}" for path in written))
    else:
        print(text, end="" if text.endswith("\n") else "\n")


def _print_further(found: Migration, properties: Path | None, in_the_way: list[Path], *, dry: bool) -> None:
    if dry:
        print("Nothing was written.", file=sys.stderr)
        for path in in_the_way:
            print(f"{clean(str(path))} is there: writing it needs --force", file=sys.stderr)
        return
    print("Next: `agent config check`", file=sys.stderr)
    if properties is not None and found.secret is not None:
        print(f"Then remove the secret from {clean(str(properties))}: it stands there in clear.", file=sys.stderr)


def _shown(value: object) -> str:
    return clean(str(value))
