"""One daemon to a data directory.

Secret: the operating system's file lock, which dies with its process however that ends.
Promise: two daemons never share a spool; the second one is told who holds it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from agent.errors import ConfigError, Finding, Severity

if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        os.lseek(descriptor, 1 << 20, os.SEEK_SET)  # beyond the pid, which others may read
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


_HELD = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the lock at `path` for the block. Raises ConfigError when another process has it, or nobody can have it."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise _unusable(path, error) from error
    try:
        try:
            _lock(descriptor)
        except OSError as error:
            raise (_taken(path) if error.errno in _HELD else _unusable(path, error)) from error
        with contextlib.suppress(OSError):  # a full disk must not keep the agent from delivering what it holds
            os.ftruncate(descriptor, 0)
            os.lseek(descriptor, 0, os.SEEK_SET)
            os.write(descriptor, str(os.getpid()).encode())
        yield
    finally:
        os.close(descriptor)


def _taken(path: Path) -> ConfigError:
    try:
        holder = path.read_text(errors="replace").strip() or "unknown"
    except OSError:
        holder = "unknown"
    text = f"another agent uses the data directory {path.parent} (process {holder})"
    remedy = "stop it, or give this one a --data-dir of its own"
    return ConfigError([Finding("daemon.already-running", Severity.ERROR, text, remedy)])


def _unusable(path: Path, error: OSError) -> ConfigError:
    text = f"the data directory {path.parent} cannot be used: {error.strerror or error}"
    remedy = "let the agent's user write there, on a local disk, or name another --data-dir"
    return ConfigError([Finding("daemon.no-data-dir", Severity.ERROR, text, remedy)])
