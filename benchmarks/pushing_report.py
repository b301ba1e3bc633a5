"""Make the tables, the ratios and a verdict on each aim out of many readings of pushes.

Secret: how readings of interleaved rounds become one number, as in report.py, and what stands in which table.
Promise: nothing absolute is judged; an aim without its readings is called not measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from pushing import AGENT, BARE, NPM, POOL, Pushed
from report import Aim, table, verdicts

RATE, LATENCY, SILENCE, DURABLE = "rate", "latency", "silent", "durable"
AT_ONCE = "all at once"
ANSWERING, SILENT = "45 that answer", "50, of which 5 silent"
SLOWED = 1.25  # of what 10 % are for the pushes that get no answer: the server sends them too

_HEADS = {
    RATE: ("one remote", "subject", "push/s", "agent ×", "pool ×", "CPU µs", ""),
    LATENCY: ("one push at a time", "p50 ms", "p95 ms", "p99 ms"),
    SILENCE: ("10,000 pushes", "to remotes", "until answered s", "p50 ms", "p99 ms", ""),
    DURABLE: ("durable", "push/s", "p50 ms", "fsyncs", "fsync ms", "CPU µs", ""),
}
_TO_THE_LEFT = {RATE: (0, 1, 6), LATENCY: (0,), SILENCE: (0, 1, 5), DURABLE: (0, 6)}
_LEGEND = (
    "CPU and fsyncs are per push. 'agent ×' and 'pool ×' are how many times a subject's rate those of the agent and of",
    "its pool are. The agent's includes the server's WebSocket, both ways; the other subjects are clients and nothing",
    "else, and python-hl7's blocking one takes whatever it reads for the answer.",
)


@dataclass(slots=True)
class Results:
    """`readings`: by part, load and subject, one for each round, in order. `skipped`: subject → why."""

    facts: dict[str, str]
    skipped: dict[str, str] = field(default_factory=dict)
    readings: dict[str, dict[str, dict[str, list[Pushed]]]] = field(default_factory=dict)

    def add(self, part: str, load: str, subject: str, reading: Pushed) -> None:
        self.readings.setdefault(part, {}).setdefault(load, {}).setdefault(subject, []).append(reading)

    def __iter__(self) -> Iterator[tuple[str, str, str, list[Pushed]]]:
        """(part, load, subject, readings)."""
        for part, by_load in self.readings.items():
            for load, by_subject in by_load.items():
                for subject, readings in by_subject.items():
                    yield part, load, subject, readings

    def of(self, part: str, load: str, subject: str) -> list[Pushed]:
        return self.readings.get(part, {}).get(load, {}).get(subject, [])

    def ratio(
        self, part: str, load: str, of: str, over: str, pick: Callable[[Pushed], float] = lambda r: r.rate
    ) -> float | None:
        """How many times what `pick` finds in `over` it finds in `of`: the median of the rounds."""
        pairs = zip(self.of(part, load, of), self.of(part, load, over), strict=False)
        found = [pick(mine) / pick(theirs) for mine, theirs in pairs if pick(theirs)]
        return median(found) if found else None


def aims(results: Results) -> list[Aim]:
    """The aims of the benchmark, judged."""
    found = []
    for load, by_subject in results.readings.get(RATE, {}).items():
        if NPM.name in by_subject:
            found += [_at_least_npm(results, load, subject) for subject in (AGENT.name, POOL.name)]
    slowed = results.ratio(SILENCE, AT_ONCE, SILENT, ANSWERING, lambda r: r.elapsed_s)
    text = f"five silent remotes of fifty slow the others by less than {SLOWED - 1:.0%}"
    found.append(Aim(text, _times(slowed), None if slowed is None else slowed < SLOWED))
    lost = sum(reading.errors for *_, readings in results for reading in readings)
    found.append(Aim("every push is answered with its own acknowledgement", f"{lost:,} were not", not lost))
    return found


def _at_least_npm(results: Results, load: str, subject: str) -> Aim:
    times = results.ratio(RATE, load, subject, NPM.name)
    text = f"{subject} at least as fast as the client of {NPM.name} by itself, {load}"
    return Aim(text, _times(times), None if times is None else times >= 1)


def _middle(readings: list[Pushed], pick: Callable[[Pushed], float | None]) -> float | None:
    found = [value for reading in readings if (value := pick(reading)) is not None]
    return median(found) if found else None


def _number(value: float | None, digits: int = 0) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def _times(value: float | None) -> str:
    return "" if value is None else f"× {value:,.2f}"


def _errors(readings: list[Pushed]) -> str:
    errors = sum(reading.errors for reading in readings)
    return f"{errors:,} errors" if errors else ""


# ---- for a person


def for_people(results: Results) -> str:
    """The tables and the aims, as text."""
    rows = {RATE: _rate_rows, LATENCY: _latency_rows, SILENCE: _silence_rows, DURABLE: _durable_rows}
    lines = [f"{name}: {value}" for name, value in results.facts.items()]
    for part in results.readings:
        lines += ["", *table([_HEADS[part], *rows[part](results)], _TO_THE_LEFT[part])]
    lines += ["", *_LEGEND]
    lines += [f"left out: {name} ({reason})" for name, reason in results.skipped.items()]
    return "\n".join([*lines, "", *verdicts(aims(results))])


def _rate_rows(results: Results) -> list[tuple[str, ...]]:
    rows = []
    for load, by_subject in results.readings[RATE].items():
        for subject, readings in by_subject.items():
            times = [
                "" if subject == mine else _number(results.ratio(RATE, load, mine, subject), 2)
                for mine in (AGENT.name, POOL.name)
            ]
            rate, cpu_us = _middle(readings, lambda r: r.rate), _middle(readings, lambda r: r.cpu_us)
            rows.append((load, subject, _number(rate), *times, _number(cpu_us), _errors(readings)))
    return rows


def _latency_rows(results: Results) -> list[tuple[str, ...]]:
    (by_subject,) = results.readings[LATENCY].values()
    rounds = list(zip(by_subject[BARE.name], by_subject[AGENT.name], strict=True))
    shares: tuple[Callable[[Pushed], float], ...] = (lambda r: r.p50_ms, lambda r: r.p95_ms, lambda r: r.p99_ms)
    times_ms = {
        "client in C → remote": [[share(bare) for bare, _ in rounds] for share in shares],
        "server → agent → remote": [[share(agent) for _, agent in rounds] for share in shares],
        "added": [[share(agent) - share(bare) for bare, agent in rounds] for share in shares],
    }
    return [(name, *(_number(median(times), 3) for times in columns)) for name, columns in times_ms.items()]


def _silence_rows(results: Results) -> list[tuple[str, ...]]:
    picks: tuple[Callable[[Pushed], float], ...] = (lambda r: r.elapsed_s, lambda r: r.p50_ms, lambda r: r.p99_ms)
    rows = []
    for load, by_subject in results.readings[SILENCE].items():
        for subject, readings in by_subject.items():
            cells = [_number(_middle(readings, pick), 2) for pick in picks]
            rows.append((load, subject, *cells, _errors(readings)))
        times = [_number(results.ratio(SILENCE, load, SILENT, ANSWERING, pick), 2) for pick in picks]
        rows.append((load, "ratio", *times, ""))
    return rows


def _durable_rows(results: Results) -> list[tuple[str, ...]]:
    picks: tuple[tuple[Callable[[Pushed], float | None], int], ...] = (
        (lambda r: r.rate, 0), (lambda r: r.p50_ms, 1), (lambda r: r.fsyncs, 3), (lambda r: r.fsync_ms, 2),
        (lambda r: r.cpu_us, 0),
    )  # fmt: skip
    (by_subject,) = results.readings[DURABLE].values()
    return [
        (subject, *(_number(_middle(readings, pick), digits) for pick, digits in picks), _errors(readings))
        for subject, readings in by_subject.items()
    ]


# ---- for a program


def for_programs(results: Results) -> dict[str, Any]:
    """The same as plain values, every reading included."""
    return {
        "facts": results.facts,
        "readings": [
            {"part": part, "load": load, "subject": subject, "readings": [asdict(reading) for reading in readings]}
            for part, load, subject, readings in results
        ],
        "skipped": results.skipped,
        "aims": [asdict(aim) for aim in aims(results)],
    }
