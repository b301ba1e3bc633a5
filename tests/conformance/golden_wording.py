"""The words in which our agent and hub say what the recorded ones do not.

Secret: their spelling, key orders and places; the reasons stand in `differences`.
Promise: only form is left open (time stamps, references), as in every comparison of a replay.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from golden_edits import Edit, Lines, after, device_of, instead, line, reframed
from golden_transcript import Line, frame_of

STAMP = "20261122074655+0000"  # any time; what is compared is its form
TO_SENDER = "GHH LAB, INC.|GOOD HEALTH HOSPITAL|ADT1|GOOD HEALTH HOSPITAL"


def acknowledgement(
    code: str, control_id: str, text: str, *, trigger: str = "ACK^A01^ACK", parties: str = TO_SENDER
) -> str:
    """An acknowledgement in our own words."""
    version = "2.5" if parties == TO_SENDER else "2.5.1"
    return f"MSH|^~\\&|{parties}|{STAMP}||{trigger}|1|P|{version}\rMSA|{code}|{control_id}|{text}\r"


def told_to_device(code: str, text: str) -> Edit:
    """Behind the server's answer, the device hears us."""
    answer = line("server", "ws ", "frame", '"type":"agent:transmit:response"')
    return after(answer, lambda one: Line("agent", device_of(one), "frame", acknowledgement(code, "MSG00001", text)))


def error(text: str, callback: str = "") -> Line:
    """An agent:error on the connection of the frame that it answers."""
    told = f',"callback":"{callback}"' if callback else ""
    return Line("agent", "=", "frame", f'{{"type":"agent:error","body":"{text}"{told}}}')


def unreadable(frame: str, text: str, callback: str = "") -> Edit:
    return after(line("server", "ws ", "frame", f"^{frame}$"), error(text, callback))


def not_available(types: str, operation: str) -> Edit:
    """Requests of these types are refused at once."""
    text = f"{operation} is not available in this version — a newer release of the agent may"
    requests = line("server", "ws ", "frame", f'"type": ?"(?:{types})"')
    return after(requests, lambda one: error(text, str(frame_of(one).get("callback", ""))))


def refused(theirs: str, ours: str) -> Edit:
    """An agent:error in which the recorded agent said something like this says something else."""
    errors = line("agent", "ws ", "frame", f'"type":"agent:error".*{theirs}')
    return reframed(errors, lambda frame: {**frame, "body": ours})


def refused_reload(address: str, text: str) -> Edit:
    """A reload that found this address on an Endpoint did not succeed."""

    def edit(lines: Lines) -> Lines:
        read = next((at for at, one in enumerate(lines) if one.kind == "response" and address in one.text), len(lines))
        done = line("agent", "ws ", "frame", '"type":"agent:reloadconfig:response"')
        answer = next((one for one in lines[read:] if done(one)), None)
        return instead(lambda one: one is answer, lambda one: (_as_error(one, text),))(lines)

    return edit


def _as_error(answer: Line, text: str) -> Line:
    return replace(error(text, str(frame_of(answer)["callback"])), lane=answer.lane)


def body_before_callback(frame: dict[str, object]) -> dict[str, object]:
    return {"type": frame["type"], "body": frame["body"], "callback": frame["callback"]}


def me_of_a_hub(me: dict[str, Any]) -> dict[str, Any]:
    return {
        **me,
        "project": {**me["project"], "name": "Hub"},
        "membership": {**me["membership"], "id": me["project"]["id"]},
        "config": {**me["config"], "menu": []},
        "accessPolicy": {**me["accessPolicy"], "basedOn": [], "resource": [{"resourceType": "*"}]},
    }


ANSWER_TO_NOBODY = line("agent", "device ", "frame", r"\|RX1\|")
SECOND_SOCKET = line(lane="ws agent-4", text="/ws/agent|^101$|agent:connect:")
NOT_FOUND = (
    '404\nContent-Type: application/fhir+json; charset=utf-8\n\n{"extension": [{"extension": [{"url": "requestId", '
    '"valueId": "<id>"}, {"url": "traceId", "valueId": "<id>"}], "url": '
    '"https://medplum.com/fhir/StructureDefinition/tracing"}], "id": "not-found", "issue": [{"code": "not-found", '
    '"details": {"text": "Not found"}, "severity": "error"}], "resourceType": "OperationOutcome"}'
)


def answered(target: str, response: str) -> Edit:
    """The answer to every request for such a target is this one."""

    def edit(lines: Lines) -> Lines:
        asked = line("api", "http ", "request", target)
        lanes = {one.lane for one in lines if asked(one)}  # tools open a connection for each request
        return instead(lambda one: one.kind == "response" and one.lane in lanes, lambda one: (one.saying(response),))(
            lines
        )

    return edit
