"""The agent inside the test's own process, where the disk under it can be controlled.

Secret: how the whole daemon is run as a task.
Promise: it is the same composition as `agent run`; at the end it has stopped, in order.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from ward_agents import FarEnd, environment_of

from agent import process
from agent.settings import Settings

STOP_WITHIN_S = 15.0


@asynccontextmanager
async def resident_agent(far_end: FarEnd, folder: Path) -> AsyncIterator[None]:
    """The daemon, with its data below an existing folder, while the block runs. It listens a moment later."""
    environment = environment_of(far_end, folder)

    def read() -> Settings:
        return Settings.load({"data_dir": str(folder / "data")}, environment, folder)

    stop = asyncio.Event()
    thresholds = gc.get_threshold()
    try:
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(process.run(read(), environment, read, stop=stop), name="agent")
            try:
                yield
            finally:
                stop.set()
                await asyncio.wait([running], timeout=STOP_WITHIN_S)  # also after a failure: it closes what it opened
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()
