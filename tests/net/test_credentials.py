"""A token that the server accepts: asked for once, renewed early, and never in a loop."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from net_far_ends import StartHttp
from structlog.testing import capture_logs

from agent.errors import LinkError
from agent.net.credentials import Credentials, CredentialsRefused, renew_after_s


class TokenServer:
    """Counts token requests and answers as it is told: `script` first, then `answer`; None is a good token.

    `life_s` None: no expires_in. `go_on` holds answers back; `asked` tells that a request is there.
    """

    def __init__(self) -> None:
        self.requests: list[web.Request] = []
        self.forms: list[dict[str, Any]] = []
        self.life_s: float | None = 3600
        self.claims: dict[str, Any] | None = None
        self.answer: web.Response | None = None
        self.script: list[web.Response | None] = []
        self.asked = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()

    @property
    def tokens_asked(self) -> int:
        return len(self.forms)

    async def serve(self, request: web.Request) -> web.Response:
        self.requests.append(request)
        if request.path == "/auth/me":
            return web.json_response({"project": {"name": "Ward"}, "profile": {}})
        self.forms.append(dict(await request.post()))
        self.asked.set()
        await self.go_on.wait()
        answer = self.script.pop(0) if self.script else self.answer
        if answer is not None:
            return web.Response(status=answer.status, body=answer.body, headers=answer.headers)
        token = f"token-{self.tokens_asked}"
        if self.claims is not None:
            payload = base64.urlsafe_b64encode(json.dumps(self.claims).encode()).decode().rstrip("=")
            token = f"e30.{payload}.x"
        life = {} if self.life_s is None else {"expires_in": self.life_s}
        return web.json_response({"token_type": "Bearer", "access_token": token, **life})


class Clock:
    """Time that the test owns: waiting for it lets it pass."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.waits: list[float] = []
        self.steps = asyncio.Semaphore(0)

    def __call__(self) -> float:
        return self.now_s

    async def wait(self, wake: asyncio.Event, seconds: float) -> None:
        self.waits.append(seconds)
        self.steps.release()
        if len(self.waits) >= 12:
            await asyncio.Event().wait()
        self.now_s += seconds

    async def passed(self, waits: int) -> None:
        async with asyncio.timeout(10):
            for _ in range(waits):
                await self.steps.acquire()


@asynccontextmanager
async def tended(credentials: Credentials) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as work:
        task = work.create_task(credentials.run(), name="credentials")
        try:
            yield
        finally:
            task.cancel()


def refusal(status: int, **body: str) -> web.Response:
    return web.json_response({"error": "invalid_request", **body}, status=status)


# The exchange, as recorded in connect.json


async def test_login_is_a_form_without_basic_auth_and_then_a_look_at_who_we_are(start_http: StartHttp) -> None:
    server = TokenServer()
    credentials = Credentials(await start_http(server.serve), "the id", "s&cret")

    assert credentials.current is None
    assert await credentials.token() == "token-1"
    assert credentials.current == "token-1"

    token, me = server.requests
    assert (token.method, token.path, me.method, me.path) == ("POST", "/oauth2/token", "GET", "/auth/me")
    assert server.forms == [{"grant_type": "client_credentials", "client_id": "the id", "client_secret": "s&cret"}]
    assert token.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert "Authorization" not in token.headers
    assert me.headers["Authorization"] == "Bearer token-1"


async def test_a_base_url_with_a_path_is_kept(start_http: StartHttp) -> None:
    server = TokenServer()
    await Credentials(await start_http(server.serve) + "medplum", "id", "secret").token()

    assert server.requests[0].path == "/medplum/oauth2/token"


async def test_who_ever_asks_at_the_same_time_shares_one_request(start_http: StartHttp) -> None:
    server = TokenServer()
    server.go_on.clear()
    credentials = Credentials(await start_http(server.serve), "id", "secret")
    async with asyncio.TaskGroup() as work:
        asking = [work.create_task(credentials.token()) for _ in range(20)]
        async with asyncio.timeout(10):
            await server.asked.wait()
        server.go_on.set()

    assert {task.result() for task in asking} == {"token-1"}
    assert server.tokens_asked == 1


async def test_who_ever_asks_at_the_same_time_shares_one_failure(start_http: StartHttp) -> None:
    server = TokenServer()
    server.answer = web.Response(status=503)
    credentials = Credentials(await start_http(server.serve), "id", "secret")

    outcomes = await asyncio.gather(*(credentials.token() for _ in range(20)), return_exceptions=True)

    assert all(isinstance(outcome, LinkError) for outcome in outcomes)
    assert server.tokens_asked == 1


