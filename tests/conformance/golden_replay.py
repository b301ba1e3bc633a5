"""Play one side of a recorded conversation and compare what the other side says.

Secret: what has an order and what has none. Within a lane everything has; messages of different devices on one
socket, pushes of different tools and their answers, reads of different Endpoints, and everything on different
connections may overtake each other.
Promise: each line that the party under test said in the transcript is claimed by exactly one thing that it says now,
in that order and word for word; what it says beyond that is a mismatch, and so is silence.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from typing import Protocol

from golden_names import Names, without_ack_stamps
from golden_shapes import shaped
from golden_transcript import Line, Transcript, frame_of

WITHIN_S = 15.0
SHOWN = 400  # characters of a line in a mismatch


class Ear:
    """Everything that the party under test said and nobody has claimed yet."""

    def __init__(self) -> None:
        self._said: defaultdict[str, list[Line]] = defaultdict(list)
        self._news = asyncio.Event()

    def hear(self, line: Line) -> None:
        self._said[order_of(line)].append(line)
        self._news.set()

    async def next(self, order: str, within_s: float) -> Line:
        """The next line of an order. Raises TimeoutError."""
        async with asyncio.timeout(within_s):
            while not self._said[order]:
                self._news.clear()
                await self._news.wait()
        return self._said[order].pop(0)

    def rest(self) -> list[Line]:
        return [line for said in self._said.values() for line in said]


def order_of(line: Line) -> str:
    """Lines with the same answer stay in order among themselves."""
    if line.kind == "request" and "/Endpoint/" in (target := line.text.partition("\n")[0]):
        return f"{line.by} {target}"
    if line.kind == "request":
        return f"{line.by} http"
    frame = frame_of(line)
    match line.by, frame.get("type"):
        case "agent", "agent:transmit:request":
            return f"{line.lane} {frame.get('remote')}"
        case "agent", "agent:transmit:response" if "callback" in frame:
            return f"{line.lane} {frame['callback']}"
        case "server", "agent:transmit:request":
            return f"{line.lane} {frame.get('body')}"
    return line.lane


class Stage(Protocol):
    """The far ends, and the party under test among them."""

    party: str
    names: Names
    ear: Ear

    async def play(self, line: Line) -> None:
        """Do what somebody else than the party did."""

    async def prompt(self, line: Line) -> None:
        """The party is about to be expected to say this."""


async def replay(
    transcript: Transcript, lines: Iterable[Line], stage: Stage, *, within_s: float = WITHIN_S
) -> list[str]:
    """Play the lines; what did not go as they say, empty if all did."""
    forwarded = {str(frame_of(line).get("body")) for line in transcript.lines if line.by == "server"}
    mismatches = []
    for line in lines:
        if line.by != stage.party:
            await stage.play(line)
            continue
        await stage.prompt(line)
        order = stage.names.to_actual(order_of(line)) if line.by == "agent" else order_of(line)
        try:
            said = await stage.ear.next(order, within_s)
        except TimeoutError:
            mismatches.append(f"silence where the recording has {str(line)[:SHOWN]}")
            break  # nothing after it can be told from a consequence
        own = stage.party == "server" or line.text not in forwarded
        mismatches += _compare(line, said, stage.names, own=own)
    mismatches += [f"not in the recording: {str(line)[:SHOWN]}" for line in stage.ear.rest()]
    return mismatches


def _compare(expected: Line, said: Line, names: Names, *, own: bool) -> list[str]:
    names.meet(expected.text, said.text)
    wanted, got = shaped(expected.text), shaped(names.to_recorded(said.text))
    if own and "|ACK" in wanted and "|ACK" in got:
        wanted, got = without_ack_stamps(wanted), without_ack_stamps(got)
    if (expected.kind, wanted) == (said.kind, got):
        return []
    same = next((at for at, (one, other) in enumerate(zip(wanted, got, strict=False)) if one != other), 0)
    shown = slice(max(same - 60, 0), same + SHOWN)  # a body may be long: show where they part
    there = f"{expected.by} on {expected.lane}, character {same}"
    return [f"{there}\n  recorded: {expected.kind} {wanted[shown]!r}\n  now:      {said.kind} {got[shown]!r}"]
