"""Know which name of a replay stands for which name of the recording.

Secret: what varies from run to run: ports, callbacks, jobs, tokens, project, time stamps of acknowledgements.
Promise: a name that was learnt means one thing for the rest of the replay, so that a wrong callback or the port of
another device is a mismatch, and only the first sight of a name is taken on trust (of its shape).
"""

from __future__ import annotations

import re

UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_DRAWN = (re.compile(rf'"callback":"(Agent/{UUID}-{UUID})"'), re.compile(rf"/fhir/R4/job/({UUID})/status"))
_ACK = re.compile(r"\|\d{14}(?:\.\d{1,3})?(\+0000)?\|\|(ACK[^|]*)\|\d+\|")
_REFERENCE = re.compile(r"\(ref [a-z]?\d+\)")


class Names:
    """A bijection between the recording's names and the replay's."""

    def __init__(self) -> None:
        self._actual: dict[str, str] = {}

    def learn(self, recorded: str, actual: str) -> None:
        self._actual[recorded] = actual

    def to_actual(self, text: str) -> str:
        """What the recorded text is called now."""
        return _replaced(text, self._actual)

    def to_recorded(self, text: str) -> str:
        """What a text of now was called in the recording."""
        return _replaced(text, {actual: recorded for recorded, actual in reversed(self._actual.items())})

    def meet(self, recorded: str, actual: str) -> None:
        """Two texts that should be the same: learn what a callback or a job, new in the recording, is called now."""
        for drawn in _DRAWN:
            old, new = drawn.search(recorded), drawn.search(actual)
            if old and new and old[1] not in self._actual and new[1] not in self._actual.values():
                self.learn(old[1], new[1])


def _replaced(text: str, names: dict[str, str]) -> str:
    """The text with each name replaced once, also where the new name of one is the old name of another."""
    known = re.compile("|".join(map(re.escape, sorted(names, key=len, reverse=True))) or r"(?!)")
    return known.sub(lambda found: names[found[0]], text)


def without_ack_stamps(text: str) -> str:
    """An acknowledgement whose MSH-7 and MSH-10, and the reference in MSA-3, are names of the moment."""
    return _REFERENCE.sub("(ref <ref>)", _ACK.sub(r"|<time>\1||\2|<id>|", text))
