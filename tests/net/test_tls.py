"""Whose certificates we believe."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from agent.errors import ConfigError
from agent.net.tls import client_context


def test_servers_are_verified_and_old_versions_refused(certificate: tuple[Path, Path]) -> None:
    context = client_context(certificate[0])

    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_a_ca_file_that_is_missing_or_no_pem_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "text.pem").write_text("no certificate")
    for unfit in (tmp_path / "missing.pem", tmp_path / "text.pem", tmp_path):
        with pytest.raises(ConfigError, match="BEGIN CERTIFICATE") as refused:
            client_context(unfit)
        assert str(unfit) in str(refused.value)
        assert refused.value.findings[0].where == "server.ca_file"
