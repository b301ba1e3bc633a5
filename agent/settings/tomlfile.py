"""Change config.toml as a person would: the lines that are meant, and nothing else.

Secret: tomlkit, which keeps comments, blank lines and the order of what is there.
Promise: what comes back says what the file said, and what was asked for, when it is read by the parser that settings
are read with; else `ConfigError`, and nothing is returned.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from agent.errors import ConfigError, Finding
from agent.settings.files import error, is_there, read_text

TomlValue = str | int | float | bool


def text_of(path: Path) -> str:
    """What stands in the file; empty if it is not there. Raises ConfigError."""
    findings: list[Finding] = []
    text = read_text(path, findings) if is_there(path, findings) else ""
    if text is None or findings:
        raise ConfigError(findings)
    return text


def edited(text: str, put: Mapping[str, TomlValue], drop: Iterable[str] = (), *, where: str) -> str:
    """The file's text with the dotted keys of `put` set and those of `drop` gone. `where` names the file in errors."""
    try:
        document, wanted = tomlkit.parse(text), tomllib.loads(text)
        for name in drop:
            if name not in put:
                _drop(document, name.split("."))
                _drop(wanted, name.split("."))
        for name, value in put.items():
            _put(document, name.split("."), value, tomlkit.table)
            _put(wanted, name.split("."), value, dict)
        result = tomlkit.dumps(document)
        well = tomllib.loads(result) == wanted  # tomlkit mistakes the table of some dotted keys
    except (TOMLKitError, tomllib.TOMLDecodeError, TypeError, AttributeError, KeyError):
        well, result = False, ""
    if not well:
        trouble = "the file is written in a way that cannot be changed by this command"
        remedy = "correct what `agent config check` says of it, or change it by hand"
        raise ConfigError([error("settings.not-edited", where, trouble, remedy)])
    return result


def _put(table: Any, path: list[str], value: TomlValue, new_table: Callable[[], Any]) -> None:
    for name in path[:-1]:
        if name not in table:
            table[name] = new_table()
        table = table[name]
    table[path[-1]] = value


def _drop(table: Any, path: list[str]) -> None:
    for name in path[:-1]:
        table = table.get(name, {})
    if path[-1] in table:
        del table[path[-1]]
