"""The options that say where settings are, the same for every command that needs them.

Secret: how argparse's names become those of the settings table, and where a command's environment comes from.
Promise: what stands here is the only code that reads the process's environment for settings; everything below takes
it as an argument.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.paths import Paths
    from agent.settings import Reading, Settings


def add_settings_options(parser: argparse.ArgumentParser) -> None:
    """`--config`, `--data-dir`, `--log-level`."""
    parser.add_argument("--config", metavar="FILE", help="TOML file to read beside config.toml (AGENT_CONFIG)")
    parser.add_argument("--data-dir", metavar="DIR", help="folder for everything the agent writes (AGENT_DATA_DIR)")
    parser.add_argument("--log-level", metavar="LEVEL", help="DEBUG, INFO, WARN, ERROR or NONE (AGENT_LOG_LEVEL)")


def add_server_arguments(parser: argparse.ArgumentParser) -> None:
    """The drop-in form of the existing agent: four values and a log level, each of which may be missing."""
    parser.add_argument("base_url", nargs="?", metavar="BASE_URL", help="address of the server")
    parser.add_argument("client_id", nargs="?", metavar="CLIENT_ID", help="id of the ClientApplication")
    parser.add_argument("client_secret", nargs="?", metavar="CLIENT_SECRET", help="its secret; better in a file")
    parser.add_argument("agent_id", nargs="?", metavar="AGENT_ID", help="id of the Agent resource")
    # argparse would let an absent positional overwrite an option of the same name with None.
    parser.add_argument("log_level_word", nargs="?", metavar="LOG_LEVEL", help="the same as --log-level")


def argument_values(args: argparse.Namespace) -> dict[str, object]:
    """What was typed, as `Settings.load` takes it."""
    values: dict[str, object] = dict(vars(args))
    word = values.pop("log_level_word", None)
    if not values.get("log_level"):
        values["log_level"] = word
    return values


def working_folder() -> Path:
    """Where `agent.properties` is looked for; the root, if somebody deleted the folder that we were started in."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        return Path(os.sep)


def settings_from(args: argparse.Namespace) -> Settings:
    """Complete settings of this process. Raises ConfigError."""
    from agent.settings import Settings  # late: `agent --help` needs none of it

    return Settings.load(argument_values(args), os.environ, working_folder())


def reading_from(args: argparse.Namespace) -> Reading:
    """Every key with its source, complete or not."""
    from agent.settings import read

    return read(argument_values(args), os.environ, working_folder())


def paths_from(args: argparse.Namespace) -> Paths:
    """Where this host keeps things, for commands that need no server."""
    return reading_from(args).paths
