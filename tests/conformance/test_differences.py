"""The table of intended differences is true: every entry changes a recording, and says so to whom it concerns."""

from __future__ import annotations

from fnmatch import fnmatch

import pytest
from differences import DIFFERENCES, LEFT_OUT
from golden_agent_lines import lines_for_agent
from golden_difference import Difference, LeftOut
from golden_hub import lines_for_hub
from golden_runs import AGENT_REPLAYS, HUB_REPLAYS
from golden_transcript import FOLDER, Line, load

REPLAYED = {
    "agent": sorted({name.partition(" of ")[0] for name in AGENT_REPLAYS}),
    "server": sorted(HUB_REPLAYS),
}
KEPT = {path.stem for path in FOLDER.glob("*.json")}
every_difference = pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda difference: difference.says[:50])


def recording(party: str, scenario: str) -> list[Line]:
    """What this party takes part in, rewritten by nobody yet."""
    return lines_for_agent(load(scenario)) if party == "agent" else lines_for_hub(load(scenario))


def changed(difference: Difference) -> list[str]:
    """The scenarios that an entry changes, with the entries before it at work."""
    found = []
    for scenario in REPLAYED[difference.party]:
        lines = recording(difference.party, scenario)
        for earlier in DIFFERENCES[: DIFFERENCES.index(difference)]:
            if earlier.applies_to(difference.party, scenario):
                lines = earlier.edit(lines)
        if difference.applies_to(difference.party, scenario) and difference.edit(lines) != lines:
            found.append(scenario)
    return found


@every_difference
def test_each_pattern_of_an_entry_names_a_recording_that_the_entry_changes(difference: Difference) -> None:
    scenarios = changed(difference)
    idle = [pattern for pattern in difference.scenarios if not any(fnmatch(name, pattern) for name in scenarios)]
    assert not idle, f"nothing changes in {idle}"


@every_difference
def test_an_entry_leaves_alone_what_devices_do(difference: Difference) -> None:
    """A device does what it does, whoever answers it."""
    for scenario in changed(difference):
        before = recording(difference.party, scenario)
        for kind in ("open", "frame", "bytes"):
            theirs = [line for line in before if line.by == "device" and line.kind == kind]
            after = [line for line in difference.edit(before) if line.by == "device" and line.kind == kind]
            assert after == theirs


@every_difference
def test_an_entry_leaves_to_remotes_what_they_say(difference: Difference) -> None:
    """A remote answers as it does, on whichever connection it was asked."""
    for scenario in changed(difference):
        before = recording(difference.party, scenario)
        theirs = sorted(line.text for line in before if line.by == "remote")
        assert sorted(line.text for line in difference.edit(before) if line.by == "remote") == theirs


@pytest.mark.parametrize("entry", [*DIFFERENCES, *LEFT_OUT], ids=lambda entry: entry.because[:50])
def test_the_reason_is_a_sentence(entry: Difference | LeftOut) -> None:
    assert entry.because[0].isupper()
    assert entry.because.endswith(".")
    assert len(entry.because.split()) > 5


def test_every_recording_is_replayed_for_somebody() -> None:
    assert {*REPLAYED["agent"], *REPLAYED["server"]} == KEPT


@pytest.mark.parametrize("party", ["agent", "server"])
def test_a_party_takes_part_in_every_recording_or_stands_among_those_left_out(party: str) -> None:
    left_out = {name for left in LEFT_OUT if left.party == party for name in left.scenarios}
    assert left_out == KEPT - {*REPLAYED[party]}


def test_the_recordings_that_this_project_is_judged_by_are_all_here() -> None:
    asked_for = """connect* heartbeat* inbound-* reconnect-* start-server-down token-* ws-upgrade-timeout status bulk-*
    stats push-* ping* fetch-logs* agent-offline agent-status-off endpoint-status-off *-odd-frames
    two-connections-same-agent wrong-* malformed-agent-id api-unauthorized"""
    assert not [pattern for pattern in asked_for.split() if not any(fnmatch(name, pattern) for name in KEPT)]
    assert len(KEPT) == 81
