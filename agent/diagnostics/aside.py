"""Work that may hang in the operating system, in threads that nobody waits for.

Secret: which thread does it, and what is left of one whose disk or name server never answers.
Promise: whoever gives up on the work is free at once, so is the end of the process; and only so many can hang at one
time.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, TypeVar

AT_ONCE: Final = 16

_T = TypeVar("_T")


class Unwaited(ThreadPoolExecutor):
    """An executor without a pool: its own one would be waited for at the end of the process, however long it hangs."""

    def submit(self, fn: Callable[..., _T], /, *args: Any, **kwargs: Any) -> Future[_T]:
        future: Future[_T] = Future()
        future.set_running_or_notify_cancel()  # before it runs: what is begun cannot be called off

        def work() -> None:
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:  # not swallowed: whoever waits hears of it
                future.set_exception(error)
            else:
                future.set_result(result)

        threading.Thread(target=work, name="diagnostics", daemon=True).start()
        return future


class Threads:
    """`at_once`: how many may work, or hang. Who comes when all do, waits."""

    def __init__(self, at_once: int = AT_ONCE) -> None:
        self._pool = Unwaited()
        self._room = asyncio.Semaphore(at_once)

    async def run(self, work: Callable[[], _T]) -> _T:
        """What `work` returns or raises; cancelled, it goes on unheard, and keeps its place until it ends."""
        await self._room.acquire()
        loop = asyncio.get_running_loop()

        def watched() -> _T:
            try:
                return work()
            finally:
                with contextlib.suppress(RuntimeError):  # the loop has gone: nobody waits any more
                    loop.call_soon_threadsafe(self._room.release)

        return await loop.run_in_executor(self._pool, watched)
