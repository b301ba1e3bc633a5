"""The recorded DICOM sender, played again: what our agent uploads and says, and how our hub takes the upload.

It is no transcript, for what a modality says is no text. Where we mean to differ stands in the names of the tests.
"""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pydicom
import pytest
from aiohttp import WSMsgType, web
from free_ports import free_port
from golden_daemon import DaemonProcess
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage
from pynetdicom import AE

from agent.hub import Hub

WITHIN_S = 20.0
RECORDED = json.loads((Path(__file__).parent.parent / "data" / "recorded_dicom.json").read_text())
SMALL, LARGER = RECORDED["uploads"]
ASKED, ANSWERED = (entry["frame"] for entry in RECORDED["frames"])
OF_THE_RECORDED_LIBRARY = ("00020001", "00020012", "00020013")  # how the file was written, and by whom


@dataclass
class Server:
    """Medplum's half of the recording. `uploads`: target, content type and length of each; `frames`: what was asked."""

    uploads: list[tuple[str, str, int]] = field(default_factory=list)
    contents: list[bytes] = field(default_factory=list)
    frames: list[dict[str, Any]] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    address: str = ""

    def application(self) -> web.Application:
        application = web.Application(client_max_size=1 << 30)
        application.router.add_post("/oauth2/token", self._token)
        application.router.add_get("/auth/me", self._me)
        application.router.add_get("/fhir/R4/Agent/{id}", self._agent)
        application.router.add_get("/fhir/R4/Endpoint/{id}", self._endpoint)
        application.router.add_post("/fhir/R4/Binary", self._binary)
        application.router.add_get("/ws/agent", self._socket)
        return application

    async def _token(self, _: web.Request) -> web.Response:
        return web.json_response({"access_token": "t", "token_type": "Bearer", "expires_in": 3600})

    async def _me(self, _: web.Request) -> web.Response:
        return web.json_response({"project": {"name": "Golden Project"}})

    async def _agent(self, request: web.Request) -> web.Response:
        channel = {"name": "dicom", "endpoint": {"reference": "Endpoint/1"}, "targetReference": {"reference": "Bot/1"}}
        agent = {"resourceType": "Agent", "id": request.match_info["id"], "name": "agent", "status": "active"}
        return web.json_response({**agent, "channel": [channel]})

    async def _endpoint(self, _: web.Request) -> web.Response:
        endpoint = {"resourceType": "Endpoint", "id": "1", "status": "active", "address": self.address}
        return web.json_response(endpoint)

    async def _binary(self, request: web.Request) -> web.Response:
        content = await request.read()
        self.contents.append(content)
        self.uploads.append((f"{request.method} {request.path_qs}", request.headers["Content-Type"], len(content)))
        response = LARGER["response"]
        return web.Response(text=json.dumps(response["body"]), status=response["status"], headers=response["headers"])

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                continue
            frame = json.loads(message.data)
            if frame["type"] == "agent:connect:request":
                await socket.send_json({"type": "agent:connect:response"})
            elif frame["type"] == "agent:transmit:request":
                self.frames.append(frame)
                await socket.send_json({**ANSWERED, "callback": frame["callback"]})
                self.changed.set()
        return socket

    async def heard(self, count: int) -> list[dict[str, Any]]:
        async with asyncio.timeout(WITHIN_S):
            while len(self.frames) < count:
                self.changed.clear()
                await self.changed.wait()
        return self.frames


def recorded_object(size: int) -> Dataset:
    """What the recorded modality sent, by what the recorded agent said about it; `size` 0: without its pixels."""
    told = json.loads(ASKED["body"])["dataset"]
    plain = {tag: {"vr": element["vr"], "Value": element["Value"]} for tag, element in told.items() if tag > "0003"}
    dataset = Dataset.from_json(plain)
    if size:
        dataset.add_new("PixelData", "OB", bytes(size * size))
    else:
        for keyword in ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"):
            delattr(dataset, keyword)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset


def play(port: int) -> list[int]:
    """The recorded modality: the statuses of C-ECHO, C-STORE of a small object, C-STORE of a larger one."""
    modality = AE(ae_title="GOLDENSCU")
    modality.add_requested_context("1.2.840.10008.1.1")
    modality.add_requested_context(SecondaryCaptureImageStorage, ExplicitVRLittleEndian)
    association = modality.associate("127.0.0.1", port, ae_title="MEDPLUM")
    assert association.is_established
    statuses = [association.send_c_echo().Status]
    statuses += [association.send_c_store(recorded_object(size)).Status for size in (0, 64)]
    association.release()
    return statuses


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[tuple[Server, list[int]]]:
    """The recorded server, with our agent, after the recorded modality has been there; and what that one heard."""
    server, port = Server(), free_port()
    server.address = f"dicom://127.0.0.1:{port}"
    async with AsyncExitStack() as stack:
        runner = web.AppRunner(server.application(), access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        daemon = DaemonProcess(tmp_path, clock=False)
        await daemon.start(f"http://127.0.0.1:{runner.addresses[0][1]}/", "client", "secret", "an-agent")
        stack.push_async_callback(daemon.end)
        await daemon.started()
        await daemon.logs("channel.listening")
        yield server, await asyncio.to_thread(play, port)


async def test_the_modality_hears_what_it_heard_and_the_small_object_which_failed_there_is_taken(
    server: tuple[Server, list[int]],
) -> None:
    recorded = [int(entry["status"], 16) for entry in RECORDED["dicom"]]
    assert recorded == [0x0000, 0x0110, 0x0000]
    assert server[1] == [0x0000, 0x0000, 0x0000]


async def test_each_object_is_uploaded_as_recorded(server: tuple[Server, list[int]]) -> None:
    await server[0].heard(2)
    recorded = LARGER["request"]
    for target, content_type, size in server[0].uploads:
        assert target == f"{recorded['method']} {recorded['target']}"
        assert content_type == recorded["headers"]["content-type"]
        assert size > 0
    # a DICOM file, with all that was sent
    uploaded = [pydicom.dcmread(io.BytesIO(content)) for content in server[0].contents]
    assert {str(each.PatientName) for each in uploaded} == {"EVERYMAN^ADAM"}
    assert max(len(each.get("PixelData", b"")) for each in uploaded) == 64 * 64


async def test_the_message_says_what_the_recorded_one_said_in_plain_dicom_json(
    server: tuple[Server, list[int]],
) -> None:
    frames = await server[0].heard(2)
    (said,) = [frame for frame in frames if "00280010" in json.loads(frame["body"])["dataset"]]
    body, recorded = json.loads(said.pop("body")), json.loads(ASKED["body"])
    assert {name: said[name] for name in ("type", "channel", "remote", "contentType")} == {
        name: ASKED[name] for name in ("type", "channel", "remote", "contentType")
    }
    assert set(said) | {"body"} == set(ASKED)
    assert body["association"] == recorded["association"]
    assert body["binary"] == recorded["binary"]
    assert list(body) == list(recorded)
    wanted = {
        tag: {"vr": element["vr"], "Value": element["Value"]}  # its `_rawValue` is not of PS3.18
        for tag, element in recorded["dataset"].items()
        if tag not in OF_THE_RECORDED_LIBRARY
    }
    ours = {tag: element for tag, element in body["dataset"].items() if tag not in OF_THE_RECORDED_LIBRARY}
    ours.pop("00020000", None)
    assert ours == wanted


async def test_our_hub_answers_an_upload_as_the_recorded_server(tmp_path: Path) -> None:
    async with Hub.open(tmp_path, ("127.0.0.1", 0)) as hub, aiohttp.ClientSession() as session:
        form = {
            "grant_type": "client_credentials",
            "client_id": hub.client_id,
            "client_secret": hub.client_secret,
        }
        async with session.post(f"{hub.base_url}oauth2/token", data=form) as response:
            token = (await response.json())["access_token"]
        recorded = SMALL["request"]
        headers = {"Authorization": f"Bearer {token}", "Content-Type": recorded["headers"]["content-type"]}
        url = hub.base_url + recorded["target"].removeprefix("/")
        async with session.post(url, data=b"\0" * 506, headers=headers) as response:
            assert response.status == SMALL["response"]["status"]
            binary = await response.json()
            assert response.headers["Location"] == f"{hub.base_url}fhir/R4/Binary/{binary['id']}"
            assert {name.lower() for name in response.headers} >= set(SMALL["response"]["headers"])
        was = SMALL["response"]["body"]
        assert (binary["resourceType"], binary["contentType"]) == (was["resourceType"], was["contentType"])
        assert set(binary["meta"]) >= {"versionId", "lastUpdated"}
        async with session.get(f"{hub.base_url}fhir/R4/Binary/{binary['id']}", headers=headers) as response:
            assert await response.read() == b"\0" * 506