async def test_one_who_gives_up_waiting_takes_nobody_along(start_http: StartHttp) -> None:
    server = TokenServer()
    server.go_on.clear()
    credentials = Credentials(await start_http(server.serve), "id", "secret")
    async with asyncio.TaskGroup() as work:
        impatient = work.create_task(credentials.token())
        patient = work.create_task(credentials.token())
        async with asyncio.timeout(10):
            await server.asked.wait()
        impatient.cancel()
        server.go_on.set()

    assert patient.result() == "token-2"


async def test_a_secret_that_changed_on_disk_is_used_at_the_next_request(start_http: StartHttp) -> None:
    server, clock, secrets = TokenServer(), Clock(), iter(["old", "new"])
    credentials = Credentials(await start_http(server.serve), "id", lambda: next(secrets), clock=clock)
    await credentials.token()
    clock.now_s += 3600

    assert await credentials.token() == "token-2"
    assert [form["client_secret"] for form in server.forms] == ["old", "new"]


# How long it lives


@pytest.mark.parametrize(("life_s", "renewed_s"), [(3600, 3300), (1500, 1200), (360, 288), (60, 48), (10, 8), (1, 5)])
def test_a_token_is_renewed_five_minutes_early_or_late_in_a_short_life(life_s: float, renewed_s: float) -> None:
    assert renew_after_s(life_s) == renewed_s


@given(st.floats(-1e6, 1e9))
def test_no_life_is_so_short_that_renewal_becomes_a_loop(life_s: float) -> None:
    assert renew_after_s(life_s) >= 5


async def test_a_token_that_lives_a_minute_is_asked_for_every_48_seconds(start_http: StartHttp) -> None:
    server, clock = TokenServer(), Clock()
    server.life_s = 60
    credentials = Credentials(await start_http(server.serve), "id", "secret", clock=clock, wait=clock.wait)
    async with tended(credentials):
        await clock.passed(12)

        assert clock.waits == [pytest.approx(48)] * 12
        assert server.tokens_asked == 12
        assert credentials.current == "token-12"
        assert await credentials.token() == "token-12"
        assert server.tokens_asked == 12


@pytest.mark.parametrize("life_s", [0, -5, 0.001])
async def test_a_token_dead_on_arrival_does_not_make_a_loop(start_http: StartHttp, life_s: float) -> None:
    server, clock = TokenServer(), Clock()
    server.life_s = life_s
    credentials = Credentials(await start_http(server.serve), "id", "secret", clock=clock, wait=clock.wait)
    async with tended(credentials):
        await clock.passed(12)

    assert min(clock.waits) >= 1
    assert server.tokens_asked <= 12


async def test_without_expires_in_the_tokens_own_exp_counts_from_the_servers_clock(start_http: StartHttp) -> None:
    server, clock = TokenServer(), Clock()
    server.life_s = None
    hour_of_another_day = 4_000_000_000
    server.claims = {"exp": hour_of_another_day + 600}

    async def far_away(request: web.Request) -> web.Response:
        answer = await server.serve(request)
        answer.headers["Date"] = "Tue, 02 Oct 2096 07:06:40 GMT"  # = hour_of_another_day
        return answer

    credentials = Credentials(await start_http(far_away), "id", "secret", clock=clock)
    token = await credentials.token()
    clock.now_s += 599
    assert credentials.current == token
    clock.now_s += 2
    assert credentials.current is None


@pytest.mark.parametrize("expires_in", ["soon", True, None])
async def test_an_expiry_that_makes_no_sense_is_an_hour(start_http: StartHttp, expires_in: Any) -> None:
    async def odd(request: web.Request) -> web.Response:
        return web.json_response({"access_token": "opaque", "expires_in": expires_in})

    clock = Clock()
    credentials = Credentials(await start_http(odd), "id", "secret", clock=clock)
    await credentials.token()
    clock.now_s += 3599

    assert credentials.current == "opaque"


# Trouble


async def test_the_old_token_is_kept_while_it_lives_and_a_new_one_is_tried_for(start_http: StartHttp) -> None:
    server, clock = TokenServer(), Clock()
    server.life_s = 1000
    server.script = [None, *[web.Response(status=503)] * 4, None]
    credentials = Credentials(await start_http(server.serve), "id", "secret", clock=clock, wait=clock.wait)
    held: list[str | None] = []

    async def look(wake: asyncio.Event, seconds: float) -> None:
        held.append(credentials.current)
        await clock.wait(wake, seconds)

    credentials._wait = look
    with capture_logs() as lines:
        async with tended(credentials):
            await clock.passed(6)

    assert held[:6] == ["token-1"] * 5 + ["token-6"]
    assert clock.waits[0] == 800
    assert all(wait <= 60 for wait in clock.waits[1:5])
    assert [line["event"] for line in lines][:3] == ["login.done", "login.failed", "login.recovered"]


