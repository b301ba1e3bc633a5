"""The table of every option that the server may set.

Secret: the names, forms, ranges and defaults of PROTOCOL §3, older names included, and where each has an effect.
Promise: reading, checking and describing all go by this table, so they cannot disagree; of one name there is one option
at most for each kind of address.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from agent.plan.kind import ALL, ANALYSERS, CHANNELS, REMOTES, SERIAL, SOCKETS, STREAMS, Kind
from agent.plan.octets import control_characters, one_byte, responses, sequences
from agent.plan.values import (
    Form,
    ae_title,
    ae_titles,
    analyser_encoding,
    body_encoding,
    decimal,
    encoding,
    invalid_bytes,
    networks,
    one_of,
    order_key,
    switch,
    text,
    whole,
)
from agent.protocol.fhir import SettingValue
from agent.spec import AckMode, AppAck, BatchAck, DuplicateBehavior, FlowControl, Parity, RetryMode, ReturnAck

_NOWHERE: Final = Kind(0)
_MODES: Final = {"server": False, "client": True}  # whether the channel dials
_DIALLED: Final = "an analyser that is the TCP server is written astm://host:port?mode=client"


@dataclass(frozen=True, slots=True)
class Option:
    """`parameter`: its name on an address of these `kinds`, `setting`: its agent-wide name; empty where it has none.

    `fatal`: a wrong value is an error; otherwise it is a warning and the default holds. `guards`: so is a misspelt
    name, since the channel would be open to everybody. `retired`: the reason why it is understood and does nothing.
    `raw`: its parser takes what stands in the address, before percent-decoding. `repeats`: given several times, all
    count. `default`: what holds without it, in words.
    """

    form: Form
    parameter: str = ""
    setting: str = ""
    kinds: Kind = _NOWHERE
    default: str = ""
    doc: str = ""
    fatal: bool = False
    guards: bool = False
    retired: str = ""
    raw: bool = False
    repeats: bool = False

    @property
    def parse(self) -> Callable[[SettingValue], Any]:
        return self.form.parse


def _members(kind: type[StrEnum]) -> Form:
    return one_of({str(member): member for member in kind})


OPTIONS: tuple[Option, ...] = (
    # HL7 v2 in MLLP
    Option(
        Form(encoding), "encoding", kinds=Kind.MLLP | Kind.REMOTE, default="auto", fatal=True,
        doc="Character set of the messages; auto: what MSH-18 says, else UTF-8.",
    ),
    Option(
        one_of({"true": AckMode.ENHANCED, "aa": AckMode.ENHANCED_AA, "auto": AckMode.AUTO, "false": AckMode.ORIGINAL}),
        "enhanced", kinds=Kind.MLLP, default="false",
        doc="Who answers the sender: false the server; true CA once stored, the server's answer later; aa AA once "
        "stored, nothing later; auto as MSH-15 and MSH-16 of each message ask.",
    ),
    Option(
        one_of({"AL": AppAck.ALWAYS, "NE": AppAck.NEVER, "ER": AppAck.ERROR, "SU": AppAck.SUCCESS}),
        "appLevelAck", kinds=Kind.MLLP, default="AL",
        doc="With enhanced=true, which of the server's answers go to the sender: all, none, errors, successes.",
    ),
    Option(
        switch(), "assignSeqNo", kinds=Kind.MLLP, default="false",
        doc="Set MSH-13 to a counter of the channel that survives restarts.",
    ),
    Option(
        Form(order_key), "logicalChannelKey", "channelLogicalChannelKey", kinds=Kind.MLLP, default="the sender",
        fatal=True,
        doc="Fields like PID-3.1 or MSH-4,MSH-9.2; messages that are alike in them stay in order, others go in "
        "parallel; empty on an address takes the agent-wide one away.",
    ),
    Option(
        _members(DuplicateBehavior), "duplicateBehavior", kinds=Kind.MLLP, default="idempotent",
        doc="What a message with a used MSH-10 gets: the first one's answer if the bytes are the same, or a refusal.",
    ),
    Option(
        Form(invalid_bytes), "invalidBytes", kinds=Kind.MLLP, default="reject", fatal=True,
        doc="Bytes that the character set does not have: reject, or fallback:windows-1252 to read the message by "
        "another one.",
    ),
    Option(
        one_of({"1": 1, "2": 2}), "mllpRelease", kinds=Kind.MLLP, default="1", fatal=True,
        doc="2: answer with the commit blocks of MLLP release 2 before any HL7 acknowledgement.",
    ),
    Option(
        _members(BatchAck), "batchAck", kinds=Kind.MLLP, default="message",
        doc="How a batch (FHS, BHS) is answered: message by message, or by one batch of answers.",
    ),
    # byte streams
    Option(
        Form(one_byte), "startChar", kinds=STREAMS, default="none", fatal=True, raw=True,
        doc="The character that begins a message, like %02; without it a message is all since the last endChar.",
    ),
    Option(
        Form(one_byte), "endChar", kinds=STREAMS, default="required", fatal=True, raw=True,
        doc="The character that ends a message, like %03.",
    ),
    Option(
        Form(responses), "autoRespond", kinds=STREAMS, default="none", fatal=True, raw=True, repeats=True,
        doc="Pairs like %05:%06,%03:%06: whenever the first has come, the second is written back at once.",
    ),
    Option(
        Form(sequences), "stripSequence", kinds=STREAMS, default="none", fatal=True, raw=True, repeats=True,
        doc="Sequences like %05,%0D%0A that are left out of the body for the server.",
    ),
    Option(
        switch(), "stripControlChars", kinds=STREAMS, default="false", fatal=True,
        doc="Leave all characters below 0x20 out of the body for the server, the framing ones too.",
    ),
    Option(
        Form(control_characters), "keepControlChars", kinds=STREAMS, default="none", fatal=True, raw=True, repeats=True,
        doc="Characters like %0D,%0A that stay with stripControlChars=true.",
    ),
    Option(
        Form(body_encoding), "bodyEncoding", kinds=STREAMS, default="hex", fatal=True,
        doc="How the server gets the bytes and answers with bytes: hex, or text in a charset like utf-8.",
    ),
    Option(
        switch(), "ignoreResponse", kinds=STREAMS | ANALYSERS, default="false", fatal=True,
        doc="Do not send the server's answer to the sender.",
    ),
    # analysers
    Option(
        Form(analyser_encoding), "encoding", kinds=ANALYSERS | Kind.ASTM_REMOTE, default="latin-1", fatal=True,
        doc="Character set of the records.",
    ),
    Option(
        whole(16, 63_993), "frameBytes", kinds=ANALYSERS | Kind.ASTM_REMOTE, default="240",
        doc="Longest text of one frame that is sent (E1381 allows 240, CLSI LIS01-A2 63993).",
    ),
    # connections
    Option(
        one_of(_MODES), "mode", kinds=Kind.MLLP, default="server", fatal=True,
        doc="client: the sender is the TCP server; the channel connects to host and port, and receives there.",
    ),
    Option(
        one_of({**_MODES, "astm": False}, f"correct it; {_DIALLED}"), "mode", kinds=Kind.STREAM | Kind.ASTM,
        default="server", fatal=True,
        doc=f"client: the sender is the TCP server; astm: tcp:// carries ASTM, as astm:// does; {_DIALLED}.",
    ),
    Option(
        one_of({"server": False}, "remove it: a DICOM channel calls nobody"), "mode", kinds=Kind.DICOM,
        default="server", fatal=True,
        doc="A DICOM channel is always called, and calls nobody.",
    ),
    Option(
        one_of({"astm": False}, "write mode=astm for an analyser, and none for a byte stream"), "mode", kinds=SERIAL,
        default="none: a byte stream", fatal=True,
        doc="astm: the serial line carries ASTM.",
    ),
    Option(
        Form(text), "tls", kinds=Kind.MLLP | Kind.REMOTE, default="the channel's name, else default",
        doc="Which [tls.NAME] of this host an mllps:// address means.",
    ),
    Option(
        Form(networks), "allow", kinds=SOCKETS, default="everybody", fatal=True, guards=True,
        doc="Who may connect: networks and addresses like 10.1.2.0/24,192.168.7.5,fd00::/8.",
    ),
    Option(
        whole(0, 100_000), "maxConnections", kinds=SOCKETS, default="channels.max_connections of this host: 0",
        doc="Connections at one time; 0: no limit.",
    ),
    Option(
        whole(1_024, 1024**3), "maxMessageBytes", kinds=CHANNELS & ~Kind.DICOM,
        default="channels.max_message_bytes of this host: 16777216",
        doc="Longest message that is taken.",
    ),
    Option(
        whole(0, 1024**4), "maxMessageBytes", kinds=Kind.DICOM, default="0",
        doc="Largest object that is taken; 0: no limit.",
    ),
    Option(
        decimal(0, 86_400), "idleTimeoutSecs", kinds=SOCKETS, default="channels.idle_timeout_s of this host: 0",
        doc="Close a connection that is silent for so long between messages; 0: never.",
    ),
    Option(
        decimal(0, 86_400), "frameTimeoutSecs", kinds=CHANNELS & ~ANALYSERS,
        default="channels.frame_timeout_s of this host: 120",
        doc="How long a message may take from its first byte to its last; 0: for ever. ASTM has time-outs of its own.",
    ),
    Option(
        whole(0, 7_200), "tcpKeepAliveSecs", kinds=SOCKETS, default="channels.keepalive_s of this host: 60",
        doc="Silence before TCP asks whether the sender is still there; 0: never.",
    ),
    # serial lines
    Option(whole(300, 4_000_000), "baudRate", kinds=SERIAL, default="9600", fatal=True, doc="Bits a second."),
    Option(whole(5, 8), "dataBits", kinds=SERIAL, default="8", fatal=True, doc="Data bits of a character."),
    Option(
        _members(Parity), "parity", kinds=SERIAL, default="N", fatal=True,
        doc="The parity bit: none, even, odd, mark or space.",
    ),
    Option(
        one_of({"1": 1.0, "1.5": 1.5, "2": 2.0}), "stopBits", kinds=SERIAL, default="1", fatal=True,
        doc="Stop bits of a character.",
    ),
    Option(
        _members(FlowControl), "flowControl", kinds=SERIAL, default="none", fatal=True,
        doc="How a side that is too fast is held back: by the wires RTS and CTS, or by the characters XON and XOFF.",
    ),
    # DICOM
    Option(
        Form(ae_title), "aeTitle", kinds=Kind.DICOM, default="any", fatal=True,
        doc="The AE title that callers must call; any if it is not given.",
    ),
    Option(
        Form(ae_titles), "callingAeTitles", kinds=Kind.DICOM, default="everybody", fatal=True, guards=True,
        doc="The AE titles that may call, separated by commas.",
    ),
    # on the way to the server, and to remotes
    Option(
        whole(1, 1_000_000), "messagesPerMin", kinds=CHANNELS, default="no limit",
        doc="A minimum gap between two messages to the server, not a burst cap.",
    ),
    Option(
        decimal(0, 86_400), "ackTimeoutSecs", kinds=Kind.MLLP | STREAMS,
        default="channels.ack_timeout_s of this host: 25",
        doc="How long the server's answer may take; then an MLLP sender hears that the message is stored, and a byte "
        "stream nothing; 0: for ever.",
    ),
    Option(
        whole(1, 500), "maxWorkers", "channelMaxWorkers", kinds=CHANNELS, default="as many as there are keys",
        doc="How many keys, or senders, are delivered in parallel.",
    ),
    Option(
        _members(RetryMode), "retryMode", "channelRetryMode", kinds=ALL, default="guaranteed",
        doc="none: one try; normal: a bounded number; guaranteed: until it is done, perhaps twice after a lost link.",
    ),
    Option(
        whole(1, 86_400_000), "autoRetryBaseDelayMs", "channelAutoRetryBaseDelayMs", kinds=ALL, default="1000",
        doc="Delay before the second try, in milliseconds.",
    ),
    Option(
        whole(1, 86_400_000), "autoRetryMaxDelayMs", "channelAutoRetryMaxDelayMs", kinds=ALL, default="60000",
        doc="Longest delay between two tries, in milliseconds.",
    ),
    Option(
        whole(0, 1_000_000), "autoRetryMaxAttempts", "channelAutoRetryMaxAttempts", kinds=ALL,
        default="0; 10 with retryMode=normal",
        doc="How many tries there are; 0: no limit.",
    ),
    Option(
        decimal(1, 100), "autoRetryBackoffMultiplier", "channelAutoRetryBackoffMultiplier", kinds=ALL, default="2",
        doc="How much longer each delay is than the one before.",
    ),
    Option(
        switch(), setting="channelAutoRetry", default="none",
        doc="Older name: true is channelRetryMode normal, false is none; counts only without channelRetryMode.",
    ),
    Option(
        switch(), setting="channelGuaranteedDelivery", default="none",
        doc="Older name: true is channelRetryMode guaranteed, and wins over channelAutoRetry.",
    ),
    # remotes
    Option(
        switch(), "keepAlive", "keepAlive", kinds=REMOTES, default="false",
        doc="Connections to remotes stay; else one that nobody needs is closed after 10 s.",
    ),
    Option(
        whole(1, 1_000), "maxClients", "maxClientsPerRemote", kinds=Kind.REMOTE, default="5; 1 with keepAlive",
        doc="Connections to one remote at one time.",
    ),
    Option(
        whole(1, 1_000), "inFlight", kinds=Kind.REMOTE, default="1",
        doc="Unanswered messages on one connection, for a remote that is known to take more.",
    ),
    Option(
        whole(0, 3_600_000), "ackTimeoutMs", kinds=Kind.REMOTE, default="outbound.ack_timeout_s of this host: 30000",
        doc="How long the remote's answer may take, in milliseconds; 0: for ever.",
    ),
    Option(
        switch(), "serialize", kinds=Kind.REMOTE, default="false", fatal=True,
        doc="One message at a time over all connections, in the order in which they came.",
    ),
    Option(
        _members(ReturnAck), "returnAck", kinds=Kind.REMOTE, default="application", fatal=True,
        doc="Which answer of the remote counts: its first one, or the application's after a commit acknowledgement.",
    ),
    Option(
        _members(ReturnAck), "defaultReturnAck", kinds=Kind.REMOTE, default="application", fatal=True,
        doc="Another name of returnAck.",
    ),
    Option(
        switch(), "durable", "outboundDurable", kinds=REMOTES, default="false", fatal=True,
        doc="Keep a message on disk before it is accepted, and try again until the remote has answered.",
    ),
    # the agent
    Option(
        whole(0, 86_400), setting="logStatsFreqSecs", default="off",
        doc="How often statistics are written to the log, in seconds; 0: never.",
    ),
    Option(
        decimal(0, 36_500), setting="queueRetentionDays", default="7", doc="How long finished messages are kept."
    ),
    Option(
        whole(1, 100_000_000), setting="queueRetentionMaxMb", default="512",
        doc="How much finished messages may take on disk, in MB.",
    ),
    Option(
        decimal(0, 36_500), setting="queueErroredRetentionDays", default="90",
        doc="How long messages that failed are kept.",
    ),
    Option(
        whole(1, 86_400), setting="queueSweepIntervalSecs", default="3600",
        doc="How often what is kept for too long is deleted, in seconds.",
    ),
    Option(
        switch(), setting="strictConfigValidation", default="false",
        doc="Every warning about the configuration is an error.",
    ),
    Option(
        switch(), setting="durableQueue", default="true", doc="Keep every message on disk before it is acknowledged.",
        retired="every message is kept on disk before it is acknowledged, always",
    ),
    Option(
        Form(text), setting="queueDbPath", default="spool.dir of this host", doc="Where the spool lies.",
        retired="where the spool lies is said on the host (spool.dir)",
    ),
)  # fmt: skip
BY_PARAMETER: Final = {kind: {option.parameter: option for option in OPTIONS if kind in option.kinds} for kind in Kind}
BY_SETTING: Final = {option.setting: option for option in OPTIONS if option.setting}
