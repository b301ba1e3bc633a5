"""`plan`: what would come of a configuration, and, if that is wanted, have it.

Secret: how a configuration and its basis are spelt at the local door.
Promise: nothing is changed unless `apply` says so; every change and every problem is in the answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any, Protocol

import msgspec

from agent.commands.serve import Command
from agent.errors import AgentError

DEADLINE_S = 60.0


class Told(Protocol):
    """A plan, with all that came of it."""

    def facts(self) -> dict[str, Any]:
        """For JSON."""


class Propose(Protocol):
    """As `Steering.propose` has it."""

    def __call__(self, document: Mapping[str, Any] | None, *, apply: bool, basis: str | None) -> Awaitable[Told]:
        """`document` None: the server's configuration. Raises AgentError."""


class _Document(msgspec.Struct, frozen=True):
    agent: dict[str, Any]
    endpoints: dict[str, dict[str, Any]]


class _Args(msgspec.Struct, frozen=True):
    """`source`: the word server, or resources; `basis`: of the plan that this is to be, None for any."""

    source: str | _Document = "server"
    apply: bool = False
    basis: str | None = None


class NotAPlan(AgentError):
    """What was asked has not the form of a question for a plan."""

    hint = "use the command of the same version as the running agent"


def plan(propose: Propose) -> Command:
    """The local door only."""

    async def answer(args: Mapping[str, Any]) -> dict[str, Any]:
        try:
            asked = msgspec.convert(args, _Args)
        except msgspec.ValidationError as wrong:
            raise NotAPlan(f"this is no question for a plan: {wrong}") from None
        match asked.source:
            case _Document(agent, endpoints):
                document: Mapping[str, Any] | None = {"agent": agent, "endpoints": endpoints}
            case "server":
                document = None
            case _:
                raise NotAPlan("a plan is made from the server or from resources")
        return (await propose(document, apply=asked.apply, basis=asked.basis)).facts()

    return Command("plan", answer, deadline_s=DEADLINE_S)
