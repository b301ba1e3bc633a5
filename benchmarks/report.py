"""Make one table, the ratios and a verdict on each aim out of many readings.

Secret: how readings of interleaved rounds become one number: medians, and for a ratio the median of the ratios within
each round, so that what the machine did to one round it did to both sides.
Promise: nothing absolute is judged but what an aim names; an aim without its readings is called not measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from gauges import Load, Reading

MB_PER_1000_IDLE = 15.0
IDLE_RSS_MB = 60.0
IDLE_CPU_PERCENT = 1.0
STARTUP_S = 1.0
SHARE_OF_BARE = 0.60
FSYNCS_ON_TOP = 1.5


@dataclass(slots=True)
class Idle:
    """`rss_mb` and `cpu_percent` (of one core, over `watched_s`) with no connection, `grown_mb` with `connections`."""

    rss_mb: float
    cpu_percent: float
    watched_s: float
    connections: int
    grown_mb: float
    startup_s: list[float] = field(default_factory=list)


@dataclass(slots=True)
class Results:
    """`readings`: by load and subject, one for each round, in order. `skipped`: subject → why."""

    daemon: str
    bare: str
    facts: dict[str, str]
    readings: dict[Load, dict[str, list[Reading]]] = field(default_factory=dict)
    idle: Idle | None = None
    skipped: dict[str, str] = field(default_factory=dict)

    def add(self, load: Load, subject: str, reading: Reading) -> None:
        self.readings.setdefault(load, {}).setdefault(subject, []).append(reading)

    def ratio(self, load: Load, over: str, of: str) -> float | None:
        """How many times the rate of `of` is that of `over`."""
        mine, theirs = (self.readings.get(load, {}).get(name, []) for name in (of, over))
        pairs = [a.rate / b.rate for a, b in zip(mine, theirs, strict=False) if b.rate]
        return median(pairs) if pairs else None


@dataclass(frozen=True, slots=True)
class Aim:
    """`met` None: not measured."""

    text: str
    measured: str
    met: bool | None


def middle(readings: Iterable[Reading], pick: Callable[[Reading], float | None]) -> float | None:
    found = [value for reading in readings if (value := pick(reading)) is not None]
    return median(found) if found else None


def aims(results: Results) -> list[Aim]:
    """The aims of the benchmark, judged."""
    share = results.ratio(Load(100), over=results.bare, of=results.daemon)
    return [
        Aim(
            f"at least {SHARE_OF_BARE:.0%} of the bare limit at 100 connections",
            "" if share is None else f"{share:.0%}",
            None if share is None else share >= SHARE_OF_BARE,
        ),
        _round_trip(results),
        *_idle_aims(results.idle),
    ]


def _round_trip(results: Results) -> Aim:
    text = f"at 1 connection less than {FSYNCS_ON_TOP} fsyncs on top of the bare round trip"
    by_subject = results.readings.get(Load(1), {})
    differences = [
        (mine.p50_ms - bare.p50_ms) / fsync_ms
        for mine, bare in zip(by_subject.get(results.daemon, []), by_subject.get(results.bare, []), strict=False)
        if (fsync_ms := bare.fsync_ms or mine.fsync_ms)
    ]
    if not differences:
        return Aim(text, "", None)
    on_top = median(differences)
    return Aim(text, f"{on_top:.2f}", on_top < FSYNCS_ON_TOP)


def _idle_aims(idle: Idle | None) -> list[Aim]:
    grown_mb = idle.grown_mb * 1000 / idle.connections if idle else None
    startup_s = median(idle.startup_s) if idle and idle.startup_s else None
    return [
        _below(f"1,000 idle connections under {MB_PER_1000_IDLE:g} MB", grown_mb, MB_PER_1000_IDLE, "MB"),
        _below(f"idle under {IDLE_RSS_MB:g} MB RSS", idle.rss_mb if idle else None, IDLE_RSS_MB, "MB"),
        _below(
            f"idle under {IDLE_CPU_PERCENT:g} % of a core", idle.cpu_percent if idle else None, IDLE_CPU_PERCENT, "%"
        ),
        _below(f"listening within {STARTUP_S:g} s of start", startup_s, STARTUP_S, "s"),
    ]


def _below(text: str, value: float | None, limit: float, unit: str) -> Aim:
    if value is None:
        return Aim(text, "", None)
    return Aim(text, f"{value:.2f} {unit}", value < limit)


# ---- for a person

_COLUMNS = ("senders", "subject", "msg/s", "of bare", "daemon ×", "p50 ms", "p99 ms", "CPU µs", "fsyncs", "RSS MB", "")
_TO_THE_LEFT = (0, 1, 10)


def _cells(results: Results, load: Load, subject: str, readings: list[Reading]) -> tuple[str, ...]:
    of_bare = results.ratio(load, over=results.bare, of=subject) if subject != results.bare else None
    times = results.ratio(load, over=subject, of=results.daemon) if subject != results.daemon else None
    cpu_us, fsyncs = middle(readings, lambda r: r.cpu_us), middle(readings, lambda r: r.fsyncs)
    return (
        str(load),
        subject,
        f"{middle(readings, lambda r: r.rate):,.0f}",
        "" if of_bare is None else f"{of_bare:.0%}",
        "" if times is None else f"{times:,.2f}" if times < 10 else f"{times:,.0f}",
        f"{middle(readings, lambda r: r.p50_ms):,.2f}",
        f"{middle(readings, lambda r: r.p99_ms):,.2f}",
        "" if cpu_us is None else f"{cpu_us:,.0f}",
        "" if fsyncs is None else f"{fsyncs:.3f}",
        f"{middle(readings, lambda r: r.rss_mb):.0f}",
        _remarks(readings),
    )


def _remarks(readings: list[Reading]) -> str:
    errors, refused = sum(r.errors for r in readings), sum(r.refused for r in readings)
    reconnects = sum(r.reconnects for r in readings)
    commit_ms = middle(readings, lambda r: r.commit_p50_ms) or 0.0
    found = (
        (errors, f"{errors} errors"),
        (refused, f"{refused} refused"),
        (reconnects, f"{reconnects} connections lost"),
        (commit_ms, f"commit ACK p50 {commit_ms:.2f} ms"),
    )
    return ", ".join(text for amount, text in found if amount)


def for_people(results: Results) -> str:
    """The table, the idle figures and the aims, as text."""
    lines = [f"{name}: {value}" for name, value in results.facts.items()]
    rows: list[tuple[str, ...]] = [_COLUMNS]
    for load, by_subject in results.readings.items():
        rows += [_cells(results, load, subject, readings) for subject, readings in by_subject.items()]
    lines += ["", *table(rows, _TO_THE_LEFT)]
    lines += ["", "CPU and fsyncs are per message; 'daemon ×' is how many times its rate the daemon's is."]
    for name, reason in results.skipped.items():
        lines.append(f"left out: {name} ({reason})")
    if results.idle is not None:
        lines += ["", f"start to first connection: {', '.join(f'{s:.2f}' for s in results.idle.startup_s)} s"]
    return "\n".join([*lines, "", *verdicts(aims(results))])


def table(rows: Sequence[Sequence[str]], to_the_left: Sequence[int]) -> list[str]:
    """Lines; the first row is the head, and rows that begin alike stand apart from the others. `to_the_left`: columns
    of text."""
    grouped = len({row[0] for row in rows}) < len(rows)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines: list[str] = []
    previous = rows[0][0]
    for row in rows:
        if grouped and row[0] != previous:
            lines.append("")
        previous = row[0]
        cells = [
            cell.ljust(width) if column in to_the_left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def verdicts(aims: Iterable[Aim]) -> list[str]:
    """One line for each aim."""
    words = {True: "met", False: "NOT MET", None: "not measured"}
    return [f"{words[aim.met]:<13} {aim.text}" + (f": {aim.measured}" if aim.measured else "") for aim in aims]


# ---- for a program


def for_programs(results: Results) -> dict[str, Any]:
    """The same as plain values, every reading included."""
    return {
        "facts": results.facts,
        "loads": [
            {
                "load": str(load),
                **asdict(load),
                "subjects": [
                    {
                        "subject": subject,
                        "shareOfBare": results.ratio(load, over=results.bare, of=subject),
                        "daemonTimes": results.ratio(load, over=subject, of=results.daemon),
                        "readings": [asdict(reading) for reading in readings],
                    }
                    for subject, readings in by_subject.items()
                ],
            }
            for load, by_subject in results.readings.items()
        ],
        "idle": None if results.idle is None else asdict(results.idle),
        "skipped": results.skipped,
        "aims": [asdict(aim) for aim in aims(results)],
    }
