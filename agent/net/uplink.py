"""Keep one live socket to the server.

Secret: how the session table meets a WebSocket: who is told what, when to dial again, how slowly after a refusal.
Promise: `run` goes on for ever and raises for bugs only; frames of one socket read arrive in one call; nothing is sent
on a socket that is not live.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from ssl import SSLContext
from typing import assert_never
from urllib.parse import urlsplit, urlunsplit

import structlog

from agent.backoff import Backoff, pause
from agent.errors import AgentError, ConfigError, LinkError
from agent.net.proxy import dial as dial_directly
from agent.net.tls import client_context
from agent.net.websocket import NO_CLOSE_FRAME, Dial, Ended, WebSocket, open_websocket
from agent.protocol.envelope import (
    AgentErrorFrame,
    BadFrame,
    ConnectRequest,
    ConnectResponse,
    Frame,
    FromServer,
    HeartbeatRequest,
    HeartbeatResponse,
    TransmitResponse,
    decode_from_server,
    encode,
    sayable,
)
from agent.protocol.session import Effect, Event, Role, Session, State

OPEN_WITHIN_S = 10.0  # TCP, TLS and upgrade; and once more for the answer to the connect request
GOING_AWAY = 1001  # RFC 6455 §7.4.1
SHOWN_CHARACTERS = 200
TOKEN_REFUSED = "Invalid access token"

_REMEDIES = {
    "Not found": "check agentId: the server has no such agent in the project of this client",
    "Forbidden": "check clientId: its access policy must let it read this agent",
    TOKEN_REFUSED: "check baseUrl and clientId: the token is not valid on this server",
}

log = structlog.get_logger("main")


@dataclass(frozen=True, slots=True)
class LostLink:
    """How a socket to the server ended, or why it never came to be.

    `code`: what the server closed with (1009: a frame above its limit); 1006 if it closed with nothing.
    `was_live`: messages may have been on their way.
    """

    code: int
    reason: str
    was_live: bool


def socket_url(base_url: str) -> str:
    """Where a server's socket is: http becomes ws, `/ws/agent` follows the path. A ws URL is taken as it stands."""
    parts = urlsplit(base_url)
    if parts.scheme in ("ws", "wss"):
        return base_url
    scheme = "wss" if parts.scheme == "https" else "ws"
    return urlunsplit((scheme, parts.netloc, parts.path.rstrip("/") + "/ws/agent", "", ""))


