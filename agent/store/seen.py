"""Was this control id ever here? Answered from memory, so that the disk is asked only when it may have been.

Secret: a Bloom filter over (channel, control id). A million ids cost 2 MiB; about one new id in a hundred is looked up
in vain. What was let go from the disk stays in it, so it is filled anew when it has taken too much (`crowded`).
Promise: `maybe` is never False for an id that was added. Until the filter is filled from the file it says True to
everything.
"""

from __future__ import annotations

from typing import Final

_BITS: Final = 1 << 24
_MASK: Final = _BITS - 1
_CROWD: Final = 2_000_000  # ids beyond which one in twenty-five is looked up in vain


class Seen:
    """A set of (channel, control id) that may err towards True. `ready` once everything on disk was added; `added` is
    kept by who adds, a batch at a time."""

    __slots__ = ("_bits", "_limit", "added", "ready")

    def __init__(self) -> None:
        self._bits = bytearray(_BITS >> 3)
        self._limit = _CROWD
        self.added = 0
        self.ready = False

    def filled(self) -> None:
        """Everything on disk was added; a file that holds very much makes a bad filter, and no other is better."""
        self.ready = True
        self._limit = max(_CROWD, 2 * self.added)

    @property
    def crowded(self) -> bool:
        """Whether a new filter, filled from the file, would answer better."""
        return self.ready and self.added > self._limit

    def add(self, channel: str, control_id: bytes) -> None:
        digest = hash((channel, control_id))
        bits = self._bits
        for position in (digest & _MASK, (digest >> 20) & _MASK, (digest >> 38) & _MASK):
            bits[position >> 3] |= 1 << (position & 7)

    def maybe(self, channel: str, control_id: bytes) -> bool:
        if not self.ready:
            return True
        digest = hash((channel, control_id))
        bits = self._bits
        position = digest & _MASK
        if not bits[position >> 3] >> (position & 7) & 1:
            return False
        position = (digest >> 20) & _MASK
        if not bits[position >> 3] >> (position & 7) & 1:
            return False
        position = (digest >> 38) & _MASK
        return bool(bits[position >> 3] >> (position & 7) & 1)
