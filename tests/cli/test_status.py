from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.cli import status
from agent.cli.setting_options import reading_from
from agent.cli.status_screen import exit_status, read
from agent.errors import Finding, Severity
from agent.net.control import open_control
from agent.paths import locate
from agent.status import ChannelStatus, ServerStatus, SpoolStatus, StatusReport, to_builtins
from agent.store.row import Direction, Row
from agent.store.spool import Spool
from agent.store.terms import SpoolEvents

WELL = StatusReport(
    version="1.2.3",
    running=True,
    uptime_seconds=60,
    server=ServerStatus("https://server.example/", live=True, ping_ms=4),
    channels=(ChannelStatus("adt", "mllp://0.0.0.0:2575", "mllp", "listening", received=7),),
    clients=(),
    spool=SpoolStatus("/data/spool.db", 4096),
)
ILL = StatusReport(
    version="1.2.3",
    running=True,
    uptime_seconds=60,
    server=WELL.server,
    channels=WELL.channels,
    clients=(),
    spool=WELL.spool,
    findings=(Finding("channel.port-taken", Severity.ERROR, "port 2576 is in use", "free it", "lab"),),
)


def asked(data_dir: Path, *words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    status.register(parser.add_subparsers())
    return parser.parse_args(["status", "--data-dir", str(data_dir), *words])


@contextmanager
def daemon(data_dir: Path, report: StatusReport) -> Iterator[None]:
    """A process's worth of daemon: a loop of its own with the local door open, answering with `report`."""
    opened = threading.Event()
    stop: list[Any] = []

    async def answer(verb: str, args: dict[str, Any]) -> Any:
        assert verb == "status"
        return to_builtins(report)

    async def live() -> None:
        done = asyncio.Event()
        stop.extend((asyncio.get_running_loop(), done))
        async with open_control(locate({}, data_dir=data_dir).control, answer):
            opened.set()
            await done.wait()

    thread = threading.Thread(target=asyncio.run, args=(live(),))
    thread.start()
    assert opened.wait(5)
    try:
        yield
    finally:
        loop, done = stop
        loop.call_soon_threadsafe(done.set)
        thread.join(5)


def test_a_daemon_that_is_well_is_shown_without_colours_in_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with daemon(tmp_path, WELL):
        assert status.run(asked(tmp_path)) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("The agent is live and well.\n")
    assert shown.isascii()
    assert "\x1b" not in shown


def test_the_json_is_the_daemons_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with daemon(tmp_path, WELL):
        assert status.run(asked(tmp_path, "--json")) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(to_builtins(WELL)))


def test_a_problem_is_an_exit_status_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with daemon(tmp_path, ILL):
        assert status.run(asked(tmp_path)) == 1
    assert capsys.readouterr().out.startswith("PROBLEM: lab: port 2576 is in use")


def test_without_daemon_and_without_spool_it_still_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status.run(asked(tmp_path)) == 3
    shown = capsys.readouterr().out
    assert shown.startswith("The agent is NOT RUNNING")
    assert "fix: start it with 'agent run'" in shown
    assert "there is no spool at" in shown


def test_without_daemon_the_json_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status.run(asked(tmp_path, "--json")) == 3
    shown = json.loads(capsys.readouterr().out)
    assert (shown["running"], shown["uptimeSeconds"]) == (False, None)
    assert shown["spool"]["path"] == str(tmp_path / "spool.db")
    assert "agent.not-running" in {finding["code"] for finding in shown["findings"]}


async def test_without_daemon_what_is_stored_for_a_remote_is_told(tmp_path: Path) -> None:
    stored = asyncio.Event()
    events = SpoolEvents(lambda rows: stored.set(), *(lambda *_: None,) * 4)
    async with Spool.open(tmp_path / "spool.db", events) as spool:
        to_lab = "mllp://lab:2575?durable=true"
        now_ms = time.time_ns() // 1_000_000
        row = Row(spool.next_id(), to_lab, "lab:2575", b"", b"M1", b"ADT", now_ms, b"MSH", direction=Direction.OUT)
        spool.put(row)
        await asyncio.wait_for(stored.wait(), 10)
    shown = await status.gather(reading_from(asked(tmp_path)))
    assert not shown["channels"]
    [lab] = shown["clients"]
    assert (lab["remote"], lab["stored"], lab["durable"]) == (to_lab, 1, True)
    assert lab["oldestStoredSeconds"] >= 0


