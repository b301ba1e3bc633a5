"""Work in threads that nobody waits for."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from agent.diagnostics.aside import Threads


async def test_what_the_work_returns_or_raises_comes_back() -> None:
    threads = Threads()

    assert await threads.run(lambda: 6 * 7) == 42
    with pytest.raises(ZeroDivisionError):
        await threads.run(lambda: 1 // 0)


async def test_who_gives_up_is_free_while_the_work_still_hangs() -> None:
    threads, release = Threads(), threading.Event()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await threads.run(release.wait)

    assert await threads.run(lambda: "another") == "another"
    release.set()


async def test_only_so_many_hang_at_one_time_and_the_next_waits_for_its_place() -> None:
    threads, release = Threads(1), threading.Event()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await threads.run(release.wait)

    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(threads.run(lambda: "my turn"))
        await asyncio.sleep(0)
        assert not waiting.done()
        release.set()

    assert waiting.result() == "my turn"


def test_the_end_of_the_process_waits_for_nothing_that_hangs() -> None:
    script = """
import asyncio, threading
from agent.diagnostics.aside import Threads, Unwaited

async def main():
    asyncio.get_running_loop().set_default_executor(Unwaited())
    for hang in (asyncio.to_thread(threading.Event().wait), Threads().run(threading.Event().wait)):
        try:
            async with asyncio.timeout(0.05):
                await hang
        except TimeoutError:
            print("late")

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("late\nlate\n", "")
