"""Where a value was said, and what was said there.

Secret: the formats and places of the sources (arguments, environment, systemd credential, TOML, agent.properties)
and which of them wins.
Promise: `gather` reads nothing but its arguments and the files they lead to, and every key, file or line that it
cannot use becomes a finding; none is passed over in silence.
"""

from __future__ import annotations

import difflib
import stat
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.errors import Finding, Severity
from agent.settings.keys import BY_ARGUMENT, BY_ENV, BY_NAME, BY_PROPERTY, KEYS, nearest

CONFIG_FILE = "config.toml"
PROPERTIES_FILE = "agent.properties"
_LOCATORS = ("AGENT_CONFIG", "AGENT_CONFIG_DIR")  # they lead to the sources, so they cannot stand in one
_SECTIONS = {key.section for key in KEYS} | {key.section.partition(".")[0] for key in KEYS}
_OTHERS_MAY_READ = 0o137  # what is wider than 0640


@dataclass(frozen=True, slots=True)
class Given:
    """One value as its source gave it. `base`: the folder that a relative path in it starts from."""

    value: object
    source: str
    base: Path


Layer = dict[str, Given]
"""Key name -> what one source says."""


@dataclass(frozen=True, slots=True)
class Gathered:
    """All sources, strongest first, with what was wrong with them."""

    layers: tuple[Layer, ...]
    findings: tuple[Finding, ...]


def gather(argv_values: Mapping[str, object], environ: Mapping[str, str], cwd: Path, config_dir: Path) -> Gathered:
    findings: list[Finding] = []
    layers = [
        _arguments(argv_values, cwd),
        _environment(environ, cwd, findings),
        _credential(environ, findings),
    ]
    chosen = argv_values.get("config") or environ.get("AGENT_CONFIG")
    named = cwd / str(chosen) if chosen else None
    standard = config_dir / CONFIG_FILE
    if named is not None:
        layers.append(_toml(named, findings))
    if named != standard and _is_there(standard, findings):
        layers.append(_toml(standard, findings))
    beside = (named.parent, config_dir, cwd) if named is not None else (config_dir, cwd)
    for folder in beside:
        if _is_there(properties := folder / PROPERTIES_FILE, findings):
            layers.append(_properties(properties, cwd, findings))
            break
    return Gathered(tuple(layers), tuple(findings))


def read_secret(path: Path, findings: list[Finding]) -> str | None:
    """The client secret from a file of its own, without the line end that editors add."""
    content = _read(path, findings)
    if content is None:
        return None
    if not content.strip():
        findings.append(
            _error("settings.empty-secret", str(path), "the file is empty", "write the client secret into it")
        )
        return None
    check_mode(path, findings)
    return content.strip()


def check_mode(path: Path, findings: list[Finding]) -> None:
    """Windows keeps access in lists that its mode bits do not show, so only POSIX modes are judged."""
    if sys.platform == "win32":
        return
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & _OTHERS_MAY_READ:
        findings.append(
            Finding(
                "settings.secret-readable",
                Severity.WARNING,
                f"the file holds the client secret and has mode {mode:04o}",
                "chmod 0600 (or 0640 with the agent's group)",
                str(path),
            )
        )


def _arguments(argv_values: Mapping[str, object], cwd: Path) -> Layer:
    layer: Layer = {}
    for name, value in argv_values.items():
        key = BY_ARGUMENT.get(name) or BY_NAME.get(name)
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
        if name.startswith("AGENT_") and name not in BY_ENV and name not in _LOCATORS:
            close = difflib.get_close_matches(name, [*BY_ENV, *_LOCATORS], n=1)
            remedy = f"did you mean {close[0]}? Else remove it" if close else "remove it, if it was meant for the agent"
            findings.append(
                Finding(
                    "settings.unknown-variable",
                    Severity.WARNING,
                    "the agent knows no such environment variable",
                    remedy,
                    name,
                )
            )
    return layer


def _credential(environ: Mapping[str, str], findings: list[Finding]) -> Layer:
    """What systemd's LoadCredential= hands to a service (systemd.exec(5))."""
    folder = environ.get("CREDENTIALS_DIRECTORY")
    if not folder or not _is_there(path := Path(folder) / "client_secret", findings):
        return {}
    content = read_secret(path, findings)
    return (
        {} if content is None else {"server.client_secret": Given(content, f"systemd credential {path}", path.parent)}
    )


