"""The daemon looks at itself from time to time.

Secret: when, and that a look never ends the daemon.
Promise: `findings` is what the last look found; what takes too long is a finding too, and threads that hang do not
grow in number.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Iterable
from typing import Final

from agent.diagnostics.aside import Threads
from agent.diagnostics.check import Check, examine
from agent.diagnostics.host import Host
from agent.errors import Finding, Severity

FIRST_AFTER_S: Final = 10.0
EVERY_S: Final = 900.0
_HANGING_AT_MOST: Final = 4


class Checkup:
    """`host` gives the facts at the time of each look; of `checks` only the unattended ones are made."""

    def __init__(
        self,
        host: Callable[[], Host],
        checks: Iterable[Check],
        *,
        first_after_s: float = FIRST_AFTER_S,
        every_s: float = EVERY_S,
    ) -> None:
        self.findings: tuple[Finding, ...] = ()
        self._host = host
        self._checks = tuple(check for check in checks if check.unattended)
        self._first_after_s = first_after_s
        self._every_s = every_s
        self._threads = Threads(_HANGING_AT_MOST)

    async def run(self) -> None:
        """Look, again and again, until cancelled. Belongs in the daemon's TaskGroup."""
        wait_s = self._first_after_s
        while True:
            await asyncio.sleep(wait_s)
            await self.look()
            wait_s = self._every_s

    async def look(self) -> None:
        """One look."""
        host = dataclasses.replace(self._host(), threads=self._threads)
        results = await examine(host, self._checks)
        found = [finding for result in results for finding in result.findings]
        self.findings = tuple(finding for finding in found if finding.severity is not Severity.INFO)
