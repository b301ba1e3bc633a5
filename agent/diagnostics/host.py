"""What a check may know of this host.

Secret: where each fact comes from: settings that may be broken, a daemon that may be away, the environment.
Promise: facts only; making a Host changes nothing, asks nobody, and works with whatever could be read.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from agent.diagnostics.aside import Threads
from agent.errors import AgentError, Finding
from agent.net.control import NotRunning, ask
from agent.net.proxy import Proxy, dial, proxy_for
from agent.paths import Paths
from agent.settings import Reading, Secret, Settings
from agent.spec import TlsSpec
from agent.status import StatusReport


@dataclass(frozen=True, slots=True)
class Running:
    """The daemon answers: its status."""

    report: StatusReport


@dataclass(frozen=True, slots=True)
class Away:
    """No daemon has this data directory."""

    trouble: AgentError


@dataclass(frozen=True, slots=True)
class Unheard:
    """There is a daemon, and it does not answer, or not us."""

    trouble: AgentError


Daemon = Running | Away | Unheard


async def ask_daemon(paths: Paths, *, within_s: float = 2.5) -> Daemon:
    """How the daemon of this data directory is."""
    try:
        return Running(msgspec.convert(await ask(paths.control, "status", timeout_s=within_s), StatusReport))
    except NotRunning as away:
        return Away(away)
    except AgentError as trouble:
        return Unheard(trouble)
    except msgspec.ValidationError:
        remedy = "use the command of the same version as the running agent"
        return Unheard(AgentError("the running agent's status cannot be understood", hint=remedy))


@dataclass(frozen=True, slots=True)
class Route:
    """The server, and the way there, as the settings have it."""

    url: str
    environ: Mapping[str, str]
    proxy_setting: Secret | None = None
    ca_file: Path | None = None

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or (443 if self.secure else 80)

    @property
    def secure(self) -> bool:
        return self.url.startswith("https:")

    @property
    def place(self) -> str:
        """Host and port, for people."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def proxy(self) -> Proxy | None:
        """The proxy that applies. Raises ConfigError for one that the environment spells wrong."""
        return proxy_for(
            self.url, self.proxy_setting.reveal() if self.proxy_setting is not None else None, self.environ
        )

    async def dial(self, host: str, port: int) -> socket.socket:
        """A socket to there, by the same way as to the server. Raises LinkError and ConfigError."""
        return await dial(host, port, self.proxy())


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Host:
    """`settings` None: they are incomplete; `route` None: they do not even say where the server is. `tls`: the
    certificates that they name all the same. `told`: what is wrong with them; `sources`: where each value comes from.
    """

    paths: Paths
    settings: Settings | None
    route: Route | None
    told: tuple[Finding, ...]
    sources: Mapping[str, str]
    environ: Mapping[str, str]
    daemon: Daemon
    now: Callable[[], datetime] = _utc_now
    threads: Threads = field(default_factory=Threads)
    tls: Mapping[str, TlsSpec] = field(default_factory=dict)

    @classmethod
    def of(cls, reading: Reading, settings: Settings | None, environ: Mapping[str, str], daemon: Daemon) -> Host:
        """As a command sees it, from whatever of the settings could be read."""
        return cls(
            paths=reading.paths,
            settings=settings,
            route=_route(reading, environ),
            told=reading.findings,
            sources=reading.sources,
            environ=environ,
            daemon=daemon,
            tls=reading.tls,
        )

    @classmethod
    def at_work(cls, settings: Settings, environ: Mapping[str, str], report: StatusReport) -> Host:
        """As the running daemon sees it."""
        server = settings.server
        return cls(
            paths=settings.paths,
            settings=settings,
            route=Route(server.base_url, environ, server.proxy, server.ca_file),
            told=settings.findings,
            sources=settings.sources,
            environ=environ,
            daemon=Running(report),
            tls=settings.tls,
        )


def _route(reading: Reading, environ: Mapping[str, str]) -> Route | None:
    """None too where proxy or CA file were given and cannot be used: without them it would be another way."""
    url, proxy, ca_file = (reading.values[f"server.{leaf}"] for leaf in ("base_url", "proxy", "ca_file"))
    spoilt = any(finding.where.startswith(("server.proxy ", "server.ca_file ")) for finding in reading.errors)
    if not isinstance(url, str) or spoilt:
        return None
    return Route(
        url,
        environ,
        proxy if isinstance(proxy, Secret) else None,
        ca_file if isinstance(ca_file, Path) else None,
    )
