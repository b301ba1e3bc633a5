"""The JSON Schema of config.toml says what the parsers say."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.settings.example import example_toml
from agent.settings.keys import KEYS, NAMED
from agent.settings.schema import toml_schema
from agent.settings.shape import Key
from agent.settings.values import Choice, Number, Unfit, agent_id, level, switch

KINDS = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "object": dict}
UNDERSTOOD = {
    "type", "enum", "const", "anyOf", "pattern", "minimum", "maximum", "properties", "patternProperties",
    "additionalProperties",
}  # fmt: skip
ANNOTATIONS = {"$schema", "title", "description", "default", "examples", "writeOnly"}


def problems(schema: Mapping[str, Any], value: Any, place: str = "") -> list[str]:
    """Where the value breaks the schema (JSON Schema Validation 2020-12, the keywords that ours uses)."""
    assert {name for name in schema if not name.startswith("x-")} <= UNDERSTOOD | ANNOTATIONS
    kind = schema.get("type")
    if kind and (not isinstance(value, KINDS[kind]) or (isinstance(value, bool) and kind != "boolean")):
        return [f"{place} is no {kind}"]
    found = []
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{place} is none of the words")
    if "const" in schema and value is not schema["const"]:
        found.append(f"{place} is not that")
    if "anyOf" in schema and all(problems(option, value, place) for option in schema["anyOf"]):
        found.append(f"{place} fits nothing")
    if "pattern" in schema and not re.search(schema["pattern"], value):
        found.append(f"{place} has another form")
    if "minimum" in schema and not schema["minimum"] <= value <= schema["maximum"]:
        found.append(f"{place} is out of range")
    if isinstance(value, dict):
        for name, inner in value.items():
            fitting = [each for form, each in schema.get("patternProperties", {}).items() if re.search(form, name)]
            if name in schema.get("properties", {}):
                fitting.append(schema["properties"][name])
            if not fitting and schema.get("additionalProperties") is False:
                found.append(f"{place}.{name} is unknown")
            for each in fitting:
                found += problems(each, inner, f"{place}.{name}")
    return found


def entry(name: str) -> dict[str, Any]:
    found = toml_schema()
    for part in name.split("."):
        found = found["properties"][part]
    return found


def test_the_example_fits_with_every_comment_sign_removed_and_as_it_is() -> None:
    whole = re.sub(r"(?m)^# (?=\w+ = |\[[\w.]+\]$)", "", example_toml())

    assert problems(toml_schema(), tomllib.loads(whole)) == []
    assert problems(toml_schema(), tomllib.loads(example_toml())) == []


@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        ({"server": {"base_urls": "x"}}, ".server.base_urls is unknown"),
        ({"server": {"base_url": "ftp://x"}}, ".server.base_url has another form"),
        ({"limits": {"window_frames": 0}}, ".limits.window_frames is out of range"),
        ({"limits": {"window_frames": "7"}}, ".limits.window_frames is no integer"),
        ({"limits": {"window_frames": True}}, ".limits.window_frames is no integer"),
        ({"log": {"console": "sometimes"}}, ".log.console is none of the words"),
        ({"diagnostics": {"listen": 70_000}}, ".diagnostics.listen fits nothing"),
        ({"tls": {"main": {"key": "x"}}}, ".tls.main.key is unknown"),
        ({"tls": {"a b": {}}}, ".tls.a b is unknown"),
        ({"server": 1}, ".server is no object"),
    ],
)
def test_what_does_not_fit_is_found(wrong: dict[str, Any], place: str) -> None:
    assert problems(toml_schema(), wrong) == [place]


def test_every_key_stands_in_it_with_its_names_and_its_default() -> None:
    for key in KEYS:
        found = entry(key.name)
        assert found["description"] == key.doc
        assert found["x-environment"] == list(key.env_names)
        assert ("default" in found) == (key.default is not None)
        if key.default is not None:
            assert str(found["default"]) == str(key.default)
            assert problems(found, found["default"]) == []
        assert found.get("writeOnly", False) is key.secret
    for section in NAMED.values():
        (table,) = toml_schema()["properties"][section.name]["patternProperties"].values()
        assert set(table["properties"]) == {key.leaf for key in section.keys}


@pytest.mark.parametrize("key", [key for key in KEYS if isinstance(key.parse, Number)], ids=lambda key: key.name)
def test_the_bounds_of_a_number_are_those_of_its_parser(key: Key) -> None:
    found = entry(key.name)
    step = 1 if found["type"] == "integer" else 0.5

    for inside in (found["minimum"], found["maximum"]):
        assert key.parse(inside, Path("/")) == inside
    for outside in (found["minimum"] - step, found["maximum"] + step):
        with pytest.raises(Unfit):
            key.parse(outside, Path("/"))


STRICT = [key for key in KEYS if isinstance(key.parse, Number | Choice) or key.parse in (level, switch, agent_id)]
ANY = st.one_of(
    st.integers(), st.floats(), st.booleans(), st.text(max_size=20), st.integers(0, 100),
    st.sampled_from(["INFO", "warn", "auto", "Agent/1", "a-1"]),
)  # fmt: skip


@given(st.sampled_from(STRICT), ANY)
def test_what_the_schema_lets_through_the_parser_takes(key: Key, value: object) -> None:
    if problems(entry(key.name), value) or value == "":
        return
    try:
        key.parse(value, Path("/"))
    except Unfit as unfit:
        pytest.fail(f"{key.name} = {value!r}: {unfit}")
