"""Promise 4: every accepted frame gets its answer, one and no more, whatever the server does with the message.

The table `FAILURES` says what the server does to the first delivery of a message (later ones it accepts, unless the row
says `ALWAYS`) and what its sender then hears: in original mode one acknowledgement; in enhanced mode a CA once the
message is stored and, if the server comes to a verdict, that as a second word.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio
from ward_building import Ward
from ward_devices import Device
from ward_messages import REFERENCE, Heard, ack_text, adt
from ward_servers import Asked, ScriptedServer

PATIENT, HASTY = 20.0, 0.5  # seconds of a channel's ACK deadline
Act = Callable[[Asked], Awaitable[None]]
OUTCOME = {
    "resourceType": "OperationOutcome",
    "issue": [{"severity": "error", "code": "invalid", "details": {"text": "no such ward"}}],
}


@dataclass(frozen=True, slots=True)
class Case:
    """What the server does, and the code that the sender hears about it.

    `verdict`: the code of the answer, None if the server never comes to one. `ours`: in the agent's own words.
    `says`: what stands in MSA-3. `always`: the server does it to every delivery. `deliveries`: how many there are.
    """

    act: Act
    verdict: str | None
    ours: bool = False
    says: str = ""
    always: bool = False
    deliveries: int | None = 1


def answers(body: object, status: int | None = 200, **changes: object) -> Act:
    async def act(asked: Asked) -> None:
        await asked.answer(body, status, **changes)

    return act


def answers_code(code: str, text: str = "said the server") -> Act:
    async def act(asked: Asked) -> None:
        await asked.answer(ack_text(asked.control_id, code, text))

    return act


def closes(code: int) -> Act:
    async def act(asked: Asked) -> None:
        await asked.link.close(code, "not now")

    return act


async def cuts(asked: Asked) -> None:
    asked.link.cut()


async def does_nothing(asked: Asked) -> None:
    """No answer, ever."""


async def complains(asked: Asked) -> None:
    await asked.link.say({"type": "agent:error", "body": "Channel not found"})


async def complains_by_callback(asked: Asked) -> None:
    await asked.link.say({"type": "agent:error", "body": "Channel not found", "callback": asked.callback})


async def answers_twice(asked: Asked) -> None:
    await asked.accept()
    await asked.accept()


async def changes_its_mind(asked: Asked) -> None:
    await asked.answer("overloaded", 503)
    await asked.accept()


async def refuses_after_accepting(asked: Asked) -> None:
    await asked.accept()
    await asked.answer("no", 400)


async def answers_another_message(asked: Asked) -> None:
    await asked.answer(ack_text("SOMETHING-ELSE", text="not for you"))


async def answers_without_callback(asked: Asked) -> None:
    await asked.answer(ack_text(asked.control_id), callback=None)


async def answers_in_the_old_tongue(asked: Asked) -> None:
    await asked.answer(ack_text(asked.control_id), None, type="transmit")


async def answers_somebody_else(asked: Asked) -> None:
    await asked.answer(ack_text(asked.control_id), callback="Agent/of-somebody-else")


async def talks_rubbish_first(asked: Asked) -> None:
    for frame in ("", "{", "null", "[]", "17", '"text"', "{}", '{"type":"agent:dance:request","callback":"c"}'):
        await asked.link.say(frame)
    await asked.link.say({"type": "agent:transmit:response", "statusCode": [], "callback": asked.callback})
    await asked.link.say({"type": "agent:transmit:response", "callback": f"{asked.callback}x", "body": "MSH"})
    await asked.link.say({"type": "agent:transmit:response", "callback": 4, "body": "MSH"})
    await asked.accept()


async def answers_with_framing_bytes(asked: Asked) -> None:
    await asked.answer(ack_text(asked.control_id, text="be\x0bfore\x1c\rMSH|^~\\&|after\x1c\r"))


async def answers_with_half_a_character(asked: Asked) -> None:
    frame = {
        "type": "agent:transmit:response",
        "callback": asked.callback,
        "statusCode": 200,
        "body": ack_text(asked.control_id, text="cut \ud83d"),
    }
    await asked.link.say(json.dumps(frame))


FAILURES: dict[str, Case] = {
    # refused for good: the content (AE) or the request (AR)
    "400 text": Case(answers("no such ward", 400), "AE", ours=True, says="no such ward"),
    "400 outcome as text": Case(answers(json.dumps(OUTCOME), 400), "AE", ours=True, says="no such ward"),
    "400 outcome as object": Case(answers(OUTCOME, 400), "AE", ours=True, says="no such ward"),
    "400 nothing said": Case(answers(None, 400), "AE", ours=True, says="400"),
    "400 with an AA in it": Case(answers(ack_text("x"), 400), "AE", ours=True),
    "400 delimiters": Case(answers("a|b^c\r\nMSA|AA|x\x0b\x1c\r", 400), "AE", ours=True),
    "400 much said": Case(answers("blah " * 5000, 400), "AE", ours=True),
    "401": Case(answers("who are you", 401), "AR", ours=True, says="401"),
    "403": Case(answers("not you", 403), "AR", ours=True, says="403"),
    "404": Case(answers("Not found", 404), "AR", ours=True, says="404"),
    "408": Case(answers("too slow", 408), "AR", ours=True, says="408"),
    "409": Case(answers("conflict", 409), "AE", ours=True, says="409"),
    "413": Case(answers("too large", 413), "AR", ours=True, says="413"),
    "422": Case(answers("unprocessable", 422), "AE", ours=True, says="422"),
    # tried again, so that the second delivery's answer counts
    "429": Case(answers("slow down", 429), "AA", deliveries=2),
    "429 with a wait": Case(answers("slow down", 429, retryAfter=0.2), "AA", deliveries=2),
    "500": Case(answers("oops", 500), "AA", deliveries=2),
    "502 html": Case(answers("<html>bad gateway</html>", 502), "AA", deliveries=2),
    "503": Case(answers(None, 503), "AA", deliveries=2),
    "504": Case(answers(OUTCOME, 504), "AA", deliveries=2),
    "status 0": Case(answers("what", 0), "AA", deliveries=2),
    "status 999": Case(answers("what", 999), "AA", deliveries=2),
    "closes with 1000": Case(closes(1000), "AA", deliveries=2),
    "closes with 1009": Case(closes(1009), "AA", deliveries=2),
    "closes with 1011": Case(closes(1011), "AA", deliveries=2),
    "cuts the socket": Case(cuts, "AA", deliveries=2),
    # no verdict within the sender's patience
    "500 always": Case(answers("oops", 500), None, always=True, deliveries=None),
    "429 always": Case(answers("slow down", 429), None, always=True, deliveries=None),
    "no answer": Case(does_nothing, None, always=True),
    "agent:error": Case(complains, None, always=True),
    "agent:error with callback": Case(complains_by_callback, None, always=True),
    "answers somebody else": Case(answers_somebody_else, None, always=True),
    "status is a text": Case(answers("MSH", 200, statusCode="200"), None, always=True),
    # accepted, in whatever words
    "2xx logs": Case(answers("Bot execution logs:\n"), "AA", ours=True, says="without an acknowledgement"),
    "2xx empty": Case(answers(""), "AA", ours=True, says="without an acknowledgement"),
    "2xx nothing": Case(answers(None), "AA", ours=True, says="without an acknowledgement"),
    "2xx json": Case(answers({"resourceType": "Patient"}), "AA", ours=True, says="without an acknowledgement"),
    "2xx list": Case(answers([1, 2]), "AA", ours=True, says="without an acknowledgement"),
    "2xx number": Case(answers(17), "AA", ours=True, says="without an acknowledgement"),
    "2xx MSH only": Case(answers("MSH|^~\\&|a|b"), "AA", ours=True, says="without an acknowledgement"),
    "2xx strange code": Case(answers("MSH|^~\\&|a|b\rMSA|XX|y"), "AA", ours=True),
    "201": Case(answers("created", 201), "AA", ours=True),
    "wrong MSA-2": Case(answers_another_message, "AA", ours=True),
    "AE of the application": Case(answers_code("AE"), "AE", says="said the server"),
    "AR of the application": Case(answers_code("AR"), "AR", says="said the server"),
    "without callback": Case(answers_without_callback, "AA"),
    "old server": Case(answers_in_the_old_tongue, "AA"),
    "answers twice": Case(answers_twice, "AA"),
    "503 and then 200": Case(changes_its_mind, "AA", deliveries=None),
    "200 and then 400": Case(refuses_after_accepting, "AA"),
    "rubbish first": Case(talks_rubbish_first, "AA"),
    "framing bytes in the answer": Case(answers_with_framing_bytes, "AA", ours=True),
    "half a character": Case(answers_with_half_a_character, "AA"),
}


@dataclass(slots=True)
class Practice:
    """One agent and one scripted server for the whole table. Every case has a sender address of its own."""

    ward: Ward
    server: ScriptedServer
    ports: dict[tuple[str, float], int]
    acts: dict[str, Case] = field(default_factory=dict)
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    async def play(self, asked: Asked) -> None:
        case = self.acts.get(asked.control_id)
        if case is not None and (asked.attempt == 1 or case.always):
            await case.act(asked)
        else:
            await asked.accept()

    async def begin(self, case: Case, mode: str) -> tuple[Device, str]:
        """A sender with a new control id to which `case` will happen."""
        number = next(self.numbers)
        control_id = f"CASE-{number}"
        self.acts[control_id] = case
        port = self.ports[mode, HASTY if case.verdict is None else PATIENT]
        return await self.ward.device(port, source=f"127.0.1.{number}"), control_id


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def practice(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Practice]:
    async with AsyncExitStack() as stack:
        ward = Ward(Path(tmp_path_factory.mktemp("practice")), stack)
        server = await ward.server()
        ports: dict[tuple[str, float], int] = {}
        for mode in ("false", "true"):
            for deadline_s in (PATIENT, HASTY):
                port = ports[mode, deadline_s] = ward.port()
                name = f"{'enhanced' if mode == 'true' else 'original'}-{deadline_s:g}"
                server.channel(name, port, enhanced=mode, ackTimeoutSecs=deadline_s, autoRetryBaseDelayMs=50)
        practice = Practice(ward, server, ports)
        server.script = practice.play
        await ward.running_agent(server)
        yield practice
        ward.assert_no_agent_crashed()


def check(heard: Heard, control_id: str, case: Case, code: str) -> None:
    """The right class of code for the right message, and words that help."""
    assert (heard.code, heard.control_id) == (code, control_id)
    assert case.says in heard.text
    if case.ours and code in ("AE", "AR"):
        assert REFERENCE.search(heard.text), f"no reference in {heard.text!r}"
        assert len(REFERENCE.sub("", heard.text).strip()) > 5, "no reason"
    assert b"\x0b" not in heard.raw
    assert b"\x1c" not in heard.raw


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", FAILURES)
async def test_original_mode_one_answer(practice: Practice, name: str) -> None:
    # given a server that will do this to the message
    case = FAILURES[name]
    device, control_id = await practice.begin(case, "false")

    # when a device sends it
    heard = await device.ask(adt(control_id))

    # then it hears one answer: the server's verdict, or at the deadline that there is none yet
    check(heard, control_id, case, case.verdict or "AE")
    if case.verdict is None:
        assert "not yet answered" in heard.text
        assert REFERENCE.search(heard.text)
    # and no second one: the next thing it hears is about its next message
    following = f"{control_id}-next"
    await device.send(adt(following))
    waits_behind = case.verdict is None
    assert await device.hear_until(following) == [f"{'AE' if waits_behind else 'AA'} {following}"]
    if case.deliveries is not None:
        assert practice.server.attempts(control_id) == list(range(1, case.deliveries + 1))


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", FAILURES)
async def test_enhanced_mode_a_commit_and_at_most_one_verdict(practice: Practice, name: str) -> None:
    # given a server that will do this to the message
    case = FAILURES[name]
    device, control_id = await practice.begin(case, "true")

    # when a device sends it
    commit = await device.ask(adt(control_id))

    # then it hears that the message is stored, and the verdict if the server comes to one
    assert str(commit) == f"CA {control_id}"
    following = f"{control_id}-next"
    if case.verdict is None:
        await device.send(adt(following))
        assert await device.hear_until(following) == [f"CA {following}"]
        return
    check(await device.hear(), control_id, case, case.verdict)
    await device.send(adt(following))
    assert await device.hear_until(following, answers=2) == [f"CA {following}", f"AA {following}"]
    if case.deliveries is not None:
        assert practice.server.attempts(control_id) == list(range(1, case.deliveries + 1))
