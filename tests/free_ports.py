"""Ports for processes that a test starts, and that may start again on the same one.

Secret: how several runs of these tests on one host keep out of each other's way.
Promise: a port that was given is nobody else's among them for as long as anybody needs to come to listen on it.
"""

from __future__ import annotations

import fcntl
import itertools
import socket
import tempfile
from collections import deque
from pathlib import Path
from typing import IO

# Below the range that the system takes outgoing ports from: a port stays free while its owner restarts.
_LOWEST, _HIGHEST = 12_000, 28_000
_PORTS = itertools.cycle(range(_LOWEST, _HIGHEST))
_RESERVED = Path(tempfile.gettempdir()) / "onprem-agent-test-ports"
_HELD_AT_ONCE = 200  # whoever got a port that long ago listens on it by now, or has gone
_held: deque[IO[bytes]] = deque()


def free_port() -> int:
    """A port of loopback that nobody uses, and that no other run of these tests takes meanwhile."""
    _RESERVED.mkdir(exist_ok=True)
    for port in itertools.islice(_PORTS, _HIGHEST - _LOWEST):
        claim = (_RESERVED / str(port)).open("wb")
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket() as candidate:
                candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                candidate.bind(("127.0.0.1", port))
        except OSError:
            claim.close()
            continue
        _held.append(claim)
        if len(_held) > _HELD_AT_ONCE:
            _held.popleft().close()
        return port
    raise AssertionError("no port is free")
