"""What the tests of the ward share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from scripted_peer import Peer, open_peer


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    async with open_peer() as peer:
        yield peer
