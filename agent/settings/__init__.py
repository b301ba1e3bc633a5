"""What this host was told: arguments, environment, TOML and agent.properties become one frozen `Settings`.

Secret: how the sources are merged and what makes a configuration complete.
Promise: `Settings.load` depends on its arguments and the files they lead to, and on nothing else; it returns complete,
checked settings, or raises `ConfigError` with every problem at once. Each value remembers its source.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from agent import paths as places
from agent.errors import ConfigError, Finding, Severity
from agent.paths import Paths
from agent.settings.keys import KEYS, keys_of_table
from agent.settings.safekeeping import read_secret
from agent.settings.sections import (
    ChannelDefaults,
    DiagnosticsSettings,
    Limits,
    LogFile,
    LogSettings,
    OutboundDefaults,
    ServerSettings,
    SpoolSettings,
)
from agent.settings.shape import Given, Key, Layer
from agent.settings.sources import CONFIG_FILE, PROPERTIES_FILE, gather
from agent.settings.tls import look_at, tls_specs
from agent.settings.values import HostPort, Secret, Unfit
from agent.spec import TlsSpec

__all__ = [
    "ChannelDefaults",
    "DiagnosticsSettings",
    "HostPort",
    "Limits",
    "LogFile",
    "LogSettings",
    "OutboundDefaults",
    "Reading",
    "Secret",
    "ServerSettings",
    "Settings",
    "SpoolSettings",
    "paths_for",
    "read",
]

_UNREAD = {"settings.unreadable", "settings.not-utf8", "settings.not-toml"}
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


@dataclass(frozen=True, slots=True)
class Reading:
    """Every key's value and source, with all that is wrong; usable for showing even when it is not usable for running.

    `values` holds None for a required key that is missing or broken. Of a named table (`tls.main.ca_file`) it holds
    what was said and can be used; `tls` is what came of these.
    """

    values: Mapping[str, object]
    sources: Mapping[str, str]
    paths: Paths
    findings: tuple[Finding, ...]
    tls: Mapping[str, TlsSpec]

    @property
    def errors(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity is Severity.ERROR)

    @property
    def names_a_server(self) -> bool:
        """Whether all four values were given somewhere, good or bad."""
        return all(self.sources[key.name] != "default" for key in KEYS if key.required)


@dataclass(frozen=True, slots=True)
class Settings:
    """Complete and checked. `findings` are the warnings; they do not stop a start."""

    server: ServerSettings
    paths: Paths
    log: LogSettings
    diagnostics: DiagnosticsSettings
    spool: SpoolSettings
    channels: ChannelDefaults
    outbound: OutboundDefaults
    limits: Limits
    tls: Mapping[str, TlsSpec]
    findings: tuple[Finding, ...]
    sources: Mapping[str, str]

    @classmethod
    def load(cls, argv_values: Mapping[str, object], environ: Mapping[str, str], cwd: Path) -> Settings:
        """Merge and check everything.

        `argv_values`: by argument name (`base_url`, `client_id`, `client_secret`, `agent_id`, `log_level`, `data_dir`,
        `config`, `config_dir`) or by dotted key name. None and empty texts count as not given; other names are ignored.
        """
        reading = read(argv_values, environ, cwd)
        if reading.errors:
            raise ConfigError(sorted(reading.findings, key=lambda finding: finding.severity is not Severity.ERROR))
        value: Mapping[str, Any] = reading.values
        main = LogFile(
            value["log.level"], reading.paths.logs_dir, value["log.max_file_size_mb"], value["log.files_to_keep"]
        )
        return cls(
            server=ServerSettings(
                base_url=value["server.base_url"],
                client_id=value["server.client_id"],
                client_secret=value["server.client_secret"],
                agent_id=value["server.agent_id"],
                proxy=value["server.proxy"],
                ca_file=value["server.ca_file"],
                max_frame_bytes=value["server.max_frame_bytes"],
                response_timeout_s=value["server.response_timeout_s"],
            ),
            paths=reading.paths,
            log=LogSettings(main, _channel_log(value, main), value["log.console"]),
            diagnostics=DiagnosticsSettings(value["diagnostics.listen"]),
            spool=SpoolSettings(
                min_free_mb=value["spool.min_free_mb"],
                retention_days=value["spool.retention_days"],
                retention_max_mb=value["spool.retention_max_mb"],
                errored_retention_days=value["spool.errored_retention_days"],
            ),
            channels=ChannelDefaults(
                ack_timeout_s=value["channels.ack_timeout_s"],
                max_message_bytes=value["channels.max_message_bytes"],
                max_connections=value["channels.max_connections"],
                idle_timeout_s=value["channels.idle_timeout_s"],
                frame_timeout_s=value["channels.frame_timeout_s"],
                keepalive_s=value["channels.keepalive_s"],
                tls=reading.tls,
            ),
            outbound=OutboundDefaults(
                ack_timeout_s=value["outbound.ack_timeout_s"],
                wait_s=value["outbound.wait_s"],
                waiting_per_remote=value["outbound.waiting_per_remote"],
                waiting_bytes=value["outbound.waiting_bytes"],
            ),
            limits=Limits(
                window_frames=value["limits.window_frames"],
                window_bytes=value["limits.window_bytes"],
                unanswered_per_connection=value["limits.unanswered_per_connection"],
                unfinished_bytes=value["limits.unfinished_bytes"],
            ),
            tls=reading.tls,
            findings=reading.findings,
            sources=reading.sources,
        )

    def source_of(self, name: str) -> str:
        """Where the value of a dotted key comes from: `argument …`, `environment …`, a file, or `default`."""
        return self.sources[name]


def paths_for(argv_values: Mapping[str, object], environ: Mapping[str, str], cwd: Path) -> Paths:
    """Where this host keeps things, for commands that need no server; a broken configuration does not hinder them."""
    return read(argv_values, environ, cwd).paths


def read(argv_values: Mapping[str, object], environ: Mapping[str, str], cwd: Path) -> Reading:
    """All keys with their sources; never raises for what a person wrote."""
    chosen = argv_values.get("config_dir") or environ.get("AGENT_CONFIG_DIR")
    config_dir = places.locate(environ, config_dir=cwd / str(chosen) if chosen else None).config_dir
    gathered = gather(argv_values, environ, cwd, config_dir)
    findings = list(gathered.findings)
    values: dict[str, object] = {}
    sources: dict[str, str] = {}
    given_names: set[str] = set()
    for key in KEYS:
        given = _strongest(key, gathered.layers, findings)
        values[key.name], sources[key.name] = key.default, "default"
        if given is not None:
            given_names.add(key.name)
            values[key.name], sources[key.name] = _parsed(key, given, findings), given.source
    if missing := [key for key in KEYS if key.required and key.name not in given_names]:
        unread = any(finding.code in _UNREAD for finding in findings)
        findings.append(_missing(missing, config_dir, unread=unread))
    for key in (key for table in gathered.tables for key in keys_of_table(table)):
        given = _strongest(key, gathered.layers, findings)
        if given is not None and (value := _parsed(key, given, findings)) is not None:
            values[key.name], sources[key.name] = value, given.source
    tls = tls_specs(gathered.tables, values)
    findings += look_at(tls, sources)
    findings += _advice(values, sources)
    values["log.channel.level"] = values["log.channel.level"] or values["log.level"]
    place: Mapping[str, Any] = values
    found = places.locate(
        environ,
        config_dir=config_dir,
        data_dir=place["paths.data_dir"],
        logs_dir=place["log.dir"],
        spool_dir=place["spool.dir"],
    )
    return Reading(values, sources, found, tuple(findings), tls)


def _strongest(key: Key, layers: tuple[Layer, ...], findings: list[Finding]) -> Given | None:
    for layer in layers:
        if (given := layer.get(key.name)) is not None:
            return given
        if key.secret and (file := layer.get(f"{key.name}_file")) is not None:
            path = file.base / str(file.value)
            content = read_secret(path, findings, key.holds)
            return Given(content, f"{path}, named by {file.source}", path.parent)
    return None


def _parsed(key: Key, given: Given, findings: list[Finding]) -> object:
    if given.value is None:  # an unreadable secret file: reported where it was read
        return None
    try:
        return key.parse(given.value, given.base)
    except Unfit as unfit:
        text = "the secret cannot be used" if key.name == "server.client_secret" else str(unfit)
        where, remedy = f"{key.name} ({given.source})", unfit.remedy
        severity = Severity.ERROR
        if given.lenient and not key.required:
            severity, remedy = Severity.WARNING, f"{remedy}; until then the default holds"
        findings.append(Finding("settings.bad-value", severity, text, remedy, where))
        return key.default


def _missing(keys: list[Key], config_dir: Path, *, unread: bool) -> Finding:
    variables = ", ".join(key.env_names[-1] for key in keys)
    return Finding(
        "settings.missing",
        Severity.ERROR,
        "not given anywhere that could be read" if unread else "not given anywhere",
        "give them as arguments (agent run BASE_URL CLIENT_ID CLIENT_SECRET AGENT_ID), "
        f"in the environment ({variables}), in {config_dir / CONFIG_FILE} (see config.example.toml), "
        f"or in {PROPERTIES_FILE} beside it or in the working directory",
        ", ".join(key.name for key in keys),
    )


def _advice(values: Mapping[str, object], sources: Mapping[str, str]) -> list[Finding]:
    """What is allowed and unwise."""
    findings: list[Finding] = []
    url = values["server.base_url"]
    if isinstance(url, str):
        parts = urlsplit(url)
        if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
            findings.append(
                Finding(
                    "settings.unencrypted",
                    Severity.WARNING,
                    "the secret and all messages travel unencrypted",
                    "use an https:// address",
                    f"server.base_url ({sources['server.base_url']})",
                )
            )
    if sources["server.client_secret"].startswith("argument "):
        findings.append(
            Finding(
                "settings.secret-in-arguments",
                Severity.WARNING,
                "every user of this host can see the secret in the process list",
                "keep it with `agent config set-secret`, and leave it out of the arguments",
                "server.client_secret",
            )
        )
    return findings


def _channel_log(value: Mapping[str, Any], main: LogFile) -> LogFile | None:
    if not value["log.channel.enabled"]:
        return None
    return LogFile(
        value["log.channel.level"],
        value["log.channel.dir"] or main.dir,
        value["log.channel.max_file_size_mb"] or main.max_file_size_mb,
        value["log.channel.files_to_keep"] or main.files_to_keep,
    )
