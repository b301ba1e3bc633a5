"""The ward: where agents, servers and devices of a scenario come from, and who clears up after them.

Secret: ports, folders and the order of clearing up.
Promise: everything is closed when the scenario is over, and an agent that crashed in it makes it fail.
"""

from __future__ import annotations

import ssl
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from free_ports import free_port
from ward_agents import AgentProcess, FarEnd
from ward_devices import Device
from ward_remotes import Remote
from ward_servers import ScriptedServer
from ward_strangers import Stranger

from agent.hub import Hub


class Ward:
    """Opens what a scenario needs; everything is closed when it is over, and no agent may have crashed."""

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        self.folder = folder
        self.port = free_port  # a port that nobody uses
        self._stack = stack
        self.agents: list[AgentProcess] = []

    async def server(self) -> ScriptedServer:
        """A server that listens and accepts every message until it is told otherwise."""
        server = ScriptedServer(free_port(), self.folder)
        await server.come()
        self._stack.push_async_callback(server.go)
        return server

    async def hub(self, **channels: str) -> Hub:
        """The embedded server with one agent that has these channels (name → address), all answered AA."""
        hub = await self._stack.enter_async_context(Hub.open(self.folder / "hub", ("127.0.0.1", 0)))
        await hub.put_agent("ward", channels, agent_id=hub.agent_id)
        return hub

    def agent(self, far_end: FarEnd, **environment: str) -> AgentProcess:
        """An agent that is not started yet; its settings beyond the four values as environment variables."""
        agent = AgentProcess(self.folder / f"agent-{len(self.agents)}", far_end, environment)
        self.agents.append(agent)
        self._stack.push_async_callback(agent.leave)
        return agent

    async def running_agent(self, far_end: FarEnd, **environment: str) -> AgentProcess:
        agent = self.agent(far_end, **environment)
        await agent.start()
        return agent

    async def device(self, port: int, **how: Any) -> Device:
        device = await Device.connect(port, **how)
        self._stack.push_async_callback(device.hang_up)
        return device

    async def remote(self, *, tls: ssl.SSLContext | None = None) -> Remote:
        """A system to push to: it listens and accepts every message until it is told otherwise."""
        remote = Remote(free_port(), tls)
        await remote.come()
        self._stack.push_async_callback(remote.go)
        return remote

    async def stranger(self, port: int, sends: bytes = b"", *, source: str = "127.0.0.1") -> Stranger:
        """Somebody who knocks there, and sends bytes."""
        stranger = await Stranger.knock(port, sends, source=source)
        self._stack.push_async_callback(stranger.leave)
        return stranger

    def assert_no_agent_crashed(self) -> None:
        """Expected trouble is never a traceback."""
        for agent in self.agents:
            assert "Traceback" not in agent.complaints(), agent.complaints()
            assert "daemon.crashed" not in agent.main_log(), agent.main_log()
