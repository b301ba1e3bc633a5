"""By which name the server knows a message.

Secret: how a row and its attempt become a callback, and what of a callback that comes back is believed.
Promise: no two messages of one spool ever share a callback; what is not ours reads as nothing, whatever it is.

`Agent/<agent id>-<uuid>` is what the existing agent writes, `#<attempt>` is what newer ones add from the second try
on. The UUID (RFC 9562 version 4 in shape) is constant for a spool but for its last twelve digits, which are the row.
"""

from __future__ import annotations

from agent.store.row import Row


class Callbacks:
    """Names for the rows of one spool. `instance`: at least 18 hexadecimal digits that no other spool has."""

    __slots__ = ("_prefix",)

    def __init__(self, agent_id: str, instance: str) -> None:
        self._prefix = f"Agent/{agent_id}-{instance[:8]}-{instance[8:12]}-4{instance[12:15]}-a{instance[15:18]}-"

    def of(self, row: Row) -> str:
        """The callback of the row's present attempt."""
        if row.attempts == 1:
            return f"{self._prefix}{row.id:012x}"
        return f"{self._prefix}{row.id:012x}#{row.attempts}"

    def read(self, callback: str) -> tuple[int, int] | None:
        """(row id, attempt), None for a name that is not one of ours."""
        prefix = self._prefix
        if not callback.startswith(prefix):
            return None
        number, _, attempt = callback[len(prefix) :].partition("#")
        try:
            return int(number, 16), int(attempt) if attempt else 1
        except ValueError:
            return None
