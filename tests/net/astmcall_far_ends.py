"""Who calls analysers in tests, and writes down what it is told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager

from net_far_ends import WITHIN_S

from agent.failures import Failure
from agent.net.astmcall import AstmCall, AstmCalls
from agent.spec import Astm, RemoteSpec

ORDER = (b"H|\\^&|||LIS", b"P|1", b"O|1|SAMPLE7||^^^GLU^" + b"x" * 300, b"L|1|N")


def spec_of(port: int, host: str = "127.0.0.1", *, frame_bytes: int = 240) -> RemoteSpec:
    return RemoteSpec(f"astm://{host}:{port}", host, port, wire=Astm(frame_bytes=frame_bytes))


def message_of(records: Iterable[bytes] = ORDER) -> bytes:
    return b"".join(record + b"\r" for record in records)


class Caller:
    """`told`: what, in order; a session that has ended is told as "done". `ends`: how sessions ended."""

    def __init__(self, calls: AstmCalls) -> None:
        self._calls = calls
        self._rung = asyncio.Event()
        self._calling = False
        self.told: list[str] = []
        self.ends: list[Failure | None] = []
        self._posted = 0
        self.failure: Failure | None = None
        self.reacts: Callable[[str], None] = lambda name: None
        self.wrong: list[str] = []
        self.call: AstmCall

    def calls(self, spec: RemoteSpec) -> Caller:
        with self._from_inside():
            self.call = self._calls.call(spec, self)
        return self

    def posts(self, message: bytes | None = None) -> None:
        self._posted += 1
        with self._from_inside():
            self.call.post(message_of() if message is None else message, self._ended)

    def closes(self) -> None:
        with self._from_inside():
            self.call.close()

    def aborts(self) -> None:
        with self._from_inside():
            self.call.abort()

    @contextmanager
    def _from_inside(self) -> Iterator[None]:
        self._calling = True
        try:
            yield
        finally:
            self._calling = False

    # ---- AstmCallEvents

    def opened(self, call: AstmCall) -> None:
        self._tell("opened")

    def failed(self, call: AstmCall, failure: Failure) -> None:
        self.failure = failure
        self._tell("failed")

    def rang(self, call: AstmCall) -> None:
        self._tell("rang")

    def closed(self, call: AstmCall) -> None:
        self._tell("closed")

    def _ended(self, failure: Failure | None) -> None:
        self.ends.append(failure)
        self._tell("done")

    def _tell(self, name: str) -> None:
        if self._calling:
            self.wrong.append(f"{name} is told from inside a call")
        self.told.append(name)
        self._rung.set()
        self.reacts(name)

    # ---- what a test asks

    async def is_told(self, name: str, times: int = 1) -> None:
        async with asyncio.timeout(WITHIN_S):
            while self.told.count(name) < times:
                self._rung.clear()
                await self._rung.wait()

    async def hears_of_its_session(self) -> Failure | None:
        """What became of the session that was posted last; None: it was taken."""
        await self.is_told("done", self._posted)
        return self.ends[-1]


@asynccontextmanager
async def calling(*, connect_within_s: float = 8.0) -> AsyncIterator[AstmCalls]:
    """Calls at work; at the end all of them are cut."""
    calls = AstmCalls(connect_within_s=connect_within_s)
    running = asyncio.ensure_future(calls.run())  # noqa: TID251  the test is its parent, and ends it
    try:
        await asyncio.sleep(0)
        yield calls
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
