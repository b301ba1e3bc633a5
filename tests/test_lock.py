"""One daemon to a data directory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.errors import ConfigError
from agent.lock import held


def test_the_second_one_is_told_who_holds_it(tmp_path: Path) -> None:
    lock = tmp_path / "agent.lock"
    with held(lock), pytest.raises(ConfigError) as caught, held(lock):
        pass
    [finding] = caught.value.findings
    assert finding.code == "daemon.already-running"
    assert f"process {os.getpid()}" in finding.text
    assert "--data-dir" in finding.remedy


def test_it_is_free_when_its_holder_ends(tmp_path: Path) -> None:
    lock = tmp_path / "agent.lock"
    for _ in range(2):
        with held(lock):
            assert lock.read_text() == str(os.getpid())


def test_it_is_free_when_its_holder_dies(tmp_path: Path) -> None:
    lock = tmp_path / "agent.lock"
    program = (
        "import os, sys, pathlib\n"
        "from agent.lock import held\n"
        "with held(pathlib.Path(sys.argv[1])):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", program, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdin is not None
    with holder:
        assert holder.stdout.readline().strip() == b"held"
        with pytest.raises(ConfigError, match=f"process {holder.pid}"), held(lock):
            pass
        holder.kill()
        holder.wait(10)
        with held(lock):
            pass


def test_a_shorter_process_number_leaves_nothing_of_the_last(tmp_path: Path) -> None:
    lock = tmp_path / "agent.lock"
    lock.write_text("9" * 40)
    with held(lock):
        assert lock.read_text() == str(os.getpid())


def test_an_unreadable_holder_is_unknown(tmp_path: Path) -> None:
    lock = tmp_path / "agent.lock"
    with held(lock):
        lock.write_bytes(b"")
        with pytest.raises(ConfigError, match="process unknown"), held(lock):
            pass


def test_a_folder_that_cannot_be_used_is_said_to_be_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught, held(tmp_path / "missing" / "agent.lock"):
        pass
    [finding] = caught.value.findings
    assert finding.code == "daemon.no-data-dir"
    assert finding.remedy
