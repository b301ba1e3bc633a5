"""`agent config set-secret`: keep a secret the best way that this system has.

Secret: how it is asked for without being seen, and which key of config.toml then leads to it.
Promise: it is read from the keyboard without echo or from stdin, and neither printed nor given to another program;
config.toml names its file and holds it no longer.
"""

from __future__ import annotations

import argparse
import getpass
import json
import os
import sys
from pathlib import Path
from typing import Any

from agent.cli.lines import clean
from agent.cli.setting_options import add_settings_options, paths_from, reading_from, working_folder
from agent.errors import ConfigError

_EXAMPLE = """\
examples:
  agent config set-secret                              asks for the client secret
  agent config set-secret < secret.txt
  agent config set-secret proxy                        asks for http://USER:PASSWORD@HOST:PORT
  agent config set-secret tls.main.key_password        of the private key in [tls.main]

It goes into a file of its own in the configuration folder, mode 0600; on Windows only this machine can read what is in
it (DPAPI). A running agent takes it at its next start, or when it is told to read its settings again.
exit status: 0; 1 it was kept, and a stronger source says something else; 2 it was not kept, and the reason.
"""


def register(actions: Any) -> None:
    parser = actions.add_parser(
        "set-secret",
        help="keep the client secret, or another, in a file that config.toml names",
        description="Ask for a secret and keep it in a file of its own, which config.toml then names.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "name",
        nargs="?",
        default="client_secret",
        type=_name,
        metavar="NAME",
        help="client_secret (when left out), proxy, or tls.NAME.key_password",
    )
    parser.add_argument("--file", metavar="FILE", type=Path, help="keep it there instead of the configuration folder")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_settings_options(parser)
    parser.set_defaults(act=run)


def run(args: argparse.Namespace) -> int:
    from agent.settings.safekeeping import keep_secret, write_private
    from agent.settings.tomlfile import edited, text_of

    key, plain_key = _keys(args.name)
    cwd, folder = working_folder(), paths_from(args).config_dir
    chosen = args.config or os.environ.get("AGENT_CONFIG")
    config = cwd / chosen if chosen else folder / "config.toml"
    path = cwd / args.file if args.file else config.parent / args.name.replace(".", "-")
    before = text_of(config)
    secret = _asked(args.name)
    named = str(path) if path.parent != config.parent else path.name
    text = edited(before, {key: named}, [plain_key] if plain_key else [], where=str(config))
    keep_secret(path, secret)  # first: a config.toml that names it must find it
    write_private(config, text.encode(), most=0o777)
    source = _stronger(args, key, plain_key, path)
    if args.json:
        facts = {"key": key, "file": str(path), "config": str(config), "strongerSource": source or None}
        print(json.dumps(facts, indent=2, ensure_ascii=False))
    else:
        print(f"Kept in {clean(str(path))}, which {key} in {clean(str(config))} names.")
    if source:
        print(f"agent: it is not used: {clean(source)} is stronger — remove it there", file=sys.stderr)
    return 1 if source else 0


def _name(word: str) -> str:
    from agent.settings.keys import KEYS, find

    name = word.removeprefix("server.").removesuffix("_file")
    own = [key.leaf for key in KEYS if key.secret]
    if name in own or (name.endswith(".key_password") and find(f"{name}_file") is not None):
        return name
    raise argparse.ArgumentTypeError(f"{word!r} is no secret: give {', '.join(own)} or tls.NAME.key_password")


def _keys(name: str) -> tuple[str, str]:
    """The key that names the file, and the one that holds the value in clear, or empty."""
    return (f"{name}_file", "") if "." in name else (f"server.{name}_file", f"server.{name}")


def _asked(name: str) -> str:
    """One line, from the keyboard or from stdin. Raises ConfigError."""
    from agent.settings.files import error
    from agent.settings.keys import BY_NAME
    from agent.settings.values import Unfit

    typed = getpass.getpass(f"{name} (it is not shown): ") if sys.stdin.isatty() else sys.stdin.read()
    secret = typed.strip("\ufeff \t\r\n")  # PowerShell pipes a byte order mark in front
    if not secret:
        raise ConfigError([error("settings.empty-secret", name, "nothing was given", "type it, or pipe it in")])
    key = BY_NAME.get(f"server.{name}") or BY_NAME["server.client_secret"]
    try:
        key.parse(secret, Path())
    except Unfit as unfit:
        raise ConfigError([error("settings.bad-value", name, "it cannot be used", unfit.remedy)]) from None
    return secret


def _stronger(args: argparse.Namespace, key: str, plain_key: str, path: Path) -> str:
    """The source that wins over the file that was just written, or empty."""
    reading = reading_from(args)
    if plain_key:
        source = reading.sources[plain_key]
        return "" if source.startswith(f"{path}, named by ") else source
    value = reading.values.get(key)
    return "" if value == path else reading.sources.get(key, "")
