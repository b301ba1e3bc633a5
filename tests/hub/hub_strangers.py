"""Strangers for a hub: somebody who uses its REST side, and somebody who plays an agent on its socket."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from agent.hub import Hub

WITHIN_S = 10.0
HL7 = "x-application/hl7-v2+er7"
ADT_A01 = (
    "MSH|^~\\&|ADT1|GOOD HEALTH HOSPITAL|GHH LAB|GOOD HEALTH HOSPITAL|20261122101500||ADT^A01^ADT_A01|MSG00001|P|2.5\r"
    "EVN||20261122101500\rPID|1||PATID1234^5^M11||EVERYMAN^ADAM"
)


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back over HTTP."""

    status: int
    headers: Any
    raw: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.raw)

    @property
    def problem(self) -> str:
        """Text of the first issue of an OperationOutcome."""
        return str(self.json["issue"][0]["details"]["text"])


class Api:
    """A client with a good token."""

    def __init__(self, hub: Hub, session: aiohttp.ClientSession) -> None:
        self.hub = hub
        self.session = session
        self.token = ""

    async def login(self, client_id: str = "", secret: str = "") -> None:
        form = {
            "grant_type": "client_credentials",
            "client_id": client_id or self.hub.client_id,
            "client_secret": secret or self.hub.client_secret,
        }
        self.token = (await self.call("POST", "oauth2/token", data=form, token="")).json["access_token"]

    async def call(self, method: str, path: str, *, token: str | None = None, **more: Any) -> Reply:
        headers = more.pop("headers", {})
        bearer = self.token if token is None else token
        if bearer:
            headers = {"Authorization": f"Bearer {bearer}", **headers}
        async with (
            asyncio.timeout(WITHIN_S),
            self.session.request(method, self.hub.base_url + path, headers=headers, **more) as response,
        ):
            return Reply(response.status, response.headers, await response.read())

    async def get(self, path: str, **more: Any) -> Reply:
        return await self.call("GET", f"fhir/R4/{path}", **more)

    async def post(self, path: str, content: Any, **more: Any) -> Reply:
        return await self.call("POST", f"fhir/R4/{path}", json=content, **more)

    async def put(self, path: str, content: Any, **more: Any) -> Reply:
        return await self.call("PUT", f"fhir/R4/{path}", json=content, **more)


class Line:
    """A hand-made agent's end of `/ws/agent`."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, token: str) -> None:
        self.socket = socket
        self.token = token

    async def say(self, frame: dict[str, Any] | str) -> None:
        await self.socket.send_str(frame if isinstance(frame, str) else json.dumps(frame))

    async def hear(self) -> dict[str, Any]:
        """The next frame."""
        heard = json.loads(await self.hear_text())
        assert isinstance(heard, dict)
        return heard

    async def hear_text(self) -> str:
        async with asyncio.timeout(WITHIN_S):
            message = await self.socket.receive()
        assert message.type is aiohttp.WSMsgType.TEXT, message
        return str(message.data)

    async def ask(self, frame: dict[str, Any] | str) -> dict[str, Any]:
        await self.say(frame)
        return await self.hear()

    async def introduce(self, agent_id: str) -> dict[str, Any]:
        return await self.ask({"type": "agent:connect:request", "accessToken": self.token, "agentId": agent_id})

    def message(self, **changes: Any) -> dict[str, Any]:
        """A good transmit request, but for the changes; None leaves a field out."""
        frame = {
            "type": "agent:transmit:request",
            "accessToken": self.token,
            "channel": "hl7",
            "remote": "10.0.0.7:50123",
            "contentType": HL7,
            "body": ADT_A01,
            "callback": "callback-1",
            **changes,
        }
        return {key: value for key, value in frame.items() if value is not None}

    async def closed(self) -> int | None:
        """Wait for the end; the close code."""
        async with asyncio.timeout(WITHIN_S):
            while not self.socket.closed:
                await self.socket.receive()
        return self.socket.close_code


class Lobby:
    """Opens hubs, clients and lines, and closes them in the right order when the test is over."""

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        self.folder = folder
        self._stack = stack

    async def hub(self, **options: Any) -> Hub:
        options = {"heartbeat_s": 600.0, **options}
        return await self._stack.enter_async_context(Hub.open(self.folder, ("127.0.0.1", 0), **options))

    async def api(self, hub: Hub) -> Api:
        session = await self._stack.enter_async_context(aiohttp.ClientSession())
        api = Api(hub, session)
        await api.login()
        return api

    async def line(self, api: Api, agent_id: str = "") -> Line:
        """A socket; introduced as the agent, if one is given."""
        socket = await api.session.ws_connect(api.hub.base_url.replace("http", "ws", 1) + "ws/agent", autoclose=True)
        self._stack.push_async_callback(socket.close)
        line = Line(socket, api.token)
        if agent_id:
            assert await line.introduce(agent_id) == {"type": "agent:connect:response"}
        return line
