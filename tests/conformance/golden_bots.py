"""What the bots of the recordings do, for a hub: named in Bot.code as `python golden_bots:…`."""

from __future__ import annotations

import asyncio

from agent.hub.targets import Message
from agent.protocol.hl7 import Header, build_ack


def nak(message: Message) -> str:
    return _ack(message, "AE", "Application Error")


def throws(message: Message) -> str:
    raise ValueError("bot failed on purpose")


def silent(message: Message) -> None:
    message.log("no return value")


def echo(message: Message) -> dict[str, object]:
    return {"received": message.input, "contentType": message.content_type}


def same(message: Message) -> object:
    return message.input


async def slow(message: Message) -> str:
    if Header.of(message.body.encode()).control_id.startswith(b"SLOW"):
        await asyncio.sleep(0.2)  # what it is slow for: the others overtake it
    return _ack(message, "AA", "OK")


def _ack(message: Message, code: str, text: str) -> str:
    header = Header.of(message.body.encode())
    return build_ack(header, code, text=text, control_id=b"1", when="20261122075113.277")[:-1].decode()
