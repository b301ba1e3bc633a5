"""Who listens where on this host.

Secret: how the operating system is asked, and what it keeps from those who are not its administrator.
Promise: the program's name, its process, its user and its unit, and never its arguments, which may hold a secret.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True, slots=True)
class Holder:
    """One listening socket. `pid` None: the operating system does not tell us whose it is."""

    address: str
    port: int
    pid: int | None
    program: str = ""
    user: str = ""
    unit: str = ""  # its systemd unit: many a program is called java or python

    def __str__(self) -> str:
        if self.pid is None:
            return "a program of another user (who is told to an administrator)"
        facts = [f"process {self.pid}", f"user {self.user}" if self.user else "", self.unit]
        return f"{self.program or 'a program'} ({', '.join(fact for fact in facts if fact)})"

    def is_in_the_way_of(self, host: str) -> bool:
        """Whether nobody else can listen on `host` and this port."""
        mine, theirs = _addresses(self.address), _addresses(host)
        return bool(mine & theirs) or any(_covers(a, b) or _covers(b, a) for a in mine for b in theirs)


def holders(ports: Iterable[int]) -> list[Holder] | None:
    """Who listens on these ports; None where this user may not know. For a thread: it looks at every process."""
    wanted = set(ports)
    try:
        found = psutil.net_connections(kind="tcp")
    except (psutil.Error, OSError):
        return None
    listening = {
        (entry.laddr.ip, entry.laddr.port, entry.pid)
        for entry in found
        if entry.status == psutil.CONN_LISTEN and entry.laddr and entry.laddr.port in wanted
    }
    return [_holder(*entry) for entry in sorted(listening, key=lambda entry: (entry[1], entry[0], entry[2] or 0))]


def _holder(address: str, port: int, pid: int | None) -> Holder:
    if pid is None:
        return Holder(address, port, None)
    program, user = name_and_user(pid)
    return Holder(address, port, pid, program, user, unit_of(pid))


def name_and_user(pid: int) -> tuple[str, str]:
    """Program and user of a process; empty where they are not to be had."""
    try:
        process = psutil.Process(pid)
        program = str(process.name())
    except (psutil.Error, OSError):
        return "", ""
    try:
        return program, str(process.username())
    except (psutil.Error, OSError, KeyError):
        return program, ""


def unit_of(pid: int) -> str:
    """The systemd unit of a process (systemd.unit(5)), by its control group; empty where there is none."""
    try:
        groups = Path(f"/proc/{pid}/cgroup").read_text()
    except OSError:
        return ""
    units = [part for line in groups.splitlines() for part in line.rpartition(":")[2].split("/") if part]
    return next((part for part in reversed(units) if part.endswith(".service")), "")


def _addresses(host: str) -> frozenset[str]:
    if host == "localhost":
        return frozenset({"127.0.0.1", "::1"})
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return frozenset({host})
    mapped = getattr(address, "ipv4_mapped", None)
    return frozenset({str(mapped or address)})


def _covers(any_of: str, one: str) -> bool:
    """`0.0.0.0` is every IPv4 address, `::` every address at all."""
    return any_of == "::" or (any_of == "0.0.0.0" and ":" not in one)
