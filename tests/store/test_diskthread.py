"""A thread that may hang, and nobody with it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest

from agent.store.diskthread import DiskThread


@asynccontextmanager
async def thread(*, urgent: bool = False) -> AsyncIterator[DiskThread]:
    it = DiskThread("test-disk", urgent=urgent)
    yield it
    it.end()


async def test_work_is_done_in_order_and_its_results_come_back() -> None:
    async with thread() as disk:
        async with asyncio.TaskGroup() as tasks:
            results = [tasks.create_task(disk.run(partial(pow, n, 2))) for n in range(20)]
        assert [task.result() for task in results] == [n * n for n in range(20)]


async def test_what_work_raises_is_raised_to_who_waits_for_it_and_the_next_goes_on() -> None:
    async with thread() as disk:
        with pytest.raises(ZeroDivisionError):
            await disk.run(lambda: 1 // 0)
        assert await disk.run(lambda: 7) == 7


async def test_the_loop_goes_on_while_work_hangs() -> None:
    async with thread(urgent=True) as disk:
        gate = threading.Event()
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await disk.run(gate.wait)
        assert time.monotonic() - began < 1
        gate.set()
        assert await disk.run(lambda: 7) == 7


async def test_a_busy_loop_leaves_the_thread_its_turn() -> None:
    """Work that lets go of the interpreter lock gets it back within milliseconds, however busy the loop is."""
    async with thread(urgent=True) as disk:
        gate = threading.Event()
        waited: list[float] = []

        def work() -> None:
            for _ in range(5):
                before = time.monotonic()
                gate.wait(0.001)
                waited.append(time.monotonic() - before)

        over = asyncio.Event()
        disk.submit(work, lambda *_: over.set())
        async with asyncio.timeout(5):
            while not over.is_set():
                sum(range(2000))
                await asyncio.sleep(0)
        assert max(waited) < 0.5


async def test_long_work_is_made_way_for_ever_more_rarely() -> None:
    """One chain of nudges, however much is submitted, and it slows down."""
    async with thread(urgent=True) as disk:
        gate = threading.Event()
        for _ in range(50):
            disk.submit(lambda: None, lambda *_: None)
        disk.submit(gate.wait, lambda *_: None)
        turns = 0
        until = time.monotonic() + 0.3
        while time.monotonic() < until:
            turns += 1
            await asyncio.sleep(0.001)
        gate.set()
        assert disk._wait_s > 0.01
        assert turns > 100


def test_a_process_ends_although_its_disk_hangs() -> None:
    code = (
        "import asyncio, threading\n"
        "from agent.store.diskthread import DiskThread\n"
        "async def main():\n"
        "    DiskThread('hangs').submit(threading.Event().wait, print)\n"
        "asyncio.run(main())\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=20)
