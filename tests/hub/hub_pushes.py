"""Somebody who pushes through a hub, and the agent's half of that."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from hub_strangers import ADT_A01, HL7, Api, Line, Reply

from agent.hub import Hub

ACK = "MSH|^~\\&|GHH LAB|GHH|ADT1|GHH|20261122101501||ACK^A01^ACK|R1|P|2.5\rMSA|AA|MSG00001"
LAB = "mllp://10.1.2.3:2575"


async def device(hub: Hub, **elements: Any) -> str:
    """A new Device; its reference."""
    created = await hub.put_resource({"resourceType": "Device", **elements})
    return f"Device/{created['id']}"


def asked(destination: str, /, **changes: Any) -> dict[str, Any]:
    """A good request to push and wait, but for the changes; None leaves a parameter out."""
    content = {
        "waitForResponse": True,
        "contentType": HL7,
        "destination": destination,
        "body": ADT_A01,
        **changes,
    }
    return {name: value for name, value in content.items() if value is not None}


async def push(api: Api, content: Any, *, agent: str | None = None, **more: Any) -> Reply:
    """Push through the ready-made agent, or another."""
    data = io.BytesIO(json.dumps(content, ensure_ascii=False).encode())
    headers = {"Content-Type": "application/json", **more.pop("headers", {})}
    path = f"fhir/R4/Agent/{agent or api.hub.agent_id}/$push"
    return await api.call("POST", path, data=data, headers=headers, **more)


def answered(frame: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The agent's answer to a frame: the device's acknowledgement, but for the changes; None leaves a field out."""
    answer = {
        "type": "agent:transmit:response",
        "remote": frame["remote"],
        "callback": frame.get("callback"),
        "contentType": HL7,
        "statusCode": 200,
        "body": ACK,
        **changes,
    }
    return {name: value for name, value in answer.items() if value is not None}


async def push_and_answer(api: Api, line: Line, content: Any, **changes: Any) -> tuple[dict[str, Any], Reply]:
    """Push, let the agent answer; what the agent was told and what the pusher hears."""
    async with pushing(api, content) as reply:
        frame = await line.hear()
        await line.say(json.dumps(answered(frame, **changes), ensure_ascii=False))
    return frame, reply.result()


@asynccontextmanager
async def pushing(api: Api, content: Any, **more: Any) -> AsyncIterator[asyncio.Task[Reply]]:
    """Push while the block runs; at its end the reply is there."""
    async with asyncio.TaskGroup() as work:
        yield work.create_task(push(api, content, **more))


async def nothing_was_said(line: Line) -> None:
    """The hub has sent no frame that was not heard yet."""
    assert (await line.ask({"type": "agent:heartbeat:request"}))["type"] == "agent:heartbeat:response"
