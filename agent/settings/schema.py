"""The JSON Schema of config.toml.

Secret: how the table of keys is said in JSON Schema 2020-12 (its Core and Validation documents).
Promise: every key stands in it and nothing else; a file that it accepts has no value of a wrong type or out of range.
What the schema's own words cannot say stands in `x-` keywords, which a validator passes over.
"""

from __future__ import annotations

from typing import Any

from agent.settings.keys import KEYS, NAMED
from agent.settings.shape import OWN_NAME, Key, NamedSection
from agent.settings.values import schema_of

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def toml_schema() -> dict[str, Any]:
    """The schema of the file as a whole. No key is required in it, since each may be said elsewhere."""
    root: dict[str, Any] = {
        "$schema": DIALECT,
        "title": "config.toml of the on-premise agent",
        **_table({}),
    }
    for key in KEYS:
        table = root
        for name in key.section.split("."):
            table = table["properties"].setdefault(name, _table({}))
        table["properties"][key.leaf] = entry_of(key)
    for section in NAMED.values():
        root["properties"][section.name] = _named(section)
    return root


def entry_of(key: Key) -> dict[str, Any]:
    """The schema of one value."""
    entry: dict[str, Any] = {"description": key.doc, **schema_of(key.parse)}
    if key.default is not None:
        default = key.default
        entry["default"] = default if isinstance(default, bool | int | float | str) else str(default)
    elif key.unset:
        entry["x-when-absent"] = key.unset
    if key.example:
        entry["examples"] = [int(key.example) if key.example.isdigit() else key.example]
    if key.secret:
        entry["writeOnly"] = True
    if key.required:
        entry["x-required"] = True  # here or in another source
    entry["x-environment"] = list(key.env_names)
    if key.properties:
        entry["x-agent-properties"] = list(key.properties)
    return entry


def _table(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _named(section: NamedSection) -> dict[str, Any]:
    keys = section.keys_of("NAME")
    return {
        "description": " ".join(section.doc),
        "type": "object",
        "additionalProperties": False,
        "patternProperties": {f"^{OWN_NAME.pattern}$": _table({key.leaf: entry_of(key) for key in keys})},
    }
