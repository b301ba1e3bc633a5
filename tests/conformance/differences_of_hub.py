"""Where our hub means to be different from the recorded server (a part of the table in `differences`).

Secret: none. Promise: why we want it so stands in `because`, entry by entry.
"""

from __future__ import annotations

from golden_difference import Difference
from golden_edits import answers_in_order, instead_of_last, line, reanswered, reworded, together, without
from golden_hub_answers import asks_for_stats, readable, waits_when_told_so
from golden_transcript import HEARTBEAT_REQUEST
from golden_wording import NOT_FOUND, answered, me_of_a_hub

OF_THE_HUB: tuple[Difference, ...] = (
    Difference(
        "server",
        ("*",),
        "/auth/me has no menu, one rule that allows everything, and the project's id as that of the membership",
        "A hub has one project of its own, no web application, no memberships and no access policies.",
        reanswered(line("server", "http ", "response", '"membership"'), me_of_a_hub),
    ),
    Difference(
        "server",
        ("client-to-server-odd-frames",),
        "the words about unreadable JSON are our own",
        "The recorded ones come from the JavaScript engine; agents only log them.",
        together(
            *(
                reworded(line("server", "ws raw", "frame", '"agent:error"'), theirs, ours)
                for theirs, ours in (
                    (
                        r"Unexpected token 'h'.*JSON\"\}",
                        'Frame is not valid JSON: JSON is malformed: invalid character (byte 4)"}',
                    ),
                    (
                        r"Cannot read properties of null \(reading 'type'\)",
                        "Frame is null, not a JSON object",
                    ),
                    (r"Expected ',' or.*33\)", "Frame is not valid JSON: Input data was truncated"),
                    (r"Unexpected end of JSON input", "Frame is not valid JSON: Input data was truncated"),
                    (
                        r"Expected property name.*2\)",
                        "Body is not valid JSON: JSON is malformed: object keys must be strings (byte 1)",
                    ),
                )
            )
        ),
    ),
    Difference(
        "server",
        ("client-to-server-odd-frames",),
        "the built-in target says which content type it wants",
        "The recorded bot fails on a message that is no HL7 with words that help nobody.",
        reworded(
            line("server", "ws raw", "frame", "buildAck"),
            "event.input.buildAck is not a function",
            "ack answers HL7 v2 messages only: send contentType x-application/hl7-v2+er7",
        ),
    ),
    Difference(
        "server",
        ("status",),
        "an operation that can be asked with GET can be asked with POST too",
        "FHIR allows both, and tools use both.",
        answered(
            r"^POST .*/\$status",
            "200\nContent-Type: application/fhir+json; charset=utf-8\n\n"
            '{"parameter": [{"name": "status", "valueCode": "connected"}, {"name": "version", "valueString": '
            '"5.0.10-6a4145c"}, {"name": "lastUpdated", "valueInstant": "<moment>"}], "resourceType": "Parameters"}',
        ),
    ),
    Difference(
        "server",
        ("bulk-errors",),
        "$upgrade is not found, and no agent is asked",
        "This version does not have this operation, and whoever calls it hears so at once.",
        answered(r"\$upgrade", NOT_FOUND),
    ),
    Difference(
        "server",
        ("agent-status-off",),
        "no frame is handed to the agent through the server",
        "A hub says to an agent what an operation needs, and nothing that somebody puts into its mouth.",
        together(
            without(line("server", "ws ", "frame", '"type": "agent:transmit:response"')),
            without(line("agent", "ws ", "frame", '"callback":"Agent/x-1"')),
        ),
    ),
    Difference(
        "server",
        ("stats",),
        "$stats asks the agent and passes on what it says",
        "Numbers of all agents in one place show a slow or a silent one before a ward calls.",
        asks_for_stats,
    ),
    Difference(
        "server",
        ("connect-no-access",),
        "a client of the hub may be the agent, whatever a policy says",
        "A hub has no access policies: it serves one site, and whoever has one of its secrets belongs to it.",
        together(
            reworded(line("server", "ws ", "frame"), '"agent:error","body":"Forbidden"', '"agent:connect:response"'),
            readable("connect-no-access"),
        ),
    ),
    Difference(
        "server",
        ("heartbeat-missed",),
        "a socket that left two heartbeats unanswered is cut at the third tick",
        "Behind such a socket nobody is alive: $status must say so, and requests must not be sent into it.",
        together(
            instead_of_last(line("server", "ws ", "frame", f"^{HEARTBEAT_REQUEST}$"), "cut"),
            without(line(lane="ws ", kind="close")),
        ),
    ),
    Difference(
        "server",
        ("reconnect-server-unreachable", "inbound-enhanced-applevelack-er"),
        "what the built-in targets are asked first they answer first",
        "They need no time, so a patient's messages can leave in the order in which they came.",
        answers_in_order,
    ),
    Difference(
        "server",
        ("push-parameters-body",),
        "waitForResponse may be a valueBoolean",
        'FHIR says a boolean so; the recorded server reads only the text "true", and whoever asked to wait never hears '
        "that the message was refused.",
        waits_when_told_so,
    ),
)
