"""What an intended difference is.

Secret: none; the differences themselves stand in `differences`.
Promise: an entry says what is different, why we want it so, and how the recording reads then.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatch

from golden_edits import Edit


@dataclass(frozen=True, slots=True)
class Difference:
    """`scenarios`: patterns of names. `says`: what is different. `because`: why we want it so."""

    party: str
    scenarios: tuple[str, ...]
    says: str
    because: str
    edit: Edit

    def applies_to(self, party: str, scenario: str) -> bool:
        return party == self.party and any(fnmatch(scenario, pattern) for pattern in self.scenarios)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Recordings in which a party is not replayed. `because`: why that loses nothing."""

    party: str
    scenarios: tuple[str, ...]
    because: str
