"""`ping`: whether a host answers this one, for the server's $push with content type `x-application/ping`.

Secret: what may be pinged and how it is written, how each operating system's ping is called, and when it has failed.
Promise: no shell, and no host that could be taken for an option; an answer in time, be it a refusal in words, and no
process is left behind, also when whoever asked gives up. How many run at once is the caller's business.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, NoReturn, assert_never

from agent.errors import AgentError, PeerError

Probe = Callable[[str, int, bool], Awaitable[float]]
"""(host, port, with TLS) -> seconds that connecting took; raises AgentError."""

MOST: Final = 100
FEW: Final = 10  # up to here one a second, as people expect; beyond it five, so that MOST end before a server gives up
SECONDS_APART: Final = (1.0, 0.2)
REPLY_WITHIN_S: Final = 2
SPARE_S: Final = 3.0  # for starting the program, beyond what it needs
RESOLVED_WITHIN_S: Final = 5.0
PROBE_APART_S: Final = 0.2
PROBES_WITHIN_S: Final = 45.0  # then the tries that are left are left out: a server waits 55 s at most
QUOTED_CHARACTERS: Final = 255

_LABEL: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)", re.IGNORECASE | re.ASCII)
_ZONE: Final = re.compile(r"[a-z0-9_][a-z0-9_.:@~-]{0,31}", re.IGNORECASE | re.ASCII)
_PORT_URL: Final = re.compile(
    r"(?P<scheme>tcp|mllps?)://(?P<host>\[[^\[\]]*\]|[^\[\]:/?#@]*)(?::(?P<port>\d{1,5}))?(?:[/?#].*)?",
    re.IGNORECASE | re.ASCII | re.DOTALL,
)
_NUMBER: Final = re.compile(r"[+-]?\d+(?:[.,]\d*)?", re.ASCII)


class BadPing(PeerError):
    """What was asked for cannot be pinged."""


class NoEcho(PeerError):
    """The host did not answer, or it could not be asked."""


@dataclass(frozen=True, slots=True)
class Host:
    """An address or a name, as the system's ping takes it. `version`: of the address; None: a name, not looked up."""

    text: str
    version: int | None