async def test_trouble_with_renewal_is_no_trouble_for_whoever_asks(start_http: StartHttp) -> None:
    server, clock = TokenServer(), Clock()
    server.life_s = 1000
    credentials = Credentials(await start_http(server.serve), "id", "secret", clock=clock)
    await credentials.token()
    clock.now_s += 900
    server.answer = web.Response(status=503)

    assert await credentials.token() == "token-1"
    clock.now_s += 101
    with pytest.raises(LinkError):
        await credentials.token()


async def test_a_429_is_waited_out_without_another_request(start_http: StartHttp) -> None:
    server, clock = TokenServer(), Clock()
    server.answer = web.Response(status=429, headers={"Retry-After": "120"})
    credentials = Credentials(await start_http(server.serve), "id", "secret", clock=clock)
    with pytest.raises(LinkError) as first:
        await credentials.token()
    clock.now_s += 60
    with pytest.raises(LinkError, match="60 s more") as second:
        await credentials.token()

    assert (first.value.retry_after_s, second.value.retry_after_s) == (120, 60)
    assert server.tokens_asked == 1
    clock.now_s += 61
    server.answer = None
    assert await credentials.token() == "token-2"


async def test_background_renewal_honours_retry_after(start_http: StartHttp) -> None:
    server, clock = TokenServer(), Clock()
    server.answer = web.Response(status=429, headers={"Retry-After": "90"})
    credentials = Credentials(await start_http(server.serve), "id", "secret", clock=clock, wait=clock.wait)
    async with tended(credentials):
        await clock.passed(3)

    assert clock.waits[:3] == [90, 90, 90]


@pytest.mark.parametrize(
    ("status", "said", "code", "where"),
    [
        (400, "Invalid client", "credentials.client-id", "server.client_id"),
        (400, "Invalid secret", "credentials.client-secret", "server.client_secret"),
        (401, "no", "credentials.refused", "server.client_id"),
    ],
)
async def test_a_refusal_names_the_wrong_value(
    start_http: StartHttp, status: int, said: str, code: str, where: str
) -> None:
    server, clock = TokenServer(), Clock()
    server.answer = refusal(status, error_description=said)
    credentials = Credentials(await start_http(server.serve), "id", "hunter2", clock=clock, wait=clock.wait)

    with pytest.raises(CredentialsRefused) as refused:
        await credentials.token()

    assert (refused.value.findings[0].code, refused.value.findings[0].where) == (code, where)
    assert said in str(refused.value)
    assert "hunter2" not in str(refused.value)
    assert credentials.finding == refused.value.findings[0]
    with capture_logs() as lines:
        async with tended(credentials):
            await clock.passed(3)
    assert min(clock.waits) >= 30
    assert lines == []  # it was said once


async def test_clocks_too_far_apart_are_named_with_both_times(start_http: StartHttp) -> None:
    server = TokenServer()
    server.answer = refusal(400, error_description="Invalid client")
    server.answer.headers["Date"] = "Sun, 22 Nov 2037 07:43:39 GMT"
    credentials = Credentials(await start_http(server.serve), "id", "secret")

    with pytest.raises(CredentialsRefused, match=r"clock here says .* UTC, the server's says 2037-11-22 07:43:39 UTC"):
        await credentials.token()

    assert "2037-11-22" in credentials.refused()


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (web.Response(status=200, text="<html>log in</html>"), "without a token"),
        (web.Response(status=200, text='{"access_token":""}'), "without a token"),
        (web.Response(status=302, headers={"Location": "https://login.example.org/"}), "302"),
        (web.Response(status=404), "404"),
        (web.Response(status=500), "500"),
    ],
)
async def test_an_answer_that_is_no_token_is_waited_out(start_http: StartHttp, answer: web.Response, text: str) -> None:
    server = TokenServer()
    server.answer = answer

    with pytest.raises(LinkError, match=text):
        await Credentials(await start_http(server.serve), "id", "secret").token()


async def test_a_refused_token_is_replaced_once_it_is_not_brand_new(start_http: StartHttp) -> None:
    server, clock = TokenServer(), Clock()
    credentials = Credentials(await start_http(server.serve), "id", "secret", clock=clock)
    await credentials.token()

    assert credentials.refused() == ""
    assert credentials.current == "token-1"  # asking again at once would be a loop
    clock.now_s += 6
    credentials.refused()
    assert credentials.current is None
    assert await credentials.token() == "token-2"


async def test_a_server_without_auth_me_is_as_good(start_http: StartHttp) -> None:
    async def only_tokens(request: web.Request) -> web.Response:
        if request.path == "/auth/me":
            return web.Response(status=404, text="Cannot GET /auth/me")
        return web.json_response({"access_token": "opaque", "expires_in": 60})

    assert await Credentials(await start_http(only_tokens), "id", "secret").token() == "opaque"


@given(st.text(), st.text())
def test_any_token_text_has_a_life(first: str, payload: str) -> None:
    credentials = Credentials("http://127.0.0.1/", "id", "secret")

    assert isinstance(credentials._life_s(f"{first}.{payload}", None), float)
