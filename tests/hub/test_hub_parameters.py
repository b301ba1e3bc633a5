"""Whatever a stranger asks an operation with is read, or refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as some

from agent.hub import Refused
from agent.hub.outcomes import Outcome
from agent.hub.parameters import SHOWN_CHARACTERS, Parameters, pairs_of, text_of

SCALARS = (
    some.none()
    | some.booleans()
    | some.integers(-(2**63), 2**63)
    | some.floats(allow_nan=False, allow_infinity=False)
    | some.text()
)
JSON = some.recursive(SCALARS, lambda inner: some.lists(inner) | some.dictionaries(some.text(), inner), max_leaves=8)
VALUE = some.sampled_from(["valueString", "valueBoolean", "valueInteger", "valueCode", "value", "resource", "part"])
PARAMETER = some.dictionaries(some.just("name") | VALUE, JSON, max_size=3) | JSON


def of(value: Any) -> Parameters:
    return Parameters([("other", 1), ("x", value)])


def attempt(read: Callable[..., Any], *arguments: Any) -> Any:
    """What was read, or the outcome of the refusal."""
    try:
        return read(*arguments)
    except Refused as refused:
        return refused.outcome


@given(JSON)
@example(" 7")
@example("٧")
@example("9" * 19)
@example(1e300)
def test_any_value_is_an_integer_or_refused_by_name(value: Any) -> None:
    match attempt(of(value).integer, "x"):
        case Outcome(status, text=text):
            assert status == 400
            assert text.endswith("' provided for integer parameter 'x'")
            assert len(text) < SHOWN_CHARACTERS + 60
            assert type(value) is not int
        case None:
            assert value in (None, "")
        case read:
            assert type(read) is int
            assert read == (int(value) if isinstance(value, str) else value)


@given(JSON)
@example("true")
@example("false")
@example("True")
@example(1)
def test_any_value_is_a_switch_or_refused_by_name(value: Any) -> None:
    match attempt(of(value).boolean, "x"):
        case Outcome(text=text):
            assert text.endswith("' provided for boolean parameter 'x'")
            assert not isinstance(value, bool)
            assert value not in (None, "", "true", "false")
        case True:
            assert value is True or value == "true"
        case read:
            assert read is False
            assert value is False or value in (None, "", "false")


@given(JSON)
def test_any_value_is_a_text_or_refused_without_being_quoted(value: Any) -> None:
    match attempt(of(value).text, "x"):
        case Outcome(text=text):
            assert text == "Invalid value provided for string parameter 'x'"
            assert not isinstance(value, str)
        case read:
            assert read == (value or None)


@given(some.lists(PARAMETER, max_size=4) | JSON)
def test_any_parameters_are_pairs_or_refused(parameter: Any) -> None:
    match attempt(pairs_of, {"resourceType": "Parameters", "parameter": parameter}):
        case Outcome(status):
            assert status == 400
        case pairs:
            assert [name for name, _ in pairs] == [each["name"] for each in parameter]
            assert not any(isinstance(value, dict | list) for _, value in pairs)


@given(some.dictionaries(some.text(min_size=1), SCALARS).filter(lambda content: "resourceType" not in content))
def test_a_plain_object_and_a_parameters_resource_say_the_same(content: dict[str, Any]) -> None:
    parameter = [{"name": name, "valueSomething": value} for name, value in content.items()]
    assert pairs_of(content) == pairs_of({"resourceType": "Parameters", "parameter": parameter})


@given(SCALARS.filter(lambda value: not isinstance(value, str)))
def test_a_value_in_a_query_string_is_written_as_json(value: Any) -> None:
    assert json.loads(text_of(value)) == value


def test_a_parameters_resource_may_be_empty() -> None:
    assert pairs_of({"resourceType": "Parameters"}) == []


def test_a_value_that_is_there_twice_is_ambiguous() -> None:
    with pytest.raises(Refused, match="'x' is given more than once"):
        Parameters([("x", "a"), ("x", "a")]).text("x")
    assert Parameters([("x", ""), ("x", "a"), ("x", None)]).text("x") == "a"


def test_refusals_have_the_recorded_words() -> None:
    with pytest.raises(Refused, match=r"^Invalid value 'abc' provided for integer parameter 'limit'$"):
        Parameters([("limit", "abc")]).integer("limit")
    with pytest.raises(Refused, match=r"^Invalid value 'yes' provided for boolean parameter 'force'$"):
        Parameters([("force", "yes")]).boolean("force")
