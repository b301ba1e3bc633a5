"""A TOML file as one source of settings.

Secret: how its tables and leaves become keys, tables that a person named among them, and what was meant where they do
not.
Promise: every leaf of the file is a value or a finding; none is passed over in silence.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

from agent.errors import Finding
from agent.settings.files import check_mode, error, read_text
from agent.settings.keys import KEYS, NAMED, find, nearest
from agent.settings.shape import OWN_NAME, Given, Layer

_SECTIONS = {key.section for key in KEYS} | {key.section.partition(".")[0] for key in KEYS} | set(NAMED)


def read_toml(path: Path, tables: list[str], findings: list[Finding]) -> Layer:
    """`tables` is told the dotted name of each table that a person named, an empty one too."""
    content = read_text(path, findings)
    if content is None:
        return {}
    try:
        root = tomllib.loads(content)
    except tomllib.TOMLDecodeError as wrong:
        text, line, column = _where(str(wrong), content)
        remedy = "put Windows paths in single quotes" if "escape" in text or "hex" in text else "correct that line"
        where = f"{path}, line {line}, column {column}"
        findings.append(error("settings.not-toml", where, f"the file is no TOML: {text}", remedy))
        return {}
    layer: Layer = {}
    _flatten(root, "", path, layer, tables, findings)
    for key in KEYS:
        # a proxy may have no password, and then there is nothing to hide
        if key.secret and key.name in layer and (key.required or "@" in str(layer[key.name].value)):
            check_mode(path, findings, key.holds)
            break
    return layer


def _flatten(
    table: Mapping[str, object], prefix: str, path: Path, layer: Layer, tables: list[str], findings: list[Finding]
) -> None:
    for leaf, value in table.items():
        name = prefix + leaf
        if isinstance(value, dict) and name in _SECTIONS:
            _flatten(value, name + ".", path, layer, tables, findings)
        elif isinstance(value, dict) and prefix.removesuffix(".") in NAMED:
            if OWN_NAME.fullmatch(leaf):
                tables.append(name)
                _flatten(value, name + ".", path, layer, tables, findings)
            else:
                text, remedy = "this is no name for a table", "take 1 to 40 letters, digits, - and _"
                findings.append(error("settings.bad-name", f"[{one_line(name)}] in {path}", text, remedy))
        elif find(name) is not None:
            if not (value is None or value == ""):
                layer[name] = Given(value, str(path), path.parent)
        elif name in _SECTIONS:
            findings.append(
                error(
                    "settings.not-a-table",
                    f"{name} in {path}",
                    "this is a table of keys",
                    f"write {f'[{name}.NAME]' if name in NAMED else f'[{name}]'} on a line of its own",
                )
            )
        else:
            findings.append(error("settings.unknown-key", f"{one_line(name)} in {path}", *_unknown(name, value)))


def _where(words: str, content: str) -> tuple[str, int, int]:
    """What the parser says, and its line and column from 1, where it names them in its words: that is no place to look
    for them, but later Pythons alone have attributes."""
    text, _, place = words.rpartition(" (at ")
    if found := re.match(r"line (\d+), column (\d+)", place):
        return text, int(found[1]), int(found[2])
    lines = content.split("\n")
    return text or words, len(lines), len(lines[-1]) + 1


def _unknown(name: str, value: object) -> tuple[str, str]:
    section = NAMED.get(name.partition(".")[0])
    if section is not None and name.count(".") == 1:
        return (
            "this table has no name of its own",
            f"write [{section.name}.NAME], like [{section.name}.{section.example}]",
        )
    close = difflib.get_close_matches(name, _SECTIONS, n=1) if isinstance(value, dict) else [nearest(name)]
    remedy = f"did you mean {close[0]}?" if close and close[0] else "remove it; config.example.toml lists all keys"
    return "there is no such key", remedy


def one_line(name: str) -> str:
    """A quoted TOML name may hold anything; a finding is one line."""
    return "".join(character if character.isprintable() else "?" for character in name[:80])
