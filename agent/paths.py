"""Where this host keeps what belongs to the agent.

Secret: the rules of each operating system and of systemd for where configuration, data, logs and sockets live.
Promise: the same answer for the daemon and for a command that looks for it, from the given environment alone; and
`prepare` makes the folders so that nobody else can read what is in them.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from agent.errors import ConfigError, Finding, Severity

APP = "onprem-agent"
SOCKET_PATH_LIMIT = 107  # sun_path is 108 bytes with its closing NUL on Linux (unix(7))
_SHORT_SOCKETS = Path("/tmp")  # not TMPDIR: daemon and command must meet whatever their environments say


@dataclass(frozen=True, slots=True)
class Paths:
    """Every place the agent reads or writes. All absolute; none need exist before `prepare`."""

    config_dir: Path
    data_dir: Path
    logs_dir: Path
    spool: Path
    lock: Path
    control: Path
    last_good: Path

    def prepare(self) -> None:
        """Make the folders. `ConfigError` names every one that cannot be made or written, or that others may enter."""
        problems = [
            problem
            for folder in dict.fromkeys((self.data_dir, self.spool.parent))
            if (problem := _make(folder, mode=0o750)) is not None
        ]
        if self.control.parent != self.data_dir and (problem := _make_private(self.control.parent)) is not None:
            problems.append(problem)
        if problems:
            raise ConfigError(problems)


def locate(
    environ: Mapping[str, str],
    *,
    config_dir: Path | None = None,
    data_dir: Path | None = None,
    logs_dir: Path | None = None,
    spool_dir: Path | None = None,
) -> Paths:
    """The paths for this host; an argument given wins over what the environment and the operating system say.

    systemd hands a service `$CONFIGURATION_DIRECTORY`, `$STATE_DIRECTORY` and `$LOGS_DIRECTORY` (systemd.exec(5)),
    each a colon-separated list whose first entry counts. A data folder named by a person takes the logs along.
    """
    named = data_dir is not None or bool(environ.get("AGENT_DATA_DIR"))
    config = (
        config_dir or _first(environ, "AGENT_CONFIG_DIR", "CONFIGURATION_DIRECTORY") or _user_dir(environ, "config")
    )
    data = data_dir or _first(environ, "AGENT_DATA_DIR", "STATE_DIRECTORY") or _user_dir(environ, "data")
    logs = logs_dir or (None if named else _first(environ, "LOGS_DIRECTORY")) or data / "logs"
    return Paths(
        config_dir=config,
        data_dir=data,
        logs_dir=logs,
        spool=(spool_dir or data) / "spool.db",
        lock=data / "agent.lock",
        control=_control(data),
        last_good=data / "last-good.json",
    )


def _first(environ: Mapping[str, str], *names: str) -> Path | None:
    for name in names:
        value = environ.get(name, "")
        if name.startswith("AGENT_") and value:
            return Path(value).absolute()
        if first := value.split(os.pathsep)[0]:
            return Path(first).absolute()
    return None


def _user_dir(environ: Mapping[str, str], kind: str) -> Path:
    """The XDG rules from the environment we were given; platformdirs where it says nothing, and on other systems."""
    if sys.platform != "win32" and sys.platform != "darwin":
        xdg, below_home = {"config": ("XDG_CONFIG_HOME", ".config"), "data": ("XDG_DATA_HOME", ".local/share")}[kind]
        if base := environ.get(xdg):
            return Path(base).absolute() / APP
        if home := environ.get("HOME"):
            return Path(home).absolute() / below_home / APP
    find = platformdirs.user_config_path if kind == "config" else platformdirs.user_data_path
    return find(APP, appauthor=False).absolute()


def _control(data_dir: Path) -> Path:
    """The local door: a Unix socket, or on Windows the file that tells its port and token."""
    if sys.platform == "win32":
        return data_dir / "control.json"
    path = data_dir / "control.sock"
    if len(os.fsencode(path)) <= SOCKET_PATH_LIMIT:
        return path
    digest = hashlib.sha256(os.fsencode(os.path.realpath(data_dir))).hexdigest()[:16]
    return _SHORT_SOCKETS / f"{APP}-{digest}" / "control.sock"


def _make(folder: Path, *, mode: int) -> Finding | None:
    try:
        folder.mkdir(mode=mode, parents=True, exist_ok=True)
    except OSError as failed:
        return _finding("paths.not-made", folder, f"the folder cannot be made: {failed.strerror}")
    if not os.access(folder, os.W_OK | os.X_OK):
        return _finding("paths.not-writable", folder, "the folder is not writable for this user")
    return None


def _make_private(folder: Path) -> Finding | None:
    """A folder in a place that everybody may write: unless it is ours alone, somebody may have set a trap there."""
    if (problem := _make(folder, mode=0o700)) is not None:
        return problem
    if sys.platform != "win32":
        facts = folder.lstat()
        if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid() or facts.st_mode & 0o077:
            return Finding(
                "paths.not-private",
                Severity.ERROR,
                "the folder for the control socket belongs to somebody else or is open to others",
                f"remove it, or use a data folder whose path is shorter than {SOCKET_PATH_LIMIT - 13} bytes",
                str(folder),
            )
    return None


def _finding(code: str, folder: Path, text: str) -> Finding:
    remedy = "create it for the user that runs the agent, or choose another with --data-dir or AGENT_DATA_DIR"
    return Finding(code, Severity.ERROR, text, remedy, str(folder))