async def test_a_daemon_that_hangs_is_not_said_to_be_down(tmp_path: Path) -> None:
    async def hang(verb: str, args: dict[str, Any]) -> Any:
        await asyncio.Event().wait()

    reading = reading_from(asked(tmp_path))
    async with open_control(reading.paths.control, hang):
        shown = await status.gather(reading, within_s=0.05)
    assert shown["running"] is True
    assert shown["findings"][0]["code"] == "agent.no-answer"
    assert exit_status(read(shown)) == 1


@pytest.mark.parametrize("word", ["0", "0.1", "-1", "soon", "nan", "inf"])
def test_a_pace_that_makes_no_sense_is_refused(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        asked(Path(), "--watch", word)
    assert left.value.code == 2
    assert "no number of seconds" in capsys.readouterr().err


SCRIPT = """
import argparse, fcntl, sys, termios
if sys.stdin.isatty():
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that Ctrl-C typed there becomes a signal here
from agent.cli import status
parser = argparse.ArgumentParser()
status.register(parser.add_subparsers())
sys.exit(status.run(parser.parse_args(sys.argv[1:])))
"""

if sys.platform != "win32":
    import fcntl
    import pty
    import struct
    import termios

    @contextmanager
    def on_a_terminal(data_dir: Path, *words: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
        """The command on a terminal of its own: its process and the far end of the terminal."""
        terminal, near = pty.openpty()
        fcntl.ioctl(near, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, "status", "--data-dir", str(data_dir), *words],
            env={**os.environ, "TERM": "xterm-256color", "PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=near,
            stdout=near,
            stderr=near,
            start_new_session=True,
        )
        os.close(near)
        try:
            yield process, terminal
        finally:
            os.close(terminal)
            process.kill()
            process.wait(10)

    def read_until(terminal: int, wanted: bytes) -> bytes:
        seen = b""
        while wanted not in seen:
            seen += os.read(terminal, 65_536)
        return seen

    def read_to_the_end(terminal: int) -> bytes:
        seen = b""
        try:
            while chunk := os.read(terminal, 65_536):
                seen += chunk
        except OSError:  # Linux says EIO when the last process has closed the terminal
            pass
        return seen

    def test_on_a_terminal_what_is_wrong_is_red_and_what_is_well_is_green(tmp_path: Path) -> None:
        with daemon(tmp_path, ILL), on_a_terminal(tmp_path) as (process, terminal):
            shown = read_to_the_end(terminal)
            assert process.wait(10) == 1
        assert b"\x1b[1;31mPROBLEM: lab: port 2576 is in use\x1b[0m" in shown
        assert b"\x1b[32mlive\x1b[0m" in shown

    def test_watching_goes_on_in_place_and_ctrl_c_leaves_quietly(tmp_path: Path) -> None:
        with daemon(tmp_path, WELL), on_a_terminal(tmp_path, "--watch", "0.2") as (process, terminal):
            read_until(terminal, b"live and well")
            read_until(terminal, b"live and well")
            os.write(terminal, b"\x03")
            rest = read_to_the_end(terminal)
            assert process.wait(10) == 0
        assert b"Traceback" not in rest
        assert b"\x1b[?1049l" in rest  # the alternate screen is left: the shell's own is as it was
        assert b"\x1b[?25h" in rest  # and the cursor is back

    def test_watching_sees_the_daemon_stop(tmp_path: Path) -> None:
        with on_a_terminal(tmp_path, "--watch", "0.2") as (process, terminal):
            with daemon(tmp_path, WELL):
                read_until(terminal, b"live and well")
            read_until(terminal, b"NOT RUNNING")
            process.send_signal(signal.SIGINT)
            read_to_the_end(terminal)
            assert process.wait(10) == 0

    def test_watching_into_a_pipe_prints_one_object_a_line(tmp_path: Path) -> None:
        words = [sys.executable, "-c", SCRIPT, "status", "--data-dir", str(tmp_path), "--watch", "0.2", "--json"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        with daemon(tmp_path, WELL), subprocess.Popen(words, stdout=subprocess.PIPE, env=environment) as watching:
            assert watching.stdout is not None
            objects = [json.loads(watching.stdout.readline()) for _ in range(2)]
            watching.send_signal(signal.SIGINT)
            assert watching.wait(10) == 0
        assert [shown["version"] for shown in objects] == ["1.2.3", "1.2.3"]
