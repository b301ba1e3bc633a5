"""Answer requests that come through two doors: frames of the server, questions of this host's people.

Secret: how many commands run at once, how long each may take, and how trouble becomes an answer.
Promise: each request gets exactly one answer, in time, with the callback it came with; the server's requests never
hold up the socket they came from, nor a person who asks at the local door; an unexpected exception is not hidden.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import structlog

from agent.errors import AgentError
from agent.protocol.envelope import (
    AgentErrorFrame,
    FromAgent,
    LogsRequest,
    Push,
    ReloadConfigRequest,
    StatsRequest,
    UpgradeRequest,
)

Request = Push | ReloadConfigRequest | StatsRequest | LogsRequest | UpgradeRequest
Respond = Callable[[Any, str | None], FromAgent]

AT_ONCE = 4
WAITING = 64  # beyond it the server is told to come again: it gives up on a request after seconds anyhow
# what people call a request for which this version has no command
OPERATIONS: Mapping[type[Request], str] = {
    Push: "$push",
    ReloadConfigRequest: "$reload-config",
    StatsRequest: "$stats",
    LogsRequest: "$fetch-logs",
    UpgradeRequest: "$upgrade",
}

log = structlog.get_logger("main")


class NotAvailable(AgentError):
    """Nobody here knows how to do this."""

    hint = "a newer release of the agent may"


class TooLate(AgentError):
    """The command's deadline passed; whatever it was doing was stopped."""

    hint = "try again; if it stays like this, look at the agent's main log"


class TooBusy(AgentError):
    """More requests wait than will be answered while anybody still listens."""

    hint = "try again later"


@dataclass(frozen=True, slots=True)
class Command:
    """One thing that can be asked. `answer` gets the request's fields but for the callback, and returns plain facts.

    `request` is the server's frame for it (None: only the local door), `respond` makes the frame of the answer.
    `direct(request, send)` may answer the server by itself, at once or later, without holding up anything; False: it
    leaves this request to `answer`. `at_once`: as many of this command may be at work, apart from the others; 0: it
    shares with them.
    """

    verb: str
    answer: Callable[[Mapping[str, Any]], Awaitable[Any]]
    request: type[Request] | None = None
    respond: Respond | None = None
    deadline_s: float = 10.0
    direct: Callable[[Any, Callable[[FromAgent], object]], bool] | None = None
    at_once: int = 0


@dataclass(frozen=True, slots=True)
class _Desk:
    """Where requests wait for one of `at_once` workers."""

    requests: asyncio.Queue[Request]
    at_once: int


class Commands:
    """The table at work. `send` takes the answers to the server's requests, and may drop them when the link is gone."""

    def __init__(
        self,
        commands: Iterable[Command],
        *,
        send: Callable[[FromAgent], object],
        at_once: int = AT_ONCE,
        waiting: int = WAITING,
    ) -> None:
        known = tuple(commands)
        self._by_verb = {command.verb: command for command in known}
        self._by_request = {command.request: command for command in known if command.request is not None}
        self._send = send
        self._shared = _Desk(asyncio.Queue(waiting), at_once)
        self._own = {c.request: _Desk(asyncio.Queue(waiting), c.at_once) for c in known if c.request and c.at_once}

    def take(self, request: Request) -> None:
        """The server's door: to be answered by `run`; refused at once if too many wait. Never blocks."""
        kind = type(request)
        command = self._by_request.get(kind)
        if command is not None and command.direct is not None and command.direct(request, self._send):
            return
        try:
            self._own.get(kind, self._shared).requests.put_nowait(request)
        except asyncio.QueueFull:
            self._refuse(request, TooBusy("the agent has too many requests to answer"))

    async def ask(self, verb: str, args: Mapping[str, Any]) -> Any:
        """The local door: the command's facts. Raises AgentError."""
        command = self._by_verb.get(verb)
        if command is None:
            raise NotAvailable(f"'{verb}' is not available in this version")
        return await _in_time(command, args)

    async def run(self) -> None:
        """Answer the server's requests until cancelled."""
        async with asyncio.TaskGroup() as workers:
            for desk in (self._shared, *self._own.values()):
                for number in range(desk.at_once):
                    workers.create_task(self._work(desk), name=f"command:{number}")

    async def _work(self, desk: _Desk) -> None:
        while True:
            request = await desk.requests.get()
            command = self._by_request.get(type(request))
            try:
                if command is None or command.respond is None:
                    raise NotAvailable(f"{OPERATIONS[type(request)]} is not available in this version")
                facts = await _in_time(command, _args(request))
            except AgentError as failed:
                self._refuse(request, failed)
            else:
                self._send(command.respond(facts, request.callback))

    def _refuse(self, request: Request, failed: AgentError) -> None:
        log.warning("command.refused", operation=OPERATIONS[type(request)], reason=str(failed))
        text = f"{failed} — {failed.hint}" if failed.hint else str(failed)
        self._send(AgentErrorFrame(body=text, callback=request.callback))


def _args(request: Request) -> dict[str, Any]:
    fields = msgspec.structs.asdict(request)
    del fields["callback"]
    return fields


async def _in_time(command: Command, args: Mapping[str, Any]) -> Any:
    try:
        async with asyncio.timeout(command.deadline_s) as deadline:
            return await command.answer(args)
    except TimeoutError:
        if not deadline.expired():
            raise  # the command's own, and not foreseen by it
        raise TooLate(f"'{command.verb}' was not done within {command.deadline_s:g} s") from None
