"""Where a value was said, and what was said there.

Secret: the places of the sources (arguments, environment, systemd credential, TOML, agent.properties), which of them
wins, and to which table of a file a variable of the environment belongs.
Promise: `gather` reads nothing but its arguments and the files they lead to, and every key, file or line that it
cannot use becomes a finding; none is passed over in silence.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.errors import Finding
from agent.settings.files import check_mode, error, is_there, read_text, warning
from agent.settings.keys import BY_ARGUMENT, BY_ENV, BY_PROPERTY, KEYS, NAMED, find
from agent.settings.safekeeping import read_secret
from agent.settings.shape import Given, Layer, NamedSection, folded
from agent.settings.tables import one_line, read_toml

CONFIG_FILE = "config.toml"
PROPERTIES_FILE = "agent.properties"
_LOCATORS = ("AGENT_CONFIG", "AGENT_CONFIG_DIR")  # they lead to the sources, so they cannot stand in one


@dataclass(frozen=True, slots=True)
class Gathered:
    """All sources, strongest first, with what was wrong with them.

    `tables`: dotted names of the tables that somebody named (`tls.main`), empty ones included.
    """

    layers: tuple[Layer, ...]
    tables: tuple[str, ...]
    findings: tuple[Finding, ...]


def gather(argv_values: Mapping[str, object], environ: Mapping[str, str], cwd: Path, config_dir: Path) -> Gathered:
    findings: list[Finding] = []
    tables: list[str] = []
    layers = [
        _arguments(argv_values, cwd),
        _environment(environ, cwd, findings),
        _credentials(environ, tables, findings),
    ]
    chosen = argv_values.get("config") or environ.get("AGENT_CONFIG")
    named = cwd / str(chosen) if chosen else None
    standard = config_dir / CONFIG_FILE
    if named is not None:
        layers.append(read_toml(named, tables, findings))
    if named != standard and is_there(standard, findings):
        layers.append(read_toml(standard, tables, findings))
    beside = (named.parent, config_dir, cwd) if named is not None else (config_dir, cwd)
    for folder in beside:
        if is_there(properties := folder / PROPERTIES_FILE, findings):
            layers.append(read_properties(properties, cwd, findings))
            break
    layers[1] |= _named_in_environment(environ, cwd, tables, findings)
    tables += [name.rpartition(".")[0] for layer in layers for name in layer if name.partition(".")[0] in NAMED]
    return Gathered(tuple(layers), tuple(dict.fromkeys(tables)), tuple(findings))


def _arguments(argv_values: Mapping[str, object], cwd: Path) -> Layer:
    layer: Layer = {}
    for name, value in argv_values.items():
        key = BY_ARGUMENT.get(name) or find(name)
        if key is not None and not _empty(value):
            layer[key.name] = Given(str(value) if isinstance(value, Path) else value, f"argument {name}", cwd)
    return layer


def _environment(environ: Mapping[str, str], cwd: Path, findings: list[Finding]) -> Layer:
    layer: Layer = {}
    for key in KEYS:
        for name in key.env_names:
            if not _empty(environ.get(name)):
                layer[key.name] = Given(environ[name], f"environment {name}", cwd)
                break
    for name in sorted(environ):
        if name.startswith("AGENT_") and name not in BY_ENV and name not in _LOCATORS and _named(name) is None:
            near = [meant for kind in NAMED.values() if (meant := kind.nearest_variable(name))]
            close = near or difflib.get_close_matches(name, [*BY_ENV, *_LOCATORS], n=1)
            remedy = f"did you mean {close[0]}? Else remove it" if close else "remove it, if it was meant for the agent"
            findings.append(
                warning("settings.unknown-variable", name, "the agent knows no such environment variable", remedy)
            )
    return layer


def _named(variable: str) -> tuple[NamedSection, str, str] | None:
    """(section, own name in capitals, leaf) of a variable of a named table."""
    found = ((section, section.in_variable(variable)) for section in NAMED.values())
    return next(((section, *parts) for section, parts in found if parts is not None), None)


def _named_in_environment(environ: Mapping[str, str], cwd: Path, tables: list[str], findings: list[Finding]) -> Layer:
    """Variables of named tables. Each belongs to the table of a file whose name it spells, or makes one of its own."""
    layer: Layer = {}
    for variable in sorted(environ):
        if (named := _named(variable)) is None or _empty(environ[variable]):
            continue
        section, capitals, leaf = named
        meant = [table for table in dict.fromkeys(tables) if folded(table) == folded(f"{section.name}.{capitals}")]
        if len(meant) > 1:
            text = f"it belongs to [{meant[0]}] as much as to [{meant[1]}]"
            remedy = "give them names that differ in more than capitals, - and _"
            findings.append(error("settings.ambiguous-variable", variable, text, remedy))
            continue
        table = meant[0] if meant else f"{section.name}.{capitals.lower()}"
        layer[f"{table}.{leaf}"] = Given(environ[variable], f"environment {variable}", cwd)
    return layer


def _credentials(environ: Mapping[str, str], tables: list[str], findings: list[Finding]) -> Layer:
    """What systemd's LoadCredential= hands to a service (systemd.exec(5)): secrets by the last part of their key
    (`client_secret`), and files of a named table by their key (`tls.main.key_password`)."""
    given = environ.get("CREDENTIALS_DIRECTORY")
    if not given:
        return {}
    folder, layer = Path(given), Layer()
    for key in KEYS:
        if key.secret and is_there(path := folder / key.leaf, findings):
            content = read_secret(path, findings, key.holds)
            layer[key.name] = Given(content, f"systemd credential {path}", folder)
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError:  # without one that we know of, it is none of our business
        return layer
    for name in names:
        if name.partition(".")[0] in NAMED and find(f"{name}_file") is not None:
            tables.append(name.rpartition(".")[0])
            layer[f"{name}_file"] = Given(str(folder / name), f"systemd credential {folder / name}", folder)
    return layer


def read_properties(path: Path, base: Path, findings: list[Finding]) -> Layer:
    """`agent.properties`. `base`: the folder that the agent was started in, where relative paths begin."""
    content = read_text(path, findings, fallback="cp1252")  # the Windows installer writes the ANSI code page
    if content is None:
        return {}
    found: dict[str, str] = {}
    for number, name, value in parse_properties(content):
        where = f"{path}, line {number}"
        if value is None:
            text, remedy = "the line is not of the form key=value", "correct or remove it"
            findings.append(warning("settings.bad-line", where, text, remedy))
        elif name not in BY_PROPERTY:
            close = difflib.get_close_matches(name, BY_PROPERTY, n=1)
            remedy = f"did you mean {close[0]}?" if close else "remove it"
            text = "the agent knows no such key"
            findings.append(warning("settings.unknown-property", f"{one_line(name)} in {where}", text, remedy))
        else:
            if name in found:
                text, remedy = "the key stands here twice", "keep one of them; the last one counts"
                findings.append(warning("settings.repeated-property", f"{name} in {where}", text, remedy))
            found[name] = value
    layer: Layer = {}
    for key in KEYS:
        for name in key.properties:
            if found.get(name):
                layer[key.name] = Given(found[name], f"{path} ({name})", base, lenient=True)
                break
    if "server.client_secret" in layer:
        check_mode(path, findings)
    return layer


def parse_properties(content: str) -> list[tuple[int, str, str | None]]:
    """(line number from 1, key, value) of every line that is neither empty nor a comment.

    The value starts after the first '=' and may hold more of them; it is None where there is no '='. Blanks around key
    and value do not count.
    """
    entries: list[tuple[int, str, str | None]] = []
    for number, raw in enumerate(content.split("\n"), start=1):
        line = raw.strip()
        if not line or line[0] in "#!":
            continue
        name, equals, value = line.partition("=")
        entries.append((number, name.strip(), value.strip() if equals and name.strip() else None))
    return entries


def _empty(value: object) -> bool:
    return value is None or value == ""
