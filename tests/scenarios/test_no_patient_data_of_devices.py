"""Promise 7 for what does not speak HL7: byte streams, analysers and modalities, whatever goes wrong with them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest
from astm_instrument import ACK, ENQ, Instrument, frames_of
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage
from pynetdicom import AE
from ward_agents import AgentProcess
from ward_building import Ward
from ward_messages import FAMILY, GIVEN, PATIENT_NUMBER
from ward_privacy import assert_nobody_is_named
from ward_servers import Asked, ScriptedServer

SENTENCE = f"patient {GIVEN} {FAMILY} ({PATIENT_NUMBER}) is not known"
RECORDS = [b"H|\\^&|||analyser", f"P|1||{PATIENT_NUMBER}||{FAMILY}^{GIVEN}".encode(), b"R|1|^^^GLU|5.4", b"L|1|N"]
WORDS = f"\x02{FAMILY}^{GIVEN} {PATIENT_NUMBER}\x03".encode()


@dataclass(slots=True)
class Scene:
    """An agent with a channel of each kind, which logs everything it is willing to log."""

    server: ScriptedServer
    agent: AgentProcess
    ward: Ward
    scale: int
    lab: int
    pacs: int
    metrics_url: str


Play = Callable[[Scene], Awaitable[None]]


def answered(body: object, status: int) -> Play:
    """The server answers everything like this."""

    async def play(scene: Scene) -> None:
        async def script(asked: Asked) -> None:
            await asked.answer(body, status)

        scene.server.script = script

    return play


async def bytes_come(scene: Scene) -> None:
    await scene.ward.stranger(scene.scale, WORDS)
    await scene.server.until(lambda: bool(scene.server.heard))


async def bytes_that_cannot_be_taken_come(scene: Scene) -> None:
    for odd in (WORDS[:-1] + b"\xff\x03", b"noise " + WORDS[1:] + b"\x02" * 3 + WORDS[:-1], WORDS * 3):
        stranger = await scene.ward.stranger(scene.scale, odd)
        await stranger.leave()
    await scene.ward.stranger(scene.scale, b"\x02" + WORDS[1:-1] * 200_000 + b"\x03")
    await scene.agent.until(lambda status: sum(each["received"] for each in status["channels"]) >= 4)


async def a_session_comes(scene: Scene) -> None:
    async with await Instrument.connect("127.0.0.1", scene.lab) as analyser:
        await analyser.send_session(RECORDS, damaged={1}, repeated={1})
        await scene.server.until(lambda: bool(scene.server.heard))


async def a_session_breaks_off(scene: Scene) -> None:
    async with await Instrument.connect("127.0.0.1", scene.lab) as analyser:
        analyser.write(ENQ)
        await analyser.hears(ACK)
        analyser.write(frames_of(RECORDS)[0])
        await analyser.hears(ACK)
        analyser.write(RECORDS[1])
    await scene.server.until(lambda: bool(scene.server.heard))


async def orders_are_pushed(scene: Scene) -> None:
    text = b"".join(record + b"\r" for record in RECORDS).decode()
    for address, body in (
        ("astm://lab", text),
        ("astm://127.0.0.1:1", text),
        ("astm://nobody", text),
        ("astm://lab", SENTENCE),
        ("astm://lab?encoding=ascii", text.replace(GIVEN, f"{GIVEN}Ж")),
        ("astm://lab", text.replace(GIVEN, f"{GIVEN}\x03")),
    ):
        answer = await scene.server.answer_to(await scene.server.push(address, body))
        assert answer["statusCode"] == 400


async def an_object_comes(scene: Scene) -> None:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = SecondaryCaptureImageStorage, "1.2.3.4"
    dataset.PatientName, dataset.PatientID = f"{FAMILY}^{GIVEN}", PATIENT_NUMBER
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian

    def store() -> int:
        modality = AE(ae_title="CT1")
        modality.add_requested_context(SecondaryCaptureImageStorage, ExplicitVRLittleEndian)
        association = modality.associate("127.0.0.1", scene.pacs)
        assert association.is_established
        status = association.send_c_store(dataset).Status
        association.release()
        return int(status)

    assert await asyncio.to_thread(store) == 0
    await scene.agent.until(lambda status: sum(each["received"] for each in status["channels"]) >= 1)


async def an_object_whose_upload_is_refused_comes(scene: Scene) -> None:
    scene.server.upload_troubles = [500, 413]
    await an_object_comes(scene)
    await scene.agent.until(lambda status: status["spool"]["countsByState"].get("rejected", 0) == 1)


OUTCOME = {"resourceType": "OperationOutcome", "issue": [{"details": {"text": SENTENCE}}]}
TROUBLE: dict[str, tuple[Play, ...]] = {
    "bytes": (answered(WORDS.hex(), 200), bytes_come),
    "bytes that the server refuses": (answered(OUTCOME, 400), bytes_come),
    "bytes that are answered with a sentence": (answered(SENTENCE, 200), bytes_come),
    "bytes that cannot be taken": (bytes_that_cannot_be_taken_come,),
    "a session": (answered("", 200), a_session_comes),
    "a session that the server refuses": (answered(json.dumps(OUTCOME), 403), a_session_comes),
    "a session that is answered with records": (answered("H|\\^&\rP|1||" + FAMILY, 200), a_session_comes),
    "a session that breaks off": (answered("", 200), a_session_breaks_off),
    "orders that go nowhere": (orders_are_pushed,),
    "an object": (answered({"received": SENTENCE}, 200), an_object_comes),
    "an object that the server refuses": (answered(OUTCOME, 400), an_object_comes),
    "an object whose upload is refused": (answered("", 200), an_object_whose_upload_is_refused_comes),
}


@pytest.fixture
async def scene(ward: Ward) -> Scene:
    server = await ward.server()
    scale, lab, pacs, metrics = (ward.port() for _ in range(4))
    retry = "autoRetryBaseDelayMs=50&autoRetryMaxDelayMs=100"
    stream = "startChar=%02&endChar=%03&bodyEncoding=utf-8&maxMessageBytes=65536"
    server.endpoint("scale", f"tcp://127.0.0.1:{scale}?{stream}&{retry}")
    server.endpoint("lab", f"astm://127.0.0.1:{lab}?{retry}")
    server.endpoint("pacs", f"dicom://127.0.0.1:{pacs}?{retry}")
    agent = await ward.running_agent(
        server,
        AGENT_LOG_LEVEL="DEBUG",
        AGENT_LOG_CONSOLE="always",
        AGENT_DIAGNOSTICS_LISTEN=f"127.0.0.1:{metrics}",
    )
    await agent.until(lambda status: [each["state"] for each in status["channels"]] == ["listening"] * 3)
    return Scene(server, agent, ward, scale, lab, pacs, f"http://127.0.0.1:{metrics}/")


@pytest.mark.parametrize("trouble", TROUBLE)
async def test_no_patient_of_a_device_is_named_outside_the_channel_log(scene: Scene, trouble: str) -> None:
    for play in TROUBLE[trouble]:
        await play(scene)
    await assert_nobody_is_named(scene.agent, scene.server, scene.metrics_url)
    if "nowhere" not in trouble and "cannot" not in trouble and "off" not in trouble:
        # and there was something to be found
        assert all(word in scene.agent.channel_log() for word in (FAMILY, GIVEN, PATIENT_NUMBER))
