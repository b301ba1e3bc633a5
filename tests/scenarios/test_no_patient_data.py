"""Promise 7: no patient data in the main log, on the console, in status, stats or metrics, whatever went wrong.

Each row of `TROUBLE` brings a patient's name into play in another way: in messages, and in what a server says about
them. The channel log is the one place where content belongs, and the proof that there was something to be found.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest
from ward_agents import AgentProcess
from ward_building import Ward
from ward_devices import Device
from ward_messages import FAMILY, GIVEN, PATIENT_NUMBER, PATIENT_WORDS, ack_text, adt
from ward_privacy import assert_nobody_is_named
from ward_remotes import Pushed, Script
from ward_remotes import silence as remote_silence
from ward_servers import Asked, ScriptedServer

NAME = f"{FAMILY}^{GIVEN}"
SENTENCE = f"patient {GIVEN} {FAMILY} ({PATIENT_NUMBER}) is not known"


@dataclass(slots=True)
class Scene:
    """An agent that logs everything it is willing to log, its server and one device."""

    ward: Ward
    server: ScriptedServer
    agent: AgentProcess
    port: int
    metrics_url: str
    device: Device

    async def answered(self, message: bytes) -> None:
        await self.device.ask(message)


Play = Callable[[Scene], Awaitable[None]]


def server_says(body: object, status: int) -> Play:
    """The server's answer is about the patient."""

    async def play(scene: Scene) -> None:
        async def script(asked: Asked) -> None:
            await asked.answer(body, status)

        scene.server.script = script
        await scene.answered(adt("A-1"))

    return play


def server_sends(*frames: str) -> Play:
    """Frames of their own, before the answer."""

    async def play(scene: Scene) -> None:
        async def script(asked: Asked) -> None:
            for frame in frames:
                await asked.link.say(frame)
            await asked.accept()

        scene.server.script = script
        await scene.answered(adt("A-1"))

    return play


def device_sends(*messages: bytes) -> Play:
    async def play(scene: Scene) -> None:
        for message in messages:
            await scene.answered(message)

    return play


async def server_closes(scene: Scene) -> None:
    async def script(asked: Asked) -> None:
        if asked.attempt == 1:
            await asked.link.close(1011, SENTENCE)
        else:
            await asked.accept()

    scene.server.script = script
    await scene.answered(adt("A-1"))


async def server_is_silent(scene: Scene) -> None:
    async def script(asked: Asked) -> None:
        """Nothing."""

    scene.server.script = script
    await scene.answered(adt("A-1"))


def server_pushes(script: Script, *, keeps: bool = True, **parameters: object) -> Play:
    """The server pushes two messages to a remote that behaves like this; `keeps`: one of them by way of the spool."""

    async def play(scene: Scene) -> None:
        remote = await scene.ward.remote()
        remote.script = script
        url = remote.url(ackTimeoutMs=300, **parameters)
        callbacks = [await scene.server.push(url, adt("P-1"))]
        if keeps:
            durable = remote.url(
                ackTimeoutMs=300, durable="true", retryMode="normal", autoRetryMaxAttempts=1, **parameters
            )
            callbacks.append(await scene.server.push(durable, adt("P-2")))
        for callback in callbacks:
            await scene.server.answer_to(callback)

    return play


def server_pushes_to(address: str, body: str = "") -> Play:
    """A push that goes nowhere."""

    async def play(scene: Scene) -> None:
        await scene.server.answer_to(await scene.server.push(address, body or adt("P-1").decode()))

    return play


def remote_says(raw: bytes) -> Script:
    async def script(pushed: Pushed) -> None:
        await pushed.say(raw)

    return script


def remote_answers(code: str, control_id: str | None = None) -> Script:
    async def script(pushed: Pushed) -> None:
        await pushed.answer(code, control_id=control_id, text=SENTENCE)

    return script


async def remote_hangs_up(pushed: Pushed) -> None:
    await pushed.say(b"\x0b" + CUT)
    pushed.hang_up()


async def device_sends_too_much(scene: Scene) -> None:
    await scene.answered(adt("A-1", size_bytes=1_100_000))


async def killed_in_the_middle(scene: Scene) -> None:
    async def script(asked: Asked) -> None:
        """Nothing."""

    scene.server.script = script
    await scene.device.send(adt("A-1"))
    await scene.server.until_heard("A-1")
    await scene.agent.kill()
    await scene.agent.start()
    await scene.server.until(lambda: scene.server.attempts("A-1") == [1, 2])


OUTCOME = {"resourceType": "OperationOutcome", "issue": [{"details": {"text": SENTENCE}, "diagnostics": NAME}]}
CUT = adt("A-1")[:60] + NAME.encode()

