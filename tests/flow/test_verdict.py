"""What the server's answer means."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.flow.verdict import Accepted, Refused, TryLater, judge
from agent.protocol.envelope import BadFrame, TransmitResponse, decode_from_server

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_2xx_is_accepted_with_its_words(status: int) -> None:
    assert judge(TransmitResponse(status_code=status, body="MSH|")) == Accepted(status, "MSH|")


def test_an_old_server_that_gives_no_status_has_accepted() -> None:
    frame = decode_from_server('{"type":"transmit","body":"MSH|"}')
    assert isinstance(frame, TransmitResponse)
    assert judge(frame) == Accepted(200, "MSH|")


def test_a_json_result_is_accepted_without_words_for_a_device() -> None:
    assert judge(TransmitResponse(body={"resourceType": "Patient"})) == Accepted(200, None)


@pytest.mark.parametrize(
    ("status", "code"), [(400, "AE"), (409, "AE"), (422, "AE"), (401, "AR"), (404, "AR"), (302, "AR")]
)
def test_4xx_is_refused_for_good(status: int, code: str) -> None:
    assert judge(TransmitResponse(status_code=status)) == Refused(status, code, f"server answered {status}")


@pytest.mark.parametrize("status", [429, 500, 503, 599])
def test_5xx_and_429_are_tried_later(status: int) -> None:
    assert judge(TransmitResponse(status_code=status, body="busy")) == TryLater(
        status, f"server answered {status}: busy"
    )


@pytest.mark.parametrize("status", [-5, 0, 199, 600, 10**30])
def test_a_status_that_is_none_is_tried_later_and_never_stored(status: int) -> None:
    assert judge(TransmitResponse(status_code=status)) == TryLater(
        None, "the server answered with a status that is none"
    )


def test_429_says_how_long_to_wait_but_not_for_days() -> None:
    assert judge(TransmitResponse(status_code=429, retry_after=7)) == TryLater(429, "server answered 429", 7.0)
    assert judge(TransmitResponse(status_code=429, retry_after=10**8)) == TryLater(429, "server answered 429", 900.0)


def test_an_operation_outcome_speaks_in_its_own_words() -> None:
    outcome = {"resourceType": "OperationOutcome", "issue": [{"details": {"text": "Bot failed"}}, {"code": "invalid"}]}
    for body in (outcome, json.dumps(outcome)):
        assert judge(TransmitResponse(status_code=400, body=body)) == Refused(
            400, "AE", "server answered 400: Bot failed; invalid"
        )


def test_a_long_explanation_is_cut_to_one_line() -> None:
    verdict = judge(TransmitResponse(status_code=400, body="no\n" * 1_000))
    assert isinstance(verdict, Refused)
    assert "\n" not in verdict.reason
    assert len(verdict.reason) < 230


def test_json_nested_without_end_is_only_text() -> None:
    assert isinstance(judge(TransmitResponse(status_code=500, body="[" * 100_000)), TryLater)


@given(st.integers(), json_values, json_values)
def test_every_frame_is_one_of_three_things(status: int, body: object, retry_after: object) -> None:
    text = json.dumps(
        {"type": "agent:transmit:response", "statusCode": status, "body": body, "retryAfter": retry_after}
    )
    try:
        frame = decode_from_server(text)
    except BadFrame:
        return
    assert isinstance(frame, TransmitResponse)
    match judge(frame):
        case Accepted(status=accepted):
            assert 200 <= accepted < 300
        case Refused(status=refused, code=code, reason=reason):
            assert 300 <= refused < 500
            assert code in ("AE", "AR")
            reason.encode()
        case TryLater(status=later, reason=reason, after_s=after_s):
            assert later is None or later == 429 or 500 <= later < 600
            assert after_s is None or 0 <= after_s <= 900
            reason.encode()


@given(json_values)
def test_an_explanation_may_be_anything_inside_a_text(content: object) -> None:
    verdict = judge(TransmitResponse(status_code=422, body=json.dumps({"issue": content})))
    assert isinstance(verdict, Refused)
    verdict.reason.encode()
