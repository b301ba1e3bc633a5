"""Our hub says what the recorded server said, but for the differences that we mean."""

from __future__ import annotations

import pytest
from golden_runs import HUB_REPLAYS, replay_hub


@pytest.mark.parametrize("scenario", HUB_REPLAYS)
async def test_the_hub_says_what_the_recorded_server_said(scenario: str) -> None:
    mismatches = await replay_hub(scenario)
    assert not mismatches, "\n".join(mismatches)
