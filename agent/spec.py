"""What one channel, or one remote, was asked to do, as frozen values.

Secret: none of its own; it is the vocabulary between the plan (which reads the server's resources) and the rooms that
act.
Promise: a spec is complete and valid: every default is filled in, every range was checked, two equal specs behave
alike.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import assert_never

from agent.protocol.hl7 import KeySpec


class AckMode(StrEnum):
    """Who answers the sender (HL7 v2.5.1 §2.9): the server, we at commit and the server later, or we alone."""

    ORIGINAL = "original"
    ENHANCED = "enhanced"  # CA once stored, the application's answer later
    ENHANCED_AA = "enhanced-aa"  # AA once stored, the application's answer never
    AUTO = "auto"  # as MSH-15 and MSH-16 of each message ask; original where it has neither


class AppAck(StrEnum):
    """Which of the server's answers an enhanced channel forwards (HL7 table 0155)."""

    ALWAYS = "AL"
    NEVER = "NE"
    ERROR = "ER"
    SUCCESS = "SU"


class RetryMode(StrEnum):
    """`none`: one try. `normal`: a bounded number of tries. `guaranteed`: until it is done, or as often as the
    channel allows; alone in being sent again when the link was lost before its answer, so perhaps for a second time."""

    NONE = "none"
    NORMAL = "normal"
    GUARANTEED = "guaranteed"


class DuplicateBehavior(StrEnum):
    """What a repeated MSH-10 gets: the first one's answer, or a refusal."""

    IDEMPOTENT = "idempotent"
    REJECT = "reject"


