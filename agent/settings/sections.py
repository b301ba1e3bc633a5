"""What this host was told, section by section, as frozen values.

Secret: none of its own; it is the vocabulary between the settings (which read what people wrote) and the rooms that
act.
Promise: a default here is the default of its key, so that a part that is built without settings behaves alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from agent.settings.values import HostPort, Secret
from agent.spec import TlsSpec


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """How to reach the server and who we are.

    `base_url` ends in a slash. `proxy` None: what the usual environment variables say.
    """

    base_url: str
    client_id: str
    client_secret: Secret
    agent_id: str
    proxy: Secret | None = None
    ca_file: Path | None = None
    max_frame_bytes: int = 1024 * 1024
    response_timeout_s: float = 60.0


@dataclass(frozen=True, slots=True)
class LogFile:
    """One log: its least level and its rotated files."""

    level: str
    dir: Path
    max_file_size_mb: int = 10
    files_to_keep: int = 10


@dataclass(frozen=True, slots=True)
class LogSettings:
    """`channel` None: no log of messages is kept."""

    main: LogFile
    channel: LogFile | None
    console: Literal["auto", "always", "never"] = "auto"


@dataclass(frozen=True, slots=True)
class DiagnosticsSettings:
    """`listen` None: off."""

    listen: HostPort | None


@dataclass(frozen=True, slots=True)
class SpoolSettings:
    """Retention None: what the server's Agent.setting says, or its default."""

    min_free_mb: int = 64
    retention_days: int | None = None
    retention_max_mb: int | None = None
    errored_retention_days: int | None = None


@dataclass(frozen=True, slots=True)
class ChannelDefaults:
    """What holds for a channel whose address says nothing. 0 is "without limit" in all but `max_message_bytes`.

    `tls`: the certificates of this host, by the NAME of their `[tls.NAME]`.
    """

    ack_timeout_s: float = 25.0
    max_message_bytes: int = 16 * 1024 * 1024
    max_connections: int = 0
    idle_timeout_s: float = 0.0
    frame_timeout_s: float = 120.0
    keepalive_s: int = 60
    tls: Mapping[str, TlsSpec] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OutboundDefaults:
    """What holds for messages that are pushed to a remote whose address says nothing. `ack_timeout_s` 0: for ever.

    `wait_s`: for a free connection. `waiting_bytes`: of all messages that wait or are under way, to whichever remote.
    """

    ack_timeout_s: float = 30.0
    wait_s: float = 60.0
    waiting_per_remote: int = 1_000
    waiting_bytes: int = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may be under way at one time."""

    window_frames: int = 2_000
    window_bytes: int = 32 * 1024 * 1024
    unanswered_per_connection: int = 64
    unfinished_bytes: int = 256 * 1024 * 1024
