"""The disk under the spool, real ones of a few MiB where they have to be full."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from diagnostics_far_ends import a_host, findings_of

from agent.diagnostics import disk
from agent.diagnostics.disk import file_system
from agent.diagnostics.host import Host
from agent.errors import Severity

AS_NOBODY = """
import asyncio, os, pathlib, sys
from agent.diagnostics import disk
from agent.diagnostics.host import Away, Host
from agent.errors import AgentError
from agent.paths import locate

os.setuid(65534)
paths = locate({}, data_dir=pathlib.Path(sys.argv[1]))
host = Host(paths, None, None, (), {}, {}, Away(AgentError("")))
print([(finding.code, finding.severity.value) for finding in asyncio.run(disk.look(host)).findings])
"""

needs_mount = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="mounts a small file system, which only root can"
)


@contextlib.contextmanager
def a_small_disk(path: Path, options: str = "size=64m") -> Iterator[Path]:
    path.mkdir(mode=0o750)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"{options},mode=750", "tmpfs", str(path)], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def protect(folder: Path) -> None:
    """As a kernel does that has met an error on the disk."""
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)


def leave_free(folder: Path, mib: int) -> None:
    """Fill the disk but for this much."""
    with (folder / "ballast").open("wb") as ballast:
        while os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize > mib << 20:
            ballast.write(bytes(1 << 20))
            ballast.flush()


def on(folder: Path, **given: object) -> Host:
    return a_host(folder.parent, **{"data_dir": str(folder), **given})


async def test_a_sound_disk_is_told_with_space_kind_and_owner(tmp_path: Path) -> None:
    host = a_host(tmp_path, **{"spool.min_free_mb": 1})
    host.paths.prepare()
    looked = await disk.look(host)
    assert not {"disk.full", "disk.low", "disk.not-writable", "disk.open-to-others", "disk.owner"} & set(
        findings_of(looked)
    )
    assert str(host.paths.data_dir) in looked.text
    assert "mode 750" in looked.text
    assert " free on " in looked.text


async def test_a_folder_that_is_not_there_yet_is_judged_by_the_one_above(tmp_path: Path) -> None:
    looked = await disk.look(a_host(tmp_path, **{"spool.min_free_mb": 1}))
    assert "disk.not-writable" not in findings_of(looked)
    assert f"{tmp_path} (" in looked.text
    assert not (tmp_path / "data").exists()


@needs_mount
async def test_a_disk_that_fills_is_a_warning_and_then_an_error(tmp_path: Path) -> None:
    with a_small_disk(tmp_path / "data") as folder:
        leave_free(folder, 20)
        assert findings_of(await disk.look(on(folder)))["disk.low"].severity is Severity.WARNING
        leave_free(folder, 3)
        found = findings_of(await disk.look(on(folder)))
    assert found["disk.full"].severity is Severity.ERROR
    assert "disk.low" not in found


@needs_mount
async def test_the_reserve_is_that_of_the_settings(tmp_path: Path) -> None:
    with a_small_disk(tmp_path / "data") as folder:
        leave_free(folder, 20)
        assert "disk.low" not in findings_of(await disk.look(on(folder, **{"spool.min_free_mb": 1})))


@needs_mount
async def test_a_spool_in_memory_is_a_warning(tmp_path: Path) -> None:
    with a_small_disk(tmp_path / "data") as folder:
        finding = findings_of(await disk.look(on(folder)))["disk.memory"]
        assert (file_system(folder)[0], file_system(tmp_path)[0] != "") == ("tmpfs", True)
    assert "lost when this host restarts" in finding.text
    assert "spool.dir" in finding.remedy


@needs_mount
async def test_a_disk_without_inodes_is_full_in_another_way(tmp_path: Path) -> None:
    with a_small_disk(tmp_path / "data", "size=64m,nr_inodes=4") as folder:
        with contextlib.suppress(OSError):
            for number in range(8):
                (folder / str(number)).touch()
        assert "disk.no-inodes" in findings_of(await disk.look(on(folder)))


@needs_mount
async def test_a_disk_that_became_read_only_is_told_once(tmp_path: Path) -> None:
    with a_small_disk(tmp_path / "data") as folder:
        protect(folder)
        found = findings_of(await disk.look(on(folder)))
    assert found["disk.read-only"].severity is Severity.ERROR
    assert "disk.not-writable" not in found


@pytest.mark.parametrize(
    ("kind", "options", "code"),
    [
        ("nfs4", "rw", {"disk.network"}),
        ("cifs", "rw", {"disk.network"}),
        ("NTFS", "rw,remote", {"disk.network"}),
        ("overlay", "rw", {"disk.container"}),
        ("ext4", "rw", set()),
        ("xfs", "rw", set()),
        ("NTFS", "rw,fixed", set()),
        ("", "", set()),
    ],
)
def test_which_kinds_of_file_system_are_no_place_for_a_spool(kind: str, options: str, code: set[str]) -> None:
    assert {finding.code for finding in disk._kind(kind, options, Path("/data"))} == code


@pytest.mark.skipif(sys.platform == "win32", reason="permission bits are POSIX's")
async def test_a_folder_that_everybody_may_enter_is_a_warning(tmp_path: Path) -> None:
    host = a_host(tmp_path)
    host.paths.prepare()
    host.paths.data_dir.chmod(0o755)
    finding = findings_of(await disk.look(host))["disk.open-to-others"]
    assert (finding.severity, finding.remedy) == (Severity.WARNING, f"chmod 750 {host.paths.data_dir}")


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="gives files away, which only root can")
async def test_a_file_that_another_user_left_is_a_warning_with_the_command(tmp_path: Path) -> None:
    host = a_host(tmp_path)
    host.paths.prepare()
    host.paths.spool.touch()
    os.chown(host.paths.data_dir, 65_533, 65_533)
    finding = findings_of(await disk.look(host))["disk.owner"]
    assert finding.text.startswith("spool.db belongs to root")
    assert finding.remedy == f"chown {disk.user_name(65_533)} {host.paths.spool}"


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="becomes another user, which only root can")
def test_a_folder_that_may_not_be_written_is_an_error_for_whom_it_is_so() -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders can be entered by nobody else
        Path(name).chmod(0o755)
        done = subprocess.run([sys.executable, "-c", AS_NOBODY, name], capture_output=True, text=True, timeout=60)
    assert "('disk.not-writable', 'error')" in done.stdout, done.stderr