@dataclass(frozen=True, slots=True)
class Port:
    """A TCP port, to be connected to."""

    host: str
    port: int
    secure: bool

    @property
    def where(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Call:
    """The system's ping, and when it must have ended."""

    argv: tuple[str, ...]
    within_s: float


async def ping(remote: str, body: str, probe: Probe) -> str:
    """What the system's ping said of `remote`, or how connecting to it went if it is a `tcp://` or `mllp(s)://` URL.

    `body`: `PING [count]`, count 1 to 100; anything else is one ping. Raises AgentError; a PeerError's text is for who
    asked, its `loggable` for the log.
    """
    target = target_of(remote)
    count = count_of(body, remote)
    match target:
        case Host():
            version = target.version or await _version(target.text)
            windows = os.environ.get("SYSTEMROOT", r"C:\Windows")
            return await echo(call(sys.platform, target.text, version, count, windows=windows), target.text)
        case Port():
            return await _connect(target, count, probe)
        case _ as never:
            assert_never(never)


# ---- what was asked for


def count_of(body: str, remote: str) -> int:
    """How many pings: the word after `PING`. Raises BadPing."""
    words = body.split()
    if len(words) < 2 or words[0] != "PING":
        return 1
    word = words[1]
    if len(word) <= len(str(MOST)) and word.isascii() and word.isdigit() and 1 <= int(word) <= MOST:
        return int(word)
    unable = f'Unable to ping {_quoted(remote)} "{_quoted(word)}" times.'
    if _NUMBER.fullmatch(word):
        raise BadPing(
            f"{unable} A whole number from 1 to {MOST} is expected.",
            loggable=f"the number of pings is no whole number from 1 to {MOST}",
        )
    raise BadPing(f'{unable} "{_quoted(word)}" is not a number.', loggable="the number of pings is not a number")


def target_of(remote: str) -> Host | Port:
    """An address (RFC 4007 zone allowed, brackets too), a name, or a port as `tcp://`, `mllp://` or `mllps://` URL,
    whose parameters do not matter. Raises BadPing for anything else."""
    if url := _PORT_URL.fullmatch(remote):
        bare = url["host"]
        host = _host(bare.replace("%25", "%", 1) if bare.startswith("[") else bare)  # RFC 6874
        if host is None:
            _refuse(remote)
        if url["port"] is None or not 1 <= int(url["port"]) <= 65_535:
            raise BadPing(
                f'"{_quoted(remote)}" names no port. Write it as {url["scheme"].lower()}://host:port, port 1 to 65535.',
                loggable="the URL to be probed names no port",
            )
        return Port(host.text, int(url["port"]), url["scheme"].lower() == "mllps")
    return _host(remote) or _refuse(remote)


def _host(text: str) -> Host | None:
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        address = ip_address(bare)
    except ValueError:
        return _name(bare) if bare is text else None
    match address:
        case IPv4Address():
            return Host(str(address), 4) if bare is text else None
        case IPv6Address(ipv4_mapped=IPv4Address() as mapped):
            return Host(str(mapped), 4)
        case IPv6Address(scope_id=zone):
            return Host(str(address), 6) if zone is None or _ZONE.fullmatch(zone) else None
        case _ as never:
            assert_never(never)


def _name(text: str) -> Host | None:
    """RFC 1123 §2.1, with the underscore that names of Windows hosts have; what is not ASCII by IDNA (RFC 3490).

    A last label of digits is refused: that is a mistyped address, and the resolver would take `10.1` for 10.0.0.1.
    """
    try:
        name = text[:255].encode("idna").decode("ascii")
    except UnicodeError:
        return None
    labels = name.removesuffix(".").split(".")
    if (
        len(text) > 254
        or len(name) > 254
        or labels[-1].isdigit()
        or not all(_LABEL.fullmatch(label) for label in labels)
    ):
        return None
    return Host(name, None)


def _refuse(remote: str) -> NoReturn:
    raise BadPing(
        f"{_invalid(remote)}.",
        loggable="the host to be pinged is neither an address nor a name",
    )


def _invalid(remote: str) -> str:
    return (
        f'Attempted to ping an invalid host.\n\n"{_quoted(remote)}" is not a valid IP address or a resolvable hostname'
    )


def _quoted(text: str) -> str:
    return text if len(text) <= QUOTED_CHARACTERS else f"{text[:QUOTED_CHARACTERS]}..."


async def _version(name: str) -> int:
    """Which of IPv4 and IPv6 this host would take for a name. Raises NoEcho if the name leads nowhere."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(RESOLVED_WITHIN_S):
            found = await loop.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except TimeoutError:
        _silent(name, f"within {RESOLVED_WITHIN_S:g} s")
    except socket.gaierror as error:
        why = error.strerror or "unknown name"
        if error.errno in (socket.EAI_AGAIN, socket.EAI_FAIL):
            _silent(name, f"({why})")
        raise NoEcho(
            f"{_invalid(name)} ({why}).",
            loggable=f"the name of the host to be pinged cannot be resolved ({why})",
        ) from None
    except (OSError, UnicodeError) as error:
        _silent(name, f"({type(error).__name__})")
    return 6 if found[0][0] == socket.AF_INET6 else 4


def _silent(name: str, how: str) -> NoReturn:
    raise NoEcho(
        f'No name server answers for "{name}" {how}: check the name servers of the agent\'s host.',
        loggable=f"no name server answers for the host to be pinged {how}",
    ) from None


# ---- the system's ping


def call(platform: str, host: str, version: int, count: int, *, windows: str = r"C:\Windows") -> Call:
    """How `sys.platform` pings; `windows`: the folder of that system, for the program is not to be searched for there.

    Without looking up the names of addresses: a dead name server would look like a dead host.
    """
    apart_s = SECONDS_APART[0] if count <= FEW else SECONDS_APART[1]
    pace = ("-n", "-c", str(count), "-i", f"{apart_s:g}")
    match platform:
        case "win32":  # knows one pace, and waits for each reply before the next ping
            wait = ("-w", str(REPLY_WITHIN_S * 1_000))
            argv: tuple[str, ...] = (rf"{windows}\System32\PING.EXE", f"-{version}", "-n", str(count), *wait, host)
            return Call(argv, count * (1.0 + REPLY_WITHIN_S) + SPARE_S)
        case "darwin" if version == 6:
            argv = ("ping6", *pace, host)
        case "darwin":
            argv = ("ping", *pace, "-W", str(REPLY_WITHIN_S * 1_000), host)
        case _:
            argv = ("ping", f"-{version}", *pace, "-W", str(REPLY_WITHIN_S), host)
    return Call(argv, count * apart_s + REPLY_WITHIN_S + SPARE_S)


async def echo(call: Call, host: str) -> str:
    """Run it; what it said. Raises NoEcho if the host did not answer, or could not be asked within `call.within_s`."""
    try:
        process = await asyncio.create_subprocess_exec(
            *call.argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"LC_ALL": "C", **{name: os.environ[name] for name in ("PATH", "SYSTEMROOT") if name in os.environ}},
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
    except (FileNotFoundError, PermissionError):
        raise NoEcho(
            f"The agent's host has no {call.argv[0]} program: install it (Debian: iputils-ping, Red Hat: iputils), "
            "or ask for a port, as tcp://host:port."
        ) from None
    except OSError as failed:
        raise NoEcho(f"The agent's host cannot start {call.argv[0]}: {failed.strerror}. Try again later.") from None
    try:
        async with asyncio.timeout(call.within_s):
            said, complained = (_text(data) for data in await process.communicate())
    except TimeoutError:
        text = f"was not done within {call.within_s:g} s and was stopped"
        raise NoEcho(f"The ping of {host} {text}.", loggable=f"a ping {text}") from None
    finally:
        if process.returncode is None:
            await _end(process)
    if process.returncode == 0 and replied(sys.platform, call.argv, said):
        return said
    if said:
        whole = f"{said}\n{complained}".rstrip()
        raise NoEcho(f"No reply from {host}.\n\n{whole}", loggable="no reply to a ping")
    raise NoEcho(
        f"The ping of {host} failed: {complained or 'without a word'}\n\n"
        "A port can be asked for without it, as tcp://host:port.",
        loggable=f"ping ended with status {process.returncode}",
    )


def replied(platform: str, argv: tuple[str, ...], said: str) -> bool:
    """Windows' ping is content with a router's "unreachable"; a host's own reply has a TTL (IPv4), in any language."""
    return platform != "win32" or "-4" not in argv or "TTL=" in said


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(SPARE_S):
            await process.communicate()  # its pipes too: they are closed when their ends were read


def _text(data: bytes) -> str:
    return data.decode("oem" if sys.platform == "win32" else "utf-8", "replace").strip()


# ---- a port


async def _connect(port: Port, count: int, probe: Probe) -> str:
    """Connect `count` times; raises what the first one raised."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    kind = "TLS" if port.secure else "TCP"
    lines: list[str] = []
    times_ms: list[float] = []
    while len(lines) < count and (not lines or loop.time() - began < PROBES_WITHIN_S):
        if lines:
            await asyncio.sleep(PROBE_APART_S)
        try:
            took_ms = await probe(port.host, port.port, port.secure) * 1_000
        except AgentError as failed:
            if not lines:
                raise
            lines.append(f"{kind} {port.where}: {failed}")
        else:
            times_ms.append(took_ms)
            lines.append(f"{kind} {port.where}: connected, time={took_ms:.3f} ms")
    lost = round(100 * (len(lines) - len(times_ms)) / len(lines))
    took = f"time {(loop.time() - began) * 1_000:.0f}ms"
    least, average, most = min(times_ms), sum(times_ms) / len(times_ms), max(times_ms)
    lines += [
        "",
        f"--- {port.where} {kind.lower()} statistics ---",
        f"{len(lines)} connections tried, {len(times_ms)} made, {lost}% failed, {took}",
        f"min/avg/max = {least:.3f}/{average:.3f}/{most:.3f} ms",
    ]
    return "\n".join(lines)
