"""Where things live, from what the environment says and nothing else."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import pytest

from agent.errors import ConfigError
from agent.paths import SOCKET_PATH_LIMIT, Paths, locate

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX folders, modes and sockets")


@posix
def test_a_person_gets_the_folders_of_the_xdg_rules() -> None:
    paths = locate({"HOME": "/home/anna"})

    assert paths.config_dir == Path("/home/anna/.config/onprem-agent")
    assert paths.data_dir == Path("/home/anna/.local/share/onprem-agent")
    assert paths.logs_dir == paths.data_dir / "logs"
    assert locate({"HOME": "/h", "XDG_CONFIG_HOME": "/c"}).config_dir == Path("/c/onprem-agent")


def test_an_environment_that_says_nothing_still_gives_folders() -> None:
    paths = locate({})

    assert paths.config_dir.is_absolute()
    assert paths.data_dir.is_absolute()


@posix
def test_a_service_gets_what_systemd_hands_it_the_first_of_several() -> None:
    environ = {
        "HOME": "/root",
        "CONFIGURATION_DIRECTORY": "/etc/onprem-agent:/etc/other",
        "STATE_DIRECTORY": "/var/lib/onprem-agent",
        "LOGS_DIRECTORY": "/var/log/onprem-agent",
    }

    paths = locate(environ)

    assert (str(paths.config_dir), str(paths.data_dir)) == ("/etc/onprem-agent", "/var/lib/onprem-agent")
    assert str(paths.logs_dir) == "/var/log/onprem-agent"


@posix
def test_a_data_folder_that_a_person_names_wins_and_takes_the_logs_along(tmp_path: Path) -> None:
    service = {"STATE_DIRECTORY": "/var/lib/x", "LOGS_DIRECTORY": "/var/log/x"}

    by_argument = locate(service | {"AGENT_DATA_DIR": "/elsewhere"}, data_dir=tmp_path)
    by_environment = locate(service | {"AGENT_DATA_DIR": str(tmp_path)})

    for paths in (by_argument, by_environment):
        assert (paths.data_dir, paths.logs_dir) == (tmp_path, tmp_path / "logs")
    assert locate(service, logs_dir=tmp_path).logs_dir == tmp_path
    assert locate(service, spool_dir=tmp_path).spool == tmp_path / "spool.db"


@posix
def test_the_control_socket_stays_in_the_data_folder_as_long_as_the_system_can_name_it() -> None:
    longest = Path("/" + "d" * (SOCKET_PATH_LIMIT - len("//control.sock")))

    assert locate({}, data_dir=longest).control == longest / "control.sock"
    assert len(os.fsencode(locate({}, data_dir=longest).control)) == SOCKET_PATH_LIMIT
    assert locate({}, data_dir=Path(f"{longest}d")).control.parent != Path(f"{longest}d")


@posix
def test_a_daemon_and_a_command_agree_on_a_short_socket_whatever_their_environments_say() -> None:
    deep = Path("/" + "ü" * 100)

    daemon = locate({"TMPDIR": "/a", "XDG_RUNTIME_DIR": "/run/user/1"}, data_dir=deep).control
    command = locate({"TMPDIR": "/b"}, data_dir=deep).control

    assert daemon == command
    assert len(os.fsencode(command)) <= SOCKET_PATH_LIMIT
    assert locate({}, data_dir=Path(f"{deep}x")).control != command


def _paths(folder: Path, control: Path | None = None) -> Paths:
    made = locate({"AGENT_CONFIG_DIR": str(folder)}, data_dir=folder / "data")
    return Paths(
        made.config_dir, made.data_dir, made.logs_dir, made.spool, made.lock, control or made.control, made.last_good
    )


def test_prepare_makes_the_data_folder_and_may_be_repeated(tmp_path: Path) -> None:
    paths = _paths(tmp_path)

    paths.prepare()
    paths.prepare()

    assert paths.data_dir.is_dir()


@posix
def test_prepare_names_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file stands in the way")

    with pytest.raises(ConfigError) as refused:
        _paths(tmp_path).prepare()

    assert refused.value.findings[0].where == str(tmp_path / "data")
    assert "--data-dir" in refused.value.findings[0].remedy


@posix
def test_a_short_socket_folder_is_ours_alone_or_is_refused() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        paths = _paths(Path(short), Path(short) / "sock" / "control.sock")
        paths.prepare()
        assert (Path(short) / "sock").stat().st_mode & 0o777 == 0o700

        (Path(short) / "sock").chmod(0o755)
        with pytest.raises(ConfigError) as refused:
            paths.prepare()
        assert refused.value.findings[0].code == "paths.not-private"
