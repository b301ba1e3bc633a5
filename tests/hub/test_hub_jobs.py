"""$push with `Prefer: respond-async`: a job that can be asked for, whatever becomes of hub and agent."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import apsw
import pytest
from hub_pushes import ACK, LAB, answered, asked, device, push
from hub_strangers import Api, Line, Lobby, Reply

from agent.errors import StoreError
from agent.hub import Hub, Refused
from agent.hub import inbox as inbox_module
from agent.hub.jobs import AT_ONCE, KEEP, Jobs, output_of
from agent.hub.outcomes import ALL_OK, bad_request
from agent.hub.resources import Resource
from agent.hub.store import Store

ASYNC = {"Prefer": "respond-async"}


async def begin(api: Api, content: Any, **headers: str) -> str:
    """Push and do not wait; the path of the job below the base URL."""
    reply = await push(api, content, headers=headers or ASYNC)
    assert reply.status == 202, reply.raw
    return str(reply.headers["Content-Location"]).removeprefix(api.hub.base_url)


async def ended(api: Api, path: str) -> Reply:
    """Look until the job has ended."""
    async with asyncio.timeout(10):
        while (reply := await api.call("GET", path)).status == 202:
            await asyncio.sleep(0.01)
    return reply


def output(job: dict[str, Any]) -> dict[str, Any]:
    """What the job says at its end, by name."""
    assert job["output"]["resourceType"] == "Parameters"
    return {each["name"]: each.get("resource", each.get("valueString")) for each in job["output"]["parameter"]}


async def test_a_push_is_accepted_as_recorded(api: Api, agent_line: Line) -> None:
    reply = await push(api, asked(await device(api.hub, url=LAB)), headers=ASYNC)
    url = reply.headers["Content-Location"]
    job_id = url.removeprefix(f"{api.hub.base_url}fhir/R4/job/").removesuffix("/status")
    assert str(UUID(job_id)) == job_id
    assert (reply.status, reply.headers["Content-Type"]) == (202, "application/fhir+json; charset=utf-8")
    outcome = reply.json
    assert [outcome.pop("resourceType"), outcome.pop("id"), bool(outcome.pop("extension"))] == [
        "OperationOutcome",
        "accepted",
        True,
    ]
    issue = {"severity": "information", "code": "informational", "details": {"text": "Accepted"}, "diagnostics": url}
    assert outcome == {"issue": [issue]}
    assert (await agent_line.hear())["callback"]


async def test_a_job_is_accepted_until_the_device_has_answered(api: Api, agent_line: Line) -> None:
    path = await begin(api, asked(await device(api.hub, url=LAB)))
    frame = await agent_line.hear()
    waiting = await api.call("GET", path)
    assert (waiting.status, waiting.json["status"]) == (202, "accepted")
    assert list(waiting.json) == ["resourceType", "status", "request", "requestTime", "id", "meta"]

    await agent_line.say(answered(frame))
    reply = await ended(api, path)
    job = reply.json
    assert list(job) == [*waiting.json, "transactionTime", "output"]
    assert (job["resourceType"], job["status"]) == ("AsyncJob", "completed")
    assert job["request"] == f"{api.hub.base_url}fhir/R4/Agent/{api.hub.agent_id}/$push"
    assert (job["id"], job["requestTime"]) == (waiting.json["id"], waiting.json["requestTime"])
    assert output(job) == {"outcome": ALL_OK.resource(), "responseBody": ACK}
    assert job["meta"]["versionId"] != waiting.json["meta"]["versionId"]
    assert reply.headers["ETag"] == f'W/"{job["meta"]["versionId"]}"'
    assert reply.headers["Last-Modified"].endswith(" GMT")


@pytest.mark.parametrize("prefer", ["Respond-Async", "return=minimal, respond-async; wait=10"])
async def test_every_spelling_of_the_preference_is_heard(api: Api, agent_line: Line, prefer: str) -> None:
    assert await begin(api, asked(await device(api.hub, url=LAB), waitForResponse=False), Prefer=prefer)


@pytest.mark.parametrize("prefer", ["", "return=minimal", "respond-asynchronously"])
async def test_other_preferences_change_nothing(api: Api, agent_line: Line, prefer: str) -> None:
    content = asked(await device(api.hub, url=LAB), waitForResponse=False)
    assert (await push(api, content, headers={"Prefer": prefer})).status == 200


async def test_a_job_that_waits_for_nothing_is_soon_completed(api: Api, agent_line: Line) -> None:
    path = await begin(api, asked(await device(api.hub, url=LAB), waitForResponse=False))
    assert output((await ended(api, path)).json) == {"outcome": ALL_OK.resource()}
    assert "callback" not in await agent_line.hear()


async def test_a_job_for_a_durable_remote_is_completed_when_the_message_is_stored(api: Api, agent_line: Line) -> None:
    path = await begin(api, asked(await device(api.hub, url=f"{LAB}?durable=true"), waitForResponse=False))
    await agent_line.say(answered(await agent_line.hear(), statusCode=202, contentType="text/plain", body="stored"))
    said = output((await ended(api, path)).json)
    assert said["outcome"]["issue"][0]["diagnostics"] == "stored"
    assert "responseBody" not in said


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ({"statusCode": 400, "contentType": "text/plain", "body": "connection refused"}, "connection refused"),
        (
            {"type": "agent:error", "body": "Agent.status is currently set to off"},
            "Agent.status is currently set to off",
        ),
    ],
)
async def test_a_failed_job_says_why(api: Api, agent_line: Line, answer: dict[str, Any], text: str) -> None:
    path = await begin(api, asked(await device(api.hub, url=LAB)))
    await agent_line.say(answered(await agent_line.hear(), **answer))
    reply = await ended(api, path)
    assert (reply.status, reply.json["status"]) == (200, "error")
    assert output(reply.json) == {"outcome": bad_request(text).resource()}


async def test_a_job_of_an_agent_that_is_away_times_out(lobby: Lobby) -> None:
    api = await lobby.api(await lobby.hub(operation_timeout_scale=0.01))
    path = await begin(api, asked(await device(api.hub, url=LAB)))
    assert output((await ended(api, path)).json) == {"outcome": bad_request("Timeout").resource()}


async def test_a_wrong_request_is_no_job(api: Api) -> None:
    reply = await push(api, asked("Patient/1"), headers=ASYNC)
    assert (reply.status, reply.problem) == (400, "Destination device not found")
    assert "Content-Location" not in reply.headers


@pytest.mark.parametrize("job_id", ["00000000-0000-4000-8000-000000000000", "x", "%00"])
async def test_an_unknown_job_is_not_found(api: Api, job_id: str) -> None:
    assert (await api.get(f"job/{job_id}/status")).status == 404


async def test_a_job_is_nobody_elses_business(api: Api, agent_line: Line) -> None:
    path = await begin(api, asked(await device(api.hub, url=LAB), waitForResponse=False))
    assert (await api.call("GET", path, token="x")).status == 401


async def test_an_ended_job_survives_a_restart_and_one_at_work_is_in_error(lobby: Lobby) -> None:
    async with Hub.open(lobby.folder, ("127.0.0.1", 0), heartbeat_s=600.0) as first:
        api = await lobby.api(first)
        line = await lobby.line(api, first.agent_id)
        lab = await device(first, url=LAB)
        done = await begin(api, asked(lab))
        await line.say(answered(await line.hear()))
        before = (await ended(api, done)).json
        at_work = await begin(api, asked(lab))
        await line.hear()

    api = await lobby.api(await lobby.hub())
    assert (await api.call("GET", done)).json == before
    reply = await api.call("GET", at_work)
    assert (reply.status, reply.json["status"]) == (200, "error")
    (issue,) = output(reply.json)["outcome"]["issue"]
    assert issue["code"] == "exception"
    assert "stopped" in issue["details"]["text"]
    assert (await api.call("GET", at_work)).json == reply.json
    next_one = await begin(api, asked(lab, waitForResponse=False))
    assert (await ended(api, next_one)).json["status"] == "completed"


# ---- how many there may be


@pytest.fixture
async def store(tmp_path: Path) -> Any:
    store = Store(tmp_path / "hub.db", inbox_module.INSERT)
    yield store
    await store.close()


async def all_ok() -> Resource:
    return output_of(ALL_OK)


async def at_rest(jobs: Jobs) -> None:
    """Until no job is at work."""
    async with asyncio.timeout(10):
        while jobs._at_work:
            await asyncio.sleep(0.001)


async def test_only_the_last_jobs_are_kept_and_all_that_are_at_work(store: Store) -> None:
    jobs, answer = Jobs(store), asyncio.Event()

    async def slow() -> Resource:
        await answer.wait()
        return output_of(ALL_OK)

    async with jobs.at_work():
        first = await jobs.begin("", all_ok)
        slow_one = await jobs.begin("", slow)
        middle = await jobs.begin("", all_ok)
        for _ in range(KEEP):
            last = await jobs.begin("", all_ok)
        assert jobs.read(slow_one)["status"] == "accepted"
        with pytest.raises(Refused, match="Not found"):
            jobs.read(first)
        assert jobs.read(middle)
        answer.set()
        await at_rest(jobs)
        assert jobs.read(slow_one)["status"] == "completed"
        await jobs.begin("", all_ok)
        for forgotten in (slow_one, middle):
            with pytest.raises(Refused, match="Not found"):
                jobs.read(forgotten)
        assert jobs.read(last)


async def test_more_jobs_than_memory_allows_are_refused(store: Store) -> None:
    jobs, answer = Jobs(store), asyncio.Event()

    async def slow() -> Resource:
        await answer.wait()
        return output_of(ALL_OK)

    async with jobs.at_work():
        begun = [await jobs.begin("", slow) for _ in range(AT_ONCE)]
        with pytest.raises(Refused) as refused:
            await jobs.begin("", slow)
        assert refused.value.outcome.status == 429
        answer.set()
        await at_rest(jobs)
        assert {jobs.read(id_)["status"] for id_ in begun} == {"completed"}
        await jobs.begin("", all_ok)


async def test_a_job_that_cannot_be_kept_is_not_begun(store: Store) -> None:
    jobs = Jobs(store)
    async with jobs.at_work():
        await full(store)
        with pytest.raises(StoreError):
            await jobs.begin("x" * 100_000, all_ok)
        await at_rest(jobs)
        await full(store, pages=1_000_000)
        assert await jobs.begin("", all_ok)


async def test_a_result_that_the_disk_refuses_is_an_error(store: Store) -> None:
    jobs, answer = Jobs(store), asyncio.Event()

    async def large() -> Resource:
        await answer.wait()
        return output_of(ALL_OK, "x" * 100_000)

    async with jobs.at_work():
        id_ = await jobs.begin("", large)
        await full(store)
        answer.set()
        await at_rest(jobs)
        assert jobs.read(id_)["status"] == "error"


async def full(store: Store, pages: int = 0) -> None:
    """Let the file grow to so many pages, or no more at all."""
    limit = pages or await store.write(lambda db: int(db.execute("PRAGMA page_count").get))
    await store.write(lambda db: db.execute(f"PRAGMA max_page_count={limit}").get)


async def test_a_file_of_the_release_before_keeps_what_is_in_it(tmp_path: Path) -> None:
    store = Store(tmp_path / "hub.db", inbox_module.INSERT)
    await store.write(lambda db: db.execute("INSERT INTO setting (name, value) VALUES ('a', 'b')").get)
    await store.close()
    with apsw.Connection(str(tmp_path / "hub.db")) as other:
        other.execute("DROP TABLE job; PRAGMA user_version=1")
    store = Store(tmp_path / "hub.db", inbox_module.INSERT)
    jobs = Jobs(store)
    async with jobs.at_work():
        assert jobs.read(await jobs.begin(json.dumps({"id": str(uuid4())}), all_ok))
    assert store.read.execute("SELECT value FROM setting").get == "b"
    await store.close()
