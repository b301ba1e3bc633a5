"""Say by a single byte whether a frame is safe: the commit blocks of MLLP release 2.

Secret: HL7 Version 3 Transport Specification: MLLP, release 2: 0x06 in a frame of its own says that the block is
committed to storage, 0x15 that it is not and may be sent again. They belong to the transport; acknowledgements in HL7
follow in blocks of their own, which the other side commits in the same way.
Promise: 0x06 leaves only after the commit has returned, once for each frame that was stored; a frame that was not is
told 0x15, and nothing else that might be taken for the answer to its repetition.
"""

from __future__ import annotations

from typing import Final

from agent.flow.replies import Sender
from agent.store.row import Row

COMMITTED: Final = b"\x06"
NOT_COMMITTED: Final = b"\x15"


class CommitBlocks:
    """Who waits for the commit of what, on the channels that speak release 2."""

    def __init__(self) -> None:
        self._waiting: dict[int, list[Sender]] = {}

    def owe(self, row: Row, sender: Sender) -> None:
        """`sender` hears of the commit of `row`; at once if it is on the platter."""
        if row.durable:
            sender.tell(COMMITTED)
        else:
            self._waiting.setdefault(row.id, []).append(sender)

    def stored(self, row: Row) -> None:
        """`row` is on the platter."""
        for sender in self._waiting.pop(row.id, ()):
            sender.tell(COMMITTED)

    def refused(self, row: Row) -> None:
        """`row` is not stored, or not in time: a repetition will be recognised if it comes to be stored later."""
        for sender in self._waiting.pop(row.id, ()):
            sender.tell(NOT_COMMITTED)
