"""The replays of the agent, made once for all tests of a run."""

from __future__ import annotations

import asyncio

import pytest
from golden_runs import AGENT_REPLAYS, Replayed, lacking, replay_agents


@pytest.fixture(scope="session")
def agent_replays(request: pytest.FixtureRequest) -> dict[str, Replayed]:
    """The replays that the tests of this run ask for, by name."""
    asked = {item.callspec.params.get("replayed") for item in request.session.items if hasattr(item, "callspec")}
    wanted = [name for name in AGENT_REPLAYS if name in asked] or list(AGENT_REPLAYS)
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        return runner.run(replay_agents([name for name in wanted if not lacking(name)]))
