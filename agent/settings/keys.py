"""The one table of everything that can be said to this host.

Secret: the names that a key goes by in TOML, in the environment, in agent.properties and on the command line, its
type, its default and its range.
Promise: parsing, `config.example.toml` and `agent config` are all made from this table, so they cannot disagree.
"""

from __future__ import annotations

import difflib

from agent.settings import values
from agent.settings.shape import Key
from agent.settings.tls import TLS
from agent.settings.values import Choice, HostPort, Number

MIB = 1024 * 1024


def _log_file(prefix: str, logger: str) -> tuple[Key, ...]:
    """The keys that both logs have; the channel log takes from the main log what it is not told."""
    main = logger == "main"
    return (
        Key(
            f"{prefix}.level",
            values.level,
            "least severe lines to keep: DEBUG, INFO, WARN, ERROR or NONE",
            default="INFO" if main else None,
            unset="as log.level",
            env=("MEDPLUM_LOG_LEVEL",) if main else (),
            properties=("logLevel", f"logger.{logger}.logLevel"),  # the general one wins, as in the existing agent
            argument="log_level" if main else "",
            example="INFO",
        ),
        Key(
            f"{prefix}.dir",
            values.path,
            "folder of the log files",
            unset="logs in the data folder" if main else "as log.dir",
            properties=(f"logger.{logger}.logDir",),
            example="/var/log/onprem-agent",
        ),
        Key(
            f"{prefix}.max_file_size_mb",
            Number(1, 10_000, "MB"),
            "size at which a log file is followed by the next, in MB",
            default=10 if main else None,
            unset="as log.max_file_size_mb",
            properties=(f"logger.{logger}.maxFileSizeMb",),
            example="10",
        ),
        Key(
            f"{prefix}.files_to_keep",
            Number(1, 10_000),
            "number of log files that are kept",
            default=10 if main else None,
            unset="as log.files_to_keep",
            properties=(f"logger.{logger}.filesToKeep",),
            example="10",
        ),
    )


