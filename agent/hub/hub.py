"""The embedded server: one process, one folder, everything that an agent, its tools and the Medplum CLI ask of a
server.

Secret: how the parts fit together and what a new hub begins with.
Promise: `Hub.open` has bound its port when it is entered; what it printed once it prints for ever (project,
client, secret and agent live in the data directory); leaving it ends every socket and keeps everything that
was acknowledged.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from aiohttp import web

from agent import __version__
from agent.errors import LinkError, StoreError
from agent.hub import inbox as inbox_module
from agent.hub.access import Access
from agent.hub.agents import Agents
from agent.hub.binaries import Binaries
from agent.hub.door import make_app
from agent.hub.inbox import Inbox, Kept, Opened
from agent.hub.jobs import Jobs
from agent.hub.operations import Operations
from agent.hub.push import Pushes
from agent.hub.resources import Author, Resource, Resources
from agent.hub.rest import Rest
from agent.hub.roster import Presence, Roster
from agent.hub.sockets import AgentSocket, Parts
from agent.hub.store import Store
from agent.hub.targets import Targets

DEFAULT_LISTEN = ("127.0.0.1", 8103)
DEFAULT_CHANNEL_ADDRESS = "mllp://0.0.0.0:2575"
CLOSE_WITHIN_S = 2.0


@dataclass(frozen=True, slots=True)
class Options:
    """How a hub differs from the default one. `operation_timeout_scale` shortens the deadlines of operations,
    the `waitTimeout` of a push included, for tests."""

    channel_address: str = DEFAULT_CHANNEL_ADDRESS
    heartbeat_s: float = 10.0
    max_frame_bytes: int = 1_048_576
    keep_messages: int = 100_000
    allow_python: bool = True
    operation_timeout_scale: float = 1.0


class Hub:
    """A running hub. The four values that an agent needs are `base_url`, `client_id`, `client_secret`, `agent_id`."""

    def __init__(self, store: Store, data_dir: Path, key: bytes, seed: Mapping[str, Any], options: Options) -> None:
        self._options = options
        self._store = store
        self._resources = Resources(store)
        self._inbox = Inbox(store, options.keep_messages)
        self._roster = Roster(store)
        self._targets = Targets(self._resources, allow_python=options.allow_python)
        self._access = Access(self._resources, key, seed["project"])
        self._author = Author(f"Project/{seed['project']['id']}", seed["project"]["name"], seed["project"]["id"])
        self._jobs = Jobs(store)
        agents, scale = Agents(self._resources), options.operation_timeout_scale
        self._rest = Rest(
            self._resources,
            self._access,
            Operations(agents, self._roster, timeout_scale=scale),
            Pushes(self._resources, agents, self._roster, timeout_scale=scale),
            self._jobs,
            Binaries(data_dir / "binary"),
        )
        self._parts = Parts(
            self._access,
            self._resources,
            self._inbox,
            self._roster,
            self._targets,
            __version__,
            options.max_frame_bytes,
        )
        self._sockets: set[AgentSocket] = set()
        self.base_url = ""
        self.client_id: str = seed["client"]["id"]
        self.client_secret: str = seed["client"]["secret"]
        self.agent_id: str = seed["agent_id"]

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        data_dir: Path | str,
        listen: tuple[str, int] = DEFAULT_LISTEN,
        *,
        channel_address: str = DEFAULT_CHANNEL_ADDRESS,
        heartbeat_s: float = 10.0,
        max_frame_bytes: int = 1_048_576,
        keep_messages: int = 100_000,
        allow_python: bool = True,
        operation_timeout_scale: float = 1.0,
    ) -> AsyncIterator[Hub]:
        """A hub that listens on (host, port), port 0 = any. Raises LinkError (port), StoreError (folder)."""
        options = Options(
            channel_address, heartbeat_s, max_frame_bytes, keep_messages, allow_python, operation_timeout_scale
        )
        folder = Path(data_dir)
        try:
            key = _read_key(folder)
        except OSError as error:
            raise StoreError(
                f"cannot use {folder}: {error.strerror}", hint="give another --data-dir, or the right to write there"
            ) from error
        listener = _bind(*listen)
        try:
            store = Store(folder / "hub.db", inbox_module.INSERT)
        except StoreError:
            listener.close()
            raise
        try:
            hub = cls(store, folder, key, await _seed(store, options), options)
            async with hub._serving(listener):
                yield hub
        finally:
            listener.close()
            await store.close()

    async def put_resource(self, resource: Resource) -> Resource:
        """Create or replace a resource, checked as over REST; an `id` in it (a UUID) is kept. Raises Refused."""
        return await self._resources.put(resource, self._author)

    def resource(self, resource_type: str, id: str) -> Resource:  # noqa: A002 - FHIR's own name
        """Read a resource; not to be changed by the caller. Raises Refused."""
        return self._resources.get(resource_type, id)

    async def delete_resource(self, resource_type: str, id: str) -> None:  # noqa: A002
        """Delete a resource. Raises Refused."""
        await self._resources.delete(resource_type, id)

    async def put_agent(
        self, name: str, channels: Mapping[str, str], *, code: str = "ack", agent_id: str | None = None
    ) -> Resource:
        """Create or replace an Agent with an Endpoint per channel (name → address), all targets one Bot with `code`."""
        bot = await self.put_resource({"resourceType": "Bot", "name": code, "code": code})
        entries = []
        for channel, address in channels.items():
            endpoint = await self.put_resource(endpoint_for(f"{name} {channel}", address))
            entries.append(channel_for(channel, endpoint, bot))
        given = {"id": agent_id} if agent_id else {}
        return await self.put_resource(
            {"resourceType": "Agent", **given, "name": name, "status": "active", "channel": entries}
        )

    def messages(self, *, count: int = 1_000, offset: int = 0, **filters: str) -> list[Kept]:
        """Received messages, oldest first; `filters`: channel, agent, controlId, callback, since."""
        return self._inbox.list({**filters, "_count": str(count), "_offset": str(offset)})[0]

    def message(self, message_id: int) -> Opened | None:
        """One received message with its content."""
        return self._inbox.open(message_id)

    @property
    def received(self) -> int:
        """How many messages were received, and are on disk, since this hub was opened."""
        return self._inbox.received

    async def wait_for_messages(self, count: int, *, within_s: float = 10.0) -> None:
        """Until `received` is at least `count`. Raises TimeoutError."""
        async with asyncio.timeout(within_s):
            await self._inbox.wait(count)

    async def wait_for_agent(self, agent_id: str = "", *, within_s: float = 10.0) -> None:
        """Until the agent (the ready-made one) has a live socket. Raises TimeoutError."""
        async with asyncio.timeout(within_s):
            await self._roster.arrival(agent_id or self.agent_id)

    def presence(self, agent_id: str = "") -> Presence:
        """What `$status` says of an agent (the ready-made one)."""
        return self._roster.presence(agent_id or self.agent_id)

    def drop_sockets(self) -> None:
        """Cut every agent's connection without a close handshake."""
        for agent_socket in tuple(self._sockets):
            agent_socket.drop()

    def send_text(self, agent_id: str, text: str) -> int:
        """Send any text to every socket of an agent, as the far end of a test may; returns to how many."""
        sockets = [each for each in self._sockets if each.agent_id == agent_id]
        for agent_socket in sockets:
            agent_socket.send_text(text.encode())
        return len(sockets)

    @asynccontextmanager
    async def _serving(self, listener: socket.socket) -> AsyncIterator[None]:
        host, port = listener.getsockname()[:2]
        reachable = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
        self.base_url = self._access.issuer = self._rest.base_url = f"http://{reachable}:{port}/"
        app = make_app(self._access, self._rest, self._jobs, self._inbox, self._serve_socket)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=CLOSE_WITHIN_S)
        await runner.setup()
        clock = _Heart(self._options.heartbeat_s, self._sockets)
        try:
            await web.SockSite(runner, listener, backlog=1024).start()
            clock.start()
            yield
        finally:
            clock.stop()
            await self._leave_sockets()
            await runner.cleanup()
            await self._targets.close()

    async def _serve_socket(self, request: web.Request) -> web.StreamResponse:
        agent_socket = AgentSocket(self._parts, request)
        self._sockets.add(agent_socket)
        try:
            return await agent_socket.serve()
        finally:
            self._sockets.discard(agent_socket)

    async def _leave_sockets(self) -> None:
        try:
            async with asyncio.timeout(CLOSE_WITHIN_S), asyncio.TaskGroup() as farewells:
                for agent_socket in tuple(self._sockets):
                    farewells.create_task(agent_socket.leave(), name="hub:farewell")
        except TimeoutError:
            self.drop_sockets()


