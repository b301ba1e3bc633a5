"""When to try again, as far as somebody said.

Secret: what holds where nothing was said, which depends on what was; and the older switches that said less.
Promise: what is said in one place wins over what is said in a weaker one, value by value; the finished policy is
complete and its longest delay is not shorter than its first.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from agent.errors import Finding, Severity
from agent.plan.subject import Subject
from agent.spec import RetryMode, RetryPolicy

NORMAL_ATTEMPTS: Final = 10
# Names on an address; agent-wide they have a prefix.
PARAMETERS: Final = {
    "mode": "retryMode",
    "base_ms": "autoRetryBaseDelayMs",
    "max_ms": "autoRetryMaxDelayMs",
    "max_attempts": "autoRetryMaxAttempts",
    "multiplier": "autoRetryBackoffMultiplier",
}


@dataclass(frozen=True, slots=True)
class RetryWish:
    """As RetryPolicy; None where nothing was said."""

    mode: RetryMode | None = None
    base_ms: int | None = None
    max_ms: int | None = None
    max_attempts: int | None = None
    multiplier: float | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> RetryWish:
        """`values`: by the names on an address."""
        return cls(**{field: values.get(name) for field, name in PARAMETERS.items()})

    def over(self, weaker: RetryWish) -> RetryWish:
        """What is said here, and for the rest what the weaker one says."""
        said = {field: value for field in PARAMETERS if (value := getattr(self, field)) is not None}
        return dataclasses.replace(weaker, **said)

    def policy(self, subject: Subject, problems: list[Finding]) -> RetryPolicy:
        mode = self.mode or RetryMode.GUARANTEED
        attempts = {RetryMode.NONE: 1, RetryMode.NORMAL: NORMAL_ATTEMPTS, RetryMode.GUARANTEED: 0}[mode]
        if mode is not RetryMode.NONE and self.max_attempts is not None:
            attempts = self.max_attempts
        base_ms = 1_000 if self.base_ms is None else self.base_ms
        max_ms = max(60_000, base_ms) if self.max_ms is None else self.max_ms
        if max_ms < base_ms:
            text = f"the longest delay between tries ({max_ms} ms) is shorter than the first one ({base_ms} ms)"
            remedy = f"raise it; {base_ms} ms hold meanwhile"
            problems.append(subject.finding("bad-value", Severity.WARNING, text, remedy, PARAMETERS["max_ms"]))
            max_ms = base_ms
        return RetryPolicy(mode, base_ms, max_ms, attempts, 2.0 if self.multiplier is None else self.multiplier)


def mode_of_older_switches(auto: bool | None, guaranteed: bool | None) -> RetryMode | None:
    """What `channelAutoRetry` and `channelGuaranteedDelivery` mean, None for neither.

    Guaranteed delivery wins over auto retry: where two switches disagree, no message may be given up.
    """
    if guaranteed:
        return RetryMode.GUARANTEED
    if auto is None and guaranteed is None:
        return None
    return RetryMode.NONE if auto is False else RetryMode.NORMAL
