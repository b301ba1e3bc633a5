"""Numbers as people read them.

Secret: rounding and units. Promise: few characters, never wrong by more than the last digit shown, ASCII.
"""

from __future__ import annotations

from itertools import pairwise

_AGES = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def count(number: int) -> str:
    """At most four characters up to 999 million: `9999`, `12k`, `1.2M`."""
    for limit, unit, divisor in ((10_000, "", 1), (1_000_000, "k", 1_000), (1_000_000_000, "M", 1_000_000)):
        if number < limit:
            return _scaled(number / divisor, unit) if unit else str(number)
    return _scaled(number / 1_000_000_000, "G")


def milliseconds(duration_ms: float) -> str:
    """`0.8ms`, `12ms`, `1.5s`, `45s`, `12min`; `-` for what was not measured."""
    if duration_ms < 0:
        return "-"
    if duration_ms < 1_000:
        return _scaled(duration_ms, "ms")
    return _scaled(duration_ms / 1_000, "s") if duration_ms < 60_000 else age(duration_ms / 1_000, short=True)


def age(duration_s: float, *, short: bool = False) -> str:
    """`3 d 4 h`, `12 min 5 s`, `7 s`; short: `3d`, `12min`, `7s`. The future is `0 s`."""
    rest = max(0, int(duration_s))
    if short:
        return next((f"{rest // unit_s}{name}" for unit_s, name in _AGES if rest >= unit_s), "0s")
    for (unit_s, name), (part_s, part_name) in pairwise(_AGES):
        if rest >= unit_s:
            return f"{rest // unit_s} {name} {rest % unit_s // part_s} {part_name}"
    return f"{rest} s"


def size(size_bytes: float) -> str:
    """`512 B`, `4.0 KiB`, `931 MiB`."""
    amount = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1_000:
            return f"{amount:.0f} B" if unit == "B" else f"{_scaled(amount, '')} {unit}"
        amount /= 1_024
    return f"{_scaled(amount, '')} TiB"


def _scaled(amount: float, unit: str) -> str:
    return f"{amount:.1f}{unit}" if amount < 9.95 else f"{amount:.0f}{unit}"
