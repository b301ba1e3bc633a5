"""Every frame of the wire, in both directions: what was recorded is read, what is written is what was recorded."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.protocol import envelope
from agent.protocol.envelope import (
    AgentErrorFrame,
    BadFrame,
    ConnectRequest,
    ConnectResponse,
    FromAgent,
    FromServer,
    HeartbeatRequest,
    HeartbeatResponse,
    LogsRequest,
    LogsResponse,
    Push,
    PushResponse,
    ReloadConfigRequest,
    ReloadConfigResponse,
    StatsRequest,
    StatsResponse,
    TransmitRequest,
    TransmitResponse,
    UpgradeRequest,
    UpgradeResponse,
    decode_from_agent,
    decode_from_server,
    encode,
    retry_after_s,
)

RECORDED = json.loads((Path(__file__).parent.parent / "data" / "frames.json").read_text(encoding="utf-8"))
ACCEPTED = [recorded for recorded in RECORDED if "refused" not in recorded]
REFUSED = [recorded for recorded in RECORDED if "refused" in recorded]  # sent on purpose in two recordings
OLD_NAMES = {
    "connected": "agent:connect:response",
    "connect": "agent:connect:request",
    "push": "agent:transmit:request",
}


def decode(recorded: dict[str, str]) -> FromServer | FromAgent:
    return (decode_from_server if recorded["from"] == "server" else decode_from_agent)(recorded["text"])


@pytest.mark.parametrize("recorded", ACCEPTED, ids=lambda r: r["text"][:60])
def test_a_recorded_frame_is_read_and_written_back_with_the_same_fields(recorded: dict[str, str]) -> None:
    frame = decode(recorded)

    written = json.loads(encode(frame))

    original = json.loads(recorded["text"])
    if original["type"] == "transmit":
        original["type"] = "agent:transmit:response" if recorded["from"] == "server" else "agent:transmit:request"
    original["type"] = OLD_NAMES.get(original["type"], original["type"])
    if isinstance(frame, TransmitResponse | PushResponse):
        original.setdefault("statusCode", 200)  # old ends leave it out; we never do
    assert written == original


@pytest.mark.parametrize("recorded", REFUSED, ids=lambda r: r["from"] + r["text"][:60])
def test_a_recorded_text_that_is_no_frame_is_refused_with_a_reason_for_its_sender(recorded: dict[str, str]) -> None:
    with pytest.raises(BadFrame) as refused:
        decode(recorded)

    assert refused.value.reason == recorded["refused"]
    assert refused.value.callback == ("cb-1" if "cb-1" in recorded["text"] else None)


def test_a_message_leaves_in_the_recorded_key_order_and_without_white_space() -> None:
    frame = TransmitRequest("T", "adt", "10.0.0.9:4711", "x-application/hl7-v2+er7", "MSH|^~\\&|é\r", "Agent/a-b")

    assert encode(frame).decode() == (
        '{"type":"agent:transmit:request","accessToken":"T","channel":"adt","remote":"10.0.0.9:4711",'
        '"contentType":"x-application/hl7-v2+er7","body":"MSH|^~\\\\&|é\\r","callback":"Agent/a-b"}'
    )


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        (ConnectRequest("T", "id"), '{"type":"agent:connect:request","accessToken":"T","agentId":"id"}'),
        (ConnectResponse(), '{"type":"agent:connect:response"}'),
        (HeartbeatResponse("1.0"), '{"type":"agent:heartbeat:response","version":"1.0"}'),
        (
            TransmitResponse("adt", "r", "t", 200, {"a": 1}, "c"),
            (
                '{"type":"agent:transmit:response","channel":"adt","remote":"r","contentType":"t","statusCode":200,'
                '"body":{"a":1},"callback":"c"}'
            ),
        ),
        (
            PushResponse(remote="r", callback="c", body="b"),
            '{"type":"agent:transmit:response","remote":"r","callback":"c","statusCode":200,"body":"b"}',
        ),
        (ReloadConfigResponse(callback="c"), '{"type":"agent:reloadconfig:response","statusCode":200,"callback":"c"}'),
        (StatsResponse(stats={}), '{"type":"agent:stats:response","statusCode":200,"stats":{}}'),
        (LogsResponse(logs=[]), '{"type":"agent:logs:response","statusCode":200,"logs":[]}'),
        (LogsRequest(5, "c"), '{"type":"agent:logs:request","limit":5,"callback":"c"}'),
        (UpgradeRequest("5.0.9", True), '{"type":"agent:upgrade:request","version":"5.0.9","force":true}'),
        (UpgradeRequest(callback="c"), '{"type":"agent:upgrade:request","callback":"c"}'),
        (UpgradeResponse(callback="c"), '{"type":"agent:upgrade:response","statusCode":200,"callback":"c"}'),
        (AgentErrorFrame(), '{"type":"agent:error","body":""}'),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_each_frame_is_spelt_as_the_other_end_expects(frame: Any, text: str) -> None:
    assert encode(frame).decode() == text


@pytest.mark.parametrize(
    ("old", "frame"),
    [
        ('{"type":"connected"}', ConnectResponse()),
        ('{"type":"transmit","channel":"adt","body":"x"}', TransmitResponse(channel="adt", body="x")),
        ('{"type":"push","remote":"mllp://h:1","body":"x"}', Push(remote="mllp://h:1", body="x")),
    ],
)
def test_the_names_of_old_servers_are_understood(old: str, frame: FromServer) -> None:
    assert decode_from_server(old) == frame


@pytest.mark.parametrize(
    ("old", "frame"),
    [
        ('{"type":"connect","accessToken":"T","agentId":"id"}', ConnectRequest("T", "id")),
        ('{"type":"transmit","channel":"adt","body":"x"}', TransmitRequest(channel="adt", body="x")),
    ],
)
def test_the_names_of_old_agents_are_understood(old: str, frame: FromAgent) -> None:
    assert decode_from_agent(old) == frame


def test_a_missing_field_is_none_and_a_missing_status_is_success() -> None:
    assert decode_from_agent('{"type":"agent:transmit:request"}') == TransmitRequest()
    assert decode_from_server('{"type":"agent:transmit:response"}').status_code == 200  # type: ignore[union-attr]


def test_fields_nobody_knows_yet_are_ignored() -> None:
    assert decode_from_server('{"x":[{}],"type":"agent:heartbeat:request","y":1}') == HeartbeatRequest()


def test_a_field_of_the_wrong_type_is_named_and_the_callback_survives() -> None:
    with pytest.raises(BadFrame) as refused:
        decode_from_server('{"type":"push","remote":7,"callback":"Agent/a-1#2"}')

    assert refused.value.reason == "Invalid agent:transmit:request: Expected `str | null`, got `int` - at `$.remote`"
    assert refused.value.callback == "Agent/a-1#2"


def test_a_strangers_type_is_not_repeated_at_full_length() -> None:
    with pytest.raises(BadFrame) as refused:
        decode_from_agent(json.dumps({"type": "PID|" + "x" * 5000}))

    assert len(refused.value.reason) < 120


@pytest.mark.parametrize("cut", ['"body":"half \\ud83d"', '"body":"half \ud83d"'], ids=["escaped", "raw"])
def test_half_a_character_does_not_cost_the_answer_it_stands_in(cut: str) -> None:
    frame = decode_from_server('{"type":"agent:transmit:response","callback":"c",' + cut + "}")

    assert frame == TransmitResponse(body="half ?", callback="c")


def test_bytes_that_are_no_utf_8_are_refused() -> None:
    with pytest.raises(BadFrame, match="not valid JSON"):
        decode_from_server(b'{"type":"agent:error","body":"\xff"}')


def test_endless_nesting_is_refused() -> None:
    with pytest.raises(BadFrame):
        decode_from_server('{"type":"agent:transmit:response","body":' + "[" * 100_000)


# Any text is a frame or a BadFrame

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
types = sorted({json.loads(recorded["text"])["type"] for recorded in ACCEPTED})
keys = ["accessToken", "agentId", "channel", "remote", "contentType", "body", "callback", "statusCode"]
keys += ["version", "force", "limit", "logs", "stats"]
near_frames = st.builds(
    lambda kind, fields: json.dumps({"type": kind, **fields}),
    st.sampled_from(types) | json_values,
    st.dictionaries(st.sampled_from(keys), json_values, max_size=5),
)


@given(st.text() | st.binary() | near_frames | json_values.map(json.dumps))
def test_whatever_arrives_is_a_frame_or_a_bad_frame(text: str | bytes) -> None:
    for read in (decode_from_server, decode_from_agent):
        frame: FromServer | FromAgent | None = None
        with contextlib.suppress(BadFrame):
            frame = read(text)
        assert frame is None or encode(frame)


# What is written is read

plain = st.text(st.characters(exclude_categories=["Cs"]))
texts = st.none() | plain
statuses = st.integers(100, 599)
counts: st.SearchStrategy[dict[str, Any]] = st.dictionaries(plain, st.integers(), max_size=3)
from_server: st.SearchStrategy[FromServer] = st.one_of(
    st.just(ConnectResponse()),
    st.just(HeartbeatRequest()),
    st.builds(HeartbeatResponse, texts),
    st.builds(TransmitResponse, texts, texts, texts, statuses, texts | counts, texts),
    st.builds(Push, texts, texts, texts, texts),
    st.builds(ReloadConfigRequest, texts),
    st.builds(StatsRequest, texts),
    st.builds(LogsRequest, st.none() | st.integers(-(2**53), 2**53), texts),
    st.builds(UpgradeRequest, texts, st.booleans(), texts),
    st.builds(AgentErrorFrame, plain, texts),
)
from_agent: st.SearchStrategy[FromAgent] = st.one_of(
    st.builds(ConnectRequest, texts, texts),
    st.builds(TransmitRequest, texts, texts, texts, texts, texts, texts),
    st.builds(PushResponse, texts, texts, texts, texts, statuses, texts),
    st.builds(ReloadConfigResponse, statuses, texts),
    st.builds(StatsResponse, statuses, counts, texts),
    st.builds(LogsResponse, statuses, st.lists(counts, max_size=3), texts),
    st.builds(UpgradeResponse, statuses, texts),
    st.builds(AgentErrorFrame, plain, texts),
)


@given(from_server)
def test_an_agent_reads_what_a_server_writes(frame: FromServer) -> None:
    assert decode_from_server(encode(frame)) == frame


@given(from_agent)
def test_a_server_reads_what_an_agent_writes(frame: FromAgent) -> None:
    assert decode_from_agent(encode(frame)) == frame


# 429

LIMITER = '{"_remainingPoints":0,"_msBeforeNext":1500}'
OUTCOME = {"resourceType": "OperationOutcome", "issue": [{"diagnostics": LIMITER}]}


@pytest.mark.parametrize(
    ("frame", "wait_s"),
    [
        ({"statusCode": 429, "retryAfter": 7}, 7.0),
        ({"statusCode": 429, "retryAfter": 0.5, "body": OUTCOME}, 0.5),
        ({"statusCode": 429, "body": OUTCOME}, 1.5),
        ({"statusCode": 429, "body": json.dumps(OUTCOME)}, 1.5),
        ({"statusCode": 429, "body": "Too Many Requests"}, None),
        ({"statusCode": 429, "retryAfter": "soon", "body": {"issue": [None, {"diagnostics": 3}]}}, None),
        ({"statusCode": 429, "retryAfter": -1}, None),
        ({"statusCode": 429, "retryAfter": True}, None),
        ({"statusCode": 200, "retryAfter": 7}, None),
    ],
)
def test_a_429_says_how_long_to_wait_in_either_dialect(frame: dict[str, Any], wait_s: float | None) -> None:
    read = decode_from_server(json.dumps({"type": "agent:transmit:response", **frame}))

    assert isinstance(read, TransmitResponse)
    assert retry_after_s(read) == wait_s


@given(json_values, json_values)
def test_any_429_gives_a_sensible_wait_or_none(retry_after: Any, body: Any) -> None:
    wait_s = retry_after_s(envelope.TransmitResponse(status_code=429, body=body, retry_after=retry_after))

    assert wait_s is None or 0 <= wait_s < 1e9
