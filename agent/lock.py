"""One daemon to a data directory.

Secret: the operating system's file lock, which dies with its process however that ends.
Promise: two daemons never share a spool; the second one is told who holds it.
"""

from __future__ import annotations

import contextlib
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


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the lock at `path` for the block. Raises ConfigError when another process has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            _lock(descriptor)
        except OSError as error:
            holder = path.read_text().strip() or "unknown"
            raise ConfigError(
                [
                    Finding(
                        "daemon.already-running",
                        Severity.ERROR,
                        f"another agent uses the data directory {path.parent} (process {holder})",
                        "stop it, or give this one a --data-dir of its own",
                    )
                ]
            ) from error
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, str(os.getpid()).encode())
        yield
    finally:
        os.close(descriptor)