def _toml(path: Path, findings: list[Finding]) -> Layer:
    content = _read(path, findings)
    if content is None:
        return {}
    try:
        tables = tomllib.loads(content)
    except tomllib.TOMLDecodeError as wrong:
        remedy = (
            "put Windows paths in single quotes"
            if "escape" in str(wrong) or "hex" in str(wrong)
            else "correct that line"
        )
        findings.append(_error("settings.not-toml", str(path), f"the file is no TOML: {wrong}", remedy))
        return {}
    layer: Layer = {}
    _flatten(tables, "", path, layer, findings)
    if "server.client_secret" in layer:
        check_mode(path, findings)
    return layer


def _flatten(table: Mapping[str, object], prefix: str, path: Path, layer: Layer, findings: list[Finding]) -> None:
    for leaf, value in table.items():
        name = prefix + leaf
        if isinstance(value, dict) and name in _SECTIONS:
            _flatten(value, name + ".", path, layer, findings)
        elif name in BY_NAME:
            if not _empty(value):
                layer[name] = Given(value, str(path), path.parent)
        elif name in _SECTIONS:
            findings.append(
                _error(
                    "settings.not-a-table",
                    f"{name} in {path}",
                    "this is a table of keys",
                    f"write [{name}] on a line of its own",
                )
            )
        else:
            close = difflib.get_close_matches(name, _SECTIONS, n=1) if isinstance(value, dict) else [nearest(name)]
            remedy = (
                f"did you mean {close[0]}?" if close and close[0] else "remove it; config.example.toml lists all keys"
            )
            findings.append(_error("settings.unknown-key", f"{name} in {path}", "there is no such key", remedy))


def _properties(path: Path, cwd: Path, findings: list[Finding]) -> Layer:
    content = _read(
        path, findings, fallback="cp1252"
    )  # the existing agent's Windows installer writes the ANSI code page
    if content is None:
        return {}
    found: dict[str, str] = {}
    for number, name, value in parse_properties(content):
        where = f"{path}, line {number}"
        if value is None:
            findings.append(
                _warning("settings.bad-line", where, "the line is not of the form key=value", "correct or remove it")
            )
        elif name not in BY_PROPERTY:
            close = difflib.get_close_matches(name, BY_PROPERTY, n=1)
            remedy = f"did you mean {close[0]}?" if close else "remove it"
            findings.append(
                _warning("settings.unknown-property", f"{name} in {where}", "the agent knows no such key", remedy)
            )
        else:
            if name in found:
                findings.append(
                    _warning(
                        "settings.repeated-property",
                        f"{name} in {where}",
                        "the key stands here twice",
                        "keep one of them; the last one counts",
                    )
                )
            found[name] = value
    layer: Layer = {}
    for key in KEYS:
        for name in key.properties:
            if found.get(name):
                layer[key.name] = Given(found[name], f"{path} ({name})", cwd)
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


def _is_there(path: Path, findings: list[Finding]) -> bool:
    """Whether to read it; a folder that may not be entered is a finding, since its file might say everything."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as failed:
        remedy = "check who may enter the folders above it"
        findings.append(_error("settings.unreadable", str(path), f"it cannot be looked at: {failed.strerror}", remedy))
        return False


def _read(path: Path, findings: list[Finding], *, fallback: str = "") -> str | None:
    try:
        content = path.read_bytes()
    except OSError as failed:
        findings.append(
            _error(
                "settings.unreadable",
                str(path),
                f"the file cannot be read: {failed.strerror}",
                "check the path and who may read it",
            )
        )
        return None
    try:
        return content.decode("utf-8-sig")  # Notepad puts a byte order mark in front
    except UnicodeDecodeError as wrong:
        if fallback:
            return content.decode(fallback, errors="replace")
        findings.append(
            _error("settings.not-utf8", str(path), f"the file is not UTF-8 at byte {wrong.start}", "save it as UTF-8")
        )
        return None


def _empty(value: object) -> bool:
    return value is None or value == ""


def _error(code: str, where: str, text: str, remedy: str) -> Finding:
    return Finding(code, Severity.ERROR, text, remedy, where)


def _warning(code: str, where: str, text: str, remedy: str) -> Finding:
    return Finding(code, Severity.WARNING, text, remedy, where)
