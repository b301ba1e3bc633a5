"""FHIR over HTTP: what is written is read back, what is wrong is named."""

from __future__ import annotations

import base64
import io
from typing import Any

import pytest
from hub_strangers import Api, Lobby

from agent.hub import Hub
from agent.hub.hub import endpoint_for

ENDPOINT = endpoint_for("adt", "mllp://0.0.0.0:2575")
NO_SUCH_ID = "00000000-0000-4000-8000-000000000000"


def issue(reply: Any) -> Any:
    return reply.json["issue"][0]


async def test_create_read_update_delete(api: Api) -> None:
    created = await api.post("Endpoint", ENDPOINT)
    assert created.status == 201
    resource = created.json
    path = f"Endpoint/{resource['id']}"
    assert created.headers["Location"] == f"{api.hub.base_url}fhir/R4/{path}"
    assert created.headers["Content-Type"] == "application/fhir+json; charset=utf-8"
    assert created.headers["ETag"] == f'W/"{resource["meta"]["versionId"]}"'
    assert {**resource, "id": 0, "meta": 0} == {**ENDPOINT, "id": 0, "meta": 0}

    assert (await api.get(path)).json == resource

    changed = await api.put(path, {**resource, "status": "off"})
    assert changed.status == 200
    assert changed.json["meta"]["versionId"] != resource["meta"]["versionId"]
    assert (await api.get(path)).json["status"] == "off"

    assert (await api.call("DELETE", f"fhir/R4/{path}")).json["issue"][0]["details"]["text"] == "All OK"
    gone = await api.get(path)
    assert gone.status == 410
    assert gone.json["id"] == "gone"
    assert issue(gone) == {"severity": "error", "code": "deleted", "details": {"text": "Gone"}}


async def test_meta_is_told_in_full_only_on_demand(api: Api) -> None:
    path = f"Agent/{api.hub.agent_id}"
    plain, extended = await api.get(path), await api.get(path, headers={"X-Medplum": "extended"})
    assert set(plain.json["meta"]) == {"versionId", "lastUpdated"}
    assert set(extended.json["meta"]) == {"versionId", "lastUpdated", "author", "project", "compartment"}


async def test_an_update_that_changes_nothing_makes_no_version(api: Api) -> None:
    before = (await api.get(f"Agent/{api.hub.agent_id}")).json
    after = (await api.put(f"Agent/{api.hub.agent_id}", before)).json
    assert after == before


@pytest.mark.parametrize("id_", [NO_SUCH_ID, "not-a-uuid"])
async def test_an_unknown_id_is_not_found(api: Api, id_: str) -> None:
    for reply in (
        await api.get(f"Agent/{id_}"),
        await api.put(f"Endpoint/{id_}", {**ENDPOINT, "id": id_}),
        await api.call("DELETE", f"fhir/R4/Agent/{id_}"),
    ):
        assert reply.status == 404
        assert reply.json["id"] == "not-found"
        assert issue(reply) == {"severity": "error", "code": "not-found", "details": {"text": "Not found"}}


async def test_if_match_is_honoured(api: Api) -> None:
    agent = (await api.get(f"Agent/{api.hub.agent_id}")).json
    path = f"Agent/{agent['id']}"
    stale = await api.put(path, {**agent, "status": "off"}, headers={"If-Match": 'W/"stale"'})
    assert stale.status == 412
    assert (await api.get(path)).json["status"] == "active"
    etag = f'W/"{agent["meta"]["versionId"]}"'
    assert (await api.put(path, {**agent, "status": "off"}, headers={"If-Match": etag})).status == 200


@pytest.mark.parametrize(
    ("resource", "expression"),
    [
        ({"resourceType": "Agent", "status": "active"}, "Agent.name"),
        ({"resourceType": "Agent", "name": "a"}, "Agent.status"),
        ({"resourceType": "Agent", "name": "a", "status": "sleepy"}, "Agent.status"),
        ({"resourceType": "Agent", "name": 7, "status": "active"}, "Agent.name"),
        ({"resourceType": "Agent", "name": "a", "status": "active", "channel": {}}, "Agent.channel"),
        ({"resourceType": "Agent", "name": "a", "status": "active", "channel": [{}]}, "Agent.channel[0].name"),
        (
            {"resourceType": "Agent", "name": "a", "status": "active", "channel": [{"name": "c"}]},
            "Agent.channel[0].endpoint",
        ),
        (
            {"resourceType": "Agent", "name": "a", "status": "active", "setting": [{"name": "keepAlive"}]},
            "Agent.setting[0].value[x]",
        ),
        ({**ENDPOINT, "status": None}, "Endpoint.status"),
        ({**ENDPOINT, "address": ""}, "Endpoint.address"),
        ({**ENDPOINT, "connectionType": None}, "Endpoint.connectionType"),
        ({**ENDPOINT, "payloadType": []}, "Endpoint.payloadType"),
        ({"resourceType": "Bot", "name": "b", "code": "exports.handler = 1"}, "Bot.code"),
        ({"resourceType": "Device", "meta": []}, "Device.meta"),
    ],
)
async def test_a_resource_of_the_wrong_shape_is_refused_by_element(
    api: Api, resource: dict[str, Any], expression: str
) -> None:
    reply = await api.post(resource["resourceType"], resource)
    assert reply.status == 400
    assert issue(reply)["expression"] == [expression]


