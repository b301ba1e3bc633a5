"""Where we mean to be different from the recorded agent and server, each with the reason.

This table is documentation and the tests read it. Every recording in tests/data/transcripts is rewritten by the
entries that name its scenario; what comes out is what our agent (party `agent`) and our hub (party `server`) must say,
word for word. An entry that changes no recording fails the tests, and so does one that we no longer live up to.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatch

from golden_edits import (
    Edit,
    Lines,
    after,
    at_most_once,
    earlier,
    instead,
    line,
    one_at_a_time,
    own_acknowledgements,
    reanswered,
    reframed,
    relaned,
    reworded,
    together,
    without,
)
from golden_transcript import Line
from golden_wording import (
    ALL_OK,
    ANSWER_TO_NOBODY,
    ANSWERS_TO_LATER_OPERATIONS,
    NOT_FOUND,
    SECOND_SOCKET,
    acknowledgement,
    answered,
    body_before_callback,
    me_of_a_hub,
    not_available,
    told_to_device,
    unreadable,
)


@dataclass(frozen=True, slots=True)
class Difference:
    """`scenarios`: patterns of names. `says`: what is different. `because`: why we want it so."""

    party: str
    scenarios: tuple[str, ...]
    says: str
    because: str
    edit: Edit

    def applies_to(self, party: str, scenario: str) -> bool:
        return party == self.party and any(fnmatch(scenario, pattern) for pattern in self.scenarios)


def rewritten(party: str, scenario: str, lines: Lines) -> Lines:
    """The recording of this scenario as we want it."""
    for difference in DIFFERENCES:
        if difference.applies_to(party, scenario):
            lines = difference.edit(lines)
    return lines


DIFFERENCES: tuple[Difference, ...] = (
    # ---- the agent
    Difference(
        "agent",
        ("*",),
        "`remote` is ip:port without ::ffff:",
        "A channel listens on the address that its Endpoint names and not on every address of the host, so a sender "
        "is named by the address that it has in the hospital's network.",
        reworded(line(lane="ws ", kind="frame"), r"::ffff:(\d+\.)", r"\1"),
    ),
    Difference(
        "agent",
        ("*",),
        "the socket is closed with code 1001 before the connection ends",
        "A server that hears a goodbye can tell a stopped agent from a broken line.",
        instead(line("agent", "ws ", "cut"), lambda one: (Line("agent", one.lane, "close", "1001"),)),
    ),
    Difference(
        "agent",
        ("inbound-enhanced-*", "reload-config"),
        "MSH-7 of our own acknowledgements has an offset and whole seconds",
        "A time without an offset is read in the reader's own time zone, and the recorded agent writes 3 milliseconds "
        "as .3; ours says what it means.",
        own_acknowledgements(lambda text: text.replace("||ACK", "+0000||ACK", 1)),
    ),
    Difference(
        "agent",
        ("inbound-enhanced-*", "reload-config"),
        "every segment of our own acknowledgements ends in CR, the last one too",
        "HL7 v2.5.1 §2.4 ends each segment with a carriage return, and strict receivers drop a segment without one.",
        own_acknowledgements(lambda text: text + "\r"),
    ),
    Difference(
        "agent",
        ("inbound-hl7-pipelined", "inbound-hl7-out-of-order"),
        "in original mode the next message of a connection goes to the server after the answer to the one before",
        "A patient must be admitted before he is transferred, so what one sender sends in order is processed in "
        "order, and the answers come back in that order.",
        one_at_a_time,
    ),
    Difference(
        "agent",
        ("inbound-not-hl7",),
        "a frame that is no HL7 is answered with AR",
        "A sender that hears nothing waits or repeats for ever; the reason in the answer lets a person mend it.",
        after(
            line("device", "device ", "frame", "^hello world$"),
            Line(
                "agent",
                "=",
                "frame",
                acknowledgement(
                    "AR",
                    "",
                    "the message does not begin with an MSH segment; let the sender begin each message with MSH, "
                    "or give it a channel for the protocol that it speaks (ref 1)",
                    trigger="ACK",
                    parties="|||",
                ),
            ),
        ),
    ),
    Difference(
        "agent",
        ("inbound-bot-throws",),
        "a message that the server refused is answered with AE and the server's reason",
        "The sender must learn that its message was not processed, or nobody at the bedside ever will.",
        told_to_device("AE", "server answered 400: bot failed on purpose (ref 1)"),
    ),
    Difference(
        "agent",
        ("inbound-bot-no-return",),
        "a message that the server accepted without an acknowledgement is answered with an AA of ours",
        "The server has the message, so the sender may go on; the bot's log lines are no answer for a device.",
        told_to_device("AA", "Accepted by the server without an acknowledgement of its own (ref 1)"),
    ),
    Difference(
        "agent",
        ("inbound-large",),
        "a message above the server's frame limit is refused with AR and never sent",
        "The recorded server cuts the line at such a frame, which loses the message without a word and stops every "
        "other channel until the agent is connected again.",
        together(
            without(line("agent", "ws ", "frame", "BIG01200")),
            without(line("server", "ws ", "close", "1009")),
            without(SECOND_SOCKET),
            relaned("ws agent-4", "ws agent-2"),
            after(
                line("device", "device ", "frame", "BIG01200"),
                Line(
                    "agent",
                    "=",
                    "frame",
                    acknowledgement(
                        "AR",
                        "BIG01200",
                        "a message of 1205259 bytes is more than the server takes in one frame (1048576 bytes); "
                        "raise the server's limit and server.max_frame_bytes (ref 1)",
                    ),
                ),
            ),
        ),
    ),
    Difference(
        "agent",
        ("wrong-agent-id", "malformed-agent-id"),
        "the agent stays up when the server does not know its id",
        "The mistake may be on the server's side and be mended there; an agent that has gone needs a person on site.",
        without(line("agent", "process", "exit")),
    ),
    Difference(
        "agent",
        ("token-refresh",),
        "a token is renewed when its time comes, not when the next message does",
        "No message waits for a login, and trouble with the login is known before the old token dies.",
        together(
            earlier(
                line("agent", "http ", "request", "^POST /oauth2/token"),
                line("device", "device ", "frame", "MSG00002"),
            ),
            earlier(
                line("server", "http ", "response", '"expires_in"'),
                line("device", "device ", "frame", "MSG00002"),
            ),
        ),
    ),
    Difference(
        "agent",
        ("token-refresh",),
        "GET /auth/me is asked at the first login only",
        "It tells the log which project this is, and that does not change with a new token.",
        together(
            at_most_once(line("agent", "http ", "request", "^GET /auth/me")),
            at_most_once(line("server", "http ", "response", '"membership"')),
        ),
    ),
    Difference(
        "agent",
        ("server-to-agent-odd-frames",),
        "a frame that cannot be read or is of an unknown type is answered with agent:error",
        "Whoever asks hears at once that this agent does not understand, instead of waiting for a timeout.",
        together(
            unreadable(
                r'\{"type": "agent:bogus:request".*',
                "Unknown message type: agent:bogus:request",
                callback="cb-1",
            ),
            unreadable("this is not json", "Frame is not valid JSON: JSON is malformed: invalid character (byte 4)"),
            unreadable(r'\{"hello".*', "Unknown message type: undefined"),
            unreadable(r"\[\]", "Unknown message type: undefined"),
            unreadable("null", "Frame is null, not a JSON object"),
        ),
    ),
    Difference(
        "agent",
        ("server-to-agent-odd-frames",),
        "a response to a message that nobody sent is not written to a device",
        "An answer reaches the connection that asked for it, or nobody: a device that gets a foreign acknowledgement "
        "may drop a message that was never delivered.",
        without(ANSWER_TO_NOBODY),
    ),
    Difference(
        "agent",
        ("server-to-agent-odd-frames", "agent-status-off"),
        "pushing to devices, fetching logs and upgrading are refused at once",
        "This version does not have these operations, and says so, so that nobody waits for an answer.",
        together(
            without(ANSWERS_TO_LATER_OPERATIONS),
            not_available("agent:logs:request", "$fetch-logs"),
            not_available("agent:upgrade:request", "$upgrade"),
        ),
    ),
    Difference(
        "agent",
        ("server-to-agent-odd-frames",),
        "a push is refused at once, also one that names no destination or a bad one",
        "This version cannot push, and whoever asked hears it; the recorded agent leaves bad destinations unanswered.",
        not_available("agent:transmit:request|push", "$push"),
    ),
    Difference(
        "agent",
        ("agent-status-off",),
        "agent:error has its body before its callback, whatever it answers",
        "The members of a JSON object have no order, and one way to write a frame is enough.",
        reframed(line("agent", "ws ", "frame", '^{"type":"agent:error","callback"'), body_before_callback),
    ),
    Difference(
        "agent",
        ("agent-status-off",),
        "a response that comes while the agent is off is taken, not refused",
        "It can only answer a message that was accepted before, and that message must come to its end; refusing the "
        "answer would have it sent again.",
        without(line("agent", "ws ", "frame", '"callback":"Agent/x-1"')),
    ),
    # ---- the hub
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
        "$upgrade, $fetch-logs and $push are not found",
        "This version does not have these operations.",
        answered(r"\$upgrade|\$fetch-logs|\$push", NOT_FOUND),
    ),
    Difference(
        "server",
        ("two-connections-same-agent",),
        "both sockets are asked to reload instead of for logs",
        "This version has no $fetch-logs, and which operation reaches both sockets does not matter.",
        together(
            answered(r"\$fetch-logs", ALL_OK),
            reworded(line("api", "http ", "request"), r"\$fetch-logs\?limit=1", "$reload-config"),
            reworded(line("server", "ws ", "frame"), 'agent:logs:request","limit":1', 'agent:reloadconfig:request"'),
            reworded(
                line("agent", "ws ", "frame"),
                r'agent:logs:response","statusCode":200,"logs":\[.*\]',
                'agent:reloadconfig:response","statusCode":200',
            ),
        ),
    ),
)
