"""Tell systemd how the daemon is (sd_notify(3)); elsewhere, and without a service manager, say nothing.

Secret: the datagrams of the notify protocol and where they go.
Promise: telling never blocks and never fails: a service manager that is away is no reason to stop carrying messages.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections.abc import Mapping


class Notifier:
    """One sender of notifications. `watchdog_interval_s` is how often `alive` must be said, None if nobody asks."""

    def __init__(self, address: str | None, *, watchdog_interval_s: float | None = None) -> None:
        self._address = address
        self.watchdog_interval_s = watchdog_interval_s if address else None

    @classmethod
    def from_environ(cls, environ: Mapping[str, str], *, pid: int | None = None) -> Notifier:
        """From NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID (sd_watchdog_enabled(3)); without them all is a no-op.

        The watchdog's interval is half of what systemd grants, as its manual advises.
        """
        address = environ.get("NOTIFY_SOCKET", "")
        if not address.startswith(("/", "@")):
            return cls(None)
        granted_us = environ.get("WATCHDOG_USEC", "")
        for_us = environ.get("WATCHDOG_PID", "") in ("", str(os.getpid() if pid is None else pid))
        watched = for_us and granted_us.isascii() and granted_us.isdigit() and int(granted_us) > 0
        return cls(address, watchdog_interval_s=int(granted_us) / 2_000_000 if watched else None)

    def ready(self, status: str = "") -> None:
        """The daemon serves; after `reloading`, it serves again."""
        self._send("READY=1", *_status(status))

    def reloading(self) -> None:
        """A reload begins; `ready` ends it. The time stamp is what Type=notify-reload wants."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, status: str = "") -> None:
        """The daemon finishes what is in flight and goes."""
        self._send("STOPPING=1", *_status(status))

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send(*_status(text))

    def alive(self) -> None:
        """The event loop turns."""
        self._send("WATCHDOG=1")

    async def watch(self) -> None:
        """Say `alive` for as long as the loop turns; returns at once if nobody asks."""
        if self.watchdog_interval_s is None:
            return
        while True:
            self.alive()
            await asyncio.sleep(self.watchdog_interval_s)

    def _send(self, *lines: str) -> None:
        if self._address is None or not lines:
            return
        # a leading @ stands for the NUL of an abstract address (unix(7))
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            _send_datagram("\n".join(lines).encode(), address)
        except OSError:
            return  # as promised: the journal shows the service manager's own trouble


if sys.platform == "win32":

    def _send_datagram(content: bytes, address: str) -> None:
        """There is no systemd here; the service host tells Windows."""

else:

    def _send_datagram(content: bytes, address: str) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
            datagrams.setblocking(False)
            datagrams.sendto(content, address)


def _status(text: str) -> tuple[str, ...]:
    line = " ".join(text.split())  # a line feed would start another assignment
    return (f"STATUS={line}",) if line else ()
