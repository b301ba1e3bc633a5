"""The agent under test: a real daemon between a server, devices and remotes that say what the recorded ones said.

Secret: how the recorded server's half is served over HTTP and WebSocket, the devices' over MLLP, and how both
are disturbed.
Promise: whatever the daemon sends is heard, in the recording's names for connections; when `open` is left, no process
is left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from aiohttp import WSCloseCode, WSMsgType, web
from free_ports import free_port
from golden_agent_lines import HEARTBEATS, RELOAD, states, waits
from golden_daemon import DaemonProcess
from golden_names import Names
from golden_remotes import Remotes, listeners
from golden_replay import WITHIN_S, Ear
from golden_transcript import HEARTBEAT_REQUEST, HEARTBEAT_RESPONSE, Line, Transcript, frame_of

TOKEN = "<access-token>"
LOGS_REQUEST = "agent:logs:request"
LOG_LINES = 20  # if the server does not say how many


class AgentStage:
    """Everybody around one daemon. `lines`: what the server is going to answer stands in them."""

    party = "agent"

    def __init__(self, transcript: Transcript, lines: list[Line], folder: Path) -> None:
        self.names = Names()
        self.ear = Ear()
        self._transcript = transcript
        self._lines = lines
        self._waits = waits(lines)
        self._daemon = DaemonProcess(folder, clock=bool(self._waits))
        self._site: web.TCPSite | None = None
        self._mute: set[str] = set()  # connections on which nothing of the server arrives; "server": all further ones
        self._states = states(lines)
        self._state: dict[str, str] = self._states.pop(0)
        self._read: set[str] = set()  # of the configuration, since the start or the last request to reload
        self.read_again: list[str] = []
        self.transmitted_s: list[float] = []  # when each message went to the server, since the first device sent one
        self.pages: list[tuple[int, list[str]]] = []  # of the log: as many lines as were asked for, and their times
        self._lines_asked = 0
        self._first_sent_at: float | None = None
        self._tokens = 0
        self._lanes = iter([line.lane for line in lines if line.by == "agent" and line.kind == "open"])
        self._sockets: dict[str, web.WebSocketResponse] = {}
        self._transports: dict[str, asyncio.Transport] = {}
        self._devices: dict[str, tuple[asyncio.StreamWriter, str]] = {}
        self._ours: set[str] = set()  # connections that this side has ended: their end is no news
        self._codecs: dict[str, str] = {}
        self._ends: dict[str, bytes] = {}  # of byte streams, by recorded port
        self._closed_early: list[Line] = []
        self._settling, self._settled = False, asyncio.Event()
        self._remotes = Remotes(lines, self.ear, self.names)
        self._runner: web.AppRunner
        self._port: int
        self._tasks: asyncio.TaskGroup

    @property
    def complaint(self) -> str:
        """What was wrong with the daemon's end, and what had ended before it."""
        early = [f"before the daemon was stopped: {line}" for line in self._closed_early]
        return "\n".join([*early, self._daemon.complaint]).strip()

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, transcript: Transcript, lines: list[Line]) -> AsyncIterator[AgentStage]:
        """A daemon that has just been started, and everybody whom it will meet."""
        # a folder with a short path, for there will be a socket in it
        with tempfile.TemporaryDirectory(prefix="golden-") as folder:
            stage = cls(transcript, lines, Path(folder))
            stage._take_ports()
            async with (
                asyncio.TaskGroup() as stage._tasks,
                stage._remotes.open(listeners(transcript.lines)),
                stage._serving() as base_url,
            ):
                if lines[0].kind == "down":
                    await stage.play(lines[0])
                await stage._daemon.start(base_url, *stage._credentials(), stage._agent_id())
                try:
                    await stage._daemon.started()
                    yield stage
                finally:
                    await stage._daemon.end()
                    stage._hang_up()

    async def prompt(self, line: Line) -> None:
        """The daemon speaks for itself, but its clock may have to be moved on."""
        if seconds := self._waiting_s(line):
            self._daemon.skip(seconds)

    async def play(self, line: Line) -> None:
        match line.by, line.kind:
            case "server", "frame" | "close" if line.lane in self._mute:
                pass
            case "server", "frame":
                if RELOAD in line.text:
                    self._state |= self._states.pop(0)
                    self._read.clear()
                elif (asked := frame_of(line)).get("type") == LOGS_REQUEST:
                    self._lines_asked = asked.get("limit", LOG_LINES)
                elif asked.get("type") == "agent:transmit:request" and self._is_off():
                    await self._daemon.logs("daemon.off")  # it was read; it is in force in a moment
                await self._sockets[line.lane].send_str(self.names.to_actual(line.text).replace(TOKEN, self._token))
            case "server", "close":
                await self._sockets[line.lane].close(code=int(line.text))
            case "fault", "mute":
                self._mute.add(line.lane)
            case "fault", "down" if self._site is not None:
                await self._site.stop()
                self._site = None
            case "fault", "up":
                await self._daemon.logs("login.failed", "uplink.failed")  # else it was away for nobody
                self._mute.discard("server")
                if self._site is None:
                    await self._listen_again()
            case "fault", "reset":
                self._ours.add(line.lane)
                self._transports[line.lane].abort()
            case "device", "open":
                await self._connect(line)
            case "device", "frame":
                codec = self._devices[line.lane][1]
                self._first_sent_at = self._first_sent_at or time.monotonic()
                await self._send(line.lane, b"\x0b%b\x1c\r" % line.text.encode(codec))
            case "device", "bytes":
                await self._send(line.lane, line.text.encode())
            case "device", "close":
                self._ours.add(line.lane)
                self._devices[line.lane][0].close()
            case "remote", _:
                self._remotes.play(line)
            case "host", "stop":
                if self._remotes.connected:
                    await self._settle()
                self._closed_early = [said for said in self.ear.rest() if said.lane.startswith("remote ")]
                await self._daemon.stop(self._waiting_s(line))
            case _:
                pass  # HTTP answers are given when they are asked for; other parties are not on this stage

    # ---- the daemon

    def _waiting_s(self, line: Line) -> float:
        return next((seconds for waiting, seconds in self._waits if waiting is line), 0.0)

    async def _settle(self) -> None:
        """Until the daemon has answered a heartbeat: what it did before that is heard by then."""
        self._settled.clear()
        self._settling = True
        for ws in self._sockets.values():
            if not ws.closed:
                await ws.send_str(HEARTBEAT_REQUEST)
                async with asyncio.timeout(WITHIN_S):
                    await self._settled.wait()
        self._settling = False

    def _is_off(self) -> bool:
        reads = [text for target, text in self._state.items() if target.startswith("GET /fhir/R4/Agent/")]
        return any('"resourceType":"Agent"' in text and '"status":"off"' in text for text in reads)

    def _hang_up(self) -> None:
        for writer, _ in self._devices.values():
            writer.transport.abort()
        for ws in self._transports.values():
            ws.abort()

    def _credentials(self) -> tuple[str, str]:
        """Client id and secret, as the recorded agent had them."""
        for line in self._lines:
            if line.kind == "request" and line.text.startswith("POST /oauth2/token"):
                form = parse_qs(line.text.partition("\n\n")[2])
                return form["client_id"][0], form["client_secret"][0]
        raise AssertionError("no login in this transcript")

    def _agent_id(self) -> str:
        for line in self._lines:
            if frame_of(line).get("type") == "agent:connect:request":
                return str(frame_of(line)["agentId"])
        if agents := self._transcript.resource("Agent"):
            return str(agents[0]["id"])  # it never came so far as to say its name
        raise AssertionError("no agent in this transcript")

    # ---- the server

    @contextlib.asynccontextmanager
    async def _serving(self) -> AsyncIterator[str]:
        application = web.Application()
        application.router.add_get("/ws/agent", self._socket)
        application.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            self._runner, self._port = runner, 0
            await self._listen_again()
            self._port = runner.addresses[0][1]
            yield f"http://127.0.0.1:{self._port}/"
        finally:
            await runner.cleanup()

    async def _listen_again(self) -> None:
        self._site = web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True)
        await self._site.start()

    @property
    def _token(self) -> str:
        return f"token-{self._tokens}"

    async def _answer(self, request: web.Request) -> web.Response:
        target = f"{request.method} {request.path_qs}"
        told = ("Authorization", "Content-Type")
        headers = [f"{name}: {request.headers[name]}" for name in told if name in request.headers]
        body = (await request.read()).decode()
        if body:
            body = "&".join(f"{name}={values[0]}" for name, values in parse_qs(body).items())
        said = "\n".join([target, *headers]) + (f"\n\n{body}" if body else "")
        if target in self._read:
            self.read_again.append(target)  # needless, but it changes nothing: a test of its own judges it
        else:
            self.ear.hear(Line("agent", "http", "request", said.replace(self._token, TOKEN)))
        if "/fhir/R4/" in target:
            self._read.add(target)
        reply = self._state.get(target, "404")
        head, _, text = reply.partition("\n\n")
        status, *fields = head.split("\n")
        if target == "POST /oauth2/token" and status == "200":
            self._tokens += 1
        text = self.names.to_actual(text).replace(TOKEN, self._token)
        return web.Response(text=text, status=int(status), headers=dict(field.split(": ", 1) for field in fields))

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        lane = next(self._lanes, "ws beyond the recording")
        self.ear.hear(Line("agent", lane, "open", f"GET {request.path_qs}"))
        if "server" in self._mute:
            while request.transport is not None:
                await asyncio.sleep(0.01)  # until the daemon gives up
            self.ear.hear(Line("agent", lane, "cut"))
            return web.Response()
        ws = web.WebSocketResponse(max_msg_size=1_048_577, compress=False, timeout=1.0)
        await ws.prepare(request)
        assert isinstance(request.transport, asyncio.Transport)
        self._sockets[lane], self._transports[lane] = ws, request.transport
        introduced = False
        async for message in ws:
            text = message.data.replace(self._token, TOKEN) if message.type is WSMsgType.TEXT else repr(message.data)
            if text == HEARTBEAT_REQUEST and self._transcript.scenario not in HEARTBEATS:
                await ws.send_str('{"type":"agent:heartbeat:response","version":"5.0.10-6a4145c"}')
                continue  # by the agent's own clock, and not the subject
            if self._settling and text.startswith(HEARTBEAT_RESPONSE):
                self._settled.set()
                continue
            if not introduced and "agent:connect:request" not in text:
                self.ear.hear(Line("agent", lane, "frame", f"before it introduced itself: {text}"))
            introduced = True
            if '"agent:logs:response"' in text:
                self.pages.append((self._lines_asked, [line["timestamp"] for line in json.loads(text)["logs"]]))
            if "agent:transmit:request" in text and self._first_sent_at is not None:
                self.transmitted_s.append(time.monotonic() - self._first_sent_at)
            self.ear.hear(Line("agent", lane, "frame", text))
        if lane not in self._ours:
            gone = ws.close_code in (None, WSCloseCode.ABNORMAL_CLOSURE)
            self.ear.hear(Line("agent", lane, "cut") if gone else Line("agent", lane, "close", str(ws.close_code)))
        return ws

    # ---- devices

    def _take_ports(self) -> None:
        """Every port that the recorded Endpoints name becomes a free one on loopback."""
        texts = [line.text for line in self._transcript.lines if line.kind == "response"]
        for text in texts:
            for address in [piece.partition('"')[0] for piece in text.split('"address":"')[1:]]:
                parts = urlsplit(address)
                if parts.port is None:
                    continue
                recorded = f"{parts.hostname}:{parts.port}"
                if recorded == self.names.to_actual(recorded):
                    port = free_port()
                    self.names.learn(recorded, f"127.0.0.1:{port}")
                    self.names.learn(f" port {parts.port} ", f" port {port} ")
                query = parse_qs(parts.query)
                self._codecs[str(parts.port)] = query.get("encoding", ["utf-8"])[0]
                if parts.scheme == "tcp" and "endChar" in query:
                    self._ends[str(parts.port)] = query["endChar"][0].encode()

    async def _connect(self, line: Line) -> None:
        port = int(self.names.to_actual(f"0.0.0.0:{line.text}").rpartition(":")[2])
        async with asyncio.timeout(WITHIN_S):
            while True:
                try:
                    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=4 << 20)
                    break
                except ConnectionRefusedError:
                    await asyncio.sleep(0.01)  # the configuration was read; it is in force in a moment
        port = writer.get_extra_info("sockname")[1]
        self.names.learn(f"127.0.0.1:{line.lane.split()[1]}", f"127.0.0.1:{port}")
        self._devices[line.lane] = writer, self._codecs[line.text]
        if (end := self._ends.get(line.text)) is not None:
            self._tasks.create_task(self._listen_to_bytes(line.lane, reader, end), name=line.lane)
        else:
            self._tasks.create_task(self._listen(line.lane, reader), name=line.lane)

    async def _send(self, lane: str, data: bytes) -> None:
        writer, _ = self._devices[lane]
        writer.write(data)
        await writer.drain()

    async def _listen(self, lane: str, reader: asyncio.StreamReader) -> None:
        codec = self._devices[lane][1]
        try:
            while data := await reader.readuntil(b"\x1c\r"):
                kind = "frame" if data[:1] == b"\x0b" else "bytes"
                self.ear.hear(Line("agent", lane, kind, data.removeprefix(b"\x0b")[:-2].decode(codec)))
        except (asyncio.IncompleteReadError, ConnectionError):
            if lane not in self._ours:
                self.ear.hear(Line("agent", lane, "close"))

    async def _listen_to_bytes(self, lane: str, reader: asyncio.StreamReader, end: bytes) -> None:
        try:
            while data := await reader.readuntil(end):
                self.ear.hear(Line("agent", lane, "bytes", data.decode("latin-1")))
        except (asyncio.IncompleteReadError, ConnectionError):
            if lane not in self._ours:
                self.ear.hear(Line("agent", lane, "close"))
