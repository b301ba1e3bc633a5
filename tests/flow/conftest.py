"""What the tests of the flow room share: a desk with a real spool."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from flow_far_ends import Desk, at_the_desk


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with at_the_desk(tmp_path / "spool.db") as desk:
        yield desk
