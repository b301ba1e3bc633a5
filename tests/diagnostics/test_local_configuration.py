"""What this host was told, and what it keeps of what the server wants."""

from __future__ import annotations

from pathlib import Path

from diagnostics_far_ends import AGENT_ID, SECRET, a_host, findings_of, keep, running

from agent.diagnostics import configuration, settings
from agent.diagnostics.check import Looked
from agent.errors import Severity

SOMEBODY_ELSE = "00000000-0000-4000-8000-000000000000"


async def test_complete_settings_say_where_they_come_from(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text('[server]\nbase_url = "http://127.0.0.1:1/"\n')
    host = a_host(
        tmp_path,
        None,
        config=str(file),
        agent_id=AGENT_ID,
        environ={"AGENT_CLIENT_ID": "me", "AGENT_CLIENT_SECRET": SECRET},
    )

    looked = await settings.look(host)

    assert findings_of(looked) == {}
    assert set(looked.text.removeprefix("complete, from ").split(", ")) == {
        str(file),
        "the environment",
        "the command line",
    }


async def test_settings_that_cannot_be_used_give_every_problem(tmp_path: Path) -> None:
    looked = await settings.look(a_host(tmp_path, "ftp://nowhere", **{"spool.min_free_mb": "plenty"}))

    assert looked.text == "cannot be used: 2 problems"
    assert {finding.where.partition(" ")[0] for finding in looked.findings if finding.severity is Severity.ERROR} == {
        "server.base_url",
        "spool.min_free_mb",
    }
    assert SECRET not in str(looked)


async def test_an_agent_that_runs_was_given_its_settings_another_way(tmp_path: Path) -> None:
    alone = await settings.look(a_host(tmp_path, None))
    beside_it = await settings.look(a_host(tmp_path, None, daemon=running()))

    assert {finding.code for finding in beside_it.findings} - {finding.code for finding in alone.findings} == {
        "settings.not-the-agents"
    }


async def test_before_the_first_start_nothing_is_kept_and_nothing_is_wrong(tmp_path: Path) -> None:
    assert await configuration.look(a_host(tmp_path)) == Looked("none is kept: the agent has not run here yet")


async def test_a_running_agent_that_keeps_nothing_would_be_deaf_after_a_power_cut(tmp_path: Path) -> None:
    found = findings_of(await configuration.look(a_host(tmp_path, daemon=running())))
    assert found["configuration.none"].severity is Severity.WARNING


async def test_what_is_kept_is_told_with_its_age_and_its_problems(tmp_path: Path) -> None:
    host = a_host(tmp_path)
    keep(host, {"adt": "mllp://0.0.0.0:2575", "lab": "carrier-pigeon://roof"})

    looked = await configuration.look(host)

    assert looked.text == "1 channel, kept since 2026-11-22 03:04 UTC"
    [finding] = looked.findings
    assert (finding.code, finding.severity) == ("channel.scheme-unknown", Severity.ERROR)
    assert "lab" in finding.where


async def test_it_is_read_with_settings_that_are_incomplete_too(tmp_path: Path) -> None:
    host = a_host(tmp_path, None)
    keep(host, {"adt": "mllp://0.0.0.0:2575"})
    assert (await configuration.look(host)).text == "1 channel, kept since 2026-11-22 03:04 UTC"


async def test_what_another_agent_kept_is_not_taken_for_ours(tmp_path: Path) -> None:
    host = a_host(tmp_path)
    keep(host, {"adt": "mllp://0.0.0.0:2575"}, agent_id=SOMEBODY_ELSE)

    found = findings_of(await configuration.look(host))

    assert SOMEBODY_ELSE in found["configuration.other-agent"].text
    assert configuration.kept_plan(host) is None


async def test_a_damaged_copy_is_a_finding(tmp_path: Path) -> None:
    host = a_host(tmp_path)
    keep(host, {"adt": "mllp://0.0.0.0:2575"})
    host.paths.last_good.write_text("{")
    assert set(findings_of(await configuration.look(host))) == {"plan.last-good-unusable"}
