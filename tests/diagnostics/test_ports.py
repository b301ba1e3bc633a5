"""Whose the ports are: ours, nobody's, or that of a real other process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from diagnostics_far_ends import SECRET, a_channel, a_host, a_stranger, findings_of, free_port, keep, running

from agent.diagnostics import ports
from agent.diagnostics.check import Looked, NotLooked
from agent.diagnostics.host import Unheard
from agent.errors import AgentError, Finding, Severity
from agent.net.holders import Holder, holders

UNPRIVILEGED = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")


async def test_without_any_channel_there_is_nothing_to_look_at(tmp_path: Path) -> None:
    assert await ports.look(a_host(tmp_path)) == NotLooked("no channel is known here yet")


async def test_a_free_port_is_free_and_nobody_was_let_in_to_find_out(tmp_path: Path) -> None:
    host, port = a_host(tmp_path), free_port()
    keep(host, {"adt": f"mllp://127.0.0.1:{port}"})
    assert await ports.look(host) == Looked(f"{port} (adt) is free")


async def test_a_port_that_somebody_took_is_told_with_program_process_and_user(tmp_path: Path) -> None:
    host = a_host(tmp_path)
    with a_stranger() as (port, pid):
        keep(host, {"adt": f"mllp://0.0.0.0:{port}"})
        found = findings_of(await ports.look(host))
    finding = found["ports.taken"]
    assert (finding.severity, finding.where) == (Severity.ERROR, "adt")
    assert f"0.0.0.0:{port} is held by python" in finding.text
    assert f"process {pid}, user " in finding.text
    assert SECRET not in finding.text  # it stands among the program's arguments


async def test_a_taken_port_for_monitoring_is_only_a_warning(tmp_path: Path) -> None:
    with a_stranger() as (port, _):
        host = a_host(tmp_path, **{"diagnostics.listen": f"127.0.0.1:{port}"})
        finding = findings_of(await ports.look(host))["ports.taken"]
    assert (finding.severity, finding.where) == (Severity.WARNING, "diagnostics.listen")


async def test_the_running_agents_own_ports_are_ours(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as ours, socket.create_server(("127.0.0.1", 0)) as health:
        port, health_port = ours.getsockname()[1], health.getsockname()[1]
        daemon = running(a_channel("adt", port))
        host = a_host(tmp_path, daemon=daemon, **{"diagnostics.listen": f"127.0.0.1:{health_port}"})
        keep(host, {"adt": f"mllp://127.0.0.1:{port}"})
        looked = await ports.look(host)
    assert looked == Looked(f"{port} (adt) is ours, {health_port} (diagnostics.listen) is ours")


async def test_a_channel_of_the_running_agent_that_lost_its_port_names_the_thief(tmp_path: Path) -> None:
    with a_stranger() as (port, pid):
        host = a_host(tmp_path, daemon=running(a_channel("adt", port, "failed", last_error="the port is taken")))
        keep(host, {"adt": f"mllp://127.0.0.1:{port}"})
        finding = findings_of(await ports.look(host))["ports.taken"]
    assert f"process {pid}" in finding.text


async def test_a_channel_that_does_not_listen_for_another_reason_gives_the_daemons(tmp_path: Path) -> None:
    port = free_port()
    host = a_host(tmp_path, daemon=running(a_channel("adt", port, "failed", last_error="its certificate is missing")))
    keep(host, {"adt": f"mllp://127.0.0.1:{port}"})
    finding = findings_of(await ports.look(host))["ports.not-listening"]
    assert finding.text.endswith("its certificate is missing")


async def test_the_health_port_that_the_daemon_could_not_have_is_not_called_ours(tmp_path: Path) -> None:
    told = Finding("diagnostics.port-taken", Severity.WARNING, "taken", "free it", "diagnostics.listen")
    with a_stranger() as (port, pid):
        host = a_host(tmp_path, daemon=running(findings=(told,)), **{"diagnostics.listen": f"127.0.0.1:{port}"})
        finding = findings_of(await ports.look(host))["ports.taken"]
    assert f"process {pid}" in finding.text


async def test_a_health_port_that_is_free_again_is_not_ours_before_the_daemon_has_it(tmp_path: Path) -> None:
    told = Finding("diagnostics.port-taken", Severity.WARNING, "health is off", "free it", "diagnostics.listen")
    listen = {"diagnostics.listen": f"127.0.0.1:{free_port()}"}
    finding = findings_of(await ports.look(a_host(tmp_path, daemon=running(findings=(told,)), **listen)))[
        "ports.not-listening"
    ]
    assert (finding.severity, finding.text.endswith("health is off")) == (Severity.WARNING, True)


async def test_a_daemon_that_does_not_answer_may_be_the_holder(tmp_path: Path) -> None:
    with a_stranger() as (port, _):
        host = a_host(tmp_path, daemon=Unheard(AgentError("no answer")))
        keep(host, {"adt": f"mllp://127.0.0.1:{port}"})
        looked = await ports.look(host)
    assert findings_of(looked) == {}
    assert f"{port} (adt) held by python" in str(looked)


async def test_an_address_of_another_host_is_an_error(tmp_path: Path) -> None:
    host = a_host(tmp_path)
    keep(host, {"adt": f"mllp://192.0.2.1:{free_port()}", "lab": f"mllp://no-such-host.invalid:{free_port()}"})
    assert set(findings_of(await ports.look(host))) == {"ports.not-this-host", "ports.unknown-host"}


async def test_a_channel_that_dials_or_takes_any_port_holds_none(tmp_path: Path) -> None:
    host = a_host(tmp_path)
    keep(host, {"any": "mllp://127.0.0.1:0", "out": "mllp://192.0.2.1:2575?mode=client"})
    assert await ports.look(host) == NotLooked("no channel is known here yet")


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="becomes another user, which only root can")
def test_a_port_below_1024_needs_a_right() -> None:
    if int(UNPRIVILEGED.read_text()) <= 81:
        pytest.skip("this system lets everybody have low ports")
    script = (
        "from agent.diagnostics.ports import _try, _Wanted\n"
        "import encodings.idna, os; os.setuid(65534)\n"  # the interpreter's own files may be root's alone
        "print(_try(_Wanted('adt', '127.0.0.1', 81)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert "ports.privileged" in done.stdout
    assert "CAP_NET_BIND_SERVICE" in done.stdout


# ---- who is in whose way


@pytest.mark.parametrize(
    ("held", "wanted", "in_the_way"),
    [
        ("0.0.0.0", "127.0.0.1", True),
        ("127.0.0.1", "0.0.0.0", True),
        ("::", "10.0.0.1", True),
        ("::1", "::", True),
        ("::1", "0.0.0.0", False),
        ("0.0.0.0", "::1", False),
        ("127.0.0.1", "127.0.0.2", False),
        ("127.0.0.1", "localhost", True),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
    ],
)
def test_two_addresses_share_a_port_only_if_neither_covers_the_other(held: str, wanted: str, in_the_way: bool) -> None:
    assert Holder(held, 2575, 1).is_in_the_way_of(wanted) is in_the_way


def test_only_who_listens_is_a_holder_not_who_is_connected() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as caller:
            found = holders([port, caller.getsockname()[1]])
    assert found is not None
    assert [(entry.port, entry.pid) for entry in found] == [(port, os.getpid())]


def test_a_holder_that_the_system_hides_is_not_invented() -> None:
    assert "administrator" in str(Holder("0.0.0.0", 2575, None))
