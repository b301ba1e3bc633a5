"""Lines reach the disk in rotated files, and a disk that takes nothing holds nobody up."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.logfile import PENDING_BYTES, Follower, LogFiles, LogWriter, Tap, lines_backwards, list_files


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
    for line in (b"1" * 59 + b"\n", b"2" * 29 + b"\n", b"3" * 29 + b"\n"):
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

    found = list(lines_backwards(path))

    assert [line for _, line in found] == content.split(b"\n")[::-1]
    assert all(content[begins : begins + len(line)] == line for begins, line in found)
    assert all(begins == 0 or content[begins - 1 : begins] == b"\n" for begins, _ in found)


def test_what_a_power_loss_left_of_a_line_does_not_spoil_the_first_one_of_the_next_start(tmp_path: Path) -> None:
    before = _files(tmp_path)
    before.write(b'{"whole":1}\n{"hal')
    before.close()

    files = _files(tmp_path)
    files.write(b'{"whole":2}\n')
    files.close()

    assert _content(tmp_path).splitlines() == [b'{"whole":1}', b'{"hal', b'{"whole":2}']


def test_a_line_of_which_the_disk_took_a_part_is_completed_and_not_cut_in_two(tmp_path: Path) -> None:
    files = _files(tmp_path)
    files.write(b"aa")
    files.close()  # as after a write that failed
    files.write(b"aa\n")
    files.close()

    assert _content(tmp_path) == b"aaaa\n"


class TestFollower:
    """Lines that are added are read once each, whatever the files do."""

    @staticmethod
    def add(path: Path, data: bytes) -> None:
        with path.open("ab") as file:
            file.write(data)

    def test_every_line_comes_once_and_only_when_its_end_is_there(self, tmp_path: Path) -> None:
        path = tmp_path / "t-2026-01-01.log"
        follower = Follower(tmp_path, "t")
        assert list(follower.read()) == []

        self.add(path, b"a\nb")
        assert list(follower.read()) == [b"a"]
        self.add(path, b"b\n")
        assert list(follower.read()) == [b"bb"]
        assert list(follower.read()) == []

    def test_a_line_longer_than_a_block_comes_whole(self, tmp_path: Path) -> None:
        long = b"x" * 700_000
        self.add(tmp_path / "t-2026-01-01.log", b"a\n" + long + b"\nb\n")

        assert list(Follower(tmp_path, "t").read()) == [b"a", long, b"b"]

    def test_it_goes_on_through_rotation_and_midnight(self, tmp_path: Path) -> None:
        first, second, third = (tmp_path / f"t-2026-01-{day}.log" for day in ("01", "01.1", "02"))
        self.add(first, b"1\n")
        follower = Follower(tmp_path, "t")
        assert list(follower.read()) == [b"1"]

        self.add(first, b"2\n")
        self.add(second, b"3\n")
        self.add(third, b"4\n")
        assert list(follower.read()) == [b"2", b"3", b"4"]

    def test_a_clock_set_back_over_midnight_hides_nothing(self, tmp_path: Path) -> None:
        self.add(tmp_path / "t-2026-01-02.log", b"1\n")
        self.add(tmp_path / "t-2026-01-01.log", b"0\n")
        follower = Follower(tmp_path, "t")
        assert list(follower.read()) == [b"0", b"1"]

        self.add(tmp_path / "t-2026-01-01.log", b"2\n")
        assert list(follower.read()) == [b"2"]

    def test_it_begins_where_it_is_told(self, tmp_path: Path) -> None:
        for day in ("01", "02", "03"):
            self.add(tmp_path / f"t-2026-01-{day}.log", f"{day}a\n{day}b\n".encode())
        follower = Follower(tmp_path, "t", (tmp_path / "t-2026-01-02.log", 4))

        assert list(follower.read()) == [b"02b", b"03a", b"03b"]
        self.add(tmp_path / "t-2026-01-01.log", b"01c\n")
        assert list(follower.read()) == [b"01c"]

    def test_a_file_that_is_pruned_disturbs_nothing(self, tmp_path: Path) -> None:
        old, path = tmp_path / "t-2026-01-01.log", tmp_path / "t-2026-01-02.log"
        self.add(old, b"1\n")
        self.add(path, b"2\n")
        follower = Follower(tmp_path, "t")
        assert list(follower.read()) == [b"1", b"2"]

        old.unlink()
        self.add(path, b"3\n")
        assert list(follower.read()) == [b"3"]

    def test_a_file_that_was_emptied_is_read_from_its_beginning(self, tmp_path: Path) -> None:
        path = tmp_path / "t-2026-01-01.log"
        self.add(path, b"1\n2\n")
        follower = Follower(tmp_path, "t")
        assert list(follower.read()) == [b"1", b"2"]

        path.write_bytes(b"3\n")
        assert list(follower.read()) == [b"3"]

    def test_another_file_in_its_place_is_read_from_its_beginning(self, tmp_path: Path) -> None:
        path, other = tmp_path / "t-2026-01-01.log", tmp_path / "other"
        self.add(path, b"1\n")
        follower = Follower(tmp_path, "t")
        assert list(follower.read()) == [b"1"]

        self.add(other, b"2\n3\n")
        other.replace(path)
        assert list(follower.read()) == [b"2", b"3"]

    def test_who_stops_in_the_middle_goes_on_there(self, tmp_path: Path) -> None:
        self.add(tmp_path / "t-2026-01-01.log", b"1\n2\n3\n")
        follower = Follower(tmp_path, "t")
        assert next(follower.read()) == b"1"

        assert list(follower.read()) == [b"2", b"3"]

    def test_a_file_that_cannot_be_read_is_said_and_not_passed_over(self, tmp_path: Path) -> None:
        (tmp_path / "t-2026-01-01.log").mkdir()

        with pytest.raises(OSError):
            list(Follower(tmp_path, "t").read())


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_the_real_no_space_error_is_understood() -> None:
    class Full(LogFiles):
        def _current(self, coming_bytes: int) -> int:
            return os.open("/dev/full", os.O_WRONLY)

    tap = Tap(Full(Path("/dev"), "t", max_bytes=1, keep=1, mode=0o600), threading.Event(), _notice)
    tap.put(b"a\n")

    assert not tap.drain()
    assert tap.failing == "No space left on device"
