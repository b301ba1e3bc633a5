"""The daemon's process: running, silent, down, failed, or never started."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psutil
import pytest
from diagnostics_far_ends import a_host, findings_of, running

from agent import __version__
from agent.diagnostics import service
from agent.diagnostics.host import Unheard
from agent.errors import AgentError, Finding, Severity
from agent.net.holders import unit_of

NO_SYSTEMD = {"PATH": "/nowhere"}


async def test_a_running_agent_is_told_with_process_user_and_version(tmp_path: Path) -> None:
    looked = await service.look(a_host(tmp_path, daemon=running(version=__version__)))
    assert looked.findings == ()
    assert looked.text.startswith(f"process {os.getpid()} of {psutil.Process().username()}, since ")
    assert f"version {__version__}" in looked.text


async def test_what_the_agent_says_of_itself_is_passed_on(tmp_path: Path) -> None:
    told = Finding("server.away", Severity.WARNING, "no connection", "wait")
    looked = await service.look(a_host(tmp_path, daemon=running(version=__version__, findings=(told,))))
    assert looked.findings == (told,)


async def test_an_agent_that_is_older_than_what_is_installed_wants_a_restart(tmp_path: Path) -> None:
    found = findings_of(await service.look(a_host(tmp_path, daemon=running(version="0.0.1"))))
    assert found["service.other-version"].severity is Severity.WARNING


async def test_a_process_that_has_gone_meanwhile_is_no_crash(tmp_path: Path) -> None:
    looked = await service.look(a_host(tmp_path, daemon=running(version=__version__, pid=2**22 + 1)))
    assert looked.text.startswith(f"process {2**22 + 1}")


async def test_an_agent_that_does_not_answer_is_an_error(tmp_path: Path) -> None:
    silent = Unheard(AgentError("the agent did not answer within 2 s", hint="restart it"))
    found = findings_of(await service.look(a_host(tmp_path, daemon=silent)))
    assert found["service.no-answer"].severity is Severity.ERROR


async def test_an_agent_that_never_ran_here_is_no_problem(tmp_path: Path) -> None:
    looked = await service.look(a_host(tmp_path, environ=NO_SYSTEMD))
    assert looked.findings == ()
    assert looked.text == "not running, and it has not run with this data directory yet"


async def test_an_agent_that_ran_and_is_down_is_an_error(tmp_path: Path) -> None:
    host = a_host(tmp_path, environ=NO_SYSTEMD)
    host.paths.prepare()
    host.paths.spool.touch()
    found = findings_of(await service.look(host))
    assert found["service.not-running"].severity is Severity.ERROR


def a_systemctl(folder: Path, said: str) -> dict[str, str]:
    """A service manager that says this, whatever is asked."""
    program = folder / "bin" / "systemctl"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{said}\n")
    program.chmod(0o755)
    return {"PATH": str(program.parent)}


@pytest.mark.skipif(sys.platform != "linux", reason="systemd is Linux's")
async def test_a_unit_that_failed_points_to_its_journal(tmp_path: Path) -> None:
    environ = a_systemctl(tmp_path, "echo LoadState=loaded; echo ActiveState=failed")
    found = findings_of(await service.look(a_host(tmp_path, environ=environ)))
    assert "journalctl -u onprem-agent.service" in found["service.failed"].remedy


@pytest.mark.skipif(sys.platform != "linux", reason="systemd is Linux's")
async def test_a_unit_that_was_stopped_is_started_by_systemctl(tmp_path: Path) -> None:
    host = a_host(tmp_path, environ=a_systemctl(tmp_path, "echo LoadState=loaded; echo ActiveState=inactive"))
    host.paths.prepare()
    host.paths.spool.touch()
    found = findings_of(await service.look(host))
    assert found["service.not-running"].remedy == "systemctl start onprem-agent.service"


@pytest.mark.skipif(sys.platform != "linux", reason="systemd is Linux's")
@pytest.mark.parametrize("said", ["echo LoadState=not-found; echo ActiveState=inactive", "exit 1", "echo gibberish"])
async def test_a_service_manager_that_does_not_know_us_is_passed_over(tmp_path: Path, said: str) -> None:
    looked = await service.look(a_host(tmp_path, environ=a_systemctl(tmp_path, said)))
    assert looked.findings == ()


def test_a_process_without_a_control_group_has_no_unit() -> None:
    assert unit_of(2**22 + 1) == ""
