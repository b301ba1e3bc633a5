"""The HL7 listeners that messages are pushed to, which answer as the recorded ones did.

Secret: which of the connections that the agent opens is which one of the recording. Those that are opened together
arrive in any order, so a connection is known by its first message; those that owe no answer are alike, so a later
message is on the one that it was recorded on.
Promise: whatever the agent sends is heard, as `early` if it should have waited for an answer; nothing is said but what
the recording has, and nobody listens where nobody did then.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from functools import partial

from golden_names import Names
from golden_replay import Ear
from golden_transcript import Line, frame_of

_URL = re.compile(r"mllp://127\.0\.0\.1:(?P<port>\d+)(?:\?encoding=(?P<encoding>[\w-]+))?")
_END = b"\x1c\r"


@dataclass(frozen=True, slots=True)
class _Expected:
    """A message, and how many answers there were on its connection before it."""

    text: str
    answers: int


@dataclass(eq=False, slots=True)
class _Connection:
    """One that the agent has opened. `lane`: its name in the recording, once that is known."""

    port: str
    writer: asyncio.StreamWriter
    lane: str = ""
    unanswered: int = 0


class Remotes:
    """Everybody whom this conversation pushes to. `lines`: what is going to be pushed, on which connections."""

    def __init__(self, lines: Iterable[Line], ear: Ear, names: Names) -> None:
        self._ear = ear
        self._names = names
        self._codecs: dict[str, str] = {}  # by recorded port
        self._to_come: dict[str, list[_Expected]] = {}  # lane → messages
        self._answers: Counter[str] = Counter()  # lane → how many were given
        self._connections: list[_Connection] = []
        self._by_lane: dict[str, _Connection] = {}  # those that have ended, too
        self._ours: set[str] = set()  # connections that a remote has ended: their end is no news
        self._tasks: asyncio.TaskGroup
        answers: Counter[str] = Counter()
        for line in lines:
            if line.by == "server" and (found := _URL.fullmatch(str(frame_of(line).get("remote")))):
                self._codecs[found["port"]] = found["encoding"] or "utf-8"
            elif line.by == "remote":
                answers[line.lane] += line.kind == "frame"
            elif line.lane.startswith("remote "):
                messages = self._to_come.setdefault(line.lane, [])
                messages += [_Expected(line.text, answers[line.lane])] if line.kind == "frame" else []

    @contextlib.asynccontextmanager
    async def open(self, listening: set[str]) -> AsyncIterator[None]:
        """They are there; those on the recorded ports `listening` take connections."""
        async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as self._tasks:
            for port in self._codecs:
                sock = stack.enter_context(socket.socket())
                sock.bind(("127.0.0.1", 0))  # until somebody listens there, connections are refused
                self._names.learn(f"127.0.0.1:{port}", f"127.0.0.1:{sock.getsockname()[1]}")
                if port in listening:
                    server = await asyncio.start_server(partial(self._accept, port), sock=sock, limit=4 << 20)
                    stack.callback(server.close)
            try:
                yield
            finally:
                for connection in self._connections:
                    connection.writer.transport.abort()

    @property
    def connected(self) -> bool:
        """Whether the agent has had a connection."""
        return bool(self._connections)

    def play(self, line: Line) -> None:
        """A remote answers, or closes its connection."""
        connection = self._by_lane[line.lane]
        if line.kind == "frame":
            connection.writer.write(b"\x0b%b%b" % (line.text.encode(self._codecs[connection.port]), _END))
            connection.unanswered -= 1
            self._answers[line.lane] += 1
        elif line.kind == "close":
            self._ours.add(line.lane)
            connection.writer.close()

    def _accept(self, port: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(port, writer)
        self._connections.append(connection)
        self._tasks.create_task(self._listen(connection, reader), name=f"remote {port}")

    async def _listen(self, connection: _Connection, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await _frame(reader):
                framed = data.startswith(b"\x0b") and data.endswith(_END)
                said = (data[1:-2] if framed else data).decode(self._codecs[connection.port], "backslashreplace")
                self._find(connection, said)
                kind = self._kind(connection.lane, said) if framed else "bytes"
                connection.unanswered += 1
                self._ear.hear(Line("agent", connection.lane, kind, said))
        self._find(connection, "")
        if connection.lane not in self._ours:
            self._ear.hear(Line("agent", connection.lane, "close"))
        connection.writer.close()

    def _find(self, connection: _Connection, said: str) -> None:
        """Learn which connection of the recording this is, now that this has come on it; empty: its end."""
        if not connection.lane:
            free = [lane for lane in self._to_come if _port(lane) == connection.port and lane not in self._by_lane]
            meant = [lane for lane in free if self._is_next(lane, said)]
            self._known_as(connection, (*meant, *free, f"remote {connection.port}-beyond")[0])
            self._ear.hear(Line("agent", connection.lane, "open"))
        elif said and not connection.unanswered and not self._is_next(connection.lane, said):
            alike = [other for other in self._by_lane.values() if not other.unanswered]
            meant_one = next((other for other in alike if self._is_next(other.lane, said)), connection)
            ours, theirs = connection.lane, meant_one.lane
            self._known_as(meant_one, ours)
            self._known_as(connection, theirs)

    def _kind(self, lane: str, said: str) -> str:
        """`frame`, or `early` for one that was sent before its turn. It has come now."""
        if not self._is_next(lane, said):
            return "frame"
        return "early" if self._to_come[lane].pop(0).answers > self._answers[lane] else "frame"

    def _is_next(self, lane: str, said: str) -> bool:
        return bool(messages := self._to_come.get(lane)) and messages[0].text == said

    def _known_as(self, connection: _Connection, lane: str) -> None:
        connection.lane = lane
        self._by_lane[lane] = connection


async def _frame(reader: asyncio.StreamReader) -> bytes:
    """What came up to the end of a frame, or up to the end of the connection."""
    try:
        return await reader.readuntil(_END)
    except asyncio.IncompleteReadError as end:
        return end.partial


def listeners(lines: Iterable[Line]) -> set[str]:
    """The ports on which somebody took connections in this recording."""
    return {_port(line.lane) for line in lines if line.lane.startswith("remote ")}


def _port(lane: str) -> str:
    return lane.removeprefix("remote ").partition("-")[0]
