"""Do with a message what its channel's target says.

Secret: how a Bot is run: built in, over HTTP, or as Python code, how many at once, and how each outcome is
spelt on the wire.
Promise: every message gets exactly one Answer, whatever its target does; a slow one holds up no other target;
content never gets into a log.

What a Bot does stands in `Bot.code`; see `agent.hub.behaviour`. A Python callable returns the answer: a text,
a JSON object (dict), or None ("Bot execution logs:" with what it gave to `message.log`); raising makes status
400 with the error's text.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import inspect
import io
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, assert_never

import aiohttp
import msgspec
import structlog

from agent.errors import PeerError
from agent.hub.behaviour import (
    TIMEOUT_S,
    Acknowledge,
    BadBehaviour,
    Behaviour,
    PythonCallable,
    Webhook,
    read_behaviour,
)
from agent.hub.clock import Stamps
from agent.hub.inbox import Delivery
from agent.hub.jsontext import BadJson, read_json
from agent.hub.outcomes import Refused, bad_request
from agent.hub.resources import Resource, Resources
from agent.protocol.hl7 import build_ack

HL7 = "x-application/hl7-v2+er7"
JSON = "application/json"
JSON_TYPES = frozenset({JSON, "application/fhir+json"})
# of byte streams, analysers (ASTM E1394) and DICOM senders, as an agent's channels bring them
WITHOUT_ACKNOWLEDGEMENT = frozenset({"application/octet-stream", "x-application/astm-e1394", JSON})
AT_ONCE = 64  # messages that one target may be working on
ANSWER_BYTES = 16 * 1024 * 1024

log = structlog.get_logger("main")


@dataclass(frozen=True, slots=True)
class Message:
    """What a Python callable is given. `input`: the body, decoded if it is JSON. `log(text)`: a line of its log."""

    agent_id: str
    channel: str
    remote: str | None
    content_type: str | None
    callback: str | None
    body: str
    input: Any
    log: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back: HTTP-like status, content type, and a text or JSON value."""

    status_code: int
    content_type: str | None
    body: Any

    @property
    def text(self) -> str | None:
        """The body as it is kept in the inbox."""
        return self.body if self.body is None or isinstance(self.body, str) else msgspec.json.encode(self.body).decode()


class BadInput(PeerError):
    """The message cannot be handed to any target; the text goes back as agent:error."""


@dataclass(frozen=True, slots=True)
class Route:
    """Where a channel's messages go."""

    bot: Resource
    behaviour: Behaviour

    @property
    def timeout_s(self) -> float:
        """How long a message may take, waiting for a free slot included."""
        timeout = self.bot.get("timeout")
        return float(timeout) if isinstance(timeout, int | float) and timeout > 0 else TIMEOUT_S


class ChannelUnknown(PeerError):
    """The agent has no channel of that name."""


