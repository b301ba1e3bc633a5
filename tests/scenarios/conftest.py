"""Every scenario gets a ward of its own."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from ward_building import Ward


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder whose path is short enough for the sockets in it."""
    with tempfile.TemporaryDirectory(prefix="ward-") as folder:
        yield Path(folder)


@pytest.fixture
async def ward(short_path: Path) -> AsyncIterator[Ward]:
    async with AsyncExitStack() as stack:
        ward = Ward(short_path, stack)
        yield ward
        ward.assert_no_agent_crashed()
