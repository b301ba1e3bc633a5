"""The unmodified HL7 server from npm, `@medplum/hl7`, is pushed to like any other remote."""

from __future__ import annotations

import asyncio
import json
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from npm_far_ends import WITHIN_S, an_agent

from agent.hub import Hub

pytestmark = pytest.mark.npm

SCRIPT = """
const { Hl7Server } = require(process.argv[2] + '/@medplum/hl7');
const say = (fact) => console.log(JSON.stringify(fact));
const server = new Hl7Server((connection) => {
  connection.addEventListener('message', ({ message }) => {
    say({ heard: message.toString() });
    connection.send(message.buildAck());
  });
});
server.start(0, 'utf-8', process.argv[3] === 'enhanced').then(() => say({ port: server.server.address().port }));
"""


class Remote:
    """The server as a process. `heard`: its messages, as it understood them."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.port = 0
        self.heard: list[str] = []
        self._process = process

    async def read_facts(self, count: int) -> None:
        """Take in what it says next. Raises TimeoutError."""
        assert self._process.stdout is not None
        async with asyncio.timeout(WITHIN_S):
            for _ in range(count):
                fact = json.loads(await self._process.stdout.readline())
                self.port = fact.get("port", self.port)
                self.heard += [fact["heard"]] if "heard" in fact else []


@asynccontextmanager
async def a_remote(node: str, modules: Path, mode: str) -> AsyncIterator[Remote]:
    """It serves while the block runs; `mode` is `original`, or `enhanced`: a CA before each AA."""
    process = await asyncio.create_subprocess_exec(node, "-", str(modules), mode, stdin=PIPE, stdout=PIPE)
    try:
        assert process.stdin is not None
        process.stdin.write(SCRIPT.encode())
        process.stdin.close()
        remote = Remote(process)
        await remote.read_facts(1)
        yield remote
    finally:
        process.kill()
        await process.communicate()


class Pusher:
    """Somebody who pushes to one Device by the hub's REST API."""

    def __init__(self, session: aiohttp.ClientSession, url: str, destination: str) -> None:
        self._session = session
        self._url = url
        self._destination = destination

    async def push(self, message: str, **more: str) -> list[str]:
        """MSA-1 and MSA-2 of what the remote answers."""
        request = {
            "destination": self._destination,
            "contentType": "x-application/hl7-v2+er7",
            "body": message,
            "waitForResponse": True,
            **more,
        }
        async with self._session.post(self._url, json=request) as response:
            said = await response.text()
            assert response.status == 200, said
        return said.split("\r")[1].split("|")[1:3]


@asynccontextmanager
async def pushing(hub: Hub, url: str) -> AsyncIterator[Pusher]:
    """A Device of this address, and who pushes to it."""
    form = {"grant_type": "client_credentials", "client_id": hub.client_id, "client_secret": hub.client_secret}
    target = await hub.put_resource({"resourceType": "Device", "url": url})
    async with aiohttp.ClientSession() as session:
        async with session.post(hub.base_url + "oauth2/token", data=form) as response:
            session.headers["Authorization"] = f"Bearer {(await response.json())['access_token']}"
        yield Pusher(session, f"{hub.base_url}fhir/R4/Agent/{hub.agent_id}/$push", f"Device/{target['id']}")


def admission(control_id: str) -> str:
    return f"MSH|^~\\&|ADT|WARD|LAB|WARD|20260101120000||ADT^A01|{control_id}|P|2.5\rPID|1||4711^^^MR||MÜLLER^ÅSA"


async def test_fifty_messages_at_one_time_and_each_hears_its_own_acknowledgement(
    node: str, node_modules: Path, hub: Hub, tmp_path: Path
) -> None:
    # given Medplum's own server as the remote, with the five connections that a remote has if nothing is said
    messages = {f"NPM-{number}": admission(f"NPM-{number}") for number in range(50)}
    async with (
        a_remote(node, node_modules, "original") as remote,
        an_agent(hub, tmp_path / "agent"),
        pushing(hub, f"mllp://127.0.0.1:{remote.port}") as pusher,
    ):
        # when fifty messages are pushed at one time
        async with asyncio.TaskGroup() as pushes:
            answers = {one: pushes.create_task(pusher.push(message)) for one, message in messages.items()}
        # then each is answered with its own acknowledgement, and the remote read them as they were written
        assert {one: answer.result() for one, answer in answers.items()} == {one: ["AA", one] for one in messages}
        await remote.read_facts(len(messages))
        assert sorted(remote.heard) == sorted(messages.values())


async def test_of_a_server_in_enhanced_mode_the_application_acknowledgement_is_the_answer(
    node: str, node_modules: Path, hub: Hub, tmp_path: Path
) -> None:
    # given a remote that commits to each message before it answers it
    async with (
        a_remote(node, node_modules, "enhanced") as remote,
        an_agent(hub, tmp_path / "agent"),
        pushing(hub, f"mllp://127.0.0.1:{remote.port}?maxClients=1") as pusher,
    ):
        # then the CA is passed over, unless the first answer is wanted; and what follows it answers nobody else
        assert await pusher.push(admission("NPM-1")) == ["AA", "NPM-1"]
        assert await pusher.push(admission("NPM-2"), returnAck="first") == ["CA", "NPM-2"]
        assert await pusher.push(admission("NPM-3")) == ["AA", "NPM-3"]
