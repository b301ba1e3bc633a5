"""Read JSON that strangers sent.

Secret: the several ways in which a text can fail to be JSON that we may hold.
Promise: any bytes give a value that can be compared, copied and written again, or BadJson.
"""

from __future__ import annotations

from typing import Any

import msgspec

from agent.errors import PeerError

MAX_DEPTH = 100  # FHIR needs about a dozen; comparing and copying recurse


class BadJson(PeerError):
    """A text that is no JSON; says where, never what stands there."""

    hint = "send well-formed JSON in UTF-8"


def read_json(text: str | bytes) -> Any:
    """The value. Raises BadJson."""
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise BadJson(str(error)) from None
    except UnicodeError:
        raise BadJson("not UTF-8") from None
    except RecursionError:
        raise BadJson(f"nested deeper than {MAX_DEPTH} levels") from None
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for parent in level
            if isinstance(parent, dict | list)
            for child in (parent.values() if isinstance(parent, dict) else parent)
        ]
        if not level:
            return value
    raise BadJson(f"nested deeper than {MAX_DEPTH} levels")
