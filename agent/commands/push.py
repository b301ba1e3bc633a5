"""`push`: deliver a message to a remote, or ping a host, for the server's $push.

Secret: what a $push asks for: its content type says ping, everything else is a message.
Promise: a message goes its way at once and holds up no other command; pings wait for each other, not for messages;
each request is answered once, with its callback.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec

from agent.commands.serve import Command, NotAvailable
from agent.errors import AgentError
from agent.protocol.envelope import AgentErrorFrame, FromAgent, Push, PushResponse

PING: Final = "x-application/ping"
PINGS_AT_ONCE: Final = 8
PING_WITHIN_S: Final = 130.0  # a hundred echoes at one a second, where the system's ping knows no other pace


def push(
    carry: Callable[[Push, Callable[[PushResponse], object]], None], ping: Callable[[str, str], Awaitable[str]]
) -> Command:
    """`carry` delivers a message and answers; `ping(host, body)` gives what the system's ping said, or raises
    AgentError."""

    def direct(request: Push, send: Callable[[FromAgent], object]) -> bool:
        if not request.remote:
            send(AgentErrorFrame("Missing remote address", request.callback))
        elif request.content_type == PING:
            return False
        else:
            carry(request, send)
        return True

    async def answer(args: Mapping[str, Any]) -> PushResponse:
        remote = str(args.get("remote") or "")
        if args.get("content_type", PING) != PING:
            raise NotAvailable("messages are pushed through the server", hint="agent send sends a message from here")
        try:
            said = await ping(remote, str(args.get("body") or ""))
        except AgentError as failed:
            text = f"{failed} — {failed.hint}" if failed.hint else str(failed)
            return PushResponse(remote=remote, content_type="text/plain", status_code=400, body=text)
        return PushResponse(remote=remote, content_type=PING, body=said)

    def respond(found: PushResponse, callback: str | None) -> FromAgent:
        return msgspec.structs.replace(found, callback=callback)

    return Command("push", answer, Push, respond, PING_WITHIN_S, direct, PINGS_AT_ONCE)