class Targets:
    """Runs targets, so many at once of each."""

    def __init__(self, resources: Resources, *, allow_python: bool) -> None:
        self._resources = resources
        self._allow_python = allow_python
        self._routes: dict[tuple[str, str], Route | Answer] = {}
        self._generation = -1
        self._stamps = Stamps()
        self._last_ack = 0
        self._slots: dict[str, asyncio.Semaphore] = {}
        self._http: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Let go of connections; a callable that hangs in its thread is left behind."""
        if self._http is not None:
            await self._http.close()

    def route(self, agent_id: str, channel: str) -> Route | Answer:
        """Where a message of this channel goes, or the answer that says why nowhere. Raises ChannelUnknown."""
        if self._generation != self._resources.generation:
            self._routes.clear()
            self._generation = self._resources.generation
        found = self._routes.get((agent_id, channel))
        if found is None:
            found = self._routes[agent_id, channel] = self._find_route(agent_id, channel)
        return found

    def acknowledge(self, delivery: Delivery) -> Answer:
        """The built-in `ack`: AA for HL7; what devices without acknowledgements send is taken without a word; 400 for
        anything else."""
        if delivery.header is None:
            if delivery.content_type in WITHOUT_ACKNOWLEDGEMENT:
                return Answer(200, delivery.content_type, "")
            return failed("ack answers HL7 v2 messages only: send contentType x-application/hl7-v2+er7")
        stamp, now_ms = self._stamps.now()
        self._last_ack = max(now_ms, self._last_ack + 1)  # the recorded MSH-10 is in ms; ours is unique too
        ack = build_ack(delivery.header, "AA", text="OK", control_id=b"%d" % self._last_ack, when=stamp)
        return Answer(200, delivery.content_type, ack[:-1].decode("utf-8", "replace"))  # Medplum ends it without a CR

    async def run(self, route: Route, delivery: Delivery, input_: Any) -> Answer:
        """What the target makes of a message. Never raises for what a target may do."""
        slots = self._slots.setdefault(route.bot["id"], asyncio.Semaphore(AT_ONCE))
        try:
            async with asyncio.timeout(route.timeout_s):
                match route.behaviour:
                    case Acknowledge():
                        return self.acknowledge(delivery)
                    case Webhook(url):
                        async with slots:
                            return await self._post(url, delivery)
                    case PythonCallable() as place:
                        return await self._call(place, slots, delivery, input_)
                    case _:
                        assert_never(route.behaviour)
        except TimeoutError:
            return failed(f"the target gave no answer within {route.timeout_s:g} s", 504)

    def _find_route(self, agent_id: str, channel: str) -> Route | Answer:
        agent = self._resources.get("Agent", agent_id)
        entry = next((entry for entry in agent.get("channel", ()) if entry["name"] == channel), None)
        if entry is None:
            raise ChannelUnknown("Channel not found")
        reference = entry.get("targetReference", {}).get("reference", "")
        kind, _, bot_id = reference.partition("/")
        if kind != "Bot":
            return failed(f"Unsupported target: {reference or 'targetUrl'}")
        try:
            bot = self._resources.get("Bot", bot_id)
            behaviour = read_behaviour(bot.get("code"))
        except Refused as refused:
            return failed(refused.outcome.text)
        except BadBehaviour as bad:
            return failed(str(bad))
        if isinstance(behaviour, PythonCallable) and not self._allow_python:
            return failed("this hub does not run Python code: start it with --allow-python")
        return Route(bot, behaviour)

    async def _post(self, url: str, delivery: Delivery) -> Answer:
        headers = {
            "Content-Type": delivery.content_type or "text/plain",
            "X-Agent-Id": delivery.agent,
            "X-Agent-Channel": delivery.channel,
            "X-Agent-Remote": delivery.remote or "",
            "X-Agent-Callback": delivery.callback or "",
        }
        if self._http is None:
            self._http = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None)
            )
        try:
            async with self._http.post(url, data=io.BytesIO(delivery.body.encode()), headers=headers) as response:
                raw = bytearray()
                async for piece in response.content.iter_any():
                    raw += piece
                    if len(raw) > ANSWER_BYTES:
                        return failed(f"webhook answered with more than {ANSWER_BYTES} bytes", 502)
                text = raw.decode(response.charset or "utf-8", "replace")
                status, content_type = response.status, response.content_type
        except (aiohttp.ClientError, OSError, ValueError, LookupError) as error:
            return failed(f"webhook failed: {type(error).__name__}", 502)
        if not 200 <= status < 300:
            return Answer(status, content_type, text)
        if not text:
            return _returned(None, [], delivery)
        try:
            body = read_json(text) if content_type in JSON_TYPES else text
        except BadJson:
            body = text
        return _returned(body, [], delivery)

    async def _call(self, place: PythonCallable, slots: asyncio.Semaphore, delivery: Delivery, input_: Any) -> Answer:
        lines: list[str] = []
        message = Message(
            delivery.agent,
            delivery.channel,
            delivery.remote,
            delivery.content_type,
            delivery.callback,
            delivery.body,
            input_,
            lines.append,
        )
        try:
            function = getattr(importlib.import_module(place.module), place.function)
            if inspect.iscoroutinefunction(function):
                async with slots:
                    result = await function(message)
            else:
                await slots.acquire()
                result = await _in_thread(function, message, slots.release)
            return _returned(result, lines, delivery)
        except (Exception, SystemExit) as error:  # code of others: whatever it raises is its answer, as on the server
            log.warning("bot.failed", module=place.module, function=place.function, error=type(error).__name__)
            return failed(str(error).encode("utf-8", "replace").decode() or type(error).__name__)


async def _in_thread(function: Callable[[Message], Any], message: Message, ended: Callable[[], None]) -> Any:
    """Call a sync function in a thread that nobody has to wait for at exit; `ended` is called when it really ended."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()

    def finish(result: Any, error: BaseException | None) -> None:
        ended()
        if not done.done():
            done.set_result((result, error))

    def call() -> None:
        result: Any = None
        error: BaseException | None = None
        try:
            result = function(message)
        except (Exception, SystemExit) as raised:  # code of others
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed: the hub went away meanwhile
            loop.call_soon_threadsafe(finish, result, error)

    threading.Thread(target=call, name="hub-bot", daemon=True).start()
    result, error = await done
    if error is not None:
        raise error
    return result


def read_input(delivery: Delivery) -> Any:
    """The body as a callable sees it. Raises BadInput for a JSON content type with no JSON in it."""
    if delivery.content_type not in JSON_TYPES:
        return delivery.body
    try:
        return read_json(delivery.body)
    except BadJson as error:
        raise BadInput(f"Body is not valid JSON: {error}") from None


def _returned(result: Any, lines: list[str], delivery: Delivery) -> Answer:
    body = "Bot execution logs:\n" + "\n".join(lines) if result is None else result
    msgspec.json.encode(body)  # a value that JSON cannot hold is the callable's error, not the socket's
    return Answer(200, delivery.content_type, body)


def failed(text: str, status_code: int = 400) -> Answer:
    """A refusal as a bot that throws gives it: an OperationOutcome as a text."""
    return Answer(status_code, JSON, msgspec.json.encode(bad_request(text).resource()).decode())
