"""A server that does what the test tells it, by the wire of the real one.

Secret: login, FHIR reads and `/ws/agent` as PROTOCOL.md and the recordings have them, spelt out by hand.
Promise: `heard` holds every transmit request in the order of arrival; what it answers is decided by `script` alone; it
can go away and come back on the same port.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web
from ward_messages import ack_text, control_id_of

WITHIN_S = 10.0
HL7 = "x-application/hl7-v2+er7"
AGENT_ID = "6d1a7b50-3b1c-4a0e-9c59-1b1f0d2a7c11"


class Link:
    """One socket of an agent."""

    def __init__(self, socket: web.WebSocketResponse, request: web.Request) -> None:
        self.socket = socket
        self.playing: set[asyncio.Task[None]] = set()
        self._request = request

    async def say(self, frame: Mapping[str, Any] | str) -> None:
        with contextlib.suppress(ConnectionError):
            await self.socket.send_str(frame if isinstance(frame, str) else json.dumps(frame))

    async def close(self, code: int, reason: str = "") -> None:
        await self.socket.close(code=code, message=reason.encode())

    def hold(self) -> None:
        """Read nothing more from this socket."""
        assert self._request.transport is not None
        self._request.transport.pause_reading()

    def resume(self) -> None:
        assert self._request.transport is not None
        self._request.transport.resume_reading()

    def cut(self) -> None:
        """End the connection without a word."""
        if self._request.transport is not None:
            self._request.transport.abort()


@dataclass(frozen=True, slots=True)
class Asked:
    """One transmit request. `attempt`: 1, or what the mark in the callback says. `control_id`: MSH-10 of an HL7
    message, else empty."""

    link: Link
    channel: str
    remote: str
    callback: str
    control_id: str
    attempt: int
    content_type: str

    async def answer(self, body: Any, status: int | None = 200, **changes: Any) -> None:
        """An `agent:transmit:response`; a change to None leaves the field out."""
        frame = {
            "type": "agent:transmit:response",
            "channel": self.channel,
            "remote": self.remote,
            "contentType": HL7,
            "statusCode": status,
            "callback": self.callback,
            "body": body,
            **changes,
        }
        await self.link.say({name: value for name, value in frame.items() if value is not None})

    async def accept(self) -> None:
        await self.answer(ack_text(self.control_id))


Script = Callable[[Asked], Awaitable[None]]


async def accept(asked: Asked) -> None:
    """The server as it should be."""
    await asked.accept()


async def silence(asked: Asked) -> None:
    """Take the message and never answer."""


class ScriptedServer:
    """Configure with `channel(…)` before an agent asks. `status`: that of the Agent resource. `folder`: for uploads."""

    def __init__(self, port: int, folder: Path) -> None:
        self.port = port
        self.folder = folder
        self.base_url = f"http://127.0.0.1:{port}/"
        self.agent_id, self.client_id, self.client_secret = AGENT_ID, "a-client", "a-secret"
        self.script: Script = accept
        self.status = "active"
        self.endpoints: dict[str, dict[str, Any]] = {}
        self.heard: list[Asked] = []
        self.keeps_bodies = False  # a flood would fill the memory of the test
        self.bodies: list[str] = []
        self.frames: list[dict[str, Any]] = []  # everything else that agents said
        self.links: list[Link] = []
        self.configuration_reads = 0
        self.settings: dict[str, bool | int | str] = {}  # Agent.setting
        self.binaries: dict[str, Path] = {}  # what was uploaded, by id
        self.upload_troubles: list[int] = []  # statuses of the next uploads, instead of taking them
        self._pushes = 0
        self._changed = asyncio.Event()
        self._runner: web.AppRunner | None = None

    def channel(self, name: str, port: int, **parameters: str | float) -> None:
        """A channel on loopback; the parameters stand in its address."""
        query = "&".join(f"{key}={value}" for key, value in parameters.items())
        self.endpoint(name, f"mllp://127.0.0.1:{port}" + (f"?{query}" if query else ""))

    def endpoint(self, name: str, address: str) -> None:
        """A channel with this address."""
        self.endpoints[name] = {
            "resourceType": "Endpoint",
            "id": f"endpoint-{name}",
            "status": "active",
            "address": address,
            "connectionType": {"code": "hl7v2-mllp"},
            "payloadType": [{"text": "HL7"}],
        }

    async def push(self, remote: str, body: bytes | str, callback: str = "", **more: Any) -> str:
        """Send one message to a remote through the agent, once it is live; the callback that it goes under."""
        await self.until_live()
        self._pushes += 1
        callback = callback or f"push-{self._pushes}"
        frame = {
            "type": "agent:transmit:request",
            "remote": remote,
            "contentType": HL7,
            "body": body if isinstance(body, str) else body.decode(),
            "callback": callback,
            **more,
        }
        await self.links[-1].say({name: value for name, value in frame.items() if value is not None})
        return callback

    async def answer_to(self, callback: str, *, within_s: float = WITHIN_S) -> dict[str, Any]:
        """What the agent answers under a callback. Raises TimeoutError."""
        await self.until(lambda: bool(self.answers_to(callback)), within_s=within_s)
        return self.answers_to(callback)[0]

    def answers_to(self, callback: str) -> list[dict[str, Any]]:
        """Every answer under a callback; more than one is more than there may be."""
        return [frame for frame in self.frames if frame.get("callback") == callback]

    async def come(self) -> None:
        """Listen."""
        application = web.Application(client_max_size=1 << 40)
        application.router.add_post("/oauth2/token", self._token)
        application.router.add_get("/auth/me", self._me)
        application.router.add_get("/fhir/R4/{type}/{id}", self._read)
        application.router.add_post("/fhir/R4/Binary", self._upload)
        application.router.add_get("/ws/agent", self._serve)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True).start()

    async def go(self) -> None:
        """Be away: every connection cut, nobody listening."""
        runner, self._runner = self._runner, None
        for link in self.links:
            link.cut()
        if runner is not None:
            await runner.cleanup()

    async def until(self, true: Callable[[], bool], *, within_s: float = WITHIN_S) -> None:
        """Until `true()`, looked at whenever something was heard or answered. Raises TimeoutError."""
        async with asyncio.timeout(within_s):
            while not true():
                self._changed.clear()
                await self._changed.wait()

    async def until_live(self) -> None:
        """Until an agent has a socket that introduced itself."""
        await self.until(lambda: any(not link.socket.closed for link in self.links))

    async def until_heard(self, *control_ids: str, within_s: float = WITHIN_S) -> None:
        """Until each of these messages has arrived at least once."""
        wanted = set(control_ids)
        await self.until(lambda: wanted <= {asked.control_id for asked in self.heard}, within_s=within_s)

    def attempts(self, control_id: str) -> list[int]:
        """The marks under which a message arrived, in the order of arrival."""
        return [asked.attempt for asked in self.heard if asked.control_id == control_id]

    async def _token(self, request: web.Request) -> web.Response:
        form = await request.post()
        if form.get("client_secret") != self.client_secret:
            return web.json_response({"error": "invalid_request", "error_description": "Invalid secret"}, status=400)
        return web.json_response({"token_type": "Bearer", "expires_in": 3600, "access_token": "a-token"})

    async def _upload(self, request: web.Request) -> web.Response:
        self._changed.set()
        number = str(len(self.binaries) + 1)
        fresh = self.folder / f"binary-{self.port}-{number}"
        with fresh.open("wb") as file:
            async for piece in request.content.iter_chunked(1 << 20):
                file.write(piece)
        if self.upload_troubles:
            return web.json_response({"resourceType": "OperationOutcome"}, status=self.upload_troubles.pop(0))
        self.binaries[number] = fresh
        answer = {"resourceType": "Binary", "id": number, "contentType": request.content_type}
        return web.json_response(answer, status=201)

    async def _me(self, request: web.Request) -> web.Response:
        return web.json_response({"project": {"name": "Scenario"}})

    async def _read(self, request: web.Request) -> web.Response:
        if request.match_info["type"] == "Agent":
            self.configuration_reads += 1
            self._changed.set()
            return web.json_response(self._agent())
        for endpoint in self.endpoints.values():
            if endpoint["id"] == request.match_info["id"]:
                return web.json_response(endpoint)
        return web.json_response({"resourceType": "OperationOutcome", "issue": []}, status=404)

    def _agent(self) -> dict[str, Any]:
        channels = [
            {
                "name": name,
                "endpoint": {"reference": f"Endpoint/{endpoint['id']}"},
                "targetReference": {"reference": "Bot/a-bot"},
            }
            for name, endpoint in self.endpoints.items()
        ]
        return {
            "resourceType": "Agent",
            "id": self.agent_id,
            "name": "scenario",
            "status": self.status,
            "channel": channels,
            "setting": [{"name": name, **_value(value)} for name, value in self.settings.items()],
        }

    async def _serve(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(max_msg_size=0, compress=False, timeout=1.0)
        await socket.prepare(request)
        link = Link(socket, request)
        async with asyncio.TaskGroup() as scripts:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    await self._take(link, json.loads(message.data), scripts)
            for playing in link.playing:
                playing.cancel()  # nobody is there to hear the rest
        return socket

    async def _take(self, link: Link, frame: dict[str, Any], scripts: asyncio.TaskGroup) -> None:
        match frame["type"]:
            case "agent:connect:request":
                self.links.append(link)
                await link.say({"type": "agent:connect:response"})
            case "agent:heartbeat:request":
                await link.say({"type": "agent:heartbeat:response", "version": "5.0.10"})
            case "agent:transmit:request":
                mark = frame["callback"].partition("#")[2]
                asked = Asked(
                    link,
                    frame["channel"],
                    frame["remote"],
                    frame["callback"],
                    control_id_of(frame["body"]) if frame["contentType"] == HL7 else "",
                    int(mark or 1),
                    frame["contentType"],
                )
                self.heard.append(asked)
                if self.keeps_bodies:
                    self.bodies.append(frame["body"])
                playing = scripts.create_task(self._play(self.script, asked))
                link.playing.add(playing)
                playing.add_done_callback(link.playing.discard)
            case _:
                self.frames.append(frame)
        self._changed.set()

    async def _play(self, script: Script, asked: Asked) -> None:
        with contextlib.suppress(ConnectionError):  # the agent has gone before the answer
            await script(asked)
        self._changed.set()


def _value(value: bool | int | str) -> dict[str, bool | int | str]:
    match value:
        case bool():
            return {"valueBoolean": value}
        case int():
            return {"valueInteger": value}
        case str():
            return {"valueString": value}
