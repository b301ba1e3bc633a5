"""`agent run`: the daemon in the foreground.

Secret: which event loop it runs on.
Promise: exit 0 after a wanted stop; what keeps it from starting is said in one sentence, with the remedy.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from typing import TYPE_CHECKING

from agent.cli.setting_options import add_server_arguments, add_settings_options, settings_from

if TYPE_CHECKING:
    from agent.settings import Settings

_EXAMPLE = """examples:
  agent run                                          configuration from config.toml, agent.properties or the environment
  agent run --config /etc/onprem-agent/config.toml
  agent run BASE_URL CLIENT_ID CLIENT_SECRET AGENT_ID [LOG_LEVEL]    as the Medplum agent is started"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "run",
        help="the daemon in the foreground",
        description="Carry messages between this host's devices and the server until stopped.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_settings_options(parser)
    add_server_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from agent import process

    def read() -> Settings:
        return settings_from(args)

    settings = read()
    try:
        import uvloop
    except ImportError:
        asyncio.run(process.run(settings, os.environ, read))
    else:
        uvloop.run(process.run(settings, os.environ, read))
    return 0
