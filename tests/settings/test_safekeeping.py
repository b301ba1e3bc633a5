"""A secret in a file of its own: private from its first byte, whole or not there, and shown nowhere."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.errors import ConfigError, Finding
from agent.settings.safekeeping import keep_secret, read_secret, write_private

if TYPE_CHECKING:
    from conftest import Host

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX modes")


def test_what_is_kept_is_read_again(tmp_path: Path) -> None:
    findings: list[Finding] = []

    keep_secret(tmp_path / "new" / "client_secret", "s3cret")

    assert read_secret(tmp_path / "new" / "client_secret", findings) == "s3cret"
    assert findings == []
    assert os.listdir(tmp_path / "new") == ["client_secret"]


@posix
@pytest.mark.parametrize(("old", "mode"), [(None, 0o600), (0o666, 0o640), (0o604, 0o600), (0o400, 0o600)])
def test_the_file_is_private_whatever_the_umask_and_the_old_mode(tmp_path: Path, old: int | None, mode: int) -> None:
    path = tmp_path / "client_secret"
    if old is not None:
        path.write_text("old")
        path.chmod(old)
    before = os.umask(0)
    try:
        keep_secret(path, "new")
    finally:
        os.umask(before)

    assert stat.S_IMODE(path.stat().st_mode) == mode


@posix
def test_a_file_without_a_secret_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("old")
    path.chmod(0o644)

    write_private(path, b"new", most=0o777)

    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"new", 0o644)


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize(
    ("owner", "group", "mode"), [(4711, 4712, 0o600), (0, 4712, 0o640), (0, 0, 0o600)], ids=["user", "group", "root"]
)
def test_set_up_by_root_it_can_be_read_by_the_service_that_owns_the_folder(
    tmp_path: Path, owner: int, group: int, mode: int
) -> None:
    os.chown(tmp_path, owner, group)

    keep_secret(tmp_path / "client_secret", "s3cret")

    facts = (tmp_path / "client_secret").stat()
    assert (facts.st_uid, facts.st_gid, stat.S_IMODE(facts.st_mode)) == (owner, group, mode)


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    folder_in_the_way = tmp_path / "client_secret"
    folder_in_the_way.mkdir()

    with pytest.raises(ConfigError) as refused:
        keep_secret(folder_in_the_way, "s3cret")

    (finding,) = refused.value.findings
    assert (finding.code, finding.where) == ("settings.not-written", str(folder_in_the_way))
    assert "s3cret" not in str(finding)
    assert os.listdir(tmp_path) == ["client_secret"]


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ConfigError, match="cannot be written"):
        write_private(tmp_path / "file" / "config.toml", b"")


@posix
def test_a_secret_file_that_others_may_read_is_used_and_told(tmp_path: Path) -> None:
    path = tmp_path / "proxy"
    path.write_text("http://user:pass@proxy:1")
    path.chmod(0o644)
    findings: list[Finding] = []

    assert read_secret(path, findings, "the password of the proxy") == "http://user:pass@proxy:1"

    (finding,) = findings
    assert (finding.code, finding.where) == ("settings.secret-readable", str(path))
    assert "the password of the proxy" in finding.text


@pytest.mark.skipif(sys.platform == "win32", reason="there it can be read")
def test_a_secret_that_windows_protected_is_an_error_elsewhere_and_not_taken_for_the_secret(host: Host) -> None:
    path = host.write("config/client_secret", "dpapi:AAAA")
    host.write("config/config.toml", "[server]\nclient_secret_file = 'client_secret'\n")

    (problem,) = host.read(host.four | {"client_secret": None}).errors

    assert (problem.code, problem.where) == ("settings.protected-secret", str(path))
    assert "set-secret" in problem.remedy
