"""The unmodified HL7 client from npm, `@medplum/hl7`, is answered by a channel as by any other receiver."""

from __future__ import annotations

import asyncio
import json
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.npm

SCRIPT = """
const { Hl7Client } = require(process.argv[2] + '/@medplum/hl7');
const { Hl7Message } = require(process.argv[2] + '/@medplum/core');
(async () => {
  const client = new Hl7Client({ host: '127.0.0.1', port: Number(process.argv[3]), keepAlive: true });
  const answers = [];
  for (const text of JSON.parse(process.argv[4])) {
    const answer = await client.sendAndWait(Hl7Message.parse(text), JSON.parse(process.argv[5]));
    answers.push(answer.toString());
  }
  await client.close();
  console.log(JSON.stringify(answers));
})().catch((error) => { console.error(error); process.exit(1); });
"""


async def client_hears(node: str, modules: Path, port: int, messages: list[str], **options: Any) -> list[str]:
    """What the client's `sendAndWait` returns for each message, sent one after the other on one connection."""
    words = ("-", str(modules), str(port), json.dumps(messages), json.dumps(options))
    process = await asyncio.create_subprocess_exec(node, *words, stdin=PIPE, stdout=PIPE, stderr=PIPE)
    async with asyncio.timeout(30):
        out, err = await process.communicate(SCRIPT.encode())
    assert process.returncode == 0, err.decode()
    heard: list[str] = json.loads(out)
    return heard


def admission(control_id: str) -> str:
    return f"MSH|^~\\&|ADT|WARD|LAB|WARD|20260101120000||ADT^A01|{control_id}|P|2.5\rPID|1||4711^^^MR||TEST^ANNA"


async def test_each_message_of_the_npm_client_is_acknowledged_under_its_own_id(
    ward: Any, node: str, node_modules: Path
) -> None:
    # given an agent with one channel in original mode
    port = ward.port()
    hub = await ward.hub(adt=f"mllp://127.0.0.1:{port}")
    await ward.running_agent(hub)
    # when Medplum's own client sends twenty messages
    ids = [f"NPM{number:05d}" for number in range(20)]
    heard = await client_hears(node, node_modules, port, [admission(one) for one in ids])
    # then it hears an AA for each, and the server has them in that order
    assert [answer.split("\r")[1].split("|")[1:3] for answer in heard] == [["AA", one] for one in ids]
    assert [kept.control_id for kept in sorted(hub.messages(), key=lambda kept: kept.id)] == ids


async def test_in_enhanced_mode_it_hears_the_application_acknowledgement_it_waits_for(
    ward: Any, node: str, node_modules: Path
) -> None:
    # given a channel that commits first and forwards the server's answer later
    port = ward.port()
    hub = await ward.hub(adt=f"mllp://127.0.0.1:{port}?enhanced=true")
    await ward.running_agent(hub)
    # when the client waits for the application's answer
    heard = await client_hears(node, node_modules, port, [admission("NPM-E1")], returnAck="application")
    # then the CA did not satisfy it, the AA did
    assert [answer.split("\r")[1].split("|")[1:3] for answer in heard] == [["AA", "NPM-E1"]]
