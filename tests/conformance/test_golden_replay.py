"""A replay sees what a party does not say, says otherwise, says too much or says to somebody else."""

from __future__ import annotations

import pytest
from golden_names import Names
from golden_replay import Ear, replay
from golden_transcript import Line, Transcript

AGENT = "0c74a273-d090-42d4-84bc-7f2429bc7716"
OLD = f"Agent/{AGENT}-00000000-0000-4000-8000-000000000001"
NEW = f"Agent/{AGENT}-00000000-0000-4000-8000-0000000000ff"
ASK = Line("device", "device 1", "frame", "MSH|…")
REQUEST = Line("agent", "ws agent-1", "frame", f'{{"type":"agent:transmit:request","body":"MSH|…","callback":"{OLD}"}}')
ACK = "MSH|^~\\&|B||A||20261122074655.746||ACK^A01^ACK|17|P|2.5\rMSA|AA|1|OK"
RESPONSE = Line("server", "ws agent-1", "frame", f'{{"type":"agent:transmit:response","body":"x","callback":"{OLD}"}}')
ANSWER = Line("agent", "device 1", "frame", ACK)
CONVERSATION = (ASK, REQUEST, RESPONSE, ANSWER)


class Scripted:
    """A party that says the same whatever happens."""

    party = "agent"

    def __init__(self, *says: Line) -> None:
        self.names = Names()
        self.ear = Ear()
        self.heard: list[str] = []
        for line in says:
            self.ear.hear(line)

    async def play(self, line: Line) -> None:
        self.heard.append(self.names.to_actual(line.text))

    async def prompt(self, line: Line) -> None:
        """It has already spoken."""


async def judged(*says: Line) -> list[str]:
    return await replay(Transcript("a", "", {}, (), CONVERSATION), CONVERSATION, Scripted(*says), within_s=0.05)


def renamed(line: Line) -> Line:
    return line.saying(line.text.replace(OLD, NEW))


async def test_the_same_words_are_no_mismatch() -> None:
    assert await judged(REQUEST, ANSWER) == []


async def test_a_callback_may_have_another_name_and_keeps_it() -> None:
    party = Scripted(renamed(REQUEST), ANSWER)
    assert await replay(Transcript("a", "", {}, (), CONVERSATION), CONVERSATION, party) == []
    assert NEW in party.heard[1]


async def test_a_callback_of_another_form_is_a_mismatch() -> None:
    assert len(await judged(REQUEST.saying(REQUEST.text.replace(OLD, "callback-1")), ANSWER)) == 1


def test_a_name_of_now_may_be_another_name_of_the_recording() -> None:
    names = Names()
    names.learn("127.0.0.1:28001", "127.0.0.1:39892")
    names.learn("127.0.0.1:39892", "127.0.0.1:28001")
    text = "127.0.0.1:28001 and 127.0.0.1:39892"

    assert names.to_actual(text) == "127.0.0.1:39892 and 127.0.0.1:28001"
    assert names.to_recorded(names.to_actual(text)) == text


async def test_an_acknowledgement_of_the_agents_own_may_have_another_stamp_and_control_id() -> None:
    later = ANSWER.saying(ACK.replace("20261122074655.746", "20300101000000.1").replace("|17|", "|18|"))
    assert await judged(REQUEST, later) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("|AA|", "|AE|"),
        ("|AA|1|", "|AA|2|"),
        ("OK", "OK\r"),
        (".746", ".746+0000"),
        ("A01", "A02"),
        ("|B|", "|C|"),
    ],
)
async def test_any_other_word_is_a_mismatch(old: str, new: str) -> None:
    assert len(await judged(REQUEST, ANSWER.saying(ACK.replace(old, new)))) == 1


async def test_another_order_of_keys_is_a_mismatch() -> None:
    turned = REQUEST.saying(f'{{"type":"agent:transmit:request","callback":"{OLD}","body":"MSH|…"}}')
    assert len(await judged(turned, ANSWER)) == 1


async def test_saying_more_is_a_mismatch() -> None:
    assert len(await judged(REQUEST, ANSWER, ANSWER)) == 1


async def test_saying_it_to_another_device_is_a_mismatch() -> None:
    assert len(await judged(REQUEST, Line("agent", "device 2", "frame", ACK))) == 2


def pushed(body: str, number: int) -> Line:
    text = f'{{"type":"agent:transmit:response","callback":"{OLD[:-1]}{number}","statusCode":200,"body":"{body}"}}'
    return Line("agent", "ws agent-1", "frame", text)


async def test_answers_to_different_pushes_may_overtake_each_other() -> None:
    conversation = (pushed("a", 1), pushed("b", 2))
    party = Scripted(*reversed(conversation))
    assert await replay(Transcript("a", "", {}, (), conversation), conversation, party, within_s=0.05) == []


async def test_answers_of_two_pushes_taken_for_each_other_are_two_mismatches() -> None:
    conversation = (pushed("a", 1), pushed("b", 2))
    party = Scripted(pushed("a", 2), pushed("b", 1))
    assert len(await replay(Transcript("a", "", {}, (), conversation), conversation, party, within_s=0.05)) == 2


async def test_silence_is_a_mismatch() -> None:
    assert len(await judged(REQUEST)) == 1
