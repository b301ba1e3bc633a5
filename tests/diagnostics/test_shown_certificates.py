"""The certificates that senders are shown."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from diagnostics_far_ends import Authority, a_host, findings_of, keep

from agent.diagnostics import certificates
from agent.diagnostics.check import Looked
from agent.diagnostics.host import Host
from agent.errors import Severity


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.of(tmp_path, "General Hospital CA")


def a_host_with(folder: Path, **files: str) -> Host:
    """A host with [tls.main] of these files, and a channel that shows it."""
    file = folder / "agent.toml"
    leaves = "\n".join(f'{leaf} = "{path}"' for leaf, path in files.items())
    file.write_text(f"[tls.main]\n{leaves}\n")
    host = a_host(folder, config=str(file))
    keep(host, {"adt": "mllps://0.0.0.0:2575?tls=main"})
    return host


async def test_without_any_there_is_nothing_to_look_at(tmp_path: Path) -> None:
    assert await certificates.look(a_host(tmp_path)) == Looked("no [tls.NAME] is configured")


async def test_it_is_looked_at_with_incomplete_settings_too(tmp_path: Path, authority: Authority) -> None:
    file = tmp_path / "agent.toml"
    file.write_text(f'[tls.main]\ncertificate_file = "{authority.issue()}"\n')
    host = a_host(tmp_path, None, config=str(file))
    assert host.settings is None
    looked = await certificates.look(host)
    assert isinstance(looked, Looked)
    assert looked.text.startswith("main for no channel, valid until ")


async def test_a_sound_one_is_told_with_who_shows_it_and_its_end(tmp_path: Path, authority: Authority) -> None:
    host = a_host_with(tmp_path, certificate_file=str(authority.issue()))
    until = datetime.now(UTC) + timedelta(days=365)
    assert await certificates.look(host) == Looked(f"main for adt, valid until {until:%Y-%m-%d}")


@pytest.mark.parametrize(
    ("days", "code", "severity"),
    [(20, "tls.expiring", Severity.WARNING), (0, "tls.expired", Severity.ERROR)],
)
async def test_its_end_is_told_before_and_after(
    tmp_path: Path, authority: Authority, days: int, code: str, severity: Severity
) -> None:
    file = authority.issue(since_days=-9, until_days=days)
    found = findings_of(await certificates.look(a_host_with(tmp_path, certificate_file=str(file))))
    assert (set(found), found[code].severity) == ({code}, severity)


async def test_files_that_cannot_be_used_are_each_told(tmp_path: Path, authority: Authority) -> None:
    host = a_host_with(tmp_path, certificate_file=str(tmp_path / "none.pem"))
    looked = await certificates.look(host)
    assert isinstance(looked, Looked)
    assert looked.text == "main for adt, cannot be used"
    assert any(str(tmp_path / "none.pem") in str(finding) for finding in looked.findings)
    assert all(finding.remedy for finding in looked.findings)


async def test_files_that_no_channel_needs_are_only_a_warning(tmp_path: Path) -> None:
    host = a_host_with(tmp_path, certificate_file=str(tmp_path / "none.pem"))
    keep(host, {"adt": "mllp://0.0.0.0:2575"})
    looked = await certificates.look(host)
    assert isinstance(looked, Looked)
    assert looked.text == "main for no channel, cannot be used"
    assert {finding.severity for finding in looked.findings} == {Severity.WARNING}


async def test_a_key_of_another_certificate_is_told(tmp_path: Path, authority: Authority) -> None:
    other = authority.issue("other.example")
    host = a_host_with(tmp_path, certificate_file=str(authority.issue()), key_file=str(other))
    looked = await certificates.look(host)
    assert isinstance(looked, Looked)
    assert any(finding.severity is Severity.ERROR for finding in looked.findings)
