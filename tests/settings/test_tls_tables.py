"""Certificates by name: `[tls.NAME]` in files and in the environment."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.errors import ConfigError, Severity
from agent.spec import TlsSpec

if TYPE_CHECKING:
    from conftest import Host


def _pem(host: Host, name: str, content: str = "-----BEGIN CERTIFICATE-----\n", mode: int = 0o644) -> Path:
    (host.folder / name).parent.mkdir(parents=True, exist_ok=True)
    return host.write(name, content, mode)


def _key(host: Host, name: str, mode: int = 0o600) -> Path:
    return _pem(host, name, "-----BEGIN PRIVATE KEY-----\n", mode)


def test_each_table_is_a_certificate_under_its_name_and_paths_start_from_the_files_folder(host: Host) -> None:
    for name in ("config/main.pem", "config/sub/ca.pem", "elsewhere/lab.pem"):
        _pem(host, name)
    _key(host, "config/main.key")
    _key(host, "config/main.password")
    lab = host.folder / "elsewhere" / "lab.pem"
    host.write(
        "config/config.toml",
        "[tls.main]\ncertificate_file = 'main.pem'\nkey_file = 'main.key'\nkey_password_file = 'main.password'\n"
        f"ca_file = 'sub/ca.pem'\n[tls.lab-2]\ncertificate_file = '{lab.as_posix()}'\n[tls.bare]\n",
    )

    settings = host.load()

    folder = host.config_dir
    assert settings.tls == {
        "main": TlsSpec(
            "main", folder / "main.pem", folder / "main.key", folder / "main.password", folder / "sub/ca.pem"
        ),
        "lab-2": TlsSpec("lab-2", certificate=lab),
        "bare": TlsSpec("bare"),
    }
    assert settings.channels.tls == settings.tls
    assert settings.source_of("tls.main.ca_file") == str(folder / "config.toml")
    assert [finding.code for finding in settings.findings] == ["settings.secret-in-arguments"]


def test_a_table_is_put_together_leaf_by_leaf_from_all_sources(host: Host) -> None:
    for name in ("config/a.pem", "b.pem", "cwd/c.pem"):
        _pem(host, name)
    named = host.write("named.toml", "[tls.lab-2]\nca_file = 'b.pem'\ncertificate_file = 'b.pem'\n")
    host.write("config/config.toml", "[tls.lab-2]\nca_file = 'a.pem'\ncertificate_file = 'a.pem'\n[tls.only-here]\n")

    settings = host.load(AGENT_CONFIG=str(named), AGENT_TLS_LAB_2_CERTIFICATE_FILE="c.pem")

    assert settings.tls == {
        "lab-2": TlsSpec("lab-2", certificate=host.cwd / "c.pem", client_ca=host.folder / "b.pem"),
        "only-here": TlsSpec("only-here"),
    }
    assert settings.source_of("tls.lab-2.certificate_file") == "environment AGENT_TLS_LAB_2_CERTIFICATE_FILE"
    assert settings.source_of("tls.lab-2.ca_file") == str(named)


def test_the_environment_alone_makes_a_table_with_a_name_in_small_letters(host: Host) -> None:
    certificate = _pem(host, "cwd/c.pem")

    settings = host.load(AGENT_TLS_LAB_2_CERTIFICATE_FILE="c.pem", AGENT_TLS_EMPTY_CA_FILE="")

    assert settings.tls == {"lab_2": TlsSpec("lab_2", certificate=certificate)}
    assert [finding.code for finding in settings.findings] == ["settings.secret-in-arguments"]


def test_a_variable_that_fits_two_tables_is_refused_and_not_guessed(host: Host) -> None:
    host.write("config/config.toml", "[tls.lab-2]\n[tls.Lab_2]\n")

    assert host.read().errors == ()
    (problem,) = host.read(AGENT_TLS_LAB_2_CA_FILE="x.pem").errors

    assert (problem.code, problem.where) == ("settings.ambiguous-variable", "AGENT_TLS_LAB_2_CA_FILE")
    assert "[tls.lab-2]" in problem.text
    assert "[tls.Lab_2]" in problem.text


@pytest.mark.parametrize(
    ("content", "code", "where", "remedy"),
    [
        ("[tls.main]\ncert_file = 'x'\n", "settings.unknown-key", "tls.main.cert_file", "tls.main.certificate_file"),
        ("[tls.main]\nverify = false\n", "settings.unknown-key", "tls.main.verify", "config.example.toml"),
        ("[tls.main.deeper]\nca_file = 'x'\n", "settings.unknown-key", "tls.main.deeper", "config.example.toml"),
        ("[tls]\nca_file = 'x'\n", "settings.unknown-key", "tls.ca_file", "[tls.NAME], like [tls.main]"),
        ("[tls]\nmain = 'x'\n", "settings.unknown-key", "tls.main", "[tls.NAME], like [tls.main]"),
        ("tls = true\n", "settings.not-a-table", "tls", "[tls.NAME]"),
        ("[tls.'a b']\n", "settings.bad-name", "[tls.a b]", "letters, digits"),
        ("[tls.\"a\\u001b[31m\"]\n", "settings.bad-name", "[tls.a?[31m]", "letters, digits"),
        ("[tls.'']\nca_file = 'x'\n", "settings.bad-name", "[tls.]", "letters, digits"),
        (f"[tls.{'x' * 41}]\n", "settings.bad-name", f"[tls.{'x' * 41}]", "letters, digits"),
        ("[tls.main]\nca_file = 7\n", "settings.bad-value", "tls.main.ca_file", "quotes"),
        ("[tlss.main]\nca_file = 'x'\n", "settings.unknown-key", "tlss", "did you mean tls?"),
    ],
)  # fmt: skip
def test_what_is_written_wrongly_is_an_error_with_its_place_and_remedy(
    host: Host, content: str, code: str, where: str, remedy: str
) -> None:
    host.write("config/config.toml", content)

    (problem,) = host.read().errors

    assert problem.code == code
    assert problem.where.startswith(f"{where} (" if code == "settings.bad-value" else f"{where} in ")
    assert remedy in problem.remedy
    assert str(problem).isprintable()


def test_a_refused_value_is_not_shown_as_if_it_held(host: Host) -> None:
    host.write("config/config.toml", "[tls.main]\nca_file = 7\n")

    reading = host.read()

    assert reading.tls == {"main": TlsSpec("main")}
    assert not [name for name in reading.values if name.startswith("tls.")]
    assert set(reading.values) == set(reading.sources)


def test_a_variable_that_only_looks_like_one_of_such_a_table_is_a_warning_with_the_one_that_was_meant(
    host: Host,
) -> None:
    finding = next(f for f in host.read(AGENT_TLS_LAB_CERT_FILE="x").findings if f.where.startswith("AGENT_TLS"))

    assert (finding.code, finding.severity) == ("settings.unknown-variable", Severity.WARNING)
    assert "AGENT_TLS_LAB_CERTIFICATE_FILE" in finding.remedy


def test_files_that_are_not_there_are_told_and_do_not_stop_the_start(host: Host) -> None:
    (host.folder / "folder").mkdir()
    host.write("config/config.toml", "[tls.main]\ncertificate_file = 'gone.pem'\nkey_file = '../folder'\n")

    findings = [finding for finding in host.load().findings if finding.code == "settings.tls-file"]

    assert [finding.severity for finding in findings] == [Severity.WARNING, Severity.WARNING]
    certificate, key = findings
    assert certificate.where == f"tls.main.certificate_file ({host.config_dir / 'config.toml'})"
    assert str(host.config_dir / "gone.pem") in certificate.text
    assert "No such file" in certificate.text
    assert "[tls.main]" in certificate.remedy
    assert key.where.startswith("tls.main.key_file ")
    assert "is no file" in key.text


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX pipes")
def test_a_pipe_in_the_place_of_a_certificate_holds_nothing_up(host: Host) -> None:
    os.mkfifo(host.config_dir / "pipe")
    host.write("config/config.toml", "[tls.main]\nca_file = 'pipe'\n")

    assert "settings.tls-file" in host.codes()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX modes")
@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, False), (0o644, True), (0o660, True)])
@pytest.mark.parametrize("leaf", ["certificate_file", "key_file", "key_password_file"])
def test_a_private_key_or_its_password_that_others_may_read_is_a_warning(
    host: Host, leaf: str, mode: int, warned: bool
) -> None:
    certificate = _pem(host, "config/plain.pem")
    held = _key(host, "config/held", mode)
    leaves = {"certificate_file": certificate.name, leaf: held.name}
    host.write("config/config.toml", "[tls.main]\n" + "".join(f"{name} = '{file}'\n" for name, file in leaves.items()))

    findings = [finding for finding in host.load().findings if finding.code == "settings.secret-readable"]

    assert [finding.where for finding in findings] == ([str(held)] if warned else [])
    assert all("private key" in finding.text and f"{mode:04o}" in finding.text for finding in findings)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX modes")
def test_a_key_that_several_tables_share_is_warned_of_once_and_a_bare_certificate_never(host: Host) -> None:
    _pem(host, "config/plain.pem", mode=0o644)
    _key(host, "config/shared.key", 0o644)
    table = "certificate_file = 'plain.pem'\nkey_file = 'shared.key'\n"
    host.write("config/config.toml", f"[tls.a]\n{table}[tls.b]\n{table}")

    assert host.codes().count("settings.secret-readable") == 1


def test_a_key_without_a_certificate_has_no_use(host: Host) -> None:
    _key(host, "config/main.key")
    host.write("config/config.toml", "[tls.main]\nkey_file = 'main.key'\n")

    (finding,) = [finding for finding in host.load().findings if finding.code == "settings.tls-certificate"]

    assert (finding.severity, finding.where) == (Severity.WARNING, "tls.main")


def test_a_certificate_says_nothing_of_what_stands_in_it(host: Host) -> None:
    _key(host, "config/main.pem", 0o644).write_text("-----BEGIN PRIVATE KEY-----\nMIIsecret\n")
    host.write("config/config.toml", "[tls.main]\ncertificate_file = 'main.pem'\nwrong = 1\n")

    with pytest.raises(ConfigError) as refused:
        host.load()

    assert "MIIsecret" not in f"{refused.value!s}{refused.value.findings!r}"
