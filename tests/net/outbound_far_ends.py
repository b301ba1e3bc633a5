"""The far ends of outbound connections: remotes with a script of their own, and whoever dials them."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from net_far_ends import WITHIN_S, Sender

from agent.failures import Failure
from agent.net.line import Line
from agent.net.outbound import CONNECT_WITHIN_S, Outbound
from agent.spec import RemoteSpec, TlsSpec

LINGER_0 = b"\x01\0\0\0\0\0\0\0"  # struct linger: a close is a reset


def spec_of(port: int, host: str = "127.0.0.1", *, secure: bool = False, tls: TlsSpec | None = None) -> RemoteSpec:
    return RemoteSpec(f"mllp://{host}:{port}", host, port, secure=secure or tls is not None, tls=tls)


class Caller:
    """Who dials, and writes down what it is told. Whatever it does when it is told something stands in `reacts`."""

    def __init__(self, outbound: Outbound) -> None:
        self._outbound = outbound
        self._rung = asyncio.Event()
        self._calling = False
        self.told: list[str] = []
        self.frames: list[bytes] = []
        self.reads: list[list[bytes]] = []
        self.noises: list[bytes] = []
        self.failure: Failure | None = None
        self.wrong: list[str] = []
        self.reacts: Callable[[str], None] = lambda name: None
        self.line: Line

    def dial(self, spec: RemoteSpec) -> Caller:
        with self._from_inside():
            self.line = self._outbound.dial(spec, self)
        return self

    def send(self, message: bytes) -> None:
        with self._from_inside():
            self.line.send(message)

    def close(self) -> None:
        with self._from_inside():
            self.line.close()

    def abort(self) -> None:
        with self._from_inside():
            self.line.abort()

    @contextmanager
    def _from_inside(self) -> Iterator[None]:
        self._calling = True
        try:
            yield
        finally:
            self._calling = False

    # ---- LineEvents

    def opened(self, line: Line) -> None:
        self._told("opened", line)

    def failed(self, line: Line, failure: Failure) -> None:
        self.failure = failure
        self._told("failed", line)

    def heard(self, line: Line, frames: list[bytes]) -> None:
        self.frames += frames
        self.reads.append(frames)
        self._told("heard", line)

    def noisy(self, line: Line) -> None:
        self.noises.append(line.noise)
        self._told("noisy", line)

    def closed(self, line: Line, failure: Failure | None) -> None:
        self.failure = failure
        self._told("closed", line)

    def _told(self, name: str, line: Line) -> None:
        if self._calling:
            self.wrong.append(f"{name} is told from inside a call")
        elif line is not self.line:
            self.wrong.append(f"{name} is told of another line")
        self.told.append(name)
        self._rung.set()
        self.reacts(name)

    # ---- what a test asks

    async def until(self, so: Callable[[], object]) -> None:
        """Wait until `so` holds, looked at whenever something was told and a hundred times a second besides."""
        async with asyncio.timeout(WITHIN_S):
            while not so():
                self._rung.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.01):
                        await self._rung.wait()

    async def is_told(self, name: str) -> None:
        await self.until(lambda: name in self.told)

    async def failure_of(self, name: str) -> Failure:
        """Why it failed, or closed, whichever is `name`."""
        await self.until(lambda: {"failed", "closed"} & set(self.told))
        assert self.told[-1] == name, self.failure
        assert self.failure is not None
        return self.failure

    @property
    def is_told_all(self) -> bool:
        """Whether what was told is a whole story."""
        return bool(re.fullmatch(r"failed |opened (heard |noisy )*closed ", "".join(f"{name} " for name in self.told)))


class Office:
    """Dials. `bugs`: what reached the loop's exception handler."""

    def __init__(self, outbound: Outbound) -> None:
        self.outbound = outbound
        self.callers: list[Caller] = []
        self.bugs: list[object] = []

    def dial(self, spec: RemoteSpec, reacts: Callable[[str], None] | None = None) -> Caller:
        caller = Caller(self.outbound)
        caller.reacts = reacts or caller.reacts
        self.callers.append(caller)
        return caller.dial(spec)

    async def connected(self, spec: RemoteSpec) -> Caller:
        caller = self.dial(spec)
        await caller.until(lambda: caller.told)
        assert caller.told == ["opened"], caller.failure
        return caller


@asynccontextmanager
async def office(*, connect_within_s: float = CONNECT_WITHIN_S, bugs: bool = False) -> AsyncIterator[Office]:
    """Holds its callers to the promise that each is told a whole story; `bugs`: they have some, to see what happens."""
    here = Office(Outbound(connect_within_s=connect_within_s))
    asyncio.get_running_loop().set_exception_handler(lambda _, context: here.bugs.append(context.get("exception")))
    async with here.outbound:
        yield here
    for caller in here.callers:
        assert caller.is_told_all, caller.told
        assert not caller.wrong
    assert bool(here.bugs) is bugs, here.bugs


class Remote:
    """A system that takes connections. `calls`: each of them, to be played by the test."""

    def __init__(self) -> None:
        self.calls: asyncio.Queue[Sender] = asyncio.Queue()
        self.writers: list[asyncio.StreamWriter] = []
        self.port = 0

    async def called(self) -> Sender:
        async with asyncio.timeout(WITHIN_S):
            return await self.calls.get()

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        self.calls.put_nowait(Sender(reader, writer))


@asynccontextmanager
async def remote(*, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None) -> AsyncIterator[Remote]:
    system = Remote()
    server = await asyncio.start_server(system.take, host, port, ssl=tls, limit=1 << 25)
    system.port = server.sockets[0].getsockname()[1]
    try:
        yield system
    finally:
        server.close()
        for writer in system.writers:
            writer.transport.abort()


Script = Callable[[socket.socket], None]


@asynccontextmanager
async def door(script: Script) -> AsyncIterator[int]:
    """A port where each connection, one after the other, gets what a blocking script says; then it is closed.

    A script that trips over what a connection does is at its end; one that claims something wrong fails the test.
    """
    wrong: list[AssertionError] = []

    def serve() -> None:
        while True:
            try:
                connection = listening.accept()[0]
            except OSError:
                return
            with connection:
                connection.settimeout(WITHIN_S)
                try:
                    script(connection)
                except AssertionError as error:
                    wrong.append(error)
                except OSError:
                    pass

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            await asyncio.to_thread(thread.join)
    for error in wrong:
        raise error


@contextmanager
def deaf_port() -> Iterator[int]:
    """A port of which the system drops all knocks: its queue is full (Linux; others refuse what does not fit)."""
    with contextlib.ExitStack() as sockets:
        server = sockets.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):
            queued = sockets.enter_context(socket.socket())
            queued.setblocking(False)
            queued.connect_ex(server.getsockname())
        yield server.getsockname()[1]


class Wire(asyncio.Transport):
    """A transport that leads nowhere. `written`: what would have left."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""

    def write(self, data: Any) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        pass

    def abort(self) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0


def free_port(host: str = "127.0.0.1") -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with contextlib.closing(socket.create_server((host, 0), family=family)) as unused:
        return int(unused.getsockname()[1])
