"""The agent under test: a real daemon between a server and devices that say what the recorded ones said.

Secret: how the recorded server's half is served over HTTP and WebSocket, the devices' over MLLP, and how the daemon
is run.
Promise: whatever the daemon sends is heard, in the recording's names for connections; when `open` is left, no process
is left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import re
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from aiohttp import WSCloseCode, WSMsgType, web
from golden_names import Names
from golden_replay import WITHIN_S, Ear
from golden_transcript import HEARTBEAT_REQUEST, HEARTBEAT_RESPONSE, Line, Transcript

import agent

REPOSITORY = Path(agent.__file__).parent.parent
TOKEN = "<access-token>"
_RELOAD = "agent:reloadconfig:request"
_SHORT_LIVED = ('"expires_in":360,', '"expires_in":6,')  # six seconds, so that nobody waits for six minutes
# Below the range that the system takes outgoing ports from.
_PORTS = itertools.count(random.Random().randrange(12_000, 28_000))


class AgentStage:
    """Everybody around one daemon. `lines`: what the server is going to answer stands in them."""

    party = "agent"

    def __init__(self, transcript: Transcript, lines: list[Line], folder: Path) -> None:
        self.names = Names()
        self.ear = Ear()
        self._transcript = transcript
        self._lines = lines
        self._folder = folder
        self._states = _states(lines)
        self._state: dict[str, str] = self._states.pop(0)
        self._read: set[str] = set()  # of the configuration, since the start or the last request to reload
        self.read_again: list[str] = []
        self._tokens = 0
        self._lanes = iter([line.lane for line in lines if line.by == "agent" and line.kind == "open"])
        self._sockets: dict[str, web.WebSocketResponse] = {}
        self._transports: dict[str, asyncio.Transport] = {}
        self._devices: dict[str, tuple[asyncio.StreamWriter, str]] = {}
        self._ours: set[str] = set()  # connections that this side has ended: their end is no news
        self._codecs: dict[str, str] = {}
        self._tasks: asyncio.TaskGroup
        self._process: asyncio.subprocess.Process
        self.complaint = ""

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, transcript: Transcript, lines: list[Line]) -> AsyncIterator[AgentStage]:
        """A daemon that has just been started, and everybody whom it will meet."""
        # a folder with a short path, for there will be a socket in it
        with tempfile.TemporaryDirectory(prefix="golden-") as folder:
            stage = cls(transcript, lines, Path(folder))
            stage._take_ports()
            async with asyncio.TaskGroup() as stage._tasks, stage._serving() as base_url:
                await stage._start(base_url)
                try:
                    yield stage
                finally:
                    await stage._end()

    async def prompt(self, line: Line) -> None:
        """The daemon speaks for itself."""

    async def play(self, line: Line) -> None:
        match line.by, line.kind:
            case "server", "frame":
                if _RELOAD in line.text:
                    self._state |= self._states.pop(0)
                    self._read.clear()
                await self._sockets[line.lane].send_str(self.names.to_actual(line.text).replace(TOKEN, self._token))
            case "server", "close":
                await self._sockets[line.lane].close(code=int(line.text))
            case "fault", "reset":
                self._ours.add(line.lane)
                self._transports[line.lane].abort()
            case "device", "open":
                await self._connect(line)
            case "device", "frame":
                codec = self._devices[line.lane][1]
                await self._send(line.lane, b"\x0b%b\x1c\r" % line.text.encode(codec))
            case "device", "bytes":
                await self._send(line.lane, line.text.encode())
            case "device", "close":
                self._ours.add(line.lane)
                self._devices[line.lane][0].close()
            case "host", "stop":
                await self._stop()
            case _:
                pass  # HTTP answers are given when they are asked for; other parties are not on this stage

    # ---- the daemon

    async def _start(self, base_url: str) -> None:
        credentials = self._credentials()
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "PYTHONPATH": str(REPOSITORY),
            "HOME": str(self._folder),
            "AGENT_BASE_URL": base_url,
            "AGENT_CLIENT_ID": credentials["client_id"],
            "AGENT_CLIENT_SECRET": credentials["client_secret"],
            "AGENT_ID": self._agent_id(),
            "AGENT_DIAGNOSTICS_LISTEN": "off",
        }
        with (self._folder / "stderr.txt").open("wb") as stderr:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "agent", "run", "--data-dir", str(self._folder / "data")),
                cwd=self._folder,
                env=environment,
                stderr=stderr,
            )

    async def _stop(self) -> None:
        if self._process.returncode is not None:
            self.complaint = f"the daemon has ended by itself: {self._process.returncode}; {self._stderr()}"
            return
        self._process.terminate()
        async with asyncio.timeout(WITHIN_S):
            status = await self._process.wait()
        if status != 0 or "Traceback" in self._stderr():
            self.complaint = f"the daemon ended with {status}; {self._stderr()}"

    async def _end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        for writer, _ in self._devices.values():
            writer.transport.abort()
        for ws in self._transports.values():
            ws.abort()

    def _stderr(self) -> str:
        return (self._folder / "stderr.txt").read_text()

    def _credentials(self) -> dict[str, str]:
        """Client id and secret, as the recorded agent had them."""
        for line in self._lines:
            if line.kind == "request" and line.text.startswith("POST /oauth2/token"):
                form = parse_qs(line.text.partition("\n\n")[2])
                return {name: values[0] for name, values in form.items()}
        raise AssertionError("no login in this transcript")

    def _agent_id(self) -> str:
        agents = self._transcript.resource("Agent")
        if agents:
            return str(agents[0]["id"])
        read = next(line for line in self._transcript.lines if line.text.startswith("GET /fhir/R4/Agent/"))
        return read.text.split("\n")[0].rpartition("/")[2]

    # ---- the server

    @contextlib.asynccontextmanager
    async def _serving(self) -> AsyncIterator[str]:
        application = web.Application()
        application.router.add_get("/ws/agent", self._socket)
        application.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            host, port = runner.addresses[0][:2]
            yield f"http://{host}:{port}/"
        finally:
            await runner.cleanup()

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
            text = text.replace(*_SHORT_LIVED)
        text = self.names.to_actual(text).replace(TOKEN, self._token)
        return web.Response(text=text, status=int(status), headers=dict(field.split(": ", 1) for field in fields))

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        lane = next(self._lanes, "ws beyond the recording")
        self.ear.hear(Line("agent", lane, "open", f"GET {request.path_qs}"))
        ws = web.WebSocketResponse(max_msg_size=1_048_577, compress=False, timeout=1.0)
        await ws.prepare(request)
        assert isinstance(request.transport, asyncio.Transport)
        self._sockets[lane], self._transports[lane] = ws, request.transport
        introduced = False
        async for message in ws:
            text = message.data.replace(self._token, TOKEN) if message.type is WSMsgType.TEXT else repr(message.data)
            if text == HEARTBEAT_REQUEST and "heartbeat" not in self._transcript.scenario:
                await ws.send_str('{"type":"agent:heartbeat:response","version":"5.0.10-6a4145c"}')
                continue  # by the agent's own clock, and not the subject
            if not introduced and "agent:connect:request" not in text:
                self.ear.hear(Line("agent", lane, "frame", f"before it introduced itself: {text}"))
            introduced = True
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
                recorded = f"{parts.hostname}:{parts.port}"
                if recorded == self.names.to_actual(recorded):
                    self.names.learn(recorded, f"127.0.0.1:{_free_port()}")
                self._codecs[str(parts.port)] = parse_qs(parts.query).get("encoding", ["utf-8"])[0]

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


def lines_for_agent(transcript: Transcript, link: str = "agent") -> list[Line]:
    """What one agent takes part in, with the headers that matter to every server.

    Its own heartbeats stand wherever its clock put them: they are left out where they are not the subject, and from the
    second one on where they are.
    """
    theirs = re.compile({"agent": r"(http|ws) agent-\d+", "agent-2": r"(http|ws) agent-2-\d+"}[link])
    lines = []
    subject = 1 if transcript.scenario == "heartbeat" else 0
    heartbeats = 0
    for line in transcript.lines:
        if line.lane.startswith(("http ", "ws ")) and not theirs.fullmatch(line.lane):
            continue
        request = line.by == "agent" and line.text == HEARTBEAT_REQUEST
        response = line.by == "server" and line.text.startswith(HEARTBEAT_RESPONSE)
        heartbeats += request
        if heartbeats > subject and (request or response):
            continue
        if line.by != "note":
            lines.append(line.saying(line.text.replace("\nX-Medplum: extended", "")))
    return lines


def _states(lines: list[Line]) -> list[dict[str, str]]:
    """What the server answers to each request: from the start on, and from each further request to reload on."""
    asked: dict[str, str] = {}
    states: list[dict[str, str]] = [{}]
    for line in lines:
        if line.by == "server" and _RELOAD in line.text:
            states.append({})
        elif line.kind == "request":
            asked[line.lane] = line.text.partition("\n")[0]
        elif line.kind == "response":
            states[-1].setdefault(asked[line.lane], line.text)
    return states


def _free_port() -> int:
    for port in _PORTS:
        with socket.socket() as candidate:
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                candidate.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no port is free")