class _Heart:
    """The server's one heartbeat clock: it ticks for all sockets at once, whenever they connected."""

    def __init__(self, every_s: float, sockets: set[AgentSocket]) -> None:
        self._every_s = every_s
        self._sockets = sockets
        self._next: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._next = asyncio.get_running_loop().call_later(self._every_s, self._tick)

    def stop(self) -> None:
        if self._next is not None:
            self._next.cancel()

    def _tick(self) -> None:
        self.start()
        for agent_socket in tuple(self._sockets):
            agent_socket.tick()


def endpoint_for(name: str, address: str) -> Resource:
    """An Endpoint resource for one channel address."""
    system = "http://terminology.hl7.org/CodeSystem"
    return {
        "resourceType": "Endpoint",
        "status": "active",
        "name": name,
        "address": address,
        "connectionType": {"system": f"{system}/endpoint-connection-type", "code": "hl7v2-mllp"},
        "payloadType": [{"coding": [{"system": f"{system}/endpoint-payload-type", "code": "none"}]}],
    }


def channel_for(name: str, endpoint: Resource, bot: Resource) -> dict[str, Any]:
    """An entry of Agent.channel."""
    return {
        "name": name,
        "endpoint": {"reference": f"Endpoint/{endpoint['id']}"},
        "targetReference": {"reference": f"Bot/{bot['id']}"},
    }