class Uplink:
    """The socket to the server, dialled again for ever. Everything here belongs to the event loop's thread.

    `token` gives a living token (raises AgentError); `on_token_refused` hears that the server did not take it and
    answers what may be the cause. `on_live` and `on_lost` alternate only loosely: attempts that fail are lost too, with
    `was_live` False. `on_writable` follows a time in which `writable` was False.
    """

    def __init__(
        self,
        url: str,
        *,
        agent_id: str,
        version: str,
        token: Callable[[], Awaitable[str]],
        on_live: Callable[[], None],
        on_lost: Callable[[LostLink], None],
        on_frames: Callable[[list[FromServer]], None],
        on_writable: Callable[[], None] = lambda: None,
        on_token_refused: Callable[[], str] = lambda: "",
        dial: Dial = dial_directly,
        ssl: SSLContext | None = None,
        heartbeat_s: float = 10.0,
        open_within_s: float = OPEN_WITHIN_S,
        backoff: Backoff | None = None,
        refused_backoff: Backoff | None = None,
        wait: Callable[[asyncio.Event, float], Awaitable[None]] = pause,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.url = socket_url(url)
        self._agent_id = agent_id
        self._version = version
        self._token = token
        self._on_live = on_live
        self._on_lost = on_lost
        self._on_frames = on_frames
        self._on_writable = on_writable
        self._on_token_refused = on_token_refused
        self._dial = dial
        self._ssl = client_context() if ssl is None and self.url.startswith("wss:") else ssl
        self._heartbeat_s = heartbeat_s
        self._open_within_s = open_within_s
        self._backoff = backoff or Backoff(1.0, 10.0)
        self._refused_backoff = refused_backoff or Backoff(40.0, 60.0)  # 30 to 60 s after the jitter
        self._wait = wait
        self._clock = clock
        self._wall_clock = wall_clock

        self.ping_ms = -1.0
        self.last_heartbeat: float | None = None
        self.reconnects = 0
        self.last_error = ""
        self._session = Session(Role.AGENT)
        self._socket: WebSocket | None = None
        self._socket_token = ""
        self._heartbeats_sent: list[float] = []
        self._batch: list[FromServer] = []
        self._ended = Ended(NO_CLOSE_FRAME, "")
        self._lost: LostLink | None = None
        self._leaving = ""  # why we end this socket ourselves
        self._refused = False
        self._token_refusals = 0
        self._ever_live = False
        self._was_live = False
        self._told = ""  # the trouble that was logged last
        self._told_unreadable = ""
        self._wake = asyncio.Event()

    @property
    def live(self) -> bool:
        """Whether messages may be sent."""
        return self._session.state is State.LIVE and self._socket is not None and not self._socket.closed.is_set()

    @property
    def writable(self) -> bool:
        """Whether the network keeps up: False while more than 4 MiB wait to be sent, or when not live."""
        return self.live and self._socket is not None and self._socket.writable

    @property
    def queued_bytes(self) -> int:
        """Bytes sent by us that the network has not taken yet."""
        return 0 if self._socket is None else self._socket.queued_bytes

    @property
    def outstanding_heartbeats(self) -> int:
        """Heartbeats sent on this socket and not answered."""
        return self._session.outstanding

    def send(self, frames: list[bytes]) -> None:
        """Send encoded frames, all in one write. Raises LinkError when not live."""
        if not self.live or self._socket is None:
            raise LinkError("the socket to the server is not live")
        self._socket.send(frames)

    def reconnect_soon(self) -> None:
        """Dial now instead of when the wait is over. A socket that is open is closed first."""
        self._backoff.reset()
        self._refused_backoff.reset()
        self._wake.set()
        if self._session.state in (State.INTRODUCED, State.LIVE):
            self._leave("asked to reconnect")

    async def run(self) -> None:
        """Be connected, for ever. Raises only what is a bug."""
        while True:
            self._wake.clear()
            wait_s = await self._attempt()
            if self._lost is not None and self._lost.was_live:
                log.warning("uplink.lost", code=self._lost.code, reason=self._lost.reason, retry_in_s=round(wait_s, 1))
            if self._ended.bug is not None:
                raise self._ended.bug
            await self._wait(self._wake, wait_s)

    async def _attempt(self) -> float:
        """From the token to the end of one socket. Answers how long to wait before the next."""
        self._forget_last()
        try:
            self._socket_token = await self._token()
            self._happened(Event.DIAL)
            await self._open()
            await self._stay()
        except ConfigError as error:
            self._failed(str(error))
            return self._refused_backoff.next()
        except AgentError as error:
            self._failed(f"{error}; {error.hint}" if error.hint else str(error))
            return max(self._backoff.next(), getattr(error, "retry_after_s", None) or 0.0)
        finally:
            await self._hang_up()
        if self._lost is not None and not self._was_live and not self._refused:
            self._failed(self._lost.reason)
        slowly = self._refused and self._token_refusals != 1  # the first refused token is worth a new one at once
        return self._refused_backoff.next() if slowly else self._backoff.next()

    def _forget_last(self) -> None:
        self._lost, self._leaving, self._refused, self._was_live = None, "", False, False
        self._ended = Ended(NO_CLOSE_FRAME, "")
        self._heartbeats_sent.clear()
        self._told_unreadable = ""

    async def _open(self) -> None:
        self._socket = WebSocket(
            self.url,
            user_agent=f"onprem-agent/{self._version}",
            on_open=lambda: self._happened(Event.OPENED),
            on_texts=self._read,
            on_writable=self._on_writable,
        )
        try:
            async with asyncio.timeout(self._open_within_s):
                await open_websocket(self.url, self._socket, self._dial, self._ssl)
        except TimeoutError as error:
            hint = "check the base URL, the firewall and the proxy"
            raise LinkError(f"{self.url} did not open within {self._open_within_s:g} s", hint=hint) from error

    async def _stay(self) -> None:
        """Beat until the socket ends. The answer to the connect request has a deadline too."""
        assert self._socket is not None
        closed = self._socket.closed
        beat_at = self._clock() + self._heartbeat_s
        live_by = self._clock() + self._open_within_s
        while not closed.is_set():
            introducing = self._session.state is State.INTRODUCED
            due = min(beat_at, live_by) if introducing else beat_at
            await self._wait(closed, max(due - self._clock(), 0.0))
            if closed.is_set():
                return
            if introducing and self._session.state is State.INTRODUCED and self._clock() >= live_by:
                self._leave("the server did not answer the connect request")
            if self._clock() >= beat_at:
                beat_at = self._clock() + self._heartbeat_s
                self._happened(Event.TICK)

    async def _hang_up(self) -> None:
        """Bring the session back to offline, whatever became of the socket, with a deadline of its own."""
        connected = self._socket is not None and not self._socket.closed.is_set()
        if connected and self._session.state in (State.INTRODUCED, State.LIVE):
            self._leave("the agent stops")
        if self._socket is not None:
            await self._socket.wait_closed()
            self._ended = self._socket.ended
        if self._session.state is not State.OFFLINE:
            self._happened(Event.LOST)
        self._socket = None

    def _leave(self, why: str) -> None:
        self._leaving = why
        self._happened(Event.LEAVE)

    def _read(self, texts: list[bytes]) -> None:
        """Take the frames of one socket read: what is about the session here, everything else to `on_frames`."""
        self._batch = []
        for text in texts:
            try:
                frame = decode_from_server(text)
            except BadFrame as bad:
                self._unreadable(bad)
                continue
            match frame:
                case TransmitResponse() if self._session.state is State.LIVE:
                    self._batch.append(frame)  # nearly every frame; the table says the same, slower
                case ConnectResponse():
                    self._happened(Event.ACCEPTED)
                case HeartbeatRequest():
                    self._happened(Event.HEARTBEAT_REQUEST)
                case HeartbeatResponse():
                    self._happened(Event.HEARTBEAT_RESPONSE)
                case AgentErrorFrame():
                    self._happened(Event.REFUSED, frame)
                case _:
                    self._happened(Event.FRAME, frame)
        if self._batch:
            self._on_frames(self._batch)

    def _happened(self, event: Event, frame: FromServer | None = None) -> None:
        for effect in self._session.on(event):
            match effect:
                case Effect.SEND_CONNECT:
                    self._put(ConnectRequest(self._socket_token, self._agent_id))
                case Effect.ANNOUNCE_LIVE:
                    self._announce_live()
                case Effect.ANNOUNCE_LOST:
                    self._announce_lost()
                case Effect.DELIVER:
                    self._deliver(frame)
                case Effect.SEND_HEARTBEAT:
                    self._heartbeats_sent.append(self._clock())
                    self._put(HeartbeatRequest())
                case Effect.ANSWER_HEARTBEAT:
                    self._put(HeartbeatResponse(self._version))
                case Effect.NOTE_ROUND_TRIP:
                    self._note_round_trip()
                case Effect.COUNT_MISSED:
                    log.warning("heartbeat.missed", outstanding=self._session.outstanding)
                case Effect.NOTE_REFUSAL:
                    self._note_refusal(frame)
                case Effect.REFUSE_NOT_CONNECTED:
                    self._put(AgentErrorFrame("Not connected", getattr(frame, "callback", None)))
                case Effect.CLOSE:
                    self._end_socket(politely=True)
                case Effect.DROP:
                    self._leaving = self._leaving or "the server did not answer the heartbeats"
                    self._end_socket(politely=False)
                case Effect.OPEN_SOCKET:
                    pass  # the next line of whoever reported DIAL
                case Effect.JUDGE_CONNECT | Effect.SEND_ACCEPTED | Effect.SEND_REFUSED:
                    raise AssertionError(f"{effect.name} is the server's part")
                case _:
                    assert_never(effect)

    def _put(self, frame: Frame) -> None:
        if self._socket is not None:
            self._socket.send([encode(frame)])

    def _end_socket(self, *, politely: bool) -> None:
        if self._socket is None:
            return
        if politely:
            self._socket.close(GOING_AWAY, "")
        else:
            self._socket.abort()

    def _deliver(self, frame: FromServer | None) -> None:
        if frame is None:
            return
        if isinstance(frame, AgentErrorFrame) and frame.body == TOKEN_REFUSED:
            self._on_token_refused()
        self._batch.append(frame)

    def _unreadable(self, bad: BadFrame) -> None:
        if bad.reason != self._told_unreadable:
            self._told_unreadable = bad.reason
            log.warning("frame.unreadable", reason=bad.reason)
        if self.writable:  # a far end that floods us with rubbish must not fill our memory with answers
            self._put(AgentErrorFrame(bad.reason, bad.callback))

    def _announce_live(self) -> None:
        self.reconnects += self._ever_live
        self._ever_live = self._was_live = True
        self._token_refusals = 0
        self.last_error = self._told = ""
        self._backoff.reset()
        self._refused_backoff.reset()
        log.info("uplink.live", url=self.url, reconnects=self.reconnects)
        self._on_live()

    def _announce_lost(self) -> None:
        reason = self._leaving or sayable(self._ended.reason) or "the connection was lost"
        self._lost = LostLink(self._ended.code, reason[:SHOWN_CHARACTERS], self._was_live)
        if self._was_live:
            closed = f" (close code {self._ended.code})" if self._ended.code != NO_CLOSE_FRAME else ""
            self.last_error = self._lost.reason + closed
        self._on_lost(self._lost)

    def _note_round_trip(self) -> None:
        self.last_heartbeat = self._wall_clock()
        if self._heartbeats_sent:
            self.ping_ms = (self._clock() - self._heartbeats_sent[0]) * 1000
            self._heartbeats_sent.clear()

    def _note_refusal(self, frame: FromServer | None) -> None:
        said = frame.body[:SHOWN_CHARACTERS] if isinstance(frame, AgentErrorFrame) else ""
        self._refused = True
        cause = ""
        if said == TOKEN_REFUSED:
            self._token_refusals += 1
            cause = self._on_token_refused()
        remedy = cause or _REMEDIES.get(said, "check base URL, client id and agent id")
        self._leaving = f"the server refused agent {self._agent_id} ({sayable(said)}): {remedy}"
        self._failed(self._leaving)

    def _failed(self, why: str) -> None:
        """Remember why there is no link, and log it if it is news."""
        self.last_error = why
        if why != self._told:
            self._told = why
            log.warning("uplink.failed", url=self.url, reason=why)
