"""The hub under test, between agents, tools and hand-made clients that say what the recorded ones said.

Secret: how the recorded clients' half is spoken over HTTP and WebSocket, how resources change behind the scenes, and
what of an answer is of the moment (ids that the server draws, instants, tokens).
Promise: whatever the hub answers is heard, on the connection of the recording that it belongs to.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import tempfile
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, unquote

import aiohttp
from golden_names import Names
from golden_replay import WITHIN_S, Ear
from golden_transcript import HEARTBEAT_REQUEST, Line, Transcript
from yarl import URL

from agent.errors import AgentError
from agent.hub import Hub

TOKEN = "<access-token>"
SECRET = "client-secret"
_OF_THE_MOMENT = {  # members whose values no two runs share
    **dict.fromkeys(("versionId", "lastUpdated", "author", "compartment", "valueInstant"), "<moment>"),
    **dict.fromkeys(("requestTime", "transactionTime"), "<moment>"),
    "valueId": "<id>",
    "id_token": "<id-token>",
    "access_token": TOKEN,
    "secret": "<client-secret>",
}
POLL_S = 0.02
POLLS = 500
_TOLD = ("Content-Type", "Content-Location")
_NOT_HERE = ("device ", "remote ", "process")
_JOB = "/fhir/R4/job/"
_RELOAD = "$reload-config"
_HOST = re.compile(r"http://127\.0\.0\.1:\d+/")


class HubStage:
    """Everybody around one hub."""

    party = "server"

    def __init__(self, transcript: Transcript, hub: Hub, http: aiohttp.ClientSession) -> None:
        self.names = Names()
        self.ear = Ear()
        self.complaint = ""
        self._transcript = transcript
        self._hub = hub
        self._http = http
        self._tasks: asyncio.TaskGroup
        self._tokens: dict[str, str] = {}
        self._sockets: dict[str, aiohttp.ClientWebSocketResponse] = {}
        self._ends: dict[str, Any] = {}  # lane → the hub's end of the socket
        self._ours: set[str] = set()  # sockets that the client has ended: their end is no news
        self._changes = iter(_changes(transcript))

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, transcript: Transcript) -> AsyncIterator[HubStage]:
        """A hub that holds the resources of the scenario, and nothing else of its kind."""
        with tempfile.TemporaryDirectory(prefix="golden-") as folder:
            async with (
                Hub.open(folder, ("127.0.0.1", 0), heartbeat_s=3600.0, operation_timeout_scale=0.2) as hub,
                aiohttp.ClientSession() as http,
                asyncio.TaskGroup() as tasks,
            ):
                stage = cls(transcript, hub, http)
                stage._tasks = tasks
                await stage._furnish()
                try:
                    yield stage
                finally:
                    for ws in stage._sockets.values():
                        await ws.close()

    async def prompt(self, line: Line) -> None:
        if line.text == HEARTBEAT_REQUEST or line.kind == "cut":  # what the hub's own clock brings about
            self._ends[line.lane].tick()

    async def play(self, line: Line) -> None:
        match line.kind:
            case "request":
                if line.by == "api" and _RELOAD in line.text:
                    await self._change(next(self._changes, {}))
                self._tasks.create_task(self._ask(line), name=line.lane)
            case "open":
                await self._connect(line)
            case "frame":
                await self._sockets[line.lane].send_str(self._actual(line))
            case "binary":
                await self._sockets[line.lane].send_bytes(self._actual(line).encode())
            case "ping":
                await self._sockets[line.lane].ping(line.text.encode())
            case "close" | "cut" | "reset" if line.lane in self._sockets:
                await self._leave(line)
            case _:
                pass

    # ---- before it begins

    async def _furnish(self) -> None:
        hub = self._hub
        await hub.delete_resource("Agent", hub.agent_id)
        for bot_id, does in self._transcript.bots.items():
            code = does if does == "ack" else f"python golden_bots:{does}"
            await hub.put_resource({"resourceType": "Bot", "id": bot_id, "name": does, "code": code})
        for client in self._clients():
            await hub.put_resource(client)
        for resource in self._transcript.resources:
            await hub.put_resource(resource)
        granted = await self._grant(hub.client_id, hub.client_secret)
        self._tokens["api"] = self._tokens["raw"] = granted["access_token"]
        for line in self._transcript.lines:
            if recorded := re.search(r'"project":\{"reference":"Project/([^"]+)"', line.text):
                self.names.learn(recorded[1], granted["project"]["reference"].removeprefix("Project/"))
                break

    def _clients(self) -> list[dict[str, Any]]:
        """The clients that the recorded server knew: whoever got a token, or was told that the secret is wrong."""
        clients = {}
        for request, response in self._transcript.replies():
            if request.text.startswith("POST /oauth2/token") and "Invalid client" not in response.text:
                form = parse_qs(request.text.partition("\n\n")[2])
                granted = json.loads(response.text.partition("\n\n")[2])
                lives_s = granted.get("expires_in", 3600)
                clients[form["client_id"][0]] = {
                    "resourceType": "ClientApplication",
                    "id": form["client_id"][0],
                    "name": granted.get("profile", {}).get("display", ""),
                    "secret": SECRET,
                    **({} if lives_s == 3600 else {"accessTokenLifetime": f"{lives_s // 60}m"}),
                }
        return list(clients.values())

    async def _change(self, changed: dict[str, dict[str, Any] | None]) -> None:
        """Somebody has changed or deleted resources before a request to reload."""
        for reference, resource in changed.items():
            if resource is None:
                await self._hub.delete_resource(*reference.split("/"))
            elif not self._holds(resource):
                await self._hub.put_resource(resource)

    def _holds(self, resource: dict[str, Any]) -> bool:
        try:
            held = self._hub.resource(resource["resourceType"], resource["id"])
        except AgentError:
            return False
        return {name: member for name, member in held.items() if name != "meta"} == resource

    async def _grant(self, client_id: str, secret: str) -> dict[str, Any]:
        form = {"grant_type": "client_credentials", "client_id": client_id, "client_secret": secret}
        async with self._http.post(self._hub.base_url + "oauth2/token", data=form) as response:
            granted: dict[str, Any] = await response.json()
            return granted

    def _actual(self, line: Line) -> str:
        """A recorded text in the words of now."""
        text = self.names.to_actual(line.text).replace("<client-secret>", SECRET)
        return text.replace(TOKEN, self._tokens.get(line.by, "no token yet"))

    # ---- HTTP

    async def _ask(self, line: Line) -> None:
        head, _, body = self._actual(line).partition("\n\n")
        (start, *fields) = head.split("\n")
        method, _, target = start.partition(" ")
        url = URL(self._hub.base_url.rstrip("/") + target, encoded=True)
        headers = dict(field.split(": ", 1) for field in fields)
        for _ in range(POLLS):
            async with self._http.request(method, url, data=body.encode() or None, headers=headers) as response:
                text = await response.text()
            if response.status != HTTPStatus.ACCEPTED or _JOB not in target:
                break
            await asyncio.sleep(POLL_S)  # whoever asks how a job is going asks until it is done
        if unquote(target) == "/oauth2/token" and response.status == HTTPStatus.OK:
            self._tokens[line.by] = json.loads(text)["access_token"]
        said = [str(response.status)]
        said += [f"{name}: {response.headers[name]}" for name in _TOLD if name in response.headers]
        self.ear.hear(Line("server", line.lane, "response", of_any_moment("\n".join(said), text)))

    # ---- sockets

    async def _connect(self, line: Line) -> None:
        before = set(self._hub._sockets)
        url = self._hub.base_url.replace("http", "ws", 1).rstrip("/") + line.text.removeprefix("GET ")
        try:
            ws = await self._http.ws_connect(url, autoping=False, compress=0, max_msg_size=0)
        except aiohttp.WSServerHandshakeError as refused:
            self.ear.hear(Line("server", line.lane, "opened", str(refused.status)))
            return
        self._sockets[line.lane] = ws
        (self._ends[line.lane],) = set(self._hub._sockets) - before
        self.ear.hear(Line("server", line.lane, "opened", "101"))
        self._tasks.create_task(self._listen(line.lane, ws), name=line.lane)

    async def _listen(self, lane: str, ws: aiohttp.ClientWebSocketResponse) -> None:
        while True:
            message = await ws.receive()
            match message.type:
                case aiohttp.WSMsgType.TEXT:
                    self.ear.hear(Line("server", lane, "frame", message.data))
                case aiohttp.WSMsgType.PONG:
                    self.ear.hear(Line("server", lane, "pong", bytes(message.data).decode()))
                case aiohttp.WSMsgType.CLOSE:
                    self.ear.hear(Line("server", lane, "close", str(message.data)))
                    return
                case _:
                    if lane not in self._ours:
                        self.ear.hear(Line("server", lane, "cut"))
                    return

    async def _leave(self, line: Line) -> None:
        """The client goes, with a close frame or without; the hub has noticed when this returns."""
        self._ours.add(line.lane)
        ws, end = self._sockets[line.lane], self._ends[line.lane]
        if line.kind == "close":
            await ws._writer.close(int(line.text))  # the answer to it is heard like every other frame
        else:
            connection = ws._response.connection
            assert connection is not None
            assert connection.transport is not None
            connection.transport.abort()
        async with asyncio.timeout(WITHIN_S):
            while end in self._hub._sockets:
                await asyncio.sleep(0.005)


def lines_for_hub(transcript: Transcript) -> list[Line]:
    """What a hub takes part in: no devices, no remotes, nothing behind the scenes, and answers in words of any moment.

    A request that the recording ends with is left out: how it was answered is not in it.
    """
    unanswered = {id(line) for line in transcript.lines if line.kind == "request"}
    unanswered -= {id(request) for request, _ in transcript.replies()}
    lines = []
    for line in transcript.lines:
        if line.by in ("note", "host") or line.lane.startswith(_NOT_HERE) or id(line) in unanswered:
            continue
        if line.kind == "response":
            head, _, body = line.text.partition("\n\n")
            line = line.saying(of_any_moment(head, body))
        lines.append(line)
    return lines


def _changes(transcript: Transcript) -> list[dict[str, dict[str, Any] | None]]:
    """By reference, what the agents read after each request to reload; None: it is gone."""
    changes: list[dict[str, dict[str, Any] | None]] = [{}]
    reads: dict[str, str] = {}  # lane → what is being read on it
    for line in transcript.lines:
        if line.by == "api" and _RELOAD in line.text:
            changes.append({})
        elif line.by == "agent" and line.kind == "request":
            reads[line.lane] = line.text.partition("\n")[0].partition("/fhir/R4/")[2]
        elif line.kind == "response" and (reference := reads.get(line.lane)):
            head, _, body = line.text.partition("\n\n")
            found = {name: member for name, member in json.loads(body).items() if name != "meta"}
            changes[-1][reference] = found if head.startswith("200") else None
    return changes[1:]


def of_any_moment(head: str, body: str) -> str:
    """An answer in which what belongs to one moment is named instead of shown; its JSON is sorted by member."""

    def scrubbed(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: _OF_THE_MOMENT.get(name) or scrubbed(member) for name, member in value.items()}
        return [scrubbed(member) for member in value] if isinstance(value, list) else value

    try:
        body = json.dumps(scrubbed(json.loads(body)), sort_keys=True, ensure_ascii=False)
    except ValueError:
        return f"{head}\n\n{body}"  # a remote's own answer, as it is
    return _HOST.sub("http://hub/", f"{head}\n\n{body}")
