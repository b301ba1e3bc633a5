"""Dial remotes.

Secret: whose tasks the connections come about in, and which certificates each of them shows and believes.
Promise: a dial begins at once and never raises; when it is over no connection and no try is left, and whoever dialled
has been told. Certificates that are renewed are shown from the next dial on.
"""

from __future__ import annotations

import asyncio
import ssl
from contextlib import AsyncExitStack
from datetime import datetime
from types import TracebackType
from typing import Final, Self

from agent.errors import ConfigError, Finding
from agent.failures import Failure
from agent.net.line import Line, LineEvents
from agent.net.reach import unusable
from agent.net.tls import HostTrust, Identity
from agent.spec import RemoteSpec, TlsSpec

__all__ = ["CONNECT_WITHIN_S", "Line", "LineEvents", "Outbound"]

CONNECT_WITHIN_S: Final = 8.0  # TCP and TLS together: a server waits 10 s for a push, and must hear why


class Outbound:
    """Every connection to a remote, from entering the context to leaving it: what is dialled before begins then, what
    is dialled afterwards fails. Leaving cuts whatever is open; to end politely is the business of whoever dialled.
    """

    def __init__(self, *, connect_within_s: float = CONNECT_WITHIN_S) -> None:
        self._connect_within_s = connect_within_s
        self._identities: dict[TlsSpec, Identity] = {}
        self._trust = HostTrust()
        self._lines: dict[Line, RemoteSpec] = {}
        self._one_less = asyncio.Event()
        self._stack = AsyncExitStack()
        self._tasks: asyncio.TaskGroup | None = None
        self._over = False

    async def run(self) -> None:
        """Be in the context until cancelled. Raises what nobody expected while connecting, as a TaskGroup does."""
        async with self:
            await asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> Self:
        self._tasks = await self._stack.enter_async_context(asyncio.TaskGroup())
        self._stack.push_async_callback(self._end)
        for line, spec in self._lines.items():
            self._begin(self._tasks, line, spec)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    def dial(self, spec: RemoteSpec, events: LineEvents) -> Line:
        """Begin to connect."""
        line = Line(spec, events, self._forget)
        if self._over:
            asyncio.get_running_loop().call_soon(line.settle, None)
        else:
            self._lines[line] = spec
            if self._tasks is not None:
                self._begin(self._tasks, line, spec)
        return line

    def findings(self, now: datetime) -> list[Finding]:
        """What somebody has to do about the certificates that remotes have been shown, or soon will."""
        return [finding for identity in self._identities.values() for finding in identity.findings(now)]

    def _begin(self, tasks: asyncio.TaskGroup, line: Line, spec: RemoteSpec) -> None:
        connecting = tasks.create_task(self._connect(line, spec), name=f"dial:{spec.where}")
        connecting.add_done_callback(self._look)
        line.begin(connecting)

    async def _connect(self, line: Line, spec: RemoteSpec) -> Failure | None:
        try:
            context = self._context(spec)
        except ConfigError as error:
            return unusable(spec, error)
        return await line.connect(context, self._connect_within_s)

    def _context(self, spec: RemoteSpec) -> ssl.SSLContext | None:
        """Whom to believe and what to show, by the files as they are now; None: plain text. Raises ConfigError."""
        if not spec.secure:
            return None
        if spec.tls is None:
            return self._trust.context
        identity = self._identities.get(spec.tls)
        if identity is None:
            identity = self._identities[spec.tls] = Identity.load(spec.tls, dials=True)
        else:
            identity.refresh()
        return identity.context

    def _look(self, connecting: asyncio.Task[Failure | None]) -> None:
        if not connecting.cancelled() and connecting.exception() is not None:
            self._over = True  # the group is coming down and takes no further task

    def _forget(self, line: Line) -> None:
        self._lines.pop(line, None)
        self._one_less.set()

    async def _end(self) -> None:
        self._over = True
        for line in tuple(self._lines):
            line.abort()
        while self._lines:
            self._one_less.clear()
            await self._one_less.wait()
