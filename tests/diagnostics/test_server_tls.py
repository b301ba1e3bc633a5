"""What is wrong with the server's TLS, by real handshakes with certificates of every kind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from diagnostics_far_ends import Authority, a_host, a_server, free_port, plain_words, server_side, silence

from agent.diagnostics import tls
from agent.diagnostics.check import Check, Looked, NotLooked, examine
from agent.diagnostics.host import Host
from agent.errors import Finding, Severity


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.of(tmp_path_factory.mktemp("ca"), "General Hospital CA")


@asynccontextmanager
async def a_server_that_shows(certificate: Path, host_folder: Path, ca_file: Path | None) -> AsyncIterator[Host]:
    """The host whose settings lead to a server with this certificate."""
    given = {"server.ca_file": str(ca_file)} if ca_file is not None else {}
    async with a_server(silence, server_side(certificate)) as port:
        yield a_host(host_folder, f"https://localhost:{port}/", **given)


async def the_finding(host: Host) -> Finding:
    outcome = await tls.look(host)
    assert isinstance(outcome, Looked)
    [finding] = outcome.findings
    assert finding.remedy
    return finding


async def test_a_certificate_that_is_believed_is_told_with_issuer_and_end(tmp_path: Path, authority: Authority) -> None:
    async with a_server_that_shows(authority.issue(), tmp_path, authority.file) as host:
        outcome = await tls.look(host)
    assert isinstance(outcome, Looked)
    until = datetime.now(UTC) + timedelta(days=365)
    assert outcome == Looked(f"TLSv1.3, certificate by 'General Hospital CA', valid until {until:%Y-%m-%d}")


async def test_a_certificate_that_ends_soon_is_a_warning(tmp_path: Path, authority: Authority) -> None:
    async with a_server_that_shows(authority.issue(until_days=20), tmp_path, authority.file) as host:
        finding = await the_finding(host)
    assert (finding.code, finding.severity) == ("tls.server-expiring", Severity.WARNING)
    assert "in 19 days" in finding.text


async def test_an_expired_certificate_is_told_with_its_end_and_our_clock(tmp_path: Path, authority: Authority) -> None:
    async with a_server_that_shows(authority.issue(since_days=-9, until_days=-2), tmp_path, authority.file) as host:
        finding = await the_finding(host)
    now = datetime.now(UTC)
    assert (finding.code, finding.severity) == ("tls.server-expired", Severity.ERROR)
    assert f"expired on {now - timedelta(days=2):%Y-%m-%d}" in finding.text
    assert f"this host's clock says {now:%Y-%m-%d}" in finding.text
    assert "set this host's clock" in finding.remedy


async def test_a_certificate_of_the_future_points_to_the_clock_as_well(tmp_path: Path, authority: Authority) -> None:
    async with a_server_that_shows(authority.issue(since_days=2), tmp_path, authority.file) as host:
        finding = await the_finding(host)
    assert finding.code == "tls.server-not-yet-valid"
    assert "set this host's clock" in finding.remedy


async def test_a_certificate_for_somebody_else_says_for_whom(tmp_path: Path, authority: Authority) -> None:
    async with a_server_that_shows(authority.issue("other.example"), tmp_path, authority.file) as host:
        finding = await the_finding(host)
    assert finding.code == "tls.server-name"
    assert finding.text == "the certificate shown is not for localhost, but for other.example, 192.0.2.7"


async def test_an_unknown_issuer_is_named_and_the_setting_that_would_help(tmp_path: Path, authority: Authority) -> None:
    async with a_server_that_shows(authority.issue(), tmp_path, None) as host:
        finding = await the_finding(host)
    assert finding.code == "tls.server-untrusted"
    assert "was issued by 'General Hospital CA', which this host does not believe" in finding.text
    assert "name it in server.ca_file" in finding.remedy


async def test_with_a_ca_file_that_lacks_the_issuer_that_file_is_named(tmp_path: Path, authority: Authority) -> None:
    other = Authority.of(tmp_path, "Somebody Else")
    async with a_server_that_shows(authority.issue(), tmp_path, other.file) as host:
        finding = await the_finding(host)
    assert finding.code == "tls.server-untrusted"
    assert f"add that authority's certificate (PEM) to {other.file}" in finding.remedy


async def test_a_certificate_that_vouches_for_itself_is_said_to(tmp_path: Path) -> None:
    itself = Authority.of(tmp_path, "localhost")
    file = itself.issue("localhost")
    async with a_server_that_shows(file, tmp_path, None) as host:
        finding = await the_finding(host)
    assert "is signed by nobody but itself ('localhost')" in finding.text


async def test_a_ca_file_that_holds_nothing_is_told_as_such(tmp_path: Path, authority: Authority) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    async with a_server_that_shows(authority.issue(), tmp_path, empty) as host:
        assert (await the_finding(host)).code == "tls.ca-file"


async def test_a_port_that_speaks_no_tls_is_said_to(tmp_path: Path) -> None:
    async with a_server(plain_words) as port:
        finding = await the_finding(a_host(tmp_path, f"https://localhost:{port}/"))
    assert finding.code == "tls.not-tls"
    assert "a plain server is http://" in finding.remedy


async def test_a_server_that_stopped_at_tls_1_1_is_said_to(tmp_path: Path) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(bytes.fromhex("15 0302 0002 02 46"))  # fatal alert protocol_version (RFC 5246 §7.2)
        await writer.drain()
        await silence(reader, writer)

    async with a_server(refuse) as port:
        finding = await the_finding(a_host(tmp_path, f"https://localhost:{port}/"))
    assert finding.code == "tls.too-old"


async def test_a_connection_that_is_cut_in_the_handshake_points_to_the_firewall(tmp_path: Path) -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)

    async with a_server(cut) as port:
        finding = await the_finding(a_host(tmp_path, f"https://localhost:{port}/"))
    assert finding.code == "tls.cut"
    assert "firewall" in finding.remedy


async def test_a_port_that_never_answers_the_handshake_is_late_and_not_for_ever(tmp_path: Path) -> None:
    async with a_server(silence) as port:
        check = Check("tls", "TLS", tls.look, within_s=0.3)
        [result] = await examine(a_host(tmp_path, f"https://localhost:{port}/"), [check])
    assert [finding.code for finding in result.findings] == ["tls.late"]


async def test_a_server_that_is_away_is_not_a_problem_of_its_certificate(tmp_path: Path) -> None:
    outcome = await tls.look(a_host(tmp_path, f"https://localhost:{free_port()}/"))
    assert outcome == NotLooked("there is no connection to the server")


async def test_a_plain_address_has_no_tls_to_look_at(tmp_path: Path) -> None:
    outcome = await tls.look(a_host(tmp_path, "http://localhost:1/"))
    assert outcome == Looked("not used: the server's address begins with http://")
