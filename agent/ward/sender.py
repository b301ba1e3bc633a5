"""Send messages over MLLP as the devices of a hospital would.

Secret: how several connections share the messages, the agreed rate and the fate of a lost connection.
Promise: a message leaves its feed only when it can be written at once, so that none is lost on the way; the run ends
when everything was sent and answered, or says why not.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from time import perf_counter

from agent.ward.destination import Destination
from agent.ward.line import Ending, Line, LineLimits
from agent.ward.tally import Ledger, Tally

CONNECT_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 1.0
CONNECTING_AT_ONCE = 64
FIRST_RETRY_S = 0.1
LAST_RETRY_S = 5.0
# What a slow moment may be made up for afterwards; without it a timer that is late would lower the rate.
CATCH_UP_S = 0.1


@dataclass(frozen=True, slots=True)
class Pace:
    """How to send. `count`: stop after so many messages. `rate_per_s`: over all connections; None = as answers come.

    `pipeline`: unanswered messages that a connection may have. `reconnect`: go on after a lost connection, for ever if
    need be; a peer that closes politely after answering is reconnected to in any case. `linger_s`: how long to wait, at
    the end, for the application answers that CAs announce.
    """

    connections: int = 1
    pipeline: int = 1
    rate_per_s: float | None = None
    count: int | None = None
    ack_timeout_s: float = 30.0
    reconnect: bool = False
    linger_s: float = 2.0


class Sender:
    """One run. `feeds`: connection i draws from feed i modulo their number; a feed may serve several connections."""

    def __init__(
        self,
        to: Destination,
        feeds: Sequence[Iterable[bytes]],
        pace: Pace | None = None,
        *,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._to = to
        self._pace = pace or Pace()
        self._tls = tls if tls is not None or not to.tls else ssl.create_default_context()
        self._ledger = Ledger()
        self._turnstile = _Turnstile(self._pace.rate_per_s, self._pace.count)
        self._feeds = [_Feed(feed) for feed in feeds]
        self._limits = LineLimits(self._pace.pipeline, self._pace.ack_timeout_s, self._pace.linger_s)
        self._connecting = asyncio.Semaphore(CONNECTING_AT_ONCE)
        self._started_at: float | None = None
        self._ended_at: float | None = None

    def tally(self) -> Tally:
        """The counters at this moment."""
        started_at = self._started_at
        elapsed_s = 0.0 if started_at is None else (self._ended_at or perf_counter()) - started_at
        return self._ledger.tally(elapsed_s)

    async def run(self) -> Tally:
        """Send until the feeds are dry or the count is reached. Cancelling it closes the connections, count settled."""
        self._started_at = perf_counter()
        lanes = self._pace.connections if self._pace.count is None else min(self._pace.connections, self._pace.count)
        supplies = [_Supply(self._feeds[lane % len(self._feeds)], self._turnstile) for lane in range(lanes)]
        try:
            async with asyncio.TaskGroup() as lines:
                for lane, supply in enumerate(supplies):
                    lines.create_task(self._keep(supply), name=f"line:{lane}")
        finally:
            self._ended_at = perf_counter()
        if not all(supply.dry for supply in supplies):
            self._ledger.stopped = self._ledger.obstacle
        return self.tally()

    async def _keep(self, supply: _Supply) -> None:
        """Keep one connection open until its messages are sent."""
        retry_s = FIRST_RETRY_S
        while not supply.dry:
            try:
                line = await self._connect(supply)
            except OSError as error:
                self._ledger.obstacle = f"cannot connect to {self._to}: {_why(error)}"
                retry_s = min(retry_s * 2, LAST_RETRY_S)
            else:
                ending = await self._see_through(line)
                if ending is Ending.FINISHED:
                    return
                if ending in (Ending.CLOSED, Ending.GIVEN_UP):
                    continue
                self._ledger.obstacle = line.reason
                retry_s = FIRST_RETRY_S
            if not self._pace.reconnect:
                return
            await asyncio.sleep(retry_s * random.uniform(0.5, 1.0))

    async def _connect(self, supply: _Supply) -> Line:
        async with self._connecting, asyncio.timeout(CONNECT_TIMEOUT_S):
            _, line = await asyncio.get_running_loop().create_connection(
                lambda: Line(supply, self._limits, self._ledger),
                self._to.host,
                self._to.port,
                ssl=self._tls,
                happy_eyeballs_delay=0.25,
            )
        return line

    async def _see_through(self, line: Line) -> Ending | None:
        """Let the line send until it ends; leave nothing of it behind."""
        try:
            line.fill()
            await line.ended.wait()
        finally:
            line.end(Ending.INTERRUPTED, "interrupted")
            try:
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await line.closed.wait()
            except TimeoutError:
                line.abort()
        return line.ending


class _Turnstile:
    """Lets messages through at the agreed rate and up to the agreed number, and wakes those who wait, in turn."""

    def __init__(self, rate_per_s: float | None, count: int | None) -> None:
        self._gap_s = 1.0 / rate_per_s if rate_per_s else 0.0
        self._left = count
        self._next_at = 0.0
        self._queue: deque[Callable[[], None]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def closed(self) -> bool:
        return self._left == 0

    def wait_s(self) -> float:
        return max(self._next_at - perf_counter(), 0.0) if self._gap_s and not self.closed else 0.0

    def go_through(self) -> None:
        if self._left is not None:
            self._left -= 1
        if self._gap_s:
            now = perf_counter()
            self._next_at = max(self._next_at or now, now - CATCH_UP_S) + self._gap_s

    def enqueue(self, resume: Callable[[], None]) -> None:
        self._queue.append(resume)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self.wait_s(), self._open)

    def _open(self) -> None:
        self._timer = None
        # Those who go through may queue up again at once; a bound on the turns keeps the loop free for their answers.
        for _ in range(len(self._queue)):
            if self.wait_s() > 0:
                break
            self._queue.popleft()()
        if self._queue and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self.wait_s(), self._open)


class _Feed:
    """Messages for one or several connections. It looks one ahead, so that nobody connects for nothing."""

    def __init__(self, bodies: Iterable[bytes]) -> None:
        self._bodies = iter(bodies)
        self._next: bytes | None = None

    @property
    def dry(self) -> bool:
        if self._next is None:
            self._next = next(self._bodies, None)
        return self._next is None

    def take(self) -> bytes | None:
        body = None if self.dry else self._next
        self._next = None
        return body


class _Supply:
    """The messages of one connection; it outlives the connection."""

    def __init__(self, feed: _Feed, turnstile: _Turnstile) -> None:
        self._feed = feed
        self._turnstile = turnstile

    @property
    def dry(self) -> bool:
        """Whether there is nothing more to take."""
        return self._turnstile.closed or self._feed.dry

    def take(self) -> bytes | None:
        if self.dry:
            return None
        self._turnstile.go_through()
        return self._feed.take()

    def wait_s(self) -> float:
        return self._turnstile.wait_s()

    def wait(self, resume: Callable[[], None]) -> None:
        self._turnstile.enqueue(resume)


def _why(error: OSError) -> str:
    """The reason of a failed connection as part of a sentence, with the remedy where there is an obvious one."""
    match error:
        case TimeoutError():
            return f"no answer within {CONNECT_TIMEOUT_S:g} s; check the address and the firewalls on the way"
        case ConnectionRefusedError():
            return "refused; check the port and whether the receiver runs"
        case ssl.SSLCertVerificationError():
            return f"its certificate is not trusted ({error.verify_message}); name its authority, or do not verify it"
        case ssl.SSLError():
            return f"TLS failed ({error.reason or error}); check whether the receiver speaks TLS"
        case _:
            return error.strerror or str(error)
