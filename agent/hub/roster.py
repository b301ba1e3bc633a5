"""Know which agents are connected, and ask them things.

Secret: how a request finds its answer (a callback of our own making, `Agent/<id>-<uuid>`), and how presence
is kept.
Promise: every socket of an agent that is read gets every request, and the first answer wins; where none is read, a
request waits instead of piling up in memory; a call ends by its deadline; an agent counts as connected while it has at
least one live socket, and what is known of it survives a restart of the hub.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol
from uuid import uuid4

import apsw

from agent.errors import PeerError
from agent.hub.clock import instant
from agent.hub.store import Store
from agent.protocol.envelope import AgentErrorFrame, Frame, FromAgent

CONNECTED, DISCONNECTED, UNKNOWN = "connected", "disconnected", "unknown"

Ask = Callable[[str], Frame]
"""Makes a request from the callback that the agent is to repeat."""


class CallFailed(PeerError):
    """The agent gave no answer in time, or an error; the text is what the asker is told."""


class Socket(Protocol):
    """A live connection of an agent, as far as the roster needs it."""

    @property
    def has_room(self) -> bool:
        """Whether the agent reads what is sent to it."""

    def send(self, frame: Frame) -> None:
        """Queue one frame."""

    async def room(self) -> None:
        """Until it has room, or is gone."""


@dataclass(frozen=True, slots=True)
class Presence:
    """What `$status` says: `updated` is a FHIR instant, empty for an agent that never connected."""

    status: str = UNKNOWN
    version: str = UNKNOWN
    updated: str = ""


class Roster:
    """Agents by id."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._sockets: dict[str, list[Socket]] = {}
        self._waiting: dict[str, asyncio.Future[FromAgent]] = {}
        self._arrivals: list[tuple[str, asyncio.Future[None]]] = []
        rows = store.read.execute("SELECT agent, status, version, updated FROM presence")
        self._presence = {
            agent: Presence(DISCONNECTED if status == CONNECTED else status, version, updated)
            for agent, status, version, updated in rows
        }

    def presence(self, agent_id: str) -> Presence:
        """What is known about one agent."""
        return self._presence.get(agent_id, Presence())

    def sockets(self, agent_id: str) -> tuple[Socket, ...]:
        """The live sockets of one agent."""
        return tuple(self._sockets.get(agent_id, ()))

    def everyone(self) -> Iterator[Socket]:
        """All live sockets of all agents."""
        for sockets in tuple(self._sockets.values()):
            yield from tuple(sockets)

    def join(self, agent_id: str, socket: Socket) -> None:
        """A socket of this agent is live; joining twice is joining once."""
        sockets = self._sockets.setdefault(agent_id, [])
        if socket not in sockets:
            sockets.append(socket)
        if len(sockets) == 1:
            self._note(agent_id, Presence(CONNECTED, UNKNOWN, instant()))
        for wanted, waiter in self._arrivals:
            if wanted == agent_id and not waiter.done():
                waiter.set_result(None)
        self._arrivals = [arrival for arrival in self._arrivals if not arrival[1].done()]

    def heard(self, agent_id: str, version: str | None) -> None:
        """The agent answered a heartbeat."""
        old = self.presence(agent_id)
        new = Presence(CONNECTED, version or UNKNOWN, instant())
        self._presence[agent_id] = new
        if old.version != new.version:
            self._note(agent_id, new)

    def leave(self, agent_id: str, socket: Socket) -> None:
        """A socket of this agent is gone."""
        sockets = self._sockets.get(agent_id, [])
        if socket in sockets:
            sockets.remove(socket)
            if not sockets:
                del self._sockets[agent_id]
                self._note(agent_id, replace(self.presence(agent_id), status=DISCONNECTED, updated=instant()))

    async def arrival(self, agent_id: str) -> None:
        """Until the agent has a live socket."""
        if agent_id in self._sockets:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._arrivals.append((agent_id, waiter))
        await waiter

    async def call(self, agent_id: str, ask: Ask, timeout_s: float) -> FromAgent:
        """Ask the agent and wait. Raises CallFailed: "Timeout", or the agent's own words."""
        callback = f"Agent/{agent_id}-{uuid4()}"
        answer: asyncio.Future[FromAgent] = asyncio.get_running_loop().create_future()
        self._waiting[callback] = answer
        try:
            async with asyncio.timeout(timeout_s):
                await self._reach(agent_id, ask(callback))
                frame = await answer
        except TimeoutError:
            raise CallFailed("Timeout") from None
        finally:
            del self._waiting[callback]
        if isinstance(frame, AgentErrorFrame):
            raise CallFailed(frame.body)
        return frame

    async def tell(self, agent_id: str, frame: Frame, timeout_s: float) -> None:
        """Send the agent a frame that wants no answer; one that is away never gets it. Raises CallFailed: "Timeout"."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._reach(agent_id, frame)
        except TimeoutError:
            raise CallFailed("Timeout") from None

    async def _reach(self, agent_id: str, frame: Frame) -> None:
        """Give the frame to every socket that has room; wait while there are sockets and none has."""
        while sockets := self.sockets(agent_id):
            if ready := [socket for socket in sockets if socket.has_room]:
                for socket in ready:
                    socket.send(frame)
                return
            await sockets[0].room()

    def answered(self, callback: str | None, frame: FromAgent) -> None:
        """A frame came that may answer a call; one that nobody waits for (any more) is dropped."""
        waiter = self._waiting.get(callback or "")
        if waiter is not None and not waiter.done():
            waiter.set_result(frame)

    def _note(self, agent_id: str, presence: Presence) -> None:
        self._presence[agent_id] = presence

        def job(db: apsw.Connection) -> None:
            db.execute(
                "INSERT OR REPLACE INTO presence (agent, status, version, updated) VALUES (?, ?, ?, ?)",
                (agent_id, presence.status, presence.version, presence.updated),
            )

        self._store.later(job)
