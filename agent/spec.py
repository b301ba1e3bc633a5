"""What one channel was asked to do, as frozen values.

Secret: none of its own; it is the vocabulary between the plan (which reads the server's resources) and the rooms that
act.
Promise: a spec is complete and valid: every default is filled in, every range was checked, two equal specs behave
alike.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from agent.protocol.hl7 import KeySpec


class AckMode(StrEnum):
    """Who answers the sender (HL7 v2.5.1 §2.9): the server, we at commit and the server later, or we alone."""

    ORIGINAL = "original"
    ENHANCED = "enhanced"  # CA once stored, the application's answer later
    ENHANCED_AA = "enhanced-aa"  # AA once stored, the application's answer never


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


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When to try again. Delays in milliseconds; `max_attempts` 0 = no limit."""

    mode: RetryMode = RetryMode.GUARANTEED
    base_ms: int = 1_000
    max_ms: int = 60_000
    max_attempts: int = 0
    multiplier: float = 2.0


@dataclass(frozen=True, slots=True)
class ChannelSpec:
    """An MLLP channel. `address` is the Endpoint's text; all else was read from it, from Agent.setting, or set."""

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
    max_message_bytes: int = 16 * 1024 * 1024
    endpoint: str = ""  # reference of the Endpoint resource, for people
