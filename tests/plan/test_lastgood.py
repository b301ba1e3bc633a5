"""The last good configuration survives a power cut, and a damaged one does no harm."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.errors import Finding, StoreError
from agent.plan import LastGood, load_last_good, save_last_good
from agent.plan.lastgood import Version, digest_of, versions_of
from agent.protocol.fhir import Agent, AgentChannel, Endpoint, Reference

AGENT: dict[str, Any] = {
    "resourceType": "Agent",
    "id": "a",
    "meta": {"versionId": "1"},
    "channel": [{"name": "adt", "endpoint": {"reference": "Endpoint/e"}}],
}
ENDPOINTS: dict[str, dict[str, Any]] = {"Endpoint/e": {"resourceType": "Endpoint", "id": "e", "address": "mllp://h:1"}}
WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_what_was_saved_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "last-good.json"

    save_last_good(path, AGENT, ENDPOINTS, WHEN)

    agent = Agent(id="a", channel=(AgentChannel("adt", Reference("Endpoint/e")),))
    assert load_last_good(path) == LastGood(
        agent,
        {"Endpoint/e": Endpoint(id="e", address="mllp://h:1")},
        WHEN,
        {"Agent/a": Version("1"), "Endpoint/e": Version()},
        digest_of(AGENT, ENDPOINTS),
    )
    assert [entry.name for entry in tmp_path.iterdir()] == ["last-good.json"], "no draft is left behind"


def test_the_resources_are_kept_whole_for_later_versions(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    save_last_good(path, AGENT, ENDPOINTS, WHEN)

    assert json.loads(path.read_bytes()) == {
        "version": 1,
        "savedAt": "2026-01-02T03:04:05Z",
        "agent": AGENT,
        "endpoints": ENDPOINTS,
    }


def test_what_a_kill_left_of_a_draft_is_written_over(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    (tmp_path / "x.json.tmp").write_bytes(b'{"half')
    save_last_good(path, AGENT, ENDPOINTS, WHEN)
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.json"]
    assert isinstance(load_last_good(path), LastGood)


def test_versions_are_told_as_the_resources_have_them() -> None:
    dated = {**AGENT, "meta": {"versionId": "7", "lastUpdated": "2026-01-02T03:04:05Z"}}
    odd = {"Endpoint/e": {"meta": "none"}, "Endpoint/f": {"meta": {"versionId": 3}}}
    assert versions_of(dated, odd) == {
        "Agent/a": Version("7", "2026-01-02T03:04:05Z"),
        "Endpoint/e": Version(),
        "Endpoint/f": Version(),
    }


@given(st.dictionaries(st.text(), st.integers() | st.text(), max_size=4), st.text())
def test_a_digest_tells_another_content_and_not_another_order(fields: dict[str, Any], more: str) -> None:
    backwards = dict(reversed(fields.items()))
    assert digest_of(fields, {"e": fields}) == digest_of(backwards, {"e": backwards})
    assert digest_of(fields, {}) != digest_of({**fields, f"{more}'": more}, {}) or f"{more}'" in fields


def test_none_was_ever_saved(tmp_path: Path) -> None:
    assert load_last_good(tmp_path / "x.json") is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_file_cut_or_changed_anywhere_is_a_finding_or_still_whole(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "x.json"
    save_last_good(path, AGENT, ENDPOINTS, WHEN)
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    path.write_bytes(
        bytes(content[:at])
        if data.draw(st.booleans())
        else bytes(content[:at]) + data.draw(st.binary(min_size=1, max_size=1)) + bytes(content[at + 1 :])
    )

    assert isinstance(load_last_good(path), LastGood | Finding)


@pytest.mark.parametrize("content", [b"", b"null", b"[]", b"{}", b'{"version":1}', b"\xff", b'{"version":"1"}'])
def test_a_damaged_file_is_a_finding_that_names_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)

    found = load_last_good(path)

    assert isinstance(found, Finding)
    assert (found.code, found.where) == ("plan.last-good-unusable", str(path))


def test_a_file_of_a_later_version_is_told_from_a_damaged_one(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"version": 9, "anything": 1}')

    found = load_last_good(path)

    assert isinstance(found, Finding)
    assert "form 9" in found.text


def test_a_disk_that_does_not_take_it_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.mkdir()

    with pytest.raises(StoreError) as refused:
        save_last_good(path, AGENT, ENDPOINTS, WHEN)

    assert refused.value.hint
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.json"]
    if sys.platform != "win32":
        assert isinstance(load_last_good(path), Finding), "a folder in its place is reported, not raised"
