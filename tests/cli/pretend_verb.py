"""A verb for the tests of the dispatcher: it shows what reached it, and fails in the way it is told."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from agent.cli.setting_options import add_server_arguments, add_settings_options, argument_values
from agent.errors import ConfigError, Finding, LinkError, Severity

FAILURES: dict[str, BaseException] = {
    "config": ConfigError(
        [
            Finding("a.b", Severity.ERROR, "the first is wrong", "correct it", "first.key"),
            Finding("c.d", Severity.WARNING, "the second is odd", "look at it", "second.key"),
        ]
    ),
    "link": LinkError("the server is away", hint="wait"),
    "interrupt": KeyboardInterrupt(),
    "exit": SystemExit("a last word"),
    "bug": ZeroDivisionError(),
}


def register(subparsers: Any) -> None:
    for name in ("run", "status"):
        parser = subparsers.add_parser(name)
        add_settings_options(parser)
        parser.add_argument("--fail", choices=FAILURES)
        if name == "run":
            add_server_arguments(parser)


def run(args: argparse.Namespace) -> int:
    if args.fail:
        raise FAILURES[args.fail]
    sys.stdout.write(repr({name: value for name, value in argument_values(args).items() if value is not None}))
    return 7
