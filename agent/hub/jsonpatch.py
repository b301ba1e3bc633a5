"""Apply a JSON Patch (RFC 6902).

Secret: how JSON pointers (RFC 6901) walk a document.
Promise: the document that is given stays as it was; a patch that cannot be applied whole is refused whole,
with its place.
"""

from __future__ import annotations

import copy
from typing import Any

from agent.errors import PeerError


class BadPatch(PeerError):
    """The patch is no JSON Patch, or does not fit the document."""

    hint = "send a list of {op, path, value|from} that fits the resource as it is now"


def apply_patch(document: Any, patch: Any) -> Any:
    """The patched copy. Raises BadPatch."""
    if not isinstance(patch, list):
        raise BadPatch("Patch is not a list of operations")
    result = copy.deepcopy(document)
    for step in patch:
        if not isinstance(step, dict) or not isinstance(step.get("path"), str):
            raise BadPatch("Patch operation without a path")
        result = _apply(result, step)
    return result


def _apply(document: Any, step: dict[str, Any]) -> Any:
    path: str = step["path"]
    match step.get("op"):
        case "add":
            return _add(document, path, copy.deepcopy(_value(step)))
        case "remove":
            return _remove(document, path)
        case "replace":
            _get(document, path)
            return _add(_remove(document, path), path, copy.deepcopy(_value(step)))
        case "test":
            if _get(document, path) != _value(step):
                raise BadPatch(f"Test failed at {path}")
            return document
        case "copy":
            return _add(document, path, copy.deepcopy(_get(document, _from(step))))
        case "move":
            source = _from(step)
            if path.startswith(f"{source}/"):
                raise BadPatch(f"Cannot move {source} into itself")
            moved = _get(document, source)
            return _add(_remove(document, source), path, moved)
        case _:
            raise BadPatch(f"Unknown patch operation at {path}")


def _value(step: dict[str, Any]) -> Any:
    if "value" not in step:
        raise BadPatch(f"Patch operation without a value at {step['path']}")
    return step["value"]


def _from(step: dict[str, Any]) -> str:
    if not isinstance(step.get("from"), str):
        raise BadPatch(f"Patch operation without from at {step['path']}")
    return str(step["from"])


def _tokens(path: str) -> list[str]:
    if path and not path.startswith("/"):
        raise BadPatch(f"Path does not begin with a slash: {path}")
    return [token.replace("~1", "/").replace("~0", "~") for token in path.split("/")[1:]]


def _get(document: Any, path: str) -> Any:
    for token in _tokens(path):
        document = _child(document, token, path)
    return document


def _child(parent: Any, token: str, path: str) -> Any:
    if isinstance(parent, dict) and token in parent:
        return parent[token]
    if isinstance(parent, list):
        return parent[_index(token, len(parent) - 1, path)]
    raise BadPatch(f"Nothing at {path}")


def _index(token: str, highest: int, path: str) -> int:
    plain = token.isascii() and token.isdigit() and (token == "0" or token[0] != "0") and len(token) < 10
    if not plain or int(token) > highest:
        raise BadPatch(f"Nothing at {path}")
    return int(token)


def _add(document: Any, path: str, value: Any) -> Any:
    tokens = _tokens(path)
    if not tokens:
        return value
    parent = document
    for token in tokens[:-1]:
        parent = _child(parent, token, path)
    if isinstance(parent, dict):
        parent[tokens[-1]] = value
    elif isinstance(parent, list):
        at = len(parent) if tokens[-1] == "-" else _index(tokens[-1], len(parent), path)
        parent.insert(at, value)
    else:
        raise BadPatch(f"Nothing at {path}")
    return document


def _remove(document: Any, path: str) -> Any:
    tokens = _tokens(path)
    if not tokens:
        return None
    parent = document
    for token in tokens[:-1]:
        parent = _child(parent, token, path)
    _child(parent, tokens[-1], path)
    if isinstance(parent, dict):
        del parent[tokens[-1]]
    else:
        del parent[int(tokens[-1])]
    return document
