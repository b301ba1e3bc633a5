"""JSON Patch, RFC 6902 and the examples of its appendix."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.hub.jsonpatch import BadPatch, apply_patch

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize(
    ("document", "step", "expected"),
    [
        ({"foo": "bar"}, {"op": "add", "path": "/baz", "value": 1}, {"foo": "bar", "baz": 1}),
        ({"foo": [1, 2]}, {"op": "add", "path": "/foo/1", "value": 9}, {"foo": [1, 9, 2]}),
        ({"foo": [1]}, {"op": "add", "path": "/foo/-", "value": [2]}, {"foo": [1, [2]]}),
        ({"a": 1, "b": 2}, {"op": "remove", "path": "/a"}, {"b": 2}),
        ({"foo": [1, 2, 3]}, {"op": "remove", "path": "/foo/1"}, {"foo": [1, 3]}),
        ({"a": 1}, {"op": "replace", "path": "/a", "value": 2}, {"a": 2}),
        ({"a": [1, 2]}, {"op": "replace", "path": "/a/0", "value": 9}, {"a": [9, 2]}),
        ({"a": 1}, {"op": "replace", "path": "", "value": [1]}, [1]),
        ({"a": {"b": 1}, "c": {}}, {"op": "move", "from": "/a/b", "path": "/c/d"}, {"a": {}, "c": {"d": 1}}),
        ({"a": [1, 2, 3]}, {"op": "move", "from": "/a/0", "path": "/a/2"}, {"a": [2, 3, 1]}),
        ({"a": {"b": 1}}, {"op": "copy", "from": "/a", "path": "/c"}, {"a": {"b": 1}, "c": {"b": 1}}),
        ({"a/b": 1, "m~n": 2}, {"op": "remove", "path": "/a~1b"}, {"m~n": 2}),
        ({"a/b": 1, "m~n": 2}, {"op": "test", "path": "/m~0n", "value": 2}, {"a/b": 1, "m~n": 2}),
    ],
)
def test_each_operation(document: Any, step: dict[str, Any], expected: Any) -> None:
    assert apply_patch(document, [step]) == expected


@pytest.mark.parametrize(
    "patch",
    [
        {},
        ["x"],
        [{"op": "add"}],
        [{"op": "add", "path": "x", "value": 1}],
        [{"op": "add", "path": "/a"}],
        [{"op": "add", "path": "/no/where", "value": 1}],
        [{"op": "add", "path": "/list/7", "value": 1}],
        [{"op": "add", "path": "/list/01", "value": 1}],
        [{"op": "add", "path": "/a/b", "value": 1}],
        [{"op": "remove", "path": "/list/-"}],
        [{"op": "replace", "path": "/none", "value": 1}],
        [{"op": "test", "path": "/a", "value": 2}],
        [{"op": "move", "path": "/b"}],
        [{"op": "move", "from": "/object", "path": "/object/x"}],
        [{"op": "spell", "path": "/a"}],
        [{"op": "add", "path": "/object/x", "value": 1}, {"op": "remove", "path": "/none"}],
    ],
)
def test_what_does_not_fit_is_refused_whole(patch: Any) -> None:
    document = {"a": 1, "list": [1], "object": {}}
    before = copy.deepcopy(document)
    with pytest.raises(BadPatch):
        apply_patch(document, patch)
    assert document == before


@given(json_values, st.text(max_size=4) | st.sampled_from(["/", "/0", "/-", "/a", "/a/0"]), json_values)
def test_any_patch_works_or_is_refused(document: Any, path: str, value: Any) -> None:
    before = copy.deepcopy(document)
    for op in ("add", "remove", "replace", "test", "move", "copy"):
        with contextlib.suppress(BadPatch):
            apply_patch(document, [{"op": op, "path": path, "from": path, "value": value}])
        assert document == before


@given(st.dictionaries(st.text(), json_values), st.text(), json_values)
def test_what_is_added_can_be_tested_and_removed(document: dict[str, Any], name: str, value: Any) -> None:
    path = "/" + name.replace("~", "~0").replace("/", "~1")
    steps = [{"op": "add", "path": path, "value": value}, {"op": "test", "path": path, "value": value}]
    added = apply_patch(document, steps)
    assert added == {**document, name: value}
    without = {key: each for key, each in document.items() if key != name}
    assert apply_patch(added, [{"op": "remove", "path": path}]) == without
