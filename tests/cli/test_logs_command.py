"""`agent logs` shows the end of a log and goes on with it, whatever the files do and whatever stands in them."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from agent.cli import main
from agent.loglines import stamp_of

Screen = pytest.CaptureFixture[str]
WITHIN_S = 20.0
posix = pytest.mark.skipif(sys.platform == "win32", reason="needs signals or a pseudo-terminal")


def entry(name: object, *, ago: timedelta = timedelta(0), level: str = "INFO", **fields: object) -> bytes:
    stamp = stamp_of(datetime.now(UTC) - ago)
    return msgspec.json.encode({"level": level, "msg": f"event.{name}", "timestamp": stamp, **fields}) + b"\n"


def write(data_dir: Path, *lines: bytes, day: str = "2026-01-01", stem: str = "agent-main") -> Path:
    folder = data_dir / "logs"
    folder.mkdir(exist_ok=True)
    path = folder / f"{stem}-{day}.log"
    with path.open("ab") as file:
        file.write(b"".join(lines))
    return path


def ask(data_dir: Path, *words: str) -> int:
    return main(["logs", *words, "--data-dir", str(data_dir)])


def shown(data_dir: Path, screen: Screen, *words: str) -> list[str]:
    assert ask(data_dir, *words) == 0
    return re.findall(r"event\.(\w+)", screen.readouterr().out)


class TestShowing:
    def test_the_last_lines_come_oldest_first_like_those_of_tail(self, tmp_path: Path, capsys: Screen) -> None:
        write(tmp_path, *map(entry, range(40)))
        write(tmp_path, *map(entry, range(40, 60)), day="2026-01-02")

        assert shown(tmp_path, capsys) == [str(number) for number in range(10, 60)]
        assert shown(tmp_path, capsys, "-n", "3") == ["57", "58", "59"]
        assert shown(tmp_path, capsys, "-n", "25")[0] == "35"
        assert len(shown(tmp_path, capsys, "-n", "1000")) == 60

    def test_a_line_has_date_time_level_event_and_fields(self, tmp_path: Path, capsys: Screen) -> None:
        write(tmp_path, entry("a", level="WARN", code=1009, reason="too big"))

        assert ask(tmp_path) == 0

        assert re.fullmatch(
            r'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} WARN  event\.a  code=1009 reason="too big"\n',
            capsys.readouterr().out,
        )

    @pytest.mark.parametrize(("level", "events"), [("debug", "dwie"), ("INFO", "wie"), ("warn", "we"), ("Error", "e")])
    def test_a_level_leaves_out_what_matters_less(
        self, tmp_path: Path, capsys: Screen, level: str, events: str
    ) -> None:
        for name, kind in (("d", "DEBUG"), ("w", "WARN"), ("i", "INFO"), ("e", "ERROR"), ("other", "LOUD")):
            write(tmp_path, entry(name, level=kind))

        found = shown(tmp_path, capsys, "--level", level)
        assert "".join(name for name in found if name != "other") == events

    def test_the_number_is_that_of_the_lines_that_are_wanted(self, tmp_path: Path, capsys: Screen) -> None:
        for number in range(20):
            write(tmp_path, entry(number, level="WARN" if number % 5 == 0 else "INFO"))

        assert shown(tmp_path, capsys, "--level", "warn", "-n", "2") == ["10", "15"]

    def test_since_leaves_out_what_is_older_and_shows_all_that_is_not(self, tmp_path: Path, capsys: Screen) -> None:
        hours = [timedelta(hours=number) for number in range(100, 0, -1)]
        write(tmp_path, *(entry(ago // timedelta(hours=1), ago=ago) for ago in hours[:50]))
        write(tmp_path, *(entry(ago // timedelta(hours=1), ago=ago) for ago in hours[50:]), day="2026-01-02")

        assert len(shown(tmp_path, capsys, "--since", "60.5h")) == 60
        assert shown(tmp_path, capsys, "--since", "3.5h") == ["3", "2", "1"]
        assert shown(tmp_path, capsys, "--since", "3.5h", "-n", "2") == ["2", "1"]
        assert shown(tmp_path, capsys, "--since", "30min") == []

    def test_since_finds_lines_that_a_clock_put_into_another_order(self, tmp_path: Path, capsys: Screen) -> None:
        minutes = [5, 90, 4]
        write(tmp_path, *(entry(number, ago=timedelta(minutes=number)) for number in minutes))

        assert shown(tmp_path, capsys, "--since", "10min") == ["5", "4"]

    def test_damaged_lines_are_passed_over(self, tmp_path: Path, capsys: Screen) -> None:
        write(tmp_path, entry("a"), b"half a li\n", b"\xff\x00\n", entry("b"))

        assert shown(tmp_path, capsys, "-n", "2") == ["a", "b"]

    def test_json_is_the_lines_as_they_are_in_the_file(self, tmp_path: Path) -> None:
        lines = [entry("a", text="ü \x9b \u202e"), entry("b", level="DEBUG")]
        write(tmp_path, *lines)

        done = agent(tmp_path, "--json")

        assert done.stdout == b"".join(lines)
        assert agent(tmp_path, "--json", "--level", "info").stdout == lines[0]

    def test_the_channel_log_is_asked_for_by_name_and_shows_messages_by_segments(
        self, tmp_path: Path, capsys: Screen
    ) -> None:
        write(tmp_path, entry("main"))
        write(tmp_path, entry("message", ref=7, content="MSH|^~\\&|A\rPID|1||4711\r"), stem="agent-channels")

        assert shown(tmp_path, capsys) == ["main"]
        assert ask(tmp_path, "--channel") == 0
        assert capsys.readouterr().out.splitlines()[1:] == ["  MSH|^~\\&|A", "  PID|1||4711"]

    def test_help_says_that_the_channel_log_holds_patient_data(self, tmp_path: Path, capsys: Screen) -> None:
        assert ask(tmp_path, "--help") == 0

        text = " ".join(capsys.readouterr().out.split())
        assert "messages and answers instead: it holds PATIENT DATA" in text
        assert "agent logs --level warn --since 12h" in text

    @pytest.mark.parametrize("words", [["-n", "0"], ["--level", "loud"], ["--since", "soon"], ["x"]])
    def test_what_makes_no_sense_is_wrong_usage(self, tmp_path: Path, capsys: Screen, words: list[str]) -> None:
        assert ask(tmp_path, *words) == 2
        assert "usage: agent" in capsys.readouterr().err


class TestWhereThereIsNothing:
    def test_a_host_without_a_log_is_told_where_it_would_be(self, tmp_path: Path, capsys: Screen) -> None:
        assert ask(tmp_path) == 1

        told = capsys.readouterr()
        assert told.out == ""
        assert str(tmp_path / "logs") in told.err
        assert "agent-main-YYYY-MM-DD.log" in told.err
        assert "--data-dir" in told.err

    def test_a_channel_log_that_is_off_is_told_from_one_that_is_empty(self, tmp_path: Path, capsys: Screen) -> None:
        config = tmp_path / "config.toml"
        config.write_text("[log.channel]\nenabled = false\n")

        assert ask(tmp_path, "--channel", "--follow", "--config", str(config)) == 1
        assert "set log.channel.enabled = true" in capsys.readouterr().err

    def test_the_channel_log_is_looked_for_where_the_settings_say(self, tmp_path: Path, capsys: Screen) -> None:
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / "agent-channels-2026-01-01.log").write_bytes(entry("elsewhere"))
        config = tmp_path / "config.toml"
        config.write_text(f"[log.channel]\ndir = '{elsewhere}'\n")

        assert shown(tmp_path, capsys, "--channel", "--config", str(config)) == ["elsewhere"]

    def test_a_file_that_cannot_be_read_is_named(self, tmp_path: Path, capsys: Screen) -> None:
        path = write(tmp_path)
        path.unlink()
        path.mkdir()

        assert ask(tmp_path) == 1
        assert f"the main log cannot be read at {path}" in capsys.readouterr().err

    @posix
    @pytest.mark.parametrize("locked", ["folder", "file"])
    def test_who_may_not_read_it_is_told_who_may(self, locked: str) -> None:
        with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to other users above it
            home = Path(name)
            home.chmod(0o755)
            path = write(home, entry("a"))
            (path if locked == "file" else path.parent).chmod(0)

            done = subprocess.run(
                [sys.executable, "-c", AS_NOBODY, name], capture_output=True, timeout=WITHIN_S, check=False, text=True
            )

            path.parent.chmod(0o700)
            assert done.stderr.splitlines()[-1] == (
                f"agent: you may not read the main log in {path.parent} — "
                "run this as the user of the agent's service, or as an administrator"
            )
            assert (done.stdout, done.returncode) == ("", 1)


@posix
class TestFollowing:
    def test_lines_are_shown_as_they_come_through_rotation_and_midnight_until_ctrl_c(self, tmp_path: Path) -> None:
        write(tmp_path, *map(entry, range(5)))
        with following(tmp_path, "-n", "2") as log:
            assert log.events(2) == ["3", "4"]

            write(tmp_path, entry("same"))
            assert log.events(1) == ["same"]
            write(tmp_path, entry("late"))
            write(tmp_path, entry("rotated"), day="2026-01-01.1")
            write(tmp_path, entry("tomorrow"), day="2026-01-02")
            assert log.events(3) == ["late", "rotated", "tomorrow"]

            assert log.interrupted() == (0, "")

    def test_a_line_is_shown_once_and_only_when_it_is_whole(self, tmp_path: Path) -> None:
        write(tmp_path, entry("first"))
        with following(tmp_path) as log:
            assert log.events(1) == ["first"]
            line = entry("halves")
            write(tmp_path, line[:20])
            write(tmp_path, entry("after"), day="2026-01-02")
            assert log.events(1) == ["after"]
            write(tmp_path, line[20:])
            assert log.events(1) == ["halves"]

    def test_what_is_not_wanted_is_not_shown_later_either(self, tmp_path: Path) -> None:
        write(tmp_path, entry("a", level="ERROR"))
        with following(tmp_path, "--level", "warn", "--json") as log:
            assert log.events(1) == ["a"]
            write(tmp_path, entry("quiet"), entry("loud", level="WARN"))
            assert log.events(1) == ["loud"]

    def test_a_log_that_does_not_exist_yet_is_waited_for(self, tmp_path: Path) -> None:
        with following(tmp_path) as log:
            assert "waiting for it" in log.complaint()
            write(tmp_path, entry("first"))
            assert log.events(1) == ["first"]

    def test_a_reader_that_goes_ends_it(self, tmp_path: Path) -> None:
        write(tmp_path, entry("first"))
        with following(tmp_path) as log:
            assert log.events(1) == ["first"]
            log.close_its_output()
            write(tmp_path, entry("unheard"))
            assert log.process.wait(WITHIN_S) == 141


@posix
class TestOnATerminal:
    LINE = entry("a", level="ERROR", text="\x9b31m red")

    @pytest.mark.parametrize(
        ("environ", "colours"), [({}, True), ({"NO_COLOR": "1"}, False)], ids=["usual", "NO_COLOR"]
    )
    def test_colours_are_for_terminals_that_want_them(
        self, tmp_path: Path, environ: dict[str, str], colours: bool
    ) -> None:
        write(tmp_path, self.LINE)

        text = on_a_terminal(tmp_path, environ=environ)

        assert ("\x1b[1;31mERROR" in text) is colours
        assert "\x9b" not in text

    def test_a_pipe_gets_none(self, tmp_path: Path) -> None:
        write(tmp_path, self.LINE)
        assert b"\x1b" not in agent(tmp_path).stdout

    def test_json_cannot_steer_it_either_and_stays_the_same_json(self, tmp_path: Path) -> None:
        write(tmp_path, self.LINE)

        text = on_a_terminal(tmp_path, "--json")

        assert text.strip().isprintable()
        assert json.loads(text) == json.loads(self.LINE)


# ---- the command as a process of its own

COMMAND = [sys.executable, "-m", "agent", "logs"]


# root may read everything; another user may not even read this interpreter, so all it needs is loaded before
AS_NOBODY = """
import os, sys
from agent.cli import main
main(["logs", "--data-dir", "/nowhere"])
if os.getuid() == 0:
    os.setuid(65534)
