"""What a channel's target makes of a message."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from typing import Any

import hub_bots
import pytest
from aiohttp import web
from hub_strangers import ADT_A01, HL7, Api, Line, Lobby

from agent.hub import Hub
from agent.hub.targets import AT_ONCE


async def line_to(lobby: Lobby, api: Api, code: str, **bot: Any) -> Line:
    """A connected agent whose channel hl7 has a target with that code."""
    agent = await api.hub.put_agent("target test", {"hl7": "mllp://0.0.0.0:1"}, code=code)
    if bot:
        reference = agent["channel"][0]["targetReference"]["reference"].partition("/")
        await api.hub.put_resource({**api.hub.resource("Bot", reference[2]), **bot})
    return await lobby.line(api, agent["id"])


def text_of(frame: dict[str, Any]) -> str:
    """The text of the OperationOutcome in a refusal, which is a string inside the frame, as recorded."""
    assert frame["contentType"] == "application/json"
    outcome = json.loads(frame["body"])
    assert list(outcome) == ["resourceType", "issue"]
    assert (outcome["issue"][0]["severity"], outcome["issue"][0]["code"]) == ("error", "invalid")
    return str(outcome["issue"][0]["details"]["text"])


async def test_ack_answers_in_the_messages_own_delimiters(agent_line: Line) -> None:
    odd = "MSH#*~\\&#A#B#C#D#2026##ADT*A08#77#T#2.3\r"
    body = (await agent_line.ask(agent_line.message(body=odd)))["body"]
    msh, msa = body.split("\r")
    assert msh.split("#")[:6] == ["MSH", "*~\\&", "C", "D", "A", "B"]
    assert msh.split("#")[8] == "ACK*A08"  # version 2.3 has no third component there
    assert msh.split("#")[10:] == ["T", "2.3"]
    assert msa == "MSA#AA#77#OK"


async def test_no_two_acknowledgements_have_one_control_id(agent_line: Line) -> None:
    for _ in range(50):
        await agent_line.say(agent_line.message())
    ids = {(await agent_line.hear())["body"].split("|")[9] for _ in range(50)}
    assert len(ids) == 50


async def test_ack_is_for_hl7_only(agent_line: Line) -> None:
    frame = await agent_line.ask(agent_line.message(contentType="text/plain", body="hello"))
    assert frame["statusCode"] == 400
    assert "HL7" in text_of(frame)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/octet-stream", "0268656c6c6f03"),
        ("x-application/astm-e1394", "H|\\^&\rL|1|N\r"),
        ("application/json", '{"binary":{"reference":"Binary/1"}}'),
    ],
)
async def test_ack_takes_what_devices_without_acknowledgements_send(
    agent_line: Line, content_type: str, body: str
) -> None:
    frame = await agent_line.ask(agent_line.message(contentType=content_type, body=body))
    assert (frame["statusCode"], frame["contentType"], frame["body"]) == (200, content_type, "")


@pytest.mark.parametrize(
    ("code", "body", "content_type", "expected"),
    [
        ("python hub_bots:shout", "msg", "text/plain", "MSG"),
        ("python hub_bots:silent", "x", "text/plain", "Bot execution logs:\nno return value"),
        (
            "python hub_bots:echo",
            '{"a":1}',
            "application/json",
            {"received": {"a": 1}, "contentType": "application/json"},
        ),
        ("python hub_bots:echo", "{x", "text/plain", {"received": "{x", "contentType": "text/plain"}),
    ],
)
async def test_a_python_target_answers(
    lobby: Lobby, api: Api, code: str, body: str, content_type: str, expected: object
) -> None:
    line = await line_to(lobby, api, code)
    frame = await line.ask(line.message(body=body, contentType=content_type))
    assert (frame["statusCode"], frame["contentType"], frame["body"]) == (200, content_type, expected)
    (kept,) = api.hub.messages()
    opened = api.hub.message(kept.id)
    assert opened is not None
    assert opened.body == body


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("python hub_bots:throws", "bot failed on purpose"),
        ("python hub_bots:unspeakable", "object"),
        ("python hub_bots:stops", "StopIteration"),
        ("python hub_bots:exits", "7"),
        ("python hub_bots:mumbles", "half a character: ?"),
        ("python hub_bots:no_such_function", "no_such_function"),
        ("python no_such_module:f", "no_such_module"),
    ],
)
async def test_a_python_target_that_fails_is_a_400(lobby: Lobby, api: Api, code: str, expected: str) -> None:
    line = await line_to(lobby, api, code)
    frame = await line.ask(line.message())
    assert frame["statusCode"] == 400
    assert expected in text_of(frame)


async def test_a_slow_thread_holds_up_nobody(lobby: Lobby, api: Api) -> None:
    hub_bots.gate.thread = threading.Event()
    line = await line_to(lobby, api, "python hub_bots:waits")
    await line.say(line.message(contentType="text/plain", body="wait", callback="first"))
    await line.say(line.message(contentType="text/plain", body="go", callback="second"))
    assert (await line.hear())["callback"] == "second"
    hub_bots.gate.thread.set()
    assert (await line.hear())["callback"] == "first"


async def test_a_target_that_hangs_is_a_504_at_its_deadline(lobby: Lobby, api: Api) -> None:
    line = await line_to(lobby, api, "python hub_bots:hangs", timeout=0.05)
    frame = await line.ask(line.message())
    assert frame["statusCode"] == 504
    assert text_of(frame) == "the target gave no answer within 0.05 s"


async def test_python_needs_leave(lobby: Lobby) -> None:
    hub = await lobby.hub(allow_python=False)
    line = await line_to(lobby, await lobby.api(hub), "python hub_bots:shout")
    assert "--allow-python" in text_of(await line.ask(line.message()))


class Hook:
    """A webhook that the test scripts: `reply` makes the response."""

    def __init__(self) -> None:
        self.heard: list[tuple[dict[str, str], str]] = []
        self.release = asyncio.Event()
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.text()
        self.heard.append((dict(request.headers), body))
        match request.match_info["what"]:
            case "ack":
                return web.Response(text=f"MSA of {len(body)}")
            case "json":
                return web.json_response({"accepted": True})
            case "nothing":
                return web.Response(status=204)
            case "busy":
                return web.Response(status=429, text="come back later")
            case "broken":
                return web.Response(status=500, text="out of order")
            case "latin":
                return web.Response(
                    body="grün".encode("latin-1"), headers={"Content-Type": "text/plain; charset=latin-1"}
                )
            case _:
                await self.release.wait()
                return web.Response(text="late")


@pytest.fixture
async def hook() -> AsyncIterator[Hook]:
    hook = Hook()
    app = web.Application()
    app.router.add_post("/{what}", hook.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    hook.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield hook
    hook.release.set()
    await runner.cleanup()


@pytest.mark.parametrize(
    ("what", "status", "body"),
    [
        ("ack", 200, f"MSA of {len(ADT_A01)}"),
        ("json", 200, {"accepted": True}),
        ("nothing", 200, "Bot execution logs:\n"),
        ("latin", 200, "grün"),
        ("busy", 429, "come back later"),
        ("broken", 500, "out of order"),
    ],
)
async def test_a_webhooks_answer_goes_back(
    lobby: Lobby, api: Api, hook: Hook, what: str, status: int, body: object
) -> None:
    line = await line_to(lobby, api, f"webhook {hook.url}/{what}")
    frame = await line.ask(line.message())
    assert (frame["statusCode"], frame["body"]) == (status, body)
    assert frame["contentType"] == (HL7 if status == 200 else "text/plain")
    ((headers, posted),) = hook.heard
    assert posted == ADT_A01
    assert headers["Content-Type"] == HL7
    assert headers["X-Agent-Channel"] == "hl7"
    assert headers["X-Agent-Remote"] == "10.0.0.7:50123"
    assert headers["X-Agent-Callback"] == "callback-1"


async def test_a_webhook_that_is_away_is_a_502(lobby: Lobby, api: Api) -> None:
    line = await line_to(lobby, api, "webhook http://127.0.0.1:9/")
    assert (await line.ask(line.message()))["statusCode"] == 502


async def test_a_webhook_that_is_late_is_a_504(lobby: Lobby, api: Api, hook: Hook) -> None:
    line = await line_to(lobby, api, f"webhook {hook.url}/never", timeout=0.05)
    assert (await line.ask(line.message()))["statusCode"] == 504


async def test_a_slow_webhook_holds_up_nobody(lobby: Lobby, api: Api, hook: Hook) -> None:
    agent = await api.hub.put_agent("two", {"slow": "mllp://0.0.0.0:1"}, code=f"webhook {hook.url}/never")
    quick = (await api.hub.put_agent("other", {"quick": "mllp://0.0.0.0:2"}))["channel"]
    await api.hub.put_resource({**agent, "channel": [*agent["channel"], *quick]})
    line = await lobby.line(api, agent["id"])
    for number in range(100):
        await line.say(line.message(channel="slow", callback=f"slow {number}"))
    await line.say(line.message(channel="quick", callback="quick"))
    assert (await line.hear())["callback"] == "quick"
    for _ in range(100):  # time enough for as many requests as there may be
        await line.ask({"type": "agent:heartbeat:request"})
    assert len(hook.heard) == AT_ONCE
    hook.release.set()
    assert {(await line.hear())["statusCode"] for _ in range(100)} == {200}
    assert len(hook.heard) == 100


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ({"reference": "Bot/00000000-0000-4000-8000-000000000000"}, "Not found"),
        ({"reference": "Patient/1"}, "Unsupported target: Patient/1"),
    ],
)
async def test_a_target_that_cannot_run_says_why(
    hub: Hub, api: Api, lobby: Lobby, target: dict[str, str], expected: str
) -> None:
    agent = hub.resource("Agent", hub.agent_id)
    await hub.put_resource({**agent, "channel": [{**agent["channel"][0], "targetReference": target}]})
    line = await lobby.line(api, hub.agent_id)
    assert text_of(await line.ask(line.message())) == expected


async def test_a_target_changes_by_plain_rest_while_the_agent_is_connected(api: Api, agent_line: Line) -> None:
    assert "MSA|AA" in (await agent_line.ask(agent_line.message()))["body"]
    (entry,) = (await api.get("Bot?name=ack")).json["entry"]
    bot = entry["resource"]
    await api.put(f"Bot/{bot['id']}", {**bot, "code": "python hub_bots:shout"})
    assert (await agent_line.ask(agent_line.message(contentType="text/plain", body="now me")))["body"] == "NOW ME"
