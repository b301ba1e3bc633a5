"""Write instants as the recorded server does.

Secret: the three spellings of now: FHIR instant, HTTP date, HL7 time stamp.
Promise: UTC, milliseconds where the format has them.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from email.utils import format_datetime


def instant() -> str:
    """Now as a FHIR instant: `2026-11-22T07:43:39.028Z`."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def http_date(text: str) -> str:
    """A FHIR instant as an HTTP date (RFC 9110 §5.6.7)."""
    return format_datetime(datetime.fromisoformat(text), usegmt=True)


class Stamps:
    """HL7 time stamps (`20261122075113.277`) for acknowledgements; the date part is made once a second."""

    def __init__(self) -> None:
        self._second = -1
        self._prefix = ""

    def now(self) -> tuple[str, int]:
        """The time stamp, and the same instant in milliseconds since 1970."""
        now_ms = time.time_ns() // 1_000_000
        second, rest = divmod(now_ms, 1000)
        if second != self._second:
            self._second = second
            self._prefix = time.strftime("%Y%m%d%H%M%S", time.gmtime(second))
        return f"{self._prefix}.{rest:03d}", now_ms
