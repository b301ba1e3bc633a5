"""The certificates that this host keeps for its channels, as its `[tls.NAME]` tables name them.

Secret: which files such a table leads to, and what a person should hear about them before a channel needs them.
Promise: whatever is wrong with a file is a warning and never stops the start, since channels without TLS do not need
it; nothing of a file's content is told.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from agent.errors import Finding
from agent.settings.files import check_mode, warning
from agent.settings.keys import TLS
from agent.spec import TlsSpec

_KEY_MARK = b"PRIVATE KEY-----"  # of PKCS #1, PKCS #8 and SEC 1 alike (RFC 7468 §10, RFC 5915 §4)
_LARGEST_PEM_BYTES = 1024 * 1024


def tls_specs(tables: Iterable[str], values: Mapping[str, object]) -> dict[str, TlsSpec]:
    """By the name that each table has of its own; a value that was refused counts as not given."""
    specs: dict[str, TlsSpec] = {}
    for table in tables:
        own = table.removeprefix(f"{TLS.name}.")
        specs[own] = TlsSpec(
            own,
            certificate=_path(values.get(f"{table}.certificate_file")),
            key=_path(values.get(f"{table}.key_file")),
            key_password_file=_path(values.get(f"{table}.key_password_file")),
            client_ca=_path(values.get(f"{table}.ca_file")),
        )
    return specs


def look_at(specs: Mapping[str, TlsSpec], sources: Mapping[str, str]) -> list[Finding]:
    """What is missing, cannot be read, is open to others, or has no use."""
    findings: list[Finding] = []
    for spec in specs.values():
        if spec.certificate is None and (spec.key is not None or spec.key_password_file is not None):
            text, remedy = "a key without a certificate has no use", "set certificate_file, or remove the key"
            findings.append(warning("settings.tls-certificate", f"{TLS.name}.{spec.name}", text, remedy))
        for leaf, path, holds in (
            ("certificate_file", spec.certificate, ""),
            ("key_file", spec.key, "a private key"),
            ("key_password_file", spec.key_password_file, "the password of a private key"),
            ("ca_file", spec.client_ca, ""),
        ):
            if path is not None:
                name = f"{TLS.name}.{spec.name}.{leaf}"
                findings += _look_at_file(path, f"{name} ({sources[name]})", spec.name, holds)
    return list(dict.fromkeys(findings))  # several tables may share a key


def _look_at_file(path: Path, where: str, own: str, holds: str) -> list[Finding]:
    findings: list[Finding] = []
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for its writer
            return [_unusable(f"{path} is no file", where, own)]
        with path.open("rb") as file:
            content = file.read(_LARGEST_PEM_BYTES)
        if holds or _KEY_MARK in content:
            check_mode(path, findings, holds or "a private key")
    except OSError as failed:
        findings.append(_unusable(f"{path} cannot be read: {failed.strerror}", where, own))
    return findings


def _unusable(text: str, where: str, own: str) -> Finding:
    remedy = f"put the file where the agent may read it, or correct the path; channels with [tls.{own}] need it"
    return warning("settings.tls-file", where, text, remedy)


def _path(value: object) -> Path | None:
    return value if isinstance(value, Path) else None