async def _seed(store: Store, options: Options) -> dict[str, Any]:
    """Project, client and ready-made agent: from the data directory, or new."""
    resources = Resources(store)
    known = dict(store.read.execute("SELECT name, value FROM setting"))
    if "agent" in known:
        project = resources.get("Project", known["project"])
        client = resources.get("ClientApplication", known["client"])
        return {"project": project, "client": client, "agent_id": known["agent"]}
    project_id = str(uuid4())
    author = Author(f"Project/{project_id}", "Hub", project_id)
    project = await resources.put({"resourceType": "Project", "id": project_id, "name": "Hub"}, author)
    client = await resources.put(
        {"resourceType": "ClientApplication", "name": "Agent client", "secret": secrets.token_urlsafe(32)}, author
    )
    bot = await resources.put({"resourceType": "Bot", "name": "ack", "code": "ack"}, author)
    endpoint = await resources.put(endpoint_for("hl7", options.channel_address), author)
    agent = await resources.put(
        {"resourceType": "Agent", "name": "agent", "status": "active", "channel": [channel_for("hl7", endpoint, bot)]},
        author,
    )
    rows = [("project", project_id), ("client", client["id"]), ("agent", agent["id"])]
    await store.write(lambda db: db.executemany("INSERT INTO setting (name, value) VALUES (?, ?)", rows) and None)
    return {"project": project, "client": client, "agent_id": agent["id"]}


def _read_key(folder: Path) -> bytes:
    """The key that signs tokens, made at the first start with the folder, readable by its owner only."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / "token.key"
    if not path.exists():
        part = path.with_suffix(".part")
        part.unlink(missing_ok=True)
        with os.fdopen(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
            file.write(secrets.token_bytes(32))
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    return path.read_bytes()


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # named protocol: asyncio sets NODELAY
    try:
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise LinkError(
            f"cannot listen on {host}:{port}: {error.strerror}", hint="give another --listen, or stop what holds it"
        ) from error
    return listener
