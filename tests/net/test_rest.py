"""Reading resources: what goes out, and what each kind of trouble is called."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from net_far_ends import ConnectProxy, StartHttp

from agent.errors import LinkError
from agent.net.proxy import Proxy
from agent.net.rest import MAX_ANSWER_BYTES, Answer, ClockSkew, Rest, ServerRefused
from agent.net.tls import client_context

NOT_FOUND = {
    "resourceType": "OperationOutcome",
    "id": "not-found",
    "issue": [{"severity": "error", "code": "not-found", "details": {"text": "Not found"}}],
}


class Tokens:
    """Gives a new token after each refusal."""

    def __init__(self) -> None:
        self.refusals = 0

    async def token(self) -> str:
        return f"token-{self.refusals + 1}"

    def refused(self) -> str:
        self.refusals += 1
        return ""


async def test_a_resource_is_read_with_the_token_and_never_from_a_cache(start_http: StartHttp) -> None:
    async def agent(request: web.Request) -> web.Response:
        assert request.path == "/base/fhir/R4/Agent/1"
        assert request.headers["Authorization"] == "Bearer token-1"
        assert request.headers["Accept"] == "application/fhir+json, */*; q=0.1"
        assert request.headers["Cache-Control"] == "no-cache"
        assert request.headers["User-Agent"] == "onprem-agent/1"
        return web.json_response({"resourceType": "Agent"}, content_type="application/fhir+json")

    base_url = await start_http(agent) + "base"
    async with Rest(base_url, credentials=Tokens(), user_agent="onprem-agent/1") as rest:
        assert await rest.get("fhir/R4/Agent/1") == {"resourceType": "Agent"}
        assert await rest.get("/fhir/R4/Agent/1") == {"resourceType": "Agent"}


async def test_a_401_is_tried_once_more_with_a_new_token(start_http: StartHttp) -> None:
    async def once(request: web.Request) -> web.Response:
        if request.headers["Authorization"] == "Bearer token-1":
            return web.Response(status=401)
        return web.json_response({"id": "1"})

    tokens = Tokens()
    async with Rest(await start_http(once), credentials=tokens) as rest:
        assert await rest.get("fhir/R4/Agent/1") == {"id": "1"}
    assert tokens.refusals == 1


async def test_a_401_that_stays_is_told_after_two_tries(start_http: StartHttp) -> None:
    tries: list[str] = []

    async def never(request: web.Request) -> web.Response:
        tries.append(request.headers["Authorization"])
        return web.Response(status=401)

    async with Rest(await start_http(never), credentials=Tokens()) as rest:
        with pytest.raises(ServerRefused) as refused:
            await rest.get("fhir/R4/Agent/1")
    assert refused.value.status == 401
    assert tries == ["Bearer token-1", "Bearer token-2"]


async def test_a_401_with_clocks_far_apart_names_both_times(start_http: StartHttp) -> None:
    async def never(request: web.Request) -> web.Response:
        return web.Response(status=401, headers={"Date": "Sun, 22 Nov 2037 07:43:39 GMT"})

    async with Rest(await start_http(never), credentials=Tokens()) as rest:
        with pytest.raises(ServerRefused, match="2037-11-22 07:43:39 UTC") as refused:
            await rest.get("fhir/R4/Agent/1")
        assert rest.finding is not None
        assert rest.finding.code == "clock.skew"
    assert "NTP" in refused.value.hint


@pytest.mark.parametrize(("status", "remedy"), [(404, "check the id"), (403, "access policy"), (400, "base URL")])
async def test_a_refusal_carries_status_outcome_and_remedy(start_http: StartHttp, status: int, remedy: str) -> None:
    async def refuse(request: web.Request) -> web.Response:
        return web.json_response(NOT_FOUND, status=status)

    async with Rest(await start_http(refuse), credentials=Tokens()) as rest:
        with pytest.raises(ServerRefused, match=f"fhir/R4/Agent/1: the server answered {status}: Not found") as refused:
            await rest.get("fhir/R4/Agent/1")
    assert refused.value.status == status
    assert remedy in refused.value.hint


async def test_a_redirect_is_not_followed_with_the_token(start_http: StartHttp) -> None:
    async def elsewhere(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "/login"})

    async with Rest(await start_http(elsewhere), credentials=Tokens()) as rest:
        with pytest.raises(ServerRefused, match="302"):
            await rest.get("fhir/R4/Agent/1")


@pytest.mark.parametrize(("status", "header", "wait_s"), [(429, "7", 7), (503, None, None), (429, "9999999", 3600)])
async def test_overload_is_a_link_error_with_its_wait(
    start_http: StartHttp, status: int, header: str | None, wait_s: float | None
) -> None:
    async def busy(request: web.Request) -> web.Response:
        return web.Response(status=status, headers={} if header is None else {"Retry-After": header})

    async with Rest(await start_http(busy), credentials=Tokens()) as rest:
        with pytest.raises(LinkError, match=str(status)) as late:
            await rest.get("fhir/R4/Agent/1")
    assert late.value.retry_after_s == wait_s


async def test_a_retry_after_date_counts_from_the_servers_clock(start_http: StartHttp) -> None:
    async def busy(request: web.Request) -> web.Response:
        server_now = datetime(2037, 11, 22, 7, 0, 0, tzinfo=UTC)
        now, later = (format_datetime(server_now + timedelta(seconds=wait), usegmt=True) for wait in (0, 30))
        return web.Response(status=429, headers={"Date": now, "Retry-After": later})

    async with Rest(await start_http(busy), credentials=Tokens()) as rest:
        with pytest.raises(LinkError) as late:
            await rest.get("fhir/R4/Agent/1")
    assert late.value.retry_after_s == 30


@pytest.mark.parametrize("body", ["<html>", "[]", "", '"text"'])
async def test_an_answer_that_is_no_json_object_is_not_believed(start_http: StartHttp, body: str) -> None:
    async def portal(request: web.Request) -> web.Response:
        return web.Response(text=body)

    async with Rest(await start_http(portal), credentials=Tokens()) as rest:
        with pytest.raises(LinkError, match="no JSON object"):
            await rest.get("fhir/R4/Agent/1")


async def test_an_answer_without_end_is_cut_off(start_http: StartHttp) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(MAX_ANSWER_BYTES // 1_000_000 + 2):
            await response.write(b" " * 1_000_000)
        return response

    async with Rest(await start_http(endless), credentials=Tokens()) as rest:
        with pytest.raises(LinkError, match="more than 16 MiB"):
            await rest.get("fhir/R4/Agent/1")


async def test_a_server_that_is_away_or_silent_or_breaks_off_is_a_link_error(start_http: StartHttp) -> None:
    async def broken(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async def silent(request: web.Request) -> web.Response:
        await asyncio.Event().wait()
        return web.Response()

    for base_url, text in [
        ("http://127.0.0.1:1/", "cannot connect to"),
        ("http://no-such-host.invalid/", "cannot be resolved"),
        (await start_http(broken), "broke"),
        (await start_http(silent), "did not answer within 0.2 s"),
    ]:
        async with Rest(base_url, credentials=Tokens(), timeout_s=0.2 if "answer" in text else 30.0) as rest:
            with pytest.raises(LinkError, match=text):
                await rest.get("fhir/R4/Agent/1")


async def test_the_clocks_are_compared(start_http: StartHttp) -> None:
    async def agent(request: web.Request) -> web.Response:
        return web.json_response({"id": "1"})

    async with Rest(await start_http(agent), credentials=Tokens()) as rest:
        assert rest.server_date_skew_s is None
        await rest.get("fhir/R4/Agent/1")
        assert rest.server_date_skew_s is not None
        assert abs(rest.server_date_skew_s) < 30
        assert rest.finding is None


@pytest.mark.parametrize(("seconds", "worth_telling"), [(0, False), (60, False), (61, True), (-61, True)])
def test_a_skew_of_more_than_a_minute_is_a_finding(seconds: int, worth_telling: bool) -> None:
    ours = datetime(2026, 11, 22, 7, 43, 39, tzinfo=UTC)

    finding = ClockSkew(ours + timedelta(seconds=seconds), ours).finding()

    assert (finding is not None) == worth_telling
    if finding is not None:
        assert "2026-11-22 07:43:39 UTC" in finding.text
        assert "61 s apart" in finding.text


# Proxy and TLS


async def test_a_plain_server_is_read_through_the_proxy_with_its_credentials(start_http: StartHttp) -> None:
    async def proxy(request: web.Request) -> web.Response:
        assert request.raw_path == "http://server.example.org/fhir/R4/Agent/1"
        assert request.headers["Proxy-Authorization"] == "Basic dXNlcjpwYXNz"
        return web.json_response({"id": "1"})

    port = int((await start_http(proxy)).rstrip("/").rpartition(":")[2])
    way = Proxy("127.0.0.1", port, "user", "pass")
    async with Rest("http://server.example.org/", credentials=Tokens(), proxy=way) as rest:
        assert await rest.get("fhir/R4/Agent/1") == {"id": "1"}


async def test_a_tls_server_is_read_through_a_tunnel_that_keeps_the_proxy_credentials_outside(
    start_http: StartHttp, connect_proxy: ConnectProxy, server_tls: ssl.SSLContext, certificate: tuple[Path, Path]
) -> None:
    async def agent(request: web.Request) -> web.Response:
        assert "Proxy-Authorization" not in request.headers
        return web.json_response({"id": "1"})

    base_url = await start_http(agent, server_tls)
    way = Proxy("127.0.0.1", connect_proxy.port, "user", "pass")
    trusted = client_context(certificate[0])
    async with Rest(base_url, credentials=Tokens(), proxy=way, ssl=trusted) as rest:
        assert await rest.get("fhir/R4/Agent/1") == {"id": "1"}
    assert "Proxy-Authorization: Basic dXNlcjpwYXNz" in connect_proxy.heads[0]


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("status", [407, 502])
async def test_a_proxy_that_refuses_is_named_without_its_credentials(
    connect_proxy: ConnectProxy, scheme: str, status: int
) -> None:
    connect_proxy.answer = f"HTTP/1.1 {status} no\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
    way = Proxy("127.0.0.1", connect_proxy.port, "user", "hunter2")
    async with Rest(f"{scheme}://server.example.org/", credentials=Tokens(), proxy=way) as rest:
        with pytest.raises(LinkError, match=str(status)) as refused:
            await rest.get("fhir/R4/Agent/1")
    assert "hunter2" not in f"{refused.value} {refused.value.hint}"
    if status == 407:
        assert f"proxy http://127.0.0.1:{connect_proxy.port}" in str(refused.value)


async def test_a_proxy_that_is_away_is_named() -> None:
    way = Proxy("127.0.0.1", 1, "user", "hunter2")
    async with Rest("https://server.example.org/", credentials=Tokens(), proxy=way) as rest:
        with pytest.raises(LinkError, match=r"proxy http://127\.0\.0\.1:1 cannot be reached"):
            await rest.get("fhir/R4/Agent/1")


async def test_an_untrusted_server_is_named_with_the_setting(start_http: StartHttp, server_tls: ssl.SSLContext) -> None:
    async def agent(request: web.Request) -> web.Response:
        return web.json_response({"id": "1"})

    base_url = await start_http(agent, server_tls)
    async with Rest(base_url, credentials=Tokens(), ssl=client_context()) as rest:
        with pytest.raises(LinkError, match="is not trusted") as refused:
            await rest.get("fhir/R4/Agent/1")
    assert "ca_file" in refused.value.hint


# Parsers


@given(st.binary() | st.text().map(str.encode))
def test_any_body_has_an_explanation_or_none(body: bytes) -> None:
    assert isinstance(Answer(400, body, None).explanation(), str)
