"""$push: what is refused, what the agent is told, what the pusher hears."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hub_pushes import ACK, LAB, asked, device, nothing_was_said, push, push_and_answer, pushing
from hub_strangers import ADT_A01, HL7, Api, Line, Lobby, Reply

NO_SUCH_ID = "00000000-0000-4000-8000-000000000000"
PING = "x-application/ping"
SYSTEM = "https://example.com/devices"


def parameters(**values: Any) -> dict[str, Any]:
    """A Parameters resource; each value is given with its type: `body={"valueString": …}`."""
    return {"resourceType": "Parameters", "parameter": [{"name": name, **value} for name, value in values.items()]}


def is_all_ok(reply: Reply) -> bool:
    outcome = reply.json
    recorded = {"severity": "information", "code": "informational", "details": {"text": "All OK"}}
    return (reply.status, outcome["id"], outcome["issue"]) == (200, "ok", [recorded]) and "extension" in outcome


# ---- what is wrong with a request


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"body": None}, "Missing body parameter"),
        ({"body": ""}, "Missing body parameter"),
        ({"contentType": None}, "Missing contentType parameter"),
        ({"destination": None}, "Missing destination parameter"),
        ({"body": None, "contentType": None, "destination": None}, "Missing body parameter"),
        ({"contentType": None, "destination": None}, "Missing contentType parameter"),
        ({"destination": f"Device/{NO_SUCH_ID}"}, "Destination device not found"),
        ({"destination": "Device/"}, "Destination device not found"),
        ({"destination": "Device?identifier=does-not-exist"}, "Destination device not found"),
        ({"destination": "Device?"}, "Destination device not found"),
        ({"destination": "Device?bogus=1"}, "Unknown search parameter: bogus"),
        ({"destination": "127.0.0.1"}, "Destination device not found"),
        ({"destination": "Patient/123"}, "Destination device not found"),
        ({"destination": LAB}, "Destination device not found"),
        ({"waitTimeout": -1}, "Invalid wait timeout"),
        ({"waitTimeout": 55_001}, "Invalid wait timeout"),
        ({"waitTimeout": 10**18}, "Invalid wait timeout"),
        ({"waitTimeout": "soon"}, "Invalid value 'soon' provided for integer parameter 'waitTimeout'"),
        ({"waitTimeout": 0.5}, "Invalid value '0.5' provided for integer parameter 'waitTimeout'"),
        ({"waitTimeout": True}, "Invalid value 'true' provided for integer parameter 'waitTimeout'"),
        ({"waitForResponse": "yes"}, "Invalid value 'yes' provided for boolean parameter 'waitForResponse'"),
        ({"waitForResponse": 1}, "Invalid value '1' provided for boolean parameter 'waitForResponse'"),
        ({"body": {"MSH": 1}}, "Invalid value provided for string parameter 'body'"),
        ({"destination": 7}, "Invalid value provided for string parameter 'destination'"),
        ({"returnAck": "last"}, "Invalid returnAck - must be one of first, application"),
    ],
)
async def test_what_is_wrong_is_said_before_the_agent_is_asked(
    api: Api, agent_line: Line, changes: dict[str, Any], text: str
) -> None:
    lab = await device(api.hub, url=LAB)
    reply = await push(api, asked(lab, **changes))
    assert (reply.status, reply.problem) == (400, text)
    assert reply.headers["Content-Type"] == "application/fhir+json; charset=utf-8"
    await nothing_was_said(agent_line)


@pytest.mark.parametrize("elements", [{}, {"url": ""}, {"url": 7}])
async def test_a_device_without_url_is_no_destination(api: Api, elements: dict[str, Any]) -> None:
    reply = await push(api, asked(await device(api.hub, **elements)))
    assert (reply.status, reply.problem) == (400, "Destination device missing url")


async def test_a_deleted_device_is_no_destination(api: Api) -> None:
    lab = await device(api.hub, url=LAB)
    await api.hub.delete_resource(*lab.split("/"))
    assert (await push(api, asked(lab))).problem == "Destination device not found"


@pytest.mark.parametrize("agent_id", [NO_SUCH_ID, "not-a-uuid"])
async def test_an_unknown_agent_is_not_found(api: Api, agent_id: str) -> None:
    reply = await push(api, asked(await device(api.hub, url=LAB)), agent=agent_id)
    assert (reply.status, reply.json["id"]) == (404, "not-found")


@pytest.mark.parametrize("query", ["", "?identifier=does-not-exist"])
async def test_without_an_id_an_identifier_must_match(api: Api, query: str) -> None:
    reply = await api.post(f"Agent/$push{query}", asked(await device(api.hub, url=LAB)))
    assert (reply.status, reply.problem) == (400, "Must specify agent ID or identifier")


async def test_pushing_is_no_reading(api: Api) -> None:
    for path in (f"Agent/{api.hub.agent_id}/$push", "Agent/$push"):
        assert (await api.get(path)).status == 404


async def test_who_has_no_token_pushes_nothing(api: Api, agent_line: Line) -> None:
    lab = await device(api.hub, url=LAB)
    assert (await push(api, asked(lab), token="x")).status == 401
    await nothing_was_said(agent_line)


@pytest.mark.parametrize("raw", [b"", b"MSH|^~", b"[]", b'"x"', b"\xff", b'{"body": "\\ud800"}'])
async def test_a_body_that_is_no_object_is_refused(api: Api, raw: bytes) -> None:
    reply = await api.call("POST", f"fhir/R4/Agent/{api.hub.agent_id}/$push", data=raw)
    assert (reply.status, reply.json["resourceType"]) == (400, "OperationOutcome")


@pytest.mark.parametrize(
    "parameter",
    [
        None,
        "body",
        {},
        [7],
        [{"name": "body"}],
        [{"valueString": "x"}],
        [{"name": 1, "valueString": "x"}],
        [{"name": "body", "valueString": "x", "valueCode": "y"}],
        [{"name": "body", "valueCoding": {"code": "x"}}],
        [{"name": "body", "resource": {}}],
    ],
)
async def test_misshapen_parameters_are_refused(api: Api, parameter: Any) -> None:
    reply = await push(api, {"resourceType": "Parameters", "parameter": parameter})
    assert (reply.status, reply.problem) == (400, "Parameters.parameter needs a name and one value")


async def test_a_message_given_twice_is_refused(api: Api) -> None:
    twice = parameters(body={"valueString": "x"})
    twice["parameter"] *= 2
    assert (await push(api, twice)).problem == "Parameter 'body' is given more than once"


# ---- Agent.status


async def switch_off(api: Api) -> None:
    agent = api.hub.resource("Agent", api.hub.agent_id)
    await api.hub.put_resource({**agent, "status": "off"})


async def test_nothing_is_pushed_through_an_agent_that_is_off(api: Api, agent_line: Line) -> None:
    await switch_off(api)
    reply = await push(api, asked(await device(api.hub, url=LAB)))
    assert (reply.status, reply.problem) == (400, "Agent is currently disabled. Agent.status is 'off'")
    await nothing_was_said(agent_line)


async def test_a_ping_through_an_agent_that_is_off_is_the_agents_to_refuse(api: Api, agent_line: Line) -> None:
    await switch_off(api)
    async with pushing(api, asked("127.0.0.1", contentType=PING, body="PING")) as reply:
        frame = await agent_line.hear()
        text = "Agent.status is currently set to off"
        await agent_line.say({"type": "agent:error", "callback": frame["callback"], "body": text})
    assert (reply.result().status, reply.result().problem) == (400, text)


# ---- what the agent is told


async def test_the_agent_is_told_as_recorded(api: Api, agent_line: Line) -> None:
    frame, _ = await push_and_answer(api, agent_line, asked(await device(api.hub, url=f"{LAB}?encoding=iso-8859-1")))
    assert list(frame) == ["type", "remote", "contentType", "body", "callback"]
    assert frame["type"] == "agent:transmit:request"
    assert frame["remote"] == f"{LAB}?encoding=iso-8859-1"
    assert (frame["contentType"], frame["body"]) == (HL7, ADT_A01)
    assert frame["callback"].startswith(f"Agent/{api.hub.agent_id}-")


@pytest.mark.parametrize("wait", [None, False, "false", "", "absent"])
async def test_without_waiting_there_is_no_callback_and_an_answer_at_once(
    api: Api, agent_line: Line, wait: Any
) -> None:
    content = asked(await device(api.hub, url=LAB), waitForResponse=wait)
    if wait == "absent":
        del content["waitForResponse"]
    assert is_all_ok(await push(api, content))
    assert list(await agent_line.hear()) == ["type", "remote", "contentType", "body"]


@pytest.mark.parametrize("return_ack", ["first", "application"])
async def test_which_acknowledgement_is_wanted_is_passed_on(api: Api, agent_line: Line, return_ack: str) -> None:
    lab = await device(api.hub, url=LAB)
    frame, _ = await push_and_answer(api, agent_line, asked(lab, returnAck=return_ack))
    assert list(frame) == ["type", "remote", "contentType", "body", "callback", "returnAck"]
    assert frame["returnAck"] == return_ack


async def test_a_search_finds_agent_and_device(api: Api, agent_line: Line) -> None:
    agent = api.hub.resource("Agent", api.hub.agent_id)
    await api.hub.put_resource({**agent, "identifier": [{"system": SYSTEM, "value": "ward 5"}]})
    await device(api.hub, url="mllp://10.0.0.1:1", identifier=[{"system": SYSTEM, "value": "other"}])
    await device(api.hub, url=LAB, identifier=[{"system": SYSTEM, "value": "lab+1"}])
    content = asked(f"Device?identifier={SYSTEM}|lab%2B1", waitForResponse=False)
    assert is_all_ok(await api.post(f"Agent/$push?identifier={SYSTEM}|ward 5", content))
    assert (await agent_line.hear())["remote"] == LAB


@pytest.mark.parametrize(
    "content",
    [
        parameters(
            body={"valueString": ADT_A01},
            contentType={"valueCode": HL7},
            destination={"valueUri": "DEVICE"},
            waitForResponse={"valueBoolean": True},
            waitTimeout={"valueInteger": 9_000},
        ),
        parameters(
            body={"valueString": ADT_A01},
            contentType={"valueString": HL7},
            destination={"valueString": "DEVICE"},
            waitForResponse={"valueString": "true"},
            waitTimeout={"valueString": "9000"},
        ),
        asked("DEVICE", waitTimeout=9_000.0),
    ],
)
async def test_every_spelling_of_a_request_means_the_same(api: Api, agent_line: Line, content: Any) -> None:
    lab = await device(api.hub, url=LAB)
    frame, reply = await push_and_answer(api, agent_line, json.loads(json.dumps(content).replace("DEVICE", lab)))
    assert (frame["body"], frame["contentType"], frame["remote"]) == (ADT_A01, HL7, LAB)
    assert reply.raw.decode() == ACK


# ---- what the pusher hears


async def test_the_answer_of_the_device_comes_back_as_it_is(api: Api, agent_line: Line) -> None:
    _, reply = await push_and_answer(api, agent_line, asked(await device(api.hub, url=LAB)))
    assert (reply.status, reply.raw.decode()) == (200, ACK)
    assert reply.headers["Content-Type"] == f"{HL7}; charset=utf-8"
    assert reply.headers["Cache-Control"] == "no-store, no-cache, must-revalidate"


@pytest.mark.parametrize(
    ("fields", "content_type", "text"),
    [
        ({"body": "PING 127.0.0.1", "contentType": PING}, PING, "PING 127.0.0.1"),
        ({"body": "ÅÄÖ 心 😀\r"}, HL7, "ÅÄÖ 心 😀\r"),
        ({"body": ""}, HL7, ""),
        ({"body": None}, HL7, ""),
        ({"statusCode": None}, HL7, ACK),
        ({"contentType": None}, HL7, ACK),
        ({"contentType": "text/plain; charset=latin1"}, "text/plain", ACK),
        ({"contentType": "x\r\nSet-Cookie: a=b"}, HL7, ACK),
        ({"contentType": "nonsense"}, HL7, ACK),
        ({"contentType": "text/plain, text/html"}, HL7, ACK),
        ({"contentType": "text/plain\r\nX: y"}, "text/plain", ACK),
        ({"body": {"ok": True}, "contentType": None}, "application/json", '{"ok":true}'),
        ({"body": [1, "å"], "contentType": "application/fhir+json"}, "application/fhir+json", '[1,"å"]'),
    ],
)
async def test_every_kind_of_answer_comes_back(
    api: Api, agent_line: Line, fields: dict[str, Any], content_type: str, text: str
) -> None:
    _, reply = await push_and_answer(api, agent_line, asked(await device(api.hub, url=LAB)), **fields)
    assert (reply.status, reply.raw.decode()) == (200, text)
    assert reply.headers.getall("Content-Type") == [f"{content_type}; charset=utf-8"]
    assert "Set-Cookie" not in reply.headers


async def test_an_answer_to_a_push_of_no_media_type_is_a_text(api: Api, agent_line: Line) -> None:
    content = asked(await device(api.hub, url=LAB), contentType="hl7\n")
    frame, reply = await push_and_answer(api, agent_line, content, contentType=None)
    assert frame["contentType"] == "hl7\n"
    assert reply.headers["Content-Type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ({"statusCode": 400, "contentType": "text/plain", "body": "connection refused"}, "connection refused"),
        ({"statusCode": 503, "body": {"why": "no"}}, '{"why":"no"}'),
        ({"statusCode": 400, "body": ""}, "Agent answered with status 400"),
        ({"statusCode": 400, "body": None}, "Agent answered with status 400"),
        ({"type": "agent:error", "body": "no such remote"}, "no such remote"),
        ({"type": "agent:reloadconfig:response", "body": None}, "Agent sent an answer to something else"),
    ],
)
async def test_a_failure_is_told_in_the_words_of_the_agent(
    api: Api, agent_line: Line, answer: dict[str, Any], text: str
) -> None:
    _, reply = await push_and_answer(api, agent_line, asked(await device(api.hub, url=LAB)), **answer)
    assert (reply.status, reply.problem) == (400, text)
    assert reply.headers["Content-Type"] == "application/fhir+json; charset=utf-8"


@pytest.mark.parametrize("size", [300_000, 1_000_000])
async def test_a_large_message_goes_through_and_back(api: Api, agent_line: Line, size: int) -> None:
    body = ADT_A01 + "\rOBX|1|TX|||" + "å" * ((size - 1_000) // 2)
    frame, reply = await push_and_answer(api, agent_line, asked(await device(api.hub, url=LAB), body=body), body=body)
    assert frame["body"] == body
    assert reply.raw.decode() == body


async def test_more_than_a_megabyte_is_refused(api: Api, agent_line: Line) -> None:
    reply = await push(api, asked(await device(api.hub, url=LAB), body="x" * 1_048_576))
    assert reply.status == 413
    await nothing_was_said(agent_line)


# ---- ping


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "lab-1.hospital.example.", "PACS_01"])
async def test_a_host_can_be_pinged(api: Api, agent_line: Line, host: str) -> None:
    frame, reply = await push_and_answer(
        api, agent_line, asked(host, contentType=PING, body="PING 2"), contentType=PING, body=f"PING {host}"
    )
    assert (frame["remote"], frame["contentType"], frame["body"]) == (host, PING, "PING 2")
    assert reply.raw.decode() == f"PING {host}"


@pytest.mark.parametrize("url", ["::1", LAB, "tcp://10.1.2.3:80"])
async def test_whatever_a_device_has_as_url_can_be_pinged(api: Api, agent_line: Line, url: str) -> None:
    lab = await device(api.hub, url=url)
    frame, _ = await push_and_answer(api, agent_line, asked(lab, contentType=PING, body="PING"))
    assert frame["remote"] == url


@pytest.mark.parametrize("host", ["::1", "not a host", "-c", "a..b", "a;b", "a/b", "a\n", "x" * 64, "a." * 130])
async def test_what_is_no_host_is_not_pinged(api: Api, agent_line: Line, host: str) -> None:
    reply = await push(api, asked(host, contentType=PING, body="PING"))
    assert (reply.status, reply.problem) == (400, "Destination device not found")
    await nothing_was_said(agent_line)


# ---- durable remotes


def durable_settings(value: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"name": "keepAlive", "valueBoolean": True}, {"name": "outboundDurable", **value}]


DURABLE = [
    (f"{LAB}?durable=true", {"valueBoolean": False}),
    (f"{LAB}?encoding=utf-8&durable=TRUE#x", None),
    (LAB, {"valueBoolean": True}),
    (LAB, {"valueString": "true"}),
]
NOT_DURABLE = [
    (f"{LAB}?durable=false", {"valueBoolean": True}),
    (LAB, {"valueBoolean": False}),
    (LAB, None),
    ("mllp://[durable=true", None),
    (f"{LAB}#?durable=true", None),
]


async def remote(api: Api, url: str, setting: dict[str, Any] | None) -> str:
    """A device, with an agent that is set so."""
    agent = api.hub.resource("Agent", api.hub.agent_id)
    await api.hub.put_resource({**agent, "setting": durable_settings(setting) if setting else []})
    return await device(api.hub, url=url)


@pytest.mark.parametrize(("url", "setting"), DURABLE)
async def test_all_ok_from_a_durable_remote_means_stored(
    api: Api, agent_line: Line, url: str, setting: dict[str, Any] | None
) -> None:
    content = asked(await remote(api, url, setting), waitForResponse=False)
    frame, reply = await push_and_answer(
        api, agent_line, content, statusCode=202, contentType="text/plain", body="stored, and on its way"
    )
    assert list(frame) == ["type", "remote", "contentType", "body", "callback", "waitForResponse"]
    assert frame["waitForResponse"] is False
    (issue,) = reply.json["issue"]
    assert (reply.status, reply.json["id"]) == (200, "ok")
    assert issue["details"]["text"] == "All OK"
    assert issue["diagnostics"] == "stored, and on its way"


async def test_the_acknowledgement_of_an_agent_that_does_not_store_is_not_quoted(api: Api, agent_line: Line) -> None:
    content = asked(await device(api.hub, url=f"{LAB}?durable=true"), waitForResponse=False)
    _, reply = await push_and_answer(api, agent_line, content)
    assert is_all_ok(reply)


async def test_what_a_durable_remote_cannot_store_is_told(api: Api, agent_line: Line) -> None:
    content = asked(await device(api.hub, url=f"{LAB}?durable=true"), waitForResponse=False)
    _, reply = await push_and_answer(api, agent_line, content, statusCode=400, body="the disk is full")
    assert (reply.status, reply.problem) == (400, "the disk is full")


async def test_nobody_says_that_an_agent_that_is_away_has_stored_anything(lobby: Lobby) -> None:
    api = await lobby.api(await lobby.hub(operation_timeout_scale=0.01))
    reply = await push(api, asked(await device(api.hub, url=f"{LAB}?durable=true"), waitForResponse=False))
    assert (reply.status, reply.problem) == (400, "Timeout")


@pytest.mark.parametrize(("url", "setting"), NOT_DURABLE)
async def test_nothing_changes_for_other_remotes(
    api: Api, agent_line: Line, url: str, setting: dict[str, Any] | None
) -> None:
    assert is_all_ok(await push(api, asked(await remote(api, url, setting), waitForResponse=False)))
    assert list(await agent_line.hear()) == ["type", "remote", "contentType", "body"]


async def test_who_waits_for_a_durable_remote_waits_for_the_device(api: Api, agent_line: Line) -> None:
    frame, reply = await push_and_answer(api, agent_line, asked(await device(api.hub, url=f"{LAB}?durable=true")))
    assert list(frame) == ["type", "remote", "contentType", "body", "callback"]
    assert reply.raw.decode() == ACK


async def test_a_ping_is_never_stored(api: Api, agent_line: Line) -> None:
    lab = await device(api.hub, url=f"{LAB}?durable=true")
    assert is_all_ok(await push(api, asked(lab, contentType=PING, body="PING", waitForResponse=False)))
    assert "callback" not in await agent_line.hear()
