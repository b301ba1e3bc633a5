"""How a recorded conversation with a remote reads when our agent holds it.

Secret: how a pushed message is followed through a recording: from the server's frame to a connection, to its
acknowledgement, and to the agent's answer; by the control ids that MSH-10 and MSA-2 share.
Promise: what is pushed and what the remote answers is as recorded; only on which connection, and when, is changed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any

from golden_edits import Edit, Lines, Which, line, reframed
from golden_shapes import pings
from golden_transcript import Line, frame_of

_opened = line("agent", "remote ", "open")
_written = line("agent", "remote ", "frame")
_acknowledged = line("remote", "remote ", "frame")
_stopped = line("host", "process", "stop")


@dataclass
class _Sending:
    """Connections of ours, at most as many as the recorded agent had, each with one message that is not answered."""

    lanes: list[str]  # as recorded, in the order in which they were opened
    done: Lines = field(default_factory=list)
    free: list[str] = field(default_factory=list)  # the one used last at the end
    under_way: dict[str, str] = field(default_factory=dict)  # control id → the connection that it is on
    waiting: list[Line] = field(default_factory=list)
    held: dict[str, Lines] = field(default_factory=dict)  # what belongs to a message that waits
    opened: int = 0

    def write(self, message: Line) -> None:
        if not self.free and self.opened < len(self.lanes):
            self.free.append(self.lanes[self.opened])
            self.done.append(Line("agent", self.free[-1], "open"))
            self.opened += 1
        if not self.free:
            self.waiting.append(message)
            return
        lane = self.free.pop()
        self.under_way[control_id(message.text)] = lane
        self.done.append(replace(message, lane=lane))

    def acknowledge(self, answer: Line, told: Line) -> None:
        """A message is done: the server is told before anything else happens, and the next one may go."""
        lane = self.under_way.pop(acknowledged_id(answer.text))
        self.done += [replace(answer, lane=lane), told]
        self.free.append(lane)
        if self.waiting:
            self.write(self.waiting.pop(0))


def one_in_flight(lines: Lines) -> Lines:
    """One message at a time on a connection, which is used again; never more connections than the recording has.

    Messages go out in the order in which the server asked for them, and the server hears of each answer before the
    remote gives the next: answers on several connections have no order.
    """
    sending = _Sending(list(dict.fromkeys(one.lane for one in lines if _opened(one))))
    written = iter(_as_asked(lines))
    answers = _answers(lines)
    told = {id(response) for response in answers.values()}

    def go(one: Line) -> None:
        if _opened(one) or id(one) in told:
            return
        if _written(one):
            sending.write(next(written))
        elif not _acknowledged(one):
            if not one.lane.startswith("remote ") or one.lane in sending.lanes[: sending.opened]:
                sending.done.append(one)
        elif (message := acknowledged_id(one.text)) in sending.under_way:
            sending.acknowledge(one, answers[id(one)])
            for later in [other for id_ in sending.under_way for other in sending.held.pop(id_, [])]:
                go(later)
        else:
            sending.held.setdefault(message, []).append(one)

    for one in lines:
        go(one)
    return sending.done


def until_stopped(lines: Lines) -> Lines:
    """Connections that the agent has closed before it was stopped it closes then."""
    closed = line("agent", "remote ", "close")
    at = next(number for number, one in enumerate(lines) if _stopped(one)) + 1
    early = [one for one in lines[:at] if closed(one)]
    return [*(one for one in lines[:at] if not closed(one)), *early, *lines[at:]]


def retold(theirs: str, ours: str) -> Edit:
    """Where the recorded agent said that a push came to nothing, in words like these, ours says it in others."""
    refusals = line("agent", "ws ", "frame", f'"statusCode":400,"body":".*{theirs}')
    return reframed(refusals, lambda frame: {**frame, "body": ours})


def pinged(theirs: str, host: str, times: int) -> Edit:
    """Where the recorded agent said that a ping came to nothing, in words like these, ours has pinged the host."""
    refusals = line("agent", "ws ", "frame", f'"statusCode":400,"body":".*{theirs}')
    answer = {"contentType": "x-application/ping", "statusCode": 200, "body": pings(host, times, times, times)}
    return reframed(refusals, lambda frame: {**frame, **answer})


def as_a_push_is_answered(frame: dict[str, Any]) -> dict[str, Any]:
    """The members of an answer in the order that answers to pushed messages have."""
    order = ("type", "remote", "callback", "contentType", "statusCode", "body")
    return {name: frame[name] for name in order if name in frame}


def told(request: Which, text: str, *, once: Which | None = None) -> Edit:
    """The server hears, with status 400, why such a request of it came to nothing: at once, or behind the next line
    `once`."""

    def refusal(asked: Line) -> Line:
        frame = frame_of(asked)
        said = {name: frame[name] for name in ("remote", "callback") if name in frame}
        why = {"type": "agent:transmit:response", **said, "contentType": "text/plain", "statusCode": 400, "body": text}
        return Line("agent", asked.lane, "frame", json.dumps(why, separators=(",", ":"), ensure_ascii=False))

    def edit(lines: Lines) -> Lines:
        done: Lines = []
        owed: Lines = []
        for one in lines:
            done.append(one)
            if request(one):
                owed.append(refusal(one))
            if once is None or once(one):
                done += owed
                owed.clear()
        return done

    return edit


def control_id(message: str) -> str:
    """MSH-10."""
    return message.partition("\r")[0].split("|")[9]


def acknowledged_id(acknowledgement: str) -> str:
    """MSA-2."""
    return acknowledgement.partition("\rMSA|")[2].split("|")[1]


def _as_asked(lines: Lines) -> Lines:
    """What the agent wrote to remotes, in the order of the server's requests."""
    asked = [
        frame["body"]
        for one in lines
        if one.by == "server" and "mllp://" in str((frame := frame_of(one)).get("remote"))
    ]
    written = [one for one in lines if _written(one)]
    ordered: Lines = []
    for body in asked:
        found = next((one for one in written if one.text == body), None)
        if found is not None:
            written.remove(found)
            ordered.append(found)
    return ordered + written


def _answers(lines: Lines) -> dict[int, Line]:
    """What the agent told the server of each acknowledgement, by the identity of its line."""
    responses = [one for one in lines if one.by == "agent" and frame_of(one).get("type") == "agent:transmit:response"]
    found: dict[int, Line] = {}
    for one in lines:
        if _acknowledged(one):
            response = next((other for other in responses if frame_of(other).get("body") == one.text), None)
            if response is not None:
                responses.remove(response)
                found[id(one)] = response
    return found
