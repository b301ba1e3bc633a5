"""Our agent says what the recorded agent said, but for the differences that we mean."""

from __future__ import annotations

import sys

import pytest
from golden_runs import AGENT_REPLAYS, Replayed, lacking

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="an agent in the foreground is ended by SIGTERM here"),
    pytest.mark.timeout(400),  # the first test of a run waits for the replays of all
]


@pytest.mark.parametrize("replayed", AGENT_REPLAYS)
def test_the_agent_says_what_the_recorded_agent_said(replayed: str, agent_replays: dict[str, Replayed]) -> None:
    if lacking(replayed):
        pytest.skip(lacking(replayed))
    assert not agent_replays[replayed].mismatches, "\n".join(agent_replays[replayed].mismatches)


def test_the_agent_reads_its_configuration_once_for_each_reason(agent_replays: dict[str, Replayed]) -> None:
    again = {name: replayed.read_again for name, replayed in agent_replays.items() if replayed.read_again}
    assert not again, f"read twice in {len(again)} of {len(agent_replays)} scenarios: {again}"


@pytest.mark.parametrize("replayed", ["inbound-messages-per-min"])
def test_sixty_messages_per_minute_are_a_second_apart(replayed: str, agent_replays: dict[str, Replayed]) -> None:
    gaps_kept = [at_s >= number * 1.0 for number, at_s in enumerate(agent_replays[replayed].transmitted_s)]
    assert gaps_kept == [True, True, True]


@pytest.mark.parametrize("replayed", ["fetch-logs", "fetch-logs-multi", "agent-status-off"])
def test_a_page_of_the_log_is_no_longer_than_asked_for(replayed: str, agent_replays: dict[str, Replayed]) -> None:
    pages = agent_replays[replayed].pages
    assert pages
    too_long = [(limit, times) for limit, times in pages if len(times) > limit]
    assert too_long == []
