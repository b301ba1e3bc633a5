"""Ways to rewrite a recorded conversation into the one that we want instead.

Secret: how a place in a transcript is found again.
Promise: an edit that finds nothing returns the lines as they were; nothing else tells that it was needless.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from golden_transcript import Line, frame_of

Lines = list[Line]
Edit = Callable[[Lines], Lines]
Which = Callable[[Line], bool]


def line(by: str = "", lane: str = "", kind: str = "", text: str = "") -> Which:
    """Lines by this party, on lanes that begin so, of this kind, in which this pattern is found; empty: any."""
    found = re.compile(text)

    def matches(one: Line) -> bool:
        return (
            by in ("", one.by)
            and one.lane.startswith(lane)
            and kind in ("", one.kind)
            and found.search(one.text) is not None
        )

    return matches


def instead(which: Which, becomes: Callable[[Line], Iterable[Line]]) -> Edit:
    """Each such line becomes others, or none."""

    def edit(lines: Lines) -> Lines:
        return [other for one in lines for other in (becomes(one) if which(one) else (one,))]

    return edit


def without(which: Which) -> Edit:
    return instead(which, lambda _: ())


def after(which: Which, *added: Line | Callable[[Line], Line]) -> Edit:
    """Behind each such line somebody says more; the lane `=` is the line's own."""

    def becomes(one: Line) -> Iterable[Line]:
        yield one
        for more in added:
            made = more(one) if callable(more) else more
            yield Line(made.by, one.lane, made.kind, made.text) if made.lane == "=" else made

    return instead(which, becomes)


def reworded(which: Which, pattern: str, replacement: str) -> Edit:
    """Each such line, with this pattern replaced."""
    return instead(which, lambda one: (one.saying(re.sub(pattern, replacement, one.text)),))


def reframed(which: Which, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Edit:
    """Each such frame, with its JSON object changed."""
    return instead(
        which,
        lambda one: (one.saying(json.dumps(change(frame_of(one)), separators=(",", ":"), ensure_ascii=False)),),
    )


def reanswered(which: Which, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Edit:
    """Each such HTTP response, with the JSON object in it changed."""

    def becomes(one: Line) -> Iterable[Line]:
        head, _, body = one.text.partition("\n\n")
        yield one.saying(f"{head}\n\n{json.dumps(change(json.loads(body)), sort_keys=True, ensure_ascii=False)}")

    return instead(which, becomes)


def at_most_once(which: Which) -> Edit:
    """Only the first such line."""

    def edit(lines: Lines) -> Lines:
        first = next((one for one in lines if which(one)), None)
        return [one for one in lines if one is first or not which(one)]

    return edit


def instead_of_last(which: Which, kind: str) -> Edit:
    """In the place of the last such line, the same party does this."""

    def edit(lines: Lines) -> Lines:
        last = next((one for one in reversed(lines) if which(one)), None)
        return [replace(one, kind=kind, text="") if one is last else one for one in lines]

    return edit


def answers_in_order(lines: Lines) -> Lines:
    """On each socket the server's answers to messages come in the order of the messages."""
    asked: dict[str, list[str]] = {}
    answers: dict[str, Line] = {}
    for one in lines:
        frame = frame_of(one)
        if one.by == "agent" and frame.get("type") == "agent:transmit:request":
            asked.setdefault(one.lane, []).append(frame["callback"])
        elif one.by == "server" and frame.get("type") == "agent:transmit:response":
            answers[frame["callback"]] = one
    given = {id(one) for one in answers.values()}
    return [answers[asked[one.lane].pop(0)] if id(one) in given else one for one in lines]


def earlier(which: Which, before: Which) -> Edit:
    """Such lines that come after the first `before` stand in front of it."""

    def edit(lines: Lines) -> Lines:
        at = next((number for number, one in enumerate(lines) if before(one)), len(lines))
        moved = [one for one in lines[at:] if which(one)]
        return [*lines[:at], *moved, *(one for one in lines[at:] if not which(one))]

    return edit


def relaned(old: str, new: str) -> Edit:
    """What happened on one connection happens on another."""
    return instead(line(lane=old), lambda one: (replace(one, lane=new),))


def device_of(one: Line) -> str:
    """The lane of the device whose message a frame is about."""
    return "device " + str(frame_of(one).get("remote", "")).rpartition(":")[2]


def together(*edits: Edit) -> Edit:
    """One edit after the other."""

    def edit(lines: Lines) -> Lines:
        for one in edits:
            lines = one(lines)
        return lines

    return edit


def where_introduced(edit: Edit) -> Edit:
    """An edit of the agent's sockets on which it said who it is."""

    def narrowed(lines: Lines) -> Lines:
        lanes = {one.lane for one in lines if frame_of(one).get("type") == "agent:connect:request"}
        return [other for one in lines for other in (edit([one]) if one.lane in lanes else (one,))]

    return narrowed


def own_acknowledgements(change: Callable[[str], str]) -> Edit:
    """Each acknowledgement that the agent made itself, changed. What it only passed on stays as the server said it."""

    def edit(lines: Lines) -> Lines:
        said_by_server = {str(frame_of(one).get("body")) for one in lines if one.by == "server"}

        def becomes(one: Line) -> Iterable[Line]:
            yield one if one.text in said_by_server else one.saying(change(one.text))

        return instead(line("agent", "device ", "frame"), becomes)(lines)

    return edit


def one_at_a_time(lines: Lines) -> Lines:
    """On each device connection the next message begins its way when the one before has its answer.

    What the recording has of a later message (its request, response and answer) moves behind that answer.
    """
    message_of = _messages(lines)
    done: Lines = []
    busy: dict[str, str] = {}  # device lane → the message that is on its way
    held: dict[str, Lines] = {}

    def go(one: Line) -> None:
        lane, message = message_of.get(one, ("", ""))
        if not lane:
            done.append(one)
        elif busy.setdefault(lane, message) != message:
            held.setdefault(lane, []).append(one)
        else:
            done.append(one)
            if one.lane == lane:  # the answer to the device
                del busy[lane]
                for waiting in held.pop(lane, []):
                    go(waiting)

    for one in lines:
        go(one)
    return done


def _messages(lines: Lines) -> dict[Line, tuple[str, str]]:
    """Device lane and callback of each request, of its response, and of the answer that the response became."""
    messages: dict[Line, tuple[str, str]] = {}
    answers: dict[tuple[str, str], str] = {}
    for one in lines:
        frame = frame_of(one)
        lane = device_of(one)
        if one.by == "agent" and frame.get("type") == "agent:transmit:request":
            messages[one] = lane, frame["callback"]
        elif one.by == "server" and frame.get("type") == "agent:transmit:response" and "callback" in frame:
            messages[one] = lane, frame["callback"]
            answers[lane, str(frame.get("body"))] = frame["callback"]
        elif one.by == "agent" and (one.lane, said := _body_of(one)) in answers:
            messages[one] = one.lane, answers[one.lane, said]
    return messages


def _body_of(one: Line) -> str:
    """What is written to a device, as it stands in a frame: bytes in hexadecimal."""
    return one.text.encode("latin-1").hex() if one.kind == "bytes" else one.text
