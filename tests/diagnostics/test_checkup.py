"""The running daemon looks at itself."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from diagnostics_far_ends import a_host, a_report

from agent.diagnostics import Checkup, table
from agent.diagnostics.check import Check, Looked, Outcome
from agent.diagnostics.host import Host
from agent.errors import Finding, Severity
from agent.settings import Settings

WORN = Finding("a.worn", Severity.WARNING, "it is worn", "watch it")
NOTE = Finding("a.note", Severity.INFO, "it is blue")


async def test_it_looks_again_and_again_and_keeps_what_the_last_look_found(tmp_path: Path) -> None:
    looks = 0
    enough = asyncio.Event()

    async def wears_out_once(_: Host) -> Outcome:
        nonlocal looks
        looks += 1
        if looks == 3:
            enough.set()
            await asyncio.Event().wait()
        return Looked("so so", (WORN, NOTE) if looks == 1 else ())

    checkup = Checkup(
        lambda: a_host(tmp_path), [Check("a", "it", wears_out_once, unattended=True)], first_after_s=0.0, every_s=0.0
    )
    assert checkup.findings == ()
    await checkup.look()
    assert checkup.findings == (WORN,)

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(checkup.run())
        await enough.wait()
        task.cancel()

    assert checkup.findings == ()


async def test_only_the_unattended_checks_are_made(tmp_path: Path) -> None:
    async def never(_: Host) -> Outcome:
        raise AssertionError("this one is for people")

    await Checkup(lambda: a_host(tmp_path), [Check("a", "it", never)]).look()


async def test_a_disk_that_hangs_for_days_does_not_gather_threads(tmp_path: Path) -> None:
    begun: list[int] = []
    release = threading.Event()

    def hang() -> None:
        begun.append(1)
        release.wait()

    async def stuck(host: Host) -> Outcome:
        await host.threads.run(hang)
        return Looked("never")

    checkup = Checkup(lambda: a_host(tmp_path), [Check("disk", "the disk", stuck, within_s=0.03, unattended=True)])
    for _ in range(7):
        await checkup.look()
        assert [finding.code for finding in checkup.findings] == ["disk.late"]

    assert len(begun) == 4
    release.set()


async def test_with_the_server_away_the_look_is_quiet_about_it(tmp_path: Path) -> None:
    settings = Settings.load(
        {
            "base_url": "https://127.0.0.1:1/",
            "client_id": "me",
            "client_secret": "s",
            "agent_id": "a",
            "data_dir": str(tmp_path / "data"),
            "spool.min_free_mb": 1,
        },
        {},
        tmp_path,
    )
    settings.paths.prepare()

    checkup = Checkup(lambda: Host.at_work(settings, {}, a_report()), table())
    await checkup.look()

    assert not [finding for finding in checkup.findings if finding.code.startswith(("tls.", "clock."))]