KEYS: tuple[Key, ...] = (
    Key(
        "server.base_url",
        values.base_url,
        "address of the server",
        required=True,
        example="https://api.medplum.com/",
        env=("AGENT_BASE_URL", "MEDPLUM_BASE_URL"),
        properties=("baseUrl",),
        argument="base_url",
    ),
    Key(
        "server.client_id",
        values.text,
        "id of the ClientApplication that this agent logs in as",
        required=True,
        env=("AGENT_CLIENT_ID", "MEDPLUM_CLIENT_ID"),
        properties=("clientId",),
        argument="client_id",
        example="123e4567-e89b-12d3-a456-426614174000",
    ),
    Key(
        "server.client_secret",
        values.secret,
        "its secret; better kept outside of this file, see its head",
        required=True,
        holds="the client secret",
        env=("AGENT_CLIENT_SECRET", "MEDPLUM_CLIENT_SECRET"),
        properties=("clientSecret",),
        argument="client_secret",
    ),
    Key(
        "server.client_secret_file",
        values.path,
        "file that holds nothing but the client secret, mode 0600; `agent config set-secret` makes it",
        unset="$CREDENTIALS_DIRECTORY/client_secret where systemd hands one over",
        env=("AGENT_CLIENT_SECRET_FILE",),
        example="/etc/onprem-agent/client_secret",
    ),
    Key(
        "server.agent_id",
        values.agent_id,
        "id of the Agent resource that tells what to do",
        required=True,
        env=("AGENT_ID", "MEDPLUM_AGENT_ID"),
        properties=("agentId",),
        argument="agent_id",
        example="123e4567-e89b-12d3-a456-426614174000",
    ),
    Key(
        "server.proxy",
        values.proxy,
        "HTTP proxy on the way to the server",
        unset="HTTPS_PROXY, HTTP_PROXY and NO_PROXY",
        holds="the password of the proxy",
        env=("AGENT_PROXY",),
        example="http://proxy.example.org:3128",
    ),
    Key(
        "server.proxy_file",
        values.path,
        "file that holds nothing but the address of the proxy with its user and password, mode 0600",
        unset="$CREDENTIALS_DIRECTORY/proxy where systemd hands one over",
        env=("AGENT_PROXY_FILE",),
        example="/etc/onprem-agent/proxy",
    ),
    Key(
        "server.ca_file",
        values.path,
        "certificates (PEM) to trust beside those of the operating system",
        unset="those of the operating system only",
        env=("AGENT_CA_FILE",),
        example="/etc/onprem-agent/ca.pem",
    ),
    Key(
        "server.max_frame_bytes",
        Number(65_536, 1024 * MIB, "bytes"),
        "largest frame that the server takes, in bytes; a message that does not fit is refused to its sender",
        default=MIB,
    ),
    Key(
        "server.response_timeout_s",
        Number(1, 3_600, "seconds", whole=False),
        "how long to wait for the server's answer to a message before trying again, in seconds",
        default=60.0,
    ),
    Key(
        "paths.data_dir",
        values.path,
        "folder of the spool, the last good configuration, the control socket and the logs",
        unset="$STATE_DIRECTORY of a systemd service, else the user's data folder",
        env=("AGENT_DATA_DIR",),
        argument="data_dir",
        example="/var/lib/onprem-agent",
    ),
    *_log_file("log", "main"),
    Key(
        "log.console",
        Choice(("auto", "always", "never")),
        "one readable line per event on stderr: auto (when it is a terminal), always or never",
        default="auto",
    ),
    Key(
        "log.channel.enabled",
        values.switch,
        "keep a log of messages; it holds patient data and stays on this host",
        default=True,
    ),
    *_log_file("log.channel", "channel"),
    Key(
        "diagnostics.listen",
        values.listen,
        "address of /healthz, /readyz and /metrics, or off",
        default=HostPort("127.0.0.1", 8640),
    ),
    Key(
        "spool.dir",
        values.path,
        "folder of the spool's database; a local disk, never a network share",
        unset="the data folder",
        example="/var/lib/onprem-agent",
    ),
    Key(
        "spool.min_free_mb",
        Number(1, 1_000_000, "MB"),
        "free disk space below which no further message is accepted, in MB",
        default=64,
    ),
    Key(
        "spool.retention_days",
        Number(0, 36_500, "days"),
        "how long finished messages are kept, in days",
        unset="as the server says, else 7",
        example="7",
    ),
    Key(
        "spool.retention_max_mb",
        Number(1, 100_000_000, "MB"),
        "size that finished messages may take, in MB",
        unset="as the server says, else 512",
        example="512",
    ),
    Key(
        "spool.errored_retention_days",
        Number(0, 36_500, "days"),
        "how long messages that failed are kept, in days",
        unset="as the server says, else 90",
        example="90",
    ),
    Key(
        "channels.ack_timeout_s",
        Number(0, 86_400, "seconds", whole=False),
        "deadline for the answer to a sender, in seconds, unless the channel has ackTimeoutSecs; 0 waits for ever",
        default=25.0,
    ),
    Key(
        "channels.max_message_bytes",
        Number(1_024, 1024 * MIB, "bytes"),
        "largest message taken from a sender, in bytes, unless the channel has maxMessageBytes",
        default=16 * MIB,
    ),
    Key(
        "channels.max_connections",
        Number(0, 100_000),
        "connections of a channel at one time, unless it has maxConnections; 0 sets no limit",
        default=0,
    ),
    Key(
        "channels.idle_timeout_s",
        Number(0, 86_400, "seconds", whole=False),
        "seconds without a message before a connection is closed, unless the channel has idleTimeoutSecs; 0: never",
        default=0.0,
    ),
    Key(
        "channels.frame_timeout_s",
        Number(0, 86_400, "seconds", whole=False),
        "seconds from a message's first byte to its last, unless the channel has frameTimeoutSecs; 0 waits for ever",
        default=120.0,
    ),
    Key(
        "channels.keepalive_s",
        Number(0, 7_200, "seconds"),
        "seconds of silence before TCP asks for the sender, unless the channel has tcpKeepAliveSecs; 0 never asks",
        default=60,
    ),
    Key(
        "outbound.ack_timeout_s",
        Number(0, 3_600, "seconds", whole=False),
        "deadline for a remote's answer to a message, in seconds, unless the remote has ackTimeoutMs; 0 waits for ever",
        default=30.0,
    ),
    Key(
        "outbound.wait_s",
        Number(1, 3_600, "seconds", whole=False),
        "how long a message may wait for a free connection to its remote, in seconds; a durable one waits on disk",
        default=60.0,
    ),
    Key(
        "outbound.waiting_per_remote",
        Number(1, 1_000_000),
        "messages that may wait for one remote; a further one is refused to the server at once",
        default=1_000,
    ),
    Key(
        "outbound.waiting_bytes",
        Number(MIB, 4_096 * MIB, "bytes"),
        "memory for messages that wait or are under way, all remotes together, in bytes",
        default=64 * MIB,
    ),
    Key(
        "limits.window_frames",
        Number(1, 1_000_000),
        "messages on their way to the server at one time",
        default=2_000,
    ),
    Key(
        "limits.window_bytes",
        Number(MIB, 4_096 * MIB, "bytes"),
        "bytes on their way to the server at one time",
        default=32 * MIB,
    ),
    Key(
        "limits.unanswered_per_connection",
        Number(1, 100_000),
        "messages of one connection that may be unanswered before it is read no further",
        default=64,
    ),
    Key(
        "limits.unfinished_bytes",
        Number(16 * MIB, 65_536 * MIB, "bytes"),
        "memory for messages that have begun and not ended, all connections together, in bytes",
        default=256 * MIB,
    ),
)

NAMED = {section.name: section for section in (TLS,)}
BY_NAME = {key.name: key for key in KEYS}
BY_ENV = {name: key for key in KEYS for name in key.env_names}
BY_PROPERTY = {name: key for key in reversed(KEYS) for name in key.properties}
BY_ARGUMENT = {key.argument: key for key in KEYS if key.argument}

_SPELLINGS = {
    **{name.lower(): name for name in BY_NAME},
    **{key.leaf: key.name for section in NAMED.values() for key in section.keys_of(section.example)},
    **{key.leaf.lower().replace("_", ""): key.name for key in reversed(KEYS)},
    **{key.leaf.lower(): key.name for key in reversed(KEYS)},
    **{name.lower(): key.name for key in reversed(KEYS) for name in key.properties},
}


def find(name: str) -> Key | None:
    """The key with this dotted name, one of a named table included."""
    section, _, rest = name.partition(".")
    own, _, leaf = rest.rpartition(".")
    return NAMED[section].key(own, leaf) if section in NAMED else BY_NAME.get(name)


def keys_of_table(table: str) -> tuple[Key, ...]:
    """The keys of a table that a person named, like `tls.main`."""
    section, _, own = table.partition(".")
    return NAMED[section].keys_of(own)


def nearest(name: str) -> str:
    """The key that somebody who wrote `name` most likely meant, or empty."""
    section, _, rest = name.partition(".")
    own, _, leaf = rest.rpartition(".")
    if section in NAMED and own:
        return NAMED[section].nearest(own, leaf)
    if (found := _SPELLINGS.get(name.lower().rpartition(".")[2])) is not None:
        return found
    close = difflib.get_close_matches(name.lower(), _SPELLINGS, n=1, cutoff=0.6)
    return _SPELLINGS[close[0]] if close else ""