class BatchAck(StrEnum):
    """How a batch (HL7 v2.5.1 §2.10.3) is answered: each message for itself, or all in one batch of answers."""

    MESSAGE = "message"
    BATCH = "batch"


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When to try again. Delays in milliseconds; `max_attempts` 0 = no limit."""

    mode: RetryMode = RetryMode.GUARANTEED
    base_ms: int = 1_000
    max_ms: int = 60_000
    max_attempts: int = 0
    multiplier: float = 2.0


@dataclass(frozen=True, slots=True)
class TlsSpec:
    """Whose certificate a channel shows, and whose it asks for: one `[tls.NAME]` of this host. All files are PEM.

    `certificate` may hold the chain behind it; `key` None: the key stands in the same file. With `client_ca` a sender
    must show a certificate of one of these authorities; a channel that dials believes them beside the host's own.
    """

    name: str
    certificate: Path | None = None
    key: Path | None = None
    key_password_file: Path | None = None
    client_ca: Path | None = None


@dataclass(frozen=True, slots=True)
class LineSpec:
    """What the connections of a channel may do. Times in seconds; 0 is "without limit" everywhere."""

    tls: TlsSpec | None = None
    allow: tuple[IPv4Network | IPv6Network, ...] = ()  # who may connect; empty: everybody
    max_connections: int = 0
    max_message_bytes: int = 16 * 1024 * 1024
    idle_timeout_s: float = 0.0  # between messages
    frame_timeout_s: float = 120.0  # from the first byte of a message to its last
    keepalive_s: int = 60  # silence before TCP asks whether the sender is still there; 0: never


class Parity(StrEnum):
    """The parity bit of a serial line."""

    NONE = "N"
    EVEN = "E"
    ODD = "O"
    MARK = "M"
    SPACE = "S"


class FlowControl(StrEnum):
    """Who holds back a sender on a serial line that is too fast."""

    NONE = "none"
    RTS_CTS = "rtscts"
    XON_XOFF = "xonxoff"


@dataclass(frozen=True, slots=True)
class SerialSpec:
    """A serial port of this host: `/dev/ttyUSB0`, `COM3`. `data_bits` 5 to 8; `stop_bits` 1, 1.5 or 2."""

    device: str
    baud_rate: int = 9_600
    data_bits: int = 8
    parity: Parity = Parity.NONE
    stop_bits: float = 1.0
    flow: FlowControl = FlowControl.NONE


@dataclass(frozen=True, slots=True)
class Mllp:
    """HL7 v2 in MLLP blocks. What else it takes stands in the ChannelSpec: most channels are of this kind."""


@dataclass(frozen=True, slots=True)
class ByteStream:
    """Any bytes between two characters. A message is all from `start` to `end`, both included; `start` None: all since
    the last `end`.

    `responses`: whenever the first byte sequence of a pair has come, the second is written back at once, promising
    nothing. Of the body for the server `strip` sequences are left out, and with `strip_controls` all bytes below 0x20
    but `keep_controls`. `body_codec`: a Python codec; None: the body is hexadecimal. `ignore_response`: what the server
    answers is not written back.
    """

    end: int
    start: int | None = None
    responses: tuple[tuple[bytes, bytes], ...] = ()
    strip: tuple[bytes, ...] = ()
    strip_controls: bool = False
    keep_controls: frozenset[int] = frozenset()
    body_codec: str | None = None
    ignore_response: bool = False


@dataclass(frozen=True, slots=True)
class Astm:
    """An analyser that speaks ASTM E1381 (CLSI LIS1-A) below and E1394 (LIS2-A2) above: one session is one message.

    `codec`: the Python codec of the records. `frame_bytes`: text of one frame that we send (E1381 allows 240).
    `ignore_response`: what the server answers is not sent to the analyser.
    """

    codec: str = "latin-1"
    frame_bytes: int = 240
    ignore_response: bool = False


@dataclass(frozen=True, slots=True)
class Dicom:
    """A DICOM storage provider (PS3.4 annex B) that also answers C-ECHO.

    `ae_title`: ours; None: whatever it is called is fine. `calling`: the AE titles that may call; empty: all.
    """

    ae_title: str | None = None
    calling: tuple[str, ...] = ()


Wire = Mllp | ByteStream | Astm | Dicom


class ReturnAck(StrEnum):
    """Which acknowledgement of a remote answers a $push, where it sends a commit acknowledgement before the
    application's (HL7 v2.5.1 §2.9.3): its first one, or the application's. A refusal is the last one either way."""

    FIRST = "first"
    APPLICATION = "application"


@dataclass(frozen=True, slots=True)
class RemoteSpec:
    """A system that messages are pushed to. `url` names it: what the server wrote, in one spelling.

    `wire`: Mllp, or Astm for an analyser. `line`: the name of the channel whose connection is used, where it has one of
    its own to the analyser; then there is no `host`, and `port` is 0.

    `max_clients` connections at most, each with at most `in_flight` messages that are not answered yet; `serialize`:
    one at a time over all. `secure`: TLS, as mllps:// says; `tls` None: no certificate of ours, and the host's own
    authorities. `durable`: kept on disk until the remote has answered, and tried again by `retry`.
    """

    url: str
    host: str
    port: int
    encoding: str | None = None  # None: MSH-18 decides, else UTF-8
    keep_alive: bool = False
    max_clients: int = 5
    in_flight: int = 1
    serialize: bool = False
    ack_timeout_s: float = 30.0
    return_ack: ReturnAck = ReturnAck.APPLICATION
    secure: bool = False
    tls: TlsSpec | None = None
    durable: bool = False
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    wire: Mllp | Astm = Mllp()
    line: str = ""

    @property
    def where(self) -> str:
        """Host and port, or the channel, for people."""
        if self.line:
            return f"channel {self.line}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class ChannelSpec:
    """A channel. `address` is the Endpoint's text; all else was read from it, from Agent.setting, or set.

    `dials`: the sender is the TCP server; the channel connects to host and port, and receives there. `serial`: the
    channel is a serial port, `host` is its device and `port` 0. What is about HL7 has its default on other wires.
    """

    name: str
    address: str
    host: str
    port: int
    encoding: str | None = None  # None: MSH-18 decides, else UTF-8
    ack_mode: AckMode = AckMode.ORIGINAL
    app_ack: AppAck = AppAck.ALWAYS
    assign_seq_no: bool = False
    messages_per_min: float | None = None  # a minimum gap between two deliveries, not a burst cap
    ack_timeout_s: float = 25.0  # 0: wait for ever
    order_key: KeySpec | None = None  # None: the sender's connection (original) or address (enhanced)
    max_workers: int | None = None  # None: as many keys in parallel as there are
    duplicates: DuplicateBehavior = DuplicateBehavior.IDEMPOTENT
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    line: LineSpec = field(default_factory=LineSpec)
    dials: bool = False
    fallback_charset: str | None = None  # Python codec for bytes that the declared one cannot read; None: refuse them
    mllp_release: int = 1  # 2: commit blocks 0x06 and 0x15 (MLLP release 2)
    batch_ack: BatchAck = BatchAck.MESSAGE
    endpoint: str = ""  # reference of the Endpoint resource, for people
    wire: Wire = Mllp()
    serial: SerialSpec | None = None

    @property
    def listens(self) -> bool:
        """Whether senders connect to it; else it opens its connection, or its serial port, by itself."""
        return not self.dials and self.serial is None

    @property
    def kind(self) -> str:
        """What it speaks, and over what if that is no plain TCP; for people."""
        if self.serial is not None:
            return f"{self.family} serial"
        return f"{self.family}s" if self.line.tls is not None else self.family

    @property
    def family(self) -> str:
        """What it speaks, in the word of its scheme: mllp, tcp, astm, dicom; serial lines carry one of them."""
        match self.wire:
            case Mllp():
                return "mllp"
            case ByteStream():
                return "tcp"
            case Astm():
                return "astm"
            case Dicom():
                return "dicom"
            case _ as never:
                assert_never(never)
