"""Say every frame of the agent's socket as a typed value, in both directions and in both dialects.

Secret: how a frame is spelt in JSON: the `type` tags, the key order, old names, what may be missing.
Promise: any text decodes to a frame or to one `BadFrame`; what `encode` writes, the other end reads.

Fields that an older or a careless far end leaves out are optional here and None; unknown fields are ignored.
Optional fields that are None stay off the wire. Source: recordings of server and agent 5.0.10, key order too.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

import msgspec

from agent.errors import PeerError

SHOWN_CHARACTERS = 80  # of an unknown type, told to whoever sent it: enough to recognise, no room for a body


# What servers say about a request rather than about a message; recorded, and those of Medplum's own outcomes.
_OWN_WORDS = frozenset(
    (
        "Agent.status is currently set to off", "Channel not found", "Conflict", "Expired", "Forbidden", "Gone",
        "Invalid HL7 message", "Invalid access token", "Missing access token", "Missing agent ID", "Missing body",
        "Missing channel", "Not connected", "Not found", "Timeout", "Too Many Requests", "Unauthorized",
    )
)  # fmt: skip


def sayable(text: str) -> str:
    """`text` if it is one of a server's own set phrases, else only how long it is.

    Servers quote the message that they choke on, in errors and in close reasons: such words must not reach a log or a
    status.
    """
    if not text or text in _OWN_WORDS:
        return text
    return f"{len(text)} characters that may hold patient data and are not shown"


class BadFrame(PeerError):
    """A text that is no frame. `reason` may be sent back; `callback` is the sender's, if it can be read."""

    hint = "the far end speaks another protocol, or a release that this one does not know"

    def __init__(self, reason: str, callback: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.callback = callback


def _ok() -> int:
    return 200


def _always(default: str) -> Any:
    """A text field that is written even when it holds its default, unlike the optional ones."""
    return msgspec.field(default_factory=lambda: default)


def _status() -> Any:
    return msgspec.field(default_factory=_ok)  # a factory: omit_defaults must keep the 200 on the wire


class _Frame(msgspec.Struct, gc=False, frozen=True, omit_defaults=True, rename="camel", tag_field="type"):
    pass


class ConnectRequest(_Frame, frozen=True, tag="agent:connect:request"):
    """The agent introduces itself, first frame after the socket opened."""

    access_token: str | None = None
    agent_id: str | None = None


class ConnectResponse(_Frame, frozen=True, tag="agent:connect:response"):
    """The server knows the agent: it is live from here."""


class HeartbeatRequest(_Frame, frozen=True, tag="agent:heartbeat:request"):
    """Are you there? To be answered at once, by both ends."""


class HeartbeatResponse(_Frame, frozen=True, tag="agent:heartbeat:response"):
    """I am, and this is my release."""

    version: str | None = None


class TransmitRequest(_Frame, frozen=True, tag="agent:transmit:request"):
    """One message of a device, agent → server. `remote` is the sender's `ip:port`."""

    access_token: str | None = None
    channel: str | None = None
    remote: str | None = None
    content_type: str | None = None
    body: str | None = None
    callback: str | None = None


class TransmitResponse(_Frame, frozen=True, tag="agent:transmit:response"):
    """The server's answer to one message. 2xx: `body` (text, or any JSON) is for the device; ≥ 400: an error.

    `retry_after` (seconds) comes with status 429 on servers that say how long; see `retry_after_s`.
    """

    channel: str | None = None
    remote: str | None = None
    content_type: str | None = None
    status_code: int = _status()
    body: Any = None
    callback: str | None = None
    retry_after: Any = None


class Push(_Frame, frozen=True, tag="agent:transmit:request"):
    """Server → agent: deliver `body` to `remote` (`mllp://host:port?…`), or ping that host.

    `return_ack` (servers from 5.1): `first` or `application`. `wait_for_response` False (our hub): the callback is
    answered as soon as a durable message is stored.
    """

    remote: str | None = None
    content_type: str | None = None
    body: str | None = None
    callback: str | None = None
    return_ack: Any = None
    wait_for_response: Any = None
    channel: str | None = None


class PushResponse(_Frame, frozen=True, tag="agent:transmit:response"):
    """What the pushed-to device answered (200), or why it could not be reached (400)."""

    channel: str | None = None
    remote: str | None = None
    callback: str | None = None
    content_type: str | None = None
    status_code: int = _status()
    body: Any = None


class ReloadConfigRequest(_Frame, frozen=True, tag="agent:reloadconfig:request"):
    """Read the configuration again."""

    callback: str | None = None


class ReloadConfigResponse(_Frame, frozen=True, tag="agent:reloadconfig:response"):
    """The new configuration is in force."""

    status_code: int = _status()
    callback: str | None = None


class StatsRequest(_Frame, frozen=True, tag="agent:stats:request"):
    """How are you?"""

    callback: str | None = None


class StatsResponse(_Frame, frozen=True, tag="agent:stats:response"):
    """Counters and percentiles, no patient data."""

    status_code: int = _status()
    stats: dict[str, Any] | None = None
    callback: str | None = None


class LogsRequest(_Frame, frozen=True, tag="agent:logs:request"):
    """The newest `limit` lines of the main log, or those older than `before` (a line's `timestamp`; servers from 5.1).

    Both are checked by whoever answers."""

    limit: int | None = None
    callback: str | None = None
    before: str | None = None


class LogsResponse(_Frame, frozen=True, tag="agent:logs:response"):
    """Log lines, newest first, each {level, msg, timestamp, …}. `has_more`: older ones are to be had with `next_before`
    as `before`."""

    status_code: int = _status()
    logs: list[dict[str, Any]] | None = None
    callback: str | None = None
    has_more: bool | None = None
    next_before: str | None = None


class UpgradeRequest(_Frame, frozen=True, tag="agent:upgrade:request"):
    """Become release `version`, or the latest; even if it already runs, when forced."""

    version: str | None = None
    force: bool = False
    callback: str | None = None


class UpgradeResponse(_Frame, frozen=True, tag="agent:upgrade:response"):
    """The asked-for release runs."""

    status_code: int = _status()
    callback: str | None = None


class AgentErrorFrame(_Frame, frozen=True, tag="agent:error"):
    """A request failed. Servers leave `callback` out."""

    body: str = _always("")
    callback: str | None = None


FromServer = (
    TransmitResponse
    | HeartbeatRequest
    | HeartbeatResponse
    | ConnectResponse
    | Push
    | ReloadConfigRequest
    | StatsRequest
    | LogsRequest
    | UpgradeRequest
    | AgentErrorFrame
)
FromAgent = (
    TransmitRequest
    | HeartbeatRequest
    | HeartbeatResponse
    | ConnectRequest
    | PushResponse
    | ReloadConfigResponse
    | StatsResponse
    | LogsResponse
    | UpgradeResponse
    | AgentErrorFrame
)
Frame = FromServer | FromAgent

_SERVER_ALIASES = {
    "connected": "agent:connect:response",
    "transmit": "agent:transmit:response",
    "push": "agent:transmit:request",
}
_AGENT_ALIASES = {"connect": "agent:connect:request", "transmit": "agent:transmit:request"}

_server_frames: msgspec.json.Decoder[FromServer] = msgspec.json.Decoder(FromServer)
_agent_frames: msgspec.json.Decoder[FromAgent] = msgspec.json.Decoder(FromAgent)
_server_types = frozenset(frame.__struct_config__.tag for frame in FromServer.__args__)
_agent_types = frozenset(frame.__struct_config__.tag for frame in FromAgent.__args__)

encode = msgspec.json.Encoder().encode
"""One frame as the bytes of a WebSocket text message. Lone surrogates raise UnicodeEncodeError."""


def decode_from_server(text: str | bytes) -> FromServer:
    """Read a frame that a server sent. Raises BadFrame."""
    try:
        return _server_frames.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        renamed = _second_look(text, error, _SERVER_ALIASES, _server_types)
        try:
            frame: FromServer = msgspec.convert(renamed, FromServer)
        except msgspec.ValidationError as still:
            _refuse(renamed, still)
        return frame


def decode_from_agent(text: str | bytes) -> FromAgent:
    """Read a frame that an agent sent. Raises BadFrame. A missing field is None: the hub complains."""
    try:
        return _agent_frames.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        renamed = _second_look(text, error, _AGENT_ALIASES, _agent_types)
        try:
            frame: FromAgent = msgspec.convert(renamed, FromAgent)
        except msgspec.ValidationError as still:
            _refuse(renamed, still)
        return frame


def _second_look(text: str | bytes, error: Exception, aliases: dict[str, str], known: frozenset[Any]) -> dict[str, Any]:
    """The frame as a plain object under its present name. Raises BadFrame if no release has it."""
    try:
        content = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        content = _mend(text, error)
    if content is None:
        raise BadFrame("Frame is null, not a JSON object")
    name = content.get("type") if isinstance(content, dict) else None
    if not isinstance(content, dict) or not isinstance(name, str):
        raise BadFrame("Unknown message type: undefined", _callback(content))
    name = aliases.get(name, name)
    if name not in known:
        raise BadFrame(f"Unknown message type: {name[:SHOWN_CHARACTERS]}", _callback(content))
    return {**content, "type": name}


def _mend(text: str | bytes, error: Exception) -> Any:
    """Read JSON with lone surrogates, each replaced by `?`. Raises BadFrame for what is no JSON either way.

    JavaScript cuts texts between the halves of a surrogate pair, and JSON.stringify escapes what is left.
    Somebody waits for the answer in such a frame; refusing it for one broken character would lose it.
    """
    try:
        whole = json.dumps(json.loads(text), ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")
        return msgspec.json.decode(whole)
    except (ValueError, RecursionError):
        detail = str(error) if isinstance(error, msgspec.DecodeError) else type(error).__name__
        raise BadFrame(f"Frame is not valid JSON: {detail}") from None


def _refuse(content: dict[str, Any], error: msgspec.ValidationError) -> NoReturn:
    raise BadFrame(f"Invalid {content['type']}: {error}", _callback(content)) from None


def _callback(content: Any) -> str | None:
    callback = content.get("callback") if isinstance(content, dict) else None
    return callback if isinstance(callback, str) else None


def retry_after_s(frame: TransmitResponse) -> float | None:
    """Seconds to wait before the next try, if the answer is a 429 and says so; else None.

    Two dialects: a number `retryAfter` (seconds) on the frame, or an OperationOutcome as body whose
    issue[].diagnostics is the rate limiter's JSON with `_msBeforeNext`.
    """
    if frame.status_code != 429:
        return None
    wait_s = _duration(frame.retry_after)
    issues = _object(frame.body).get("issue")
    for issue in issues if wait_s is None and isinstance(issues, list) else ():
        wait_ms = _object(issue.get("diagnostics")).get("_msBeforeNext") if isinstance(issue, dict) else None
        if (wait := _duration(wait_ms)) is not None:
            return wait / 1000
    return wait_s


def _duration(value: Any) -> float | None:
    plausible = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e9
    return float(value) if plausible else None


def _object(value: Any) -> dict[str, Any]:
    """A JSON object, given as such or as text; empty for anything else."""
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return {}
    return value if isinstance(value, dict) else {}
