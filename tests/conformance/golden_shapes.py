"""What of the agent's frames is compared by its form, because the words are those of one program on one machine.

Secret: how the output of a `ping` is read, whichever it is, and what a log line has to look like.
Promise: what a person would rely on stays: who was asked how often and answered how often; how many log lines there
are, each with level, text and time, the newest first, or that they are a page, with the time at which the next one
begins. A frame in which that is not so stays as it is.
"""

from __future__ import annotations

import json
import re
from typing import Any

_VERSION = re.compile(r'("type":"agent:heartbeat:response","version":)"[^"]+"')
_PING = re.compile(
    r'"body":"PING (?P<host>[^\s(]+)(?P<tries>[^"]*?)'
    r'(?P<sent>\d+) packets transmitted, (?P<received>\d+) (?:packets )?received[^"]*"'
)
PAGE = "<a page of lines>"
_LEVELS = ("DEBUG", "INFO", "WARN", "ERROR")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def shaped(text: str) -> str:
    """The frame with such words replaced by what they come to; any other text unchanged."""
    text = _PING.sub(_counted, _VERSION.sub(r'\1"<version>"', text))
    return _lines_counted(text) if text.startswith('{"type":"agent:logs:response"') else text


def pings(host: str, sent: int, received: int, shown: int) -> str:
    """What the output of a ping comes to: packets sent and received, and lines with a time."""
    return f"<{host}: {sent} sent, {received} received, {shown} shown>"


def _counted(ping: re.Match[str]) -> str:
    counted = pings(ping["host"], int(ping["sent"]), int(ping["received"]), ping["tries"].count("time="))
    return f'"body":"{counted}"'


def _lines_counted(text: str) -> str:
    frame = json.loads(text)
    logs = frame.get("logs")
    if not (isinstance(logs, list) and logs and all(_is_line(line) for line in logs)):
        return text
    times = [line["timestamp"] for line in logs]
    if times != sorted(times, reverse=True):
        return text
    counted = {**frame, "logs": f"<{len(logs)} lines>"}
    more = {name: counted.pop(name, None) for name in ("hasMore", "nextBefore")}
    match more:
        case {"hasMore": None, "nextBefore": None}:
            pass
        case {"hasMore": False, "nextBefore": None} | {"hasMore": True, "nextBefore": str()} if _is_end(more, times):
            counted["logs"] = PAGE
        case _:
            return text
    return json.dumps(counted, separators=(",", ":"), ensure_ascii=False)


def _is_end(more: dict[str, Any], times: list[str]) -> bool:
    """Whether the next page begins in the millisecond in which this one ends: at its beginning, or within it."""
    return not more["hasMore"] or str(more["nextBefore"])[:23] == times[-1][:23]


def _is_line(line: Any) -> bool:
    return (
        isinstance(line, dict)
        and line.get("level") in _LEVELS
        and isinstance(line.get("msg"), str)
        and _TIME.fullmatch(str(line.get("timestamp"))) is not None
    )
