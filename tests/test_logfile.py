"""Lines reach the disk in rotated files, and a disk that takes nothing holds nobody up."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.logfile import PENDING_BYTES, LogFiles, LogWriter, Tap, lines_backwards, list_files


def _notice(count: int) -> bytes:
    return f"{count} lost\n".encode()


def _files(folder: Path, *, max_bytes: int = 1_000, keep: int = 3) -> LogFiles:
    return LogFiles(folder, "t", max_bytes=max_bytes, keep=keep, mode=0o600)


def _content(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in list_files(folder, "t"))


class Disk:
    """A target that can be full, or take only a part of what it is given."""

    def __init__(self) -> None:
        self.taken = b""
        self.full = False
        self.room: int | None = None

    def write(self, data: bytes) -> int:
        if self.full:
            raise OSError(28, "No space left on device")
        count = len(data) if self.room is None else min(len(data), self.room)
        self.taken += data[:count]
        return count

    def close(self) -> None:
        self.full = True


def test_files_follow_each_other_by_size_and_the_oldest_go(tmp_path: Path) -> None:
    files = _files(tmp_path, max_bytes=100, keep=3)

    for number in range(10):
        files.write(f"{number}".encode() * 59 + b"\n")
    files.close()

    kept = list_files(tmp_path, "t")
    assert [path.name.split(".", 1)[1] for path in kept] == ["7.log", "8.log", "9.log"]
    assert _content(tmp_path) == b"".join(f"{number}".encode() * 59 + b"\n" for number in (7, 8, 9))


def test_a_new_start_goes_on_with_the_newest_file_while_there_is_room(tmp_path: Path) -> None:
    for line in (b"1" * 60, b"2" * 30, b"3" * 30):
        files = _files(tmp_path, max_bytes=100)
        files.write(line)
        files.close()

    assert [path.stat().st_size for path in list_files(tmp_path, "t")] == [90, 30]


def test_files_of_other_days_and_other_series_are_told_apart(tmp_path: Path) -> None:
    for name in (
        "t-2026-01-02.log",
        "t-2026-01-02.10.log",
        "t-2026-01-02.9.log",
        "t-2026-01-01.log",
        "u-2026-01-01.log",
        "t.log",
    ):
        (tmp_path / name).touch()

    assert [path.name for path in list_files(tmp_path, "t")] == [
        "t-2026-01-01.log", "t-2026-01-02.log", "t-2026-01-02.9.log", "t-2026-01-02.10.log",
    ]  # fmt: skip
    assert list_files(tmp_path / "nowhere", "t") == []


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX modes, and an open file cannot be removed there")
def test_a_log_file_has_its_mode_and_comes_back_when_somebody_removes_it(tmp_path: Path) -> None:
    files = _files(tmp_path)
    files.write(b"a\n")
    (path,) = list_files(tmp_path, "t")
    assert path.stat().st_mode & 0o777 == 0o600
    path.unlink()

    files.write(b"b\n")
    files.close()

    assert _content(tmp_path) == b"b\n"


def test_leaving_the_writer_writes_everything_that_was_put(tmp_path: Path) -> None:
    with LogWriter() as writer:
        tap = writer.tap(_files(tmp_path, max_bytes=1_000_000), _notice)
        for number in range(1_000):
            tap.put(f"{number}\n".encode())

    assert _content(tmp_path).split() == [str(number).encode() for number in range(1_000)]


def test_lines_appear_without_anybody_asking(tmp_path: Path) -> None:
    written = threading.Event()

    class Watched(Disk):
        def write(self, data: bytes) -> int:
            written.set()
            return super().write(data)

    with LogWriter() as writer:
        writer.tap(Watched(), _notice).put(b"a\n")
        assert written.wait(timeout=10)


def test_a_target_that_hangs_does_not_hang_whoever_closes_it() -> None:
    hanging, release = threading.Event(), threading.Event()

    class Stuck(Disk):
        def write(self, data: bytes) -> int:
            hanging.set()
            release.wait(timeout=60)
            return super().write(data)

    try:
        with LogWriter(stuck_s=0.1) as writer:
            writer.tap(Stuck(), _notice).put(b"a\n")
            assert hanging.wait(timeout=10)
    finally:
        release.set()


def test_a_full_disk_keeps_lines_waiting_and_they_follow_in_order() -> None:
    disk = Disk()
    tap = Tap(disk, threading.Event(), _notice)
    disk.full = True

    tap.put(b"a\n")
    assert not tap.drain()
    assert tap.failing == "No space left on device"
    tap.put(b"b\n")
    disk.full = False

    assert not tap.drain(), "not before it is time to try again"
    assert tap.drain(even_if_failing=True)
    assert disk.taken == b"a\nb\n"
    assert tap.failing == ""


def test_a_disk_that_takes_a_part_gets_the_rest_later() -> None:
    disk = Disk()
    tap = Tap(disk, threading.Event(), _notice)
    disk.room = 3
    tap.put(b"aaaa\n")

    assert not tap.drain()
    assert tap.failing
    disk.room = None
    assert tap.drain(even_if_failing=True)

    assert disk.taken == b"aaaa\n"


def test_memory_is_bounded_and_what_was_lost_is_counted_and_told() -> None:
    disk = Disk()
    disk.full = True
    tap = Tap(disk, threading.Event(), _notice)
    line = b"x" * 1_023 + b"\n"

    for _ in range(PENDING_BYTES // len(line) + 5):
        tap.put(line)
    assert tap.dropped == 5
    disk.full = False
    tap.drain(even_if_failing=True)
    tap.put(b"later\n")
    tap.drain()

    assert disk.taken.count(b"x\n") == PENDING_BYTES // len(line)
    assert disk.taken.endswith(b"x\n5 lost\nlater\n"), "told where they are missing"


def test_a_folder_that_cannot_be_made_is_a_state_and_no_exception(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("in the way")
    with LogWriter() as writer:
        tap = writer.tap(_files(tmp_path / "logs"), _notice)
        tap.put(b"a\n")
        writer.flush()
        assert tap.failing
        (tmp_path / "logs").unlink()

    assert _content(tmp_path / "logs") == b"a\n"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from([b"", b"a", b"bb" * 40_000, b"c" * 65_535, b"d" * 65_536]), max_size=6), st.booleans())
def test_lines_backwards_are_the_lines_forwards_turned_round(tmp_path: Path, lines: list[bytes], ended: bool) -> None:
    path = tmp_path / "x.log"
    content = b"\n".join(lines) + (b"\n" if ended else b"")
    path.write_bytes(content)

    assert list(lines_backwards(path)) == content.split(b"\n")[::-1]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_the_real_no_space_error_is_understood() -> None:
    class Full(LogFiles):
        def _current(self, coming_bytes: int) -> int:
            return os.open("/dev/full", os.O_WRONLY)

    tap = Tap(Full(Path("/dev"), "t", max_bytes=1, keep=1, mode=0o600), threading.Event(), _notice)
    tap.put(b"a\n")

    assert not tap.drain()
    assert tap.failing == "No space left on device"
