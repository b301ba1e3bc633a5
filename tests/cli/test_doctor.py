"""`agent doctor` as it is typed: with everything well, with nothing there, and with everything in the way."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
from daemon_at_home import a_daemon, ask, listens, message, settings_for, until

from agent.cli import doctor
from agent.daemon import Daemon
from agent.diagnostics import table
from agent.hub import Hub

SECRET = "tops3cret-client-secret"
ALONE = {"PATH": "/nowhere", "PYTHONPATH": os.pathsep.join(sys.path)}


def asked(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    doctor.register(parser.add_subparsers())
    return parser.parse_args(["doctor", *words])


def typed(folder: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """The command in a process, and an environment, of its own."""
    command = [sys.executable, "-P", "-m", "agent", "doctor", "--data-dir", str(folder / "agent"), *words]
    env = {**ALONE, "HOME": str(folder), **environ}
    return subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


async def typed_meanwhile(folder: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(typed, folder, *words, **environ)


def told_by(hub: Hub) -> dict[str, str]:
    """The four values, by the environment."""
    return {
        "AGENT_BASE_URL": hub.base_url,
        "AGENT_CLIENT_ID": hub.client_id,
        "AGENT_CLIENT_SECRET": hub.client_secret,
        "AGENT_ID": hub.agent_id,
        "AGENT_DIAGNOSTICS_LISTEN": "off",
        "AGENT_SPOOL_MIN_FREE_MB": "1",
    }


def a_server_of(port: int) -> dict[str, str]:
    return {
        "AGENT_BASE_URL": f"https://127.0.0.1:{port}/",
        "AGENT_CLIENT_ID": "me",
        "AGENT_CLIENT_SECRET": SECRET,
        "AGENT_ID": "6d1a7b50-3b1c-4a0e-9c59-1b1f0d2a7c11",
        "AGENT_PROXY": "",
        "AGENT_DIAGNOSTICS_LISTEN": "off",
    }


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Hub]:
    address = f"mllp://127.0.0.1:{free_port()}"
    async with Hub.open(tmp_path / "hub", ("127.0.0.1", 0), channel_address=address) as hub:
        yield hub


@pytest.fixture
async def daemon(tmp_path: Path, hub: Hub) -> AsyncIterator[Daemon]:
    """A whole agent that is live."""
    settings = settings_for(tmp_path / "agent", hub.base_url, hub)
    async with a_daemon(settings) as daemon:
        await listens(daemon)
        await until(lambda: daemon.uplink.live and settings.paths.last_good.exists())
        yield daemon


# ---- everything well


def serious(text: str) -> list[dict[str, str]]:
    """Findings but for what the machine that tests run on may have: its kind of disk, and how full that is."""
    found: list[dict[str, str]] = json.loads(text)["findings"]
    return [finding for finding in found if not finding["code"].startswith("disk.") and finding["severity"] != "info"]


async def test_with_everything_well_every_check_is_made_and_ok(tmp_path: Path, hub: Hub, daemon: Daemon) -> None:
    done = await typed_meanwhile(tmp_path, "--json", **told_by(hub))

    assert (serious(done.stdout), done.stderr, done.returncode) == ([], "", 0)
    checks = json.loads(done.stdout)["checks"]
    assert [check["code"] for check in checks] == [check.code for check in table()]
    assert all(check["ok"] and check["looked"] and check["text"] for check in checks if check["code"] != "disk")


async def test_asking_does_not_disturb_the_agent_that_runs(tmp_path: Path, hub: Hub, daemon: Daemon) -> None:
    before = daemon.uplink.reconnects
    await typed_meanwhile(tmp_path, "--json", **told_by(hub))
    assert (daemon.uplink.live, daemon.uplink.reconnects) == (True, before)


async def test_the_screen_has_a_line_a_check_and_a_verdict(tmp_path: Path, hub: Hub, daemon: Daemon) -> None:
    done = await typed_meanwhile(tmp_path, **told_by(hub))
    lines = done.stdout.splitlines()
    assert done.stdout.isascii()
    assert re.fullmatch(r"ok   credentials    the server knows client \S+ \(\d+ ms\)", lines[7])
    assert any(line.startswith("ok   ports") and "is ours" in line for line in lines)
    assert lines[-1] in ("All is well.", "1 warning.")  # the machine's disk may be one


# ---- nothing there


def test_without_a_configuration_it_is_said_once(tmp_path: Path) -> None:
    done = typed(tmp_path, "--json")

    told = json.loads(done.stdout)
    errors = [finding for finding in told["findings"] if finding["severity"] == "error"]
    assert [finding["code"] for finding in errors] == ["settings.missing"]
    assert (done.returncode, done.stderr) == (1, "")
    by_code = {check["code"]: check for check in told["checks"]}
    assert by_code["credentials"] == {
        "code": "credentials",
        "ok": True,
        "text": "not looked at: the configuration is incomplete",
        "looked": False,
    }
    assert by_code["disk"]["looked"]
    assert not (tmp_path / "agent").exists()


def test_a_configuration_that_is_no_toml_is_a_finding_like_others(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text("[server\nbase_url = ")
    done = typed(tmp_path, "--config", str(file))
    assert done.returncode == 1
    assert done.stdout.startswith("FAIL settings")
    assert str(file) in done.stdout
    assert "Traceback" not in done.stderr


async def test_a_wrong_secret_is_found_and_not_repeated(tmp_path: Path, hub: Hub) -> None:
    done = await typed_meanwhile(tmp_path, **(told_by(hub) | {"AGENT_CLIENT_SECRET": SECRET}))
    assert done.returncode == 1
    assert "FAIL credentials" in done.stdout
    assert "-    agent          not looked at: the login failed" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("1 problem")
    assert SECRET not in done.stdout + done.stderr


def test_with_the_agent_down_a_spool_left_behind_is_read_and_left_as_it_is(tmp_path: Path) -> None:
    async def one_message() -> dict[str, str]:
        async with Hub.open(tmp_path / "hub", ("127.0.0.1", 0), channel_address="mllp://127.0.0.1:0") as hub:
            async with a_daemon(settings_for(tmp_path / "agent", hub.base_url, hub)) as daemon:
                await ask(await listens(daemon), "M1")
            return told_by(hub)

    environ = asyncio.run(one_message())
    folder = tmp_path / "agent"
    before = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}

    done = typed(tmp_path, "--json", **environ)

    told = json.loads(done.stdout)
    codes = {finding["code"] for finding in told["findings"]}
    assert {"tcp.no-connection", "service.not-running"} <= codes
    assert "1 processed" in next(check["text"] for check in told["checks"] if check["code"] == "spool")
    assert {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()} == before
    assert "P1" not in done.stdout  # PID-3 of the message


# ---- everything in the way


@contextmanager
def a_silent_server() -> Iterator[int]:
    """Takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_server_that_hangs_in_the_handshake_holds_up_nothing_for_ever(tmp_path: Path) -> None:
    with a_silent_server() as port:
        done = typed(tmp_path, **a_server_of(port))
    assert done.returncode == 1
    assert "FAIL tls" in done.stdout
    assert "-    credentials    not looked at: TLS failed" in done.stdout
    assert SECRET not in done.stdout + done.stderr


