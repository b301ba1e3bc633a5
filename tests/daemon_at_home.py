"""A whole daemon with a whole hub, both in this process, on loopback: what the daemon's own tests share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from agent.daemon import Daemon
from agent.hub import Hub
from agent.logbook import opened
from agent.notify import Notifier
from agent.protocol.hl7 import Acknowledgement, read_ack
from agent.protocol.mllp import wrap
from agent.settings import Settings

WITHIN_S = 20.0


def settings_for(data_dir: Path, base_url: str, hub: Hub, **more: object) -> Settings:
    given: dict[str, object] = {
        "base_url": base_url,
        "client_id": hub.client_id,
        "agent_id": hub.agent_id,
        "data_dir": str(data_dir),
        "diagnostics.listen": "off",
        "log.console": "never",
        "spool.min_free_mb": 1,
        **more,
    }
    return Settings.load(given, {"AGENT_CLIENT_SECRET": hub.client_secret}, data_dir.parent)


@asynccontextmanager
async def a_daemon(settings: Settings, reread: Callable[[], Settings] | None = None) -> AsyncIterator[Daemon]:
    """A daemon that runs for the block and is stopped, politely, at its end."""
    loop = asyncio.get_running_loop()
    handler = loop.get_exception_handler()
    with opened(settings.log) as book:
        daemon = Daemon(settings, book, Notifier.from_environ({}), {}, reread or (lambda: settings))
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(daemon.run(), name="daemon")
                await until(lambda: hasattr(daemon, "vitals"))
                try:
                    yield daemon
                finally:
                    daemon.stop()
        finally:
            loop.set_exception_handler(handler)


async def until(so: Callable[[], object]) -> None:
    """Wait until `so` holds; fails after WITHIN_S. Polls: a daemon at work has no bell for its tests."""
    async with asyncio.timeout(WITHIN_S):
        while not so():
            await asyncio.sleep(0.01)


def port_of(daemon: Daemon, channel: str = "hl7") -> int:
    listener = daemon.channels.by_name[channel].inlet
    assert listener is not None
    return listener.port


async def listens(daemon: Daemon, channel: str = "hl7") -> int:
    """Wait until the channel listens; its port."""
    await until(lambda: channel in daemon.channels.by_name and daemon.channels.by_name[channel].inlet is not None)
    return port_of(daemon, channel)


def message(control_id: str = "M1") -> bytes:
    return f"MSH|^~\\&|ADT1|GHH|LAB|GHH|20261122101500||ADT^A01|{control_id}|P|2.5.1\rPID|1||P1\r".encode()


async def ask(port: int, *control_ids: str) -> list[Acknowledgement]:
    """Send messages over one connection, each after the answer to the last."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    acks = []
    try:
        async with asyncio.timeout(WITHIN_S):
            for control_id in control_ids:
                writer.write(wrap(message(control_id)))
                ack = read_ack((await reader.readuntil(b"\x1c\r"))[1:-2])
                assert ack is not None
                acks.append(ack)
    finally:
        writer.transport.abort()
    return acks
