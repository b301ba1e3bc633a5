"""Where our agent means to be different in what it pushes, pings and logs (a part of the table in `differences`).

Secret: none. Promise: what is better for a hospital about ours stands in `because`, entry by entry.
"""

from __future__ import annotations

from golden_difference import Difference
from golden_edits import after, line, reframed, together, without
from golden_pushes import as_a_push_is_answered, one_in_flight, pinged, retold, told, until_stopped
from golden_shapes import PAGE
from golden_transcript import frame_of
from golden_wording import error

NO_MSH = "the body cannot be pushed: the message does not begin with an MSH segment — push an HL7 v2 message"
NO_CONTROL_ID = "Required field missing: MSH.10 — an acknowledgement finds its message by the message control ID"

OF_PUSHES: tuple[Difference, ...] = (
    Difference(
        "agent",
        (
            "push-by-identifier",
            "push-concurrent",
            "push-keepalive",
            "push-max-clients",
            "push-nowait",
            "push-parameters-body",
            "push-remote-naks",
            "push-wait",
            "server-to-agent-odd-frames",
        ),
        "a connection carries one message at a time and is used again, in the order of the requests",
        "Many receivers read one message, answer it, and lose what came behind it; and a connection that is there "
        "already cannot be refused.",
        one_in_flight,
    ),
    Difference(
        "agent",
        ("server-to-agent-odd-frames",),
        "a reload leaves connections to remotes alone whose settings stay as they were",
        "What a remote is doing with a message does not end because somebody has changed a channel.",
        until_stopped,
    ),
    Difference(
        "agent",
        ("push-connection-refused",),
        "that nobody listens is said in a sentence, with what to do",
        "The one who pushed may be a clinician's screen, and should know whom to call.",
        retold(
            "ECONNREFUSED",
            "cannot connect to 127.0.0.1:28001: connection refused (ECONNREFUSED) — "
            "check that the system runs and listens there",
        ),
    ),
    Difference(
        "agent",
        ("push-remote-closes",),
        "that the remote has closed the connection is told at once",
        "Whoever waits need not wait for the time-out, and learns that the message may have arrived all the same.",
        told(
            line("server", "ws ", "frame", '"agent:transmit:request"'),
            "127.0.0.1:28001 closed the connection without answering; it may have received the message — "
            "look into its log why it closed",
            once=line("remote", "remote ", "close"),
        ),
    ),
    Difference(
        "agent",
        ("push-remote-wrong-control-id",),
        "an acknowledgement of another message is refused by name",
        "A receiver that mixes up its answers is dangerous, and only the two names show which one was meant.",
        retold(
            "still pending",
            "127.0.0.1:28001 acknowledged message 'WRONG' (MSA-2) while 'PUSH0001' waits for its answer; "
            "it may have received the message — let it copy MSH-10 of each message into MSA-2 of its answer",
        ),
    ),
    Difference(
        "agent",
        ("push-not-hl7",),
        "a body that is no HL7 message is refused at once, before any connection is made",
        "Whoever pushed it can mend it when he knows; the recorded agent leaves him waiting, and connects for nothing.",
        together(
            without(line(lane="remote ")),
            without(line("agent", "ws ", "frame", "Required field missing")),
            told(line("server", "ws ", "frame", '"body":"hello"'), NO_MSH),
            told(line("server", "ws ", "frame", r'"body":"MSH\|'), NO_CONTROL_ID),
        ),
    ),
    Difference(
        "agent",
        ("server-to-agent-odd-frames",),
        "a push that names no destination, or none that is an address, is refused at once",
        "The recorded agent leaves it unanswered, and nobody can tell a typing error from a slow remote.",
        together(
            after(
                line("server", "ws ", "frame", '"agent:transmit:request", "contentType"'),
                lambda one: error("Missing remote address", frame_of(one)["callback"]),
            ),
            told(
                line("server", "ws ", "frame", '"not a url"'),
                "remote: the address has no scheme — write mllp://host:port, with an IPv6 address in brackets",
            ),
        ),
    ),
    Difference(
        "agent",
        ("ping", "ping-errors"),
        "the answer to a ping has its members in the order of all answers to $push",
        "The members of a JSON object have no order, and one way to write a frame is enough.",
        reframed(line("agent", "ws ", "frame", '"agent:transmit:response","contentType"'), as_a_push_is_answered),
    ),
    Difference(
        "agent",
        ("ping-errors",),
        "an IPv6 address is pinged like any other",
        "Devices have such addresses too, and more of them each year.",
        pinged("IPv6 is currently unsupported", "::1", 1),
    ),
    Difference(
        "agent",
        ("ping-errors",),
        "a ping of an mllp:// address connects to its port",
        "Whether the port takes connections is what the person wants to know, and firewalls often drop ICMP.",
        retold(
            "mllp://127.0.0.1:28001",
            "cannot connect to 127.0.0.1:28001: connection refused (ECONNREFUSED) — "
            "check that the system runs and listens there",
        ),
    ),
    Difference(
        "agent",
        ("ping-errors",),
        "a count below 1 is refused in a sentence that says what is expected",
        "The recorded agent shows its own command line and what a program of that system says about it.",
        together(
            retold("-c 0 ", 'Unable to ping 127.0.0.1 "0" times. A whole number from 1 to 100 is expected.'),
            retold("-c -1 ", 'Unable to ping 127.0.0.1 "-1" times. A whole number from 1 to 100 is expected.'),
        ),
    ),
    Difference(
        "agent",
        ("ping-errors",),
        "five echoes take the four seconds that they need",
        "The recorded agent gives up a little earlier, whatever was asked for, and shows no echo that came.",
        pinged("-c 5 ", "127.0.0.1", 5),
    ),
    Difference(
        "agent",
        ("agent-status-off", "fetch-logs", "fetch-logs-multi", "server-to-agent-odd-frames", "two-connections-*"),
        "log lines come in pages, which tell where the next one begins",
        "Whoever reads on from there misses no line and reads none twice; the recorded agent has no way to read on.",
        reframed(line("agent", "ws ", "frame", '"agent:logs:response"'), lambda frame: {**frame, "logs": PAGE}),
    ),
    Difference(
        "agent",
        ("push-timeout-default",),
        "a push that is unanswered when the agent stops is told so",
        "Whoever pushed it learns that the message may have arrived, instead of waiting.",
        told(
            line("server", "ws ", "frame", '"agent:transmit:request"'),
            "this agent stopped before 127.0.0.1:28001 had answered; it may have received the message — "
            "find out there before pushing again",
            once=line("host", "process", "stop"),
        ),
    ),
)
