"""What the existing agent was told, as a config.toml of ours.

Secret: where the existing agent kept its settings (agent.properties, its environment variables), and what of them has
a place here.
Promise: what is taken means the same to `Settings` as it did where it stood; what is not taken is a finding, each with
its place. Looking writes nothing, and the secret stands in the result of `look` alone, never in the file's text.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.errors import ConfigError, Finding, Severity
from agent.settings.files import error, is_there
from agent.settings.keys import KEYS
from agent.settings.shape import Given, Key
from agent.settings.sources import CONFIG_FILE, PROPERTIES_FILE, read_properties
from agent.settings.tomlfile import TomlValue, edited
from agent.settings.values import Secret, Unfit

SECRET_FILE = "client_secret"
_OLD_PREFIX = "MEDPLUM_"
_SECRET = "server.client_secret"
_HEAD = "# Made by `agent config migrate`. config.example.toml and `agent config schema` have every key.\n\n"


@dataclass(frozen=True, slots=True)
class Taken:
    """One value that goes over: its key, what it means, and where it stood."""

    key: Key
    value: object
    source: str


@dataclass(frozen=True, slots=True)
class Migration:
    """What was found. `left`: what has no place here, or cannot be used; none of it is a reason not to go on."""

    taken: tuple[Taken, ...]
    left: tuple[Finding, ...]

    @property
    def secret(self) -> Secret | None:
        return next((taken.value for taken in self.taken if isinstance(taken.value, Secret)), None)

    def toml(self, text: str, config: Path, secret_file: str) -> str:
        """The text of config.toml, with what was taken put into `text`. Raises ConfigError."""
        put: dict[str, TomlValue] = {}
        for taken in self.taken:
            if taken.key.name == _SECRET:
                put[f"{_SECRET}_file"] = secret_file
            else:
                put[taken.key.name] = taken.value if isinstance(taken.value, bool | int | float) else str(taken.value)
        drop = [_SECRET] if self.secret is not None else []
        return edited(text or _HEAD, put, drop, where=str(config))


def properties_file(named: Path | None, config_dir: Path, cwd: Path) -> Path | None:
    """The file that is meant: the one that was named, or in a folder that was; else where it is looked for at a start.

    Raises ConfigError for a named one that is not there, and for one that cannot be looked at.
    """
    findings: list[Finding] = []
    if named is None:
        places = (folder / PROPERTIES_FILE for folder in (config_dir, cwd))
        found = next((path for path in places if is_there(path, findings)), None)
        if found is None and findings:
            raise ConfigError(findings)
        return found
    path = cwd / named
    if path.is_dir():
        path /= PROPERTIES_FILE
    if not is_there(path, findings):
        remedy = f"name the {PROPERTIES_FILE} of the existing agent, or the folder that it was started in"
        raise ConfigError(findings or [error("settings.unreadable", str(path), "there is no such file", remedy)])
    return path


def look(properties: Path | None, environ: Mapping[str, str], cwd: Path) -> Migration:
    """What stands in the file and in the environment variables of the existing agent, of which the latter win.

    A relative path in the file starts where the existing agent was started: in the file's folder.
    """
    findings: list[Finding] = []
    layer: dict[str, Given] = {}
    if properties is not None:
        layer = read_properties(properties, properties.parent, findings)
        if stopped := [finding for finding in findings if finding.severity is Severity.ERROR]:
            raise ConfigError(stopped)
    for key in KEYS:
        for name in key.env_names:
            if name.startswith(_OLD_PREFIX) and environ.get(name):
                layer[key.name] = Given(environ[name], f"environment {name}", cwd)
    taken: list[Taken] = []
    for key in KEYS:
        if (given := layer.get(key.name)) is None:
            continue
        try:
            taken.append(Taken(key, key.parse(given.value, given.base), given.source))
        except Unfit as unfit:
            text = "the secret cannot be used" if key.secret else str(unfit)
            findings.append(error("settings.bad-value", f"{key.name} ({given.source})", text, unfit.remedy))
    left = tuple(
        dataclasses.replace(finding, severity=Severity.WARNING)
        for finding in findings
        if finding.code != "settings.secret-readable"  # of the old file, which the secret leaves
    )
    return Migration(tuple(taken), left)


def standing(config_dir: Path) -> tuple[Path, Path]:
    """Where the result goes: config.toml and the file of its secret."""
    return config_dir / CONFIG_FILE, config_dir / SECRET_FILE
