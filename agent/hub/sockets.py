"""Hold up the server's end of `/ws/agent`.

Secret: how frames become deliveries and answers become frames, and how much may be under way on one socket.
Promise: every error text, key order and silence is the recorded server's; a slow target delays only its own
answers; an agent that does not read is not read from either, and is given no further requests, so that memory stays
bounded.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import assert_never

from aiohttp import WSCloseCode, WSMsgType, web

from agent.errors import StoreError
from agent.hub.access import Access
from agent.hub.behaviour import Acknowledge
from agent.hub.inbox import Delivery, Inbox, header_of
from agent.hub.outcomes import Refused
from agent.hub.resources import Resources
from agent.hub.roster import Roster
from agent.hub.targets import HL7, Answer, BadInput, ChannelUnknown, Route, Targets, failed, read_input
from agent.protocol.envelope import (
    AgentErrorFrame,
    BadFrame,
    ConnectRequest,
    ConnectResponse,
    Frame,
    FromAgent,
    HeartbeatRequest,
    HeartbeatResponse,
    TransmitRequest,
    TransmitResponse,
    decode_from_agent,
    encode,
)
from agent.protocol.hl7 import NotHl7
from agent.protocol.session import Effect, Event, Role, Session

UNDER_WAY = 4_096  # messages unanswered or answers unwritten before the socket is not read any more
UNWRITTEN_BYTES = 16 * 1024 * 1024  # of answers and requests before no further request is taken
CLOSE_WITHIN_S = 2.0


@dataclass(frozen=True, slots=True)
class Parts:
    """What a socket needs of the hub."""

    access: Access
    resources: Resources
    inbox: Inbox
    roster: Roster
    targets: Targets
    version: str
    max_frame_bytes: int


class AgentSocket:
    """One connection, from upgrade to close."""

    def __init__(self, parts: Parts, request: web.Request) -> None:
        self._parts = parts
        self._request = request
        # aiohttp refuses what is as long as its limit; the recorded server only what is longer
        limit = parts.max_frame_bytes + 1
        self._socket = web.WebSocketResponse(compress=False, max_msg_size=limit, timeout=CLOSE_WITHIN_S)
        self._session = Session(Role.SERVER)
        self.agent_id = ""  # once it said who it is
        self._outbox: deque[bytes] = deque()
        self._unwritten_bytes = 0
        self._unanswered = 0
        self._to_write = asyncio.Event()
        self._room = asyncio.Event()
        self._closed = True  # nothing can be sent: not before the upgrade, not after the end
        self._ended = False  # nothing more can be begun

    async def serve(self) -> web.WebSocketResponse:
        """Until the socket ends; targets at work may finish after it."""
        await self._socket.prepare(self._request)
        self._session.on(Event.OPENED)
        self._closed = False
        async with asyncio.TaskGroup() as work:
            writer = work.create_task(self._write(), name="hub:socket-writer")
            try:
                await self._read(work)
                self._leave()
                while self._unanswered:  # what is stored meets its target, even if nobody waits for the answer
                    self._room.clear()
                    await self._room.wait()
            finally:
                self._leave()
                self._ended = True
                writer.cancel()
        return self._socket

    def _leave(self) -> None:
        if not self._closed:
            self._closed = True
            self._room.set()
            self._session.on(Event.LOST)
            if self.agent_id:
                self._parts.roster.leave(self.agent_id, self)

    def send(self, frame: Frame) -> None:
        """Queue one frame; it is lost if the socket is gone."""
        self.send_text(encode(frame))

    def send_text(self, text: bytes) -> None:
        """Queue any text as a frame, well-formed or not."""
        if not self._closed:
            self._outbox.append(text)
            self._unwritten_bytes += len(text)
            self._to_write.set()

    @property
    def has_room(self) -> bool:
        """Whether a request may be queued; answers and heartbeats always may."""
        return len(self._outbox) < UNDER_WAY and self._unwritten_bytes < UNWRITTEN_BYTES

    async def room(self) -> None:
        """Until there is room, or the socket is gone."""
        while not (self._closed or self.has_room):
            self._room.clear()
            await self._room.wait()

    def tick(self) -> None:
        """The hub's heartbeat clock ticked."""
        if not self._closed:
            for effect in self._session.on(Event.TICK):
                if effect is Effect.SEND_HEARTBEAT:
                    self.send(HeartbeatRequest())
                elif effect is Effect.DROP:
                    self.drop()

    async def leave(self) -> None:
        """Say goodbye: the hub is going away (close code 1001)."""
        if not self._closed:
            self._session.on(Event.LEAVE)
            await self._socket.close(code=WSCloseCode.GOING_AWAY)

    def drop(self) -> None:
        """Cut the connection without a word."""
        if self._request.transport is not None:
            self._request.transport.abort()

    async def _write(self) -> None:
        while True:
            await self._to_write.wait()
            self._to_write.clear()
            try:
                while self._outbox:
                    text = self._outbox.popleft()
                    await self._socket.send_str(text.decode())
                    self._unwritten_bytes -= len(text)
                    self._room.set()
            except ConnectionError:
                self._outbox.clear()  # the reader notices by itself
                self._unwritten_bytes = 0
            self._room.set()

    async def _read(self, work: asyncio.TaskGroup) -> None:
        async for message in self._socket:
            if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                continue
            try:
                frame = decode_from_agent(message.data)
            except BadFrame as bad:
                self._refuse(bad.reason)
                continue
            self._handle(frame, work)
            while len(self._outbox) + self._unanswered >= UNDER_WAY:
                self._room.clear()
                await self._room.wait()

    def _handle(self, frame: FromAgent, work: asyncio.TaskGroup) -> None:
        match frame:
            case ConnectRequest():
                event = Event.CONNECT_REQUEST
            case HeartbeatRequest():
                event = Event.HEARTBEAT_REQUEST
            case HeartbeatResponse():
                event = Event.HEARTBEAT_RESPONSE
            case _:
                event = Event.FRAME
        for effect in self._session.on(event):
            match effect:
                case Effect.JUDGE_CONNECT:
                    assert isinstance(frame, ConnectRequest)
                    self._connect(frame)
                case Effect.ANSWER_HEARTBEAT:
                    self.send(HeartbeatResponse(version=self._parts.version))
                case Effect.NOTE_ROUND_TRIP:
                    if self.agent_id and isinstance(frame, HeartbeatResponse):
                        self._parts.roster.heard(self.agent_id, frame.version)
                case Effect.REFUSE_NOT_CONNECTED:
                    if isinstance(frame, TransmitRequest):  # the server says nothing to other frames
                        self._refuse("Not connected")
                case Effect.DELIVER:
                    self._deliver(frame, work)
                case _:
                    raise AssertionError(effect)

    def _connect(self, frame: ConnectRequest) -> None:
        problem = self._problem_with(frame)
        for effect in self._session.on(Event.REFUSED if problem else Event.ACCEPTED):
            match effect:
                case Effect.SEND_REFUSED:
                    self._refuse(problem)
                case Effect.SEND_ACCEPTED:
                    self.send(ConnectResponse())
                case Effect.ANNOUNCE_LIVE:
                    if self.agent_id and self.agent_id != frame.agent_id:
                        self._parts.roster.leave(self.agent_id, self)
                    self.agent_id = frame.agent_id or ""
                    self._parts.roster.join(self.agent_id, self)
                case _:
                    raise AssertionError(effect)

    def _problem_with(self, frame: ConnectRequest) -> str:
        """Why this connect request is refused, in the server's words; empty if it is good."""
        if not frame.access_token:
            return "Missing access token"
        if not frame.agent_id:
            return "Missing agent ID"
        if self._parts.access.caller(frame.access_token) is None:
            return "Invalid access token"
        try:
            self._parts.resources.get("Agent", frame.agent_id)
        except Refused as refused:
            return refused.outcome.text
        return ""

    def _deliver(self, frame: FromAgent, work: asyncio.TaskGroup) -> None:
        match frame:
            case TransmitRequest():
                self._transmit(frame, work)
            case ConnectRequest() | HeartbeatRequest() | HeartbeatResponse():
                raise AssertionError("the session keeps these from being delivered")
            case _:
                self._parts.roster.answered(frame.callback, frame)

    def _transmit(self, frame: TransmitRequest, work: asyncio.TaskGroup) -> None:
        parts = self._parts
        if not frame.access_token:
            return self._refuse("Missing access token")
        if not frame.channel:
            return self._refuse("Missing channel")
        if not frame.body:
            return self._refuse("Missing body")
        if parts.access.caller(frame.access_token) is None:
            return self._refuse("Invalid access token")
        try:
            route = parts.targets.route(self.agent_id, frame.channel)
            header = header_of(frame.body) if frame.content_type == HL7 else None
            delivery = Delivery(
                self.agent_id, frame.channel, frame.remote, frame.content_type, frame.callback, frame.body, header
            )
            input_ = read_input(delivery)
        except NotHl7:
            return self._refuse("Invalid HL7 message")
        except Refused as refused:
            return self._refuse(refused.outcome.text)
        except (ChannelUnknown, BadInput) as refusal:
            return self._refuse(str(refusal))
        match route:
            case Answer() as answer:
                self._keep(delivery, answer, frame)
            case Route(behaviour=Acknowledge()):
                self._keep(delivery, parts.targets.acknowledge(delivery), frame)
            case Route():
                self._unanswered += 1

                async def work_on(message_id: int) -> None:
                    answer = await parts.targets.run(route, delivery, input_)
                    parts.inbox.settle(message_id, answer.status_code, answer.text)
                    self._respond(frame, answer)

                def kept(error: StoreError | None) -> None:
                    if error is None and not self._ended:
                        work.create_task(work_on(message_id), name="hub:target")
                    else:
                        self._respond(frame, _not_stored())

                message_id = parts.inbox.put(delivery, kept, None, None)
            case _:
                assert_never(route)
        return None

    def _keep(self, delivery: Delivery, answer: Answer, frame: TransmitRequest) -> None:
        """Store a message whose answer is known, then answer."""
        self._unanswered += 1

        def kept(error: StoreError | None) -> None:
            self._respond(frame, answer if error is None else _not_stored())

        self._parts.inbox.put(delivery, kept, answer.status_code, answer.text)

    def _respond(self, frame: TransmitRequest, answer: Answer) -> None:
        self._unanswered -= 1
        if self._closed:
            self._room.set()
            return
        self.send(
            TransmitResponse(
                channel=frame.channel,
                remote=frame.remote,
                content_type=answer.content_type,
                status_code=answer.status_code,
                body=answer.body,
                callback=frame.callback,
            )
        )

    def _refuse(self, text: str) -> None:
        self.send(AgentErrorFrame(body=text))


def _not_stored() -> Answer:
    return failed("the hub cannot store messages now", 503)
