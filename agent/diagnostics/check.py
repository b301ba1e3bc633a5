"""One small check, what it looks at, and what it found.

Secret: which check can only be made after which, how long each may take, and what becomes of one that cannot be made.
Promise: every check of a table has one result, in time, whatever hangs; one failure is told once, not again by every
check that depends on it.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, assert_never

from agent.diagnostics.host import Host
from agent.errors import Finding, Severity

ALL_WITHIN_S: Final = 12.0
LEAST_S: Final = 0.02  # a check that gets less could not even begin
INCOMPLETE: Final = "the configuration is incomplete"


@dataclass(frozen=True, slots=True)
class Looked:
    """`text`: how it is, in a few words; empty where the findings say it."""

    text: str
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class NotLooked:
    """It could not be looked at, and that is not a problem of its own."""

    why: str


Outcome = Looked | NotLooked


@dataclass(frozen=True, slots=True)
class Check:
    """`code` begins the codes of its findings. `after`: the checks without whose success it makes no sense. `late`: the
    remedy when it takes too long. `unattended`: the running daemon makes it too, from time to time."""

    code: str
    title: str
    run: Callable[[Host], Awaitable[Outcome]]
    after: tuple[str, ...] = ()
    within_s: float = 5.0
    late: str = ""
    unattended: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """What one check found. `looked` False: it was not made, `text` says why."""

    code: str
    title: str
    text: str
    findings: tuple[Finding, ...] = ()
    looked: bool = True

    @property
    def ok(self) -> bool:
        """No warning and no error."""
        return all(finding.severity is Severity.INFO for finding in self.findings)

    @property
    def failed(self) -> bool:
        return any(finding.severity is Severity.ERROR for finding in self.findings)

    def without(self, told: Iterable[Finding]) -> Result:
        """The same without what was told already, by code and place."""
        known = {(finding.code, finding.where) for finding in told}
        rest = tuple(finding for finding in self.findings if (finding.code, finding.where) not in known)
        return dataclasses.replace(self, findings=rest)


async def examine(
    host: Host,
    checks: Iterable[Check],
    *,
    told: Callable[[Result], None] = lambda _: None,
    within_s: float = ALL_WITHIN_S,
) -> list[Result]:
    """Make all checks at once, each after those it needs, and give their results in the order of the table.

    `told` hears of each result when it is there. What a check needs and is not in the table is not waited for.
    """
    ends_at = asyncio.get_running_loop().time() + within_s
    made: dict[str, asyncio.Task[Result]] = {}

    async def make(check: Check) -> Result:
        result = await _result(check, host, made, ends_at)
        told(result)
        return result

    async with asyncio.TaskGroup() as looks:
        for check in checks:
            made[check.code] = looks.create_task(make(check), name=f"check:{check.code}")
    return [task.result() for task in made.values()]


async def _result(check: Check, host: Host, made: Mapping[str, asyncio.Task[Result]], ends_at: float) -> Result:
    for needed in check.after:
        if needed not in made:
            continue
        before = await made[needed]
        if not before.looked:
            return dataclasses.replace(before, code=check.code, title=check.title)
        if before.failed:
            return _not_looked(check, f"{before.title} failed")
    within_s = min(check.within_s, ends_at - asyncio.get_running_loop().time())
    if within_s < LEAST_S:
        return _not_looked(check, "the checks before it took all the time")
    try:
        async with asyncio.timeout(within_s) as deadline:
            outcome = await check.run(host)
    except TimeoutError:
        if not deadline.expired():
            raise  # the check's own, and not foreseen by it
        text = f"{check.title}: no result within {within_s:.2g} s"
        late = Finding(f"{check.code}.late", Severity.ERROR, text, check.late)
        return Result(check.code, check.title, text, (late,))
    match outcome:
        case Looked(text, findings):
            return Result(check.code, check.title, text or (findings[0].text if findings else ""), findings)
        case NotLooked(why):
            return _not_looked(check, why)
        case _ as never:
            assert_never(never)


def _not_looked(check: Check, why: str) -> Result:
    return Result(check.code, check.title, f"not looked at: {why}", looked=False)
