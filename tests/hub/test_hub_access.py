"""Login as recorded; tokens die when they should."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hub_strangers import Api, Reply
from hypothesis import given
from hypothesis import strategies as st

from agent.hub.access import Access, lifetime_of
from agent.hub.resources import Resources


async def token(api: Api, form: dict[str, str], **more: Any) -> Reply:
    return await api.call("POST", "oauth2/token", token="", data=form, **more)


def credentials(api: Api, **changes: str) -> dict[str, str]:
    hub = api.hub
    return {
        "grant_type": "client_credentials",
        "client_id": hub.client_id,
        "client_secret": hub.client_secret,
        **changes,
    }


def claims(jwt: str) -> dict[str, Any]:
    part = jwt.split(".")[1]
    content = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    assert isinstance(content, dict)
    return content


async def test_a_login_is_answered_with_the_recorded_keys(api: Api) -> None:
    reply = await token(api, credentials(api))
    assert reply.status == 200
    assert reply.headers["Content-Type"] == "application/json; charset=utf-8"
    assert "no-store" in reply.headers["Cache-Control"]
    assert list(reply.json) == [
        "token_type", "expires_in", "scope", "id_token", "access_token", "project", "profile", "smart_style_url",
        "need_patient_banner",
    ]  # fmt: skip
    assert reply.json["expires_in"] == 3600
    assert reply.json["profile"] == {"reference": f"ClientApplication/{api.hub.client_id}", "display": "Agent client"}
    inside = claims(reply.json["access_token"])
    assert inside["exp"] - inside["iat"] == 3600
    assert isinstance(inside["login_id"], str)


async def test_basic_authentication_does_as_well(api: Api) -> None:
    auth = "Basic " + base64.b64encode(f"{api.hub.client_id}:{api.hub.client_secret}".encode()).decode()
    reply = await token(api, {"grant_type": "client_credentials"}, headers={"Authorization": auth})
    assert reply.status == 200
    assert (await api.call("GET", "auth/me", token="", headers={"Authorization": auth})).status == 200


@pytest.mark.parametrize(
    ("changes", "description"),
    [
        ({"client_secret": "wrong-secret"}, "Invalid secret"),
        ({"client_id": "00000000-0000-4000-8000-000000000000", "client_secret": "x"}, "Invalid client"),
        ({"client_id": "nonsense", "client_secret": "x"}, "Invalid client"),
        ({"grant_type": ""}, "Missing grant_type"),
        ({"grant_type": "password"}, "Unsupported grant_type"),
        ({"client_id": ""}, "Missing client_id"),
        ({"client_secret": ""}, "Missing client_secret"),
    ],
)
async def test_a_refused_login_says_which_value_is_wrong(api: Api, changes: dict[str, str], description: str) -> None:
    reply = await token(api, credentials(api, **changes))
    assert reply.status == 400
    assert reply.json == {"error": "invalid_request", "error_description": description}


async def test_me_has_what_was_recorded(api: Api) -> None:
    me = (await api.call("GET", "auth/me")).json
    assert list(me) == ["project", "membership", "profile", "config", "accessPolicy"]
    assert me["project"]["strictMode"] is True
    assert me["profile"]["id"] == api.hub.client_id
    assert me["membership"]["profile"] == {
        "reference": f"ClientApplication/{api.hub.client_id}",
        "display": "Agent client",
    }


async def test_userinfo_names_the_client(api: Api) -> None:
    assert (await api.call("GET", "oauth2/userinfo")).json["sub"] == api.hub.client_id


async def test_without_a_good_token_nothing_is_told(api: Api) -> None:
    id_token = (await token(api, credentials(api))).json["id_token"]
    header, payload, signature = api.token.split(".")
    forged = f"{header}.{payload}.{signature[:-4]}AAAA"
    for bad in (None, "bad-token", "Bearer", f"Bearer {forged}", "Bearer a.b.c", f"Bearer {id_token}", "Basic !!"):
        headers = {"Authorization": bad} if bad else {}
        for path in ("auth/me", f"fhir/R4/Agent/{api.hub.agent_id}", "fhir/R4/Agent/$bulk-status", "hub/messages"):
            reply = await api.call("GET", path, token="", headers=headers)
            assert reply.status == 401, (bad, path)
            outcome = reply.json
            assert [url["url"] for url in outcome.pop("extension")[0]["extension"]] == ["requestId", "traceId"]
            assert outcome == {
                "resourceType": "OperationOutcome",
                "id": "unauthorized",
                "issue": [{"severity": "error", "code": "login", "details": {"text": "Unauthorized"}}],
            }


async def test_a_token_lives_as_long_as_its_client_says(api: Api) -> None:
    client = await api.hub.put_resource(
        {"resourceType": "ClientApplication", "name": "short", "secret": "s3cret", "accessTokenLifetime": "6m"}
    )
    now = [1_800_000_000.0]
    access = Access(api.hub._resources, b"k" * 32, {"id": "1"}, now=lambda: now[0])
    granted = access.issue(credentials(api, client_id=client["id"], client_secret="s3cret"), None)
    assert granted["expires_in"] == 360
    now[0] += 359
    assert access.caller(granted["access_token"]) is not None
    now[0] += 1
    assert access.caller(granted["access_token"]) is None
    fresh = Access(api.hub._resources, b"k" * 32, {"id": "1"}, now=lambda: now[0])
    assert fresh.caller(granted["access_token"]) is None


async def test_a_token_dies_with_its_client(api: Api) -> None:
    client = await api.hub.put_resource({"resourceType": "ClientApplication", "name": "other", "secret": "s3cret"})
    await api.login(client["id"], "s3cret")
    assert (await api.call("GET", "auth/me")).status == 200
    await api.hub.delete_resource("ClientApplication", client["id"])
    assert (await api.call("GET", "auth/me")).status == 401


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("6m", 360), ("1m", 60), ("2h", 7200), ("1d", 86_400), ("90", 90), ("", 3600), ("soon", 3600), ("0s", 1)],
)
def test_lifetimes(text: str, seconds: int) -> None:
    assert lifetime_of({"accessTokenLifetime": text}) == seconds


@given(st.text())
def test_no_text_is_a_token(text: str) -> None:
    resources = Resources.__new__(Resources)  # a token that is not ours never gets as far as the resources
    resources.generation = 0
    assert Access(resources, b"k" * 32, {}).caller(text) is None
