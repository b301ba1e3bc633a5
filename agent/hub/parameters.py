"""Read what an operation is asked with: a query string, a plain JSON object, or a Parameters resource (FHIR R4 §3.2).

Secret: the ways to write one parameter (`"waitForResponse": true`, `valueBoolean`, `valueString` "true").
Promise: a parameter means the same however it is written; one that is missing, null or empty takes its default; one
that cannot be read is refused by name, in the recorded server's words where it has any, and never quoted at length.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from agent.hub.outcomes import Refused, bad_request

INTEGER = re.compile(r"[+-]?[0-9]{1,18}\Z")
SHOWN_CHARACTERS = 40  # of a value that is refused: enough to recognise it, too little for a message


class Parameters:
    """Named values, as JSON has them. The readers raise Refused (400) for a wrong type, and for a value given twice."""

    def __init__(self, pairs: Iterable[tuple[str, Any]]) -> None:
        self._pairs = tuple(pairs)

    def text(self, name: str) -> str | None:
        """A text that is not empty; None if there is none."""
        value = self._value(name)
        if value is not None and not isinstance(value, str):
            raise Refused(bad_request(f"Invalid value provided for string parameter '{name}'"))
        return value

    def boolean(self, name: str) -> bool:
        """`true`, or `false` by default."""
        value = self._value(name)
        match value:
            case bool():
                return value
            case None | "false":
                return False
            case "true":
                return True
            case _:
                raise _unreadable("boolean", name, value)

    def integer(self, name: str) -> int | None:
        """A whole number of any sign; None if there is none."""
        value = self._value(name)
        match value:
            case None:
                return None
            case bool():
                pass
            case int():
                return value
            case float() if value.is_integer():
                return int(value)
            case str() if INTEGER.match(value):
                return int(value)
        raise _unreadable("integer", name, value)

    def _value(self, name: str) -> Any:
        values = [value for key, value in self._pairs if key == name and value not in (None, "")]
        if len(values) > 1:
            raise Refused(bad_request(f"Parameter '{name}' is given more than once"))
        return values[0] if values else None


def pairs_of(content: dict[str, Any]) -> list[tuple[str, Any]]:
    """What a request body says: the members of a plain object, or the parameters of a Parameters resource.

    Raises Refused (400) for a Parameters resource in which a parameter has no name, or not one simple value.
    """
    if content.get("resourceType") != "Parameters":
        return list(content.items())
    parameters = content.get("parameter", [])
    if not isinstance(parameters, list):
        raise _misshapen()
    return [_pair(parameter) for parameter in parameters]


def text_of(value: Any) -> str:
    """A JSON value as a query string would have it."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _pair(parameter: Any) -> tuple[str, Any]:
    members = parameter if isinstance(parameter, dict) else {}
    name = members.get("name")
    values = [value for key, value in members.items() if key.startswith("value")]
    if not isinstance(name, str) or len(values) != 1 or isinstance(values[0], dict | list):
        raise _misshapen()
    return name, values[0]


def _misshapen() -> Refused:
    return Refused(bad_request("Parameters.parameter needs a name and one value", "Parameters.parameter"))


def _unreadable(kind: str, name: str, value: Any) -> Refused:
    shown = text_of(value)[:SHOWN_CHARACTERS]
    return Refused(bad_request(f"Invalid value '{shown}' provided for {kind} parameter '{name}'"))
