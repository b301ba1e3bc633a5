"""Files that people edit by hand, as they are met."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import Finding
from agent.settings.sources import gather, parse_properties

if TYPE_CHECKING:
    from conftest import Host

KEY = st.text(st.characters(categories=["L", "N"], include_characters="._-"), min_size=1, max_size=20)
VALUE = st.text(st.characters(categories=["L", "N", "P", "S"]), max_size=30)


def _findings(host: Host, environ: dict[str, str] | None = None) -> list[Finding]:
    return list(gather({}, environ or {}, host.cwd, host.config_dir).findings)


@given(st.lists(st.tuples(KEY, VALUE)), st.sampled_from(["\n", "\r\n"]), st.sampled_from(["=", " = ", "\t=  "]))
def test_what_is_written_as_properties_reads_back(pairs: list[tuple[str, str]], end: str, equals: str) -> None:
    content = "".join(f"# remark{end}  {name}{equals}{value} {end}{end}" for name, value in pairs)

    assert [(name, value) for _, name, value in parse_properties(content)] == pairs


@given(st.text())
def test_any_text_is_read_as_properties_without_trouble(content: str) -> None:
    for number, name, value in parse_properties(content):
        assert 1 <= number <= content.count("\n") + 1
        assert value is None or name


def test_strange_lines_in_properties_are_warnings_with_their_number(host: Host) -> None:
    host.write("cwd/agent.properties", "baseUrl=x\nnonsense\nbaseURL=y\nclientId=1\nclientId=2\n=3\n")

    findings = _findings(host)

    assert [finding.code for finding in findings] == [
        "settings.bad-line", "settings.unknown-property", "settings.repeated-property", "settings.bad-line",
    ]  # fmt: skip
    assert findings[0].where.endswith("line 2")
    assert "did you mean baseUrl?" in findings[1].remedy


def test_properties_in_the_ansi_code_page_are_understood(host: Host) -> None:
    host.write("cwd/agent.properties", "clientId=K\xf6ln\n".encode("cp1252"))

    (layer,) = [layer for layer in gather({}, {}, host.cwd, host.config_dir).layers if layer]

    assert layer["server.client_id"].value == "Köln"


def test_properties_beside_the_configuration_win_over_the_working_directory(host: Host) -> None:
    host.write("cwd/agent.properties", "clientId=cwd\n")
    host.write("config/agent.properties", "clientId=config\n")

    (layer,) = [layer for layer in gather({}, {}, host.cwd, host.config_dir).layers if layer]

    assert layer["server.client_id"].value == "config"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"[server\n", "settings.not-toml"),
        (b'[server]\nca_file = "C:\\new\\users"\n', "settings.not-toml"),
        (b"\xff\xfe[\x00", "settings.not-utf8"),
        (b"server = 1\n", "settings.not-a-table"),
        (b"baseUrl = 'x'\n", "settings.unknown-key"),
        (b"[server.base_url]\nx = 1\n", ""),
    ],
)
def test_a_damaged_toml_file_is_one_finding_with_its_place(host: Host, content: bytes, code: str) -> None:
    path = host.write("config/config.toml", content)

    findings = _findings(host)

    assert [finding.code for finding in findings] == ([code] if code else [])
    assert all(str(path) in finding.where and finding.remedy for finding in findings)


@pytest.mark.parametrize(
    ("content", "line", "column"),
    [
        ("[server]\nbase_url = \n", 2, 12),
        ("[server]\n\nclient_id = 'a' 'b'\n", 3, 17),
        ("[server]\nclient_id = 'topsecret", 2, 23),
        ("[server]\nclient_id = 'a'\nclient_id = 'b'\n", 3, 16),
    ],
)
def test_what_is_no_toml_is_told_with_line_and_column_and_not_quoted(
    host: Host, content: str, line: int, column: int
) -> None:
    path = host.write("config/config.toml", content)

    (finding,) = _findings(host)

    assert (finding.code, finding.where) == ("settings.not-toml", f"{path}, line {line}, column {column}")
    assert "topsecret" not in str(finding)


def test_a_windows_path_in_double_quotes_gets_its_remedy(host: Host) -> None:
    host.write("config/config.toml", '[paths]\ndata_dir = "C:\\users"\n')

    assert "single quotes" in _findings(host)[0].remedy


def test_notepads_byte_order_mark_does_no_harm(host: Host) -> None:
    host.write("config/config.toml", b"\xef\xbb\xbf[server]\nclient_id = 'x'\n")

    assert _findings(host) == []


def test_a_configuration_file_that_was_named_must_be_there(host: Host) -> None:
    (finding,) = _findings(host, {"AGENT_CONFIG": "nowhere.toml"})

    assert (finding.code, finding.where) == ("settings.unreadable", str(host.cwd / "nowhere.toml"))


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need a privilege there")
def test_a_file_that_cannot_be_looked_at_is_told_and_not_taken_for_absent(host: Host) -> None:
    (host.config_dir / "config.toml").symlink_to("config.toml")

    (finding,) = _findings(host)

    assert (finding.code, finding.where) == ("settings.unreadable", str(host.config_dir / "config.toml"))


def test_variables_of_ours_that_we_do_not_know_are_warnings_others_are_none_of_our_business(host: Host) -> None:
    findings = _findings(host, {"AGENT_BASEURL": "x", "HOME": "/", "MEDPLUM_VERSION": "1", "AGENT_CONFIG_DIR": "c"})

    assert [(finding.code, finding.where) for finding in findings] == [("settings.unknown-variable", "AGENT_BASEURL")]


def test_a_path_in_a_file_starts_from_that_files_folder(host: Host, tmp_path: Path) -> None:
    host.write("config/config.toml", "[log]\ndir = 'logs'\n")

    (layer,) = [layer for layer in gather({}, {}, host.cwd, host.config_dir).layers if layer]

    assert layer["log.dir"].base == host.config_dir
