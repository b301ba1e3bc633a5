"""Open the hub's HTTP door: login, FHIR, the agents' socket, the inbox.

Secret: which path leads where, and how expected trouble becomes an HTTP answer.
Promise: a refusal is an OperationOutcome (a token refusal the JSON of RFC 6749 §5.2); paths that are not
listed are 404.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

from aiohttp import web

from agent import __version__
from agent.errors import StoreError
from agent.hub.access import Access, TokenRefused
from agent.hub.inbox import Inbox
from agent.hub.jobs import Jobs
from agent.hub.outcomes import NOT_FOUND, UNAUTHORIZED, Outcome, Refused
from agent.hub.resources import Resource
from agent.hub.rest import MAX_JSON_BYTES, Rest, answer

JSON = "application/json"
TOO_LARGE = Outcome(413, "", "too-long", f"Content is larger than {MAX_JSON_BYTES} bytes")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def make_app(access: Access, rest: Rest, jobs: Jobs, inbox: Inbox, serve_socket: Handler) -> web.Application:
    """The web application, at work on jobs from its start to its cleanup; `serve_socket` handles `/ws/agent`."""

    def client_of(request: web.Request) -> Resource:
        client = access.client_of(request.headers.get("Authorization"))
        if client is None:
            raise Refused(UNAUTHORIZED)
        return client

    async def token(request: web.Request) -> web.Response:
        form = await request.post()
        try:
            values = {key: value for key, value in form.items() if isinstance(value, str)}
            granted = access.issue(values, request.headers.get("Authorization"))
        except TokenRefused as refused:
            return answer({"error": "invalid_request", "error_description": str(refused)}, 400, JSON)
        return answer(granted, content_type=JSON)

    async def me(request: web.Request) -> web.Response:
        return answer(access.me(client_of(request)), content_type=JSON)

    async def userinfo(request: web.Request) -> web.Response:
        client = client_of(request)
        return answer({"sub": client["id"], "profile": f"ClientApplication/{client['id']}"}, content_type=JSON)

    async def health(_: web.Request) -> web.Response:
        return answer({"ok": True, "version": __version__}, content_type=JSON)

    async def stored(request: web.Request) -> web.StreamResponse:
        path = request.path.removeprefix("/")
        if not access.opens(path, request.query.get("Expires", ""), request.query.get("Signature", "")):
            raise Refused(UNAUTHORIZED)
        return rest.content(request.match_info["id"])

    async def messages(request: web.Request) -> web.Response:
        client_of(request)
        page, total = inbox.list(request.query)
        return answer({"total": total, "messages": [message.shown() for message in page]}, content_type=JSON)

    async def message(request: web.Request) -> web.Response:
        client_of(request)
        opened = inbox.open(int(request.match_info["id"]))
        if opened is None:
            raise Refused(NOT_FOUND)
        shown = {**opened.message.shown(), "body": opened.body, "answer": opened.answer}
        return answer(shown, content_type=JSON)

    async def working(_: web.Application) -> AsyncIterator[None]:
        async with jobs.at_work():
            yield

    app = web.Application(client_max_size=MAX_JSON_BYTES, middlewares=[_refusals])
    app.cleanup_ctx.append(working)
    app.router.add_post("/oauth2/token", token)
    app.router.add_get("/oauth2/userinfo", userinfo)
    app.router.add_get("/auth/me", me)
    app.router.add_get("/healthcheck", health)
    app.router.add_get("/ws/agent", serve_socket)
    app.router.add_get("/storage/{id}/{version}", stored)
    app.router.add_get("/hub/messages", messages)
    app.router.add_get("/hub/messages/{id:[0-9]{1,18}}", message)
    app.router.add_route("*", "/fhir/R4/{tail:.*}", rest.handle)
    return app


@web.middleware
async def _refusals(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except Refused as refused:
        outcome = refused.outcome
    except StoreError as error:
        outcome = Outcome(503, "", "transient", str(error))
    except web.HTTPRequestEntityTooLarge:
        outcome = TOO_LARGE
    except web.HTTPNotFound:
        outcome = NOT_FOUND
    return answer(outcome.traced(), outcome.status)
