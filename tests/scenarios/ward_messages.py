"""The messages of the scenarios, and how their answers are read.

Secret: HL7 as a stranger writes and reads it; nothing of the agent's own code is used to judge the agent.
Promise: every message carries a patient who can be looked for in places where no patient belongs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

FAMILY, GIVEN, PATIENT_NUMBER, STREET = "TESTFAMILY", "QUIRINA", "PAT-7730451", "EXAMPLEGASSE"
PATIENT_WORDS = (FAMILY, GIVEN, PATIENT_NUMBER, STREET)
REFERENCE = re.compile(r"\(ref [a-z]?\d+\)")


def adt(control_id: str, *, key: str = PATIENT_NUMBER, trigger: str = "A01", size_bytes: int = 0) -> bytes:
    """An ADT message; `key` stands in PID-3.1, `size_bytes` is filled up with a NTE segment."""
    message = (
        f"MSH|^~\\&|ADT|WARD 7|SERVER|HOSPITAL|20260131030000||ADT^{trigger}^ADT_A01|{control_id}|P|2.5.1\r"
        f"EVN|{trigger}|20260131030000\r"
        f"PID|1||{key}^^^EXAMPLE HOSPITAL||{FAMILY}^{GIVEN}||19500101|F|||{STREET} 7^^GRAZ\r"
        "PV1|1|I|W7^12^A\r"
    ).encode()
    missing = size_bytes - len(message)
    return message + b"NTE|1||%b\r" % (b"x" * (missing - 8)) if missing > 8 else message


def ack_text(control_id: str, code: str = "AA", text: str = "OK") -> str:
    """The acknowledgement of an application behind the server."""
    header = f"MSH|^~\\&|SERVER|HOSPITAL|ADT|WARD 7|20260131030001||ACK^A01^ACK|S{control_id}|P|2.5.1"
    return f"{header}\rMSA|{code}|{control_id}|{text}"


@dataclass(frozen=True, slots=True)
class Heard:
    """An acknowledgement as a device reads it: MSA-1, MSA-2, MSA-3."""

    code: str
    control_id: str
    text: str
    raw: bytes

    @classmethod
    def read(cls, raw: bytes) -> Heard:
        segments = raw.decode("utf-8").split("\r")
        assert segments[0].startswith("MSH|"), f"an answer that does not begin with MSH: {segments[0][:20]!r}"
        (msa,) = [segment.split("|") for segment in segments if segment.startswith("MSA")]
        return cls(msa[1], msa[2], msa[3] if len(msa) > 3 else "", raw)

    def __str__(self) -> str:
        return f"{self.code} {self.control_id}"


def control_id_of(body: str) -> str:
    """MSH-10 of a message as the server got it."""
    return body.split("\r", 1)[0].split("|")[9]