sys.exit(main(["logs", "--data-dir", sys.argv[1]]))
"""


def agent(data_dir: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*COMMAND, *words, "--data-dir", str(data_dir)],
        capture_output=True,
        timeout=WITHIN_S,
        check=False,
    )


class Following:
    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self._text = b""

    def events(self, count: int) -> list[str]:
        """The next `count` events that it shows."""
        while len(found := re.findall(rb"event\.(\w+)[^\n]*\n", self._text)) < count:
            self._text += self._heard(self.process.stdout)
        self._text = b""
        return [name.decode() for name in found]

    def complaint(self) -> str:
        return self._heard(self.process.stderr).decode()

    def interrupted(self) -> tuple[int, str]:
        self.process.send_signal(signal.SIGINT)
        _, complaint = self.process.communicate(timeout=WITHIN_S)
        return self.process.returncode, complaint.decode()

    def close_its_output(self) -> None:
        assert self.process.stdout is not None
        self.process.stdout.close()

    @staticmethod
    def _heard(stream: object) -> bytes:
        assert hasattr(stream, "fileno")
        ready, _, _ = select.select([stream], [], [], WITHIN_S)
        assert ready, "nothing was shown in time"
        data = os.read(stream.fileno(), 65_536)
        assert data, "it ended"
        return data


@contextmanager
def following(data_dir: Path, *words: str) -> Iterator[Following]:
    process = subprocess.Popen(
        [*COMMAND, "-f", *words, "--data-dir", str(data_dir)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        yield Following(process)
    finally:
        process.kill()
        process.wait(WITHIN_S)
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def on_a_terminal(data_dir: Path, *words: str, environ: dict[str, str] | None = None) -> str:
    import pty

    ours, theirs = pty.openpty()
    variables = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | (environ or {})
    with subprocess.Popen(
        [*COMMAND, *words, "--data-dir", str(data_dir)], stdout=theirs, stderr=theirs, env=variables
    ) as process:
        os.close(theirs)
        text = b""
        try:
            while data := os.read(ours, 65_536):
                text += data
        except OSError:  # Linux tells the end of a pseudo-terminal so
            pass
        finally:
            os.close(ours)
        assert process.wait(WITHIN_S) == 0
    return text.decode()
