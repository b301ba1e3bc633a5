"""The operations on agents answer as recorded, for one and for many."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hub_strangers import Api, Line, Lobby, Reply

from agent.hub import Hub

NO_SUCH_ID = "00000000-0000-4000-8000-000000000000"
SYSTEM = "https://example.com/agents"


async def fleet(hub: Hub) -> list[str]:
    """Three agents with identifiers fleet-1 … fleet-3, besides the ready-made one."""
    ids = []
    for number, name in enumerate(("fleet one", "fleet two", "fleet offline"), start=1):
        agent = await hub.put_resource(
            {
                "resourceType": "Agent",
                "name": name,
                "status": "active",
                "identifier": [{"system": SYSTEM, "value": f"fleet-{number}"}],
            }
        )
        ids.append(str(agent["id"]))
    return ids


def parameters(resource: dict[str, Any]) -> dict[str, Any]:
    """Parameters as name → value."""
    assert resource["resourceType"] == "Parameters"
    found = {}
    for parameter in resource["parameter"]:
        (value,) = [parameter[key] for key in parameter if key != "name"]
        found[parameter["name"]] = value
    return found


def results(reply: Reply) -> list[tuple[str, dict[str, Any]]]:
    """A collection Bundle as (agent name, result)."""
    assert reply.status == 200, reply.raw
    bundle = reply.json
    assert (bundle["resourceType"], bundle["type"]) == ("Bundle", "collection")
    both = [parameters(entry["resource"]) for entry in bundle["entry"]]
    assert all(set(each) == {"agent", "result"} for each in both)
    return [(each["agent"]["name"], each["result"]) for each in both]


async def answer(line: Line, **fields: Any) -> dict[str, Any]:
    """Hear one request and answer it with its own callback."""
    request = await line.hear()
    await line.say({**fields, "callback": request["callback"]})
    return request


async def test_status_follows_the_life_of_an_agent(lobby: Lobby, api: Api) -> None:
    agent_id = api.hub.agent_id
    path = f"Agent/{agent_id}/$status"
    assert (await api.get(path)).json == {
        "resourceType": "Parameters",
        "parameter": [{"name": "status", "valueCode": "unknown"}, {"name": "version", "valueString": "unknown"}],
    }
    line = await lobby.line(api, agent_id)
    connected = (await api.get(path)).json["parameter"]
    assert connected[:2] == [
        {"name": "status", "valueCode": "connected"},
        {"name": "version", "valueString": "unknown"},
    ]
    assert list(connected[2]) == ["name", "valueInstant"]
    await line.say({"type": "agent:heartbeat:response", "version": "5.0.10-6a4145c"})
    await line.ask({"type": "agent:heartbeat:request"})
    assert parameters((await api.get(path)).json)["version"] == "5.0.10-6a4145c"
    await line.socket.close()
    after = parameters((await api.get(path)).json)
    assert (after["status"], after["version"]) == ("disconnected", "5.0.10-6a4145c")
    assert after["lastUpdated"] >= connected[2]["valueInstant"]


async def test_status_survives_a_restart_of_the_hub(lobby: Lobby) -> None:
    async with Hub.open(lobby.folder, ("127.0.0.1", 0)) as first:
        line = await lobby.line(await lobby.api(first), first.agent_id)
        await line.say({"type": "agent:heartbeat:response", "version": "1.2.3"})
        await line.ask({"type": "agent:heartbeat:request"})
    second = await lobby.hub()
    assert (second.presence().status, second.presence().version) == ("disconnected", "1.2.3")


async def test_status_by_identifier(api: Api) -> None:
    await fleet(api.hub)
    reply = await api.get("Agent/$status", params={"identifier": f"{SYSTEM}|fleet-2"})
    assert parameters(reply.json)["status"] == "unknown"
    for query in ({"identifier": "does-not-exist"}, {}):
        reply = await api.get("Agent/$status", params=query)
        assert (reply.status, reply.problem) == (400, "Must specify agent ID or identifier")


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_both_methods_do(api: Api, method: str) -> None:
    assert (await api.call(method, f"fhir/R4/Agent/{api.hub.agent_id}/$status")).status == 200
    assert (await api.call(method, "fhir/R4/Agent/$bulk-status")).status == 200


async def test_a_posted_search_may_be_parameters(api: Api) -> None:
    await fleet(api.hub)
    content = {"resourceType": "Parameters", "parameter": [{"name": "name", "valueString": "fleet"}]}
    assert len(results(await api.post("Agent/$bulk-status", content))) == 3
    assert len(results(await api.post("Agent/$bulk-status", {"name": "fleet", "_count": 2}))) == 2


async def test_bulk_status_pages_and_filters_in_search_order(lobby: Lobby, api: Api) -> None:
    one, two, _ = await fleet(api.hub)
    await lobby.line(api, two)
    everyone = results(await api.get("Agent/$bulk-status?name=Fleet"))
    assert [(name, parameters(result)["status"]) for name, result in everyone] == [
        ("fleet one", "unknown"),
        ("fleet two", "connected"),
        ("fleet offline", "unknown"),
    ]
    by_id = results(await api.get(f"Agent/$bulk-status?_id={two},{one}"))
    assert [name for name, _ in by_id] == ["fleet one", "fleet two"]
    page = results(await api.get("Agent/$bulk-status?name=fleet&_count=1&_offset=1"))
    assert [name for name, _ in page] == ["fleet two"]
    assert len(results(await api.get("Agent/$bulk-status?_count=101"))) == 4


@pytest.mark.parametrize("operation", ["$reload-config", "$stats", "$fetch-logs"])
async def test_bulk_errors(api: Api, operation: str) -> None:
    for query, text in (
        ("_count=101", "'_count' of 101 is greater than max of 100"),
        ("name=nothing-matches", "No agent(s) for given query"),
        ("identifier=nothing-matches", "No agent(s) for given query"),
        ("bogus=1&name=nothing-matches", "Unknown search parameter: bogus"),
    ):
        reply = await api.get(f"Agent/{operation}?{query}")
        assert (reply.status, reply.problem) == (400, text)
    for id_ in (NO_SUCH_ID, "not-a-uuid"):
        assert (await api.get(f"Agent/{id_}/{operation}")).status == 404


async def test_bulk_status_of_one_agent_is_no_operation(api: Api) -> None:
    assert (await api.get(f"Agent/{api.hub.agent_id}/$bulk-status")).status == 404
    assert (await api.get("Agent/$bulk-status?name=nothing-matches")).problem == "No agent(s) for given query"


async def test_reload_config_of_one_agent(api: Api, agent_line: Line) -> None:
    async with asyncio.TaskGroup() as both:
        reply = both.create_task(api.get(f"Agent/{api.hub.agent_id}/$reload-config"))
        request = both.create_task(answer(agent_line, type="agent:reloadconfig:response", statusCode=200))
    assert list(request.result()) == ["type", "callback"]
    assert request.result()["type"] == "agent:reloadconfig:request"
    assert request.result()["callback"].startswith(f"Agent/{api.hub.agent_id}-")
    outcome = reply.result().json
    assert outcome["id"] == "ok"
    assert outcome["issue"] == [{"severity": "information", "code": "informational", "details": {"text": "All OK"}}]


async def test_an_error_of_the_agent_is_told_in_its_words(api: Api, agent_line: Line) -> None:
    async with asyncio.TaskGroup() as both:
        reply = both.create_task(api.get(f"Agent/{api.hub.agent_id}/$reload-config"))
        both.create_task(answer(agent_line, type="agent:error", body="Invalid URL"))
    assert (reply.result().status, reply.result().problem) == (400, "Invalid URL")


async def test_stats_are_json_in_a_string(api: Api, agent_line: Line) -> None:
    stats = {"live": True, "ping": 3, "channelStats": {"hl7": {"rtt": {"count": 0}}}}
    async with asyncio.TaskGroup() as both:
        reply = both.create_task(api.get(f"Agent/{api.hub.agent_id}/$stats"))
        both.create_task(answer(agent_line, type="agent:stats:response", statusCode=200, stats=stats))
    assert json.loads(parameters(reply.result().json)["stats"]) == stats


@pytest.mark.parametrize("fields", [{"statusCode": 200}, {"statusCode": 500, "stats": {}}])
async def test_an_answer_without_stats_is_an_error(api: Api, agent_line: Line, fields: dict[str, Any]) -> None:
    async with asyncio.TaskGroup() as both:
        reply = both.create_task(api.get(f"Agent/{api.hub.agent_id}/$stats"))
        both.create_task(answer(agent_line, type="agent:stats:response", **fields))
    assert reply.result().status == 400


LINES = [
    {"level": "WARN", "msg": "uplink.lost", "timestamp": "2026-11-22T07:51:00.443Z", "retry_in_s": 1.5},
    {"level": "INFO", "msg": "Kanal geöffnet\n", "timestamp": "2026-11-22T07:50:59.000Z"},
]


@pytest.mark.parametrize(
    ("query", "asked"),
    [
        ("", {}),
        ("?limit=3", {"limit": 3}),
        ("?limit=0", {"limit": 0}),
        ("?limit=-1", {"limit": -1}),
        ("?limit=100000", {"limit": 100_000}),
        ("?limit=&before=", {}),
        ("?limit=2&before=2026-11-22T07:51:00.443Z", {"limit": 2, "before": "2026-11-22T07:51:00.443Z"}),
    ],
)
async def test_logs_are_asked_for_as_the_caller_wants_them(
    api: Api, agent_line: Line, query: str, asked: dict[str, Any]
) -> None:
    async with asyncio.TaskGroup() as both:
        reply = both.create_task(api.get(f"Agent/{api.hub.agent_id}/$fetch-logs{query}"))
        request = both.create_task(answer(agent_line, type="agent:logs:response", statusCode=200, logs=LINES))
    frame = request.result()
    assert {name: value for name, value in frame.items() if name not in ("type", "callback")} == asked
    assert next(iter(frame)) == "type"
    assert frame["type"] == "agent:logs:request"
    found = parameters(reply.result().json)
    assert list(found) == ["logs"]
    assert [json.loads(line) for line in found["logs"].split("\n")] == LINES
    assert [list(json.loads(line)) for line in found["logs"].split("\n")] == [list(line) for line in LINES]


async def test_where_to_read_on_is_told(api: Api, agent_line: Line) -> None:
    more = {"hasMore": True, "nextBefore": "2026-11-22T07:50:59.000Z"}
    async with asyncio.TaskGroup() as both:
        reply = both.create_task(api.post(f"Agent/{api.hub.agent_id}/$fetch-logs", {"limit": 2}))
        both.create_task(answer(agent_line, type="agent:logs:response", logs=LINES, **more))
    assert reply.result().json["parameter"][1:] == [
        {"name": "hasMore", "valueBoolean": True},
        {"name": "nextBefore", "valueString": "2026-11-22T07:50:59.000Z"},
    ]


@pytest.mark.parametrize("path", ["AGENT/$fetch-logs", "$fetch-logs"])
async def test_a_limit_that_is_no_number_is_refused_before_any_agent_is_asked(
    api: Api, agent_line: Line, path: str
) -> None:
    reply = await api.get(f"Agent/{path.replace('AGENT', api.hub.agent_id)}?limit=abc")
    assert (reply.status, reply.problem) == (400, "Invalid value 'abc' provided for integer parameter 'limit'")
    assert (await agent_line.ask({"type": "agent:heartbeat:request"}))["type"] == "agent:heartbeat:response"


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"type": "agent:error", "body": "Invalid limit: 0 - must be"}, "Invalid limit: 0 - must be"),
        ({"type": "agent:logs:response"}, "Agent sent no logs"),
        ({"type": "agent:logs:response", "statusCode": 500, "logs": []}, "Agent answered with status 500"),
        ({"type": "agent:stats:response", "stats": {}}, "Agent sent no logs"),
    ],
)
async def test_no_logs_are_told_as_such(api: Api, agent_line: Line, fields: dict[str, Any], text: str) -> None:
    async with asyncio.TaskGroup() as both:
        reply = both.create_task(api.get(f"Agent/{api.hub.agent_id}/$fetch-logs?limit=0"))
        both.create_task(answer(agent_line, **fields))
    assert (reply.result().status, reply.result().problem) == (400, text)


async def test_the_logs_of_several_agents(lobby: Lobby) -> None:
    hub = await lobby.hub(operation_timeout_scale=0.04)
    api = await lobby.api(hub)
    one, two, _ = await fleet(hub)
    lines = [await lobby.line(api, one), await lobby.line(api, two)]
    async with asyncio.TaskGroup() as everybody:
        reply = everybody.create_task(api.get("Agent/$fetch-logs?name=fleet&limit=2&before=x"))
        for line in lines:
            everybody.create_task(answer(line, type="agent:logs:response", logs=[]))
    found = results(reply.result())
    assert [name for name, _ in found] == ["fleet one", "fleet two", "fleet offline"]
    assert [parameters(result) for _, result in found[:2]] == [{"logs": ""}] * 2
    assert found[2][1]["issue"][0]["details"]["text"] == "Timeout"


async def test_one_silent_agent_hides_no_other(lobby: Lobby) -> None:
    hub = await lobby.hub(operation_timeout_scale=0.04)
    api = await lobby.api(hub)
    one, two, _ = await fleet(hub)
    lines = [await lobby.line(api, one), await lobby.line(api, two)]
    async with asyncio.TaskGroup() as everybody:
        reply = everybody.create_task(api.get("Agent/$reload-config?name=fleet"))
        everybody.create_task(answer(lines[0], type="agent:reloadconfig:response", statusCode=200))
        everybody.create_task(answer(lines[1], type="agent:error", body="no"))
    texts = [(name, result["issue"][0]["details"]["text"]) for name, result in results(reply.result())]
    assert texts == [("fleet one", "All OK"), ("fleet two", "no"), ("fleet offline", "Timeout")]
    assert all("extension" not in result for _, result in results(reply.result()))


async def test_an_agent_that_is_away_times_out(lobby: Lobby) -> None:
    hub = await lobby.hub(operation_timeout_scale=0.01)
    reply = await (await lobby.api(hub)).get(f"Agent/{hub.agent_id}/$reload-config")
    assert (reply.status, reply.problem) == (400, "Timeout")


async def test_two_sockets_get_every_request_and_the_first_answer_wins(lobby: Lobby, api: Api) -> None:
    first, second = [await lobby.line(api, api.hub.agent_id) for _ in range(2)]
    async with asyncio.TaskGroup() as both:
        reply = both.create_task(api.get(f"Agent/{api.hub.agent_id}/$reload-config"))
        late = both.create_task(first.hear())
        both.create_task(answer(second, type="agent:error", body="second was first"))
    assert reply.result().problem == "second was first"
    await first.say({"type": "agent:reloadconfig:response", "statusCode": 200, "callback": late.result()["callback"]})
    assert (await first.ask({"type": "agent:heartbeat:request"}))["type"] == "agent:heartbeat:response"
