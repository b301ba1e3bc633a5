"""The disk has a thread of its own: it may hang there, and nothing else does.

Secret: a daemon thread, so that not even the end of the process waits for a disk that does not answer; and how a busy
loop is kept from starving it of the interpreter lock.
Promise: work is done in the order of `submit`; its end is told on the loop, whatever it raised.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

_NUDGE_S: Final = 0.002
_NUDGE_LIMIT_S: Final = 0.05
_GIVE_WAY_S: Final = 0.0005

_T = TypeVar("_T")
_Done = Callable[[Any, BaseException | None], None]


class DiskThread:
    """`urgent`: the loop steps aside for it now and then, so that it is not kept from the interpreter lock."""

    def __init__(self, name: str, *, urgent: bool = False) -> None:
        self._loop = asyncio.get_running_loop()
        self._urgent = urgent
        self._orders: queue.SimpleQueue[tuple[Callable[[], Any], _Done] | None] = queue.SimpleQueue()
        self._finished = threading.Event()
        self._submitted = 0  # counted on the loop
        self._done = 0  # counted in the thread
        self._nudging = False
        self._wait_s = _NUDGE_S
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def submit(self, work: Callable[[], Any], done: _Done) -> None:
        """Have `work` done; `done(result, error)` is called on the loop."""
        self._submitted += 1
        self._orders.put((work, done))
        self._wait_s = _NUDGE_S
        if self._urgent and not self._nudging:
            self._nudging = True
            self._loop.call_later(_NUDGE_S, self._nudge)

    async def run(self, work: Callable[[], _T]) -> _T:
        """Have `work` done and wait for its result. Raises what it raised; cancelled, the work goes on unheard."""
        future: asyncio.Future[_T] = self._loop.create_future()

        def done(result: Any, error: BaseException | None) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

        self.submit(work, done)
        return await future

    def end(self) -> None:
        """Let the thread end after what it was given; nobody waits for it."""
        self._orders.put(None)

    def _nudge(self) -> None:
        """Give way for half a millisecond; more and more rarely to a disk that takes its time."""
        self._finished.clear()
        if self._done == self._submitted or (self._finished.wait(_GIVE_WAY_S) and self._done == self._submitted):
            self._nudging = False
            return
        self._wait_s = min(self._wait_s * 1.2, _NUDGE_LIMIT_S)
        self._loop.call_later(self._wait_s, self._nudge)

    def _work(self) -> None:
        call = self._loop.call_soon_threadsafe
        while (order := self._orders.get()) is not None:
            work, done = order
            result: Any = None
            failure: BaseException | None = None
            try:
                result = work()
            except BaseException as error:  # not swallowed: the loop hears of it
                failure = error
            self._done += 1
            self._finished.set()
            with contextlib.suppress(RuntimeError):  # the loop has gone: nobody waits any more
                call(done, result, failure)
            del order, work, done, result, failure  # a waiting thread keeps no file open