@pytest.mark.parametrize(
    ("method", "path", "content", "text"),
    [
        ("POST", "Agent", b"{", "Content could not be parsed"),
        ("POST", "Agent", b"[]", "Resource is not an object"),
        ("POST", "Agent", b'{"resourceType":"Endpoint"}', "Incorrect resource type"),
        ("PUT", f"Device/{NO_SUCH_ID}", b'{"resourceType":"Device","id":"other"}', "Incorrect ID"),
    ],
)
async def test_a_body_that_does_not_fit_its_path_is_refused(
    api: Api, method: str, path: str, content: bytes, text: str
) -> None:
    reply = await api.call(method, f"fhir/R4/{path}", data=content, headers={"Content-Type": "application/json"})
    assert reply.status == 400
    assert reply.problem.startswith(text)


async def test_a_body_over_the_limit_is_refused(api: Api) -> None:
    large = io.BytesIO(b'{"resourceType":"Basic","text":"%s"}' % (b"x" * 1_100_000))
    reply = await api.call("POST", "fhir/R4/Basic", data=large)
    assert reply.status == 413


@pytest.mark.parametrize("path", ["", "nonsense", "Agent/1/2/3", "Patient/$everything", "Agent/$bogus", "agent"])
async def test_other_paths_are_not_found(api: Api, path: str) -> None:
    assert (await api.get(path)).status == 404


async def test_patch_changes_one_element(api: Api) -> None:
    path = f"fhir/R4/Agent/{api.hub.agent_id}"
    patched = await api.call("PATCH", path, json=[{"op": "replace", "path": "/status", "value": "off"}])
    assert patched.status == 200
    assert patched.json["status"] == "off"
    refused = await api.call("PATCH", path, json=[{"op": "remove", "path": "/nonsense"}])
    assert refused.status == 400
    assert refused.problem == "Nothing at /nonsense"


async def test_a_search_is_a_bundle_with_links(api: Api) -> None:
    for number in range(5):
        await api.hub.put_agent(f"fleet {number}", {})
    page = (await api.get("Agent?name=FLEET&_count=2&_offset=2&_sort=-name")).json
    assert (page["type"], page["total"]) == ("searchset", 5)
    assert [entry["resource"]["name"] for entry in page["entry"]] == ["fleet 2", "fleet 1"]
    entry = page["entry"][0]
    assert entry["fullUrl"] == f"{api.hub.base_url}fhir/R4/Agent/{entry['resource']['id']}"
    links = {link["relation"]: link["url"] for link in page["link"]}
    assert list(links) == ["self", "first", "next", "previous"]
    following = (await api.call("GET", links["next"].removeprefix(api.hub.base_url))).json
    assert [entry["resource"]["name"] for entry in following["entry"]] == ["fleet 0"]
    assert "next" not in {link["relation"] for link in following["link"]}


async def test_a_search_may_be_posted(api: Api) -> None:
    reply = await api.call("POST", "fhir/R4/Agent/_search", data={"name": "agent"})
    assert reply.json["total"] == 1


async def test_an_unknown_search_parameter_is_refused_by_name(api: Api) -> None:
    reply = await api.get("Agent?bogus=1&name=x")
    assert reply.status == 400
    assert issue(reply) == {
        "severity": "error",
        "code": "invalid",
        "details": {"text": "Unknown search parameter: bogus"},
    }


async def test_metadata_needs_no_token(api: Api) -> None:
    statement = (await api.get("metadata", token="")).json
    assert (statement["resourceType"], statement["fhirVersion"]) == ("CapabilityStatement", "4.0.1")


async def test_binary_content_passes_unchanged(api: Api) -> None:
    content = bytes(range(256)) * 20_000  # 5 MB: more than a JSON body may have
    created = await api.call(
        "POST",
        "fhir/R4/Binary?_filename=x.dcm",
        data=io.BytesIO(content),
        headers={"Content-Type": "application/dicom"},
    )
    assert created.status == 201
    binary = created.json
    assert binary["contentType"] == "application/dicom"
    read = await api.get(f"Binary/{binary['id']}")
    assert (read.raw, read.headers["Content-Type"]) == (content, "application/dicom")

    link = binary["url"].removeprefix(api.hub.base_url)
    assert (await api.call("GET", link, token="")).raw == content
    assert (await api.call("GET", link[:-4] + "0000", token="")).status == 401

    replaced = await api.call(
        "PUT", f"fhir/R4/Binary/{binary['id']}", data=b"less", headers={"Content-Type": "text/plain"}
    )
    assert replaced.status == 200
    assert (await api.get(f"Binary/{binary['id']}")).raw == b"less"
    await api.call("DELETE", f"fhir/R4/Binary/{binary['id']}")
    assert (await api.get(f"Binary/{binary['id']}")).status == 410


async def test_a_binary_may_come_as_json(api: Api) -> None:
    sent = {"resourceType": "Binary", "contentType": "text/plain", "data": base64.b64encode(b"hello").decode()}
    created = await api.post("Binary", sent, headers={"Content-Type": "application/fhir+json"})
    assert (await api.get(f"Binary/{created.json['id']}")).raw == b"hello"
    bad = {**sent, "data": "***"}
    refused = await api.post("Binary", bad, headers={"Content-Type": "application/fhir+json"})
    assert issue(refused)["expression"] == ["Binary.data"]


async def test_everything_is_there_again_after_a_restart(lobby: Lobby) -> None:
    async with Hub.open(lobby.folder, ("127.0.0.1", 0)) as first:
        created = await (await lobby.api(first)).post("Device", {"resourceType": "Device", "url": "mllp://1.2.3.4:5"})
        values = (first.client_id, first.client_secret, first.agent_id)
    second = await lobby.hub()
    assert (second.client_id, second.client_secret, second.agent_id) == values
    assert (await (await lobby.api(second)).get(f"Device/{created.json['id']}")).json == created.json
