"""The two ways to a process on the same host: a Unix socket, and a loopback port with a token file.

Secret: how each operating system says who may knock, and how to tell a living owner from what a dead one left behind.
Promise: nobody but the owner and administrators gets in; the door of a dead process never blocks a new one.
"""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec
import psutil

from agent.errors import AgentError

Called = Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]
PID_UNKNOWN = 0
KNOCK_S = 1.0  # loopback answers within a millisecond; this is for a host that swaps
BACKLOG = 16


class Nobody(AgentError):
    """No living process is behind the door."""


@dataclass(frozen=True, slots=True)
class Hold:
    """An open door. `close` stops taking callers and removes what others would find it by, if that is still ours."""

    server: asyncio.Server
    forget: Callable[[], None]

    def close(self) -> None:
        self.server.close()
        self.forget()


class Door(Protocol):
    """One way in. Every method may raise OSError."""

    def new_token(self) -> str:
        """What a caller must show, empty where the operating system checks for us."""

    def owner(self, path: Path) -> int | None:
        """Process id of the living owner, PID_UNKNOWN if it cannot be told, None if there is none. May take KNOCK_S."""

    async def open(self, path: Path, called: Called, *, token: str, limit_bytes: int) -> Hold:
        """Let callers in from now on. What a dead owner left at `path` is replaced."""

    async def connect(self, path: Path, *, limit_bytes: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, str]:
        """Streams to the owner, and the token to show. Raises Nobody."""


class LoopbackDoor:
    """A port of 127.0.0.1, told with a token in a file that only its owner and administrators can read."""

    def new_token(self) -> str:
        return secrets.token_urlsafe(32)

    def owner(self, path: Path) -> int | None:
        told = _read(path)
        if told is None or not psutil.pid_exists(told.pid):
            return None
        try:
            socket.create_connection(("127.0.0.1", told.port), timeout=KNOCK_S).close()
        except OSError:
            return None  # another process got the number of a dead one
        return told.pid

    async def open(self, path: Path, called: Called, *, token: str, limit_bytes: int) -> Hold:
        server = await asyncio.start_server(called, "127.0.0.1", 0, limit=limit_bytes, backlog=BACKLOG)
        told = _Told(server.sockets[0].getsockname()[1], token, os.getpid())
        try:
            _write_private(path, msgspec.json.encode(told))
        except OSError:
            server.close()
            raise
        return Hold(server, lambda: path.unlink(missing_ok=True) if _read(path) == told else None)

    async def connect(self, path: Path, *, limit_bytes: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, str]:
        told = _read(path)
        if told is None:
            raise Nobody("no port is told")
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", told.port, limit=limit_bytes)
        except ConnectionError as refused:
            raise Nobody("nobody listens at the port told") from refused
        return reader, writer, told.token


class _Told(msgspec.Struct, frozen=True):
    port: int
    token: str
    pid: int


def _read(path: Path) -> _Told | None:
    """What the file tells, None if there is no file or it is damaged. PermissionError passes."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Told)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def _write_private(path: Path, content: bytes) -> None:
    """Replace the file, closed to others before there is anything in it to read."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        if sys.platform == "win32":
            _close_to_others(fresh)
        os.write(descriptor, content)
    finally:
        os.close(descriptor)
    fresh.replace(path)


if sys.platform == "win32":

    def _close_to_others(path: Path) -> None:
        """Leave the system, administrators and the owner (well-known SIDs, the same in every language) and nobody else.

        Where icacls fails, the data directory's own access list still stands.
        """
        subprocess.run(
            ["icacls", str(path), "/inheritance:r", "/grant:r", "*S-1-5-18:F", "*S-1-5-32-544:F", "*S-1-3-4:F"],
            check=False,
            capture_output=True,
            timeout=10,
        )

    DOOR: Door = LoopbackDoor()

else:

    def _bind_private(path: Path) -> tuple[socket.socket, int]:
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            path.unlink(missing_ok=True)
            before = os.umask(0o177)  # a chmod after bind would leave a moment in which anybody may connect
            try:
                bound.bind(str(path))
            finally:
                os.umask(before)
            return bound, path.stat().st_ino
        except OSError:
            bound.close()
            raise

    class UnixDoor:
        """A Unix socket of mode 0600: the operating system checks who knocks."""

        def new_token(self) -> str:
            return ""

        def owner(self, path: Path) -> int | None:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as knock:
                knock.setblocking(False)
                try:
                    knock.connect(str(path))
                except BlockingIOError:
                    return PID_UNKNOWN  # its queue of callers is full: alive, and hanging
                except OSError as away:
                    if away.errno in (errno.ENOENT, errno.ECONNREFUSED):
                        return None
                    raise
                if sys.platform != "linux":
                    return PID_UNKNOWN
                # SO_PEERCRED (unix(7)): pid, uid, gid of whoever called listen()
                credentials = knock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
                pid: int = struct.unpack("3i", credentials)[0]
                return pid

        async def open(self, path: Path, called: Called, *, token: str, limit_bytes: int) -> Hold:
            bound, inode = _bind_private(path)
            server = await asyncio.start_unix_server(called, sock=bound, limit=limit_bytes, backlog=BACKLOG)
            return Hold(server, lambda: path.unlink() if path.exists() and path.stat().st_ino == inode else None)

        async def connect(
            self, path: Path, *, limit_bytes: int
        ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, str]:
            try:
                reader, writer = await asyncio.open_unix_connection(str(path), limit=limit_bytes)
            except (FileNotFoundError, ConnectionRefusedError) as away:
                raise Nobody("nobody listens at the socket") from away
            return reader, writer, ""

    DOOR: Door = UnixDoor()