HANGS = """
import socket, threading
known = socket.getaddrinfo
def getaddrinfo(host, *args, **kwargs):
    if host == "proxy.hangs.example":
        threading.Event().wait()
    return known(host, *args, **kwargs)
socket.getaddrinfo = getaddrinfo
"""


def test_a_name_server_that_never_answers_does_not_keep_the_command(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(HANGS)  # the far end: this host's resolver
    environ = a_server_of(free_port()) | {"AGENT_PROXY": "http://proxy.hangs.example:3128"}
    done = typed(tmp_path, **environ, PYTHONPATH=os.pathsep.join([str(tmp_path), *sys.path]))
    assert done.returncode == 1
    assert "FAIL proxy          the proxy: no result within 5 s" in done.stdout
    assert "-    tcp            not looked at: the proxy failed" in done.stdout


def test_the_parts_that_are_tried_write_no_log_lines_in_between(tmp_path: Path) -> None:
    done = typed(tmp_path, **a_server_of(free_port()))
    assert done.stderr == ""
    assert all(line[:5] in ("ok   ", "warn ", "FAIL ", "-    ", "     ") for line in done.stdout.splitlines()[:-2])


def test_the_logs_of_others_are_theirs_again_afterwards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = structlog.is_configured(), structlog.get_config()
    doctor.run(asked("--data-dir", str(tmp_path), "--json"))
    assert (structlog.is_configured(), structlog.get_config()) == before
    json.loads(capsys.readouterr().out)


# ---- one port


async def test_a_real_tls_hello_a_browser_and_a_good_sender_at_one_port(
    tmp_path: Path, hub: Hub, daemon: Daemon
) -> None:
    port = await listens(daemon)
    for words in (b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03", b"GET / HTTP/1.1\r\nHost: ward\r\n\r\n", message()):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(words)
        await writer.drain()
        writer.close()
        await writer.wait_closed()
    await ask(port, "M1", "M2")
    sightings = daemon.channels.by_name["hl7"].sightings
    await until(lambda: len(sightings.all) == 3 and len(sightings.ended) == 4)

    done = await typed_meanwhile(tmp_path, "--port", str(port), **told_by(hub))

    assert done.stdout.startswith(f"Port {port}: channel hl7 (")
    assert "127.0.0.1 connected once at" in done.stdout
    assert "TLS" in done.stdout
    assert "HTTP" in done.stdout
    assert "fix: " in done.stdout
    assert "ok   127.0.0.1 2 messages, closed" in done.stdout
    assert not re.search(r"EVERYMAN|P1", done.stdout)


async def test_a_port_as_an_object_for_a_script(tmp_path: Path, hub: Hub, daemon: Daemon) -> None:
    port = await listens(daemon)
    done = await typed_meanwhile(tmp_path, "--port", str(port), "--json", **told_by(hub))
    told = json.loads(done.stdout)
    assert (told["port"], [channel["name"] for channel in told["channels"]]) == (port, ["hl7"])
    assert [holder["pid"] for holder in told["holders"]] == [os.getpid()]
    assert [finding["code"] for finding in told["findings"]] == ["port.nobody-came"]
    assert done.returncode == 0


def test_a_port_with_the_agent_down_is_a_problem(tmp_path: Path) -> None:
    port = free_port()
    done = typed(tmp_path, "--port", str(port))
    assert done.stdout.startswith(f"Port {port}: nobody listens there.\nFAIL the agent is not running")
    assert done.returncode == 1


@pytest.mark.parametrize("word", ["0", "65536", "-1", "x", "²", ""])
def test_what_is_no_port_is_refused(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        asked(f"--port={word}")
    assert left.value.code == 2
    assert "is no TCP port" in capsys.readouterr().err


# ---- on a terminal

if sys.platform != "win32":
    import fcntl
    import pty
    import struct
    import termios

    def on_a_terminal(folder: Path, columns: int, **environ: str) -> bytes:
        """Everything that the command writes to a terminal of this width."""
        terminal, near = pty.openpty()
        fcntl.ioctl(near, termios.TIOCSWINSZ, struct.pack("4H", 40, columns, 0, 0))
        env = {**ALONE, "HOME": str(folder), "TERM": "xterm-256color", **environ}
        words = [sys.executable, "-P", "-m", "agent", "doctor", "--data-dir", str(folder / "agent")]
        seen: list[bytes] = []

        def read() -> None:
            try:
                while chunk := os.read(terminal, 65_536):
                    seen.append(chunk)
            except OSError:  # Linux says EIO when the last process has closed the terminal
                pass

        with subprocess.Popen(words, stdin=near, stdout=near, stderr=near, env=env, cwd=folder) as process:
            os.close(near)
            reader = threading.Thread(target=read)
            reader.start()
            process.wait(60)
            reader.join(60)
        os.close(terminal)
        return b"".join(seen)

    @pytest.mark.parametrize("columns", [80, 120])
    def test_on_a_terminal_no_line_is_wider_than_it(tmp_path: Path, columns: int) -> None:
        shown = on_a_terminal(tmp_path, columns, **a_server_of(free_port()))
        text = re.sub(rb"\x1b\[[0-9;]*m", b"", shown).decode()
        left = [line.rpartition("\r")[2] for line in text.replace("\r\n", "\n").splitlines()]  # what is not drawn over
        assert max(map(len, left)) <= columns
        assert any(line.startswith("FAIL tcp") for line in left)

    def test_on_a_terminal_what_is_awaited_is_shown_and_taken_away_again(tmp_path: Path) -> None:
        with a_silent_server() as port:
            shown = on_a_terminal(tmp_path, 100, **a_server_of(port))
        assert b"looking at: " in shown
        assert b"\x1b[1;31mFAIL" in shown
        assert b"\x1b[32mok" in shown
        last = re.sub(rb"\x1b\[[0-9;]*m", b"", shown).decode().replace("\r\n", "\n").splitlines()[-1]
        assert "looking at" not in last.rpartition("\r")[2]


def test_the_help_shows_examples_and_the_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        asked("--help")
    shown = capsys.readouterr().out
    assert "agent doctor --port 2575" in shown
    assert "exit status:" in shown


def test_a_finding_of_the_server_cannot_move_the_cursor() -> None:
    from agent.diagnostics import Result
    from agent.errors import Finding, Severity

    told = Finding("agent.off", Severity.WARNING, "\x1b[2Joff\x07", "turn\rit on", "Agent/\x1b]0;x")
    lines: list[Any] = doctor.check_lines(Result("agent", "the agent", "'\x1b[31mward'", (told,)), 80)
    text = "".join(part for line in lines for part, _ in line)
    assert text.isprintable()
