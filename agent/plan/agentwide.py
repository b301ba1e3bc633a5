"""What Agent.setting says for the whole agent.

Secret: under which names, older ones included, it says what an address may say for one channel or one remote.
Promise: every value is in its range or has its default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from agent.plan.retry import RetryWish, mode_of_older_switches

_PREFIX: Final = "channel"


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """What holds for the whole agent. `log_stats_freq_s` None: off. Retention in days, MB (10^6 bytes) and seconds.

    For remotes whose address does not say: `keep_alive`; `max_clients_per_remote` (None: it was not said, so it depends
    on keepAlive); `outbound_durable`; `retry`.
    """

    keep_alive: bool = False
    max_clients_per_remote: int | None = None
    log_stats_freq_s: int | None = None
    queue_retention_days: float = 7.0
    queue_retention_max_mb: int = 512
    queue_errored_retention_days: float = 90.0
    queue_sweep_interval_s: int = 3_600
    strict: bool = False
    outbound_durable: bool = False
    retry: RetryWish = field(default_factory=RetryWish)


def agent_settings(values: Mapping[str, Any]) -> AgentSettings:
    """`values`: by the names of the settings."""
    return AgentSettings(
        keep_alive=values.get("keepAlive", False),
        max_clients_per_remote=values.get("maxClientsPerRemote"),
        log_stats_freq_s=values.get("logStatsFreqSecs") or None,
        queue_retention_days=values.get("queueRetentionDays", 7.0),
        queue_retention_max_mb=values.get("queueRetentionMaxMb", 512),
        queue_errored_retention_days=values.get("queueErroredRetentionDays", 90.0),
        queue_sweep_interval_s=values.get("queueSweepIntervalSecs", 3_600),
        strict=values.get("strictConfigValidation", False),
        outbound_durable=values.get("outboundDurable", False),
        retry=RetryWish.of(as_parameters(values)),
    )


def as_parameters(values: Mapping[str, Any]) -> dict[str, Any]:
    """Agent-wide settings by the names that an address uses. The older names count only without `channelRetryMode`."""
    renamed = {
        name[len(_PREFIX)].lower() + name[len(_PREFIX) + 1 :]: value
        for name, value in values.items()
        if name.startswith(_PREFIX)
    }
    older = mode_of_older_switches(renamed.pop("autoRetry", None), renamed.pop("guaranteedDelivery", None))
    if older is not None:
        renamed.setdefault("retryMode", older)
    return renamed
