"""What the server's answer means.

Secret: the reading of status codes and bodies (PROTOCOL §4, §8).
Promise: every response frame, whatever stands in it, is one of three things: accepted, refused for good, or to be
tried again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import msgspec

from agent.protocol.envelope import TransmitResponse, retry_after_s

_TEXT_LIMIT: Final = 200
_LONGEST_PAUSE_S: Final = 900.0  # a server that mistakes milliseconds for seconds must not silence a channel for a day


@dataclass(frozen=True, slots=True)
class Accepted:
    """2xx. `body` is what the server wants the sender to hear, if it is text at all."""

    status: int
    body: str | None


@dataclass(frozen=True, slots=True)
class Refused:
    """A 4xx that no repetition will cure. `code` is what an HL7 sender is told (AE: the content, AR: the request)."""

    status: int
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class TryLater:
    """5xx, 429, or nothing at all: the policy decides. `after_s` where the server said how long."""

    status: int | None
    reason: str
    after_s: float | None = None


Verdict = Accepted | Refused | TryLater


def judge(frame: TransmitResponse) -> Verdict:
    """Read one `agent:transmit:response`."""
    status = frame.status_code
    if 200 <= status < 300:
        body = frame.body
        return Accepted(status, body if isinstance(body, str) else None)
    if not 200 <= status < 600:
        return TryLater(None, "the server answered with a status that is none")
    if status == 429 or status >= 500:
        after_s = retry_after_s(frame)
        reason = _reason(status, frame.body)
        return TryLater(status, reason, min(after_s, _LONGEST_PAUSE_S) if after_s is not None else None)
    # 400, 409, 422 speak about this message's content; the others about who asks, for what
    return Refused(status, "AE" if status in (400, 409, 422) else "AR", _reason(status, frame.body))


def _reason(status: int, body: Any) -> str:
    """The server's own words, shortened: an OperationOutcome's texts, or the plain text."""
    words = ""
    if isinstance(body, str):
        try:
            body = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            words = body[: 8 * _TEXT_LIMIT]
    if isinstance(body, dict) and isinstance(issues := body.get("issue"), list):
        words = "; ".join(filter(None, map(_issue_text, issues[:8])))
    words = " ".join(words.split())[:_TEXT_LIMIT].encode("utf-8", "replace").decode()
    return f"server answered {status}: {words}" if words else f"server answered {status}"


def _issue_text(issue: Any) -> str:
    if not isinstance(issue, dict):
        return ""
    details = issue.get("details")
    text = details.get("text") if isinstance(details, dict) else None
    said = text or issue.get("diagnostics") or issue.get("code")
    return said if isinstance(said, str) else ""
