"""Where our agent means to be different from the recorded one (a part of the table in `differences`).

Secret: none. Promise: what is better for a hospital about ours stands in `because`, entry by entry.
"""

from __future__ import annotations

from golden_continuations import connects_again, goes_on_as
from golden_difference import Difference
from golden_edits import (
    after,
    at_most_once,
    earlier,
    instead,
    line,
    one_at_a_time,
    own_acknowledgements,
    reframed,
    relaned,
    reworded,
    together,
    where_introduced,
    without,
)
from golden_transcript import Line
from golden_wording import (
    ANSWER_TO_NOBODY,
    SECOND_SOCKET,
    acknowledgement,
    body_before_callback,
    not_available,
    refused,
    refused_reload,
    told_to_device,
    unreadable,
)

OF_THE_AGENT: tuple[Difference, ...] = (
    Difference(
        "agent",
        ("token-lifetime-too-short",),
        "a token of one minute is enough to be connected, and is renewed once, before it dies",
        "A site may want short-lived tokens; the recorded agent never gets past its login with them, and floods the "
        "server until that locks it out.",
        goes_on_as("connect-no-channels", "token-lifetime-too-short"),
    ),
    Difference(
        "agent",
        ("ws-upgrade-timeout",),
        "the agent stays up and tries again when a socket does not open in time",
        "A proxy or a firewall that is slow for ten seconds must not end the agent: its devices go on sending, and "
        "nobody is there at night to start it.",
        together(
            without(line("agent", "process", "exit")),
            connects_again(line("agent", "ws agent-4", "cut"), "ws agent-5"),
        ),
    ),
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
        where_introduced(instead(line("agent", "ws ", "cut"), lambda one: (Line("agent", one.lane, "close", "1001"),))),
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
        ("inbound-hl7-pipelined", "inbound-hl7-out-of-order", "reconnect-server-unreachable"),
        "in original mode the next message of a connection goes to the server after the answer to the one before",
        "A patient must be admitted before he is transferred, so what one sender sends in order is processed in "
        "order, and the answers come back in that order.",
        one_at_a_time,
    ),
    Difference(
        "agent",
        ("inbound-bytestream",),
        "bytes before the start character are no part of the message",
        "What stands outside of the two characters is the noise of the line; whether it came in one packet with the "
        "message or in another must not change the message.",
        together(
            reworded(line("", "ws ", "frame", "6e6f697365027370"), "6e6f69736502", "02"),
            reworded(line("agent", "device ", "bytes", "^noise"), "^noise", ""),
        ),
    ),
    Difference(
        "agent",
        ("inbound-bytestream",),
        "the next message of a connection goes to the server after the answer to the one before, and each answer is "
        "written for itself",
        "What one device sends in order is processed in order, whatever it speaks.",
        together(
            instead(
                line("agent", "device ", "bytes", "^\x02one\x03\x02two\x03$"),
                lambda one: (one.saying("\x02one\x03"), one.saying("\x02two\x03")),
            ),
            one_at_a_time,
        ),
    ),
    Difference(
        "agent",
        ("inbound-bytestream",),
        "a device that is connected when the agent stops sees its connection end",
        "It can connect again at once, and need not find out by a message that nobody takes.",
        after(line("host", "process", "stop"), Line("agent", "device 45898", "close")),
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
        ("wrong-agent-id", "malformed-agent-id", "connect-no-access"),
        "the agent stays up when the server does not know its id or does not let it read its configuration",
        "The mistake may be on the server's side and be mended there; an agent that has gone needs a person on site.",
        without(line("agent", "process", "exit")),
    ),
    Difference(
        "agent",
        ("start-server-down",),
        "after an outage at the start the configuration is read when the socket is live, not right after the login",
        "While the server is away it is not asked for its configuration at every try; that it lets the agent in is the "
        "sign to ask again, at once.",
        earlier(
            line("server", "ws ", "frame", '"agent:connect:response"'),
            line("agent", "http ", "request", "^GET /fhir/R4/Agent/"),
        ),
    ),
    Difference(
        "agent",
        ("heartbeat-missed",),
        "a socket on which heartbeats are not answered is cut, without a close frame",
        "Whoever does not answer heartbeats does not answer a goodbye either, and messages wait while it is awaited.",
        together(
            instead(line("agent", "ws ", "close", "1000"), lambda one: (Line("agent", one.lane, "cut"),)),
            without(line("server", "ws ", "close", "1000")),
        ),
    ),
    Difference(
        "agent",
        ("reload-config-errors",),
        "a reload that fails names the channel, what is wrong with it, and what to do",
        "Whoever asked can mend it without the agent's log, and without knowing which of forty channels it is.",
        together(
            refused(
                "Error while validating", "adt.address: the address has no scheme — write it like mllp://0.0.0.0:2575"
            ),
            refused(
                "declare use of port",
                "second.address: channel adt listens on port 27001 too — "
                "give one of them another port or another address of this host",
            ),
            refused(
                '"Gone"',
                "second.endpoint: Endpoint/c907c535-a74b-41e6-8909-67d73ca31ae0 cannot be read: "
                "fhir/R4/Endpoint/c907c535-a74b-41e6-8909-67d73ca31ae0: the server answered 410: Gone — "
                "correct the channel's endpoint reference, or let the agent's client read it",
            ),
        ),
    ),
    Difference(
        "agent",
        ("reload-config-errors",),
        "a scheme that the agent does not carry makes a reload fail, and the old configuration stays in force",
        "The recorded agent reports success and stops listening: the sender's messages are lost, and nobody is told.",
        together(
            refused_reload(
                "foo://0.0.0.0:27005",
                "adt.address: the scheme 'foo' is unknown — use mllp://, mllps://, tcp://, astm://, dicom:// or serial://",
            ),
            refused_reload(
                "foo://0.0.0.0:27006",
                "second.address: the scheme 'foo' is unknown — use mllp://, mllps://, tcp://, astm://, dicom:// or serial://",
            ),
        ),
    ),
    Difference(
        "agent",
        ("reload-config-errors",),
        "a byte stream without its characters is refused in words that name the channel, the parameter and the remedy",
        "Whoever corrects it knows what to write; a missing start character is no error, as the end is enough.",
        refused(
            "Failed to parse startChar",
            "second.endChar: nothing says where a message ends — add endChar, like endChar=%03 for the character ETX",
        ),
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
        ("server-to-agent-odd-frames",),
        "upgrading is refused on every system, in our words",
        "This version cannot upgrade itself, and says so, so that nobody waits for an answer.",
        together(
            without(line("agent", "ws ", "frame", '"body":"Auto-upgrading')),
            not_available("agent:upgrade:request", "$upgrade"),
        ),
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
)
