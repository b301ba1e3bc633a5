"""Resources as servers send them, and as they should not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.protocol.fhir import (
    Agent,
    Endpoint,
    OperationOutcome,
    Reference,
    UnreadableResource,
    read_agent,
    read_endpoint,
    read_outcome,
)

# as recorded from Medplum server 5.0.10 (scenario connect-settings), shortened
AGENT = {
    "resourceType": "Agent",
    "name": "agent",
    "status": "active",
    "channel": [
        {
            "name": "adt",
            "endpoint": {"reference": "Endpoint/ab8bdef4-acb4-4a41-a51a-1b911a512114"},
            "targetReference": {"reference": "Bot/92d0a73d-d52d-414c-9c65-b4b589ecf515"},
        }
    ],
    "setting": [
        {"name": "keepAlive", "valueBoolean": False},
        {"name": "maxClientsPerRemote", "valueInteger": 3},
        {"name": "channelAutoRetryBackoffMultiplier", "valueDecimal": 1.5},
        {"name": "channelRetryMode", "valueString": "normal"},
        {"name": "empty"},
    ],
    "id": "8e4a47e5-f011-4334-9fd5-6a99d946920e",
    "meta": {"versionId": "43f97de7", "author": {"reference": "ClientApplication/a5ed5ddc", "display": "API client"}},
}


def test_an_agent_as_recorded_is_read_and_unknown_fields_are_passed_over() -> None:
    agent = read_agent(json.dumps(AGENT))

    assert (agent.id, agent.status) == ("8e4a47e5-f011-4334-9fd5-6a99d946920e", "active")
    assert agent.channel[0].endpoint == Reference("Endpoint/ab8bdef4-acb4-4a41-a51a-1b911a512114")
    assert agent.channel[0].target_reference.reference.startswith("Bot/")
    assert [setting.value for setting in agent.setting] == [False, 3, 1.5, "normal", None]


def test_text_bytes_and_objects_are_the_same_resource() -> None:
    assert read_agent(AGENT) == read_agent(json.dumps(AGENT)) == read_agent(json.dumps(AGENT).encode())


def test_an_agent_without_channels_and_an_endpoint_that_is_off() -> None:
    assert read_agent({"resourceType": "Agent", "status": "off"}) == Agent(status="off")
    assert read_endpoint({"resourceType": "Endpoint", "status": "off", "address": "x"}) == Endpoint(
        status="off", address="x"
    )


def test_an_outcome_speaks_with_the_words_for_people() -> None:
    outcome = read_outcome(
        {
            "resourceType": "OperationOutcome",
            "id": "gone",
            "issue": [
                {"severity": "error", "code": "deleted", "details": {"text": "Gone"}},
                {"severity": "error", "code": "invalid", "diagnostics": "more"},
                {"severity": "error", "code": "processing"},
            ],
        }
    )

    assert outcome.text == "Gone; more; processing"
    assert OperationOutcome().text == ""


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"channel": [{"name": 5}]}, "$.channel[0].name"),
        ({"channel": [{"name": "a"}, {"endpoint": {}}]}, "$.channel[1]"),
        ({"setting": [{"name": "x", "valueInteger": "5"}]}, "$.setting[0].valueInteger"),
        ({"setting": {"name": "x"}}, "$.setting"),
        ({"status": None}, "$.status"),
    ],
)
def test_a_wrong_type_is_refused_with_its_path(change: dict[str, Any], path: str) -> None:
    with pytest.raises(UnreadableResource) as refused:
        read_agent(AGENT | change)

    assert path in refused.value.findings[0].text


def test_another_resource_in_its_place_is_named() -> None:
    with pytest.raises(UnreadableResource, match="OperationOutcome"):
        read_agent({"resourceType": "OperationOutcome"})


def test_a_proxys_login_page_gets_the_remedy_it_needs() -> None:
    with pytest.raises(UnreadableResource) as refused:
        read_agent("<html>login</html>")

    assert "proxy" in refused.value.findings[0].remedy


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*AGENT, "x"]), inner, max_size=4),
    max_leaves=8,
)


@given(
    st.one_of(
        st.binary(), st.text(), JSON.map(json.dumps), JSON.map(lambda value: json.dumps(AGENT | {"channel": value}))
    )
)
def test_whatever_a_server_sends_is_a_resource_or_unreadable(source: bytes | str) -> None:
    for read in (read_agent, read_endpoint, read_outcome):
        try:
            resource = read(source)
        except UnreadableResource:
            continue
        assert isinstance(resource, Agent | Endpoint | OperationOutcome)
