"""Pages of a log lose and repeat nothing, and a line laid out for people cannot steer their terminal."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.loglines import DISORDER, Page, local, moment_of, parse, read_page, readable, stamp_of

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def stamp(ms: float) -> str:
    return stamp_of(NOON + timedelta(milliseconds=ms))


def line(name: object, ms: float, **fields: object) -> bytes:
    return msgspec.json.encode({"level": "INFO", "msg": str(name), "timestamp": stamp(ms), **fields}) + b"\n"


def write(folder: Path, *files: Iterable[bytes], day: int = 1) -> None:
    for number, lines in enumerate(files):
        (folder / f"t-2026-01-{day + number:02}.log").write_bytes(b"".join(lines))


def names(page: Page) -> list[str]:
    return [line["msg"] for line in page.lines]


def walk(folder: Path, limit: int, **more: Any) -> list[Page]:
    """All pages from the newest on, each asked for with what the one before said."""
    pages = [read_page(folder, "t", limit, **more)]
    while (before := pages[-1].next_before) is not None:
        pages.append(read_page(folder, "t", limit, before, **more))
        assert len(pages) < 10_000, "a walk comes to its end"
    return pages


def walked(folder: Path, limit: int, **more: Any) -> list[str]:
    return [name for page in walk(folder, limit, **more) for name in names(page)]


class TestPages:
    def test_the_newest_come_first_across_files(self, tmp_path: Path) -> None:
        write(tmp_path, [line("a", 1), line("b", 2)], [line("c", 3), line("d", 4)])

        newest = read_page(tmp_path, "t", 3)
        assert (names(newest), newest.next_before) == (["d", "c", "b"], stamp(2))
        oldest = read_page(tmp_path, "t", 3, newest.next_before)
        assert (names(oldest), oldest.next_before) == (["a"], None)

    def test_a_page_that_holds_all_there_is_is_the_last(self, tmp_path: Path) -> None:
        write(tmp_path, [line("a", 1), line("b", 2)])

        assert read_page(tmp_path, "t", 2).next_before is None
        assert read_page(tmp_path / "nowhere", "t", 2) == Page([], None)

    def test_a_page_may_end_between_two_lines_of_one_millisecond(self, tmp_path: Path) -> None:
        write(tmp_path, [line("a", 1), line("b", 2), line("c", 2), line("d", 3)])

        assert [names(page) for page in walk(tmp_path, 2)] == [["d", "c"], ["b", "a"]]

    def test_a_page_may_begin_and_end_in_one_millisecond(self, tmp_path: Path) -> None:
        write(tmp_path, [line("a", 1), *(line(number, 2) for number in range(5)), line("z", 3)])

        assert [names(page) for page in walk(tmp_path, 2)] == [["z", "4"], ["3", "2"], ["1", "0"], ["a"]]

    def test_lines_that_come_in_the_millisecond_of_a_pages_end_do_not_shift_the_next(self, tmp_path: Path) -> None:
        write(tmp_path, [line(number, 2) for number in range(5)])
        first = read_page(tmp_path, "t", 2)
        write(tmp_path, [line("new", 2), line("newer", 2)], day=2)

        assert names(read_page(tmp_path, "t", 9, first.next_before)) == ["2", "1", "0"]

    def test_a_millisecond_of_very_many_lines_is_not_parted(self, tmp_path: Path) -> None:
        write(tmp_path, [line("a", 1), *(line(number, 2) for number in range(1_200))])

        pages = walk(tmp_path, 100)

        assert [len(page.lines) for page in pages] == [1_200, 1]

    def test_a_page_keeps_within_its_bytes(self, tmp_path: Path) -> None:
        write(tmp_path, [line(number, number, text="x" * 1_000) for number in range(20)])

        pages = walk(tmp_path, 1_000, max_bytes=5_000)

        assert all(len(msgspec.json.encode(page.lines)) <= 5_000 for page in pages)
        assert [names(page) for page in pages][:2] == [["19", "18", "17", "16"], ["15", "14", "13", "12"]]
        assert sum(len(page.lines) for page in pages) == 20

    def test_what_fits_on_no_page_is_told_and_the_way_on_is_not_blocked(self, tmp_path: Path) -> None:
        write(tmp_path, [line("a", 1), line("giant", 2, text="x" * 9_000), line("b", 3)])

        pages = walk(tmp_path, 1_000, max_bytes=5_000)

        assert [names(page) for page in pages] == [["b"], ["logs.left-out"], ["a"]]
        assert pages[1].lines == [{"level": "WARN", "msg": "logs.left-out", "timestamp": stamp(2), "lines": 1}]

    def test_a_millisecond_that_fits_on_no_page_is_parted(self, tmp_path: Path) -> None:
        write(tmp_path, [line("a", 1), *(line(number, 2, text="x" * 1_170) for number in range(9))])

        pages = walk(tmp_path, 1_000, max_bytes=5_000)

        assert [names(page) for page in pages] == [["8", "7", "6"], ["5", "4", "3"], ["2", "1", "0", "a"]]

    def test_a_line_that_fits_on_no_page_hides_no_other_of_its_millisecond(self, tmp_path: Path) -> None:
        write(tmp_path, [line("a", 2), line("giant", 2, text="x" * 9_000), line("b", 2)])

        pages = walk(tmp_path, 1_000, max_bytes=5_000)

        assert [names(page) for page in pages] == [["b"], ["logs.left-out"], ["a"]]

    @pytest.mark.parametrize(
        "damaged",
        [
            b"", b"not json", b"[1]", b'{"no":"timestamp"}', b"\xff\x00", line("cut", 2)[:-9], b"\0" * 100_000,
            b'{"level":"INFO","msg":"x","timestamp":"yesterday"}', b"[" * 9_000, line("cut", 2)[:30] + line("b", 2),
            b'{"level":"INFO","msg":"x","timestamp":7}', b'{"level":"INFO","timestamp":"2026-01-02T12:00:00.002Z"}',
            b'{"level":"INFO","msg":"\\ud800","timestamp":"2026-01-02T12:00:00.002Z"}',
            b'{"deep":{"timestamp":"2026-01-02T12:00:00.002Z"},"level":"INFO"}',
            b'"timestamp":"0000-00-00T00:00:00.000Z"',
            b'{"deep":{"timestamp":"2026-01-02T12:00:00.009Z"},"level":"INFO","msg":"x","timestamp":"2026-01-02T12:00:00.002Z"}',
        ],
    )  # fmt: skip
    def test_a_damaged_line_hides_none_of_its_neighbours(self, tmp_path: Path, damaged: bytes) -> None:
        write(tmp_path, [line("a", 1), damaged + b"\n", line("z", 3)], [damaged])

        assert walked(tmp_path, 10) == ["z", "a"]
        assert walked(tmp_path, 1) == ["z", "a"]

    def test_lines_in_another_spelling_of_json_count_too(self, tmp_path: Path) -> None:
        rows = [{"level": "INFO", "timestamp": stamp(ms), "msg": str(ms)} for ms in range(3)]
        write(tmp_path, [json.dumps(row).encode() + b"\n" for row in rows])

        assert walked(tmp_path, 1) == ["2", "1", "0"]

    def test_an_instant_between_two_lines_parts_them(self, tmp_path: Path) -> None:
        write(tmp_path, [line("a", 1), line("b", 2)])

        assert names(read_page(tmp_path, "t", 9, stamp(1.25))) == ["a"]
        assert names(read_page(tmp_path, "t", 9, stamp(1))) == []

    def test_a_clock_that_was_set_back_hides_no_line(self, tmp_path: Path) -> None:
        hour = 3_600_000
        write(
            tmp_path,
            [line("a", 0), line("ahead", 13 * hour), line("b", 1), line("c", 2)],
            [line("d", 3), line("ahead too", 12 * hour), line("e", 5 * hour), line("f", 6 * hour)],
        )

        assert walked(tmp_path, 1) == ["ahead", "ahead too", "f", "e", "d", "c", "b", "a"]

    def test_a_file_that_holds_only_later_lines_is_not_read(self, tmp_path: Path) -> None:
        after = DISORDER / timedelta(milliseconds=1) + 1
        write(tmp_path, [line("a", 0)], [line("b", after), line("impossible", -1)])

        assert names(read_page(tmp_path, "t", 9, stamp(0.5))) == ["a"]

    def test_files_that_go_meanwhile_end_the_walk_and_spoil_nothing(self, tmp_path: Path) -> None:
        write(tmp_path, [line("a", 1)], [line("b", 2)], [line("c", 3)])
        first = read_page(tmp_path, "t", 1)
        (tmp_path / "t-2026-01-01.log").unlink()
        (tmp_path / "t-2026-01-01.log").mkdir()

        second = read_page(tmp_path, "t", 1, first.next_before)

        assert (names(first), names(second), second.next_before) == (["c"], ["b"], None)

    def test_lines_that_come_between_two_pages_do_not_shift_the_second(self, tmp_path: Path) -> None:
        write(tmp_path, [line(number, number) for number in range(4)])
        first = read_page(tmp_path, "t", 2)
        write(tmp_path, [line("new", 9)], day=2)

        assert names(read_page(tmp_path, "t", 2, first.next_before)) == ["1", "0"]

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        st.lists(st.lists(st.integers(-9, 9), max_size=12), min_size=1, max_size=4),
        st.integers(1, 7),
        st.sampled_from([700, 1_000, 3_000, 900_000]),
    )
    def test_pages_give_every_line_once_newest_first(
        self, tmp_path: Path, files: list[list[int]], limit: int, max_bytes: int
    ) -> None:
        for old in tmp_path.iterdir():
            old.unlink()
        moments = [ms for file in files for ms in file]
        numbers = iter(range(len(moments)))
        write(tmp_path, *[[line(next(numbers), ms) for ms in file] for file in files])
        expected = sorted(range(len(moments)), key=lambda number: (moments[number], number), reverse=True)

        pages = walk(tmp_path, limit, max_bytes=max_bytes)

        told = [entry for page in pages for entry in page.lines]
        left_out = sum(entry["lines"] for entry in told if entry["msg"] == "logs.left-out")
        assert left_out + sum(entry["msg"] != "logs.left-out" for entry in told) == len(expected)
        if not left_out:
            assert [int(entry["msg"]) for entry in told] == expected
        assert all(len(msgspec.json.encode(page.lines)) <= max_bytes for page in pages)
        for page in pages[:-1]:
            assert len(page.lines) == limit or max_bytes < 900_000
        for page in pages:
            assert len(page.lines) <= limit
            assert page.lines or page.next_before is None


class TestStamps:
    @given(st.datetimes(timezones=st.timezones() | st.just(UTC)))
    def test_a_moment_is_stamped_up_to_a_millisecond_later_and_never_earlier(self, moment: datetime) -> None:
        try:
            found = stamp_of(moment)
        except OverflowError:
            assert not 2 < moment.year < 9_999
            return
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", found)
        assert timedelta(0) <= moment_of(found) - moment < timedelta(milliseconds=1)

    def test_a_zone_is_taken_into_account(self) -> None:
        moment = datetime(2026, 1, 1, 1, 0, tzinfo=timezone(timedelta(hours=2)))
        assert stamp_of(moment) == "2025-12-31T23:00:00.000Z"

    def test_a_stamp_that_is_no_date_is_shown_and_sorted_without_ado(self) -> None:
        assert moment_of("2026-02-31T00:00:00.000Z").year == 1970


class TestForPeople:
    def test_a_line_has_its_time_level_event_and_fields(self) -> None:
        entry = {"level": "WARN", "msg": "uplink.lost", "timestamp": stamp(0), "code": 1009, "reason": "too big"}

        assert readable(entry, "12:00", colours=False) == '12:00 WARN  uplink.lost  code=1009 reason="too big"'

    def test_a_message_stands_below_its_line_segment_by_segment(self) -> None:
        entry = {"level": "INFO", "msg": "message.received", "timestamp": "", "ref": 7, "content": "MSH|a\rPID|b\r"}

        assert readable(entry, "12:00", colours=False).split("\n") == [
            "12:00 INFO  message.received  ref=7", "  MSH|a", "  PID|b",
        ]  # fmt: skip

    def test_a_traceback_keeps_its_lines(self) -> None:
        entry = {"level": "ERROR", "msg": "daemon.failed", "timestamp": "", "exception": "a\n  b\n"}

        assert readable(entry, "12:00", colours=False) == "12:00 ERROR daemon.failed\n  a\n    b"

    def test_a_stamp_is_shown_as_the_clock_on_the_wall_says(self) -> None:
        wall = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(NOON.timestamp()))
        assert local(stamp(7)) == f"{wall}.007"

    @given(
        st.dictionaries(
            st.text() | st.sampled_from(["content", "exception"]),
            st.recursive(st.none() | st.integers() | st.text() | st.floats(), st.lists, max_leaves=4),
        ),
        st.text(),
        st.text(),
    )
    def test_nothing_that_was_logged_can_steer_a_terminal(
        self, fields: dict[str, object], level: str, event: str
    ) -> None:
        entry = {**fields, "level": level, "msg": event, "timestamp": stamp(0)}

        text = readable(entry, "12:00", colours=False)

        assert all(part.isprintable() for part in text.split("\n"))
        text.encode()

    @given(st.binary() | st.text().map(lambda text: json.dumps({"level": text, "msg": text}).encode()))
    def test_a_line_that_is_read_has_what_a_line_has(self, raw: bytes) -> None:
        if (found := parse(raw)) is not None:
            assert {"level", "msg", "timestamp"} <= set(found)