TROUBLE: dict[str, Play] = {
    "nothing goes wrong": device_sends(adt("A-1")),
    "400 with a sentence": server_says(SENTENCE, 400),
    "400 with an outcome": server_says(OUTCOME, 400),
    "403 with an outcome as text": server_says(json.dumps(OUTCOME), 403),
    "500 with a sentence": server_says(SENTENCE, 500),
    "500 with the message itself": server_says(adt("A-1").decode(), 500),
    "200 with the patient": server_says({"resourceType": "Patient", "name": [{"family": FAMILY}]}, 200),
    "200 with a sentence": server_says(SENTENCE, 200),
    "AE about the patient": server_says(ack_text("A-1", "AE", SENTENCE), 200),
    "agent:error with a sentence": server_sends(json.dumps({"type": "agent:error", "body": SENTENCE})),
    "agent:error with a segment": server_sends(json.dumps({"type": "agent:error", "body": f"bad PID|1||{NAME}"})),
    "a frame that is no JSON": server_sends(f"{{{SENTENCE}", f'{{"type": "{NAME}'),
    "a frame of unknown type": server_sends(json.dumps({"type": "agent:dance:request", "body": SENTENCE})),
    "a frame without a type": server_sends(json.dumps({"body": SENTENCE, "callback": "c"}), json.dumps([SENTENCE])),
    "a frame with odd fields": server_sends(json.dumps({"type": "agent:transmit:response", "statusCode": SENTENCE})),
    "a request that is not carried": server_sends(
        json.dumps({"type": "agent:upgrade:request", "version": SENTENCE, "callback": "c"})
    ),
    "the socket closed with a sentence": server_closes,
    "no answer": server_is_silent,
    "a push": server_pushes(remote_answers("AA")),
    "a push that is refused": server_pushes(remote_answers("AR")),
    "a push that cannot be committed": server_pushes(remote_answers("CE")),
    "a push that another message's answer comes to": server_pushes(remote_answers("AA", f"{FAMILY}-{GIVEN}")),
    "a push that a sentence comes to": server_pushes(remote_says(f"\x0b{SENTENCE}\x1c\r".encode())),
    "a push that a message comes to": server_pushes(remote_says(b"\x0b%b\x1c\r" % adt("X-1"))),
    "a push that is answered without a frame": server_pushes(remote_says(adt("X-1"))),
    "a push that is answered in plain text": server_pushes(remote_says(SENTENCE.encode())),
    "a push in whose answer the line breaks": server_pushes(remote_hangs_up),
    "a push that nobody answers": server_pushes(remote_silence),
    "a push to nobody": server_pushes_to("mllp://127.0.0.1:1"),
    "a push to an address with a name in it": server_pushes_to(f"mllp://127.0.0.1:1?encoding={FAMILY}&{GIVEN}=1"),
    "a push to something that is no address": server_pushes_to(SENTENCE),
    "a push that is no HL7": server_pushes_to("mllp://127.0.0.1:1", SENTENCE),
    "a push with a name that the remote cannot read": server_pushes_to(
        "mllp://127.0.0.1:1?encoding=ascii", adt("P-1").decode().replace(GIVEN, f"{GIVEN}Ж")
    ),
    "a ping of a name": server_sends(
        json.dumps(
            {"type": "agent:transmit:request", "remote": SENTENCE, "contentType": "x-application/ping", "body": NAME}
        )
    ),
    "no HL7": device_sends(SENTENCE.encode(), CUT[3:], b"PID|1||" + NAME.encode()),
    "bytes that are no UTF-8": device_sends(adt("A-1").replace(GIVEN.encode(), GIVEN.encode() + b"\xff")),
    "segments that run into each other, so that PID-5 stands where MSH-18 is": device_sends(
        b"MSH|^~\\&|ADT|W7|S|H|20260131030000||ADT^A01|A-1|P|2.5.1|PID|1||%b||%b\rPV1|1|I\r"
        % (PATIENT_NUMBER.encode(), NAME.encode())
    ),
    "a repetition with other content": device_sends(adt("A-1"), adt("A-1").replace(b"|F|", b"|M|"), adt("A-1")),
    "a message that is too large": device_sends_too_much,
    "a kill": killed_in_the_middle,
}


@pytest.fixture
async def scene(ward: Ward) -> Scene:
    server = await ward.server()
    port, metrics = ward.port(), ward.port()
    server.channel("adt", port, ackTimeoutSecs=1, autoRetryBaseDelayMs=50)
    agent = await ward.running_agent(
        server,
        AGENT_LOG_LEVEL="DEBUG",
        AGENT_LOG_CONSOLE="always",
        AGENT_DIAGNOSTICS_LISTEN=f"127.0.0.1:{metrics}",
    )
    return Scene(ward, server, agent, port, f"http://127.0.0.1:{metrics}/", await ward.device(port))


@pytest.mark.parametrize("trouble", TROUBLE)
async def test_no_patient_is_named_outside_the_channel_log(scene: Scene, trouble: str) -> None:
    # given an agent that logs all it can, when this happens
    await TROUBLE[trouble](scene)

    # then neither people nor machines that look at the agent are told who the patient is
    await assert_nobody_is_named(scene.agent, scene.server, scene.metrics_url)


async def test_the_channel_log_holds_the_message_and_only_its_owner_reads_it(scene: Scene) -> None:
    # given a message that was taken
    await scene.answered(adt("A-1"))
    scene.agent.terminate()
    await scene.agent.ended()

    # then its content stands in the channel log, which nobody but the agent's user can read
    assert all(word in scene.agent.channel_log() for word in PATIENT_WORDS)
    for path in (scene.agent.data_dir / "logs").glob("*-channels-*"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_what_a_sender_is_told_may_name_its_own_patient(scene: Scene) -> None:
    # given a server that explains a refusal with the patient's name
    await server_says(SENTENCE, 400)(scene)

    # then the sender, who named the patient first, is told, so that a person there can act
    assert GIVEN in scene.device.heard[0].text
