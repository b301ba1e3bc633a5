"""Searches find what a naive reading of FHIR finds."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.hub.inbox import INSERT
from agent.hub.outcomes import Refused
from agent.hub.resources import Author, Resource, Resources
from agent.hub.search import read_search, terms_of
from agent.hub.store import Store

SOMEBODY = Author("Project/1", "somebody", "1")
NAMES = ("Alpha", "alpine", "BETA", "Größe", "100%", "a_b", "")
SYSTEMS = ("", "urn:a", "urn:b")
VALUES = ("1", "2", "x|y")

agents = st.lists(
    st.fixed_dictionaries(
        {
            "resourceType": st.just("Agent"),
            "name": st.sampled_from([name for name in NAMES if name]),
            "status": st.sampled_from(["active", "off"]),
            "identifier": st.lists(
                st.fixed_dictionaries({"system": st.sampled_from(SYSTEMS), "value": st.sampled_from(VALUES[:2])}),
                max_size=2,
            ),
        }
    ),
    max_size=6,
)
queries = st.lists(
    st.one_of(
        st.tuples(
            st.sampled_from(["name", "name:exact", "name:contains"]), st.sampled_from([*NAMES, "AL", "alpha,b", "%"])
        ),
        st.tuples(
            st.sampled_from(["identifier", "identifier:not"]), st.sampled_from(["1", "urn:a|1", "|2", "urn:b|", "1,2"])
        ),
        st.tuples(st.just("status"), st.sampled_from(["active", "off", "active,off", "none"])),
    ),
    max_size=3,
)


def matches(agent: Resource, name: str, value: str) -> bool:
    """The naive reading."""
    param, _, modifier = name.partition(":")
    wanted = value.split(",")
    if param == "name":
        text = agent["name"].casefold()
        tests: dict[str, Any] = {"": text.startswith, "exact": text.__eq__, "contains": text.__contains__}
        return any(tests[modifier](each.casefold()) for each in wanted)
    if param == "status":
        return agent["status"] in wanted
    found = False
    for each in wanted:
        for identifier in agent["identifier"]:
            system, bar, code = each.rpartition("|")
            found |= (not bar or identifier["system"] == system) and (
                code == identifier["value"] or (bool(bar) and not code)
            )
    return found != (modifier == "not")


@given(agents, queries)
@settings(max_examples=60)
def test_a_search_finds_what_matches_in_order_of_creation(
    population: list[Resource], query: list[tuple[str, str]]
) -> None:
    async def story() -> None:
        with tempfile.TemporaryDirectory() as folder:
            store = Store(Path(folder) / "hub.db", INSERT)
            try:
                resources = Resources(store)
                created = [await resources.create(agent, SOMEBODY) for agent in population]
                expected = [agent["id"] for agent in created if all(matches(agent, *pair) for pair in query)]
                page = resources.find(read_search("Agent", [*query, ("_count", "100")]))
                assert [agent["id"] for agent in page.resources] == expected
                assert page.total == len(expected)
                paged = [
                    agent["id"]
                    for offset in range(len(expected))
                    for agent in resources.find(
                        read_search("Agent", [*query, ("_count", "1"), ("_offset", str(offset))])
                    ).resources
                ]
                assert paged == expected
            finally:
                await store.close()

    asyncio.run(story())


@pytest.fixture
async def resources(tmp_path: Path) -> Any:
    store = Store(tmp_path / "hub.db", INSERT)
    yield Resources(store)
    await store.close()


def found(resources: Resources, type_: str, *query: tuple[str, str]) -> list[str]:
    return [each["id"] for each in resources.find(read_search(type_, query)).resources]


async def test_last_updated_with_every_prefix(resources: Resources) -> None:
    made = await resources.create({"resourceType": "Device"}, SOMEBODY)
    at = made["meta"]["lastUpdated"]
    day = at[:10]
    yes = (
        at,
        f"eq{at}",
        f"ge{at}",
        f"le{at}",
        day,
        f"le{day}",
        "gt2000-01-01",
        "ge2000-01-01T00:00:00Z",
        "sa2000-01-01",
    )
    no = (f"ne{at}", f"gt{at}", f"lt{at}", f"gt{day}", f"eb{day}", "lt2000-01-01", "2000-01-01T00:00:00+14:00")
    assert {value for value in (*yes, *no) if found(resources, "Device", ("_lastUpdated", value))} == set(yes)


async def test_tags_types_urls_and_device_names(resources: Resources) -> None:
    made = await resources.create(
        {
            "resourceType": "Device",
            "meta": {"tag": [{"system": "urn:site", "code": "north"}]},
            "deviceName": [{"name": "Analyser 5", "type": "user-friendly-name"}],
            "type": {"coding": [{"system": "urn:t", "code": "lab"}]},
            "url": "mllp://10.0.0.9:2575",
        },
        SOMEBODY,
    )
    for pair in (
        ("_tag", "urn:site|north"),
        ("_tag", "north"),
        ("device-name", "anal"),
        ("type", "lab"),
        ("url", "mllp://10.0.0.9:2575"),
        ("_id", f"other,{made['id']}"),
    ):
        assert found(resources, "Device", pair) == [made["id"]], pair
    assert made["meta"]["tag"] == [{"system": "urn:site", "code": "north"}]
    assert found(resources, "Device", ("_tag", "south")) == []
    assert found(resources, "Agent") == []


async def test_what_was_changed_or_deleted_is_found_no_more(resources: Resources) -> None:
    made = await resources.create({"resourceType": "Device", "name": "old"}, SOMEBODY)
    await resources.update({**made, "name": "new"}, SOMEBODY)
    assert found(resources, "Device", ("name", "old")) == []
    assert found(resources, "Device", ("name", "new")) == [made["id"]]
    await resources.delete("Device", made["id"])
    assert found(resources, "Device") == []


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("bogus", "1", "Unknown search parameter: bogus"),
        ("name:fuzzy", "x", "Unsupported search modifier: name:fuzzy"),
        ("_id:not", "x", "Unsupported search modifier: _id:not"),
        ("_count", "-1", "Invalid value for _count"),
        ("_count", "1001", "Search _count of 1001"),
        ("_offset", "x", "Invalid value for _offset"),
        ("_lastUpdated", "yesterday", "Invalid date value"),
        ("_sort", "weight", "Unknown search parameter: weight"),
        ("_id", "," * 1_001, "Too many values for _id"),
    ],
)
def test_what_is_not_understood_is_refused(name: str, value: str, text: str) -> None:
    with pytest.raises(Refused, match=text):
        read_search("Agent", [(name, value)])


any_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
any_names = st.sampled_from(["name", "identifier", "status", "meta", "type", "code", "subject", "deviceName"])


def refusal_of(query: list[tuple[str, str]]) -> Refused | None:
    try:
        read_search("Agent", query)
    except Refused as refused:
        return refused
    return None


@given(st.lists(st.tuples(st.text(), st.text())))
def test_any_query_is_read_or_refused(query: list[tuple[str, str]]) -> None:
    refused = refusal_of(query)
    assert refused is None or refused.outcome.status == 400


@given(st.dictionaries(any_names, any_values))
@example({"name": [{"family": "A", "given": 7}]})
def test_any_resource_has_terms(resource: dict[str, Any]) -> None:
    for term in terms_of(resource):
        assert all(isinstance(part, str) for part in term)
