"""How checks are made: each once, in time, after those it needs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from diagnostics_far_ends import a_host

from agent.diagnostics import table
from agent.diagnostics.check import Check, Looked, NotLooked, Outcome, Result, examine
from agent.diagnostics.host import Host
from agent.errors import Finding, Severity

BROKEN = Finding("a.broken", Severity.ERROR, "it is broken", "mend it")
WORN = Finding("a.worn", Severity.WARNING, "it is worn", "watch it")
NOTE = Finding("a.note", Severity.INFO, "it is blue")


def says(outcome: Outcome) -> Callable[[Host], Awaitable[Outcome]]:
    async def run(_: Host) -> Outcome:
        return outcome

    return run


async def hangs(_: Host) -> Outcome:
    await asyncio.Event().wait()
    return Looked("never")


async def test_the_results_stand_in_the_order_of_the_table_whichever_is_done_first(tmp_path: Path) -> None:
    second_is_done = asyncio.Event()
    heard: list[str] = []

    async def waits(_: Host) -> Outcome:
        await second_is_done.wait()
        return Looked("late")

    async def frees(_: Host) -> Outcome:
        second_is_done.set()
        return Looked("early")

    checks = [Check("a", "the first", waits), Check("b", "the second", frees)]
    results = await examine(a_host(tmp_path), checks, told=lambda result: heard.append(result.code))

    assert [(result.code, result.text) for result in results] == [("a", "late"), ("b", "early")]
    assert heard == ["b", "a"]


async def test_one_failure_is_told_once_and_not_by_all_that_depend_on_it(tmp_path: Path) -> None:
    checks = [
        Check("a", "the first", says(Looked("", (BROKEN,)))),
        Check("b", "the second", says(Looked("never asked")), after=("a",)),
        Check("c", "the third", says(Looked("never asked")), after=("b",)),
    ]

    first, second, third = await examine(a_host(tmp_path), checks)

    assert (first.ok, first.failed, first.text) == (False, True, "it is broken")
    assert second == Result("b", "the second", "not looked at: the first failed", looked=False)
    assert third == Result("c", "the third", "not looked at: the first failed", looked=False)


@pytest.mark.parametrize("finding", [WORN, NOTE])
async def test_what_is_only_worn_keeps_nobody_from_looking_further(tmp_path: Path, finding: Finding) -> None:
    checks = [
        Check("a", "the first", says(Looked("so so", (finding,)))),
        Check("b", "the second", says(Looked("fine")), after=("a",)),
    ]

    first, second = await examine(a_host(tmp_path), checks)

    assert first.ok is (finding is NOTE)
    assert second.text == "fine"


async def test_a_check_that_was_not_made_says_why_and_is_no_problem(tmp_path: Path) -> None:
    checks = [
        Check("a", "the first", says(NotLooked("it is dark"))),
        Check("b", "the second", says(Looked("fine")), after=("a",)),
    ]

    results = await examine(a_host(tmp_path), checks)

    assert [(result.ok, result.looked, result.text) for result in results] == [
        (True, False, "not looked at: it is dark")
    ] * 2


async def test_what_hangs_is_a_finding_with_a_remedy_and_holds_up_nobody(tmp_path: Path) -> None:
    checks = [
        Check("a", "the first", hangs, within_s=0.05, late="pull the plug"),
        Check("b", "the second", says(Looked("fine"))),
        Check("c", "the third", says(Looked("never asked")), after=("a",)),
    ]

    late, fine, after_it = await examine(a_host(tmp_path), checks)

    [finding] = late.findings
    assert (finding.code, finding.severity, finding.remedy) == ("a.late", Severity.ERROR, "pull the plug")
    assert "no result within 0.05 s" in finding.text
    assert fine.text == "fine"
    assert after_it.text == "not looked at: the first failed"


async def test_all_of_them_together_have_a_deadline_too(tmp_path: Path) -> None:
    async def slow(_: Host) -> Outcome:
        try:
            await asyncio.Event().wait()
        finally:
            slow_ended.set()
        return Looked("never")

    async def slowly_well(_: Host) -> Outcome:
        await slow_ended.wait()
        return Looked("well")

    slow_ended = asyncio.Event()
    checks = [
        Check("a", "the first", slow, within_s=3600),
        Check("b", "the second", slowly_well, within_s=3600),
        Check("c", "the third", says(Looked("never asked")), after=("b",)),
    ]

    first, _, third = await examine(a_host(tmp_path), checks, within_s=0.2)

    assert [finding.code for finding in first.findings] == ["a.late"]
    assert not third.looked


async def test_a_time_out_that_a_check_did_not_foresee_is_not_taken_for_its_deadline(tmp_path: Path) -> None:
    async def broken(_: Host) -> Outcome:
        raise TimeoutError("of its own")

    with pytest.raises(ExceptionGroup) as group:
        await examine(a_host(tmp_path), [Check("a", "the first", broken)])
    assert group.group_contains(TimeoutError, match="of its own")


def test_what_was_told_before_is_left_out_by_code_and_place() -> None:
    elsewhere = Finding("a.worn", Severity.WARNING, "it is worn", where="there")
    result = Result("a", "the first", "text", (WORN, elsewhere))

    assert result.without([WORN]).findings == (elsewhere,)
    assert result.without([]) == result


def test_every_check_needs_only_those_that_stand_before_it() -> None:
    seen: set[str] = set()
    for check in table():
        assert set(check.after) <= seen, check.code
        seen.add(check.code)


def test_what_the_daemon_does_by_itself_is_light_and_asks_the_server_nothing() -> None:
    assert {check.code for check in table() if check.unattended} == {"tls", "certificates", "disk"}
