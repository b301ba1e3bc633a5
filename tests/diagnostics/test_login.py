"""Whether the server knows us: against the real hub, and against servers that say what the hub never does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from diagnostics_far_ends import AGENT_ID, SECRET, a_host, an_http_server

from agent.diagnostics.check import Looked, NotLooked, Outcome
from agent.diagnostics.host import Host
from agent.diagnostics.login import Account
from agent.errors import Finding, Severity
from agent.hub import Hub

SOMEBODY_ELSE = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Hub]:
    async with Hub.open(tmp_path / "hub", ("127.0.0.1", 0), channel_address="mllp://127.0.0.1:0") as hub:
        yield hub


def a_host_of(hub: Hub, folder: Path, **given: object) -> Host:
    values = {"client_id": hub.client_id, "client_secret": hub.client_secret, "agent_id": hub.agent_id, **given}
    return a_host(folder, hub.base_url, **values)


def the_finding(outcome: Outcome) -> Finding:
    assert isinstance(outcome, Looked)
    [finding] = outcome.findings
    assert finding.remedy
    return finding


async def test_who_is_known_logs_in_once_and_reads_its_agent(tmp_path: Path, hub: Hub) -> None:
    host, account = a_host_of(hub, tmp_path), Account()

    known = await account.log_in(host)
    agent = await account.read_agent(host)

    assert isinstance(known, Looked)
    assert known.text.startswith(f"the server knows client {hub.client_id} (")
    assert agent == Looked("'agent', active, 1 channel")


async def test_a_wrong_secret_is_told_from_a_wrong_id(tmp_path: Path, hub: Hub) -> None:
    wrong_secret = the_finding(await Account().log_in(a_host_of(hub, tmp_path, client_secret="no-such-secret")))
    wrong_id = the_finding(await Account().log_in(a_host_of(hub, tmp_path, client_id=SOMEBODY_ELSE)))

    assert (wrong_secret.code, wrong_secret.where) == ("credentials.client-secret", "server.client_secret")
    assert (wrong_id.code, wrong_id.where) == ("credentials.client-id", "server.client_id")
    assert "no-such-secret" not in str(wrong_secret)


async def test_an_agent_that_the_server_does_not_have_is_named(tmp_path: Path, hub: Hub) -> None:
    host, account = a_host_of(hub, tmp_path, agent_id=SOMEBODY_ELSE), Account()
    await account.log_in(host)

    finding = the_finding(await account.read_agent(host))

    assert (finding.code, finding.severity, finding.where) == (
        "agent.not-found",
        Severity.ERROR,
        f"Agent/{SOMEBODY_ELSE}",
    )
    assert "server.agent_id" in finding.remedy


async def test_an_agent_that_is_switched_off_is_a_warning(tmp_path: Path, hub: Hub) -> None:
    await hub.put_resource({**hub.resource("Agent", hub.agent_id), "status": "off"})
    host, account = a_host_of(hub, tmp_path), Account()
    await account.log_in(host)

    finding = the_finding(await account.read_agent(host))

    assert (finding.code, finding.severity) == ("agent.off", Severity.WARNING)


async def a_login_answered(folder: Path, status: int, body: str, **headers: str) -> Outcome:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, text=body, headers=headers)

    async with an_http_server(answer) as base_url:
        return await Account().log_in(a_host(folder, base_url))


async def test_too_many_logins_say_when_to_come_again(tmp_path: Path) -> None:
    finding = the_finding(await a_login_answered(tmp_path, 429, "", **{"Retry-After": "40"}))

    assert (finding.code, finding.severity) == ("credentials.no-token", Severity.ERROR)
    assert "429" in finding.text
    assert "in 40 s at the earliest" in finding.remedy


async def test_a_login_page_in_the_servers_place_is_no_token(tmp_path: Path) -> None:
    finding = the_finding(await a_login_answered(tmp_path, 200, "<html>Welcome to our guest network</html>"))

    assert finding.code == "credentials.no-token"
    assert "login page" in finding.remedy


@pytest.mark.parametrize(
    ("status", "code"), [(403, "agent.forbidden"), (401, "agent.token-refused"), (500, "agent.no-answer")]
)
async def test_what_the_server_says_to_the_agents_id_is_told_apart(tmp_path: Path, status: int, code: str) -> None:
    async def answer(request: web.Request) -> web.Response:
        if request.path == "/oauth2/token":
            return web.json_response({"access_token": "t", "expires_in": 3600})
        return web.json_response({"resourceType": "OperationOutcome"}, status=status)

    async with an_http_server(answer) as base_url:
        host, account = a_host(tmp_path, base_url), Account()
        await account.log_in(host)
        finding = the_finding(await account.read_agent(host))

    assert (finding.code, finding.where) == (code, f"Agent/{AGENT_ID}")


async def test_something_else_than_an_agent_is_told(tmp_path: Path) -> None:
    async def answer(request: web.Request) -> web.Response:
        if request.path == "/oauth2/token":
            return web.json_response({"access_token": "t", "expires_in": 3600})
        return web.json_response({"resourceType": "Patient", "name": "EVERYMAN"})

    async with an_http_server(answer) as base_url:
        host, account = a_host(tmp_path, base_url), Account()
        await account.log_in(host)
        finding = the_finding(await account.read_agent(host))

    assert finding.code == "server.unreadable-resource"
    assert "EVERYMAN" not in str(finding)


async def test_without_settings_nobody_logs_in(tmp_path: Path) -> None:
    outcome = await Account().log_in(a_host(tmp_path, client_secret=None))
    assert outcome == NotLooked("the configuration is incomplete")


async def test_the_secret_is_nowhere_in_what_is_said(tmp_path: Path) -> None:
    outcome = await a_login_answered(tmp_path, 400, '{"error_description": "Invalid secret"}')
    assert SECRET not in str(outcome)
    assert the_finding(outcome).code == "credentials.client-secret"
