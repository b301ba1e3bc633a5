"""Python targets that the tests name in Bot.code; the first four do what the bots of the recording do."""

from __future__ import annotations

import asyncio
import threading

from agent.hub.targets import Message


def throws(message: Message) -> str:
    raise ValueError("bot failed on purpose")


def silent(message: Message) -> None:
    message.log("no return value")


def echo(message: Message) -> dict[str, object]:
    return {"received": message.input, "contentType": message.content_type}


async def shout(message: Message) -> str:
    return message.body.upper()


def unspeakable(message: Message) -> object:
    return {"value": object()}


def stops(message: Message) -> str:
    raise StopIteration


async def exits(message: Message) -> str:
    raise SystemExit(7)


def mumbles(message: Message) -> str:
    raise ValueError("half a character: \ud83d")


class Gate:
    """Holds messages whose body says `wait` until it is opened; one for threads, one for the loop."""

    def __init__(self) -> None:
        self.thread = threading.Event()
        self.loop = asyncio.Event()


gate = Gate()


def waits(message: Message) -> str:
    if message.body == "wait":
        gate.thread.wait(20)
    return message.body


async def waits_on_the_loop(message: Message) -> str:
    if message.body == "wait":
        await gate.loop.wait()
    return message.body


async def hangs(message: Message) -> str:
    await asyncio.Event().wait()
    return "never"
